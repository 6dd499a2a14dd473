//! Verbs in any order, as runc answers them, and a runtime that is killed at each system call that changes anything: the next call sees what is there
//! and takes it away.

mod bundles;
mod support;

use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Result, ensure};
use rustix::process::Pid;

use bundles::{Runtime, finish, yard::Yard};
use support::{Case, Stage};

const CASES: &[Case] = &[
    ("verbs_in_any_order", orders),
    ("killed_at_each_call_of_create", create),
    ("killed_at_each_call_of_start", start),
    ("killed_at_each_call_of_delete", delete),
    ("killed_at_each_call_of_exec", exec),
];

fn main() -> ExitCode {
    support::suite("oci-abuse", &["strace"], CASES)
}

const VERBS: &[&[&str]] = &[
    &["start"],
    &["state"],
    &["kill", "USR1"],
    &["pause"],
    &["resume"],
    &["delete"],
    &["delete", "--force"],
    &["exec", "/bin/probe", "say", "x"],
    &["ps"],
];

/// Every pair of verbs on a container that was created, that runs, that has ended, and that never was.
fn orders(stage: &Stage) -> Result<()> {
    let runc = match Runtime::runc() {
        Ok(runc) => runc,
        Err(reason) => {
            println!("skipped: {reason}");
            return Ok(());
        }
    };
    let yards = [Yard::new(stage, Runtime::ours())?, Yard::new(stage, runc)?];
    let mut differ = Vec::new();
    for begin in ["absent", "created", "running", "ended"] {
        for one in VERBS {
            for two in VERBS {
                let [ours, theirs] = [answers(&yards[0], begin, &[one, two])?, answers(&yards[1], begin, &[one, two])?];
                if ours != theirs && !is_meant(begin, one, two) {
                    differ.push(format!("{begin}: {one:?}, {two:?}: ours {ours:?}, runc {theirs:?}"));
                }
            }
        }
    }
    ensure!(differ.is_empty(), "{differ:#?}");
    Ok(())
}

/// Where another answer than runc's is right: the specification has no status of a container that stands still (runtime-spec, State: "created: the
/// runtime has finished the create operation, and the container process has neither exited nor executed the user-specified program"), so one that
/// was paused before its start is created still, and can be deleted.
fn is_meant(begin: &str, one: &[&str], two: &[&str]) -> bool {
    begin == "created" && (one == ["pause"] || two == ["pause"])
}

/// Exit statuses, and the container's at the end.
fn answers(yard: &Yard, begin: &str, verbs: &[&[&str]]) -> Result<Vec<String>> {
    let program: &[&str] = if begin == "ended" { &["exit", "0"] } else { &["forever"] };
    let mut pid = None;
    if begin != "absent" {
        let created = yard.create(&yard.config(program))?;
        ensure!(created.ok(), "{created:?}");
        pid = Some(yard.bundle.pid()?);
    }
    if begin == "running" || begin == "ended" {
        yard.must(&["start", &yard.id])?;
    }
    if begin == "ended" {
        bundles::exit_of(yard.bundle.pid()?)?;
        pid = None;
    }
    let mut told = Vec::new();
    for verb in verbs {
        let args: Vec<&str> = match *verb {
            ["kill", signal] => vec!["kill", &yard.id, signal],
            ["exec", program @ ..] => [&["exec", &yard.id], program].concat(),
            ["delete", "--force"] => vec!["delete", "--force", &yard.id],
            [verb] => vec![verb, &yard.id],
            other => other.to_vec(),
        };
        told.push(yard.tell(&args)?.status.to_string());
        if matches!(verb, ["kill", ..] | ["start"]) {
            settle(yard)?;
        }
    }
    let state = yard.tell(&["state", &yard.id])?;
    let state: serde_json::Value = serde_json::from_str(&state.stdout).unwrap_or_default();
    told.push(state["status"].as_str().unwrap_or("absent").to_owned());
    yard.clear(pid)?;
    Ok(told)
}

/// A signal that ends a process does so in its own time.
fn settle(yard: &Yard) -> Result<()> {
    let Ok(pid) = yard.bundle.pid() else { return Ok(()) };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return Ok(()) };
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&std::time::Duration::from_millis(30).try_into()?))?;
    Ok(())
}

