//! Words for starts that failed.

use rustix::io::Errno;

use super::child::{ChildMount, Step};
use crate::error::{Error, ErrorKind};

pub(super) fn killed_early() -> Error {
    Error::refused(ErrorKind::Wall, "the sandbox was killed at its start, in: init (is the memory limit too small?)")
}

/// Words for a step that failed in the child.
pub(super) fn failure(step: Step, errno: Option<Errno>, mounts: &[ChildMount]) -> Error {
    let what = match step {
        Step::Begun => "clone3".to_owned(),
        Step::OwnTable => "close_range(CLOSE_RANGE_UNSHARE)".to_owned(),
        Step::EnterCgroup => "enter the cgroup: write \"0\" to tasks".to_owned(),
        Step::CgroupNamespace => "unshare(CLONE_NEWCGROUP)".to_owned(),
        Step::LoopbackUp => "bring lo up: ioctl(SIOCSIFFLAGS)".to_owned(),
        Step::EmptyMounts => "setns into the empty mount namespace, unshare(CLONE_NEWNS)".to_owned(),
        Step::NewProc => "mount proc (refused where other mounts hide parts of the host's, as in most containers)".to_owned(),
        Step::PrivateMounts => "mount(/, MS_PRIVATE | MS_REC)".to_owned(),
        Step::AttachRoot => "move_mount(root)".to_owned(),
        Step::PivotRoot => "pivot_root(., .)".to_owned(),
        Step::DetachHost => "umount2(old root, MNT_DETACH)".to_owned(),
        Step::Mount(i) => match mounts.get(i) {
            Some(ChildMount::Dev(_)) => "mount at /dev (does it exist, without symlinks on the way?)".into(),
            Some(ChildMount::Tree { target, .. }) => format!("mount at {} (does it exist, without symlinks on the way?)", target.to_string_lossy()),
            Some(ChildMount::Proc) => "mount proc at /proc".to_owned(),
            Some(ChildMount::Masked(path)) => format!("mask {}", path.to_string_lossy()),
            Some(ChildMount::ReadOnly(path)) => format!("make {} read-only", path.to_string_lossy()),
            None => "mount".to_owned(),
        },
        Step::JoinNetwork => "setns(CLONE_NEWNET)".to_owned(),
        Step::CollectNetwork => "recvmsg(the network that is made beside it)".to_owned(),
        Step::NewNetwork => "unshare(CLONE_NEWNET)".to_owned(),
        Step::OwnNamespaces => "unshare namespaces inside the user namespace".to_owned(),
        Step::Landlock => "landlock_create_ruleset, landlock_add_rule, landlock_restrict_self".to_owned(),
        Step::Hostname => "sethostname".to_owned(),
        Step::Rlimits => "setrlimit(CORE, RTPRIO, NICE, FSIZE, STACK)".to_owned(),
        Step::Keyring => "keyctl(KEYCTL_JOIN_SESSION_KEYRING)".to_owned(),
        Step::Session => "setsid".to_owned(),
        Step::JoinUserNamespace => "setns(CLONE_NEWUSER)".to_owned(),
        Step::Ids => "setgroups, setresgid, setresuid".to_owned(),
        Step::Capabilities => "drop capabilities".to_owned(),
        Step::NoNewPrivs => "prctl(PR_SET_NO_NEW_PRIVS)".to_owned(),
        Step::Descriptors => "dup3, close_range".to_owned(),
        Step::OpenFiles => "setrlimit(NOFILE)".to_owned(),
        Step::Scheduling => "setpriority, sched_setscheduler, oom_score_adj".to_owned(),
        Step::WorkingDirectory => "chdir to the working directory".to_owned(),
        Step::SystemCallFilter => "seccomp(SECCOMP_SET_MODE_FILTER)".to_owned(),
        Step::SelfCheck => "self-check: the kernel reports ids, capabilities, no_new_privs or seccomp other than asked".to_owned(),
        Step::ExecInit => "execveat(init)".to_owned(),
    };
    match errno {
        Some(errno) => Error::call(ErrorKind::Wall, format!("the sandbox did not start: {what}"), errno),
        None => Error::refused(ErrorKind::Wall, format!("the sandbox was killed at its start, in: {what} (is the memory limit too small?)")),
    }
}
