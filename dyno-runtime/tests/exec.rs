//! Commands beside a sandbox's program.

pub(crate) mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Exec, ExecStatus, Limits, Process, Stdio, Stream, Streams};

use support::{Case, PROGRAM, Stage, read_all, same};

pub(crate) const CASES: &[Case] = &[
    ("output_and_status", output_and_status),
    ("behind_the_same_walls", behind_the_same_walls),
    ("on_a_terminal", on_a_terminal),
    ("environment_and_directory", environment_and_directory),
    ("what_cannot_be_run", what_cannot_be_run),
    ("not_in_a_paused_one", not_in_a_paused_one),
    ("signals_and_the_end_of_all", signals_and_the_end_of_all),
    ("many_at_a_time", many_at_a_time),
    ("after_a_restart", after_a_restart),
    ("attach", attach),
];

fn main() -> ExitCode {
    support::suite("exec", &[], CASES)
}

fn exited(status: i32) -> ExecStatus {
    ExecStatus { status, signal: None, lost: false }
}

fn command(args: &[&str]) -> Exec {
    Exec { stdio: Stdio::Pipes, ..Exec::new([PROGRAM].iter().chain(args).copied()) }
}

fn stdout(process: &mut Process) -> Result<String> {
    let Streams::Pipes { stdout, .. } = process.take_streams() else { bail!("no pipes") };
    read_all(stdout)
}

fn output_and_status(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let mut said = dyno.exec(command(&["say", "hello", "beside"]))?;
    same("output", stdout(&mut said)?, "hello beside\n".into())?;
    same("status", said.wait()?, exited(0))?;
    same("asked again", said.try_wait()?, Some(exited(0)))?;
    same("status 7", dyno.exec(command(&["exit", "7"]))?.wait()?, exited(7))?;
    same("by a signal", dyno.exec(command(&["abort"]))?.wait()?, ExecStatus { status: 134, signal: Some(6), lost: false })?;
    let mut copy = dyno.exec(command(&["copy"]))?;
    let Streams::Pipes { stdin, stdout, .. } = copy.take_streams() else { bail!("no pipes") };
    fs::File::from(stdin).write_all(b"through")?;
    same("what it was given", read_all(stdout)?, "through".into())?;
    same("status", copy.wait()?, exited(0))?;
    same("the program itself runs on", dyno.has_ended(), false)?;
    Ok(dyno.free()?)
}

fn behind_the_same_walls(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let mut process = dyno.exec(command(&["forever"]))?;
    // Its own start, which may open what it closes again, is over once it says so.
    let Streams::Pipes { stdout, .. } = process.take_streams() else { bail!("no pipes") };
    fs::File::from(stdout.try_clone()?).read_exact(&mut [0; 5])?;
    let init = dyno.pid();
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
    let pids: Vec<&str> = children.split_whitespace().collect();
    ensure!(pids.len() == 2, "the program and the command: {children:?}");
    let fields = |pid: &str| -> Result<Vec<String>> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let wanted =
            |l: &&str| ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "NSpid"].iter().any(|f| l.starts_with(f) && !l.starts_with("NSpid"));
        let mut all: Vec<String> = status.lines().filter(wanted).map(str::to_owned).collect();
        for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
            all.push(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.display().to_string());
        }
        all.push(fs::read_to_string(format!("/proc/{pid}/cgroup"))?);
        let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
        all.push(limits);
        Ok(all)
    };
    same("ids, capabilities, filter, namespaces, groups, limits", fields(pids[0])?, fields(pids[1])?)?;
    let open: BTreeSet<String> = fs::read_dir(format!("/proc/{}/fd", pids[1]))?.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    same("descriptors", open, ["0", "1", "2"].map(str::to_owned).into())?;
    process.kill()?;
    same("killed", process.wait()?.signal, Some(libc::SIGKILL))?;
    Ok(dyno.free()?)
}

