//! Sandboxes that were parked: every wall of `walls.rs`, every stream of `streams.rs` and every limit of `limits.rs` once more, started
//! from a parked one; and what only these have.

#![allow(clippy::duplicate_mod, reason = "each test program brings its own stage")]

pub(crate) mod support;

#[allow(dead_code, reason = "a test program of its own")]
#[path = "exits.rs"]
mod exits;
#[allow(dead_code, reason = "a test program of its own")]
#[path = "limits.rs"]
mod limits;
#[allow(dead_code, reason = "a test program of its own")]
#[path = "standing.rs"]
mod standing;
#[allow(dead_code, reason = "a test program of its own")]
#[path = "streams.rs"]
mod streams;
#[allow(dead_code, reason = "a test program of its own")]
#[path = "walls.rs"]
mod walls;

use std::{
    fs,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use dyno_runtime::{Cause, ErrorKind, Host, HostOptions, Network, Sandbox, StartOptions, Stdio, Streams, Tier};

use support::{Case, Stage, same};

const CASES: &[Case] = &[
    ("what_is_the_callers_to_choose", what_is_the_callers_to_choose),
    ("other_walls_are_never_served", other_walls_are_never_served),
    ("the_log_of_one", the_log_of_one),
    ("a_program_that_cannot_be_executed", a_program_that_cannot_be_executed),
    ("an_id_that_runs_is_refused_and_costs_nothing", an_id_that_runs_is_refused_and_costs_nothing),
    ("one_that_died_while_it_waited_is_passed_over", one_that_died_while_it_waited_is_passed_over),
    ("a_long_command_starts_cold", a_long_command_starts_cold),
    ("what_cannot_wait_is_named", what_cannot_wait_is_named),
    ("nothing_of_the_platform_is_open_while_it_waits", nothing_of_the_platform_is_open_while_it_waits),
    ("they_end_with_their_process", they_end_with_their_process),
];

/// In the role of an owner: parks, says so, and waits to be killed.
const OWNER: &str = "DYNO_TEST_PARKED_OWNER";

fn main() -> ExitCode {
    if let Some(dir) = std::env::var_os(OWNER) {
        return match own(dir.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{e:#}");
                ExitCode::FAILURE
            }
        };
    }
    let results = [
        support::suite("parked", &[], CASES),
        walls::support::suite_on("parked-walls", &[], walls::CASES, walls::support::Stage::of_parked),
        standing::support::suite_on("parked-standing", &[], standing::CASES, standing::support::Stage::of_parked),
        streams::support::suite_on("parked-streams", &[], streams::CASES, streams::support::Stage::of_parked),
        limits::support::suite_on("parked-limits", &[], limits::CASES, limits::support::Stage::of_parked),
        exits::support::suite_on("parked-exits", &[], exits::CASES, exits::support::Stage::of_parked),
    ];
    results.into_iter().find(|result| *result != ExitCode::SUCCESS).unwrap_or(ExitCode::SUCCESS)
}

/// One is parked for `like`; what `sandbox` then starts must be that one, or must not.
fn tier_of(stage: &Stage, like: &Sandbox, sandbox: &Sandbox) -> Result<Tier> {
    ensure!(stage.park(like), "none was parked");
    let dyno = stage.host.start(&stage.id(), sandbox, StartOptions::default())?;
    let tier = dyno.tier();
    dyno.free()?;
    stage.host.keep_parked(like, 0)?;
    Ok(tier)
}

fn what_is_the_callers_to_choose(stage: &Stage) -> Result<()> {
    let like = stage.sandbox(&["forever"]);
    ensure!(stage.park(&like), "none was parked");
    let mut sandbox = stage.sandbox(&["env"]);
    sandbox.env.insert("COLOUR".into(), "red".into());
    sandbox.hostname = "web.1".into();
    sandbox.cwd = "/tmp".into();
    let mut dyno = stage.start(&sandbox, Stdio::Pipes)?;
    same("tier", dyno.tier(), Tier::Parked)?;
    let Streams::Pipes { stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
    let said = support::read_all(stdout)?;
    same("environment", said.trim(), "COLOUR=red")?;
    let exit = dyno.wait()?;
    same("exit", (exit.status, exit.cause), (0, Cause::Exited))?;
    ensure!(exit.wall_us > 0 && exit.wall_us < 60_000_000 && exit.timing.exec_us > 0, "{exit:?}");
    same("what is written down of it", dyno.sandbox()?, sandbox.clone())?;
    dyno.free()?;
    stage.host.keep_parked(&like, 0)?;
    for (argv, want) in [(vec!["read", "/proc/sys/kernel/hostname"], "web.1"), (vec!["cwd"], "/tmp")] {
        ensure!(stage.park(&like), "none was parked");
        let asked = Sandbox { argv: std::iter::once(support::PROGRAM).chain(argv).map(str::to_owned).collect(), ..sandbox.clone() };
        let (exit, said) = stage.output(&asked)?;
        same("answer", (exit.status, said.trim()), (0, want))?;
        stage.host.keep_parked(&like, 0)?;
    }
    Ok(())
}

fn other_walls_are_never_served(stage: &Stage) -> Result<()> {
    let like = stage.sandbox(&["exit", "0"]);
    same("the same", tier_of(stage, &like, &like)?, Tier::Parked)?;
    type Change = fn(&mut Sandbox);
    let changes: &[(&str, Change)] = &[
        ("uid", |s| s.identity.uid = 1001),
        ("memory", |s| s.limits.memory = Some(64 << 20)),
        ("pids", |s| s.limits.pids = Some(7)),
        ("open files", |s| s.limits.open_files = 64),
        ("profile", |s| s.seccomp = dyno_runtime::Profile::Build),
        ("network", |s| s.network = Network::Host),
        ("upper", |s| s.root.upper = dyno_runtime::Upper::ReadOnly),
        ("masked", |s| s.masked = vec!["/tmp".into()]),
        ("read only", |s| s.read_only = vec!["/tmp".into()]),
        ("volume", |s| s.volumes = vec![dyno_runtime::Volume::Tmpfs { target: "/data".into(), bytes: 1 << 20, inodes: 10 }]),
    ];
    for (what, change) in changes {
        let mut sandbox = like.clone();
        change(&mut sandbox);
        ensure!(tier_of(stage, &like, &sandbox)? != Tier::Parked, "{what} of another");
    }
    Ok(())
}

fn the_log_of_one(stage: &Stage) -> Result<()> {
    let sandbox = stage.sandbox(&["read", "/proc/sys/kernel/hostname"]);
    ensure!(stage.park(&sandbox), "none was parked");
    let mut dyno = stage.start(&sandbox, Stdio::Log)?;
    same("tier", dyno.tier(), Tier::Parked)?;
    let Streams::Log(log) = dyno.take_streams() else { bail!("no log") };
    dyno.wait()?;
    let mut bytes = [0u8; 4096];
    let n = rustix::io::read(&log, &mut bytes[..])?;
    ensure!(String::from_utf8_lossy(&bytes[..n]).contains("dyno"), "{:?}", String::from_utf8_lossy(&bytes[..n]));
    dyno.free()?;
    Ok(stage.host.keep_parked(&sandbox, 0)?)
}

fn a_program_that_cannot_be_executed(stage: &Stage) -> Result<()> {
    let like = stage.sandbox(&["exit", "0"]);
    for (program, errno) in [("/nowhere", 2), ("/tmp", 13), ("nowhere", 2)] {
        ensure!(stage.park(&like), "none was parked");
        let sandbox = Sandbox { argv: vec![program.into()], ..like.clone() };
        let error = stage.host.start(&stage.id(), &sandbox, StartOptions::default()).err().map(|e| (e.kind(), e.errno().map(|e| e.raw_os_error())));
        same(program, error, Some((ErrorKind::Exec, Some(errno))))?;
        stage.host.keep_parked(&like, 0)?;
    }
    Ok(())
}

fn an_id_that_runs_is_refused_and_costs_nothing(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let like = stage.sandbox(&["exit", "0"]);
    ensure!(stage.park(&like), "none was parked");
    let refused = stage.host.start(dyno.id(), &like, StartOptions::default());
    ensure!(refused.as_ref().is_err_and(|e| e.kind() == ErrorKind::Invalid && e.to_string().contains("does it run already?")), "{refused:?}");
    same("it runs on", dyno.has_ended(), false)?;
    dyno.free()?;
    Ok(stage.host.keep_parked(&like, 0)?)
}

fn one_that_died_while_it_waited_is_passed_over(stage: &Stage) -> Result<()> {
    let like = stage.sandbox(&["exit", "0"]);
    ensure!(stage.park(&like), "none was parked");
    let me = std::process::id();
    let children = fs::read_to_string(format!("/proc/{me}/task/{me}/children"))?;
    let threads: Vec<_> =
        fs::read_dir(format!("/proc/{me}/task"))?.filter_map(|t| fs::read_to_string(t.ok()?.path().join("children")).ok()).collect();
    let init: i32 = threads
        .iter()
        .flat_map(|t| t.split_whitespace())
        .find_map(|pid| pid.parse().ok())
        .ok_or_else(|| anyhow::anyhow!("no init among {children:?}"))?;
    let pid = rustix::process::Pid::from_raw(init).ok_or_else(|| anyhow::anyhow!("pid"))?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL)?;
    // Killed is not ended: it has its turn first.
    rustix::event::poll(&mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)], None)?;
    let dyno = stage.host.start(&stage.id(), &like, StartOptions::default())?;
    dyno.wait()?;
    dyno.free()?;
    Ok(stage.host.keep_parked(&like, 0)?)
}

