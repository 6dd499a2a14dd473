//! Networks: sockets inside another namespace, which is how the host reaches in without any interface between the two; and the link
//! of a sandbox with egress ([`egress`]). Namespaces made ahead ([`fresh()`]), and those of ended sandboxes that may serve again
//! ([`Recycled`]).
//!
//! A socket belongs for ever to the namespace in which its maker was at that moment. The calling thread steps in, makes the
//! socket and steps back (6 us); from then on it is an ordinary descriptor.

mod at_work;
mod clean;
pub mod egress;
pub(crate) mod fresh;
#[cfg(feature = "oci")]
mod handover;
mod lingering;
mod link;
mod netlink;
mod nft;
mod probe;
mod recycled;
pub(crate) mod resolver;
mod rules;
mod wall;

pub use clean::{is_as_made, prove_clean};
pub use fresh::fresh;
pub(crate) use fresh::{fresh_from_here, open_with_loopback};
#[cfg(feature = "oci")]
pub(crate) use handover::hand_over;
pub use recycled::Recycled;

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{self, Visitor},
};

/// An unconnected TCP socket (non-blocking) inside `netns`.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN; of socket(2).
pub fn socket_in(netns: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut visit = Visit { netns, port: None, step: Step::Enter, socket: None };
    visit.go()
}

/// A TCP socket that listens on 127.0.0.1:`port` inside `netns`.
///
/// # Errors
/// EADDRINUSE; as [`socket_in`].
pub fn listen_in(netns: BorrowedFd<'_>, port: u16) -> Result<OwnedFd> {
    let mut visit = Visit { netns, port: Some(port), step: Step::Enter, socket: None };
    visit.go()
}

/// Does `work` inside `netns`: on this thread, and on what it starts.
fn within<T>(netns: BorrowedFd<'_>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let enter = || move_into_link_name_space(netns, Some(LinkNameSpaceType::Network)).io(|| "setns(CLONE_NEWNET)".into());
    Home::remember()?.away(enter, work)
}

/// Gives the host that process `pid` lives on, a sandbox's init that waits, another name.
///
/// # Errors
/// Of open(2), setns(2) and sethostname(2).
pub(crate) fn name_host(pid: u32, name: &str) -> Result<()> {
    let open = |path: String| std::fs::File::open(&path).io(|| format!("open({path})"));
    let (home, there) = (open("/proc/thread-self/ns/uts".into())?, open(format!("/proc/{pid}/ns/uts"))?);
    let enter = |to: &std::fs::File| move_into_link_name_space(to.as_fd(), Some(LinkNameSpaceType::HostNameAndNISDomainName));
    enter(&there).io(|| "setns(CLONE_NEWUTS)".into())?;
    let named = rustix::system::sethostname(name.as_bytes());
    if enter(&home).is_err() {
        // What this thread did next would be done to a tenant.
        std::process::abort();
    }
    named.io(|| format!("sethostname({name:?})"))
}

/// Does `work` inside a network namespace that ends with it, unless it has kept a descriptor of it.
fn within_new<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    Home::remember()?.in_new(work)
}

/// The network to which a thread comes back, whatever happens: one that stayed in a tenant's would do all its later work there.
#[derive(Debug)]
pub(crate) struct Home(std::fs::File);

impl Home {
    /// The calling thread's.
    pub fn remember() -> Result<Self> {
        Ok(Self(std::fs::File::open("/proc/thread-self/ns/net").io(|| "open(/proc/thread-self/ns/net)".into())?))
    }

    /// Does `work` in a new network namespace.
    pub fn in_new<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.away(|| sys::unshare(sys::Flags::NEWNET).wall(|| "unshare(CLONE_NEWNET)".into()), work)
    }

    /// Does `work` where `leave` goes. Who may not leave may not come back either.
    fn away<T, E>(
        &self,
        leave: impl FnOnce() -> std::result::Result<(), E>,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        struct Back<'h>(&'h Home);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                if move_into_link_name_space(self.0.0.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
                    std::process::abort();
                }
            }
        }
        leave()?;
        let _back = Back(self);
        work()
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Enter,
    Socket,
    Bind,
    Listen,
}

/// One socket to be made in there.
struct Visit<'a> {
    netns: BorrowedFd<'a>,
    port: Option<u16>,
    step: Step,
    socket: Option<OwnedFd>,
}

impl Visit<'_> {
    fn go(&mut self) -> Result<OwnedFd> {
        let netns = self.netns;
        let enter = || move_into_link_name_space(netns, Some(LinkNameSpaceType::Network));
        let made = match Home::remember()?.away(enter, || self.make()) {
            // Not ours to enter as we are: with the rights of the user namespace that owns it, which may be ours.
            Err(Errno::PERM) if matches!(self.step, Step::Enter) => {
                let userns = sys::owner_of(self.netns).io(|| "ioctl(NS_GET_USERNS) of the dyno's network".into())?;
                match sys::visit(userns.as_fd(), self) {
                    // It is the one that we are in, so that nothing is gained (user_namespaces(7)).
                    Err(Errno::INVAL) if matches!(self.step, Step::Enter) => Err(Errno::PERM),
                    other => other,
                }
            }
            other => other,
        };
        made.io(|| match (self.step, self.port) {
            (Step::Enter, _) => "setns(CLONE_NEWNET)".into(),
            (Step::Socket, _) => "socket(AF_INET) in the dyno's network".into(),
            (Step::Bind, port) => format!("bind(127.0.0.1:{}) in the dyno's network", port.unwrap_or(0)),
            (Step::Listen, port) => format!("listen(127.0.0.1:{}) in the dyno's network", port.unwrap_or(0)),
        })?;
        self.socket.take().ok_or_else(|| Error::refused(ErrorKind::Io, "socket(AF_INET) in the dyno's network: none was made"))
    }

    /// Child-safe.
    fn make(&mut self) -> std::result::Result<(), Errno> {
        self.step = Step::Socket;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        if let Some(port) = self.port {
            self.step = Step::Bind;
            bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
            self.step = Step::Listen;
            listen(&socket, 128)?;
        }
        self.socket = Some(socket);
        Ok(())
    }
}

impl Visitor for Visit<'_> {
    fn run(&mut self) -> std::result::Result<(), Errno> {
        move_into_link_name_space(self.netns, Some(LinkNameSpaceType::Network))?;
        self.make()
    }
}
