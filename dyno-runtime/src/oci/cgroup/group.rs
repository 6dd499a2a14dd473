//! One directory of a container's groups.

use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fstatfs, mkdirat, openat},
    io::Errno,
};

use super::refused;
use crate::{
    cgroup::{
        Version,
        file::{open_dir, read_file, remove_dir, write_file},
    },
    error::{Context, Result},
};

/// `statfs.f_type` (linux/magic.h).
const V1_MAGIC: i64 = 0x0027_e0eb;
const V2_MAGIC: i64 = 0x6367_7270;

/// How long the kernel may take to empty a group after its last process was seen to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a v2 group's owner writes, where the kernel does not say (OCI runtime specification, Cgroup ownership).
const DELEGATED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// A group in one hierarchy.
#[derive(Debug)]
pub(super) struct Group {
    pub dir: OwnedFd,
    /// Absolute; for messages.
    pub path: String,
    /// v1's; none of v2.
    pub controllers: Vec<String>,
    pub version: Version,
    /// Made by this handle.
    pub fresh: bool,
}

impl Group {
    /// Makes the group, and those above it that are not there.
    pub fn make(path: &Path, controllers: &[String]) -> Result<Self> {
        let fresh = make_dirs(path)?;
        // By name: what failed may have been to open it. Nobody is in it yet.
        Self::made(path, controllers, fresh).inspect_err(|_| {
            if fresh {
                std::fs::remove_dir(path).unwrap_or_default()
            }
        })
    }

    fn made(path: &Path, controllers: &[String], fresh: bool) -> Result<Self> {
        let group = Self::open(path, controllers)?.ok_or_else(|| refused(format!("cgroup {}: somebody removed it", path.display())))?;
        let group = Self { fresh, ..group };
        if group.version == Version::V1 && controllers.iter().any(|c| c == "cpuset") {
            inherit_cpuset(&group.dir, &group.path, fresh)?;
        }
        Ok(group)
    }