fn a_long_command_starts_cold(stage: &Stage) -> Result<()> {
    let like = stage.sandbox(&["exit", "0"]);
    let mut sandbox = like.clone();
    sandbox.argv.push("x".repeat(100_000));
    ensure!(tier_of(stage, &like, &sandbox)? != Tier::Parked, "a long command");
    Ok(())
}

fn what_cannot_wait_is_named(stage: &Stage) -> Result<()> {
    type Change = fn(&mut Sandbox);
    let changes: &[(&str, Change)] = &[
        ("network", |s| s.network = Network::Host),
        ("limits.wall_ms", |s| s.limits.wall_ms = Some(1000)),
        ("limits.wall_ms", |s| s.limits.output = Some(1000)),
        ("capabilities", |s| s.identity.capabilities = vec![dyno_runtime::Capability::SYS_ADMIN]),
        ("hostname", |s| s.hostname = "a b".into()),
    ];
    for (word, change) in changes {
        let mut sandbox = stage.sandbox(&["exit", "0"]);
        change(&mut sandbox);
        let refused = stage.host.keep_parked(&sandbox, 1);
        ensure!(refused.as_ref().is_err_and(|e| e.kind() == ErrorKind::Invalid && e.to_string().contains(word)), "{word}: {refused:?}");
    }
    Ok(())
}

