//! Netlink by hand: a message is a header, a fixed part and attributes; an answer is a list of them and an errno.
//!
//! Two families of calls are made here, some ten messages in all: interfaces, addresses and routes (rtnetlink(7)), and questions about
//! nf_tables. For that little, a crate of message types would be most of this library.

use std::{
    cell::{Cell, RefCell},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv, send, socket_with},
};

use crate::error::{Context, Result as Named};

type Result<T> = std::result::Result<T, Errno>;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
/// NLM_F_CREATE and NLM_F_EXCL: it must not be there yet.
pub(super) const CREATE: u16 = 0x600;
/// NLM_F_DUMP: all there are.
pub(super) const DUMP: u16 = 0x300;

const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// A request under construction.
pub(super) struct Message {
    bytes: Vec<u8>,
    dump: bool,
}

impl Message {
    /// `kind` is that of the family, `fixed` the family's own header.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let dump = flags & DUMP == DUMP;
        let flags = flags | REQUEST | if dump { 0 } else { ACK };
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self { bytes, dump }
    }

    /// Adds an attribute.
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        let at = self.begin(kind);
        self.bytes.extend_from_slice(value);
        self.end(at)
    }

    /// Adds a string, ended by NUL.
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.attr(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds an attribute that holds others, after `fixed`.
    pub fn nest(mut self, kind: u16, fixed: &[u8], inner: impl FnOnce(Self) -> Self) -> Self {
        let at = self.begin(kind | NESTED);
        self.bytes.extend_from_slice(fixed);
        inner(self).end(at)
    }

    fn begin(&mut self, kind: u16) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        at
    }

    /// Its length does not count what aligns the next one. All that is sent from here is far below 64 KiB.
    fn end(mut self, at: usize) -> Self {
        let length = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn sealed(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// A line to the kernel, for the network namespace in which it was opened.
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: Cell<u32>,
    /// The kernel cuts dumps to fit a reader of 32 KiB.
    buffer: RefCell<Vec<u8>>,
}

impl Socket {
    /// # Errors
    /// EPROTONOSUPPORT where the kernel lacks the family.
    pub fn open(family: Option<Protocol>, name: &str) -> Named<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, family);
        Ok(Self { fd: fd.wall(|| format!("socket(AF_NETLINK, {name})"))?, sequence: Cell::new(0), buffer: RefCell::default() })
    }

    /// A line on which the kernel tells of changes in `groups`.
    ///
    /// # Errors
    /// Of socket(2) and bind(2).
    pub fn listen(family: Option<Protocol>, name: &str, groups: u32) -> Named<Self> {
        let socket = Self::open(family, name)?;
        bind(&socket.fd, &SocketAddrNetlink::new(0, groups)).wall(|| format!("bind(AF_NETLINK, {name}, groups {groups})"))?;
        Ok(socket)
    }

    /// Waits until something is told, or `time` is over; what it was is for the caller to look up.
    ///
    /// # Errors
    /// Of poll(2).
    pub fn wait(&self, time: Duration) -> Result<()> {
        let time = Timespec::try_from(time).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&time)) {
            Ok(0) | Err(Errno::INTR) => Ok(()),
            Ok(_) => match recv(&self.fd, &mut [0u8; 64][..], RecvFlags::TRUNC | RecvFlags::DONTWAIT) {
                // ENOBUFS: more than there was room for.
                Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => Ok(()),
                Err(e) => Err(e),
            },
            Err(e) => Err(e),
        }
    }

    /// Sends `message` and waits for the answer: what comes before the kernel's acknowledgement, each without its header.
    pub fn ask(&self, message: Message) -> Result<Vec<Vec<u8>>> {
        let sequence = self.sequence.get() + 1;
        self.sequence.set(sequence);
        let dump = message.dump;
        let bytes = message.sealed(sequence);
        // Without an address it goes to the kernel (netlink(7)).
        if send(&self.fd, &bytes, SendFlags::empty())? != bytes.len() {
            return Err(Errno::MSGSIZE);
        }
        let mut answers = Vec::new();
        let mut buffer = self.buffer.borrow_mut();
        buffer.resize(32 << 10, 0);
        loop {
            let length = match recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC) {
                Err(Errno::INTR) => continue,
                other => other?.1,
            };
            let received = buffer.get(..length).ok_or(Errno::MSGSIZE)?;
            for (kind, of, payload) in messages(received) {
                match kind {
                    _ if of != sequence => {}
                    ERROR => return acknowledged(payload).map(|()| answers),
                    DONE if dump => return Ok(answers),
                    _ => answers.push(payload.to_vec()),
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn acknowledged(payload: &[u8]) -> Result<()> {
    match word(payload).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(error) => Err(Errno::from_raw_os_error(-error)),
        None => Err(Errno::BADMSG),
    }
}

/// Kind, sequence number and payload of each message in `bytes`.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(word(bytes)?).ok()?;
        let kind = half(bytes.get(4..)?)?;
        let sequence = word(bytes.get(8..)?)?;
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, payload))
    })
}

/// Kind and value of each attribute in `bytes`.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes)?);
        let kind = half(bytes.get(2..)?)? & !NESTED;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A string without its NUL.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

fn half(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_as_it_was_written() {
        let message = Message::new(16, CREATE, &[7; 16]).text(3, "dy0").nest(18, &[9; 4], |m| m.attr(1, &[1, 2]));
        let bytes = message.sealed(5);
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!((all.len(), all[0].0, all[0].1), (1, 16, 5));
        let attrs: Vec<_> = attributes(&all[0].2[16..]).collect();
        assert_eq!((attrs[0].0, text(attrs[0].1).as_str()), (3, "dy0"));
        assert_eq!((attrs[1].0, &attrs[1].1[..4]), (18, &[9u8; 4][..]));
        assert_eq!(attributes(&attrs[1].1[4..]).collect::<Vec<_>>(), [(1, &[1u8, 2][..])]);
    }

    #[test]
    fn damaged_answers_end_the_reading() {
        for bytes in [&[][..], &[1], &[0; 16], &[255; 40], &[17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(messages(bytes).count(), 0, "{bytes:?}");
        }
        for bytes in [&[][..], &[0; 4], &[3, 0, 1, 0], &[255; 8]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(acknowledged(&[0]), Err(Errno::BADMSG));
        assert_eq!(acknowledged(&(-1i32).to_ne_bytes()), Err(Errno::PERM));
    }
}
