//! Namespaces of a container that are made ahead, on another processor, while the runtime makes the control groups.
//!
//! A network namespace takes the kernel half a millisecond and more, as long as everything else that the runtime does before it forks the
//! first process. Leaving the host's mounts takes a copy of them all and a grace period of RCU. A helper that shares the runtime's memory does
//! both, and the first process joins what it has made by its pidfd, in one call:
//!
//! ```text
//! runtime                           helper                                  first process
//! root cloned
//! starts the helper                 unshare(network, IPC, mount)
//! /dev, sources, state              interface lo
//! control groups                    root attached, pivot_root, old root off
//! forks ----------------------------------------------------------------->  control groups
//!                                   done                          ------->  setns(helper)
//!                                   ends                          <-------  everything else is mounted in the root, by descriptors
//! collects it
//! ```
//!
//! Only for namespaces that the runtime's own user namespace is to own. The mount namespace is made ahead only where nothing of what is mounted
//! later is looked up on the host: everything else takes the way that [`super::rootfs`] tells of.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair},
    process::{Pid, Signal, getpid, getppid, pidfd_send_signal, set_parent_process_death_signal},
    thread::{ThreadNameSpaceType as Kinds, move_into_thread_name_spaces},
};

use super::{
    namespaces::loopback_up,
    plan::{Container, Namespace},
    rootfs::{self, Prepared},
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{self, Flags, SharedChild},
};

/// CAP_SYS_CHROOT, CAP_SYS_PTRACE, CAP_SYS_ADMIN: what joining a process that is not dumpable takes (setns(2)).
const JOINS: u64 = 1 << 18 | 1 << 19 | 1 << 21;

/// What the helper does, in this order.
const STEPS: [&str; 4] = [
    "namespaces ahead: unshare (a limit of user.max_*_namespaces?)",
    "namespaces ahead: bring the interface lo up",
    "root ahead: mount(/, MS_SLAVE | MS_REC), move_mount",
    "root ahead: pivot_root(., .), umount2(old root, MNT_DETACH)",
];

/// The helper at work, in the runtime's hands.
#[derive(Debug)]
pub struct Ahead {
    helper: sys::Beside<Work>,
    joining: Option<Joining>,
}

/// What the first process joins it by.
#[derive(Debug)]
pub struct Joining {
    socket: OwnedFd,
    helper: OwnedFd,
    kinds: Flags,
}

struct Work {
    socket: OwnedFd,
    parent: Pid,
    kinds: Flags,
    /// The container's root and where the host has it.
    root: Option<(OwnedFd, CString)>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Nobody waits for it any more; its end is waited for.
        if let Err(e) = pidfd_send_signal(&self.helper, Signal::KILL) {
            tracing::debug!(%e, "pidfd_send_signal(helper)");
        }
    }
}

impl Ahead {
    /// Starts the helper if it serves.
    ///
    /// # Errors
    /// Of the calls.
    pub fn begin(container: &Container, prepared: &Prepared, no_pivot: bool) -> Result<Option<Self>> {
        let names = &container.namespaces;
        let fits = names.user == Namespace::Host && names.network == Namespace::New && names.time == Namespace::Host;
        if !fits || !sys::capability_bits(0).is_ok_and(|is| is.effective & JOINS == JOINS) {
            return Ok(None);
        }
        let mut kinds = Flags::NEWNET;
        if names.ipc == Namespace::New {
            kinds = kinds.and(Flags::NEWIPC);
        }
        let root = if no_pivot { None } else { prepared.root_ahead(container)? };
        if root.is_some() {
            kinds = kinds.and(Flags::NEWNS);
        }
        let path =
            CString::new(container.rootfs.as_os_str().as_bytes()).map_err(|_| Error::refused(ErrorKind::Invalid, "root.path holds a zero byte"))?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).io(|| "socketpair".into())?;
        let work = Work { socket: theirs, parent: getpid(), kinds, root: root.map(|root| (root, path)) };
        let helper = sys::Beside::start(Flags::NONE, work).wall(|| "clone3(helper)".into())?;
        // First: without it a failure would wait for the helper, which waits for us.
        let mut this = Self { helper, joining: None };
        let pidfd = this.helper.as_fd().try_clone_to_owned().io(|| "dup(pidfd)".into())?;
        this.joining = Some(Joining { socket: ours, helper: pidfd, kinds });
        Ok(Some(this))
    }

    /// For the first process. Where it turns out only now that something will have to be looked up on the host, the helper's work is given
    /// up and the root cloned anew.
    ///
    /// # Errors
    /// Of cloning.
    pub fn settle(this: &mut Option<Self>, container: &Container, prepared: &mut Prepared) -> Result<Option<Joining>> {
        let joining = this.as_mut().and_then(|ahead| ahead.joining.take());
        let entered = joining.as_ref().is_some_and(|joining| joining.kinds.has(Flags::NEWNS));
        if entered && !prepared.is_complete(container) {
            drop(this.take());
            prepared.root_again(container)?;
            return Ok(None);
        }
        prepared.entered = entered;
        Ok(joining)
    }
}