/// What changes something, or tells somebody.
const CHANGING: &str = "mkdir,mkdirat,rmdir,unlink,unlinkat,rename,renameat,renameat2,symlinkat,mknodat,write,sendto,sendmsg,mount,umount2,move_mount,open_tree,fsopen,fsconfig,fsmount,mount_setattr,pivot_root,chdir,fchdir,clone,clone3,unshare,setns,setsid,prctl,capset,setresuid,setresgid,setgroups,execve,kill,pidfd_send_signal,flock,fchmod,fchownat,ioctl,keyctl,prlimit64,waitid,wait4";

/// Runs the verb until it is killed at its N-th such call, for each N; `check` after each.
fn sweep(
    yard: &Yard,
    args: &[&str],
    follow: bool,
    prepare: impl Fn() -> Result<Option<Pid>>,
    check: impl Fn(Option<Pid>) -> Result<()>,
) -> Result<()> {
    for number in 1..2000 {
        let pid = prepare()?;
        let mut command = Command::new("strace");
        command.args(if follow { &["-f"][..] } else { &[] }).args(["-o", "/dev/null", "-e", &format!("inject={CHANGING}:signal=KILL:when={number}")]);
        command.arg(ours()?).arg("--root").arg(&yard.bundle.root).args(args).stdin(Stdio::piped());
        let answer = finish(command, &yard.bundle.dir.join("out"))?;
        check(pid).map_err(|e| e.context(format!("{args:?} killed at call {number} (children too: {follow}): {answer:?}")))?;
        if answer.ok() {
            println!("{}: {} points, children too: {follow}", args[0], number - 1);
            ensure!(number > 1, "nothing was cut");
            return Ok(());
        }
    }
    anyhow::bail!("{args:?} never came to its end")
}

fn ours() -> Result<std::path::PathBuf> {
    let tests = std::env::current_exe()?;
    Ok(std::env::var_os("DYNO_TEST_OCI_OURS").map_or_else(|| tests.parent().unwrap_or(Path::new("")).with_file_name("dyno-runtime"), Into::into))
}

/// The next calls see it, and it can be taken away.
fn taken_away(yard: &Yard, pid: Option<Pid>) -> Result<()> {
    let state = yard.tell(&["state", &yard.id])?;
    ensure!(state.ok() || state.stderr.contains("does not exist"), "{state:?}");
    ensure!(yard.tell(&["list"])?.ok(), "list");
    yard.clear(pid)
}

fn create(stage: &Stage) -> Result<()> {
    let yard = Yard::new(stage, Runtime::ours())?;
    let bundle = yard.bundle.dir.display().to_string();
    // strace follows what it traces to its end: so the container's side is looked at with a program that ends by itself.
    [("create", false, &["forever"][..]), ("run", true, &["exit", "0"])].into_iter().try_for_each(|(verb, follow, program)| {
        let config = yard.config(program);
        let prepare = || yard.bundle.reset(&config, 0).map(|()| None);
        sweep(&yard, &[verb, "--bundle", &bundle, &yard.id], follow, prepare, |pid| taken_away(&yard, pid))
    })
}

/// A container that waits.
fn created(yard: &Yard) -> Result<Option<Pid>> {
    let answer = yard.create(&yard.config(&["forever"]))?;
    ensure!(answer.ok(), "{answer:?}");
    yard.bundle.pid().map(Some)
}

fn start(stage: &Stage) -> Result<()> {
    let yard = Yard::new(stage, Runtime::ours())?;
    [false, true].into_iter().try_for_each(|follow| sweep(&yard, &["start", &yard.id], follow, || created(&yard), |pid| taken_away(&yard, pid)))
}

fn delete(stage: &Stage) -> Result<()> {
    let yard = Yard::new(stage, Runtime::ours())?;
    [false, true]
        .into_iter()
        .try_for_each(|follow| sweep(&yard, &["delete", "--force", &yard.id], follow, || created(&yard), |pid| taken_away(&yard, pid)))
}

fn exec(stage: &Stage) -> Result<()> {
    let yard = Yard::new(stage, Runtime::ours())?;
    let running = || {
        let pid = created(&yard)?;
        yard.must(&["start", &yard.id]).map(|_| pid)
    };
    let args = ["exec", &yard.id, "/bin/probe", "say", "x"];
    [false, true].into_iter().try_for_each(|follow| {
        sweep(&yard, &args, follow, running, |pid| {
            let state = yard.must(&["state", &yard.id])?;
            ensure!(state.stdout.contains("running"), "exec has ended the container: {state:?}");
            yard.clear(pid)
        })
    })
}
