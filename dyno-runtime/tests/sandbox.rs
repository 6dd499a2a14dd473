//! `dyno-runtime sandbox`, end to end: the program's output, status and record come back, and nothing stays.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, ExitCode, Output, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Cause, ExitRecord};

use support::{Case, PROGRAM, Stage, same};

const CASES: &[Case] = &[
    ("output_and_status", output_and_status),
    ("volumes", volumes),
    ("stdin_is_the_callers", stdin_is_the_callers),
    ("limits_and_the_record", limits_and_the_record),
    ("failures_have_their_status", failures_have_their_status),
    ("denied_calls_are_told", denied_calls_are_told),
    ("signals_are_passed_on", signals_are_passed_on),
    ("a_terminal_of_its_own", a_terminal_of_its_own),
    ("a_lasting_instance", a_lasting_instance),
    ("counted_output_that_nobody_reads", counted_output_that_nobody_reads),
];

fn main() -> ExitCode {
    support::suite("sandbox", &[], CASES)
}

/// The command under test, beside the directory of this test, so that both may be taken to another machine.
fn dyno_runtime() -> Command {
    let tests = std::env::current_exe().unwrap_or_default();
    Command::new(tests.parent().unwrap_or(&tests).with_file_name("dyno-runtime"))
}

fn command(stage: &Stage, options: &[&str], program: &[&str]) -> Command {
    let mut command = dyno_runtime();
    command.arg("sandbox").arg("--layer").arg(stage.rootfs()).args(options).args(["--", PROGRAM]).args(program).stdin(Stdio::null());
    command
}

/// Runs it; whatever happens, its own instance is gone after it.
fn run(stage: &Stage, options: &[&str], program: &[&str]) -> Result<(i32, String, String)> {
    let child = command(stage, options, program).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id();
    let output = child.wait_with_output()?;
    nothing_is_left(pid)?;
    told(output)
}

fn nothing_is_left(pid: u32) -> Result<()> {
    let dir = format!("/run/dyno-runtime-{pid}");
    ensure!(!Path::new(&dir).exists(), "{dir} is left");
    let groups = fs::read_dir("/sys/fs/cgroup")?.filter_map(Result::ok).map(|h| h.path().join(format!("dyno-runtime-{pid}")));
    let left: Vec<_> = groups.filter(|group| group.exists()).collect();
    ensure!(left.is_empty(), "{left:?}");
    ensure!(!fs::read_to_string("/proc/self/mountinfo")?.contains(&dir), "{dir} is mounted");
    Ok(())
}

