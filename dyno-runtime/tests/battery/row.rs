//! A row of the battery: an attack, what holds it off, and what each of its runs must answer.

use std::fmt;

use dyno_runtime::broken::Part;

/// What a run answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The attack succeeded.
    Did(String),
    /// It came to nothing: there was nobody to see, nothing to read.
    Nothing,
    /// It was refused.
    Errno(i32),
    /// It was ended by a signal.
    Killed(i32),
    /// The sandbox did not start.
    NoStart(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Did(_) => write!(f, "succeeds"),
            Self::Nothing => write!(f, "finds nothing"),
            Self::Errno(errno) => write!(f, "{}", name_of(*errno)),
            Self::Killed(signal) => write!(f, "signal {signal}"),
            Self::NoStart(_) => write!(f, "does not start"),
        }
    }
}

/// What a run must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// [`Answer::Did`].
    Succeeds,
    /// [`Answer::Nothing`].
    Nothing,
    /// That errno.
    Errno(i32),
    /// That signal.
    Killed(i32),
    /// An error of the start that holds these words.
    NoStart(&'static str),
}

impl Want {
    /// Whether it is what was wanted.
    pub fn is(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Succeeds, Answer::Did(_)) | (Self::Nothing, Answer::Nothing) => true,
            (Self::Errno(want), Answer::Errno(is)) | (Self::Killed(want), Answer::Killed(is)) => want == is,
            (Self::NoStart(words), Answer::NoStart(error)) => error.contains(words),
            _ => false,
        }
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeds => write!(f, "succeeds"),
            Self::Nothing => write!(f, "finds nothing"),
            Self::Errno(errno) => write!(f, "{}", name_of(*errno)),
            Self::Killed(signal) => write!(f, "signal {signal}"),
            Self::NoStart(words) => write!(f, "does not start: {words}"),
        }
    }
}

/// How a run differs from the sandbox that everybody gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The filter lets this call through, whatever its arguments.
    Allow(&'static str),
    /// No filter.
    NoFilter,
    /// It runs as uid 0 of the sandbox.
    Root,
    /// It holds this capability.
    Grant(&'static str),
    /// The host's network.
    HostNetwork,
    /// The root is read-only.
    ReadOnlyRoot,
    /// The writable layer has this many bytes.
    DiskBytes(u64),
    /// … and this many files.
    DiskFiles(u64),
    /// Limit of memory in bytes, or none.
    Memory(Option<u64>),
    /// Limit of processes, or none.
    Processes(Option<u64>),
    /// Limit of open files.
    OpenFiles(u64),
    /// A terminal as standard streams.
    Terminal,
    /// A directory of the host is to be seen at /data.
    HostDirectory,
    /// One of the layers' directories is a symlink to somewhere else: name, target.
    Symlink(&'static str, &'static str),
    /// This path of procfs is neither masked nor made read-only.
    Uncovered(&'static str),
    /// This part of a start is left out.
    Without(Part),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow(call) => write!(f, "filter lets {call} through"),
            Self::NoFilter => write!(f, "no filter"),
            Self::Root => write!(f, "uid 0"),
            Self::Grant(capability) => write!(f, "CAP_{capability}"),
            Self::HostNetwork => write!(f, "the host's network"),
            Self::ReadOnlyRoot => write!(f, "read-only root"),
            Self::DiskBytes(bytes) => write!(f, "{} MiB of disk", bytes >> 20),
            Self::DiskFiles(files) => write!(f, "{files} files"),
            Self::Memory(None) => write!(f, "no limit of memory"),
            Self::Memory(Some(bytes)) => write!(f, "{} MiB of memory", bytes >> 20),
            Self::Processes(None) => write!(f, "no limit of processes"),
            Self::Processes(Some(count)) => write!(f, "{count} processes"),
            Self::OpenFiles(files) => write!(f, "{files} open files"),
            Self::Terminal => write!(f, "a terminal"),
            Self::HostDirectory => write!(f, "a directory of the host at /data"),
            Self::Symlink(name, target) => write!(f, "{name} -> {target} in the image"),
            Self::Uncovered(path) => write!(f, "{path} as it is"),
            Self::Without(part) => write!(f, "without {part:?}"),
        }
    }
}

