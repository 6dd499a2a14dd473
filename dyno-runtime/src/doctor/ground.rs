//! Where facts come from: the host's files, or a test's.

use std::path::{Path, PathBuf};

use crate::sys::{Answer, landlock_abi, probe_calls};

/// What is looked at.
pub(super) struct Ground {
    /// Stands before every path.
    pub root: PathBuf,
    /// `uname -r`.
    pub release: String,
    /// Whether the caller is root.
    pub root_user: bool,
    /// What the kernel said to each call.
    pub calls: Vec<(&'static str, Answer)>,
    /// Landlock's, 0 for none.
    pub landlock: u32,
    /// Directories in which programs are looked for.
    pub path: Vec<PathBuf>,
    /// What links with a policy lack, tried out in a network namespace of its own; None if nobody may try.
    pub links: Option<Vec<String>>,
}

impl Ground {
    pub fn here() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // mkfs, nft and their like are often beyond an ordinary user's PATH.
        let more = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
        let root_user = rustix::process::geteuid().is_root();
        Self {
            root: PathBuf::from("/"),
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            root_user,
            calls: probe_calls(),
            landlock: landlock_abi().unwrap_or(0),
            path: std::env::split_paths(&path).chain(more).collect(),
            links: root_user.then(crate::net::egress::missing),
        }
    }

    /// Whether the kernel is at least that, by its number.
    pub fn is_linux(&self, major: u32, minor: u32) -> bool {
        let mut parts = self.release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    pub fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.at(path)).ok()
    }

    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.split_whitespace().next()?.parse().ok()
    }

    /// Whether the caller may write there.
    pub fn writable(&self, path: &str) -> bool {
        rustix::fs::access(self.at(path), rustix::fs::Access::WRITE_OK).is_ok()
    }

    pub fn program(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|dir| dir.join(name)).find(|file| self.at(&file.to_string_lossy()).is_file())
    }

    /// Whether the kernel has a file system, or a module of it that it would load.
    pub fn filesystem(&self, name: &str) -> Option<&'static str> {
        let ready = self.text("/proc/filesystems").unwrap_or_default();
        if ready.lines().any(|line| line.split_whitespace().last() == Some(name)) {
            return Some("ready");
        }
        self.module(name).then_some("a module that is loaded at its first use")
    }

    /// Whether there is a module of that name.
    pub fn module(&self, name: &str) -> bool {
        let list = self.text(&format!("/lib/modules/{}/modules.dep", self.release)).unwrap_or_default();
        let stem = |line: &str| Some(Path::new(line.split(':').next()?).file_name()?.to_str()?.split('.').next()?.to_owned());
        list.lines().any(|line| stem(line).as_deref() == Some(name))
    }
}
