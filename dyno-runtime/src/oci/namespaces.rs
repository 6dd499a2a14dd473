//! Which namespaces a container's first process is born in, which it joins, and which it makes itself.
//!
//! New ones are made by clone3 itself, so that a new user namespace owns the others. Existing ones are entered by the runtime just
//! for the moment of the clone, and left again: in the child's place a new user namespace would have taken away what joining them needs.
//! That cannot be done with a mount namespace (it would change the runtime's root), which the child joins, nor with a user namespace (there is
//! no way back), for which there is a process in the middle.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, fstatfs, open},
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{
    ahead::Joining,
    channel::{Channel, Message},
    plan::{Namespace, Namespaces},
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{self, Flags, Forked},
};

const NSFS_MAGIC: i64 = 0x6e73_6673;

/// A namespace to enter for the moment of the clone, and the way back.
#[derive(Debug)]
struct Visit {
    target: OwnedFd,
    own: OwnedFd,
    kind: LinkNameSpaceType,
    name: &'static str,
}

/// Everything that is needed to be born in the right place.
#[derive(Debug)]
pub struct Birth {
    visits: Vec<Visit>,
    user: Option<OwnedFd>,
    /// The child joins it.
    pub mount: Option<OwnedFd>,
    flags: Flags,
}

/// An existing namespace, checked to be one of the kind wanted.
fn existing(path: &Path, kind: &str, bit: libc::c_int) -> Result<OwnedFd> {
    let what = || format!("linux.namespaces: {kind} namespace {}", path.display());
    // A FIFO must not make us wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty()).context(ErrorKind::Invalid, what)?;
    let is_one = fstatfs(&file).is_ok_and(|fs| fs.f_type == NSFS_MAGIC);
    match sys::namespace_type(file.as_fd()) {
        Ok(found) if is_one && found == bit => Ok(file),
        _ => Err(Error::refused(ErrorKind::Invalid, format!("{}: it is not one", what()))),
    }
}

fn same(a: BorrowedFd<'_>, path: &str) -> bool {
    let (Ok(a), Ok(b)) = (rustix::fs::fstat(a), rustix::fs::stat(path)) else { return false };
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

impl Birth {
    /// Opens the namespaces that exist.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a path that is no namespace of its kind.
    pub fn prepare(namespaces: &Namespaces) -> Result<Self> {
        let mut this = Self { visits: Vec::new(), user: None, mount: None, flags: Flags::NONE };
        let visited = [
            (&namespaces.network, "network", "net", libc::CLONE_NEWNET, LinkNameSpaceType::Network),
            (&namespaces.ipc, "ipc", "ipc", libc::CLONE_NEWIPC, LinkNameSpaceType::InterProcessCommunication),
            (&namespaces.uts, "uts", "uts", libc::CLONE_NEWUTS, LinkNameSpaceType::HostNameAndNISDomainName),
            (&namespaces.cgroup, "cgroup", "cgroup", libc::CLONE_NEWCGROUP, LinkNameSpaceType::ControlGroup),
            (&namespaces.time, "time", "time_for_children", libc::CLONE_NEWTIME, LinkNameSpaceType::Time),
            (&namespaces.pid, "pid", "pid_for_children", libc::CLONE_NEWPID, LinkNameSpaceType::ProcessID),
        ];
        for (namespace, name, link, bit, kind) in visited {
            if let Namespace::Join(path) = namespace {
                let target = existing(path, name, bit)?;
                let own = format!("/proc/self/ns/{link}");
                let own = open(&own, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).wall(|| format!("open({own})"))?;
                this.visits.push(Visit { target, own, kind, name });
            }
        }
        if let Namespace::Join(path) = &namespaces.mount {
            this.mount = Some(existing(path, "mount", libc::CLONE_NEWNS)?);
        }
        if let Namespace::Join(path) = &namespaces.user {
            // Joining one's own is EINVAL (setns(2)).
            this.user = Some(existing(path, "user", libc::CLONE_NEWUSER)?).filter(|fd| !same(fd.as_fd(), "/proc/self/ns/user"));
        }
        // The control group's comes after its group was entered, the clock's after its offsets were written.
        let born = [
            (&namespaces.mount, Flags::NEWNS),
            (&namespaces.pid, Flags::NEWPID),
            (&namespaces.network, Flags::NEWNET),
            (&namespaces.ipc, Flags::NEWIPC),
            (&namespaces.uts, Flags::NEWUTS),
            (&namespaces.user, Flags::NEWUSER),
        ];
        this.flags = born.into_iter().filter(|(ns, _)| **ns == Namespace::New).fold(Flags::NONE, |all, (_, flag)| all.and(flag));
        Ok(this)
    }

    /// Kinds that the child need not be born in, because it joins such as are made ahead.
    pub fn leave(&mut self, ahead: Flags) {
        self.flags = self.flags.without(ahead);
    }

    /// Forks the container's first process. In it, `runtime` is its end of the channel.
    ///
    /// # Errors
    /// Of setns(2) and clone3(2).
    pub fn fork(&self, cgroup: Option<BorrowedFd<'_>>, container: &Channel, runtime: &Channel) -> Result<Forked> {
        let entered = self.visits.iter().try_for_each(|visit| {
            move_into_link_name_space(visit.target.as_fd(), Some(visit.kind)).wall(|| format!("linux.namespaces: setns({} namespace)", visit.name))
        });
        let forked = entered.and_then(|()| match &self.user {
            None => sys::fork(self.flags, cgroup).wall(|| self.clone_failed()),
            Some(user) => self.fork_within(user, cgroup, container, runtime),
        });
        if matches!(forked, Ok(Forked::Child)) {
            return forked;
        }
        for visit in &self.visits {
            // Staying would give what follows (hooks) to the container.
            move_into_link_name_space(visit.own.as_fd(), Some(visit.kind)).wall(|| format!("setns(own {} namespace)", visit.name))?;
        }
        forked
    }

    fn clone_failed(&self) -> String {
        format!("clone3({:?}) (a limit of user.max_*_namespaces, or unprivileged user namespaces forbidden?)", self.flags)
    }

    /// A process joins the user namespace and forks the container's first one as its sibling.
    fn fork_within(&self, user: &OwnedFd, cgroup: Option<BorrowedFd<'_>>, container: &Channel, runtime: &Channel) -> Result<Forked> {
        let Forked::Parent { pidfd, .. } = sys::fork(Flags::NONE, None).wall(|| "clone3".into())? else {
            let joined =
                move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User)).wall(|| "linux.namespaces: setns(user namespace)".into());
            match joined.and_then(|()| sys::fork(self.flags.and(Flags::PARENT), cgroup).wall(|| self.clone_failed())) {
                Ok(Forked::Child) => return Ok(Forked::Child),
                Ok(Forked::Parent { pidfd, pid }) => runtime.send(&Message::Born(pid, pidfd)).unwrap_or_default(),
                Err(e) => runtime.send(&Message::Failed(e.kind(), e.to_string())).unwrap_or_default(),
            }
            sys::exit_now(0)
        };
        let born = container.receive();
        sys::reap(pidfd.as_fd()).io(|| "waitid(process in the middle)".into())?;
        match born? {
            Some(Message::Born(pid, pidfd)) => Ok(Forked::Parent { pidfd, pid }),
            Some(Message::Failed(kind, text)) => Err(Error::refused(kind, text)),
            _ => Err(Error::refused(ErrorKind::Wall, super::channel::GONE)),
        }
    }
}

