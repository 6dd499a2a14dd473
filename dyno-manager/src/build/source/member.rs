//! One member of an archive: its header, and the extension headers before it, made one.
//!
//! Four kinds of header only describe the member after them: GNU's `L` (long name) and `K` (long
//! link target), POSIX `x` (pax records for one member) and `g` (for all that follow). Programs
//! differ in which of them wins, so a member that two of them describe is refused.

use std::io::Read;

use tar::EntryType;

use super::{SourceError, tree};

/// Longest name and longest link target: the kernel's PATH_MAX.
const MAX_NAME: usize = 4096;
/// Longest block of pax records that is read; an honest one has a few hundred bytes.
const MAX_PAX: u64 = 1 << 20;
/// Times are kept up to the year 2242; others (and times before 1970) become 0.
const MAX_MTIME: u64 = 1 << 33;

/// What a member is.
#[derive(Debug)]
pub(super) enum Kind {
    Dir,
    File { size: u64, executable: bool },
    Symlink { target: Vec<u8> },
    Hardlink { target: Vec<Vec<u8>> },
}

/// A member that is understood.
#[derive(Debug)]
pub(super) struct Member {
    /// As it is shown in errors.
    pub name: String,
    /// Components of its name; empty for the top folder.
    pub path: Vec<Vec<u8>>,
    pub kind: Kind,
    pub mtime: u64,
}

