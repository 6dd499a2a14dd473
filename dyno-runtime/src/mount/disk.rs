//! The writable layer on disk: an ext4 of its own in a file without a name, on a loop device that goes with its last user.
//!
//! Nothing of it has a name that could be left behind: the file is made unnamed (O_TMPFILE), the loop device frees itself, the mount
//! is a detached one. So whatever is killed, and when, the kernel takes all of it back. mkfs.ext4 is run once per size; what it has
//! written, some 50 KiB, is kept and copied into each new file.

use std::{
    fs::File,
    io::{Read, Seek},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::FileExt, process::ExitStatusExt},
    },
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fs::{MemfdFlags, Mode, OFlags, SeekFrom, fstat, ftruncate, memfd_create, open, openat, seek, unlinkat},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen},
};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{self, LoopAccess},
};

/// Empty file systems that are remembered, the last used first. An embedder has a handful of sizes.
const REMEMBERED: usize = 8;

/// Where Debian and others have it; root's PATH need not hold an sbin.
const MKFS: [&str; 4] = ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/local/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4"];

/// No journal: the layer need not survive a crash. uninit_bg: groups and inode tables that were never used are never read, so a file
/// of holes will do. sparse_super2 without backups keeps the metadata together at the front.
const FEATURES: &str = "none,ext_attr,dir_index,sparse_super2,filetype,extent,64bit,flex_bg,large_file,huge_file,uninit_bg,dir_nlink,extra_isize";

/// Formats the disks of one instance.
#[derive(Debug, Default)]
pub struct Disks(Mutex<Vec<Arc<Empty>>>);

/// An empty file system: what mkfs.ext4 wrote, and where. The rest are holes.
#[derive(Debug)]
struct Empty {
    bytes: u64,
    inodes: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

impl Disks {
    /// A new, empty file system of `bytes` with room for `inodes` files, mounted nowhere; its root is the host's root's alone. The
    /// file is in `directory`, takes what is written, and is gone with the mount.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a directory that is missing or not root's alone; [`ErrorKind::Wall`] without mkfs.ext4 (package
    /// e2fsprogs) or a free loop device, or of mounting.
    pub fn mount(&self, directory: &Path, bytes: u64, inodes: u64) -> Result<OwnedFd> {
        let empty = self.empty(bytes, inodes)?;
        let file = unnamed_file(directory)?;
        let what = |call: &str| format!("disk in {}: {call}", directory.display());
        ftruncate(&file, bytes).wall(|| what(&format!("ftruncate({bytes})")))?;
        for (at, part) in &empty.parts {
            write_all(&file, part, *at).wall(|| what("pwrite"))?;
        }
        let (number, _device) = sys::attach_loop(file.as_fd(), "dyno", LoopAccess::Write).wall(|| what("LOOP_CONFIGURE"))?;
        let fs = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC).wall(|| what("fsopen(ext4)"))?;
        // barrier=0: no fsync inside waits for, or burdens, the host's disk. discard: what is deleted is given back to the host.
        for (key, value) in [("source", &*format!("/dev/loop{number}")), ("errors", "remount-ro"), ("barrier", "0")] {
            fsconfig_set_string(&fs, key, value).wall(|| what(&format!("fsconfig(ext4, {key}={value})")))?;
        }
        for key in ["discard", "noinit_itable"] {
            fsconfig_set_flag(&fs, key).wall(|| what(&format!("fsconfig(ext4, {key})")))?;
        }
        fsconfig_create(&fs).wall(|| what("fsconfig(ext4, create)"))?;
        let tree = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV);
        let tree = tree.wall(|| what("fsmount(ext4)"))?;
        rustix::fs::chmodat(&tree, ".", Mode::from_raw_mode(0o700), rustix::fs::AtFlags::empty()).wall(|| what("chmod(., 0700)"))?;
        Ok(tree)
    }

    fn empty(&self, bytes: u64, inodes: u64) -> Result<Arc<Empty>> {
        // Never held while mkfs runs, nor where something can panic.
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known().iter().find(|e| (e.bytes, e.inodes) == (bytes, inodes)) {
            return Ok(found.clone());
        }
        let made = Arc::new(Empty { bytes, inodes, parts: mkfs(bytes, inodes)? });
        let mut list = known();
        list.truncate(REMEMBERED - 1);
        list.insert(0, made.clone());
        Ok(made)
    }
}

