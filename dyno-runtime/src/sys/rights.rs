//! Descriptors over unix sockets (unix(7), SCM_RIGHTS), one at a time, by number: in a vforked child the table is a copy, and a number is all
//! that there is.

use std::os::fd::RawFd;

use rustix::io::Errno;

use super::check;

/// Control data for one descriptor: CMSG_SPACE(4).
#[repr(C, align(8))]
struct OneDescriptor {
    header: libc::cmsghdr,
    fd: RawFd,
}

impl OneDescriptor {
    /// The header's members differ between C libraries.
    fn empty() -> Self {
        // SAFETY: zero is valid for every field.
        Self { header: unsafe { std::mem::zeroed() }, fd: -1 }
    }
}

/// Calls sendmsg(2) or recvmsg(2) with one byte and room for one descriptor.
fn exchange(call: libc::c_long, socket: RawFd, control: &mut OneDescriptor, flags: libc::c_int) -> Result<libc::c_long, Errno> {
    let mut byte = *b"d";
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: zero is valid for every field.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = std::ptr::from_mut(control).cast();
    message.msg_controllen = size_of::<OneDescriptor>() as _;
    // SAFETY: `message` points to one part of one byte and to control data of the stated length, all alive and ours to write.
    check(unsafe { libc::syscall(call, socket, &raw mut message, flags) })
}

/// Sends a copy of `fd` over the unix socket `to` with one byte. Child-safe.
///
/// # Errors
/// Of sendmsg(2).
pub fn send_descriptor(to: RawFd, fd: RawFd) -> Result<(), Errno> {
    let mut control = OneDescriptor::empty();
    control.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<RawFd>()) as _;
    (control.header.cmsg_level, control.header.cmsg_type, control.fd) = (libc::SOL_SOCKET, libc::SCM_RIGHTS, fd);
    exchange(libc::SYS_sendmsg, to, &mut control, libc::MSG_NOSIGNAL).map(drop)
}

/// Waits for one descriptor over `from`; it is close-on-exec. Child-safe.
///
/// # Errors
/// Of recvmsg(2); ECONNRESET when the other side went away without sending one.
pub fn receive_descriptor(from: RawFd) -> Result<RawFd, Errno> {
    let mut control = OneDescriptor::empty();
    loop {
        match exchange(libc::SYS_recvmsg, from, &mut control, libc::MSG_CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Ok(_) if control.fd >= 0 => return Ok(control.fd),
            Ok(_) => return Err(Errno::CONNRESET),
            Err(e) => return Err(e),
        }
    }
}

/// Enters the network namespace `netns`, a number of the caller's table. Child-safe.
///
/// # Errors
/// Of setns(2).
pub fn join_network(netns: RawFd) -> Result<(), Errno> {
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_setns, netns, libc::CLONE_NEWNET) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    #[test]
    fn a_descriptor_arrives_and_an_end_is_told() {
        let (here, there) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        send_descriptor(there.as_raw_fd(), writer.as_raw_fd()).unwrap();
        drop((writer, there));
        let fd = receive_descriptor(here.as_raw_fd()).unwrap();
        // SAFETY: just received, and nobody else's.
        let writer = unsafe { OwnedFd::from_raw_fd(fd) };
        rustix::io::write(&writer, b"x").unwrap();
        drop(writer);
        assert_eq!(std::io::read_to_string(reader).unwrap(), "x");
        assert_eq!(receive_descriptor(here.as_raw_fd()), Err(Errno::CONNRESET));
    }
}