/// What extension headers have said about the member to come.
#[derive(Debug, Default)]
pub(super) struct Pending {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    pax: bool,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && !self.pax
    }

    /// Takes in an extension header; false when `entry` is a member itself.
    pub(super) fn absorb(&mut self, entry: &mut tar::Entry<impl Read>) -> Result<bool, SourceError> {
        let kind = entry.header().entry_type();
        let name = shown(&entry.header().path_bytes());
        let once = |slot: &mut Option<Vec<u8>>, value| match slot.replace(value) {
            Some(_) => Err(refuse(&name, "is described by two headers")),
            None => Ok(()),
        };
        match kind {
            EntryType::GNULongName => once(&mut self.name, c_string(read(entry, MAX_NAME as u64 + 1, &name)?))?,
            EntryType::GNULongLink => once(&mut self.link, c_string(read(entry, MAX_NAME as u64 + 1, &name)?))?,
            EntryType::XHeader => {
                if std::mem::replace(&mut self.pax, true) {
                    return Err(refuse(&name, "is described by two headers"));
                }
                for (key, value) in records(&read(entry, MAX_PAX, &name)?, &name)? {
                    match key.as_slice() {
                        b"path" => once(&mut self.name, value)?,
                        b"linkpath" => once(&mut self.link, value)?,
                        b"size" => self.size = Some(decimal(&value, &name)?),
                        _ => harmless(&key, &name)?,
                    }
                }
            }
            EntryType::XGlobalHeader => {
                for (key, _) in records(&read(entry, MAX_PAX, &name)?, &name)? {
                    if matches!(key.as_slice(), b"path" | b"linkpath" | b"size") {
                        return Err(refuse(&name, "renames or resizes every member"));
                    }
                    harmless(&key, &name)?;
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Member {
    pub(super) fn new(pending: Pending, header: &tar::Header) -> Result<Self, SourceError> {
        let raw = pending.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let name = shown(&raw);
        let path = components(&raw, &name)?;
        let size = header.entry_size().map_err(|_| refuse(&name, "has an unreadable size"))?;
        if pending.size.is_some_and(|pax| pax != size) {
            return Err(refuse(&name, "has two different sizes"));
        }
        let link = pending.link.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        let kind = match header.entry_type() {
            // Before POSIX a folder was a file whose name ends with a slash.
            EntryType::Regular | EntryType::Continuous if raw.ends_with(b"/") => Kind::Dir,
            EntryType::Regular | EntryType::Continuous => {
                let mode = header.mode().map_err(|_| refuse(&name, "has an unreadable mode"))?;
                Kind::File { size, executable: mode & 0o111 != 0 }
            }
            EntryType::Directory => Kind::Dir,
            EntryType::Symlink => Kind::Symlink { target: link_target(link, &name)? },
            EntryType::Link => {
                let target = link_target(link, &name)?;
                let path = components(&target, &name).map_err(|_| refuse(&name, "is a hard link that leads outside the source"))?;
                Kind::Hardlink { target: path }
            }
            EntryType::GNUSparse => return Err(refuse(&name, "is a sparse file; pack it without --sparse")),
            EntryType::Char | EntryType::Block => return Err(refuse(&name, "is a device")),
            EntryType::Fifo => return Err(refuse(&name, "is a named pipe")),
            other => {
                let rule = format!("is of the unknown kind {:?}", char::from(other.as_byte()));
                return Err(refuse(&name, rule));
            }
        };
        if size > 0 && !matches!(kind, Kind::File { .. }) {
            return Err(refuse(&name, "has contents, but is no file"));
        }
        if path.is_empty() && !matches!(kind, Kind::Dir) {
            return Err(refuse(&name, "takes the place of the top folder"));
        }
        let mtime = header.mtime().ok().filter(|time| *time < MAX_MTIME).unwrap_or(0);
        Ok(Self { name, path, kind, mtime })
    }
}

pub(super) fn refuse(name: &str, rule: impl Into<String>) -> SourceError {
    SourceError::Member { name: name.to_owned(), rule: rule.into() }
}

/// Splits a name; `.` and empty components vanish, everything that could lead elsewhere is refused.
fn components(raw: &[u8], name: &str) -> Result<Vec<Vec<u8>>, SourceError> {
    if raw.is_empty() {
        return Err(refuse(name, "has no name"));
    }
    if raw.len() > MAX_NAME {
        return Err(refuse(name, format!("has a name of more than {MAX_NAME} bytes")));
    }
    if raw.contains(&0) {
        return Err(refuse(name, "has a NUL byte in its name"));
    }
    if raw.starts_with(b"/") {
        return Err(refuse(name, "has an absolute name"));
    }
    let parts = raw.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let path: Vec<_> = parts.map(<[u8]>::to_vec).collect();
    if path.iter().any(|part| part == b"..") {
        return Err(refuse(name, "has `..` in its name"));
    }
    if path.iter().any(|part| part.len() > tree::MAX_COMPONENT) {
        return Err(refuse(name, format!("has a part of more than {} bytes in its name", tree::MAX_COMPONENT)));
    }
    Ok(path)
}

fn link_target(link: Option<Vec<u8>>, name: &str) -> Result<Vec<u8>, SourceError> {
    let target = link.filter(|target| !target.is_empty()).ok_or_else(|| refuse(name, "is a link to nothing"))?;
    if target.len() > MAX_NAME || target.contains(&0) {
        return Err(refuse(name, "is a link whose target is no path"));
    }
    Ok(target)
}

/// Long names are stored with the NUL that ends a C string.
fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

fn read(entry: &mut tar::Entry<impl Read>, max: u64, name: &str) -> Result<Vec<u8>, SourceError> {
    let size = entry.header().entry_size().map_err(|_| refuse(name, "has an unreadable size"))?;
    if size > max {
        return Err(refuse(name, format!("has a header of more than {max} bytes")));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(super::unreadable)?;
    if bytes.len() as u64 != size {
        return Err(SourceError::Archive("is cut off".into()));
    }
    Ok(bytes)
}

/// Key and value.
type Record = (Vec<u8>, Vec<u8>);

/// pax records: `LENGTH KEY=VALUE\n`, the length counting the whole record; values may hold anything.
fn records(mut bytes: &[u8], name: &str) -> Result<Vec<Record>, SourceError> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (record, rest) = split_record(bytes).ok_or_else(|| refuse(name, "has malformed pax records"))?;
        found.push(record);
        bytes = rest;
    }
    Ok(found)
}

fn split_record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let digits = std::str::from_utf8(&bytes[..space]).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
    let (record, rest) = bytes.split_at_checked(digits.parse().ok()?)?;
    let pair = record.strip_suffix(b"\n")?.get(space + 1..)?;
    let equals = pair.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    Some(((pair[..equals].to_vec(), pair[equals + 1..].to_vec()), rest))
}

fn decimal(value: &[u8], name: &str) -> Result<u64, SourceError> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| refuse(name, "has an unreadable size"))
}

/// Owners, times, comments and extended attributes are dropped; sparse maps change the contents.
fn harmless(key: &[u8], name: &str) -> Result<(), SourceError> {
    if key.starts_with(b"GNU.sparse.") {
        return Err(refuse(name, "is a sparse file; pack it without --sparse"));
    }
    Ok(())
}

/// A name for an error: printable, one line, cut.
fn shown(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let mut name: String = text.chars().take(160).collect();
    if name.len() < text.len() {
        name.push('…');
    }
    name
}
