//! The container that `exec` enters, as its record, the kernel and its configuration describe it.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, open, stat},
    io::Errno,
    thread::ThreadNameSpaceType as Kinds,
};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    oci::{
        cgroup,
        plan::Container,
        spec::{self, Spec},
        state::{First, Record, StateDir},
    },
};

/// Names below `/proc/PID/ns`.
const NAMESPACES: [(&str, Kinds); 8] = [
    ("user", Kinds::USER),
    ("mnt", Kinds::MOUNT),
    ("pid", Kinds::PROCESS_ID),
    ("net", Kinds::NETWORK),
    ("ipc", Kinds::INTER_PROCESS_COMMUNICATION),
    ("uts", Kinds::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("cgroup", Kinds::CONTROL_GROUP),
    ("time", Kinds::TIME),
];

/// A container with a first process that lives.
#[derive(Debug)]
pub struct Target {
    /// As written by `create`.
    pub record: Record,
    /// Its first process, as configured.
    pub configured: Option<spec::Process>,
    /// As it was made.
    pub container: Container,
    /// Its first process.
    pub first: First,
    /// Namespaces of its that are not ours.
    pub join: Kinds,
    /// Its root, where it has no mount namespace of its own to be found in.
    pub root: Option<OwnedFd>,
}

impl Target {
    /// The container `id` below `root`.
    ///
    /// # Errors
    /// One that does not exist, has ended, or is not made yet.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        let dir = StateDir::open(root, id)?;
        let record = dir.known()?;
        let making = dir.is_making()?;
        let Some(first) = First::of(&record)?.filter(|_| !making) else {
            let what = if making || record.pid == 0 { "that is not created yet" } else { "that is stopped" };
            return Err(Error::refused(ErrorKind::Invalid, format!("cannot exec in a container {what}")));
        };
        let spec: Spec = spec::parse(&dir.config()?)?;
        let container = Container::lower(&spec, &record.bundle)?;
        let join = foreign(first.pid)?;
        let root = if join.contains(Kinds::MOUNT) { None } else { Some(root_of(first.pid)?) };
        Ok(Self { record, configured: spec.process, container, first, join, root })
    }

    /// The control groups that the process is born in, with `below` as the option `--cgroup` has it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a path that leaves the container's, or is not there.
    pub fn cgroups(&self, below: &[(Vec<String>, PathBuf)]) -> Result<cgroup::Record> {
        let mut record = self.record.cgroup.clone();
        for (controllers, path) in below {
            let refused = |what| Error::refused(ErrorKind::Invalid, format!("--cgroup {}: {what}", path.display()));
            let path = inner(path).ok_or_else(|| refused("the path leaves the container's group"))?;
            let mut found = controllers.is_empty();
            for (dir, has) in &mut record.groups {
                if controllers.is_empty() || has.iter().any(|name| controllers.contains(name)) {
                    dir.push(&path);
                    found = true;
                    stat(&*dir).context(ErrorKind::Invalid, || format!("--cgroup: stat({})", dir.display()))?;
                }
            }
            if !found {
                return Err(refused("the container has no group with these controllers"));
            }
        }
        Ok(record)
    }

    /// The v2 group that the first process itself is in. A container that divides its own group among its processes has moved it to a leaf,
    /// because no process may be beside groups that have controllers (cgroups(7), EBUSY).
    ///
    /// # Errors
    /// Of reading `/proc/PID/cgroup` and opening.
    pub fn group_of_first(&self, mounted_at: &Path) -> Result<OwnedFd> {
        let file = format!("/proc/{}/cgroup", self.first.pid);
        let text = std::fs::read_to_string(&file).io(|| format!("read {file}"))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        let dir = mounted_at.join(path.trim_start_matches('/'));
        open(&dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).io(|| format!("open({})", dir.display()))
    }

    /// Its first process.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.first.pidfd()
    }
}

/// Relative, without `..`; None for anything else.
fn inner(path: &Path) -> Option<PathBuf> {
    let parts = path.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
    parts.map(|part| if let Component::Normal(name) = part { Some(name) } else { None }).collect()
}

/// The kinds of namespaces in which `pid` has another one than we have.
fn foreign(pid: u32) -> Result<Kinds> {
    let mut kinds = Kinds::empty();
    for (name, kind) in NAMESPACES {
        let (own, its) = (format!("/proc/self/ns/{name}"), format!("/proc/{pid}/ns/{name}"));
        match (stat(&own), stat(&its)) {
            (Ok(own), Ok(its)) if (own.st_dev, own.st_ino) == (its.st_dev, its.st_ino) => {}
            (Ok(_), Ok(_)) => kinds |= kind,
            // A kernel without this kind.
            (Err(Errno::NOENT), _) => {}
            (_, Err(e)) | (Err(e), _) => return Err(e).io(|| format!("stat({its})")),
        }
    }
    Ok(kinds)
}

fn root_of(pid: u32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/root");
    open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).io(|| format!("open({path})"))
}
