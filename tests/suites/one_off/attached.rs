//! `dyno run` with pipes: what scripts do.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdout, Stdio},
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{
    Platform, Process, Said,
    confinement::{STANDARD_1X, STANDARD_2X},
    until,
};
use rustix::process::{Pid, Signal, kill_process};

use super::{APP, number, ready};

fn desk(platform: &Platform, more: &[&str]) -> Result<Said> {
    let mut arguments = vec!["run", "-a", APP];
    arguments.extend(more);
    platform.try_dyno(&arguments)
}

/// stdout and stderr stay apart; the exit status is the command's own.
pub fn output_and_statuses(platform: &Platform) -> Result<()> {
    ready(platform)?;
    let check = |command: &[&str], status: i32, stdout: &str, stderr: &str| -> Result<()> {
        let said = desk(platform, command)?;
        ensure!(said.status == status && said.stdout == stdout, "{command:?}: {said:?}");
        let begin = format!("Running {} on ⬢ {APP}... up, run.{}\n", command.join(" "), number(&said.stderr)?);
        ensure!(said.stderr == format!("{begin}{stderr}"), "{command:?}: {said:?}, want {begin}{stderr}");
        Ok(())
    };
    check(&["true"], 0, "", "")?;
    check(&["echo out; echo err >&2"], 0, "out\n", "err\n")?;
    check(&["cat words.txt; pwd; exit 7"], 7, "one two three\n/app\n", " ›   Error: Process exited with code 7\n")?;
    check(&["kill -TERM $$"], 143, "", " ›   Error: Process exited with code 143\n")?;
    check(&["kill -KILL $$"], 137, "", " ›   Error: Process exited with code 137\n")?;
    let missing = "/bin/bash: line 1: no-such-program: command not found\n ›   Error: Process exited with code 127\n";
    check(&["no-such-program"], 127, "", missing)?;
    check(&["./words.txt"], 126, "", "/bin/bash: line 1: ./words.txt: Permission denied\n ›   Error: Process exited with code 126\n")?;
    let said = desk(platform, &["--no-exit-code", "exit 7"])?;
    ensure!(said.status == 0, "{said:?}");
    // A megabyte of output arrives whole although the command ends at once.
    let said = desk(platform, &["head -c 1048576 /dev/zero | tr '\\0' x"])?;
    ensure!(said.status == 0 && said.stdout.len() == 1 << 20 && said.stdout.bytes().all(|b| b == b'x'), "{}", said.stdout.len());
    Ok(())
}

/// A command may be over before the platform has looked at its process; that is an end like any other, each time.
pub fn ends_at_once(platform: &Platform) -> Result<()> {
    ready(platform)?;
    for attempt in 1..=100 {
        let said = desk(platform, &["exit 4"])?;
        ensure!(said.status == 4, "attempt {attempt}: {said:?}\n{}", platform.ok(&["logs", "-n", "5", "-a", APP])?);
    }
    Ok(())
}

/// A mebibyte without any pattern goes in and comes out; its end is seen.
pub fn input(platform: &Platform) -> Result<()> {
    ready(platform)?;
    let mut data = vec![0; 1 << 20];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut data)?;
    let piped = |command: &str| -> Result<Vec<u8>> {
        let mut child = platform.dyno(&["run", "-a", APP, command]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut stdin = child.stdin.take().context("stdin")?;
        let bytes = data.clone();
        let writer = std::thread::spawn(move || stdin.write_all(&bytes));
        let output = child.wait_with_output()?;
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        ensure!(output.status.success(), "{command}: {}", output.status);
        Ok(output.stdout)
    };
    let back = piped("cat")?;
    ensure!(back.len() == data.len(), "{} bytes came back", back.len());
    ensure!(back == data, "the bytes that came back differ");
    ensure!(piped("wc -c")? == b"1048576\n");
    Ok(())
}

