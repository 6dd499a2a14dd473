//! Control files: reading and writing them below a directory descriptor, and the forms that their text has.
//!
//! The forms are those of the kernel's cgroup-v2.rst ("Interface Files"); v1's files have the same ones.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat},
    io::Errno,
};

type Answer<T> = Result<T, Errno>;

/// Writes `value` in one call, as the kernel wants it.
pub(crate) fn write_file(dir: &OwnedFd, name: &str, value: &str) -> Answer<()> {
    let file = openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::retry_on_intr(|| rustix::io::write(&file, value.as_bytes())).map(drop)
}

/// The whole text.
pub(crate) fn read_file(dir: &OwnedFd, name: &str) -> Answer<String> {
    read_from_start(&open_file(dir, name)?)
}

/// For reading again and again.
pub(crate) fn open_file(dir: &OwnedFd, name: &str) -> Answer<OwnedFd> {
    openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// The whole text as it is now; the kernel makes it anew when read from the start.
///
/// An answer that leaves half of the room empty is all there is: the kernel ends one early only before an entry that does not fit into
/// the rest (seq_file.rst), and none of these files has entries of that size.
pub(crate) fn read_from_start(file: &OwnedFd) -> Answer<String> {
    let mut text = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        let n = rustix::io::pread(file, &mut chunk, text.len() as u64)?;
        text.extend_from_slice(&chunk[..n]);
        if n <= chunk.len() / 2 {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }
}

/// mkdir that accepts an existing directory.
pub(crate) fn make_dir(parent: &OwnedFd, name: &str) -> Answer<()> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

pub(crate) fn open_dir(parent: &OwnedFd, name: &str) -> Answer<OwnedFd> {
    openat(parent, name, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

pub(crate) fn remove_dir(parent: &OwnedFd, name: &str) -> Answer<()> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// The value of `key` in a file of `key value` lines.
pub(crate) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A file of one number. `max`, and v1's way to say so (the largest number of pages, in bytes), are None.
pub(crate) fn limit_of(text: &str) -> Option<u64> {
    // v1: PAGE_COUNTER_MAX is LONG_MAX / PAGE_SIZE pages; of huge pages it is rounded down to one of those. No host has 2^62 bytes.
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 62)
}

/// `key` in a line of `name=value` fields, as in io.stat and the pressure files.
pub(crate) fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// The numbers of a list such as `0-3,8` (cpuset(7), "List format"), sorted.
pub(crate) fn list_of(text: &str) -> Vec<u32> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<u32>(), to.parse::<u32>()) {
            numbers.extend(from..=to.min(65_536));
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_files() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(value_of(text, "oom_kill"), Some(3));
        assert_eq!(value_of(text, "oom"), None);
    }

    #[test]
    fn limits() {
        let check = |text: &str, is: Option<u64>| assert_eq!(limit_of(text), is, "{text:?}");
        check("4194304\n", Some(4 << 20));
        check("0\n", Some(0));
        check("max\n", None);
        check("9223372036854771712\n", None);
        check("9223372036852678656\n", None);
        check("-1\n", None);
    }

    #[test]
    fn fields() {
        let line = "254:0 rbytes=4096 wbytes=0 rios=1";
        assert_eq!((field(line, "rbytes"), field(line, "rios"), field(line, "bytes")), (Some("4096"), Some("1"), None));
    }

    #[test]
    fn lists() {
        assert_eq!(list_of("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(list_of("1,0,1"), [0, 1]);
        assert_eq!(list_of("\n"), [0; 0]);
    }
}
