//! Giving up root, or most of it, once, before there is a second thread: the daemon all of it and more, the warden what it does not need.

use anyhow::{Context, Result, ensure};
use rustix::{
    process::{DumpableBehavior, Gid, Uid, getuid, set_dumpable_behavior},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

/// Becomes user and group `uid` for good, if this process is root; in any case without capabilities and any way to gain one, and closed to tracing by its user's
/// other processes.
///
/// The calls are per thread; all later threads inherit from this one, so it must be the only one.
pub(super) fn become_user(uid: u32) -> Result<()> {
    alone()?;
    let root = getuid().is_root();
    if root {
        ensure!(uid != 0, "the daemon does not run as root; give --uid another number");
        bound(CapabilitySet::empty())?;
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        set_thread_groups(&[]).context("setgroups")?;
        set_thread_res_gid(group, group, group).context("setresgid")?;
        set_thread_res_uid(user, user, user).context("setresuid")?;
    }
    keep(CapabilitySet::empty())?;
    set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("prctl(PR_SET_DUMPABLE)")?;
    // Whoever is not root at the start cannot take anything from the bounding set, and with no_new_privs gains nothing by it.
    let sets: &[&str] = if root { &["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] } else { &["CapInh", "CapPrm", "CapEff", "CapAmb"] };
    sets.iter().try_for_each(|set| holds(set, CapabilitySet::empty()))
}

/// What the warden works with, as `systemd/dyno-warden.service` has it too: mounts, loop devices and namespaces, and entering those of a child that cannot be traced; the loopback of a new network; id maps; device
/// nodes; files of other users.
pub(super) const WARDEN: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// Leaves the warden the capabilities that it needs, and no way to others.
pub(super) fn become_warden() -> Result<()> {
    alone()?;
    let held = capabilities(None).context("capget")?.permitted & WARDEN;
    bound(WARDEN)?;
    keep(held)?;
    set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")?;
    let others = told("CapBnd")? & !WARDEN;
    ensure!(others.is_empty(), "the bounding set of the warden still has {others:?}");
    [("CapInh", CapabilitySet::empty()), ("CapPrm", held), ("CapEff", held), ("CapAmb", CapabilitySet::empty())]
        .iter()
        .try_for_each(|(set, wanted)| holds(set, *wanted))
}

pub(super) fn alone() -> Result<()> {
    let threads = std::fs::read_dir("/proc/self/task").context("list /proc/self/task")?.count();
    ensure!(threads == 1, "privileges are dropped before threads are started, and there are {threads}");
    Ok(())
}

/// Takes from the bounding set what is not `wanted`. Without CAP_SETPCAP nothing can be taken, and what reads the set back decides.
fn bound(wanted: CapabilitySet) -> Result<()> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if wanted.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) | Err(rustix::io::Errno::PERM) => {}
            // Past the last that this kernel knows.
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            Err(e) => return Err(e).with_context(|| format!("prctl(PR_CAPBSET_DROP, {number})")),
        }
    }
    Ok(())
}

fn keep(wanted: CapabilitySet) -> Result<()> {
    clear_ambient_capability_set().context("prctl(PR_CAP_AMBIENT_CLEAR_ALL)")?;
    let sets = CapabilitySets { effective: wanted, permitted: wanted, inheritable: CapabilitySet::empty() };
    // What is so already is not asked for: systemd's filter around the daemon has no capset.
    if capabilities(None).context("capget")? == sets {
        return Ok(());
    }
    set_capabilities(None, sets).with_context(|| format!("capset({wanted:?})"))
}

/// One of the sets, as the kernel tells it.
fn told(set: &str) -> Result<CapabilitySet> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let bits =
        status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':')).with_context(|| format!("/proc/self/status without {set}"))?;
    Ok(CapabilitySet::from_bits_retain(u64::from_str_radix(bits.trim(), 16).with_context(|| format!("/proc/self/status: {set} {bits:?}"))?))
}

fn holds(set: &str, wanted: CapabilitySet) -> Result<()> {
    let is = told(set)?;
    ensure!(is == wanted, "{set} is {is:?} and should be {wanted:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_bounds_the_warden_as_the_code_does() {
        let unit = include_str!("../../../systemd/dyno-warden.service");
        let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
        let named = line.split_whitespace().map(|name| CapabilitySet::from_name(name.strip_prefix("CAP_").unwrap()).unwrap());
        assert_eq!(named.fold(CapabilitySet::empty(), CapabilitySet::union), WARDEN);
    }
}