/// Where the control may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Bare on any host, as root: it looks, or touches what the test has made.
    Host,
    /// The same as an ordinary user.
    Nobody,
    /// As root, in namespaces made for it (mounts, network, names, ipc).
    Apart,
    /// As an ordinary user, on a terminal of its own.
    Terminal,
    /// In a throw-away machine only.
    Machine,
    /// There is none, for this reason.
    None(&'static str),
}

/// One attack.
#[derive(Debug, Clone)]
pub struct Row {
    /// Of section 8.
    pub id: &'static str,
    /// What is tried, as a name: with the id it names the test.
    pub name: &'static str,
    /// For readers.
    pub what: &'static str,
    /// What holds it off.
    pub wall: &'static str,
    /// Arguments of the probe, with `{…}` for what the scene knows.
    pub attack: &'static str,
    /// What all its sandboxes have.
    pub given: Vec<Change>,
    /// The full sandbox's answer.
    pub full: Want,
    /// With these changes on top that must be the answer. The first is the wall under test alone, the last lets the attack through.
    pub without: Vec<(Vec<Change>, Want)>,
    /// Bare.
    pub control: Control,
    /// The control's own arguments, where paths differ.
    pub bare: Option<&'static str>,
    /// Errnos of the control that say that this kernel has nothing to attack.
    pub vacuous: Vec<i32>,
    /// The least ABI of Landlock that can hold it.
    pub landlock: u32,
}

impl Row {
    /// A row whose attack the full sandbox answers with that errno.
    pub fn new(id: &'static str, name: &'static str, what: &'static str, attack: &'static str, wall: &'static str, full: Want) -> Self {
        Self {
            id,
            name,
            what,
            wall,
            attack,
            given: Vec::new(),
            full,
            without: Vec::new(),
            control: Control::Host,
            bare: None,
            vacuous: Vec::new(),
            landlock: 0,
        }
    }

    /// What its sandboxes have.
    pub fn given(mut self, changes: &[Change]) -> Self {
        self.given.extend(changes);
        self
    }

    /// With these changes the attack succeeds.
    pub fn falls(self, changes: &[Change]) -> Self {
        self.then(changes, Want::Succeeds)
    }

    /// With these changes that is the answer: the next wall's.
    pub fn then(mut self, changes: &[Change], want: Want) -> Self {
        self.without.push((changes.to_vec(), want));
        self
    }

    /// Where the control runs.
    pub fn control(mut self, control: Control) -> Self {
        self.control = control;
        self
    }

    /// What the control is told instead.
    pub fn bare(mut self, attack: &'static str) -> Self {
        self.bare = Some(attack);
        self
    }

    /// Answers of the control by which the kernel lacks the thing.
    pub fn vacuous(mut self, errnos: &[i32]) -> Self {
        self.vacuous.extend(errnos);
        self
    }

    /// Held by Landlock of this ABI and later.
    pub fn landlock(mut self, abi: u32) -> Self {
        self.landlock = abi;
        self
    }

    /// `NS-1_unshare_user`.
    pub fn test(&self) -> String {
        format!("{}_{}", self.id, self.name)
    }
}

/// The usual name of an errno, or its number.
pub fn name_of(errno: i32) -> String {
    const NAMES: &[(i32, &str)] = &[
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::ESRCH, "ESRCH"),
        (libc::EIO, "EIO"),
        (libc::ENXIO, "ENXIO"),
        (libc::EBADF, "EBADF"),
        (libc::ECHILD, "ECHILD"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EFAULT, "EFAULT"),
        (libc::EBUSY, "EBUSY"),
        (libc::ENODEV, "ENODEV"),
        (libc::EINVAL, "EINVAL"),
        (libc::EMFILE, "EMFILE"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::ETXTBSY, "ETXTBSY"),
        (libc::EFBIG, "EFBIG"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EROFS, "EROFS"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ELOOP, "ELOOP"),
        (libc::ENOKEY, "ENOKEY"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
        (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT"),
        (libc::ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::EDQUOT, "EDQUOT"),
        (libc::EEXIST, "EEXIST"),
    ];
    NAMES.iter().find(|(number, _)| *number == errno).map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).to_owned())
}
