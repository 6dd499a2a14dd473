//! The daemon dies in the middle of a build.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, WEB, inline, until};

use super::{deployed, destroy};

pub(super) fn under_way_is_failed(platform: &Platform) -> Result<()> {
    deployed(platform, "building", 1)?;
    let before = platform.seen("building")?;
    let slow = inline("echo halfway; sleep 1000", &[("web.py", WEB), ("Procfile", "web: python3 web.py\n")])?;
    let path = slow.path().to_string_lossy().into_owned();
    let mut deploy = platform.dyno(&["deploy", "-a", "building", &path]);
    let mut child = deploy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let output = BufReader::new(child.stdout.take().context("stdout")?);
    let mut lines = output.lines();
    ensure!(lines.any(|l| l.is_ok_and(|l| l.contains("halfway"))), "the build did not come to its compile");
    ensure!(platform.groups()?.len() == before.len() + 1, "{:?}", platform.groups()?);

    platform.kill_daemon()?;
    drop(lines);
    ensure!(child.wait()?.code() == Some(1), "deploy reports success");
    platform.start_daemon(&[])?;
    let builds = platform.json(&["builds", "-a", "building"])?;
    let newest = builds.as_array().context("list")?.iter().find(|b| b["status"] != "succeeded").context("no failed build")?;
    ensure!(newest["status"] == "failed" && newest["error"] == "the daemon restarted during the build", "{newest}");
    let id = newest["id"].as_str().context("id")?;
    let output = platform.try_dyno(&["builds:output", id, "-a", "building"])?.stdout;
    ensure!(output.ends_with(" !     Push rejected, the platform restarted during the build.\n"), "{output}");
    until(10, "the build's dyno is gone", || Ok((platform.groups()?.len() == before.len()).then_some(())))?;
    ensure!(platform.seen("building")? == before, "the running release was touched");

    let good = inline("true", &[("web.py", WEB), ("Procfile", "web: python3 web.py\n")])?;
    let output = platform.redeploy("building", good.path())?;
    ensure!(output.contains("Released v2"), "{output}");
    platform.wait_up("building")?;
    destroy(platform, "building")
}
