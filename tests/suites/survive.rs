//! kill -9 of the daemon, of the warden, of both and of dynos: nothing that runs is hurt, nothing is lost, nothing is left over.

#[path = "survive/builds.rs"]
mod builds;
#[path = "survive/sweep.rs"]
mod sweep;
#[path = "survive/warden.rs"]
mod warden;

use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, Process, WEB, inline, run, until};

/// The port that web dynos are given.
pub(crate) const PORT: u16 = 5000;

/// Nobody waits half a minute for a dyno that ignores SIGTERM.
const OPTIONS: &[&str] = &["--stop-timeout", "2"];

fn main() -> ExitCode {
    run(
        OPTIONS,
        &[
            ("a_killed_daemon_hurts_no_dyno", daemon_hurts_no_dyno),
            ("an_exit_status_of_the_outage_is_kept", exit_status_is_kept),
            ("what_crashed_in_the_outage_is_restarted", crash_is_restarted),
            ("lines_of_the_outage_arrive_bounded", lines_are_bounded),
            ("what_was_told_to_end_ends", told_to_end_ends),
            ("an_attached_one_off_hears_of_its_lost_client", attached_is_hung_up),
            ("an_init_killed_from_outside_is_reported_and_replaced", killed_init_is_replaced),
            ("a_killed_warden_hurts_no_dyno", warden::hurts_no_dyno),
            ("another_dynod_brings_a_warden_back", warden::another_dynod_brings_it_back),
            ("both_killed", warden::both_killed),
            ("a_build_under_way_is_failed", builds::under_way_is_failed),
            ("twenty_kills_while_scaling", sweep::twenty_kills_while_scaling),
            // Last: `leaves_nothing_behind` then stops what both halves have left alone.
            ("both_killed_and_not_started_again", warden::both_killed_for_good),
        ],
    )
}

/// An app with web dynos that do as they are told and a worker that ticks.
pub(crate) fn deployed(platform: &Platform, app: &str, web: u32) -> Result<()> {
    let procfile = "web: python3 web.py\nworker: echo working; exec sleep 100000\nstubborn: trap '' TERM; echo deaf; while :; do sleep 1; done\n";
    let source = inline("true", &[("web.py", WEB), ("Procfile", procfile)])?;
    platform.deploy(app, source.path())?;
    platform.ok(&["ps:scale", &format!("web={web}"), "worker=1", "-a", app])?;
    platform.wait_up(app)
}

pub(crate) fn destroy(platform: &Platform, app: &str) -> Result<()> {
    platform.ok(&["apps:destroy", "-a", app, "--confirm", app])?;
    until(20, "no dyno is left", || Ok(platform.groups()?.is_empty().then_some(())))
}

/// Starts a one-off that answers on port 6000 of its own network.
fn one_off(platform: &Platform, app: &str) -> Result<(String, Process)> {
    let begun = platform.ok(&["run:detached", "-a", app, "--json", "PORT=6000 exec python3 web.py"])?;
    let begun: serde_json::Value = serde_json::from_str(&begun)?;
    let text = |key: &str| begun[key].as_str().unwrap_or_default().to_owned();
    let init = until(10, "the one-off has a process", || Ok(platform.init(&text("id")).ok()))?;
    until(10, "the one-off listens", || Ok(init.ask(6000, "/").ok()))?;
    Ok((text("name"), init))
}

fn daemon_hurts_no_dyno(platform: &Platform) -> Result<()> {
    deployed(platform, "outage", 2)?;
    let (run, _) = one_off(platform, "outage")?;
    let before = platform.seen("outage")?;
    let names: Vec<&str> = before.keys().map(String::as_str).collect();
    ensure!(names == [run.as_str(), "web.1", "web.2", "worker.1"], "{names:?}");

    platform.kill_daemon()?;
    for (name, dyno) in &before {
        ensure!(dyno.init.runs(), "{name} ended with the daemon");
    }
    for name in ["web.1", "web.2"] {
        let answer = before[name].init.ask(PORT, &format!("/say/said-by-{name}-alone"))?;
        ensure!(answer.trim() == name, "{name} answered {answer:?}");
    }
    ensure!(platform.try_dyno(&["ps", "-a", "outage"])?.status == 1, "ps without a daemon is an error");

    platform.start_daemon(&[])?;
    let after = platform.seen("outage")?;
    ensure!(after == before, "other dynos run now\nbefore: {before:#?}\nafter: {after:#?}");
    for name in ["web.1", "web.2"] {
        platform.await_log("outage", &format!("app[{name}]: said-by-{name}-alone"), 10)?;
    }
    let answer = platform.get("outage", "/")?;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\n\r\nweb."), "{answer}");
    ensure!(platform.groups()?.len() == before.len(), "started twice: {:?}", platform.groups()?);
    let log = platform.ok(&["logs", "-n", "1500", "-a", "outage"])?;
    ensure!(!log.contains("Starting process"), "something was started again:\n{log}");
    destroy(platform, "outage")
}

