//! What a pack dyno writes: a line `NAME LENGTH`, then exactly that many bytes, again and again.
//!
//! The frames come in a fixed order, each at most once, and end with `END 0` and the end of the
//! stream. A stream that ends before has said nothing. Bytes are handed out as they come; a frame
//! is never held in memory unless the caller asks for a small one whole.

use std::io::{self, BufRead, BufReader, Read};

/// Longest header: the longest name, a space and twenty digits, with room.
const MAX_HEADER: u64 = 64;

/// The frames there are, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// The app's Procfile; absent when it has none.
    Procfile,
    /// The buildpack's release, YAML.
    Release,
    /// What was detected, one line.
    Detected,
    /// The squashfs image of `/app`.
    Slug,
    /// The squashfs image of `/cache`; absent when that is empty.
    Cache,
    /// Nothing follows.
    End,
}

impl Name {
    const ALL: [(&'static str, Self); 6] = [
        ("PROCFILE", Self::Procfile),
        ("RELEASE", Self::Release),
        ("DETECTED", Self::Detected),
        ("SLUG", Self::Slug),
        ("CACHE", Self::Cache),
        ("END", Self::End),
    ];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, frame)| *frame)
    }
}

/// A stream that is not what a pack dyno writes.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// It ended too early.
    #[error("ended in the middle")]
    Truncated,
    /// Something else came.
    #[error("holds {0}")]
    Malformed(String),
    /// A frame is larger than its bound.
    #[error("holds {bytes} bytes in frame {name:?} (at most {max})")]
    TooLarge {
        /// Which.
        name: Name,
        /// What it has.
        bytes: u64,
        /// What it may have.
        max: u64,
    },
    /// The pipe failed.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// Reads frames one after the other.
