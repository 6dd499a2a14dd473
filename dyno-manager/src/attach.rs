//! The frames of an attached session: `[kind u8][length u32, big endian][payload]`, both ways.
//!
//! The session is an HTTP/1.1 upgrade (`Upgrade: dyno-attach`) of `GET /attach/<secret>`. Unlike Heroku's
//! rendezvous stream it carries window size, end of input, signals and the true exit status in the protocol.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::model::Exit;

/// Longest payload of one frame, bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// The value of the `Upgrade` header.
pub const UPGRADE: &str = "dyno-attach";

/// One message of an attached session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Client to dyno: input.
    Stdin(Bytes),
    /// Dyno to client.
    Stdout(Bytes),
    /// Dyno to client; never with a terminal.
    Stderr(Bytes),
    /// Client to dyno: the terminal has this size now.
    Resize {
        /// Lines.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Client to dyno: no more input.
    Eof,
    /// Client to dyno: send this signal to all its processes.
    Signal(u8),
    /// Dyno to client, last: how it ended.
    Exit(Exit),
    /// Dyno to client: the state it is in now (`starting`, `up`).
    State(String),
}

/// Turns bytes into frames and back.
#[derive(Debug, Default)]
pub struct FrameCodec;

impl Encoder<Frame> for FrameCodec {
    type Error = std::io::Error;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> std::io::Result<()> {
        let (kind, payload) = match frame {
            Frame::Stdin(b) => (0, b),
            Frame::Stdout(b) => (1, b),
            Frame::Stderr(b) => (2, b),
            Frame::Resize { rows, cols } => (3, Bytes::from([rows.to_be_bytes(), cols.to_be_bytes()].concat())),
            Frame::Eof => (4, Bytes::new()),
            Frame::Signal(n) => (5, Bytes::copy_from_slice(&[n])),
            Frame::Exit(exit) => (6, Bytes::from(serde_json::to_vec(&exit)?)),
            Frame::State(s) => (7, Bytes::from(s)),
        };
        out.put_u8(kind);
        out.put_u32(u32::try_from(payload.len()).map_err(std::io::Error::other)?);
        out.extend_from_slice(&payload);
        Ok(())
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = std::io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> std::io::Result<Option<Frame>> {
        let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, format!("attach frame: {what}"));
        if src.len() < 5 {
            return Ok(None);
        }
        let length = u32::from_be_bytes([src[1], src[2], src[3], src[4]]) as usize;
        if length > MAX_PAYLOAD {
            return Err(bad("payload longer than 64 KiB"));
        }
        if src.len() < 5 + length {
            src.reserve(5 + length - src.len());
            return Ok(None);
        }
        let kind = src[0];
        src.advance(5);
        let payload = src.split_to(length).freeze();
        let frame = match (kind, payload.as_ref()) {
            (0, _) => Frame::Stdin(payload),
            (1, _) => Frame::Stdout(payload),
            (2, _) => Frame::Stderr(payload),
            (3, &[r0, r1, c0, c1]) => Frame::Resize { rows: u16::from_be_bytes([r0, r1]), cols: u16::from_be_bytes([c0, c1]) },
            (4, []) => Frame::Eof,
            (5, &[n]) => Frame::Signal(n),
            (6, json) => Frame::Exit(serde_json::from_slice(json)?),
            (7, text) => Frame::State(String::from_utf8_lossy(text).into_owned()),
            _ => return Err(bad("unknown kind or wrong length")),
        };
        Ok(Some(frame))
    }
}

/// Any bytes: what was read can be written and is the same when it is read again, and no more is waited for than a frame.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut wire = BytesMut::from(bytes);
    while let Ok(Some(frame)) = FrameCodec.decode(&mut wire) {
        let mut written = BytesMut::new();
        FrameCodec.encode(frame.clone(), &mut written).expect("what was read can be written");
        // Text that is none becomes longer when it is made text.
        if written.len() <= 5 + MAX_PAYLOAD {
            assert_eq!(FrameCodec.decode(&mut written).expect("what was written can be read"), Some(frame));
            assert!(written.is_empty());
        }
    }
    assert!(wire.capacity() <= bytes.len().max(5 + MAX_PAYLOAD) * 2, "{} bytes for {}", wire.capacity(), bytes.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_in_one_byte_pieces() {
        let frames = [
            Frame::Stdin(Bytes::from_static(b"ls\n")),
            Frame::Resize { rows: 24, cols: 80 },
            Frame::Eof,
            Frame::Signal(2),
            Frame::State("up".into()),
        ];
        let mut wire = BytesMut::new();
        for frame in &frames {
            FrameCodec.encode(frame.clone(), &mut wire).unwrap();
        }
        let mut src = BytesMut::new();
        let mut seen = Vec::new();
        for byte in wire {
            src.put_u8(byte);
            seen.extend(FrameCodec.decode(&mut src).unwrap());
        }
        assert_eq!(seen, frames);
    }

    #[test]
    fn hostile_lengths_are_refused_before_they_are_buffered() {
        let mut src = BytesMut::from(&[0u8, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(FrameCodec.decode(&mut src).is_err());
    }
}
