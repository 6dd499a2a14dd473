//! Frames of the warden's socket: a length, JSON, and file descriptors beside the first byte.
//!
//! A frame is one write, so that its reader is woken once: a length that came alone would wake it to wait again.

use std::{
    io::{Error, ErrorKind, IoSlice, IoSliceMut, Read, Result, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg};
use serde::{Serialize, de::DeserializeOwned};

/// Longest frame. A launch with 64 KiB of config vars is short; the list of all dynos of a large host is not. Memory is taken only
/// as bytes arrive.
const MAX_FRAME: usize = 64 << 20;
/// Most descriptors beside one frame: pidfd, three pipes, listeners.
const MAX_FDS: usize = 16;
/// Bytes of the length before each frame, little endian.
const LENGTH: usize = 4;
/// What is read at once; nearly every frame is shorter.
const FIRST: usize = 4096;

/// A message as it goes over the wire.
pub fn frame(message: &impl Serialize) -> Result<Vec<u8>> {
    let mut frame = vec![0; LENGTH];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - LENGTH;
    if length > MAX_FRAME {
        return Err(Error::new(ErrorKind::InvalidInput, format!("frame of {length} bytes is too large")));
    }
    frame[..LENGTH].copy_from_slice(&u32::try_from(length).map_err(Error::other)?.to_le_bytes());
    Ok(frame)
}

/// Sends one message.
pub fn send(stream: &UnixStream, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let frame = frame(message)?;
    if fds.len() > MAX_FDS {
        return Err(Error::new(ErrorKind::InvalidInput, format!("{} descriptors beside one frame are too many", fds.len())));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::other("no room for descriptors"));
    }
    let sent = sendmsg(stream.as_fd(), &[IoSlice::new(&frame)], &mut beside, SendFlags::NOSIGNAL)?;
    // The descriptors went with the first byte.
    (&*stream).write_all(&frame[sent..])
}

/// Receives one message; None at the end of the stream.
pub fn receive<T: DeserializeOwned>(stream: &UnixStream) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut first = [0; FIRST];
    let (got, fds) = receive_first(stream, &mut first, RecvFlags::CMSG_CLOEXEC)?;
    if got == 0 {
        return Ok(None);
    }
    let mut body = first[..got].to_vec();
    if got < LENGTH {
        stream.take((LENGTH - got) as u64).read_to_end(&mut body)?;
    }
    let missing = missing(&body)?;
    stream.take(missing as u64).read_to_end(&mut body)?;
    Ok(Some((parse(&body)?, fds)))
}

/// [`receive`] for who must not sleep. `stream` carries one exchange at a time.
pub async fn receive_later<T: DeserializeOwned>(stream: &mut tokio::net::UnixStream) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut first = [0; FIRST];
    let shared: &tokio::net::UnixStream = stream;
    let (got, fds) = shared.async_io(Interest::READABLE, || receive_first(shared, &mut first, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)).await?;
    if got == 0 {
        return Ok(None);
    }
    let mut body = first[..got].to_vec();
    if got < LENGTH {
        stream.take((LENGTH - got) as u64).read_to_end(&mut body).await?;
    }
    let missing = missing(&body)?;
    stream.take(missing as u64).read_to_end(&mut body).await?;
    Ok(Some((parse(&body)?, fds)))
}

/// [`send`] of a [`frame`] without descriptors for who must not sleep.
pub async fn send_later(stream: &mut tokio::net::UnixStream, frame: &[u8]) -> Result<()> {
    stream.write_all(frame).await
}

/// What came first, and the descriptors beside it.
fn receive_first(stream: impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(stream.as_fd(), &mut [IoSliceMut::new(buffer)], &mut beside, flags)?.bytes;
    let fds = beside.drain().filter_map(|m| if let RecvAncillaryMessage::ScmRights(fds) = m { Some(fds) } else { None }).flatten().collect();
    Ok((got, fds))
}

/// How many bytes of the frame that `bytes` begins are still to come.
fn missing(bytes: &[u8]) -> Result<usize> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>().ok_or(ErrorKind::UnexpectedEof)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_FRAME {
        return Err(Error::new(ErrorKind::InvalidData, format!("frame of {length} bytes; at most {MAX_FRAME} are taken")));
    }
    // One exchange at a time: nothing follows a frame before it was answered.
    length.checked_sub(rest.len()).ok_or_else(|| Error::new(ErrorKind::InvalidData, "bytes after the end of a frame"))
}

/// What a whole frame says.
pub(super) fn parse<T: DeserializeOwned>(frame: &[u8]) -> Result<T> {
    if missing(frame)? > 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&frame[LENGTH..])?)
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
