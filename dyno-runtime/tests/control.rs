//! A running dyno stands still, gets other limits, tells what it uses and what happens to it.

#[path = "control/events.rs"]
mod events;
mod support;

use std::{
    fs::{self, File},
    io::Read,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Cause, Dyno, ErrorKind, Event, Events, Found, Host, HostOptions, IoLimit, Limits, Sandbox, StartOptions, Stdio, Streams, Volume};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use support::{
    Case, Stage,
    groups::{disk_of, group_of, says, tree},
    same,
};

const CASES: &[Case] = &[
    ("pause_stops_everything_and_resume_lets_it_go_on", pause_stops_everything_and_resume_lets_it_go_on),
    ("a_paused_one_can_be_ended", a_paused_one_can_be_ended),
    ("a_paused_one_is_found_again", a_paused_one_is_found_again),
    ("an_ended_one_cannot_be_controlled", an_ended_one_cannot_be_controlled),
    ("other_limits", other_limits),
    ("limits_come_and_go_where_there_were_none", limits_come_and_go_where_there_were_none),
    ("a_refused_update_changes_nothing", a_refused_update_changes_nothing),
    ("memory_in_use_is_not_taken_away", memory_in_use_is_not_taken_away),
    ("statistics", statistics),
    ("disk_traffic_to_the_end", disk_traffic_to_the_end),
    ("out_of_memory_is_told", events::out_of_memory_is_told),
    ("much_memory_is_told", events::much_memory_is_told),
    ("a_refused_fork_is_told", events::a_refused_fork_is_told),
    ("pauses_and_the_end_are_told", events::pauses_and_the_end_are_told),
    ("born_in_the_v2_tree_beside_v1", born_in_the_v2_tree_beside_v1),
];

fn main() -> ExitCode {
    support::suite("control", &[], CASES)
}

/// An emulated machine is slow; whatever is waited for longer than this does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A family that writes dots to a pipe.
fn ticking(stage: &Stage) -> Result<(Dyno, File)> {
    let mut dyno = stage.start(&stage.sandbox(&["tick"]), Stdio::Pipes)?;
    let Streams::Pipes { stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
    Ok((dyno, stdout.into()))
}

fn is_readable(fd: &impl std::os::fd::AsFd, time: Duration) -> Result<bool> {
    Ok(poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&Timespec::try_from(time)?))? == 1)
}

/// Reads what is there.
fn drain(pipe: &mut File) -> Result<usize> {
    let (mut all, mut chunk) = (0, [0; 4096]);
    while is_readable(pipe, Duration::ZERO)? {
        all += pipe.read(&mut chunk)?;
    }
    Ok(all)
}

fn pause_stops_everything_and_resume_lets_it_go_on(stage: &Stage) -> Result<()> {
    let (dyno, mut dots) = ticking(stage)?;
    for round in 0..3 {
        let mut some = [0; 50];
        dots.read_exact(&mut some)?;
        same("paused before", dyno.is_paused()?, false)?;
        dyno.pause()?;
        ensure!(dyno.is_paused()? && dyno.stats()?.frozen, "round {round}: not paused");
        // All stand still by now: what they wrote before is all there is.
        drain(&mut dots)?;
        ensure!(!is_readable(&dots, Duration::from_millis(100))?, "round {round}: a dot by one that stands still");
        let used = dyno.stats()?.cpu.total_us;
        same("processor time", dyno.stats()?.cpu.total_us, used)?;
        dyno.pause()?;
        dyno.resume()?;
        same("paused after", dyno.is_paused()?, false)?;
        dots.read_exact(&mut some)?;
        dyno.resume()?;
    }
    Ok(dyno.free()?)
}