/// The child's own part: its control groups, then the namespaces that stand on them, and those that were made ahead. `tasks` are those of v1, which
/// one write enters.
///
/// # Errors
/// Of write(2), unshare(2), setns(2).
pub fn enter(namespaces: &Namespaces, mount: Option<&OwnedFd>, ahead: Option<Joining>, tasks: &[OwnedFd]) -> Result<()> {
    for tasks in tasks {
        rustix::io::write(tasks, b"0").wall(|| format!("enter the control group: write(descriptor {}, \"0\")", tasks.as_raw_fd()))?;
    }
    if namespaces.cgroup == Namespace::New {
        sys::unshare(Flags::NEWCGROUP).wall(|| "unshare(CLONE_NEWCGROUP)".into())?;
    }
    if namespaces.time == Namespace::New {
        sys::unshare(Flags::NEWTIME).wall(|| "unshare(CLONE_NEWTIME)".into())?;
    }
    if let Some(mount) = mount {
        move_into_link_name_space(mount.as_fd(), Some(LinkNameSpaceType::Mount)).wall(|| "linux.namespaces: setns(mount namespace)".into())?;
    }
    match ahead {
        Some(ahead) => ahead.join(),
        None if namespaces.network == Namespace::New => loopback_up().wall(|| "bring the interface lo up".into()),
        None => Ok(()),
    }
}

/// Child-safe.
///
/// # Errors
/// Of socket(2) and ioctl(2).
pub fn loopback_up() -> std::result::Result<(), Errno> {
    match sys::interface_up(c"lo") {
        // A kernel without IPv4.
        Err(Errno::NODEV | Errno::AFNOSUPPORT) => Ok(()),
        other => other,
    }
}

/// Enters the time namespace whose offsets are written by now. `/proc` is the host's still.
///
/// # Errors
/// Of setns(2).
pub fn enter_time() -> Result<()> {
    let path = "/proc/self/ns/time_for_children";
    let own = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).wall(|| format!("open({path})"))?;
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Time)).wall(|| "setns(time namespace)".into())
}