fn on_a_terminal(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let tty = Exec { stdio: Stdio::Tty { rows: 33, cols: 99 }, ..Exec::new([PROGRAM, "terminal"]) };
    let mut process = dyno.exec(tty)?;
    let Streams::Tty(master) = process.take_streams() else { bail!("no terminal") };
    fs::File::from(master.try_clone()?).write_all(b"typed\n")?;
    let said = read_all(master)?;
    ensure!(said.contains("true true true") && said.contains("TYPED"), "{said:?}");
    same("status", process.wait()?, exited(0))?;
    Ok(dyno.free()?)
}

fn environment_and_directory(stage: &Stage) -> Result<()> {
    let mut sandbox = stage.sandbox(&["forever"]);
    sandbox.env.insert("COLOUR".into(), "green".into());
    sandbox.cwd = "/tmp".into();
    let dyno = stage.start(&sandbox, Stdio::Null)?;
    same("the sandbox's", stdout(&mut dyno.exec(command(&["env"]))?)?, "COLOUR=green\n".into())?;
    same("the sandbox's directory", stdout(&mut dyno.exec(command(&["cwd"]))?)?, "/tmp\n".into())?;
    let own = BTreeMap::from([("PATH".to_owned(), "/nowhere:/bin".to_owned())]);
    let by_path = Exec { argv: vec!["program".into(), "env".into()], env: Some(own), ..command(&[]) };
    same("its own", stdout(&mut dyno.exec(by_path)?)?, "PATH=/nowhere:/bin\n".into())?;
    let elsewhere = Exec { cwd: Some("/data".into()), ..command(&["cwd"]) };
    same("its own directory", stdout(&mut dyno.exec(elsewhere)?)?, "/data\n".into())?;
    let long = "x".repeat(100_000);
    let large = Exec {
        env: Some(BTreeMap::from([("A".to_owned(), long.clone()), ("B".to_owned(), long.clone()), ("C".to_owned(), long)])),
        ..command(&["env"])
    };
    same("a large environment", stdout(&mut dyno.exec(large)?)?.len(), 300_009)?;
    Ok(dyno.free()?)
}

fn what_cannot_be_run(stage: &Stage) -> Result<()> {
    let limits = Limits { pids: Some(2), ..Limits::default() };
    let dyno = stage.start(&dyno_runtime::Sandbox { limits, ..stage.sandbox(&["forever"]) }, Stdio::Null)?;
    let check = |exec: Exec, want: &str| -> Result<()> {
        let error = dyno.exec(exec).err().context(want.to_owned())?.to_string();
        ensure!(error.starts_with(want), "want {want:?}, got {error:?}");
        Ok(())
    };
    check(command(&["say"]), &format!("execve(\"/bin/program\") in dyno {}: Resource temporarily", dyno.id()))?;
    check(Exec::default(), "argv ")?;
    check(Exec { cwd: Some("tmp".into()), ..command(&["say"]) }, "cwd ")?;
    check(Exec { stdio: Stdio::Log, ..command(&["say"]) }, "stdio")?;
    let id = dyno.id().to_owned();
    dyno.free()?;
    let dyno = stage.start(&stage.sandbox(&["forever"]), Stdio::Null)?;
    let missing = dyno.exec(Exec::new(["/bin/nothing"])).err().context("no such program")?;
    same("errno", missing.errno().map(|e| e.raw_os_error()), Some(libc::ENOENT))?;
    let nowhere = dyno.exec(Exec { cwd: Some("/nowhere".into()), ..command(&["say"]) }).err().context("no such directory")?;
    same("errno", nowhere.errno().map(|e| e.raw_os_error()), Some(libc::ENOENT))?;
    dyno.kill()?;
    dyno.wait()?;
    let ended = dyno.exec(command(&["say"])).err().context(id)?.to_string();
    ensure!(ended.ends_with("has ended"), "{ended}");
    Ok(dyno.free()?)
}