/// `--env`, `--size`, and process types as commands.
pub fn choices(platform: &Platform) -> Result<()> {
    ready(platform)?;
    platform.ok(&["config:set", "ONE=config", "TWO=config", "-a", APP])?;
    let said = desk(platform, &["--env", "ONE=this run", "--env", "THREE=3", "echo \"$ONE/$TWO/$THREE/$DYNO/$PORT\""])?;
    ensure!(said.stdout == format!("this run/config/3/run.{}/\n", number(&said.stderr)?), "{said:?}");
    let said = desk(platform, &["--env", "ONE", "true"])?;
    ensure!(said.status == 2 && said.stderr.contains("must look like KEY=VALUE"), "{said:?}");

    for (more, shown, limits) in [(&["--size", "standard-2x"][..], "Standard-2X", STANDARD_2X), (&[], "Standard-1X", STANDARD_1X)] {
        let (mut child, mut stdout) = begin(platform, more, "echo ready; cat")?;
        expect(&mut stdout, "ready")?;
        let list = platform.json(&["ps", "run", "-a", APP])?;
        ensure!(list[0]["size"] == shown && list[0]["state"] == "up", "{list}");
        let found = platform.limits(list[0]["id"].as_str().context("id")?)?;
        ensure!(found == limits, "{shown} has {found:?}");
        let text = platform.ok(&["ps", "-a", APP])?;
        let line = format!("{} ({shown}): up ", list[0]["name"].as_str().context("name")?);
        ensure!(text.starts_with("=== run: one-off processes (1)\n\n") && text.contains(&line), "{text}");
        drop(child.stdin.take());
        ensure!(child.wait()?.success());
    }
    let said = desk(platform, &["--size", "huge", "true"])?;
    ensure!(said.status == 2, "{said:?}");
    ensure!(["\"huge\"", "Standard-1X", "Standard-2X", "Performance-M"].iter().all(|part| said.stderr.contains(part)), "{said:?}");

    let said = desk(platform, &["hello"])?;
    ensure!(said.stdout == format!("hello from run.{}\n", number(&said.stderr)?), "{said:?}");
    ensure!(said.stderr.starts_with(&format!("Running hello on ⬢ {APP}... up, ")), "{said:?}");
    let said = desk(platform, &["hello", "and", "more"])?;
    ensure!(said.stdout == format!("hello from run.{} and more\n", number(&said.stderr)?), "{said:?}");
    Ok(())
}

/// Without a terminal SIGINT to the client is SIGINT to the dyno; the client stays for the answer.
pub fn interrupt(platform: &Platform) -> Result<()> {
    ready(platform)?;
    let (mut child, mut stdout) = begin(platform, &[], "trap 'echo heard; exit 5' INT; echo ready; while :; do sleep 0.1; done")?;
    expect(&mut stdout, "ready")?;
    kill_process(pid(&child)?, Signal::INT)?;
    expect(&mut stdout, "heard")?;
    let status = child.wait()?;
    ensure!(status.code() == Some(5), "{status}");
    Ok(())
}

/// The client is gone without a word: SIGHUP to every process of the dyno, and nothing is left of it.
pub fn killed(platform: &Platform) -> Result<()> {
    ready(platform)?;
    let mut log = platform.tail(APP, &["-p", "run"])?;
    // The shell would tell of the sleep's end on stderr, which is closed by then: SIGPIPE before its trap.
    let script = "exec 2>/dev/null; trap 'exit 9' HUP; echo ready $DYNO; while :; do sleep 0.1; done";
    let (mut child, mut stdout) = begin(platform, &[], script)?;
    let name = expect(&mut stdout, "ready ")?;
    let list = platform.json(&["ps", "run", "-a", APP])?;
    let id = list[0]["id"].as_str().context("id")?.to_owned();
    let processes: Vec<_> = platform.pids(&id)?.into_iter().filter_map(Process::find).collect();
    ensure!(processes.len() > 1, "{processes:?}");
    child.kill()?;
    child.wait()?;
    log.until(&format!("heroku[{name}]: Client connection closed. Sending SIGHUP to all processes"), 10)?;
    log.until(&format!("heroku[{name}]: Process exited with status 9"), 10)?;
    log.until(&format!("heroku[{name}]: State changed from up to complete"), 10)?;
    until(10, "the control group is gone", || Ok(platform.group_file(&id, "cgroup.procs").is_err().then_some(())))?;
    ensure!(processes.iter().all(|process| !process.runs()), "{processes:?} outlived their client");
    let said = platform.try_dyno(&["run:wait", &name, "-a", APP])?;
    ensure!(said.status == 9, "{said:?}");
    Ok(())
}

/// A client with pipes at its ends.
fn begin(platform: &Platform, options: &[&str], command: &str) -> Result<(Child, BufReader<ChildStdout>)> {
    let mut arguments = vec!["run", "-a", APP];
    arguments.extend(options);
    arguments.push(command);
    let mut child = platform.dyno(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = BufReader::new(child.stdout.take().context("stdout")?);
    Ok((child, stdout))
}

/// The next line must begin with `start`; the rest of it.
fn expect(stdout: &mut impl BufRead, start: &str) -> Result<String> {
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    let rest = line.trim_end().strip_prefix(start).with_context(|| format!("{line:?} does not begin with {start:?}"))?;
    Ok(rest.to_owned())
}

fn pid(child: &Child) -> Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("pid")
}