/// Every descriptor of both processes is one of the sandbox's own.
fn nothing_of_the_platform_is_open_while_it_waits(stage: &Stage) -> Result<()> {
    let like = stage.sandbox(&["forever"]);
    ensure!(stage.park(&like), "none was parked");
    let me = std::process::id();
    let ours: Vec<u32> = fs::read_dir("/proc")?
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            comm.trim() == "dyno-init" && group.contains(&stage.name) && status.contains("Seccomp:\t2") && *pid != me
        })
        .collect();
    same("processes", ours.len(), 2)?;
    for pid in ours {
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let target = fs::read_link(entry?.path())?.display().to_string();
            let own = ["/dev/null", "socket:", "pipe:", "anon_inode:[signalfd]"].iter().any(|known| target.starts_with(known));
            let state = target.starts_with(&stage.run.display().to_string()) && (target.ends_with("/exit") || target.ends_with("/log"));
            ensure!(own || state, "{pid} has {target}");
        }
    }
    Ok(stage.host.keep_parked(&like, 0)?)
}

/// What a killed owner leaves runs no more, and is swept by the next.
fn they_end_with_their_process(stage: &Stage) -> Result<()> {
    let run = stage.work().join("owner");
    let mut owner = Command::new(std::env::current_exe()?)
        .env(OWNER, &run)
        .env("DYNO_TEST_ROOTFS", stage.rootfs())
        .env("DYNO_TEST_OWNER_NAME", format!("{}-owner", stage.name))
        .spawn()?;
    let end = Instant::now() + Duration::from_secs(20);
    while !run.join("parked").exists() {
        ensure!(Instant::now() < end && owner.try_wait()?.is_none(), "the owner parked nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    owner.kill()?;
    owner.wait()?;
    let name = format!("{}-owner", stage.name);
    let host = Host::open_alone(&run, &name)?;
    same("what is found", host.recover()?.len(), 0)?;
    Ok(host.dismantle()?)
}

fn own(run: &std::path::Path) -> Result<()> {
    let rootfs = std::env::var("DYNO_TEST_ROOTFS")?;
    let name = std::env::var("DYNO_TEST_OWNER_NAME")?;
    let host = Host::open_with(run, &name, &HostOptions { spares: 2, ..HostOptions::default() })?;
    let like = Sandbox::new(vec![dyno_runtime::Layer::Directory(rootfs.into())], [support::PROGRAM, "exit", "0"]);
    host.start("first", &like, StartOptions::default())?.free()?;
    host.keep_parked(&like, 2)?;
    host.wait_ready()?;
    fs::write(run.join("parked"), "")?;
    loop {
        std::thread::park();
    }
}
