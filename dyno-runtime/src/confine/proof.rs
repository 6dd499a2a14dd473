//! Attempts that must fail once the walls stand, each at something that harms nobody should it succeed.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
};

use rustix::{
    fs::{Mode, OFlags, inotify},
    io::Errno,
    net::{AddressFamily, SocketType, bind, connect, socket},
};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys,
};

/// What is possible before the walls stand; that it is impossible afterwards proves them.
pub(super) struct Before {
    /// Of this process from before: out of its own reach afterwards.
    listener: UnixListener,
    address: SocketAddr,
}

impl Before {
    /// Without walls each attempt succeeds, or nothing would be proven.
    pub fn look() -> Result<Self> {
        list_root().io(|| "open(/, O_DIRECTORY), which shows later that Landlock holds".to_owned())?;
        let (listener, address) = listen_abstractly().io(|| "bind(an abstract socket)".to_owned())?;
        UnixStream::connect_addr(&address).io(|| "connect(an abstract socket of our own)".to_owned())?;
        Ok(Self { listener, address })
    }

    /// That no signal leaves is not tried: nobody is certain to be there whom it would reach without the wall and not harm.
    pub fn landlock_holds(&self, abi: u32) -> Result<()> {
        refused("Landlock", "open(/, O_DIRECTORY)", list_root().map(drop), Errno::ACCESS)?;
        if abi >= 4 {
            // No packet leaves in any case: nobody can listen on port 0.
            refused("Landlock", "connect(127.0.0.1:0)", with_tcp(|tcp, address| connect(tcp, address)), Errno::ACCESS)?;
            refused("Landlock", "bind(127.0.0.1:0)", with_tcp(|tcp, address| bind(tcp, address)), Errno::ACCESS)?;
        }
        if abi >= 6 {
            let _open = &self.listener;
            let connected = UnixStream::connect_addr(&self.address).map(drop);
            let connected = connected.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO));
            refused("Landlock", "connect(an abstract socket from before)", connected, Errno::PERM)?;
        }
        Ok(())
    }
}

/// The filter is there, as the kernel tells it, and denies.
pub(super) fn filter_holds() -> Result<()> {
    if !sys::has_seccomp_filter() {
        return Err(Error::refused(ErrorKind::Wall, "prctl(PR_GET_SECCOMP): the filter was installed and is not there"));
    }
    refused("the system-call filter", "inotify_init1", inotify::init(inotify::CreateFlags::CLOEXEC).map(drop), Errno::PERM)
}

fn refused(wall: &str, what: &str, got: rustix::io::Result<()>, want: Errno) -> Result<()> {
    match got {
        Err(e) if e == want => Ok(()),
        Err(e) => Err(Error::call(ErrorKind::Wall, format!("{wall} stands and {what} is refused otherwise than with {want}"), e)),
        Ok(()) => Err(Error::refused(ErrorKind::Wall, format!("{wall} was raised and does not hold: {what} succeeds"))),
    }
}

fn list_root() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn with_tcp(attempt: impl FnOnce(&OwnedFd, &SocketAddrV4) -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    let tcp = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    attempt(&tcp, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))
}

/// By a name that nobody else guesses first.
fn listen_abstractly() -> io::Result<(UnixListener, SocketAddr)> {
    let mut chance = [0u8; 16];
    rustix::rand::getrandom(&mut chance, rustix::rand::GetRandomFlags::empty())?;
    let address = SocketAddr::from_abstract_name(format!("dyno-proof-{:032x}", u128::from_ne_bytes(chance)))?;
    Ok((UnixListener::bind_addr(&address)?, address))
}