fn a_paused_one_can_be_ended(stage: &Stage) -> Result<()> {
    type End = fn(&Stage, Dyno) -> Result<()>;
    let ways: &[(&str, End)] = &[
        ("kill", |_, dyno| {
            dyno.kill()?;
            same("ended by", dyno.wait()?.cause, Cause::Killed)?;
            same("paused", dyno.is_paused()?, false)?;
            Ok(dyno.free()?)
        }),
        ("stop", |_, dyno| {
            same("ended by", dyno.stop(Duration::from_millis(50))?.cause, Cause::Killed)?;
            Ok(dyno.free()?)
        }),
        ("free", |_, dyno| Ok(dyno.free()?)),
        ("sweep", |stage, dyno| {
            let id = dyno.id().to_owned();
            drop(dyno);
            Ok(stage.host.sweep(&id)?)
        }),
    ];
    for (name, end) in ways {
        let (dyno, _dots) = ticking(stage)?;
        dyno.pause()?;
        end(stage, dyno).context(*name)?;
    }
    Ok(())
}

fn a_paused_one_is_found_again(stage: &Stage) -> Result<()> {
    let (dyno, mut dots) = ticking(stage)?;
    let id = dyno.id().to_owned();
    dyno.pause()?;
    drop(dyno);
    let again = Host::open(&stage.run, &stage.name)?;
    let found = again.recover()?.into_iter().next().context("nothing was found")?;
    let Found::Running(dyno) = found else { bail!("{id} has ended") };
    ensure!(dyno.is_paused()?, "it goes on by itself");
    drain(&mut dots)?;
    dyno.resume()?;
    ensure!(is_readable(&dots, PATIENCE)?, "no dot after resume");
    Ok(dyno.free()?)
}

fn an_ended_one_cannot_be_controlled(stage: &Stage) -> Result<()> {
    let dyno = stage.start(&stage.sandbox(&["exit", "0"]), Stdio::Null)?;
    dyno.wait()?;
    for (name, error) in [("pause", dyno.pause().err()), ("resume", dyno.resume().err()), ("update", dyno.update(&Limits::default()).err())] {
        ensure!(error.as_ref().is_some_and(|e| e.to_string().ends_with("it has ended")), "{name}: {error:?}");
    }
    same("paused", dyno.is_paused()?, false)?;
    ensure!(dyno.stats()?.memory.peak.is_some_and(|peak| peak > 0), "{:?}", dyno.stats());
    let mut events = dyno.events()?;
    same("told", events.wait(Some(PATIENCE))?, Some(Event::Ended))?;
    Ok(dyno.free()?)
}

fn on_v2(dyno: &Dyno) -> Result<bool> {
    Ok(group_of(dyno.pid(), "memory")?.join("cgroup.events").exists())
}

/// What the kernel says of the limits of `dyno`: memory, processes, weight, quota.
fn told(dyno: &Dyno) -> Result<[String; 4]> {
    let (memory, pids, cpu) = (group_of(dyno.pid(), "memory")?, group_of(dyno.pid(), "pids")?, group_of(dyno.pid(), "cpu")?);
    let text = |text: Option<String>| text.context("no such file");
    Ok([
        text(says(&memory, ["memory.max", "memory.limit_in_bytes"]))?,
        text(says(&pids, ["pids.max", "pids.max"]))?,
        text(says(&cpu, ["cpu.weight", "cpu.shares"]))?,
        text(says(&cpu, ["cpu.max", "cpu.cfs_quota_us"]))?,
    ])
}

