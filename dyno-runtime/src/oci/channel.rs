//! What the runtime and the container's first process say to each other: short messages over a SOCK_SEQPACKET pair. Each end sees at once
//! when the other one dies.

use std::{
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
        SocketType, recvmsg, sendmsg, socketpair,
    },
};

use crate::error::{Context, Error, ErrorKind, Result};

/// Longest message: an error's text is cut there.
const LONGEST: usize = 8192;

/// One message.
#[derive(Debug)]
pub enum Message {
    /// Runtime to child: its ids are mapped, it is in its control groups. Child to runtime: its namespaces are made.
    Go,
    /// Child to runtime: its filter is on and asks by this listener. From here on any of its calls may wait until somebody answers.
    Listener(OwnedFd),
    /// Child to runtime: nothing is left but to wait for `start`.
    Ready,
    /// Intermediate child to runtime: this is the container's first process.
    Born(u32, OwnedFd),
    /// Child to runtime: it gave up.
    Failed(ErrorKind, String),
}

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    ///
    /// # Errors
    /// Of socketpair(2).
    pub fn pair() -> Result<(Self, Self)> {
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).io(|| "socketpair".into())?;
        Ok((Self(pair.0), Self(pair.1)))
    }

    /// For the launcher, which speaks for itself: `r`, and waits for `g`.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    /// Says something.
    ///
    /// # Errors
    /// EPIPE when the other end is gone.
    pub fn send(&self, message: &Message) -> Result<()> {
        let (text, fd) = match message {
            Message::Go => (b"g".to_vec(), None),
            Message::Listener(fd) => (b"l".to_vec(), Some(fd)),
            Message::Ready => (b"r".to_vec(), None),
            Message::Born(pid, fd) => ([b"b".as_slice(), &pid.to_ne_bytes()].concat(), Some(fd)),
            Message::Failed(kind, text) => {
                let text = &text.as_bytes()[..text.len().min(LONGEST - 2)];
                ([b"f".as_slice(), &[u8::from(*kind == ErrorKind::Exec)], text].concat(), None)
            }
        };
        let fds: Vec<BorrowedFd<'_>> = fd.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        sendmsg(&self.0, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL).io(|| "sendmsg(runtime)".into()).map(drop)
    }

    /// The next message; None when the other end is gone.
    ///
    /// # Errors
    /// Of recvmsg(2); a message that is none.
    pub fn receive(&self) -> Result<Option<Message>> {
        let mut text = [0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let read = loop {
            match recvmsg(&self.0, &mut [std::io::IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC) {
                // Told once, before what is still to be read, when the other end goes with something unread of ours (unix_release_sock).
                Err(Errno::INTR | Errno::CONNRESET) => {}
                other => break other.io(|| "recvmsg(container)".into())?.bytes,
            }
        };
        let fd = control.drain().find_map(|m| match m {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let strange = || Error::refused(ErrorKind::Io, "the container's first process sent something unknown");
        Ok(Some(match (&text[..read], fd) {
            ([], _) => return Ok(None),
            (b"g", None) => Message::Go,
            (b"l", Some(fd)) => Message::Listener(fd),
            (b"r", None) => Message::Ready,
            ([b'b', pid @ ..], Some(fd)) => Message::Born(u32::from_ne_bytes(pid.try_into().map_err(|_| strange())?), fd),
            ([b'f', kind, words @ ..], None) => {
                let kind = if *kind == 1 { ErrorKind::Exec } else { ErrorKind::Wall };
                Message::Failed(kind, String::from_utf8_lossy(words).into_owned())
            }
            _ => return Err(strange()),
        }))
    }

    /// Waits for [`Message::Go`].
    ///
    /// # Errors
    /// What the other end failed with, or that it is gone.
    pub fn expect_go(&self) -> Result<()> {
        match self.receive()? {
            Some(Message::Go) => Ok(()),
            Some(Message::Failed(kind, text)) => Err(Error::refused(kind, text)),
            Some(_) => Err(Error::refused(ErrorKind::Io, "runtime and container's first process are out of step")),
            None => Err(Error::refused(ErrorKind::Wall, GONE)),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Why nobody answers.
pub const GONE: &str = "the container's first process died before its program began (killed, perhaps for a memory limit too small to start in)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_heard_whatever_was_unread() {
        let (here, there) = Channel::pair().unwrap();
        here.send(&Message::Go).unwrap();
        there.send(&Message::Failed(ErrorKind::Exec, "because".into())).unwrap();
        drop(there);
        let heard = here.receive().unwrap();
        assert!(matches!(&heard, Some(Message::Failed(ErrorKind::Exec, text)) if text == "because"), "{heard:?}");
        assert!(here.receive().unwrap().is_none());
        assert!(here.send(&Message::Go).is_err());
    }
}
