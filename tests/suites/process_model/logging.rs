//! Whose lines reach whom.

use std::fs;

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, tail::Tail};

use super::{app, destroy, scale};

/// `-n`, `-p`, `-s`, `--tail`, and the format of a line.
pub fn filters(platform: &Platform) -> Result<()> {
    let procfile = "alpha: echo one; echo two >&2; exec sleep 1000\nbeta: echo three; exec sleep 1000\n";
    app(platform, "chatty", procfile, &[], &["alpha=2", "beta=1"])?;
    let mut log = platform.tail("chatty", &[])?;
    log.until_all(&["app[alpha.1]: two", "app[alpha.2]: two", "app[beta.1]: three"], 10)?;
    platform.wait_up("chatty")?;

    let all = logs(platform, &[])?;
    for line in &all {
        shape(line)?;
    }
    ensure!(logs(platform, &["-n", "3"])? == all[all.len() - 3..], "the last three of {all:?}");
    check(platform, &["-p", "alpha"], &all, |l| l.contains("[alpha.1]: ") || l.contains("[alpha.2]: "))?;
    check(platform, &["-p", "alpha.2"], &all, |l| l.contains("[alpha.2]: "))?;
    check(platform, &["-s", "app"], &all, |l| l.contains(" app["))?;
    check(platform, &["-s", "heroku"], &all, |l| l.contains(" heroku["))?;
    check(platform, &["-s", "heroku", "-p", "beta"], &all, |l| l.contains(" heroku[beta.1]: "))?;
    let said: Vec<_> = logs(platform, &["-p", "alpha.1", "-s", "app"])?.iter().map(|l| l[33..].to_owned()).collect();
    ensure!(said == ["app[alpha.1]: one", "app[alpha.1]: two"], "{said:?}");
    ensure!(platform.try_dyno(&["logs", "-n", "0", "-a", "chatty"])?.status == 2);

    // A tail gets what passes its filter, from now on.
    let mut beta = platform.tail("chatty", &["-p", "beta", "-s", "app"])?;
    beta.until("app[beta.1]: three", 10)?;
    platform.ok(&["ps:restart", "-a", "chatty"])?;
    beta.until("app[beta.1]: three", 10)?;
    ensure!(beta.read().len() == 2, "{:?}", beta.read());
    destroy(platform, "chatty")
}

fn logs(platform: &Platform, filter: &[&str]) -> Result<Vec<String>> {
    let mut arguments = vec!["logs", "-a", "chatty", "-n", "1000"];
    if filter.contains(&"-n") {
        arguments.truncate(3);
    }
    arguments.extend(filter);
    Ok(platform.ok(&arguments)?.lines().map(str::to_owned).collect())
}

fn check(platform: &Platform, filter: &[&str], all: &[String], keep: fn(&str) -> bool) -> Result<()> {
    let want: Vec<_> = all.iter().filter(|l| keep(l)).cloned().collect();
    let got = logs(platform, filter)?;
    ensure!(!want.is_empty() && got == want, "logs {filter:?}: {got:#?}, want {want:#?}");
    Ok(())
}

/// `2012-10-11T03:47:20.123456+00:00 app[web.1]: text`
fn shape(line: &str) -> Result<()> {
    let digits: String = line.chars().take(32).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    ensure!(digits == "0000-00-00T00:00:00.000000+00:00", "time of {line:?}");
    let source = line[32..].starts_with(" app[") || line[32..].starts_with(" heroku[");
    ensure!(source && line.contains("]: "), "{line:?}");
    Ok(())
}

/// Counts fifty to the second.
const COUNT: &str = r#"
import itertools, time

for n in itertools.count():
    print(f"count {n}", flush=True)
    time.sleep(0.02)
"#;

const NOISE: &str = "all work and no play makes a dull log";

/// One dyno writes as fast as it can: it loses lines and is told so; another app loses none, and the daemon stays as small as it was.
pub fn flood(platform: &Platform) -> Result<()> {
    app(platform, "quiet", "worker: exec python3 count.py\n", &[("count.py", COUNT)], &["worker=1"])?;
    app(platform, "noisy", &format!("worker: exec yes '{NOISE}'\n"), &[], &[])?;
    let mut quiet = platform.tail("quiet", &["-s", "app"])?;
    let first = number(&mut quiet)?;
    let before = resident(platform)?;
    scale(platform, "noisy", &["worker=1"])?;
    let mut noisy = platform.tail("noisy", &["-s", "heroku"])?;
    for _ in 0..3 {
        let lost = noisy.until("heroku[worker.1]: Error L10 (output buffer overflow) -> ", 30)?;
        let lines = lost.split_once("-> ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
        ensure!(lines.is_some_and(|n| n > 0), "{lost}");
    }
    for want in first + 1..first + 150 {
        let got = number(&mut quiet)?;
        ensure!(got == want, "the quiet app's line {want} is lost; {got} came");
    }
    let after = resident(platform)?;
    ensure!(after < before + (48 << 10), "dynod grew from {before} to {after} KiB");
    // What is kept of the flood is bounded, too. Where something is missing a line may be cut.
    let kept = platform.ok(&["logs", "-n", "1500", "-s", "app", "-a", "noisy"])?;
    let lines: Vec<_> = kept.lines().map(|l| l.split_once("app[worker.1]: ").map_or(l, |(_, text)| text)).collect();
    ensure!((1..=1500).contains(&lines.len()), "{} lines", lines.len());
    let foreign = lines.iter().find(|line| !NOISE.contains(**line));
    ensure!(foreign.is_none() && lines.contains(&NOISE), "{foreign:?}");
    destroy(platform, "noisy")?;
    destroy(platform, "quiet")
}

fn number(tail: &mut Tail) -> Result<u64> {
    let line = tail.next(20)?;
    line.rsplit_once("count ").and_then(|(_, n)| n.parse().ok()).with_context(|| format!("no count: {line}"))
}

/// KiB of memory that dynod has (proc_pid_status(5), VmRSS).
fn resident(platform: &Platform) -> Result<u64> {
    let pid = platform.client()?["pid"].as_u64().context("pid")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
    line.trim().trim_end_matches(" kB").parse().with_context(|| line.to_owned())
}