/// A file that no directory names. Where the file system cannot make one, it loses its name at once.
fn unnamed_file(directory: &Path) -> Result<OwnedFd> {
    let what = |call: &str| format!("root.upper.directory {}: {call}", directory.display());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = open(directory, flags, Mode::empty()).context(ErrorKind::Invalid, || what("open"))?;
    let stat = fstat(&dir).wall(|| what("stat"))?;
    if stat.st_uid != 0 || stat.st_mode & 0o022 != 0 {
        // What the kernel mounts must not come from a file system that somebody else serves.
        return Err(Error::refused(ErrorKind::Invalid, what("must belong to root, and others must not write it")));
    }
    let mode = Mode::from_raw_mode(0o600);
    match openat(&dir, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {}
        other => return other.wall(|| what("open(O_TMPFILE)")),
    }
    let name = format!(".dyno-disk-{}", unique()?);
    let file = openat(&dir, &name, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC, mode).wall(|| what("create a file"))?;
    unlinkat(&dir, &name, rustix::fs::AtFlags::empty()).wall(|| what("unlink"))?;
    Ok(file)
}

/// A name that no other file has.
fn unique() -> Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    Ok(std::fs::read_to_string(path).io(|| format!("read {path}"))?.trim().to_owned())
}

/// Runs mkfs.ext4 on a file in memory and reads what it has written.
fn mkfs(bytes: u64, inodes: u64) -> Result<Vec<(u64, Vec<u8>)>> {
    let what = |call: &str| format!("mkfs.ext4 of {bytes} bytes and {inodes} inodes: {call}");
    let missing = || Error::refused(ErrorKind::Wall, "root.upper: a layer on disk needs mkfs.ext4; install the package e2fsprogs");
    let program = MKFS.iter().find(|path| Path::new(path).exists()).ok_or_else(missing)?;
    let memory = || memfd_create("dyno-disk", MemfdFlags::CLOEXEC).map(File::from).wall(|| what("memfd_create"));
    let (disk, mut said) = (memory()?, memory()?);
    ftruncate(&disk, bytes).wall(|| what("ftruncate"))?;
    let copy = |file: &File| file.try_clone().wall(|| what("dup"));
    // Nothing of the caller's environment, nor of the host's mke2fs.conf: the same file system everywhere.
    let mut command = Command::new(program);
    command.env_clear().env("MKE2FS_CONFIG", "/dev/null").stdin(copy(&disk)?).stdout(Stdio::null()).stderr(copy(&said)?);
    command.args(["-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-N", &inodes.to_string(), "-O", FEATURES]);
    command.args(["-E", "nodiscard,lazy_itable_init=1,num_backup_sb=0,packed_meta_blocks=1,root_owner=0:0", "/proc/self/fd/0"]);
    let status = match command.status() {
        // Who ignores SIGCHLD is not told how a child ended; the superblock is written last.
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) => ExitStatus::from_raw(i32::from(!is_ext4(&disk))),
        other => other.wall(|| what("run"))?,
    };
    if !status.success() {
        let mut text = String::new();
        said.rewind().and_then(|()| said.read_to_string(&mut text)).wall(|| what("read what it said"))?;
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        return Err(Error::refused(ErrorKind::Wall, what(&format!("{status}: {}", lines.join("; ")))));
    }
    written(&disk, bytes).wall(|| what("read it back"))
}

/// By its magic number (linux/magic.h), 56 bytes into the superblock.
fn is_ext4(disk: &File) -> bool {
    let mut magic = [0; 2];
    disk.read_exact_at(&mut magic, 1024 + 56).is_ok() && u16::from_le_bytes(magic) == 0xef53
}

/// Everything of `file` that is no hole.
fn written(file: &File, bytes: u64) -> std::io::Result<Vec<(u64, Vec<u8>)>> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < bytes {
        at = match seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break, // only holes from here
            other => other?,
        };
        let end = seek(file, SeekFrom::Hole(at))?;
        let mut part = vec![0; usize::try_from(end - at).unwrap_or_default()];
        file.read_exact_at(&mut part, at)?;
        parts.push((at, part));
        at = end;
    }
    Ok(parts)
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut at: u64) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, at) {
            Ok(n) => (bytes, at) = (&bytes[n..], at + n as u64),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