fn other_limits(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let v2 = group_of(dyno.pid(), "cpu")?.join("cpu.max").exists();
    type Change = fn(&mut Limits);
    let weight = |n: u64| if v2 { n } else { n * 1024 / 100 }.to_string();
    let quota = |n: u64| if v2 { format!("{n} 100000") } else { n.to_string() };
    let unlimited = |v1: &str, all: &str| if v2 { all.to_owned() } else { v1.to_owned() };
    let page = rustix::param::page_size() as u64;
    let most = (i64::MAX as u64 / page * page).to_string();
    let cases: &[(Change, [String; 4])] = &[
        (|l| l.memory = Some(64 << 20), [(64 << 20).to_string(), "256".into(), weight(100), unlimited("-1", "max 100000")]),
        (|l| (l.memory, l.pids) = (Some(1 << 30), Some(9)), [(1 << 30).to_string(), "9".into(), weight(100), unlimited("-1", "max 100000")]),
        (|l| (l.memory, l.cpu_weight) = (Some(32 << 20), Some(7)), [(32 << 20).to_string(), "256".into(), weight(7), unlimited("-1", "max 100000")]),
        (|l| (l.memory, l.cpu_millis) = (Some(32 << 20), Some(500)), [(32 << 20).to_string(), "256".into(), weight(100), quota(50_000)]),
        (
            |l| (l.memory, l.memory_high, l.swap) = (Some(48 << 20), Some(40 << 20), 8 << 20),
            [(48 << 20).to_string(), "256".into(), weight(100), unlimited("-1", "max 100000")],
        ),
        (
            |l| *l = Limits { memory: None, pids: None, cpu_weight: None, ..Limits::default() },
            [unlimited(&most, "max"), "max".into(), weight(100), unlimited("-1", "max 100000")],
        ),
    ];
    for (change, want) in cases {
        let mut limits = Limits::default();
        change(&mut limits);
        dyno.update(&limits)?;
        same("limits", &told(&dyno)?, want)?;
        same("in the statistics", dyno.stats()?.memory.limit, limits.memory)?;
    }
    same("runs", dyno.has_ended(), false)?;
    Ok(dyno.free()?)
}

fn limits_come_and_go_where_there_were_none(stage: &Stage) -> Result<()> {
    let (dyno, dots) = ticking(stage)?;
    dyno.update(&Limits { cpus: Some("0".into()), ..Limits::default() })?;
    for pid in fs::read_to_string(group_of(dyno.pid(), "cpuset")?.join("cgroup.procs"))?.lines() {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        ensure!(status.contains("Cpus_allowed_list:\t0\n"), "{pid}: {status}");
    }
    dyno.update(&Limits::default())?;
    let status = fs::read_to_string(format!("/proc/{}/status", dyno.pid()))?;
    let own = fs::read_to_string("/proc/self/status")?;
    let allowed = |text: &str| text.lines().find(|l| l.starts_with("Cpus_allowed_list")).map(str::to_owned);
    same("allowed again", allowed(&status), allowed(&own))?;
    match disk_of(stage.work()) {
        None => println!("skipped: ceilings of disks: {} is on none", stage.work().display()),
        Some(device) => {
            let io = vec![IoLimit { device: device.clone(), write_bytes: Some(5 << 20), reads: Some(300), ..IoLimit::default() }];
            dyno.update(&Limits { io, ..Limits::default() })?;
            let group = group_of(dyno.pid(), "blkio")?;
            let v2 = [format!("{device} rbps=max wbps=5242880 riops=300 wiops=max"), String::new()];
            let v1 = [format!("{device} 5242880"), format!("{device} 300")];
            let is = || {
                [says(&group, ["io.max", "blkio.throttle.write_bps_device"]), says(&group, ["blkio.throttle.read_iops_device"; 2])]
                    .map(Option::unwrap_or_default)
            };
            ensure!(is() == v2 || is() == v1, "{:?}", is());
            dyno.update(&Limits::default())?;
            same("ceilings", is(), [String::new(), String::new()])?;
        }
    }
    ensure!(is_readable(&dots, PATIENCE)?, "it stands still");
    Ok(dyno.free()?)
}

