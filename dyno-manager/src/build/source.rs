//! The source archive of a build, rewritten into one that a build dyno can unpack blindly.
//!
//! A client's tar is foreign bytes: names that climb out, links that point out, members that two
//! programs read differently. It is walked header by header here (no convenience of the tar
//! library that follows or merges headers is used) and only what is understood is written again:
//! folders, files and links below `app/`, then one file per config var below `tmp/env/`. Anything
//! else ends the build with an error that names the member and the rule. What comes out is
//! unpacked inside the dyno, so this is the first wall and not the only one.

mod input;
mod member;
#[cfg(test)]
mod tests;
mod tree;

use std::{
    ffi::OsStr,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use self::{
    input::Input,
    member::{Kind, Member, Pending},
    tree::Tree,
};
use crate::{model::ConfigVars, printable::printable};

/// Bounds of one source archive.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Members and the folders that their names imply.
    pub entries: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Highest ratio of unpacked to compressed bytes, beyond [`Bounds::ratio_from`].
    pub ratio: u64,
    /// Unpacked bytes below which no ratio is suspicious.
    pub ratio_from: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 200_000, bytes: 1 << 30, ratio: 200, ratio_from: 128 << 20 }
    }
}

/// What went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Files and links written.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Why an archive was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// One member breaks a rule.
    #[error("the source holds {name:?}, which {rule}")]
    Member {
        /// Its name as far as it is known, made printable.
        name: String,
        /// The rule, as the end of a sentence.
        rule: String,
    },
    /// The archive as a whole cannot be used.
    #[error("the source archive {0}")]
    Archive(String),
    /// The clean archive could not be written: the reader went away.
    #[error("handing over the source: {0}")]
    Write(#[source] io::Error),
}

/// Reads a tar or tar.gz from `input` and writes the clean tar to `out`.
///
/// # Errors
/// See [`SourceError`]. What was written until then is a tar without an end.
pub fn sanitize(input: impl Read, env: &ConfigVars, out: impl Write) -> Result<Summary, SourceError> {
    sanitize_within(Bounds::default(), input, env, out)
}

/// [`sanitize`] with other bounds.
///
/// # Errors
/// As [`sanitize`].
pub fn sanitize_within(bounds: Bounds, input: impl Read, env: &ConfigVars, out: impl Write) -> Result<Summary, SourceError> {
    let mut archive = tar::Archive::new(Input::detect(input, bounds)?);
    let mut clean = Clean::new(bounds, out);
    let mut pending = Pending::default();
    for entry in archive.entries().map_err(unreadable)?.raw(true) {
        let mut entry = entry.map_err(unreadable)?;
        if pending.absorb(&mut entry)? {
            continue;
        }
        let member = Member::new(std::mem::take(&mut pending), entry.header())?;
        clean.add(&member, &mut entry)?;
    }
    if !pending.is_empty() {
        return Err(SourceError::Archive("ends with a header that describes no member".into()));
    }
    archive.into_inner().finish()?;
    clean.environment(env)?;
    clean.finish()
}

/// An error of the tar library or of the decompressor: both speak of the archive, and in its own bytes, which are not for a terminal.
fn unreadable(error: io::Error) -> SourceError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => SourceError::Archive("is cut off".into()),
        _ => SourceError::Archive(format!("cannot be read: {}", printable(&error.to_string(), 300))),
    }
}

/// The archive being written.
struct Clean<W: Write> {
    out: tar::Builder<Out<W>>,
    tree: Tree,
    bounds: Bounds,
    summary: Summary,
}

impl<W: Write> Clean<W> {
    fn new(bounds: Bounds, out: W) -> Self {
        let out = tar::Builder::new(Out { inner: out, failed: false });
        Self { out, tree: Tree::new(bounds.entries), bounds, summary: Summary::default() }
    }

    fn add(&mut self, member: &Member, data: &mut impl Read) -> Result<(), SourceError> {
        match &member.kind {
            // The top folder (`./`) exists in the dyno already.
            Kind::Dir if member.path.is_empty() => return Ok(()),
            Kind::Dir => {
                self.tree.place(member, tree::Node::Dir)?;
                return self.write(header(tar::EntryType::Directory, 0o755, 0, member.mtime), member, &mut io::empty());
            }
            Kind::File { size, executable } => {
                self.tree.place(member, tree::Node::File)?;
                if *size > self.bounds.bytes - self.summary.bytes {
                    let rule = format!("unpacks to more than {} MB in all", self.bounds.bytes >> 20);
                    return Err(SourceError::Archive(rule));
                }
                self.summary.bytes += size;
                let mode = if *executable { 0o755 } else { 0o644 };
                self.write(header(tar::EntryType::Regular, mode, *size, member.mtime), member, data)?;
            }
            Kind::Symlink { target } => {
                self.tree.place(member, tree::Node::Symlink)?;
                tree::stays_inside(member, target)?;
                self.link(tar::EntryType::Symlink, member, target)?;
            }
            Kind::Hardlink { target } => {
                self.tree.require_file(member, target)?;
                self.tree.place(member, tree::Node::File)?;
                self.link(tar::EntryType::Link, member, &tree::joined(target))?;
            }
        }
        self.summary.files += 1;
        Ok(())
    }

    fn write(&mut self, mut header: tar::Header, member: &Member, data: &mut impl Read) -> Result<(), SourceError> {
        let want = header.size().map_err(SourceError::Write)?;
        let mut data = Counted { inner: data, read: 0 };
        let path = tree::joined(&member.path);
        let done = self.out.append_data(&mut header, Path::new(OsStr::from_bytes(&path)), &mut data);
        done.map_err(|error| self.blame(error))?;
        if data.read != want {
            return Err(SourceError::Archive("is cut off".into()));
        }
        Ok(())
    }

    fn link(&mut self, kind: tar::EntryType, member: &Member, target: &[u8]) -> Result<(), SourceError> {
        let path = tree::joined(&member.path);
        let (path, target) = (OsStr::from_bytes(&path), OsStr::from_bytes(target));
        let done = self.out.append_link(&mut header(kind, 0o777, 0, member.mtime), path, target);
        done.map_err(|error| self.blame(error))
    }

    /// Config var names are validated by the model: `[A-Za-z_][A-Za-z0-9_]*`.
    fn environment(&mut self, env: &ConfigVars) -> Result<(), SourceError> {
        let mut folder = header(tar::EntryType::Directory, 0o755, 0, 0);
        self.out.append_data(&mut folder, "tmp/env/", io::empty()).map_err(SourceError::Write)?;
        for (name, value) in env.iter() {
            let mut file = header(tar::EntryType::Regular, 0o600, value.len() as u64, 0);
            let done = self.out.append_data(&mut file, format!("tmp/env/{name}"), value.as_bytes());
            done.map_err(SourceError::Write)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Summary, SourceError> {
        self.out.finish().map_err(SourceError::Write)?;
        self.out.get_mut().flush().map_err(SourceError::Write)?;
        Ok(self.summary)
    }

    /// Copying a file meets errors of both sides.
    fn blame(&self, error: io::Error) -> SourceError {
        if self.out.get_ref().failed { SourceError::Write(error) } else { unreadable(error) }
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64, mtime: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(mtime);
    header.set_uid(1000);
    header.set_gid(1000);
    header
}

/// Remembers that it was the writer who failed.
struct Out<W> {
    inner: W,
    failed: bool,
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.inner.write(bytes);
        self.failed |= matches!(&done, Err(error) if error.kind() != io::ErrorKind::Interrupted);
        done
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Counted<'a, R> {
    inner: &'a mut R,
    read: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.read += n as u64;
        Ok(n)
    }
}
