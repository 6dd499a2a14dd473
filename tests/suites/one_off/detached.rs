//! `dyno run:detached`: started, left, asked about later.

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, tail::seconds_between};
use serde_json::Value;

use super::{APP, number, ready};

/// Output goes to the log, the status to whoever waits; numbers count up over all kinds of one-offs.
pub fn detached(platform: &Platform) -> Result<()> {
    ready(platform)?;
    let first = number(&platform.try_dyno(&["run", "-a", APP, "true"])?.stderr)?;
    let said = platform.try_dyno(&["run:detached", "-a", APP, "echo to the log; echo and this >&2; read line || exit 42"])?;
    ensure!(said.status == 0, "{said:?}");
    let name = format!("run.{}", first + 1);
    ensure!(said.stderr.ends_with(&format!("... done, {name}\n")), "{said:?}, want {name}");
    ensure!(said.stdout == format!("Run dyno logs --app {APP} --dyno {name} to view the output.\n"), "{said:?}");

    // Its input is empty, so that read fails.
    let waited = platform.try_dyno(&["run:wait", &name, "-a", APP])?;
    ensure!(waited.status == 42 && waited.stderr.contains(&format!("Waiting for {name} on ⬢ {APP}... complete after ")), "{waited:?}");
    ensure!(waited.stderr.ends_with(" ›   Error: Process exited with code 42\n"), "{waited:?}");
    let mut log = platform.tail(APP, &["-p", &name])?;
    log.until(&format!("heroku[{name}]: Starting process with command `echo to the log"), 10)?;
    log.until_all(&[&format!("app[{name}]: to the log"), &format!("app[{name}]: and this")], 10)?;
    log.until(&format!("heroku[{name}]: Process exited with status 42"), 10)?;
    log.until(&format!("heroku[{name}]: State changed from up to complete"), 10)?;

    let third: Value = serde_json::from_str(&platform.ok(&["run:detached", "--json", "-a", APP, "hello"])?)?;
    ensure!(third["name"] == format!("run.{}", first + 2) && third["command"] == "echo hello from $DYNO", "{third}");
    let ended: Value = serde_json::from_str(&platform.ok(&["run:wait", third["name"].as_str().context("name")?, "--json", "-a", APP])?)?;
    ensure!(ended["state"] == "complete" && ended["exit"]["status"] == 0 && ended["exit"]["cause"] == "exited", "{ended}");
    let list = platform.json(&["ps", "-a", APP])?;
    ensure!(list.as_array().is_some_and(Vec::is_empty), "one-offs that ended are listed: {list}");
    let said = platform.try_dyno(&["run:wait", "run.9999", "-a", APP])?;
    ensure!(said.status == 1 && said.stderr.contains("run.9999"), "{said:?}");
    Ok(())
}

/// A one-off that has its time set ends with it.
pub fn time_to_live(platform: &Platform) -> Result<()> {
    ready(platform)?;
    let said = platform.ok(&["run:detached", "--json", "--time-to-live", "1", "-a", APP, "idle"])?;
    let run: Value = serde_json::from_str(&said)?;
    let name = run["name"].as_str().context("name")?;
    let waited = platform.try_dyno(&["run:wait", name, "-a", APP])?;
    ensure!(waited.status == 143, "{waited:?}");
    let mut log = platform.tail(APP, &["-p", name])?;
    let up = log.until("State changed from starting to up", 10)?;
    let end = log.until("Stopping all processes with SIGTERM", 10)?;
    let lived = seconds_between(&up, &end)?;
    ensure!((0.8..3.0).contains(&lived), "it lived for {lived} s");
    Ok(())
}
