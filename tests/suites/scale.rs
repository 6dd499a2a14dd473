//! Many dynos at once, and apps that sleep. Figures are printed; the bounds here are for a busy machine and a debug build, the goals are
//! held by `cargo xtask bench platform`.

use std::{
    collections::BTreeSet,
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, Process, run, tiny, until};

const OPTIONS: &[&str] = &["--stop-timeout", "2", "--sleep-after", "2"];

/// Most that a formation may have of one type.
const MANY: usize = 100;

/// Answers with its pid's start and its dyno's name, on `/slow` after longer than it takes to fall asleep.
const WEB: &str = "
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/slow':
            time.sleep(5)
        body = (os.environ['DYNO'] + '\\n').encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('0.0.0.0', int(os.environ['PORT'])), Handler).serve_forever()
";

fn main() -> ExitCode {
    run(
        OPTIONS,
        &[
            ("to_a_hundred_and_back", to_a_hundred_and_back),
            ("a_daemon_killed_on_the_way_leaves_exactly_a_hundred", killed_on_the_way),
            ("an_app_sleeps_and_a_request_wakes_it", sleeps_and_wakes),
            ("an_app_with_an_exchange_under_way_does_not_sleep", busy_does_not_sleep),
        ],
    )
}

fn destroy(platform: &Platform, app: &str) -> Result<()> {
    platform.ok(&["apps:destroy", "-a", app, "--confirm", app])?;
    nothing_left(platform)
}

fn nothing_left(platform: &Platform) -> Result<()> {
    until(60, "no dyno is left", || Ok(platform.groups()?.is_empty().then_some(())))
}

fn names(kind: &str) -> BTreeSet<String> {
    (1..=MANY).map(|n| format!("{kind}.{n}")).collect()
}

fn to_a_hundred_and_back(platform: &Platform) -> Result<()> {
    platform.deploy("many", tiny("worker: exec sleep 100000\n", &[])?.path())?;
    for round in 1..=2 {
        let from = Instant::now();
        platform.ok(&["ps:scale", "worker=100", "-a", "many"])?;
        let told = from.elapsed();
        platform.wait_up("many")?;
        let up = from.elapsed();
        let seen = platform.seen("many")?;
        ensure!(seen.keys().cloned().collect::<BTreeSet<_>>() == names("worker"), "{:?}", seen.keys());
        let groups: BTreeSet<String> = platform.groups()?.into_iter().collect();
        ensure!(groups == seen.values().map(|s| s.id.clone()).collect(), "other groups than dynos: {}", groups.len());
        let from = Instant::now();
        platform.ok(&["ps:scale", "worker=0", "-a", "many"])?;
        nothing_left(platform)?;
        println!("round {round}: told {told:.1?}, a hundred up {up:.1?}, nothing left {:.1?}", from.elapsed());
        ensure!(seen.values().all(|s| !s.init.runs()), "a process outlived its group");
        ensure!(up < Duration::from_secs(60), "a hundred dynos that sleep took {up:?}");
    }
    destroy(platform, "many")
}

