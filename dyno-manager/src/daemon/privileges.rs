//! Giving up root, once, before there is a second thread.

use anyhow::{Context, Result, ensure};
use rustix::{
    process::{Gid, Uid, getuid},
    thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// Becomes user and group `uid` for good. A process that is not root stays who it is.
///
/// The calls are per thread; all later threads inherit from this one, so it must be the only one.
pub(super) fn become_user(uid: u32) -> Result<()> {
    if !getuid().is_root() {
        return Ok(());
    }
    ensure!(uid != 0, "the daemon does not run as root; give --uid another number");
    let threads = std::fs::read_dir("/proc/self/task").context("list /proc/self/task")?.count();
    ensure!(threads == 1, "privileges are dropped before threads are started, and there are {threads}");
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    set_thread_groups(&[]).context("setgroups")?;
    set_thread_res_gid(group, group, group).context("setresgid")?;
    set_thread_res_uid(user, user, user).context("setresuid")?;
    set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")?;
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(str::trim);
    ensure!(effective == Some("0000000000000000"), "capabilities are left after setresuid: {effective:?}");
    Ok(())
}
