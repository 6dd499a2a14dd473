//! Frames of the warden's socket: a length, JSON, and file descriptors beside the first byte.

use std::{
    io::{Error, ErrorKind, IoSlice, IoSliceMut, Read, Result, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};

/// Longest frame. A launch with 64 KiB of config vars is short; the list of all dynos of a large host is not. Memory is taken only
/// as bytes arrive.
const MAX_FRAME: usize = 64 << 20;
/// Most descriptors beside one frame: pidfd, three pipes, listeners.
const MAX_FDS: usize = 16;

/// Sends one message.
pub fn send(stream: &UnixStream, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MAX_FRAME || fds.len() > MAX_FDS {
        return Err(Error::new(ErrorKind::InvalidInput, format!("frame of {} bytes with {} descriptors is too large", body.len(), fds.len())));
    }
    let length = u32::try_from(body.len()).map_err(Error::other)?.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::other("no room for descriptors"));
    }
    let sent = sendmsg(stream.as_fd(), &[IoSlice::new(&length)], &mut beside, SendFlags::NOSIGNAL)?;
    if sent != length.len() {
        return Err(Error::new(ErrorKind::WriteZero, "short write of a frame's length"));
    }
    (&*stream).write_all(&body)
}

/// Receives one message; None at the end of the stream.
pub fn receive<T: DeserializeOwned>(stream: &UnixStream) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0u8; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut length)], &mut beside, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let fds = beside.drain().filter_map(|m| if let RecvAncillaryMessage::ScmRights(fds) = m { Some(fds) } else { None }).flatten().collect();
    if got == 0 {
        return Ok(None);
    }
    (&*stream).read_exact(&mut length[got..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(Error::new(ErrorKind::InvalidData, format!("frame of {length} bytes; at most {MAX_FRAME} are taken")));
    }
    let mut body = Vec::new();
    if stream.take(length as u64).read_to_end(&mut body)? != length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((serde_json::from_slice(&body)?, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_together() {
        let (a, b) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(&a, &"x".repeat(10), &[file.as_fd(), a.as_fd()]).unwrap();
        let (text, fds): (String, _) = receive(&b).unwrap().unwrap();
        assert_eq!((text.len(), fds.len()), (10, 2));
        drop(a);
        drop(fds);
        assert!(receive::<String>(&b).unwrap().is_none());
    }

    #[test]
    fn hostile_lengths_are_refused_before_they_are_allocated() {
        let (a, b) = UnixStream::pair().unwrap();
        (&a).write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert_eq!(receive::<String>(&b).unwrap_err().kind(), ErrorKind::InvalidData);
        let (a, b) = UnixStream::pair().unwrap();
        (&a).write_all(&[9, 0, 0, 0, b'"']).unwrap();
        drop(a);
        assert_eq!(receive::<String>(&b).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
