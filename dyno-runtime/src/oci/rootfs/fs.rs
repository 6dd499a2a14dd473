//! File systems of the container's own, made by fsopen(2) and what follows it: detached, and attached when they are complete.

use std::{os::fd::OwnedFd, path::Path};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys,
};

/// Longest value that fsconfig(2) takes as a string.
const LONGEST: usize = 255;

/// A file system to be made.
#[derive(Debug)]
pub(super) struct FileSystem<'a> {
    /// Its type.
    pub kind: &'a str,
    /// Its source, as mount tables show it.
    pub source: &'a str,
    /// Its options.
    pub data: Vec<(&'a str, Option<String>)>,
    /// MOUNT_ATTR_… of the mount.
    pub attributes: u64,
}

impl FileSystem<'_> {
    /// Whether fsconfig(2) can say it all.
    pub(super) fn fits(&self) -> bool {
        self.data.iter().all(|(_, value)| value.as_ref().is_none_or(|v| v.len() <= LONGEST)) && self.source.len() <= LONGEST
    }

    /// The mount, detached. `what` names it in errors.
    ///
    /// # Errors
    /// Of the calls, with what the file system itself says of it.
    pub(super) fn make(&self, what: &str) -> Result<OwnedFd> {
        let kind = self.kind;
        let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).wall(|| format!("{what}: fsopen({kind})"))?;
        let named = |call: String| move |fs: &OwnedFd| format!("{what}: fsconfig({kind}, {call}){}", said(fs));
        if !self.source.is_empty() {
            fsconfig_set_string(&fs, "source", self.source).wall(|| named(format!("source={}", self.source))(&fs))?;
        }
        for (key, value) in &self.data {
            match value {
                Some(value) => fsconfig_set_string(&fs, *key, value.as_str()).wall(|| named(format!("{key}={value}"))(&fs)),
                None => fsconfig_set_flag(&fs, *key).wall(|| named((*key).to_owned())(&fs)),
            }?;
        }
        if self.attributes & sys::RDONLY != 0 && has_device(kind) {
            fsconfig_set_flag(&fs, "ro").wall(|| named("ro".into())(&fs))?;
        }
        fsconfig_create(&fs).wall(|| named("create".into())(&fs))?;
        let attributes = MountAttrFlags::from_bits_retain(u32::try_from(self.attributes).unwrap_or(u32::MAX));
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).wall(|| format!("{what}: fsmount({kind}){}", said(&fs)))
    }

    /// The same by mount(2) on the directory `at` (absolute, or relative to the working directory), for options too long for fsconfig(2)
    /// such as many layers of an overlay.
    ///
    /// # Errors
    /// Of mount(2).
    pub(super) fn make_at(&self, at: &Path, what: &str) -> Result<()> {
        let join = |(key, value): &(&str, Option<String>)| value.as_ref().map_or_else(|| (*key).to_owned(), |v| format!("{key}={v}"));
        let data = self.data.iter().map(join).collect::<Vec<_>>().join(",");
        let data = std::ffi::CString::new(data).map_err(|_| Error::refused(ErrorKind::Invalid, format!("{what}: an option with a NUL")))?;
        let flags = [
            (sys::RDONLY, MountFlags::RDONLY),
            (sys::NOSUID, MountFlags::NOSUID),
            (sys::NODEV, MountFlags::NODEV),
            (sys::NOEXEC, MountFlags::NOEXEC),
        ];
        let flags = flags.iter().filter(|(bit, _)| self.attributes & bit != 0).fold(MountFlags::empty(), |all, (_, flag)| all | *flag);
        rustix::mount::mount(self.source, at, self.kind, flags, data.as_c_str()).wall(|| format!("{what}: mount({}, {:?})", self.kind, data))
    }
}

/// Those whose superblock is to be read-only as well. The kernel's own are shared between mounts, or are filled after they were mounted.
fn has_device(kind: &str) -> bool {
    !matches!(
        kind,
        "tmpfs" | "proc" | "sysfs" | "mqueue" | "devpts" | "cgroup" | "cgroup2" | "overlay" | "bpf" | "debugfs" | "tracefs" | "securityfs"
    )
}

/// What the kernel has written into the log of a file system context: lines such as `e tmpfs: Unknown parameter 'x'`.
fn said(fs: &OwnedFd) -> String {
    let (mut line, mut all) = ([0u8; 512], String::new());
    while let Ok(n) = rustix::io::read(fs, &mut line) {
        let text = String::from_utf8_lossy(line.get(..n).unwrap_or_default());
        all.push_str(" [");
        all.push_str(text.trim_end().trim_start_matches(['e', 'w', 'i']).trim_start());
        all.push(']');
        if n == 0 || all.len() > 2000 {
            break;
        }
    }
    all
}
