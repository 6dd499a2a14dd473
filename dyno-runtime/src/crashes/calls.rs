//! Which system calls are swept: those that change something, and the ends of those who make them.

macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

/// That something was changed by the last of them is not yet known to anybody: `exit_group` is the moment after it.
#[rustfmt::skip]
const CALLS: &[(&str, i64)] = calls![
    SYS_clone3 SYS_clone SYS_unshare SYS_setns SYS_fsopen SYS_fsconfig SYS_fsmount SYS_open_tree SYS_move_mount SYS_mount_setattr SYS_mount
    SYS_umount2 SYS_pivot_root SYS_chroot SYS_openat SYS_openat2 SYS_mkdirat SYS_mknodat SYS_symlinkat SYS_unlinkat SYS_linkat
    SYS_renameat2 SYS_chdir SYS_fchdir SYS_fchown SYS_fchownat SYS_fchmod SYS_fchmodat SYS_write SYS_pwrite64 SYS_ftruncate SYS_fallocate
    SYS_ioctl SYS_socket SYS_socketpair SYS_bind SYS_listen SYS_connect SYS_sendto SYS_sendmsg SYS_pipe2 SYS_dup SYS_dup3 SYS_fcntl SYS_flock
    SYS_close_range SYS_prctl SYS_seccomp SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self SYS_capset
    SYS_setgroups SYS_setresuid SYS_setresgid SYS_sethostname SYS_prlimit64 SYS_keyctl SYS_setsid SYS_execve SYS_execveat
    SYS_memfd_create SYS_ioprio_set SYS_personality SYS_signalfd4 SYS_kill SYS_pidfd_open SYS_pidfd_getfd SYS_pidfd_send_signal
    SYS_setxattr SYS_fsetxattr SYS_exit_group SYS_poll SYS_ppoll
];
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[(&str, i64)] = calls![SYS_mkdir SYS_rmdir SYS_unlink SYS_rename SYS_chmod SYS_link SYS_symlink SYS_open SYS_fork SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[(&str, i64)] = calls![SYS_renameat];

/// Numbers of all of them.
pub fn numbers() -> Vec<i64> {
    CALLS.iter().chain(OLD_CALLS).map(|(_, number)| *number).collect()
}

/// As it is called in its manual page.
pub fn name(number: i64) -> &'static str {
    let found = CALLS.iter().chain(OLD_CALLS).find(|(_, other)| *other == number);
    found.map_or("?", |(name, _)| name.trim_start_matches("SYS_"))
}

/// What a signal, a wait or an end cannot be refused for: kill(2), exit_group(2) and setsid(2) know none of the injected errors, and an
/// init whose last kill fails waits for those that it could not kill.
pub fn can_fail(number: i64) -> bool {
    !matches!(number, libc::SYS_exit_group | libc::SYS_kill | libc::SYS_pidfd_send_signal | libc::SYS_setsid)
}
