//! The last part of the way into a sandbox: from the standing of whoever runs the platform down to that of the program. The init
//! goes it once, for all that it will start. Child-safe, like all of `child`.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, RawFd},
    sync::Arc,
};

use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
    process::{Resource, Rlimit},
};

use super::child::Step;
use crate::{
    broken::{self, Part},
    error::Result,
    host::Host,
    plan::{Plan, c_string},
    seccomp::{Compiled, Denied},
    sys::{self, Filter, Ruleset},
};

/// The child's: the errno tells why, the step where.
type Outcome = std::result::Result<(), Errno>;

/// What Landlock is to hold, from [`crate::plan::Landlock`].
pub(crate) struct SecondWall<'a> {
    /// Hierarchies that stay writable.
    pub writable: &'a [CString],
    /// Whether the root is one of them, so that only device files are denied.
    pub root_writable: bool,
    pub scoped: u64,
}

/// How the ids inside are come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// From outside the user namespace, whose root we are not.
    Outside,
    /// As its root, or one who may be.
    Root,
    /// As its only user, whose groups cannot be changed (user_namespaces(7), `setgroups`).
    Only,
}

/// Who the program is, and its init before it.
pub(crate) struct Standing<'a> {
    pub uid: u32,
    pub gid: u32,
    pub groups: &'a [u32],
    pub entry: Entry,
    pub capabilities: u64,
    pub open_files: u64,
    pub file_size: Option<u64>,
    pub cwd: &'a CStr,
    pub landlock: Option<SecondWall<'a>>,
    /// Empty for none ([`crate::Profile::Unconfined`]).
    pub filter: &'a [Filter],
    /// The filter reports what it denies: its listener is sent over this socket.
    pub listener_to: Option<RawFd>,
}

/// What a [`Standing`] borrows, made by the parent.
pub(super) struct Posture<'a> {
    plan: &'a Plan,
    entry: Entry,
    cwd: CString,
    writable: Vec<CString>,
    pub filter: Arc<Compiled>,
    /// Whether the filter reports what it denies.
    pub reports: bool,
}

impl<'a> Posture<'a> {
    pub fn new(host: &Host, plan: &'a Plan, denied: Denied) -> Result<Self> {
        let writable = plan.landlock.iter().flat_map(|wall| &wall.writable).map(|path| c_string(path)).collect();
        let filter = host.filters().get(&plan.seccomp, plan.capability_bits(), denied)?;
        let reports = denied == Denied::Report && !filter.program.is_empty();
        let entry = match host.rootless() {
            None => Entry::Outside,
            Some(rootless) if rootless.has_range() => Entry::Root,
            Some(_) => Entry::Only,
        };
        Ok(Self { plan, entry, cwd: c_string(&plan.process.cwd), writable, filter, reports })
    }

    pub fn standing(&self) -> Standing<'_> {
        let identity = &self.plan.identity;
        let landlock = self.plan.landlock.as_ref().map(|wall| SecondWall {
            writable: &self.writable,
            root_writable: wall.writable.iter().any(|path| path == "/"),
            scoped: if wall.no_foreign_abstract_sockets { sys::SCOPE_ABSTRACT_SOCKETS } else { 0 },
        });
        Standing {
            uid: identity.uid,
            gid: identity.gid,
            groups: &identity.groups,
            entry: self.entry,
            capabilities: self.plan.capability_bits(),
            open_files: self.plan.limits.open_files,
            file_size: self.plan.limits.file_size,
            cwd: &self.cwd,
            landlock,
            filter: &self.filter.program,
            listener_to: self.reports.then_some(super::child::READY_FD),
        }
    }
}

/// Soft limit of an app's stack, as everywhere on Linux.
const STACK: u64 = 8 << 20;

/// Nothing of the standing that the platform may have given itself. An oom_score_adj below 0 would make the kernel end others
/// in an app's stead; one above 0 was the operator's choice and could not be taken back without CAP_SYS_RESOURCE.
pub(super) fn scheduling(step: &mut Step) -> Outcome {
    *step = Step::Scheduling;
    sys::reset_scheduling()?;
    let file = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mut first = [0u8; 1];
    if rustix::io::read(&file, &mut first)? == 1 && first == *b"-" {
        rustix::io::write(&file, b"0")?;
    }
    Ok(())
}

