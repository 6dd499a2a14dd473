//! The bytes of an archive: told apart by their magic, decompressed, bounded.

use std::{
    cell::Cell,
    io::{self, BufReader, Read},
    rc::Rc,
};

use flate2::read::MultiGzDecoder;

use super::{Bounds, SourceError, unreadable};

/// Room for headers and padding beside the files themselves: three blocks for each entry.
const HEADER_BYTES: u64 = 3 * 512;

/// The plain tar bytes.
pub(super) struct Input<'a> {
    inner: Box<dyn Read + 'a>,
    /// Bytes taken from the file as it came; None when it is not compressed.
    compressed: Option<Rc<Cell<u64>>>,
    bounds: Bounds,
    read: u64,
    ended: bool,
}

impl<'a> Input<'a> {
    /// Looks at the first bytes: gzip is unpacked, other known formats are refused by name, the
    /// rest is taken for a tar (whose own magic is in the middle of its first block).
    pub(super) fn detect(mut input: impl Read + 'a, bounds: Bounds) -> Result<Self, SourceError> {
        let mut magic = Vec::new();
        input.by_ref().take(6).read_to_end(&mut magic).map_err(unreadable)?;
        let refuse = |what: &str| Err(SourceError::Archive(format!("{what}; send a tar or tar.gz")));
        match magic.as_slice() {
            [] => return refuse("is empty"),
            [b'P', b'K', 3 | 5, ..] => return refuse("is a zip file"),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => return refuse("is compressed with xz"),
            [b'B', b'Z', b'h', ..] => return refuse("is compressed with bzip2"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => return refuse("is compressed with zstd"),
            _ => {}
        }
        let gzip = magic.starts_with(&[0x1f, 0x8b]);
        let whole = io::Cursor::new(magic).chain(input);
        let input = |inner, compressed| Self { inner, compressed, bounds, read: 0, ended: false };
        if !gzip {
            return Ok(input(Box::new(BufReader::with_capacity(64 << 10, whole)), None));
        }
        let count = Rc::new(Cell::new(0));
        let counted = Counted { inner: whole, count: Rc::clone(&count) };
        Ok(input(Box::new(BufReader::with_capacity(64 << 10, MultiGzDecoder::new(counted))), Some(count)))
    }

    /// Called after the end mark: nothing but zeros may follow, up to the end of the file, where a
    /// gzip has its checksum. A second archive behind the first would be lost without a word.
    pub(super) fn finish(mut self) -> Result<(), SourceError> {
        if self.ended {
            return Err(SourceError::Archive("is cut off: its end mark is missing".into()));
        }
        let mut block = [0; 8192];
        loop {
            let n = self.read(&mut block).map_err(unreadable)?;
            if n == 0 {
                return Ok(());
            }
            if block[..n].iter().any(|byte| *byte != 0) {
                return Err(SourceError::Archive("goes on after its end mark".into()));
            }
        }
    }

    fn check(&self) -> io::Result<()> {
        let cap = self.bounds.bytes + self.bounds.entries as u64 * HEADER_BYTES;
        if self.read > cap {
            return Err(io::Error::other(format!("it unpacks to more than {} MB", cap >> 20)));
        }
        let Some(compressed) = &self.compressed else { return Ok(()) };
        if self.read > self.bounds.ratio_from && self.read / compressed.get().max(1) > self.bounds.ratio {
            return Err(io::Error::other(format!("it unpacks to more than {} times its size", self.bounds.ratio)));
        }
        Ok(())
    }
}

impl Read for Input<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.read += n as u64;
        self.ended |= n == 0 && !into.is_empty();
        self.check()?;
        Ok(n)
    }
}

struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.count.set(self.count.get() + n as u64);
        Ok(n)
    }
}
