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

/// Sends a copy of `fd` over the unix socket `to` with one byte. Child-safe.
///
/// # Errors
/// Of sendmsg(2).
pub fn send_descriptor(to: RawFd, fd: RawFd) -> Result<(), Errno> {
    let mut byte = *b"d";
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = OneDescriptor::empty();
    control.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<RawFd>()) as _;
    (control.header.cmsg_level, control.header.cmsg_type, control.fd) = (libc::SOL_SOCKET, libc::SCM_RIGHTS, fd);
    // SAFETY: zero is valid for every field.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<OneDescriptor>() as _;
    // SAFETY: `message` points to one part of one byte and to control data of the stated length, all alive.
    check(unsafe { libc::syscall(libc::SYS_sendmsg, to, &raw const message, libc::MSG_NOSIGNAL) }).map(drop)
}