fn a_refused_update_changes_nothing(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let before = told(&dyno)?;
    let changed = Limits { memory: Some(64 << 20), pids: Some(9), cpu_weight: Some(7), cpu_millis: Some(500), ..Limits::default() };
    let cases = [
        ("limits.pids \"1\" must be", ErrorKind::Invalid, Limits { pids: Some(1), ..changed.clone() }),
        ("limits.open_files \"64\" cannot be changed", ErrorKind::Invalid, Limits { open_files: 64, ..changed.clone() }),
        ("limits.wall_ms \"5\" cannot be changed", ErrorKind::Invalid, Limits { wall_ms: Some(5), ..changed.clone() }),
        // Found by the kernel only, after the others were set.
        ("cgroup: ", ErrorKind::Wall, Limits { cpus: Some("4000".into()), ..changed.clone() }),
        (
            "cgroup: ",
            ErrorKind::Wall,
            Limits { io: vec![IoLimit { device: "259:65535".into(), reads: Some(1), ..IoLimit::default() }], ..changed.clone() },
        ),
    ];
    for (want, kind, limits) in cases {
        let error = dyno.update(&limits).err().with_context(|| format!("accepted: {limits:?}"))?;
        ensure!(error.to_string().starts_with(want) && error.kind() == kind, "want {want:?}, got {error}");
        same("limits", told(&dyno)?, before.clone())?;
    }
    dyno.update(&changed)?;
    ensure!(told(&dyno)? != before, "nothing changes at all");
    Ok(dyno.free()?)
}

fn memory_in_use_is_not_taken_away(stage: &Stage) -> Result<()> {
    let dyno = stage.here(&stage.sandbox(&["eat-and-wait", "40000000"]))?;
    let before = told(&dyno)?;
    let error = dyno.update(&Limits { memory: Some(16 << 20), pids: Some(77), ..Limits::default() }).err().context("lowered below what is in use")?;
    ensure!(error.to_string().starts_with("limits.memory: more is in use than that"), "{error}");
    same("errno", error.errno(), Some(rustix::io::Errno::BUSY))?;
    same("limits", told(&dyno)?, before)?;
    same("killed", (dyno.has_ended(), dyno.stats()?.memory.oom_kills), (false, 0))?;
    dyno.update(&Limits { memory: Some(60 << 20), ..Limits::default() })?;
    Ok(dyno.free()?)
}

fn statistics(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["eat-and-wait", "20000000"]);
    sandbox.limits = Limits { memory: Some(64 << 20), pids: Some(20), cpu_millis: Some(900), ..Limits::default() };
    let dyno = stage.here(&sandbox)?;
    let stats = dyno.stats()?;
    let memory = stats.memory;
    ensure!(memory.now.is_some_and(|now| now > 20_000_000) && memory.peak >= memory.now, "{memory:?}");
    ensure!(memory.anon.is_some_and(|anon| anon >= 20_000_000 && Some(anon) <= memory.now), "{memory:?}");
    ensure!(memory.file.is_some() && memory.swap.is_some(), "{memory:?}");
    same("memory", (memory.limit, memory.oom_kills), (Some(64 << 20), 0))?;
    same("processes", (stats.pids.now, stats.pids.limit, stats.pids.refused), (Some(2), Some(20), 0))?;
    let cpu = stats.cpu;
    ensure!(
        cpu.total_us.is_some_and(|us| us > 0 || !matches!(on_v2(&dyno), Ok(true)))
            && cpu.user_us.is_some()
            && cpu.throttled.is_some()
            && cpu.throttled_us.is_some(),
        "{cpu:?}"
    );
    ensure!(cpu.user_us <= cpu.total_us && cpu.system_us <= cpu.total_us, "{cpu:?}");
    if on_v2(&dyno)? && fs::read_to_string("/proc/pressure/memory").is_ok() {
        ensure!(stats.pressure.memory.is_some() && stats.pressure.cpu.is_some() && stats.pressure.io.is_some(), "{:?}", stats.pressure);
    } else {
        println!("skipped: pressure: memory is on cgroup v1, or a kernel without it");
    }
    same("frozen", stats.frozen, false)?;
    same("as text and back", &serde_json::from_str::<dyno_runtime::Stats>(&serde_json::to_string(&stats)?)?, &stats)?;
    dyno.free()?;
    let dyno = stage.start(&stage.sandbox(&["spin", "100"]), Stdio::Null)?;
    let exit = dyno.wait()?;
    let told = dyno.stats()?.cpu.total_us;
    ensure!(told.is_none_or(|us| us > 0 && us + 20_000 > exit.cpu_us), "{told:?} {exit:?}");
    Ok(dyno.free()?)
}

