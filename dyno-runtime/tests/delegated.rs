//! Groups below the one that the caller is in, as under systemd: on v2 a delegated one, which the caller leaves to divide it.
//!
//! The caller moves, so each case runs this program again in a process of its own: under v1 as it is, under systemd with v2 in a
//! scope and in a service that are delegated to it, and in ones that are not.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use dyno_runtime::{CgroupParent, Host, HostOptions, Layer, Limits, Sandbox, StartOptions};

use support::{
    Case, PROGRAM, Stage,
    groups::{group_of, says, tree},
    same,
};

const CASES: &[Case] = &[
    ("below_the_callers_own_group", below_the_callers_own_group),
    ("in_a_delegated_scope", in_a_delegated_scope),
    ("in_a_delegated_service", in_a_delegated_service),
    ("what_was_not_delegated_is_left_alone", what_was_not_delegated_is_left_alone),
];

/// Set for the program run again: the root file system.
const INNER: &str = "DYNO_TEST_DELEGATED";

fn main() -> ExitCode {
    let Some(rootfs) = std::env::var_os(INNER) else { return support::suite("delegated", &[], CASES) };
    match inner(Path::new(&rootfs)) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            println!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Opens an instance below our own group, runs dynos in it, takes it down; says where the groups were.
fn inner(rootfs: &Path) -> Result<String> {
    let name = format!("dyno-test-inner-{}", std::process::id());
    let run = PathBuf::from(format!("/run/{name}"));
    let own = group_of(std::process::id(), "memory")?;
    let options = HostOptions { cgroups: CgroupParent::Delegated, alone: true, ..HostOptions::default() };
    let host = Host::open_with(&run, &name, &options)?;
    let worked = work(&host, rootfs, &own, &name);
    let swept = host.recover().map(|found| found.iter().try_for_each(|found| host.sweep(found.id())));
    host.dismantle()?;
    swept??;
    ensure!(!worked.as_ref().is_ok_and(|groups| Path::new(groups).exists()), "the groups are left");
    worked
}

fn work(host: &Host, rootfs: &Path, own: &Path, name: &str) -> Result<String> {
    let mut sandbox = Sandbox::new(vec![Layer::Directory(rootfs.to_owned())], [PROGRAM, "nap", "1000000"]);
    sandbox.limits = Limits { memory: Some(48 << 20), pids: Some(9), cpu_millis: Some(700), ..Limits::default() };
    let dyno = host.start("t.1", &sandbox, StartOptions::default())?;
    let group = group_of(dyno.pid(), "memory")?;
    same("group", group.as_path(), &own.join(name).join("t.1"))?;
    same("memory", says(&group, ["memory.max", "memory.limit_in_bytes"]), Some((48 << 20).to_string()))?;
    same("processes", says(&group_of(dyno.pid(), "pids")?, ["pids.max"; 2]), Some("9".into()))?;
    dyno.pause()?;
    ensure!(dyno.is_paused()?, "not paused");
    dyno.update(&Limits { pids: Some(10), ..sandbox.limits.clone() })?;
    // A second instance of the same process: it has stepped aside already.
    let second = format!("{name}-2");
    let run = PathBuf::from(format!("/run/{second}"));
    let other = Host::open_with(&run, &second, &HostOptions { cgroups: CgroupParent::Delegated, ..HostOptions::default() })?;
    other.start("t.2", &Sandbox { limits: Limits::default(), ..sandbox.clone() }, StartOptions::default())?.free()?;
    other.dismantle()?;
    if own.join("cgroup.type").exists() {
        same("left for the supervisor", fs::read_to_string(own.join("cgroup.procs"))?, String::new())?;
        same("ourselves", group_of(std::process::id(), "memory")?, own.join("supervisor"))?;
    }
    dyno.free()?;
    Ok(own.join(name).display().to_string())
}

fn again(command: &mut Command, stage: &Stage) -> Result<(bool, String)> {
    let output = command.env(INNER, stage.rootfs()).output().with_context(|| format!("run {command:?}"))?;
    Ok((output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))))
}

fn on_v2() -> Result<bool> {
    Ok(group_of(std::process::id(), "memory")?.join("cgroup.controllers").exists())
}

/// Why there is no systemd with the controllers on v2.
fn no_systemd() -> Result<Option<&'static str>> {
    if !Path::new("/run/systemd/system").exists() {
        return Ok(Some("no systemd"));
    }
    Ok((!on_v2()?).then_some("memory is on cgroup v1"))
}

fn below_the_callers_own_group(stage: &Stage) -> Result<()> {
    if on_v2()? {
        println!("skipped: v2 wants a delegated group; see the other cases");
        return Ok(());
    }
    let (ok, said) = again(&mut Command::new(std::env::current_exe()?), stage)?;
    ensure!(ok, "{said}");
    let own = group_of(std::process::id(), "memory")?;
    ensure!(said.starts_with(&format!("{}/dyno-test-inner-", own.display())), "{said}");
    Ok(())
}

/// Runs ourselves under systemd with these options.
fn under_systemd(stage: &Stage, options: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new("systemd-run");
    command.args(options).args(["--quiet", "--collect"]).arg(format!("--setenv={INNER}={}", stage.rootfs().display()));
    again(command.arg(std::env::current_exe()?), stage)
}

fn in_a_delegated_scope(stage: &Stage) -> Result<()> {
    if let Some(reason) = no_systemd()? {
        println!("skipped: {reason}");
        return Ok(());
    }
    let (ok, said) = under_systemd(stage, &["--scope", "-p", "Delegate=yes"])?;
    ensure!(ok && said.contains(".scope/dyno-test-inner-"), "{said}");
    Ok(())
}

fn in_a_delegated_service(stage: &Stage) -> Result<()> {
    if let Some(reason) = no_systemd()? {
        println!("skipped: {reason}");
        return Ok(());
    }
    let (ok, said) = under_systemd(stage, &["--wait", "--pipe", "-p", "Delegate=yes"])?;
    ensure!(ok && said.contains(".service/dyno-test-inner-"), "{said}");
    Ok(())
}

fn what_was_not_delegated_is_left_alone(stage: &Stage) -> Result<()> {
    if let Some(reason) = no_systemd()? {
        println!("skipped: {reason}");
        return Ok(());
    }
    let handed = || -> Result<String> { Ok(fs::read_to_string(tree().context("no v2 tree")?.join("cgroup.subtree_control"))?) };
    let before = handed()?;
    for options in [&["--scope"][..], &["--wait", "--pipe"][..]] {
        let (ok, said) = under_systemd(stage, options)?;
        ensure!(!ok && said.contains("Delegate=yes"), "{options:?}: {said}");
    }
    // systemd itself takes back what no unit of its own asks for, whenever one comes or goes.
    let after = handed()?;
    ensure!(after.split_whitespace().all(|c| before.split_whitespace().any(|b| b == c)), "handed down at the top: {after:?} after {before:?}");
    Ok(())
}