fn told(output: Output) -> Result<(i32, String, String)> {
    let status = output.status.code().context("killed by a signal")?;
    Ok((status, String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

fn output_and_status(stage: &Stage) -> Result<()> {
    same("say", run(stage, &[], &["say", "hello"])?, (0, "hello\n".into(), String::new()))?;
    same("warn", run(stage, &[], &["warn", "careful"])?, (0, String::new(), "careful\n".into()))?;
    same("status", run(stage, &[], &["exit", "7"])?, (7, String::new(), String::new()))?;
    same("signal", run(stage, &[], &["abort"])?.0, 128 + libc::SIGABRT)?;
    same("env", run(stage, &["--env", "A=b"], &["env"])?.1, "A=b\n".into())?;
    same("unconfined", run(stage, &["--seccomp", "unconfined"], &["call", "272", "0"])?.1, "answer 0\n".into())
}

fn volumes(stage: &Stage) -> Result<()> {
    let dir = stage.work().join("volume");
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
    fs::write(dir.join("in"), "from outside")?;
    let volume = |mode: &str| format!("{}:/data{mode}", dir.display());
    same("read", run(stage, &["--volume", &volume("")], &["read", "/data/in"])?.1, "from outside".into())?;
    same("read-only", run(stage, &["--volume", &volume(":ro")], &["write", "/data/out", "x"])?.1, format!("errno {}\n", libc::EROFS))?;
    same("write", run(stage, &["--volume", &volume(":rw")], &["write", "/data/out", "from inside"])?, (0, String::new(), String::new()))?;
    same("outside", fs::read_to_string(dir.join("out"))?, "from inside".into())?;
    Ok(fs::remove_dir_all(dir)?)
}

fn stdin_is_the_callers(stage: &Stage) -> Result<()> {
    use std::io::Write;
    let mut child = command(stage, &[], &["copy"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("stdin")?.write_all(b"through and through")?;
    same("copy", String::from_utf8(child.wait_with_output()?.stdout)?, "through and through".into())
}

fn limits_and_the_record(stage: &Stage) -> Result<()> {
    let file = stage.work().join("record.json");
    let path = file.to_str().context("path")?;
    let cases: &[(&[&str], &[&str], i32, Cause)] = &[
        (&[], &["exit", "3"], 3, Cause::Exited),
        (&["--wall", "200ms"], &["nap", "100000"], 137, Cause::Time),
        (&["--memory", "32M"], &["eat", "100000000"], 137, Cause::Memory),
        (&["--output", "64k"], &["lines", "100000"], 137, Cause::Output),
    ];
    for (options, program, status, cause) in cases {
        let (is, ..) = run(stage, &[options, &["--record", path][..]].concat(), program)?;
        let record: ExitRecord = serde_json::from_str(&fs::read_to_string(&file)?)?;
        same(&format!("{options:?}"), (is, record.status, record.cause), (*status, *status, *cause))?;
        fs::remove_file(&file)?;
    }
    Ok(())
}

fn failures_have_their_status(stage: &Stage) -> Result<()> {
    let no_program = |name: &str| -> Result<(i32, String)> {
        let mut command = dyno_runtime();
        let output = command.arg("sandbox").arg("--layer").arg(stage.rootfs()).arg(name).output()?;
        Ok((output.status.code().context("signal")?, String::from_utf8(output.stderr)?))
    };
    let (status, said) = no_program("/bin/nothing")?;
    same("not there", (status, said.starts_with("dyno-runtime: execve(\"/bin/nothing\"): ")), (127, true))?;
    fs::write(stage.rootfs().join("data/plain"), "text")?;
    same("not executable", no_program("/data/plain")?.0, 126)?;
    fs::remove_file(stage.rootfs().join("data/plain"))?;
    let (status, said, complaint) = run(stage, &["--cwd", "/nowhere"], &["exit", "0"])?;
    same("ours", (status, said), (125, String::new()))?;
    ensure!(complaint.starts_with("dyno-runtime: the sandbox did not start: chdir") && complaint.contains("doctor"), "{complaint}");
    Ok(())
}

fn denied_calls_are_told(stage: &Stage) -> Result<()> {
    let (status, said, told) = run(stage, &["--log-denied"], &["call", "272", "5"])?; // unshare on x86-64
    if cfg!(target_arch = "x86_64") {
        same("denied", (status, said), (9, format!("errno {}\n", libc::EPERM)))?;
        same("told", told, "dyno-runtime: denied: program[2] unshare(0x5, 0x0, 0x0, 0x0, 0x0, 0x0) = EPERM (default: not in any list)\n".into())?;
    }
    same("nothing to tell", run(stage, &["--log-denied"], &["say", "x"])?, (0, "x\n".into(), String::new()))
}

fn signals_are_passed_on(stage: &Stage) -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let mut child = command(stage, &[], &["forever"]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
        same("it runs", line, "here\n".into())?;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::from_named_raw(signal).context("signal")?)?;
        same("status", child.wait()?.code(), Some(128 + signal))?;
        nothing_is_left(child.id())?;
    }
    Ok(())
}

fn a_terminal_of_its_own(stage: &Stage) -> Result<()> {
    use std::io::Write;
    let mut child = command(stage, &["--tty", "yes"], &["terminal"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.as_mut().context("stdin")?.write_all(b"typed\n")?;
    let mut said = String::new();
    child.stdout.take().context("stdout")?.read_to_string(&mut said)?;
    same("status", child.wait()?.code(), Some(0))?;
    let lines: Vec<&str> = said.lines().filter(|line| *line != "typed").collect();
    same("on a terminal, echoed", lines, vec!["true true true", "TYPED"])
}

fn a_lasting_instance(stage: &Stage) -> Result<()> {
    let name = format!("dyno-test-lasting-{}", std::process::id());
    let dir = Path::new("/run").join(&name);
    let state = dir.to_str().context("path")?;
    for _ in 0..2 {
        same("say", run(stage, &["--state", state, "--id", "one"], &["say", "x"])?.1, "x\n".into())?;
    }
    ensure!(dir.join("dynos").is_dir(), "it did not last");
    let mut running = command(stage, &["--state", state], &["forever"]).stdout(Stdio::piped()).spawn()?;
    BufReader::new(running.stdout.take().context("stdout")?).read_line(&mut String::new())?;
    let clean = || -> Result<(i32, String, String)> { told(dyno_runtime().arg("clean").arg(&dir).output()?) };
    let (status, _, said) = clean()?;
    ensure!(status == 125 && said.contains(" runs there: "), "{status} {said}");
    rustix::process::kill_process(rustix::process::Pid::from_child(&running), rustix::process::Signal::TERM)?;
    running.wait()?;
    same("clean", clean()?, (0, String::new(), String::new()))?;
    same("twice", clean()?.0, 125)?;
    ensure!(!dir.exists(), "{} is left", dir.display());
    Ok(())
}

/// As under `| head`: the program must end, and so must we.
fn counted_output_that_nobody_reads(stage: &Stage) -> Result<()> {
    let mut child = command(stage, &["--output", "100M"], &["lines", "100000000"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut first = [0; 7];
    child.stdout.take().context("stdout")?.read_exact(&mut first)?;
    same("first", &first, b"line 0\n")?;
    let Some(status) = child.wait()?.code() else { bail!("killed by a signal") };
    ensure!(status != 0, "it went on");
    nothing_is_left(child.id())
}