fn disk_traffic_to_the_end(stage: &Stage) -> Result<()> {
    let Some(device) = disk_of(stage.work()) else {
        println!("skipped: {} is on no disk", stage.work().display());
        return Ok(());
    };
    let dir = stage.work().join("disk");
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let to = |file| stage.sandbox(&["write-through", file, "1048576"]);
    let mut sandbox = to("/data/first");
    sandbox.volumes = vec![Volume::Bind { source: dir.clone(), target: "/data".into(), writable: true }];
    let write = |sandbox: &Sandbox| -> Result<_> {
        let dyno = stage.start(sandbox, Stdio::Null)?;
        let exit = dyno.wait()?;
        same("status", exit.status, 0)?;
        ensure!(exit.io_written.is_some_and(|n| n >= 1 << 20), "{exit:?}");
        // Again, when nothing tells it any more but the handle.
        same("again", dyno.wait()?.io_written, exit.io_written)?;
        let disks = dyno.stats()?.io.context("no disk traffic")?.disks;
        dyno.free()?;
        Ok((exit, disks))
    };
    let (_, disks) = write(&sandbox)?;
    ensure!(disks.is_empty() || disks.contains_key(&device), "{disks:?}");
    // A quarter of a second and more at four times its size. To another file: on v2 the writes to one count for the group that began
    // with it, as long as the kernel remembers the file.
    sandbox.argv = to("/data/second").argv;
    sandbox.limits.io = vec![IoLimit { device: device.clone(), write_bytes: Some(4 << 20), ..IoLimit::default() }];
    let (exit, disks) = write(&sandbox)?;
    ensure!(exit.wall_us > 150_000, "no ceiling held: {exit:?}");
    ensure!(disks.get(&device).is_some_and(|disk| disk.written >= 1 << 20 && disk.writes > 0), "{disks:?}");
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// What a host of v2 has, on one with its controllers on v1 for who asks.
fn born_in_the_v2_tree_beside_v1(stage: &Stage) -> Result<()> {
    if tree().is_none() {
        println!("skipped: no v2 tree");
        return Ok(());
    }
    let options = HostOptions { v2_tree: true, ..HostOptions::default() };
    let host = Host::open_with(&stage.work().join("second"), &format!("{}-second", stage.name), &options)?;
    let mut dyno = host.start("t.1", &stage.sandbox(&["tick"]), StartOptions { stdio: Stdio::Pipes, ..Default::default() })?;
    let Streams::Pipes { stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
    let mut dots = File::from(stdout);
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", dyno.pid()))?;
    ensure!(cgroup.contains(&format!("0::/{}-second/t.1\n", stage.name)), "{cgroup}");
    let mut events = dyno.events()?;
    dyno.pause()?;
    same("told", events.wait(Some(PATIENCE))?, Some(Event::Paused))?;
    drain(&mut dots)?;
    ensure!(!is_readable(&dots, Duration::from_millis(50))?, "a dot by one that stands still");
    let stats = dyno.stats()?;
    ensure!(stats.frozen && stats.cpu.total_us.is_some_and(|us| us > 0), "{stats:?}");
    if fs::read_to_string("/proc/pressure/memory").is_ok() {
        ensure!(stats.pressure.memory.is_some() && stats.pressure.cpu.is_some() && stats.pressure.io.is_some(), "{:?}", stats.pressure);
    }
    // Dead while it stands still.
    dyno.kill()?;
    dyno.wait()?;
    ensure!(events::all(events, Event::Ended)?.ends_with(&[Event::Ended]), "no end");
    let used = dyno.stats()?.cpu.total_us;
    ensure!(used >= stats.cpu.total_us, "{used:?} after {stats:?}");
    dyno.free()?;
    Ok(host.dismantle()?)
}