/// The init that would answer stands still with all others.
fn not_in_a_paused_one(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    dyno.pause()?;
    let error = dyno.exec(command(&["say"])).err().context("it is paused")?.to_string();
    ensure!(error.ends_with("is paused"), "{error}");
    dyno.resume()?;
    same("when it goes on", dyno.exec(command(&["exit", "3"]))?.wait()?, exited(3))?;
    Ok(dyno.free()?)
}

fn signals_and_the_end_of_all(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let process = dyno.exec(command(&["forever"]))?;
    same("it runs", process.try_wait()?, None)?;
    process.signal(libc::SIGTERM)?;
    same("terminated", process.wait()?, ExecStatus { status: 143, signal: Some(15), lost: false })?;
    let asked = dyno.exec(command(&["forever"]))?;
    dyno.signal(libc::SIGTERM)?;
    same("with all others", asked.wait()?.signal, Some(15))?;
    dyno.wait()?;
    dyno.free()?;
    let dyno = stage.forever()?;
    let orphan = dyno.exec(command(&["forever"]))?;
    dyno.free()?;
    same("with its sandbox", orphan.wait()?, ExecStatus { status: 137, signal: Some(9), lost: true })
}

fn many_at_a_time(stage: &Stage) -> Result<()> {
    let limits = Limits { pids: Some(200), ..Limits::default() };
    let dyno = stage.start(&dyno_runtime::Sandbox { limits, ..stage.sandbox(&["forever"]) }, Stdio::Null)?;
    let quiet = || Exec::new([PROGRAM, "forever"]);
    let all = (0..64).map(|_| dyno.exec(quiet())).collect::<dyno_runtime::Result<Vec<_>>>()?;
    let full = dyno.exec(quiet()).err().context("65 at a time")?;
    same("errno", full.errno().map(|e| e.raw_os_error()), Some(libc::EAGAIN))?;
    for process in all {
        process.kill()?;
        same("killed", process.wait()?.signal, Some(9))?;
    }
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8i32)
            .map(|n| {
                scope.spawn({
                    let dyno = &dyno;
                    move || -> Result<()> {
                        for _ in 0..20 {
                            same("status of its own", dyno.exec(Exec::new([PROGRAM, "exit", &n.to_string()]))?.wait()?, exited(n))?;
                        }
                        Ok(())
                    }
                })
            })
            .collect();
        runs.into_iter().try_for_each(|run| run.join().map_err(|_| anyhow::anyhow!("panicked"))?)
    })?;
    Ok(dyno.free()?)
}

fn after_a_restart(stage: &Stage) -> Result<()> {
    let dyno = stage.forever()?;
    let id = dyno.id().to_owned();
    drop(dyno);
    let found = stage.host.recover()?.into_iter().find(|f| f.id() == id).context("gone")?;
    let dyno_runtime::Found::Running(dyno) = found else { bail!("it ended") };
    same("output", stdout(&mut dyno.exec(command(&["say", "still here"]))?)?, "still here\n".into())?;
    Ok(dyno.free()?)
}

fn attach(stage: &Stage) -> Result<()> {
    let mixed = Stdio::Each { stdin: Stream::Pipe, stdout: Stream::Pipe, stderr: Stream::Null };
    let dyno = stage.start(&stage.sandbox(&["copy"]), mixed)?;
    let Streams::Each { stdin: Some(stdin), stdout: Some(stdout), stderr: None } = dyno.attach()? else { bail!("other streams") };
    fs::File::from(stdin).write_all(b"typed by another")?;
    let mut dyno = dyno;
    drop(dyno.take_streams());
    same("seen by another", read_all(stdout)?, "typed by another".into())?;
    dyno.wait()?;
    let error = dyno.attach().err().context("its streams were taken")?.to_string();
    ensure!(error.contains("were taken"), "{error}");
    Ok(dyno.free()?)
}