    /// None when there is no such group.
    pub fn open(path: &Path, controllers: &[String]) -> Result<Option<Self>> {
        let text = path.to_string_lossy().into_owned();
        let dir = match openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.wall(|| format!("cgroup: open({text})"))?,
        };
        let version = version_of(&dir).wall(|| format!("cgroup: fstatfs({text})"))?.ok_or_else(|| refused(format!("{text} is no control group")))?;
        Ok(Some(Self { dir, path: text, controllers: controllers.to_vec(), version, fresh: false }))
    }

    pub fn read(&self, file: &str) -> Result<String> {
        read_file(&self.dir, file).io(|| format!("cgroup: read {}/{file}", self.path))
    }

    /// v1: what its entrants write `0` to.
    pub fn entrance(&self) -> Result<OwnedFd> {
        openat(&self.dir, "tasks", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).wall(|| format!("cgroup: open({}/tasks)", self.path))
    }

    /// Moves a whole process here, unless it is.
    pub fn take_in(&self, pid: u32) -> Result<()> {
        if self.procs()?.contains(&pid) {
            return Ok(());
        }
        write_file(&self.dir, "cgroup.procs", &pid.to_string()).wall(|| format!("cgroup: write {pid} to {}/cgroup.procs", self.path))
    }

    /// Who is in this group itself. None in one that was removed meanwhile. A threaded group of v2 has no such list (EOPNOTSUPP).
    pub fn procs(&self) -> Result<Vec<u32>> {
        let text = match read_file(&self.dir, "cgroup.procs") {
            Err(Errno::NODEV | Errno::NOENT) => return Ok(Vec::new()),
            Err(Errno::OPNOTSUPP) => read_file(&self.dir, "cgroup.threads"),
            other => other,
        };
        Ok(text.io(|| format!("cgroup: read {}/cgroup.procs", self.path))?.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Who is in this group and in those below.
    pub fn all_procs(&self) -> Result<Vec<u32>> {
        let mut pids = self.procs()?;
        for below in self.below()? {
            pids.extend(below.all_procs()?);
        }
        Ok(pids)
    }

    /// The groups that were made inside.
    fn below(&self) -> Result<Vec<Self>> {
        let listed = || format!("cgroup: list {}", self.path);
        let mut found = Vec::new();
        let dir = match Dir::read_from(&self.dir) {
            Err(Errno::NOENT | Errno::NODEV) => return Ok(found),
            other => other.io(listed)?,
        };
        for entry in dir {
            let entry = entry.io(listed)?;
            if entry.file_type() != FileType::Directory || entry.file_name().to_bytes().starts_with(b".") {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            match open_dir(&self.dir, &name) {
                Ok(dir) => {
                    found.push(Self { dir, path: format!("{}/{name}", self.path), controllers: Vec::new(), version: self.version, fresh: false })
                }
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e).io(|| format!("cgroup: open({}/{name})", self.path)),
            }
        }
        Ok(found)
    }

    /// A group that others use would mix two containers up, and in a frozen one nothing would ever start.
    pub fn must_be_unused(&self) -> Result<()> {
        if !self.fresh {
            let inside = self.all_procs()?.len();
            if inside > 0 {
                return Err(refused(format!("container's cgroup is not empty: {inside} process(es) found in {}", self.path)));
            }
        }
        if self.is_frozen()? {
            return Err(refused(format!("container's cgroup unexpectedly frozen: {}", self.path)));
        }
        Ok(())
    }

    /// Whether what is in it stands still, for its own sake or that of a group above.
    pub fn is_frozen(&self) -> Result<bool> {
        let (file, says): (_, fn(&str) -> bool) = match self.version {
            Version::V1 if self.controllers.iter().any(|c| c == "freezer") => ("freezer.state", |text| text.trim() != "THAWED"),
            Version::V1 => return Ok(false),
            Version::V2 => ("cgroup.events", |text| text.lines().any(|line| line == "frozen 1")),
        };
        match read_file(&self.dir, file) {
            // The top of a hierarchy, and Linux before 5.2.
            Err(Errno::NOENT | Errno::NODEV) => Ok(false),
            other => Ok(says(&other.io(|| format!("cgroup: read {}/{file}", self.path))?)),
        }
    }

    /// v2: has every controller handed down to this group that can be.
    pub fn offer_all(&self) -> Result<()> {
        hand_down(&self.dir, &self.path, None).map(drop)
    }

    /// v2: has one controller handed down to this group; false when it cannot be.
    pub fn offer(&self, controller: &str) -> Result<bool> {
        Ok(hand_down(&self.dir, &self.path, Some(controller))?.split_whitespace().any(|c| c == controller))
    }

    /// v2: lets this user divide the group (cgroup-v2.rst, "Delegation"). v1 cannot be delegated safely.
    pub fn give_to(&self, uid: u32, gid: u32) -> Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let listed = std::fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_else(|_| DELEGATED.to_owned());
        chownat(&self.dir, "", uid, gid, AtFlags::EMPTY_PATH).wall(|| format!("cgroup: chown({})", self.path))?;
        for file in listed.lines().filter(|file| !file.contains('/')) {
            match chownat(&self.dir, file, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e).wall(|| format!("cgroup: chown({}/{file})", self.path)),
            }
        }
        Ok(())
    }

    /// Removes an empty group. No error if there is none.
    pub fn remove_dir(&self) -> Result<()> {
        match std::fs::remove_dir(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).io(|| format!("cgroup: rmdir({})", self.path)),
            _ => Ok(()),
        }
    }

    /// Removes the group and those that were made in it. `empty` is called before each look at a group that is still in use, which the
    /// kernel tells of on v2 only.
    pub fn remove(&self, empty: &dyn Fn() -> Result<()>) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.remove_dir() {
                Err(e) if e.errno() == Some(Errno::BUSY) && Instant::now() < end => {}
                other => return other,
            }
            let below = self.below()?;
            below.iter().try_for_each(Self::remove_those_below)?;
            if below.is_empty() || !self.below()?.is_empty() {
                empty()?;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn remove_those_below(&self) -> Result<()> {
        self.below()?.iter().try_for_each(Self::remove_those_below)?;
        let (_, name) = self.path.rsplit_once('/').unwrap_or_default();
        let above = openat(&self.dir, "..", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).io(|| format!("cgroup: open({}/..)", self.path))?;
        match remove_dir(&above, name) {
            // In use: whoever removes the group above looks again.
            Ok(()) | Err(Errno::BUSY) => Ok(()),
            Err(e) => Err(e).io(|| format!("cgroup: rmdir({})", self.path)),
        }
    }
}

