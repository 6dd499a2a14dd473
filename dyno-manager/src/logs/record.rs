//! The records on a dyno's log FIFO, and the lines that their payloads make.
//!
//! A dyno's init writes one record per `write`, small enough (PIPE_BUF, pipe(7)) to be atomic: 24 bytes of header, all
//! little endian, then up to 4072 bytes of payload.
//!
//! ```text
//! 0  magic u32 "DLOG"   4 kind u8   5 stream u8   6 length u16   8 lines u32   12 reserved u32 = 0   16 time i64, µs
//! ```
//!
//! A reader that was killed may have taken the first part of a record with it, so reading begins at the first bytes
//! that look like a header. The payload is the app's own bytes and may hold such a look-alike; what it could forge
//! that way is its own log.

use jiff::Timestamp;

use super::{MAX_LINE, line::cut};

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
    skipped: usize,
}

impl Decoder {
    /// Adds what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that wait for what belongs to them.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn held(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that belong to no record so far: passed over, or the beginning of one whose rest has not come.
    pub(super) fn loose(&self) -> usize {
        self.skipped + self.buffer.len()
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
                    self.skipped += n;
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

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record as a dyno's init writes it.
    pub(in crate::logs) fn encode(kind: u8, stream: u8, lines: u32, time: i64, payload: &[u8]) -> Vec<u8> {
        let mut record = b"DLOG".to_vec();
        record.extend([kind, stream]);
        record.extend(u16::try_from(payload.len()).unwrap().to_le_bytes());
        record.extend(lines.to_le_bytes());
        record.extend([0; 4]);
        record.extend(time.to_le_bytes());
        record.extend(payload);
        record
    }

    fn output(text: &[u8]) -> (Vec<u8>, Record) {
        let at = Timestamp::from_microsecond(7).unwrap();
        (encode(1, 1, 0, 7, text), Record::Output { stream: Stream::Stdout, at, bytes: text.to_vec() })
    }

    fn decode(pieces: &[&[u8]]) -> (Vec<Record>, usize) {
        let mut decoder = Decoder::default();
        let mut records = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            records.extend(decoder.take());
        }
        (records, decoder.loose())
    }

    #[test]
    fn headers_are_read_as_specified() {
        fn check(record: &[u8], want: Option<Record>) {
            assert_eq!(decode(&[record]).0, want.into_iter().collect::<Vec<_>>(), "{record:?}");
        }
        let at = Timestamp::from_microsecond(1_700_000_000_123_456).unwrap();
        let time = at.as_microsecond();
        let stderr = Record::Output { stream: Stream::Stderr, at, bytes: b"hi".to_vec() };
        check(&encode(1, 2, 0, time, b"hi"), Some(stderr));
        check(&encode(2, 0, 300, time, b""), Some(Record::Dropped { lines: 300, at }));
        check(&encode(2, 1, 300, time, b"later fields"), Some(Record::Dropped { lines: 300, at }));
        check(&encode(1, 1, 0, 7, &[b'x'; MAX_PAYLOAD]), Some(output(&[b'x'; MAX_PAYLOAD]).1));
        check(&encode(1, 1, 0, 7, &[b'x'; MAX_PAYLOAD + 1]), None);
        check(&encode(0, 1, 0, 7, b"x"), None);
        check(&encode(3, 1, 0, 7, b"x"), None);
        let mut reserved = encode(1, 1, 0, 7, b"x");
        reserved[12] = 1;
        check(&reserved, None);
    }

    #[test]
    fn an_impossible_time_is_replaced() {
        let (records, _) = decode(&[&encode(1, 1, 0, i64::MAX, b"x")]);
        let [Record::Output { at, .. }] = &records[..] else { panic!("{records:?}") };
        assert!(*at > Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn noise_before_and_between_records_is_passed_over() {
        fn check(noise: &[u8]) {
            let (bytes, record) = output(b"hi");
            let (records, skipped) = decode(&[noise, &bytes, noise, &bytes]);
            assert_eq!(records, [record.clone(), record], "{noise:?}");
            assert_eq!(skipped, 2 * noise.len());
        }
        check(b"");
        check(b"tail of a record");
        check(b"DLO");
        check(b"DLODLODL");
        check(b"DLOG\x09 not a header, but long enough to be one");
    }

    fn texts(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), count)
    }