impl Standing<'_> {
    /// What survives the change of identity: limits, keyring, session.
    pub(super) fn attributes(&self, step: &mut Step) -> Outcome {
        *step = Step::Rlimits;
        // 1 and not 0: core(5), a piped core handler ignores 0; the kernel refuses to run it at 1.
        if !broken::is(Part::CoreLimit) {
            sys::limit_core(1)?;
        }
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        for limit in [Resource::Rtprio, Resource::Nice] {
            rustix::process::setrlimit(limit, none)?;
        }
        if let Some(bytes) = self.file_size {
            sys::limit_file_size(bytes)?;
        }
        // An unlimited stack lays memory out the old way, with less chance in it.
        sys::limit_stack(STACK)?;
        *step = Step::Keyring;
        if !broken::is(Part::Keyring) {
            sys::join_new_session_keyring()?;
        }
        *step = Step::Session;
        rustix::process::setsid()?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        Ok(())
    }

    /// In the user namespace, whose joining gave every capability. Where our uid is not mapped there, changing ids keeps them: they
    /// are dropped by hand. Where it is root's, it is told to keep them as long, because without them nothing can be dropped.
    pub(super) fn drop_privileges(&self, step: &mut Step) -> Outcome {
        *step = Step::Ids;
        match self.entry {
            _ if broken::is(Part::Ids) => {}
            Entry::Outside => sys::set_ids(self.uid, self.gid, Some(self.groups))?,
            Entry::Only => sys::set_ids(self.uid, self.gid, None)?,
            Entry::Root => {
                sys::keep_over_ids(true)?;
                sys::set_ids(self.uid, self.gid, Some(self.groups))?;
                sys::keep_over_ids(false)?;
            }
        }
        *step = Step::Capabilities;
        if !broken::is(Part::Capabilities) {
            sys::keep_capabilities(self.capabilities)?;
        }
        *step = Step::NoNewPrivs;
        if broken::is(Part::NoNewPrivs) { Ok(()) } else { rustix::thread::set_no_new_privs(true) }
    }

    /// With only the sandbox's descriptors left: what else holds the program, and whether the walls are up.
    pub(super) fn last_walls(&self, step: &mut Step) -> Outcome {
        *step = Step::OpenFiles;
        // Only now: up to here there were copies of all that the parent has open, maybe more than an app may.
        sys::limit_open_files(self.open_files)?;
        *step = Step::WorkingDirectory;
        // As the user, and with no directory of the host open: `/proc/self/fd/N` leads nowhere (CVE-2024-21626).
        rustix::process::chdir(self.cwd)?;
        if let Some(wall) = self.landlock.as_ref().filter(|_| !broken::is(Part::Landlock)) {
            *step = Step::Landlock;
            wall.raise()?;
        }
        self.system_calls(step)?;
        self.check(step)
    }

    /// The listener of a filter that reports goes to the parent by the line on which the init will answer, before that.
    fn system_calls(&self, step: &mut Step) -> Outcome {
        *step = Step::SystemCallFilter;
        if self.filter.is_empty() || broken::is(Part::Filter) {
            return Ok(());
        }
        let Some(line) = self.listener_to else { return sys::install_filter(self.filter) };
        let listener = sys::notify::install_listening_filter(self.filter)?;
        sys::send_descriptor(line, listener)
    }

    /// Asks the kernel whether the walls are up, rather than trusting that the calls above did what they say.
    fn check(&self, step: &mut Step) -> Outcome {
        *step = Step::SelfCheck;
        let filtered = self.filter.is_empty() || sys::has_seccomp_filter();
        let up = sys::capabilities_are(self.capabilities) && filtered && rustix::thread::no_new_privs()?;
        let ids = rustix::process::getuid().as_raw() == self.uid && rustix::process::getgid().as_raw() == self.gid;
        if up && ids || broken::is(Part::SelfCheck) { Ok(()) } else { Err(Errno::PERM) }
    }
}

impl SecondWall<'_> {
    /// Where the kernel has Landlock, and lets files be moved between directories behind it (ABI 2, Linux 5.19).
    fn raise(&self) -> Outcome {
        let abi = sys::landlock_abi()?;
        if abi < 2 {
            return Ok(());
        }
        let open = |path: &CStr| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let changes = if self.root_writable { 0 } else { sys::WRITE | sys::TRUNCATE };
        let ruleset = Ruleset::new(abi, sys::MAKE_DEVICES | sys::REFER | changes, self.scoped)?;
        ruleset.allow(abi, open(c"/")?.as_fd(), sys::REFER)?;
        if changes != 0 {
            for path in self.writable {
                match open(path) {
                    Ok(place) => {
                        let directory = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) == FileType::Directory;
                        ruleset.allow(abi, place.as_fd(), if directory { changes } else { sys::WRITE_FILE | sys::TRUNCATE })?;
                    }
                    // What the program cannot reach it cannot write either.
                    Err(Errno::NOENT | Errno::ACCESS) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        ruleset.restrict_self()
    }
}
