//! The records that a dyno's init writes to its log FIFO.
//!
//! Each record is one write of at most 4096 bytes (PIPE_BUF), so it is there whole or not at all. A reader may have to begin in
//! the middle of one (its predecessor was killed while reading): it looks for the next [`MAGIC`].
//!
//! | offset | size | field (little endian) |
//! |---|---|---|
//! | 0 | 4 | [`MAGIC`] |
//! | 4 | 1 | kind: [`OUTPUT`] or [`DROPPED`] |
//! | 5 | 1 | stream: 1 stdout, 2 stderr |
//! | 6 | 2 | payload bytes, at most [`MAX_PAYLOAD`] |
//! | 8 | 4 | lines dropped since the last such record (kind [`DROPPED`]) |
//! | 12 | 4 | 0 |
//! | 16 | 8 | time, microseconds since the epoch |
//! | 24 | | payload: bytes as written by the program, cut anywhere |

/// First four bytes of a record.
pub const MAGIC: [u8; 4] = *b"DLOG";
/// Bytes before the payload.
pub const HEADER: usize = 24;
/// Longest payload.
pub const MAX_PAYLOAD: usize = 4072;
/// Kind: output of the program.
pub const OUTPUT: u8 = 1;
/// Kind: output was lost because the FIFO was full.
pub const DROPPED: u8 = 2;
