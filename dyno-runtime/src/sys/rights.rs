//! Descriptors over unix sockets (unix(7), SCM_RIGHTS), one at a time, by number: in a vforked child the table is a copy, and a number is all
//! that there is.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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

/// A message of one byte and `control`, for a call that sends it or fills it.
fn with_message<T>(byte: &mut u8, control: &mut OneDescriptor, call: impl FnOnce(*mut libc::msghdr) -> T) -> T {
    let mut part = libc::iovec { iov_base: std::ptr::from_mut(byte).cast(), iov_len: 1 };
    // SAFETY: zero is valid for every field.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = std::ptr::from_mut(control).cast();
    message.msg_controllen = size_of::<OneDescriptor>() as _;
    call(&raw mut message)
}

/// Sends a copy of `fd` over the unix socket `to` with one byte. Child-safe.
///
/// # Errors
/// Of sendmsg(2).
pub fn send_descriptor(to: RawFd, fd: RawFd) -> Result<(), Errno> {
    let mut control = OneDescriptor::empty();
    control.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<RawFd>()) as _;
    (control.header.cmsg_level, control.header.cmsg_type, control.fd) = (libc::SOL_SOCKET, libc::SCM_RIGHTS, fd);
    let mut byte = b'd';
    with_message(&mut byte, &mut control, |message| {
        // SAFETY: `message` points to one part of one byte and to control data of the stated length, all alive.
        check(unsafe { libc::syscall(libc::SYS_sendmsg, to, message, libc::MSG_NOSIGNAL) }).map(drop)
    })
}

/// Waits for what [`send_descriptor`] sends. None: the other end was closed without it. Child-safe.
///
/// # Errors
/// Of recvmsg(2); EBADMSG for a message without a descriptor.
pub fn receive_descriptor(from: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    let (mut byte, mut control) = (0, OneDescriptor::empty());
    let received = loop {
        let received = with_message(&mut byte, &mut control, |message| {
            // SAFETY: `message` points to one part of one byte and to room for control data of the stated length, all alive.
            check(unsafe { libc::syscall(libc::SYS_recvmsg, from.as_raw_fd(), message, libc::MSG_CMSG_CLOEXEC) })
        });
        match received {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let about = (control.header.cmsg_level, control.header.cmsg_type);
    match (received, about) {
        (0, _) => Ok(None),
        // SAFETY: the kernel has just put it into our table.
        (_, (libc::SOL_SOCKET, libc::SCM_RIGHTS)) if control.fd >= 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(control.fd) })),
        _ => Err(Errno::BADMSG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::os::fd::AsFd;

    #[test]
    fn what_is_sent_is_received() {
        let (here, there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send_descriptor(there.as_raw_fd(), file.as_raw_fd()).unwrap();
        let got = receive_descriptor(here.as_fd()).unwrap().unwrap();
        let about = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).unwrap();
        assert_eq!(about(got.as_fd()), about(file.as_fd()));
        assert!(rustix::io::fcntl_getfd(&got).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        rustix::io::write(&there, b"x").unwrap();
        assert_eq!(receive_descriptor(here.as_fd()).unwrap_err(), Errno::BADMSG);
        drop(there);
        assert!(receive_descriptor(here.as_fd()).unwrap().is_none());
    }
}
