//! The last steps before a program begins, the same for a container's first process and for one of `exec`: whoever sets capabilities in
//! two places gets one of them wrong (CVE-2022-29162, CVE-2025-27612).
//!
//! ```text
//! Outfit::collect   runtime side or before the root is changed: descriptors of the host's procfs that are needed later
//! limits            runtime side, because a new user namespace has no CAP_SYS_RESOURCE over the host: hard limits above the runtime's own,
//!                   oom_score_adj
//! finish            in the container: limits as asked for, session keyring, labels, scheduling, filter (if it must be early), ids and capabilities, the
//!                   working directory, the program's path. After it nothing can fail but exec
//! begin             filter (if it is late), exec; or launch, which leaves both to a program that waits for `start` first
//! ```

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, accessat, fstatfs, open, openat, stat},
    io::Errno,
    process::umask,
};

use super::{
    channel::{Channel, Message},
    filter::{self, Filter},
    launcher::Launcher,
    plan::{CapabilitySets, MemoryPolicy, Process},
};
use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{self, CapabilityBits},
};

/// Where programs are looked for when the environment does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Most that is read of an image's `/etc/passwd`.
const PASSWD: u64 = 1 << 20;

const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// What a program starts with beside its [`Process`].
#[derive(Debug, Default)]
pub struct Outfit {
    /// `/proc/self/attr` of the host's procfs, if there are labels to write.
    attributes: Option<OwnedFd>,
    /// System calls.
    pub filter: Option<Filter>,
    /// personality(2).
    pub personality: Option<u64>,
    /// set_mempolicy(2).
    pub memory_policy: Option<MemoryPolicy>,
    /// A session keyring of its own.
    pub keyring: bool,
    /// Descriptors from 3 on that the program gets.
    pub preserve_fds: u32,
    /// How many of those are sockets to listen on (sd_listen_fds(3)).
    pub listen_fds: u32,
}

impl Outfit {
    /// Opens what `process` needs of the host's procfs. To be called by the process itself, before its root is changed.
    ///
    /// # Errors
    /// A label that the host's kernel has no use for.
    pub fn collect(&mut self, process: &Process) -> Result<()> {
        if process.apparmor.is_none() && process.selinux.is_none() {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = open("/proc/self", flags, Mode::empty()).wall(|| "open(/proc/self)".into())?;
        if fstatfs(&own).wall(|| "fstatfs(/proc/self)".into())?.f_type != PROC_SUPER_MAGIC {
            return Err(Error::refused(ErrorKind::Wall, "/proc of the host is no procfs: labels of the process cannot be set"));
        }
        self.attributes = Some(openat(&own, "attr", flags | OFlags::NOFOLLOW, Mode::empty()).wall(|| "open(/proc/self/attr)".into())?);
        Ok(())
    }

    fn label(&self, process: &Process) -> Result<()> {
        let Some(attributes) = &self.attributes else { return Ok(()) };
        let write = |file: &str, text: &str| {
            let file = openat(attributes, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(&file, text.as_bytes()).map(drop)
        };
        if let Some(profile) = &process.apparmor {
            let text = format!("exec {profile}");
            let done = match write("apparmor/exec", &text) {
                Err(Errno::NOENT | Errno::NOTDIR) => write("exec", &text),
                other => other,
            };
            done.wall(|| format!("process.apparmorProfile: write {text:?} to /proc/self/attr/exec (is AppArmor enabled, the profile loaded?)"))?;
        }
        if let Some(label) = &process.selinux {
            write("exec", label).wall(|| format!("process.selinuxLabel: write {label:?} to /proc/self/attr/exec (is SELinux enabled?)"))?;
        }
        Ok(())
    }
}

/// Whether [`limits`] has anything to do: a process of `exec` waits for it.
pub fn has_limits(process: &Process) -> bool {
    let above = |(resource, _, hard): &(u32, u64, u64)| sys::hard_limit(*resource).map_or(true, |own| *hard > own);
    process.oom_score_adj.is_some() || process.rlimits.iter().any(above)
}

/// Limits of process `pid` that only the host's root may set. `pid` is a child that has not been reaped and has this runtime's own hard limits.
///
/// Lower ones are left to [`finish`]: once the child has other ids, prlimit(2) takes CAP_SYS_RESOURCE for whatever is asked of it.
///
/// # Errors
/// EPERM or EACCES for what this runtime may not raise.
pub fn limits(process: &Process, pid: u32) -> Result<()> {
    for (resource, soft, hard) in &process.rlimits {
        if *hard > sys::hard_limit(*resource).wall(|| format!("process.rlimits: prlimit(resource {resource})"))? {
            sys::limit(pid, *resource, *soft, *hard).wall(|| limited(*resource, *soft, *hard))?;
        }
    }
    if let Some(score) = process.oom_score_adj {
        let file = format!("/proc/{pid}/oom_score_adj");
        let written = std::fs::write(&file, score.to_string());
        // A rootless runtime cannot go below its own; what already stands there needs no writing.
        if written.is_err() && std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok()) != Some(score) {
            written.wall(|| format!("process.oomScoreAdj: write {score} to {file}"))?;
        }
    }
    Ok(())
}

fn limited(resource: u32, soft: u64, hard: u64) -> String {
    format!("process.rlimits: prlimit(resource {resource}, soft {soft}, hard {hard}) (raising a hard limit takes CAP_SYS_RESOURCE)")
}

/// A program that is ready to begin.
#[derive(Debug)]
pub struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    late: Option<Filter>,
    preserve: u32,
}

