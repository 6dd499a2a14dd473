//! What a filter must let through so that a sandbox can start: calls of the child after the filter is on, and of the init.

use super::{profile::Action, table, verdict::Verdicts};

/// The calls of `spawn/child.rs` after the filter, and of `init/` (a test compares with its list). No argument matters but those of
/// [`WITH`].
const ANY: &[&str] = &[
    "execveat",
    "getuid",
    "getgid",
    "capget",
    "exit_group", // the child
    "read",
    "write",
    "close",
    "pread64",
    "pwrite64",
    "execve",
    "wait4",
    "kill",
    "fcntl",
    "getrusage",
    "setsid",
    "clock_gettime",
    "ppoll",
    "dup3",
    "pipe2",
    "signalfd4",
    "rt_sigprocmask",
    "rt_sigaction",
    "prctl",
    "mmap",
    "munmap",
    "recvmsg",
    "chdir",   // the init
    "sendmsg", // both: the listener of a filter that reports travels by it
];

/// The init's own clone(CLONE_VM | CLONE_VFORK | SIGCHLD); TIOCSCTTY of a terminal's session.
const WITH: &[(&str, [u64; 6])] = &[("clone", [0x4111, 0, 0, 0, 0, 0]), ("ioctl", [0, 0x540e, 0, 0, 0, 0])];

/// Whether a sandbox can start under this filter.
pub(super) fn check(verdicts: &Verdicts) -> Result<(), String> {
    let any = ANY.iter().map(|name| (*name, [0; 6]));
    for (name, args) in any.chain(WITH.iter().copied()) {
        let Some(number) = table::number(name) else { continue };
        let action = verdicts.action(number, &args);
        if !matches!(action, Action::Allow | Action::Log) {
            return Err(format!("profile answers {action} to {name}, without which no sandbox can start"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_init_calls_is_needed() {
        let source = include_str!("../../init/sys.rs");
        let (_, list) = source.split_once("numbers! {").unwrap();
        let (list, _) = list.split_once('}').unwrap();
        let names: Vec<String> = list.split(';').filter_map(|entry| Some(entry.split_once('=')?.0.trim().to_lowercase())).collect();
        assert!(names.len() > 15, "{names:?}");
        for name in names {
            assert!(ANY.contains(&name.as_str()) || WITH.iter().any(|(n, _)| *n == name), "{name} is missing");
        }
    }
}
