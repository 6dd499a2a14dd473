//! One value of `linux.resources` on its way into a file of a group.
//!
//! The kernel checks pairs of values against each other: memory against memory and swap, a quota against period and burst. Which order is
//! right depends on what the files say now; so a value that is refused with EINVAL is tried once more after the others.

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};

use super::{group::Group, refused};
use crate::{
    cgroup::{
        file::{read_file, read_from_start, write_file},
        knob::Reads,
    },
    error::{Context, Error, ErrorKind, Result},
};

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    /// The member of `linux.resources` that it is for.
    pub member: String,
    /// The file; if there is none of that name, the next.
    pub files: Vec<String>,
    pub value: String,
    /// What the file must say then, where the kernel keeps it as it is.
    pub reads: Option<Reads>,
    /// Without such a file there is nothing to ask for.
    pub optional: bool,
}

impl Ask {
    pub fn new(member: impl Into<String>, file: impl Into<String>, value: impl ToString) -> Self {
        Self { member: member.into(), files: vec![file.into()], value: value.to_string(), reads: None, optional: false }
    }

    pub fn number(member: impl Into<String>, file: impl Into<String>, value: u64) -> Self {
        Self { reads: Some(Reads::Number(value)), ..Self::new(member, file, value) }
    }

    pub fn or(mut self, file: impl Into<String>) -> Self {
        self.files.push(file.into());
        self
    }

    pub fn reads(self, reads: Reads) -> Self {
        Self { reads: Some(reads), ..self }
    }

    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
}

/// A value to be put back.
pub(super) struct Former<'g> {
    group: &'g Group,
    file: String,
    value: String,
}

impl Former<'_> {
    pub fn put_back(self) {
        if let Err(e) = write_file(&self.group.dir, &self.file, &self.value) {
            tracing::warn!(%e, value = self.value, "{}/{} could not be put back", self.group.path, self.file);
        }
    }
}

impl Group {
    /// Writes all of these. What the files said before is noted in `former`.
    pub fn set<'g>(&'g self, asks: Vec<Ask>, mut former: Option<&mut Vec<Former<'g>>>) -> Result<()> {
        let mut again = Vec::new();
        for ask in asks {
            match self.write(&ask, former.as_deref_mut()) {
                Err(e) if e.errno() == Some(Errno::INVAL) => again.push(ask),
                other => other?,
            }
        }
        again.iter().try_for_each(|ask| self.write(ask, former.as_deref_mut()))
    }

    fn write<'g>(&'g self, ask: &Ask, former: Option<&mut Vec<Former<'g>>>) -> Result<()> {
        let Some((file, name)) = self.find(ask)? else { return Ok(()) };
        let path = || format!("{}/{name}", self.path);
        if let Some(former) = former {
            former.extend(self.former(name, ask)?);
        }
        let done = rustix::io::write(&file, ask.value.as_bytes());
        if done == Err(Errno::BUSY)
            && let Some(e) = self.too_much_in_use(ask)
        {
            return Err(e);
        }
        done.wall(|| format!("linux.resources.{}: write {:?} to {}", ask.member, ask.value, path()))?;
        let Some(reads) = &ask.reads else { return Ok(()) };
        let is = read_from_start(&file).wall(|| format!("cgroup: read {}", path()))?;
        if reads.holds(&is) {
            return Ok(());
        }
        Err(refused(format!("linux.resources.{}: {} is {:?} after writing {:?}", ask.member, path(), is.trim(), ask.value)))
    }

    /// The first of the files that is there.
    fn find<'a>(&self, ask: &'a Ask) -> Result<Option<(std::os::fd::OwnedFd, &'a str)>> {
        let access = if ask.reads.is_some() { OFlags::RDWR } else { OFlags::WRONLY };
        for name in &ask.files {
            match openat(&self.dir, name.as_str(), access | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
                Err(Errno::NOENT) => {}
                other => return Ok(Some((other.wall(|| format!("linux.resources.{}: open({}/{name})", ask.member, self.path))?, name))),
            }
        }
        if ask.optional {
            return Ok(None);
        }
        let names = ask.files.join(" nor ");
        Err(Error::call(ErrorKind::Wall, format!("linux.resources.{}: this kernel has no {names} in {}", ask.member, self.path), Errno::NOENT))
    }

    fn former<'g>(&'g self, name: &str, ask: &Ask) -> Result<Option<Former<'g>>> {
        // What cannot be read back cannot be put back either.
        let Some(reads) = &ask.reads else { return Ok(None) };
        let text = read_file(&self.dir, name).wall(|| format!("cgroup: read {}/{name}", self.path))?;
        Ok(Some(Former { group: self, file: name.to_owned(), value: reads.undo(&text) }))
    }

    /// v1 answers EBUSY when what is in use cannot be reclaimed.
    fn too_much_in_use(&self, ask: &Ask) -> Option<Error> {
        let read = |file| self.read(file).ok().map(|text| text.trim().to_owned());
        let (usage, peak) = (read("memory.usage_in_bytes")?, read("memory.max_usage_in_bytes")?);
        let what =
            format!("linux.resources.{}: unable to set memory limit to {} (current usage: {usage}, peak usage: {peak})", ask.member, ask.value);
        Some(Error::call(ErrorKind::Wall, what, Errno::BUSY))
    }
}