impl Joining {
    /// Of the namespaces that are made ahead.
    pub fn kinds(&self) -> Flags {
        self.kinds
    }

    /// Waits until they are made, and joins them. With a mount namespace, the root and the working directory are the container's root then.
    ///
    /// # Errors
    /// What the helper failed with; of setns(2).
    pub fn join(self) -> Result<()> {
        self.wait()?;
        let kinds = [(Flags::NEWNET, Kinds::NETWORK), (Flags::NEWIPC, Kinds::INTER_PROCESS_COMMUNICATION), (Flags::NEWNS, Kinds::MOUNT)];
        let kinds = kinds.into_iter().filter(|(flag, _)| self.kinds.has(*flag)).fold(Kinds::empty(), |all, (_, kind)| all | kind);
        move_into_thread_name_spaces(self.helper.as_fd(), kinds).wall(|| format!("setns(namespaces made ahead, {kinds:?})"))?;
        send(&self.socket, b"j", SendFlags::NOSIGNAL).io(|| "send(helper)".into()).map(drop)
    }

    fn wait(&self) -> Result<()> {
        let mut answer = [0; 8];
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.helper, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) if fds[0].revents().contains(PollFlags::IN) => break,
                Ok(_) => return Err(Error::refused(ErrorKind::Wall, "what was to make the namespaces was killed")),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e).io(|| "poll(helper)".into()),
            }
        }
        let (read, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty()).io(|| "recv(helper)".into())?;
        let [step, a, b, c, d, ..] = answer;
        match (read, usize::from(step)) {
            (5, step) if step == STEPS.len() => Ok(()),
            (5, step) => Err(Errno::from_raw_os_error(i32::from_ne_bytes([a, b, c, d]))).wall(|| STEPS.get(step).copied().unwrap_or_default().into()),
            _ => Err(Error::refused(ErrorKind::Io, "what was to make the namespaces is out of step")),
        }
    }
}

impl SharedChild for Work {
    fn run(&mut self) -> ! {
        // It has a copy of what the runtime holds, its lock too: without a runtime there is nothing to wait for. From here on its death is ours.
        if set_parent_process_death_signal(Some(Signal::KILL)).is_err() || getppid() != Some(self.parent) {
            sys::exit_now(1)
        }
        let mut answer = [STEPS.len() as u8, 0, 0, 0, 0];
        if let Err((step, e)) = self.make() {
            answer[0] = step;
            answer[1..].copy_from_slice(&e.raw_os_error().to_ne_bytes());
        }
        // Until the first process has joined: a namespace is joined by a process that is there.
        if send(&self.socket, &answer, SendFlags::NOSIGNAL).is_ok() {
            let mut byte = [0; 1];
            while recv(&self.socket, &mut byte[..], RecvFlags::empty()) == Err(Errno::INTR) {}
        }
        sys::exit_now(0)
    }
}

impl Work {
    /// Child-safe, and without the C library's errno. The number of the step goes with what it failed with.
    fn make(&self) -> std::result::Result<(), (u8, Errno)> {
        let at = |step| move |e| (step, e);
        sys::unshare(self.kinds).map_err(at(0))?;
        loopback_up().map_err(at(1))?;
        let Some((root, path)) = &self.root else { return Ok(()) };
        rootfs::attach_ahead(root, path).map_err(at(2))?;
        rootfs::pivot_ahead(root).map_err(at(3))
    }
}
