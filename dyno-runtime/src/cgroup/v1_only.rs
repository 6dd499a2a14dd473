//! Tests on the v1 hierarchies alone, as on a host that has no v2 tree: what that tree does otherwise is done without it.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    Cgroups, Controller, Group, Version,
    file::{read_file, write_file},
    mounts,
    part::Part,
};
use crate::{
    error::{Context, Result},
    host::HostOptions,
    spec::Limits,
};

/// A process that makes others all the time, in the group, and which of them are in the freezer's group.
struct Family {
    cgroups: Cgroups,
    group: Group,
    shell: Child,
}

impl Family {
    /// None, said aloud, where it cannot be.
    fn new(name: &str, limits: &Limits) -> Option<Self> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted: Vec<_> = mounts::hierarchies(&table).into_iter().filter(|m| m.version == Version::V1).collect();
        let has = |controller| mounted.iter().any(|m| m.controllers.contains(&controller));
        if !rustix::process::geteuid().is_root() || ![Controller::Memory, Controller::Pids, Controller::Cpu, Controller::Freezer].into_iter().all(has)
        {
            println!("skipped: needs root, and memory, pids, cpu and freezer on cgroup v1");
            return None;
        }
        let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let name = format!("dyno-test-{name}-{}", std::process::id());
        let cgroups = Cgroups::open_among(&mounted, &cgroup, &name, &HostOptions { alone: true, ..HostOptions::default() }).unwrap();
        let group = Group::create(&cgroups, "family", limits).unwrap();
        let script = "while :; do sleep 0.005 & sleep 0.005; done";
        let shell = Command::new("sh").args(["-c", script]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let family = Self { cgroups, group, shell };
        for part in family.group.parts() {
            write_file(&part.dir, "cgroup.procs", &family.shell.id().to_string()).unwrap();
        }
        Some(family)
    }

    fn dissolve(&mut self) -> Result<()> {
        self.shell.kill().io(|| "kill".into())?;
        self.group.thaw_to_die(&self.cgroups)?;
        self.shell.wait().io(|| "wait".into())?;
        self.group.remove_after(|| {
            for pid in self.group.pids()? {
                // Who is gone meanwhile needs no killing.
                let _gone = Pid::from_raw(pid.cast_signed()).map(|pid| kill_process(pid, Signal::KILL));
            }
            Ok(())
        })?;
        self.cgroups.remove()
    }
}

impl Drop for Family {
    /// Also when a test fails.
    fn drop(&mut self) {
        let dissolved = self.dissolve();
        assert!(std::thread::panicking() || dissolved.is_ok(), "{dissolved:?}");
    }
}

#[test]
fn all_are_frozen_however_fast_they_fork() {
    let Some(family) = Family::new("freezer", &Limits::default()) else { return };
    let Family { cgroups, group, shell } = &family;
    assert_eq!(group.part(Controller::Freezer).map(Part::path), None, "joined before it is needed");
    assert!(!group.is_frozen(cgroups).unwrap());
    for _ in 0..3 {
        group.freeze(cgroups).unwrap();
        assert!(group.is_frozen(cgroups).unwrap());
        let freezer = group.part(Controller::Freezer).unwrap();
        // In this order: who was just ending may be gone from the second list, but nobody new can be on it.
        let inside = freezer.pids().unwrap();
        let outside: Vec<u32> = group.pids().unwrap().into_iter().filter(|pid| !inside.contains(pid)).collect();
        assert_eq!(outside, [0; 0], "they are outside of {inside:?}");
        assert!(inside.contains(&shell.id()));
        // A handle that was open before sees it too, and so does a new one.
        let other = cgroups.reopen("family").unwrap().unwrap();
        assert!(other.is_frozen(cgroups).unwrap());
        other.thaw(cgroups).unwrap();
        assert!(!group.is_frozen(cgroups).unwrap());
    }
    // Taken down frozen.
    group.freeze(cgroups).unwrap();
}

#[test]
fn processor_time_without_any_controller_for_it() {
    let Some(family) = Family::new("time", &Limits::default()) else { return };
    // Forking takes time; with cpuacct beside cpu it is counted there.
    let first = family.group.stats().unwrap().cpu;
    assert!(first.total_us.is_some() && first.user_us.is_some(), "{first:?}");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while family.group.stats().unwrap().cpu.total_us <= first.total_us {
        assert!(std::time::Instant::now() < end, "no time passes: {first:?}");
        std::thread::yield_now();
    }
    assert_eq!(family.group.stats().unwrap().pressure, super::Pressure::default());
}

#[test]
fn a_limit_of_processor_time_joins_what_counts_it() {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if !mounts::hierarchies(&table).iter().any(|m| m.controllers.contains(&Controller::Cpuacct)) {
        return println!("skipped: no cpuacct");
    }
    let Some(family) = Family::new("cpuacct", &Limits { cpu_ms: Some(1000), ..Limits::default() }) else { return };
    let file = family.group.cpu_time_file().unwrap();
    assert!(super::file::read_from_start(&file).unwrap().trim().parse::<u64>().is_ok());
    let part = family.group.part(Controller::Cpuacct).unwrap();
    assert!(read_file(&part.dir, "cgroup.procs").unwrap().contains(&family.shell.id().to_string()));
}
