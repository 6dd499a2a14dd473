//! What must hold of whatever a dyno manages to get into its log's FIFO.

use jiff::Timestamp;

use super::{
    MAX_LINE,
    line::lines_of,
    record::{Assembler, Decoder, Record},
};

/// The first byte says in what pieces the others come; it makes no difference. No more is held than a record, or a line. Every line is one
/// line, is not too long, and nothing is lost.
pub(crate) fn records(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let (whole, loose) = decode([bytes].into_iter());
    let pieces = decode(bytes.chunks(usize::from(*size).max(1)));
    let plain = |records: &[Record]| records.iter().map(timeless).collect::<Vec<_>>();
    assert_eq!((plain(&whole), loose), (plain(&pieces.0), pieces.1));
    let (mut assembler, mut said, mut given) = (Assembler::default(), String::new(), Vec::new());
    let mut line = |text: &str, _: Timestamp| {
        for line in lines_of(text) {
            assert!(line.len() <= MAX_LINE && !line.contains(['\n', '\0']), "{line:?}");
        }
        said.push_str(text);
    };
    for record in whole {
        if let Record::Output { bytes, at, .. } = record {
            given.extend_from_slice(&bytes);
            assembler.push(&bytes, at, &mut line);
        }
    }
    assembler.flush(&mut line);
    // What is no text may be cut anywhere, and each cut makes another character of it.
    match std::str::from_utf8(&given) {
        Ok(given) => assert_eq!(given, said),
        Err(_) => assert!(said.len() <= given.len() * 3 && said.matches('\n').count() == given.iter().filter(|b| **b == b'\n').count()),
    }
}

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Record>, usize) {
    let mut decoder = Decoder::default();
    let mut records = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        records.extend(decoder.take());
        assert!(decoder.held() < 4096, "{} bytes are held", decoder.held());
    }
    (records, decoder.loose())
}

/// A time that there is not becomes now.
fn timeless(record: &Record) -> (Vec<u8>, u32) {
    match record {
        Record::Output { stream, bytes, .. } => (bytes.clone(), *stream as u32),
        Record::Dropped { lines, .. } => (Vec::new(), *lines),
    }
}
