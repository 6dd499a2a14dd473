//! Finds request heads in the bytes of a connection, to see what the HTTP library hides.
//!
//! hyper reads a request with both `Content-Length` and `Transfer-Encoding` as chunked and drops the length, as RFC 9112
//! section 6.3 allows. Such a request is an attempt at smuggling more often than a mistake, so this router refuses it;
//! for that it must see the head as it was sent. This parser only watches: hyper frames the message itself, so the worst
//! that a disagreement between the two can do is a request that is refused or, as hyper would, served as chunked.

/// Heads longer than this are hyper's to refuse; bytes.
const LONGEST_HEAD: usize = 64 * 1024;

/// Most fields in a head; hyper's own limit is the same.
const MOST_FIELDS: usize = 100;

/// What the next byte belongs to.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A request line or header field; its bytes so far are in `head`.
    Head,
    /// A body of which this many bytes are to come.
    Body(u64),
    /// The size line of a chunk: value so far, and whether an extension has begun.
    Size(u64, bool),
    /// Chunk data and its line end.
    Chunk(u64),
    /// Trailer section.
    Trailer(Trailer),
    /// Not HTTP any more, or not understood.
    Lost,
}

/// Where in a trailer section: hyper's lines end with CR and LF, and a lone LF is part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trailer {
    Begin,
    Line,
    LineEnd,
    LastEnd,
}

/// Watches the client's half of a connection.
#[derive(Debug)]
pub(super) struct Framing {
    place: Place,
    head: Vec<u8>,
    heads: u64,
    conflict: Option<u64>,
}

impl Default for Framing {
    fn default() -> Self {
        Self { place: Place::Head, head: Vec::new(), heads: 0, conflict: None }
    }
}

impl Framing {
    /// Ordinal (from 1) of the first request on this connection that states its length in two ways.
    pub(super) fn conflict(&self) -> Option<u64> {
        self.conflict
    }

    /// Heads seen so far.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Takes the next bytes of the connection.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.place != Place::Lost {
            bytes = match self.place {
                Place::Head => self.in_head(bytes),
                Place::Body(left) => {
                    let (rest, left) = skip(bytes, left);
                    self.place = if left == 0 { Place::Head } else { Place::Body(left) };
                    rest
                }
                Place::Chunk(left) => {
                    let (rest, left) = skip(bytes, left);
                    self.place = if left == 0 { Place::Size(0, false) } else { Place::Chunk(left) };
                    rest
                }
                _ => self.in_chunk_line(bytes),
            };
        }
    }

    fn in_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        for (i, &byte) in bytes.iter().enumerate() {
            if self.head.is_empty() && (byte == b'\r' || byte == b'\n') {
                continue; // empty lines before a request line are allowed (RFC 9112 section 2.2)
            }
            self.head.push(byte);
            if byte == b'\n' && (self.head.ends_with(b"\n\r\n") || self.head.ends_with(b"\n\n")) {
                self.heads += 1;
                self.place = self.after_head();
                self.head.clear();
                return &bytes[i + 1..];
            }
        }
        if self.head.len() > LONGEST_HEAD {
            self.place = Place::Lost;
            self.head = Vec::new();
        }
        &[]
    }

    fn after_head(&mut self) -> Place {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        if request.parse(&self.head).is_err() {
            return Place::Lost;
        }
        let field = |name: &str| request.headers.iter().find(|f| f.name.eq_ignore_ascii_case(name));
        let chunked = field("transfer-encoding").is_some();
        let length = field("content-length").map(|f| str::from_utf8(f.value).ok().and_then(|v| v.trim().parse().ok()));
        match (chunked, length) {
            (true, Some(_)) => {
                self.conflict.get_or_insert(self.heads);
                Place::Lost
            }
            (true, None) => Place::Size(0, false),
            (false, Some(Some(0)) | None) => Place::Head,
            (false, Some(Some(n))) => Place::Body(n),
            (false, Some(None)) => Place::Lost,
        }
    }

    fn in_chunk_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let byte = bytes[0];
        self.place = match (&self.place, byte) {
            (Place::Size(0, _), b'\n') => Place::Trailer(Trailer::Begin),
            (Place::Size(n, _), b'\n') => Place::Chunk(n.saturating_add(2)),
            (&Place::Size(n, false), b) => match char::from(b).to_digit(16) {
                Some(digit) => Place::Size(n.saturating_mul(16).saturating_add(u64::from(digit)), false),
                None => Place::Size(n, true),
            },
            (&Place::Size(n, true), _) => Place::Size(n, true),
            (Place::Trailer(Trailer::Begin), b'\r') => Place::Trailer(Trailer::LastEnd),
            (Place::Trailer(Trailer::LastEnd), b'\n') => Place::Head,
            (Place::Trailer(Trailer::Line), b'\r') => Place::Trailer(Trailer::LineEnd),
            (Place::Trailer(Trailer::LineEnd), b'\n') => Place::Trailer(Trailer::Begin),
            (Place::Trailer(Trailer::Begin | Trailer::Line), _) => Place::Trailer(Trailer::Line),
            _ => Place::Lost,
        };
        &bytes[1..]
    }
}

/// Skips up to `left` bytes: what remains of `bytes`, and of `left`.
fn skip(bytes: &[u8], left: u64) -> (&[u8], u64) {
    let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (&bytes[n..], left - n as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` whole, then byte by byte; both must find the same: heads seen, and the conflicting one.
    fn check(wire: &str, want: (u64, Option<u64>)) {
        for size in [wire.len(), 1, 7] {
            let mut framing = Framing::default();
            wire.as_bytes().chunks(size).for_each(|piece| framing.feed(piece));
            assert_eq!((framing.heads, framing.conflict), want, "{wire:?} in pieces of {size}");
        }
    }

    #[test]
    fn heads_are_found_between_bodies() {
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let post = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /";
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\na;x=\"1\"\r\nGET / HTTP\r\n0\r\nA: b\r\n\r\n";
        let both = "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        check(get, (1, None));
        check(&[get, post, chunked, get].concat(), (4, None));
        check(both, (1, Some(1)));
        check(&["\r\n", get, chunked, post, both].concat(), (4, Some(4)));
        check("GET / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET / HTTP/1.1\n\n", (2, None));
        // A trailer that goes on past a lone LF, as hyper has it: what follows is no head before the empty line does.
        let trailer = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nA: b\n\r\nGET / HTTP/1.1\r\nB: c\r\n\r\n";
        check(&[trailer, post, get].concat(), (3, None));
        check("\u{1}\u{2}\u{3} binary\n\n after an upgrade", (1, None));
    }

    #[test]
    fn a_conflict_that_is_only_body_text_is_none() {
        let inner = "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{inner}", inner.len()), (1, None));
    }

    proptest::proptest! {
        #[test]
        fn how_bytes_are_cut_changes_nothing(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "GET / HTTP/1.1\r\n", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "\r\n", "\n", "abc",
                "0\r\n", "ffffffffffffffffffff\r\n", "3\r\n", "Content-Length: 18446744073709551615\r\n", "\0", ";", "\r",
            ]), 0..40),
            size in 1_usize..20,
        ) {
            let wire = parts.concat();
            let (mut whole, mut pieces) = (Framing::default(), Framing::default());
            whole.feed(wire.as_bytes());
            wire.as_bytes().chunks(size).for_each(|piece| pieces.feed(piece));
            proptest::prop_assert_eq!((whole.heads, whole.conflict), (pieces.heads, pieces.conflict));
        }
    }
}