/// Becomes what `process` says in everything but its program. The listener of a filter that has one is sent to the runtime at once: the
/// calls that follow may be among those that it asks about.
///
/// # Errors
/// The first thing that the kernel refuses; [`ErrorKind::Exec`] for a program that is not there or cannot be executed.
pub fn finish(process: &Process, outfit: &mut Outfit, runtime: &Channel) -> Result<Program> {
    for (resource, soft, hard) in &process.rlimits {
        sys::limit(0, *resource, *soft, *hard).wall(|| limited(*resource, *soft, *hard))?;
    }
    if outfit.keyring {
        match sys::join_new_session_keyring() {
            // Too many keys of this user (kernel.keys.maxkeys), or a filter around us: the spec does not speak of keyrings.
            Err(e @ (Errno::DQUOT | Errno::PERM)) => tracing::warn!(%e, "keyctl(JOIN_SESSION_KEYRING): the session keyring stays"),
            other => other.wall(|| "keyctl(JOIN_SESSION_KEYRING)".into())?,
        }
    }
    outfit.label(process)?;
    scheduling(process, outfit)?;
    if process.no_new_privileges {
        sys::no_new_privileges().wall(|| "prctl(PR_SET_NO_NEW_PRIVS)".into())?;
    }
    descriptors(outfit.preserve_fds)?;
    give_pipes(process)?;
    // Without no_new_privs the kernel takes a filter only from a holder of CAP_SYS_ADMIN, which is about to go; one with a listener is
    // installed while there is somebody to hand that to.
    let early = outfit.filter.take_if(|filter| !process.no_new_privileges || filter.listener.is_some());
    let in_root = rustix::process::chdir(&process.cwd);
    sys::bound_capabilities(process.capabilities.bounding).wall(|| "prctl(PR_CAPBSET_DROP)".into())?;
    if let Some(listener) = early.as_ref().map(filter::install).transpose()?.flatten() {
        runtime.send(&Message::Listener(listener))?;
    }
    become_user(process)?;
    if let Err(e) = in_root {
        rustix::process::chdir(&process.cwd).map_err(|_| e).wall(|| format!("process.cwd: chdir({})", process.cwd.display()))?;
    }
    must_be_inside()?;
    umask(Mode::from_raw_mode(process.umask));
    let env = environment(process, outfit)?;
    let path = find(process, &env)?;
    Ok(Program { path, args: process.args.clone(), env, late: outfit.filter.take(), preserve: outfit.preserve_fds })
}

fn scheduling(process: &Process, outfit: &Outfit) -> Result<()> {
    if let Some(s) = &process.scheduler {
        sys::schedule(s.policy, s.flags, s.nice, s.priority, (s.runtime, s.deadline, s.period))
            .wall(|| format!("process.scheduler: sched_setattr({s:?})"))?;
    }
    if let Some(priority) = process.io_priority {
        sys::prioritize_io(priority).wall(|| format!("process.ioPriority: ioprio_set({priority:#x})"))?;
    }
    if let Some(personality) = outfit.personality {
        sys::set_personality(personality).wall(|| format!("linux.personality: personality({personality:#x})"))?;
    }
    if let Some(policy) = &outfit.memory_policy {
        sys::set_memory_policy(policy.mode, &policy.nodes).wall(|| format!("linux.memoryPolicy: set_mempolicy({policy:?})"))?;
    }
    Ok(())
}