    /// Bytes that look like headers more often than chance has it.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![Just(b"DLOG".to_vec()), Just(b"\x01\x01\x10\0".to_vec()), Just(vec![0; 8]), any::<[u8; 3]>().prop_map(Vec::from)];
        prop::collection::vec(part, 0..20).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn records_survive_any_cutting(texts in texts(1..8), size in 1..40usize) {
            let (bytes, want): (Vec<_>, Vec<_>) = texts.iter().map(|t| output(t)).unzip();
            let bytes = bytes.concat();
            let pieces: Vec<_> = bytes.chunks(size).collect();
            prop_assert_eq!(decode(&pieces), (want, 0));
        }

        #[test]
        fn a_reader_that_begins_anywhere_gets_every_later_record(texts in texts(2..6), start in 0..24usize) {
            let (bytes, want): (Vec<_>, Vec<_>) = texts.iter().map(|t| output(t)).unzip();
            let (records, skipped) = decode(&[&bytes.concat()[start..]]);
            let lost = usize::from(start > 0);
            prop_assert_eq!(&records[..], &want[lost..]);
            prop_assert_eq!(skipped, lost * (bytes[0].len() - start));
        }

        #[test]
        fn no_bytes_make_it_panic_or_keep_more_than_a_record(pieces in prop::collection::vec(hostile(), 0..8)) {
            let mut decoder = Decoder::default();
            for piece in pieces {
                decoder.push(&piece);
                decoder.take();
                prop_assert!(decoder.buffer.len() < HEADER + MAX_PAYLOAD);
            }
        }
    }

    #[test]
    fn chunks_become_lines() {
        fn check(chunks: &[&[u8]], want: &[&str]) {
            let mut assembler = Assembler::default();
            let mut lines = Vec::new();
            let mut keep = |line: &str, _| lines.push(line.to_owned());
            for chunk in chunks {
                assembler.push(chunk, Timestamp::UNIX_EPOCH, &mut keep);
            }
            assembler.flush(&mut keep);
            assert_eq!(lines, want);
        }
        check(&[], &[]);
        check(&[b"a\nb\n"], &["a\n", "b\n"]);
        check(&[b"a", b"b", b"\n\nc"], &["ab\n", "\n", "c"]);
        check(&[b"caf\xc3", b"\xa9\n"], &["café\n"]);
        check(&[b"bad \xff\xfe\n"], &["bad \u{fffd}\u{fffd}\n"]);
    }

    #[test]
    fn a_line_without_an_end_is_cut_between_characters() {
        fn check(text: &[u8], want: &[usize]) {
            let mut assembler = Assembler::default();
            let mut lengths = Vec::new();
            let mut whole = String::new();
            let mut keep = |line: &str, _| {
                lengths.push(line.len());
                whole.push_str(line);
            };
            for chunk in text.chunks(MAX_PAYLOAD) {
                assembler.push(chunk, Timestamp::UNIX_EPOCH, &mut keep);
                assert!(assembler.partial.len() <= MAX_LINE);
            }
            assembler.flush(&mut keep);
            assert_eq!(whole, String::from_utf8_lossy(text));
            assert_eq!(lengths, want);
        }
        check(&[b'x'; MAX_LINE], &[MAX_LINE]);
        check(&[b'x'; 2 * MAX_LINE + 1], &[MAX_LINE, MAX_LINE, 1]);
        check(format!("x{}", "é".repeat(MAX_LINE / 2)).as_bytes(), &[MAX_LINE - 1, 2]);
        check(format!("xx{}", "🦀".repeat(MAX_LINE / 4)).as_bytes(), &[MAX_LINE - 2, 4]);
    }
}
