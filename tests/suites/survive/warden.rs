//! The warden dies: dynos go on, the daemon says what is wrong, and another warden takes them up.

use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, until};

use super::{PORT, deployed, destroy};

/// Starts a warden and waits for its word.
fn start_warden(platform: &Platform) -> Result<Child> {
    let mut command = platform.dynod(&["warden"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().context("stdout")?), &mut line)?;
    ensure!(line == "ready\n", "the warden said {line:?}");
    Ok(child)
}

/// Collects a warden that was ours to start when the platform's end ends it.
fn collect(mut warden: Child) {
    std::thread::spawn(move || warden.wait());
}

pub(super) fn hurts_no_dyno(platform: &Platform) -> Result<()> {
    deployed(platform, "unwarded", 2)?;
    let before = platform.seen("unwarded")?;
    platform.warden()?.kill()?;
    for name in ["web.1", "web.2"] {
        ensure!(before[name].init.ask(PORT, "/")?.trim() == name, "{name} stopped answering");
    }
    platform.ok(&["ps:scale", "web=3", "-a", "unwarded"])?;
    let line = platform.await_log("unwarded", "heroku[web.3]: Error R99", 10)?;
    ensure!(line.contains("the warden does not answer on") && line.contains("is it running?"), "{line}");
    ensure!(platform.seen("unwarded")? == before, "the dynos that run are listed as before");
    // One ends while no warden watches, by its own doing.
    let web = before["web.2"].init;
    web.ends(10, || web.ask(PORT, "/exit/3").map(drop))?;

    collect(start_warden(platform)?);
    platform.await_log("unwarded", "heroku[web.2]: Process exited with status 3", 30)?;
    platform.ok(&["ps:scale", "web=4", "-a", "unwarded"])?;
    platform.wait_up("unwarded")?;
    let after = platform.seen("unwarded")?;
    ensure!(after.len() == 5 && after["web.1"] == before["web.1"] && after["worker.1"] == before["worker.1"], "{after:?}");
    ensure!(platform.groups()?.len() == 5, "{:?}", platform.groups()?);
    let web = after["web.1"].init;
    web.ends(10, || web.ask(PORT, "/exit/4").map(drop))?;
    platform.await_log("unwarded", "heroku[web.1]: Process exited with status 4", 10)?;
    platform.ok(&["ps:scale", "web=1", "-a", "unwarded"])?;
    until(10, "scaled down again", || Ok((platform.groups()?.len() <= 2).then_some(())))?;
    destroy(platform, "unwarded")
}

/// The daemon runs, so the second one refuses; but the warden that it found missing is there from then on.
pub(super) fn another_dynod_brings_it_back(platform: &Platform) -> Result<()> {
    deployed(platform, "again", 1)?;
    let before = platform.seen("again")?;
    platform.warden()?.kill()?;
    // A file and no pipe: the warden inherits it, and would keep a pipe open.
    let told = tempfile::NamedTempFile::new()?;
    let status = platform.dynod(&[]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(told.reopen()?).status()?;
    let told = std::fs::read_to_string(told.path())?;
    let last = told.lines().last().unwrap_or_default();
    let says = ["dynod: the warden was gone and runs again, but the daemon does already", "is in use by another dynod (pid "];
    ensure!(status.code() == Some(1) && says.iter().all(|part| last.contains(part)), "{status}: {told}");
    platform.warden()?;
    platform.ok(&["ps:scale", "web=2", "-a", "again"])?;
    platform.wait_up("again")?;
    let after = platform.seen("again")?;
    ensure!(after.len() == 3 && after["web.1"] == before["web.1"], "{after:?}");
    destroy(platform, "again")
}

pub(super) fn both_killed(platform: &Platform) -> Result<()> {
    deployed(platform, "both", 2)?;
    let before = platform.seen("both")?;
    platform.warden()?.kill()?;
    platform.kill_daemon()?;
    for (name, dyno) in &before {
        ensure!(dyno.init.runs(), "{name} ended with them");
    }
    before["web.1"].init.ask(PORT, "/say/nobody-listens")?;
    platform.start_daemon(&[])?;
    ensure!(platform.seen("both")? == before, "adopted: {:?}, before: {before:?}", platform.seen("both")?);
    platform.await_log("both", "app[web.1]: nobody-listens", 10)?;
    let answer = platform.get("both", "/")?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    platform.ok(&["ps:scale", "web=1", "-a", "both"])?;
    let second = before["web.2"].init;
    until(10, "web.2 ends", || Ok((!second.runs()).then_some(())))?;
    destroy(platform, "both")
}

pub(super) fn both_killed_for_good(platform: &Platform) -> Result<()> {
    deployed(platform, "for-good", 2)?;
    platform.warden()?.kill()?;
    platform.kill_daemon()?;
    ensure!(platform.groups()?.len() == 3, "{:?}", platform.groups()?);
    Ok(())
}