/// What the program inherits: descriptors up to those that were asked for, and no signal disposition or mask of the runtime's.
fn descriptors(preserve: u32) -> Result<()> {
    sys::reset_signals().wall(|| "rt_sigprocmask".into())?;
    sys::close_on_exec_from(3 + preserve).wall(|| "close_range(CLOSE_RANGE_CLOEXEC)".into())?;
    (3..3 + preserve).try_for_each(|fd| sys::keep_on_exec(fd as i32).io(|| format!("--preserve-fds: descriptor {fd}")))
}

/// Pipes among the streams become the user's, because `/dev/stdout` can be opened by the owner alone. Nothing else is given away: a
/// file or a terminal that is redirected to stays its owner's, whatever it was taken for (CVE-2026-88265).
fn give_pipes(process: &Process) -> Result<()> {
    for number in 0..3 {
        match sys::give_pipe(number, process.uid) {
            // One of somebody outside of the user namespace, on a read-only file system, or no such stream.
            Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::ROFS | Errno::BADF) => {}
            Err(e) => return Err(e).wall(|| format!("fchown(stream {number}, {})", process.uid)),
        }
    }
    Ok(())
}

/// Ids, then the capability sets, then the kernel is asked.
fn become_user(process: &Process) -> Result<()> {
    let wanted = granted(process.capabilities)?;
    sys::keep_permitted(true).wall(|| "prctl(PR_SET_KEEPCAPS)".into())?;
    set_groups(process)?;
    sys::set_ids(process.uid, process.gid, None)
        .wall(|| format!("process.user: setresuid({}), setresgid({}) (is the id mapped in the user namespace?)", process.uid, process.gid))?;
    sys::keep_permitted(false).wall(|| "prctl(PR_SET_KEEPCAPS)".into())?;
    sys::set_capabilities(wanted).wall(|| format!("process.capabilities: capset({wanted:x?})"))?;
    let is = sys::capability_bits(wanted.bounding).wall(|| "capget".into())?;
    if is != wanted {
        return Err(Error::refused(ErrorKind::Wall, format!("process.capabilities: the kernel has {is:x?} instead of {wanted:x?}")));
    }
    Ok(())
}

/// The sets as this kernel can have them: what it does not know is in none, and the bounding set, which was cut down before and is read
/// back here, holds only what was there before. A permitted one that this process has not is an error, which the kernel says.
fn granted(wanted: CapabilitySets) -> Result<CapabilityBits> {
    let (has, last) = sys::bounding_set().wall(|| "prctl(PR_CAPBSET_READ)".into())?;
    if has & !wanted.bounding != 0 {
        return Err(Error::refused(
            ErrorKind::Wall,
            format!("process.capabilities.bounding: the kernel has {has:#x}, more than {:#x}", wanted.bounding),
        ));
    }
    let known = u64::MAX >> (63 - last);
    Ok(CapabilityBits {
        bounding: has,
        effective: wanted.effective & known,
        inheritable: wanted.inheritable & known,
        permitted: wanted.permitted & known,
        ambient: wanted.ambient & wanted.permitted & wanted.inheritable & known,
    })
}

fn set_groups(process: &Process) -> Result<()> {
    match sys::set_groups(&process.groups) {
        // An unprivileged user's namespace denies setgroups(2) (user_namespaces(7)); with none asked for, what it had stays.
        Err(Errno::PERM) if process.groups.is_empty() && setgroups_denied() => Ok(()),
        other => other.wall(|| format!("process.user.additionalGids: setgroups({:?})", process.groups)),
    }
}

fn setgroups_denied() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}

/// getcwd(2) answers `(unreachable)…` for a directory outside of the root: a descriptor of the host's that leaked (CVE-2024-21626).
fn must_be_inside() -> Result<()> {
    let here = rustix::process::getcwd(Vec::new()).wall(|| "getcwd".into())?;
    if here.to_bytes().first() == Some(&b'/') {
        return Ok(());
    }
    Err(Error::refused(ErrorKind::Wall, format!("process.cwd: the working directory {here:?} is outside of the container's root")))
}