fn killed_on_the_way(platform: &Platform) -> Result<()> {
    platform.deploy("cut", tiny("worker: exec sleep 100000\n", &[])?.path())?;
    // Each round another share of the formation exists when the daemon dies.
    for share in [1, 30, 70] {
        let mut scale = platform.dyno(&["ps:scale", "worker=100", "-a", "cut"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        until(60, "some dynos have a group", || Ok((platform.groups()?.len() >= share).then_some(())))?;
        platform.kill_daemon()?;
        scale.wait()?;
        platform.start_daemon(&[])?;
        // If the daemon died before it had said yes, it is asked again; this changes nothing where it had.
        platform.ok(&["ps:scale", "worker=100", "-a", "cut"])?;
        platform.wait_up("cut")?;
        let seen = platform.seen("cut")?;
        ensure!(seen.keys().cloned().collect::<BTreeSet<_>>() == names("worker"), "after {share}: {:?}", seen.keys());
        let wanted: BTreeSet<String> = seen.values().map(|s| s.id.clone()).collect();
        // A start that was under way when the daemon died is either one of them or undone.
        until(30, "there are exactly a hundred", || Ok((platform.groups()?.into_iter().collect::<BTreeSet<_>>() == wanted).then_some(())))?;
        let inits: BTreeSet<u32> = seen.values().map(|s| s.init.pid).collect();
        ensure!(inits.len() == MANY && seen.values().all(|s| s.init.runs()), "{} processes", inits.len());
        platform.ok(&["ps:scale", "worker=0", "-a", "cut"])?;
        nothing_left(platform)?;
    }
    destroy(platform, "cut")
}

fn state(platform: &Platform, app: &str, name: &str) -> Result<String> {
    let dynos = platform.json(&["ps", "-a", app])?;
    let dyno = dynos.as_array().context("list")?.iter().find(|d| d["name"] == name).with_context(|| format!("no {name}: {dynos}"))?;
    Ok(dyno["state"].as_str().unwrap_or_default().to_owned())
}

fn sleeps_and_wakes(platform: &Platform) -> Result<()> {
    platform.deploy("sleepy", tiny("web: python3 web.py\nworker: exec sleep 100000\n", &[("web.py", WEB)])?.path())?;
    platform.ok(&["ps:scale", "web=2", "worker=1", "-a", "sleepy"])?;
    platform.wait_up("sleepy")?;
    let worker = platform.seen("sleepy")?["worker.1"].clone();
    let mut times = Vec::new();
    for _ in 0..3 {
        until(60, "its web dynos sleep, without a process", || {
            let idle = ["web.1", "web.2"].iter().map(|name| state(platform, "sleepy", name)).collect::<Result<Vec<_>>>()?;
            Ok((idle == ["idle", "idle"] && platform.groups()?.len() == 1).then_some(()))
        })?;
        platform.ok(&["ps:wait", "-a", "sleepy", "--timeout", "5"]).context("who waits for an app that sleeps waits for nothing")?;
        let from = Instant::now();
        let answer = platform.get("sleepy", "/")?;
        times.push(from.elapsed());
        ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\n\r\nweb."), "{answer}");
        platform.wait_up("sleepy")?;
    }
    println!("request to an app that sleeps: answered after {times:.1?}");
    ensure!(times.iter().all(|t| *t < Duration::from_secs(30)), "{times:?}");
    let log = platform.ok(&["logs", "-n", "1500", "-a", "sleepy"])?;
    for line in [
        "heroku[web.1]: Idling",
        "heroku[web.1]: State changed from up to idle",
        "heroku[web.2]: Unidling",
        "heroku[web.2]: State changed from idle to starting",
    ] {
        ensure!(log.matches(line).count() >= 3, "{line:?} is missing:\n{log}");
    }
    ensure!(!log.contains(" H1") && !log.contains("crashed"), "{log}");
    ensure!(platform.seen("sleepy")?["worker.1"] == worker, "the worker, which nobody visits, was restarted");
    // A new daemon knows nothing of who slept: it starts what is wanted.
    until(60, "it sleeps again", || Ok((state(platform, "sleepy", "web.1")? == "idle").then_some(())))?;
    platform.kill_daemon()?;
    platform.start_daemon(&[])?;
    ensure!(platform.get("sleepy", "/")?.starts_with("HTTP/1.1 200"));
    destroy(platform, "sleepy")
}

fn busy_does_not_sleep(platform: &Platform) -> Result<()> {
    platform.deploy("slow", tiny("web: python3 web.py\n", &[("web.py", WEB)])?.path())?;
    let init: Process = platform.seen("slow")?.get("web.1").map(|s| s.init).map_or_else(
        || {
            ensure!(platform.get("slow", "/")?.starts_with("HTTP/1.1 200"));
            Ok(platform.seen("slow")?["web.1"].init)
        },
        Ok,
    )?;
    let answer = platform.get("slow", "/slow")?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    ensure!(init.runs(), "it was put to sleep in the middle of an exchange");
    destroy(platform, "slow")
}
