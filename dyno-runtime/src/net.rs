//! Networks: sockets inside another namespace, which is how the host reaches in without any interface between the two; and the link
//! of a sandbox with egress ([`egress`]).
//!
//! A socket belongs for ever to the namespace in which its maker was at that moment. The calling thread steps in, makes the
//! socket and steps back (6 us); from then on it is an ordinary descriptor.

pub mod egress;
mod link;
mod netlink;
mod nft;
mod probe;
pub(crate) mod resolver;
mod rules;
mod wall;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::error::{Context, Result};

/// An unconnected TCP socket (non-blocking) inside `netns`.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN; of socket(2).
pub fn socket_in(netns: BorrowedFd<'_>) -> Result<OwnedFd> {
    within(netns, || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).io(|| "socket(AF_INET) in the dyno's network".into())
    })
}

/// A TCP socket that listens on 127.0.0.1:`port` inside `netns`.
///
/// # Errors
/// EADDRINUSE; as [`socket_in`].
pub fn listen_in(netns: BorrowedFd<'_>, port: u16) -> Result<OwnedFd> {
    let socket = socket_in(netns)?;
    let address = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
    bind(&socket, &address).io(|| format!("bind({address}) in the dyno's network"))?;
    listen(&socket, 128).io(|| format!("listen({address}) in the dyno's network"))?;
    Ok(socket)
}

/// Does `work` inside `netns`: on this thread, and on what it starts.
fn within<T>(netns: BorrowedFd<'_>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let _home = Home::remember()?;
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network)).io(|| "setns(CLONE_NEWNET)".into())?;
    work()
}

/// Does `work` inside a network namespace that ends with it.
fn within_new<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let _home = Home::remember()?;
    crate::sys::unshare(crate::sys::Flags::NEWNET).wall(|| "unshare(CLONE_NEWNET)".into())?;
    work()
}

/// The network to which this thread comes back, whatever happens: one that stayed in a tenant's would do all its later work there.
struct Home(std::fs::File);

impl Home {
    fn remember() -> Result<Self> {
        Ok(Self(std::fs::File::open("/proc/thread-self/ns/net").io(|| "open(/proc/thread-self/ns/net)".into())?))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            std::process::abort();
        }
    }
}