fn environment(process: &Process, outfit: &Outfit) -> Result<Vec<CString>> {
    let mut env = process.env.clone();
    let has = |env: &[CString], name: &[u8]| env.iter().any(|e| e.to_bytes().strip_prefix(name).is_some_and(|rest| rest.first() == Some(&b'=')));
    let mut add = |text: String| {
        CString::new(text).map(|text| env.push(text)).map_err(|_| Error::refused(ErrorKind::Invalid, "a zero byte in the environment"))
    };
    if outfit.listen_fds > 0 {
        add(format!("LISTEN_FDS={}", outfit.listen_fds))?;
        add(format!("LISTEN_PID={}", std::process::id()))?;
    }
    if !has(&process.env, b"HOME") {
        add(format!("HOME={}", home(process.uid)))?;
    }
    Ok(env)
}

/// The home directory that the container's own `/etc/passwd` names. Read inside, as the container's user; `/` if it says nothing.
fn home(uid: u32) -> String {
    let read = || -> std::io::Result<String> {
        let file = open("/etc/passwd", OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Ok(String::new());
        }
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::from(file), PASSWD), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let text = read().unwrap_or_default();
    let entry = text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|e| e.get(2).and_then(|id| id.parse().ok()) == Some(uid));
    entry
        .and_then(|e| e.get(5).filter(|home| home.starts_with('/') && !home.contains('\0')).map(|home| (*home).to_owned()))
        .unwrap_or_else(|| "/".into())
}

/// The program's path, as execvp(3) looks for it, by the container's user in the container's root.
fn find(process: &Process, env: &[CString]) -> Result<CString> {
    let name = process.args.first().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Error::refused(ErrorKind::Exec, "exec: process.args is empty: no such file or directory"))?;
    let shown = name.to_string_lossy();
    if name.to_bytes().contains(&b'/') {
        executable(name).context(ErrorKind::Exec, || format!("exec: {shown:?}"))?;
        return Ok(name.clone());
    }
    let path = env.iter().rev().find_map(|e| e.to_bytes().strip_prefix(b"PATH=")).unwrap_or(PATH.as_bytes());
    let mut denied = None;
    for dir in path.split(|b| *b == b':') {
        let dir = if dir.is_empty() { b".".as_slice() } else { dir };
        let Ok(candidate) = CString::new([dir, name.to_bytes()].join(&b'/')) else { continue };
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ACCESS) => denied = Some(Errno::ACCESS),
            Err(_) => {}
        }
    }
    match denied {
        Some(e) => Err(e).context(ErrorKind::Exec, || format!("exec: {shown:?}: found in $PATH, but not executable")),
        None => Err(Error::call(ErrorKind::Exec, format!("exec: {shown:?}: executable file not found in $PATH"), Errno::NOENT)),
    }
}

fn executable(path: &CStr) -> std::result::Result<(), Errno> {
    if FileType::from_raw_mode(stat(path)?.st_mode) == FileType::Directory {
        return Err(Errno::ACCESS);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

impl Program {
    /// Becomes the program; returns only what went wrong.
    pub fn begin(self) -> Error {
        match self.late.as_ref().map(filter::install) {
            Some(Err(e)) => e,
            _ => Error::call(ErrorKind::Exec, format!("exec: {:?}", self.path.to_string_lossy()), sys::exec_path(&self.path, &self.args, &self.env)),
        }
    }

    /// Becomes what waits for `start` and then becomes the program; returns only what went wrong.
    pub fn launch(self, launcher: &Launcher, channel: &Channel, start: &OwnedFd) -> Error {
        launcher.launch(channel, start, self.preserve, self.path, self.args, &self.env)
    }
}

/// Takes the place of the descriptors 0 to 2.
///
/// # Errors
/// Of dup3(2).
pub fn streams(terminal: &OwnedFd) -> Result<()> {
    let from = terminal.as_fd();
    rustix::stdio::dup2_stdin(from)
        .and_then(|()| rustix::stdio::dup2_stdout(from))
        .and_then(|()| rustix::stdio::dup2_stderr(from))
        .io(|| "dup2(terminal)".into())
}

impl Outfit {
    /// Takes over sockets that the runtime itself was given to listen on (sd_listen_fds(3)).
    pub fn take_listening(&mut self) {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        if number("LISTEN_PID") == Some(std::process::id())
            && let Some(count) = number("LISTEN_FDS").filter(|n| *n < 1024)
        {
            self.listen_fds = count;
            self.preserve_fds += count;
        }
    }
}
