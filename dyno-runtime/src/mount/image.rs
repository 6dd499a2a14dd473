//! Squashfs images: verified, mounted once per host, shared by every sandbox that uses them.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
        fsopen, move_mount, unmount,
    },
};
use sha2::{Digest, Sha256};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys,
};

const SQUASHFS_MAGIC: u64 = 0x7371_7368;

/// The images mounted on this host by one instance, below one directory.
#[derive(Debug)]
pub struct Images {
    dir: PathBuf,
}

impl Images {
    /// Images are mounted at `dir/<sha256>`.
    ///
    /// # Errors
    /// Of making the directory.
    pub fn open(dir: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&dir).io(|| format!("mkdir({})", dir.display()))?;
        Ok(Self { dir })
    }

    /// The root of the mounted image, mounting it first if this is its first use. The file must be root's, or that of the
    /// user `maker`, from whom it is taken then.
    ///
    /// # Errors
    /// [`ErrorKind::Image`] when the file is missing, another's, has another hash, or is still open for writing.
    pub fn get(&self, path: &Path, sha256: &str, maker: Option<u32>) -> Result<OwnedFd> {
        let point = self.dir.join(sha256);
        if let Some(fd) = mounted(&point)? {
            return Ok(fd);
        }
        let lock = File::create(self.dir.join(".lock")).io(|| format!("open({}/.lock)", self.dir.display()))?;
        lock.lock().io(|| format!("flock({}/.lock)", self.dir.display()))?;
        if let Some(fd) = mounted(&point)? {
            return Ok(fd); // somebody else was faster
        }
        let file = open_verified(path, sha256, maker)?;
        std::fs::create_dir_all(&point).io(|| format!("mkdir({})", point.display()))?;
        mount_at(&file, path, &point).inspect_err(|_| {
            if let Err(e) = std::fs::remove_dir(&point) {
                tracing::warn!(point = %point.display(), %e, "the mount point of a bad image is left");
            }
        })?;
        mounted(&point)?.ok_or_else(|| Error::refused(ErrorKind::Image, format!("image {}: not a squashfs after mounting", path.display())))
    }

    /// Hashes of the mounted images.
    ///
    /// # Errors
    /// Of listing the directory.
    pub fn list(&self) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.dir).io(|| format!("list {}", self.dir.display()))?;
        Ok(entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|n| n.len() == 64).collect())
    }

    /// Takes an image out of the host's mount table. Sandboxes that use it keep it until they end; the loop
    /// device frees itself after that.
    ///
    /// # Errors
    /// Of umount2(2).
    pub fn release(&self, sha256: &str) -> Result<()> {
        let point = self.dir.join(sha256);
        match unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(e) => return Err(Error::call(ErrorKind::Io, format!("umount2({}, MNT_DETACH)", point.display()), e)),
        }
        match std::fs::remove_dir(&point) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).io(|| format!("rmdir({})", point.display())),
            _ => Ok(()),
        }
    }
}

/// The image at `point`, None when there is none. Any doubt is an error: a second mount on top of the first would stay for ever.
fn mounted(point: &Path) -> Result<Option<OwnedFd>> {
    let fd = match open(point, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.io(|| format!("open({})", point.display()))?,
    };
    let stat = rustix::fs::fstatfs(&fd).io(|| format!("fstatfs({})", point.display()))?;
    Ok((stat.f_type.cast_unsigned() == SQUASHFS_MAGIC).then_some(fd))
}

/// Opens the file so that what is hashed is what is mounted: only root can write it from here on, and a read lease
/// (fcntl(2), F_SETLEASE) proves that nobody has it open for writing. A rename later changes nothing.
///
/// The caller may be asked for any path of the host: a file that is root's already is only looked at, only one of `maker` is
/// ever changed, and nothing is told of what stands in it.
fn open_verified(path: &Path, sha256: &str, maker: Option<u32>) -> Result<File> {
    let image = |what: String| format!("image {}: {what}", path.display());
    let mut options = std::fs::OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
    let mut file = options.open(path).context(ErrorKind::Image, || image("open".into()))?;
    let meta = file.metadata().context(ErrorKind::Image, || image("stat".into()))?;
    if !meta.is_file() {
        return Err(Error::refused(ErrorKind::Image, image("is not a regular file".into())));
    }
    if meta.uid() != 0 {
        if Some(meta.uid()) != maker {
            return Err(Error::refused(ErrorKind::Image, image(format!("belongs to user {}, not to root or the maker of images", meta.uid()))));
        }
        rustix::fs::fchown(&file, Some(rustix::fs::Uid::ROOT), Some(rustix::fs::Gid::ROOT))
            .context(ErrorKind::Image, || image("fchown(0, 0)".into()))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o444)).context(ErrorKind::Image, || image("fchmod(0444)".into()))?;
    } else if meta.mode() & 0o022 != 0 {
        return Err(Error::refused(ErrorKind::Image, image("others than root may write it; chmod go-w".into())));
    }
    if sys::is_open_for_writing(file.as_fd()).context(ErrorKind::Image, || image("fcntl(F_SETLEASE)".into()))? {
        return Err(Error::refused(ErrorKind::Image, image("is open for writing by somebody".into())));
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer).context(ErrorKind::Image, || image("read".into()))? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let is: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if is != sha256 {
        return Err(Error::refused(ErrorKind::Image, image(format!("checksum mismatch: its sha256 is not {sha256}"))));
    }
    Ok(file)
}

fn mount_at(file: &File, path: &Path, point: &Path) -> Result<()> {
    let what = |call: &str| format!("image {}: {call}", path.display());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (number, _device) = sys::attach_loop(file.as_fd(), &name, sys::LoopAccess::Read).context(ErrorKind::Wall, || what("LOOP_CONFIGURE"))?;
    let fs = fsopen("squashfs", FsOpenFlags::FSOPEN_CLOEXEC).context(ErrorKind::Wall, || what("fsopen(squashfs)"))?;
    fsconfig_set_string(&fs, "source", format!("/dev/loop{number}")).wall(|| what("fsconfig(source)"))?;
    fsconfig_set_flag(&fs, "ro").wall(|| what("fsconfig(ro)"))?;
    fsconfig_create(&fs).context(ErrorKind::Image, || what("not a squashfs that this kernel can mount"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let tree = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).wall(|| what("fsmount"))?;
    move_mount(&tree, "", rustix::fs::CWD, point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).wall(|| what("move_mount"))
}