fn exit_status_is_kept(platform: &Platform) -> Result<()> {
    deployed(platform, "status", 1)?;
    let (run, init) = one_off(platform, "status")?;
    platform.kill_daemon()?;
    init.ask(6000, "/say/last-words")?;
    init.ends(10, || init.ask(6000, "/exit/5").map(drop))?;
    platform.start_daemon(&[])?;
    let waited = platform.try_dyno(&["run:wait", &run, "-a", "status", "--json"])?;
    ensure!(waited.status == 5, "run:wait: {waited:?}");
    let json: serde_json::Value = serde_json::from_str(&waited.stdout)?;
    ensure!(json["exit"]["status"] == 5 && json["exit"]["cause"] == "exited" && json["state"] == "complete", "{json}");
    let log = platform.ok(&["logs", "-a", "status", "-p", &run])?;
    ensure!(log.contains(&format!("heroku[{run}]: Process exited with status 5")), "{log}");
    ensure!(log.contains(&format!("app[{run}]: last-words")), "what it said last is lost:\n{log}");
    destroy(platform, "status")
}

fn crash_is_restarted(platform: &Platform) -> Result<()> {
    deployed(platform, "crash", 2)?;
    let before = platform.seen("crash")?;
    platform.kill_daemon()?;
    let web = before["web.1"].init;
    web.ends(10, || web.ask(PORT, "/exit/7").map(drop))?;
    platform.start_daemon(&[])?;
    platform.await_log("crash", "heroku[web.1]: Process exited with status 7", 10)?;
    platform.wait_up("crash")?;
    let after = platform.seen("crash")?;
    ensure!(after["web.1"].id != before["web.1"].id, "web.1 is the one that crashed");
    ensure!(after["web.2"] == before["web.2"] && after["worker.1"] == before["worker.1"], "others were restarted");
    ensure!(after.len() == 3 && platform.groups()?.len() == 3, "{after:?} {:?}", platform.groups()?);
    destroy(platform, "crash")
}

fn lines_are_bounded(platform: &Platform) -> Result<()> {
    deployed(platform, "flood", 1)?;
    let web = platform.seen("flood")?["web.1"].init;
    platform.kill_daemon()?;
    // Far more than the pipe between them holds: the dyno is not stalled by it.
    web.ask(PORT, "/flood/200000")?;
    platform.start_daemon(&[])?;
    // After the restart there is room again, and what was lost is counted.
    platform.await_log("flood", "Error L10 (output buffer overflow)", 10)?;
    let kept = platform.await_log("flood", "app[web.1]: flood ", 10)?;
    ensure!(kept.contains("flood "), "{kept}");
    web.ask(PORT, "/say/after-the-flood")?;
    platform.await_log("flood", "app[web.1]: after-the-flood", 10)?;
    destroy(platform, "flood")
}

/// Scaled down, and the daemon died before the dynos did: the next one ends them.
fn told_to_end_ends(platform: &Platform) -> Result<()> {
    deployed(platform, "scaled", 1)?;
    platform.ok(&["ps:scale", "stubborn=2", "-a", "scaled"])?;
    platform.await_log("scaled", "app[stubborn.2]: deaf", 10)?;
    platform.wait_up("scaled")?;
    let before = platform.seen("scaled")?;
    platform.ok(&["ps:scale", "stubborn=0", "-a", "scaled"])?;
    platform.kill_daemon()?;
    let deaf = before["stubborn.1"].init;
    ensure!(deaf.runs(), "it heard SIGTERM");
    platform.start_daemon(&[])?;
    until(10, "the dynos that are not wanted end", || Ok((platform.groups()?.len() == 2).then_some(())))?;
    let after = platform.seen("scaled")?;
    let names: Vec<&str> = after.keys().map(String::as_str).collect();
    ensure!(names == ["web.1", "worker.1"] && after["web.1"] == before["web.1"], "{after:?}");
    destroy(platform, "scaled")
}

fn attached_is_hung_up(platform: &Platform) -> Result<()> {
    deployed(platform, "hangup", 1)?;
    let mut command = platform.dyno(&["run", "-a", "hangup", "trap 'echo hung up >&2; exit 9' HUP; echo here; sleep 1000 & wait"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().context("stdout")?), &mut line)?;
    ensure!(line == "here\n", "{line:?}");
    let init = platform.seen("hangup")?["run.1"].init;
    platform.kill_daemon()?;
    let output = child.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && told.contains("The connection to run.1 broke before it ended."), "{told}");
    ensure!(init.runs(), "the daemon's death ended it");
    init.ends(10, || platform.start_daemon(&[]))?;
    let log = platform.await_log("hangup", "Sending SIGHUP to all processes", 10)?;
    ensure!(log.contains("heroku[run.1]: Client connection closed."), "{log}");
    destroy(platform, "hangup")
}

fn killed_init_is_replaced(platform: &Platform) -> Result<()> {
    deployed(platform, "lost", 2)?;
    let before = platform.seen("lost")?;
    before["web.1"].init.kill()?;
    let line = platform.await_log("lost", "heroku[web.1]: Error R99", 10)?;
    ensure!(line.contains("vanished without a record of its exit"), "{line}");
    platform.await_log("lost", "heroku[web.1]: State changed from crashed to starting", 10)?;
    platform.wait_up("lost")?;
    let after = platform.seen("lost")?;
    ensure!(after["web.1"].id != before["web.1"].id && after["web.2"] == before["web.2"], "{after:?}");
    ensure!(platform.groups()?.len() == 3, "{:?}", platform.groups()?);
    destroy(platform, "lost")
}
