//! Sockets inside another network namespace: how the host reaches in, without any interface between the two.
//!
//! A socket belongs for ever to the namespace in which its maker was at that moment. The calling thread steps in, makes the
//! socket and steps back (6 us); from then on it is an ordinary descriptor.

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

fn within<T>(netns: BorrowedFd<'_>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let home = std::fs::File::open("/proc/thread-self/ns/net").io(|| "open(/proc/thread-self/ns/net)".into())?;
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network)).io(|| "setns(CLONE_NEWNET)".into())?;
    let result = work();
    if move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
        // A thread that stays in a tenant's network would do all its later work there.
        std::process::abort();
    }
    result
}
