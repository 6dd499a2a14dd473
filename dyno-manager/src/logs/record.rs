//! The records on a dyno's log FIFO, and the lines that their payloads make.
//!
//! A dyno's init writes one record per `write`, small enough (PIPE_BUF, pipe(7)) to be atomic: 24 bytes of header, all
//! little endian, then up to 4072 bytes of payload.
//!
//! ```text
//! 0  magic u32 "DLOG"   4 kind u8   5 stream u8   6 length u16   8 lines u32   12 reserved u32 = 0   16 time i64, µs
//! ```
//!
//! A reader that was killed may have taken the first part of a record with it, so reading begins at the first bytes that look like
//! a header. The payload is the app's own bytes and may hold such a look-alike; what it could forge that way is its own log.

use jiff::Timestamp;

use super::MAX_LINE;

const HEADER: usize = 24;
const MAX_PAYLOAD: usize = 4096 - HEADER;
const MAGIC: [u8; 4] = 0x474F_4C44_u32.to_le_bytes();

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// The dyno wrote this.
    Output { stream: Stream, at: Timestamp, bytes: Vec<u8> },
    /// The dyno wrote this many lines that found no room in the FIFO.
    Dropped { lines: u32, at: Timestamp },
}

/// Where a dyno writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Turns bytes of a FIFO into records.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    /// Bytes passed over because no record begins in them.
    pub(super) skipped: u64,
}

impl Decoder {
    /// Adds what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// All records that are complete.
    pub(super) fn take(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut at = 0;
        loop {
            let rest = &self.buffer[at..];
            match parse(rest) {
                Parsed::Record(record, length) => {
                    records.push(record);
                    at += length;
                }
                Parsed::Skip(n) => {
                    self.skipped += n as u64;
                    at += n;
                }
                Parsed::Incomplete => break,
            }
        }
        self.buffer.drain(..at);
        records
    }
}

enum Parsed {
    Record(Record, usize),
    /// No record begins in the first so many bytes; at least one.
    Skip(usize),
    Incomplete,
}

fn parse(bytes: &[u8]) -> Parsed {
    let start = bytes.windows(4).position(|window| window == MAGIC);
    match start {
        // The magic may have begun in the last three bytes.
        None if bytes.len() > 3 => return Parsed::Skip(bytes.len() - 3),
        None => return Parsed::Incomplete,
        Some(0) => {}
        Some(n) => return Parsed::Skip(n),
    }
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Parsed::Incomplete;
    };
    let [_, _, _, _, kind, stream, l0, l1, n0, n1, n2, n3, r0, r1, r2, r3, time @ ..] = *header;
    let length = usize::from(u16::from_le_bytes([l0, l1]));
    let stream = match stream {
        2 => Stream::Stderr,
        _ => Stream::Stdout,
    };
    if !matches!(kind, 1 | 2) || length > MAX_PAYLOAD || [r0, r1, r2, r3] != [0; 4] {
        return Parsed::Skip(MAGIC.len());
    }
    let Some(payload) = rest.get(..length) else {
        return Parsed::Incomplete;
    };
    let at = Timestamp::from_microsecond(i64::from_le_bytes(time)).unwrap_or_else(|_| Timestamp::now());
    let record = match kind {
        1 => Record::Output { stream, at, bytes: payload.to_vec() },
        _ => Record::Dropped { lines: u32::from_le_bytes([n0, n1, n2, n3]), at },
    };
    Parsed::Record(record, HEADER + length)
}

/// Puts the lines of one stream together again.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    partial: Vec<u8>,
    at: Timestamp,
}

impl Assembler {
    /// Adds a chunk and gives `line` each line that is complete with it. A line without an end is cut at
    /// [`MAX_LINE`] bytes, before a character that the cut would split.
    pub(super) fn push(&mut self, bytes: &[u8], at: Timestamp, mut line: impl FnMut(&str, Timestamp)) {
        self.at = at;
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.flush(&mut line);
            }
        }
        while self.partial.len() > MAX_LINE {
            let rest = self.partial.split_off(cut(&self.partial));
            self.flush(&mut line);
            self.partial = rest;
        }
    }

    /// Gives `line` what is there, ended or not.
    pub(super) fn flush(&mut self, mut line: impl FnMut(&str, Timestamp)) {
        if !self.partial.is_empty() {
            line(&String::from_utf8_lossy(&self.partial), self.at);
            self.partial.clear();
        }
    }
}

/// Where to cut: at most three bytes before [`MAX_LINE`], as no character is longer than four.
fn cut(bytes: &[u8]) -> usize {
    let is_boundary = |at: &usize| bytes[*at] & 0xC0 != 0x80;
    (MAX_LINE - 3..=MAX_LINE).rev().find(is_boundary).unwrap_or(MAX_LINE)
}