fn version_of(dir: &OwnedFd) -> std::result::Result<Option<Version>, Errno> {
    Ok(match fstatfs(dir)?.f_type as i64 {
        V1_MAGIC => Some(Version::V1),
        V2_MAGIC => Some(Version::V2),
        _ => None,
    })
}

/// mkdir -p, from below: in the usual case one call. True if the last one was not there.
fn make_dirs(path: &Path) -> Result<bool> {
    let mode = Mode::from_raw_mode(0o755);
    let made = match mkdirat(CWD, path, mode) {
        Err(Errno::NOENT) => {
            let above = path.parent().ok_or_else(|| refused("cgroup: the root directory is no control group"))?;
            make_dirs(above)?;
            mkdirat(CWD, path, mode)
        }
        other => other,
    };
    match made {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(e).wall(|| format!("cgroup: mkdir({})", path.display())),
    }
}

/// v1: a new cpuset has no processors and no memory, and takes no task before it has both (cpusets.rst, 1.7). So those of the group above
/// are taken over, from as far up as they are missing.
fn inherit_cpuset(dir: &OwnedFd, path: &str, fresh: bool) -> Result<()> {
    let read = |dir: &OwnedFd, file: &str| read_file(dir, file).wall(|| format!("cgroup: read {file} of {path} or above"));
    let mut missing = Vec::new();
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fresh || read(dir, file)?.trim().is_empty() {
            missing.push(file);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let above = openat(dir, "..", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).wall(|| format!("cgroup: open({path}/..)"))?;
    for file in missing {
        let mut value = read(&above, file)?;
        if value.trim().is_empty() {
            inherit_cpuset(&above, &format!("{path}/.."), false)?;
            value = read(&above, file)?;
        }
        write_file(dir, file, value.trim()).wall(|| format!("cgroup: write {:?} to {path}/{file}", value.trim()))?;
    }
    Ok(())
}

/// v2: has what the groups above have handed down as far as this one, of all controllers or of one. Answers with those that it has then.
///
/// A group that holds processes hands nothing down (cgroup-v2.rst, "No Internal Process Constraint"): that is an error only where
/// something needs the controller.
fn hand_down(dir: &OwnedFd, path: &str, wanted: Option<&str>) -> Result<String> {
    let read = |dir: &OwnedFd| read_file(dir, "cgroup.controllers");
    let have = read(dir).wall(|| format!("cgroup: read {path}/cgroup.controllers"))?;
    let has = |text: &str, controller: &str| text.split_whitespace().any(|c| c == controller);
    if wanted.is_some_and(|controller| has(&have, controller)) {
        return Ok(have);
    }
    let up = openat(dir, "..", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).wall(|| format!("cgroup: open({path}/..)"))?;
    if version_of(&up).wall(|| format!("cgroup: fstatfs({path}/..)"))? != Some(Version::V2) {
        return Ok(have);
    }
    let above = hand_down(&up, &format!("{path}/.."), wanted)?;
    let missing: Vec<String> =
        above.split_whitespace().filter(|c| !has(&have, c) && wanted.is_none_or(|controller| controller == *c)).map(|c| format!("+{c}")).collect();
    if missing.is_empty() {
        return Ok(have);
    }
    // All at once or, where one of them is refused, each for itself.
    if write_file(&up, "cgroup.subtree_control", &missing.join(" ")).is_err() {
        for one in &missing {
            if let Err(e) = write_file(&up, "cgroup.subtree_control", one) {
                tracing::debug!(%e, "cgroup: write {one:?} to {path}/../cgroup.subtree_control");
            }
        }
    }
    read(dir).wall(|| format!("cgroup: read {path}/cgroup.controllers"))
}