#[derive(Debug)]
pub(super) struct Frames<R> {
    input: BufReader<R>,
    last: Option<Name>,
    /// Bytes of the current frame still to come.
    left: u64,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input: BufReader::with_capacity(256 << 10, input), last: None, left: 0 }
    }

    /// The next frame and its length; what is left of the one before is skipped. `None` after END.
    pub(super) fn next(&mut self) -> Result<Option<(Name, u64)>, FrameError> {
        while self.piece(|_| ())?.is_some() {}
        if self.last == Some(Name::End) {
            return Ok(None);
        }
        let (name, length) = self.header()?;
        if self.last.is_some_and(|last| last >= name) {
            return Err(FrameError::Malformed(format!("frame {name:?} out of order")));
        }
        (self.last, self.left) = (Some(name), length);
        if name != Name::End {
            return Ok(Some((name, length)));
        }
        if length > 0 || !self.input.fill_buf()?.is_empty() {
            return Err(FrameError::Malformed("bytes after its end".into()));
        }
        Ok(None)
    }

    /// All of the current frame, if it has at most `max` bytes.
    pub(super) fn whole(&mut self, max: u64) -> Result<Vec<u8>, FrameError> {
        if let Some(name) = self.last.filter(|_| self.left > max) {
            return Err(FrameError::TooLarge { name, bytes: self.left, max });
        }
        let mut bytes = Vec::new();
        while self.piece(|piece| bytes.extend_from_slice(piece))?.is_some() {}
        Ok(bytes)
    }

    /// Hands the next bytes of the current frame to `take`; `None` once there are none.
    pub(super) fn piece<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, FrameError> {
        if self.left == 0 {
            return Ok(None);
        }
        let buffered = self.input.fill_buf()?;
        if buffered.is_empty() {
            return Err(FrameError::Truncated);
        }
        let n = usize::try_from(self.left).map_or(buffered.len(), |left| buffered.len().min(left));
        let taken = take(&buffered[..n]);
        self.input.consume(n);
        self.left -= n as u64;
        Ok(Some(taken))
    }

    fn header(&mut self) -> Result<(Name, u64), FrameError> {
        let mut line = Vec::new();
        self.input.by_ref().take(MAX_HEADER).read_until(b'\n', &mut line)?;
        let malformed = |line: &[u8]| {
            let shown = String::from_utf8_lossy(line).trim_end().escape_default().to_string();
            FrameError::Malformed(format!("\"{shown}\" where a frame should begin"))
        };
        if line.last() != Some(&b'\n') {
            return Err(if line.len() as u64 == MAX_HEADER { malformed(&line) } else { FrameError::Truncated });
        }
        let text = std::str::from_utf8(&line[..line.len() - 1]).map_err(|_| malformed(&line))?;
        let (name, length) = text.split_once(' ').ok_or_else(|| malformed(&line))?;
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|_| digits).ok_or_else(|| malformed(&line))?;
        Ok((Name::parse(name).ok_or_else(|| malformed(&line))?, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All frames with their bytes, or the error.
    fn parse(bytes: &[u8]) -> Result<Vec<(Name, String)>, String> {
        let mut frames = Frames::new(bytes);
        let mut found = Vec::new();
        let fail = |error: FrameError| error.to_string();
        while let Some((name, length)) = frames.next().map_err(fail)? {
            let body = frames.whole(1000).map_err(fail)?;
            assert_eq!(body.len() as u64, length);
            found.push((name, String::from_utf8(body).unwrap()));
        }
        Ok(found)
    }

    fn refused(bytes: &[u8], want: &str) {
        let error = parse(bytes).expect_err(want);
        assert!(error.contains(want), "{:?}: {error:?} does not say {want:?}", String::from_utf8_lossy(bytes));
    }

    const WHOLE: &[u8] = b"PROCFILE 7\nweb: a\nRELEASE 0\nDETECTED 7\nPython\nSLUG 5\nEND 0CACHE 1\nxEND 0\n";

    #[test]
    fn frames_come_with_their_bytes() {
        let want = [(Name::Procfile, "web: a\n"), (Name::Release, ""), (Name::Detected, "Python\n"), (Name::Slug, "END 0"), (Name::Cache, "x")];
        assert_eq!(parse(WHOLE), Ok(want.map(|(name, body)| (name, body.to_owned())).to_vec()));
        assert_eq!(parse(b"END 0\n"), Ok(vec![]));
    }

    #[test]
    fn frames_that_are_not_read_are_skipped() {
        let mut frames = Frames::new(WHOLE);
        let mut names = Vec::new();
        while let Some((name, _)) = frames.next().unwrap() {
            names.push(name);
        }
        assert_eq!(names.len(), 5);
        assert!(frames.next().unwrap().is_none());
    }

    #[test]
    fn every_cut_is_noticed() {
        for cut in 0..WHOLE.len() {
            refused(&WHOLE[..cut], "ended in the middle");
        }
    }

    #[test]
    fn headers_are_strict() {
        for bad in [
            "slug 1\nx",
            "SLUG\n",
            "SLUG \n",
            "SLUG  1\nx",
            "SLUG 1 \nx",
            "SLUG +1\nx",
            "SLUG -1\n",
            "SLUG 0x1\nx",
            "SLUG 1.0\nx",
            "SLUG one\n",
            "SLUG 1\r\nx",
            "SLUG 99999999999999999999\n",
            "SLUGS 1\nx",
            "EVIL 1\nx",
            " SLUG 1\nx",
            "\n",
            "SLUG\t1\nx",
            "SLUG ٣\nabc",
            "\0 1\n",
        ] {
            refused(bad.as_bytes(), "where a frame should begin");
        }
        refused(b"SLUG 1\xff\n", "where a frame should begin");
        refused(&[b'A'; 100], "where a frame should begin");
        refused(b"END 1\nx", "after its end");
        refused(b"END 0\nx", "after its end");
        refused(b"END 0\nEND 0\n", "after its end");
        refused(b"SLUG 0\nSLUG 0\nEND 0\n", "Slug out of order");
        refused(b"CACHE 0\nSLUG 0\nEND 0\n", "Slug out of order");
        refused(b"SLUG 1001\n", "1001 bytes in frame Slug (at most 1000)");
        refused(b"SLUG 18446744073709551615\nx", "at most 1000");
    }
}
