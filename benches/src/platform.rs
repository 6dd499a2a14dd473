//! The platform as its users meet it: how soon a hundred dynos are up, what a request costs that wakes an app, and what the router adds.
//!
//! Everything is seen from outside: a running dynod, its command line, its API and its router. The server that is deployed tells when it
//! began, by the clock of the host that all of them share.

mod server;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    thread::sleep,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, sample, until};
use serde_json::{Value, json};

use self::server::{Client, Server};

/// Apps that sleep and are woken in turn.
const SLEEPERS: usize = 5;
/// Between two wakes of one round, where the host is to be idle.
const REST: Duration = Duration::from_millis(30);
/// Dynos of the formation that is scaled.
const DYNOS: usize = 100;
/// Requests to each server before it is the other's turn.
const TURN: usize = 100;

/// What to measure, and how often.
#[derive(clap::Args)]
pub struct Options {
    /// Times that each formation is scaled from nothing to a hundred.
    #[arg(long, default_value_t = 5)]
    scales: usize,
    /// Rounds of wakes; five apps are woken in each.
    #[arg(long, default_value_t = 8)]
    wakes: usize,
    /// Turns of a hundred requests.
    #[arg(long, default_value_t = 20)]
    turns: usize,
    /// Where the figures go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Fail unless the goals are met.
    #[arg(long)]
    check: bool,
}

/// Milliseconds by what they measure, in the order of the names.
type Figures = BTreeMap<&'static str, Vec<f64>>;

/// Measures, prints the table, and with `check` compares it with the goals.
///
/// # Errors
/// When the platform or one of the apps fails, or with `check` when a goal is missed.
pub fn run(options: &Options) -> Result<()> {
    if let Some(reason) = Platform::missing() {
        anyhow::bail!("the platform cannot run here: {reason}");
    }
    let dir = tempfile::Builder::new().prefix("dyno-bench-").tempdir()?;
    let server = Server::compile(dir.path())?;
    let mut figures = Figures::new();
    with_platform(&[], |platform| {
        scale(platform, &server, options.scales, &mut figures)?;
        route(platform, &server, options.turns, &mut figures)
    })?;
    with_platform(&["--sleep-after", "1"], |platform| wake(platform, &server, options.wakes, &mut figures))?;
    print(&figures);
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_vec_pretty(&to_json(&figures))?).with_context(|| format!("write {}", path.display()))?;
    }
    if options.check { goals(&figures) } else { Ok(()) }
}

fn with_platform(options: &[&str], work: impl FnOnce(&Platform) -> Result<()>) -> Result<()> {
    let platform = Platform::start(options)?;
    let worked = work(&platform).with_context(|| platform.log_tail());
    let stopped = platform.stop();
    worked.and(stopped)
}

fn scale(platform: &Platform, server: &Server, rounds: usize, figures: &mut Figures) -> Result<()> {
    platform.deploy("server", server.app("web: ./server\nworker: sleep 1000000\n")?.path())?;
    platform.deploy("static", sample("static")?.path())?;
    for (app, what) in [("server", "web"), ("static", "web")] {
        platform.ok(&["ps:scale", &format!("{what}=0"), "-a", app])?;
    }
    let cases = [
        ("scale 0 to 100, a program that sleeps", "server", "worker"),
        ("scale 0 to 100, a server that does nothing", "server", "web"),
        ("scale 0 to 100, rootfs/apps/static", "static", "web"),
    ];
    for round in 0..rounds {
        // The last one, a real app, is busy for seconds with its own start: once is enough.
        for (name, app, kind) in cases.into_iter().take(if round == 0 { 3 } else { 2 }) {
            eprint!("\rscale {} of {rounds}: {name:<50}", round + 1);
            settle(platform)?;
            let from = now();
            platform.ok(&["ps:scale", &format!("{kind}={DYNOS}"), "-a", app])?;
            let last = until(120, "all dynos are up", || all_up(platform, app, kind))?;
            figures.entry(name).or_default().push((last - from) * 1000.0);
            let from = now();
            platform.ok(&["ps:scale", &format!("{kind}=0"), "-a", app])?;
            until(120, "all dynos are gone", || Ok(platform.groups()?.is_empty().then_some(())))?;
            figures.entry("scale 100 to 0, nothing left").or_default().push((now() - from) * 1000.0);
        }
    }
    eprintln!();
    Ok(())
}

/// The kernel takes down in the background what the former round left.
fn settle(platform: &Platform) -> Result<()> {
    until(60, "no dyno is left", || Ok(platform.groups()?.is_empty().then_some(())))?;
    sleep(Duration::from_secs(1));
    Ok(())
}

/// When the last of a hundred dynos came up, once all are.
fn all_up(platform: &Platform, app: &str, kind: &str) -> Result<Option<f64>> {
    let dynos = platform.call("GET", &format!("/apps/{app}/dynos"), &Value::Null)?.json();
    let up = dynos.as_array().context("list of dynos")?.iter().filter(|d| d["type"] == kind && d["state"] == "up");
    let since = up.map(|d| Ok(d["updated_at"].as_str().context("updated_at")?.parse::<jiff::Timestamp>()?.as_microsecond() as f64 / 1e6));
    let since = since.collect::<Result<Vec<_>>>()?;
    Ok((since.len() == DYNOS).then(|| since.into_iter().fold(0.0, f64::max)))
}

fn route(platform: &Platform, server: &Server, turns: usize, figures: &mut Figures) -> Result<()> {
    platform.ok(&["ps:scale", "web=1", "-a", "server"])?;
    platform.wait_up("server")?;
    let plain = server.run()?;
    let router = router(platform)?;
    let peers = [
        ("answer, plain loopback, connection kept", plain.address(), true),
        ("answer, through the router, connection kept", router.as_str(), true),
        ("answer, plain loopback, connection of its own", plain.address(), false),
        ("answer, through the router, connection of its own", router.as_str(), false),
    ];
    for turn in 0..turns {
        eprint!("\rrequests, turn {} of {turns} ", turn + 1);
        for (name, address, keep) in peers {
            let times = figures.entry(name).or_default();
            let mut client = Client::connect(address)?;
            for n in 0..TURN {
                let from = std::time::Instant::now();
                if !keep {
                    client = Client::connect(address)?;
                }
                client.ask("server.localhost")?;
                // The first one on a connection that is kept pays for it.
                if n > 0 || !keep {
                    times.push(from.elapsed().as_secs_f64() * 1000.0);
                }
            }
        }
    }
    eprintln!();
    Ok(())
}

fn wake(platform: &Platform, server: &Server, rounds: usize, figures: &mut Figures) -> Result<()> {
    let apps: Vec<String> = (1..=SLEEPERS).map(|n| format!("sleeper-{n}")).collect();
    for app in &apps {
        platform.deploy(app, server.app("web: ./server\n")?.path())?;
    }
    let router = router(platform)?;
    let burst = ["wake, burst: request to the shell at work", "wake, burst: request to the app's main", "wake, burst: request to its answer"];
    let idle = ["wake, idle: request to the shell at work", "wake, idle: request to the app's main", "wake, idle: request to its answer"];
    for round in 0..rounds {
        for (names, rest) in [(burst, Duration::ZERO), (idle, REST)] {
            eprint!("\rwakes, round {} of {rounds} ", round + 1);
            for app in &apps {
                until(60, "the app sleeps and nothing of it is left", || asleep(platform, app))?;
            }
            // What is parked is parked in the background, for a request that comes sooner or later.
            sleep(Duration::from_millis(500));
            for app in &apps {
                sleep(rest);
                let from = now();
                let told = Client::connect(&router)?.ask(&format!("{app}.localhost"))?;
                let answered = now();
                let (began, shell) = told.trim().split_once(' ').context("times of the server")?;
                for (name, at) in names.into_iter().zip([shell.parse()?, began.parse()?, answered]) {
                    figures.entry(name).or_default().push((at - from) * 1000.0);
                }
            }
        }
    }
    eprintln!();
    Ok(())
}

fn asleep(platform: &Platform, app: &str) -> Result<Option<()>> {
    let dynos = platform.call("GET", &format!("/apps/{app}/dynos"), &Value::Null)?.json();
    let all = dynos.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(|d| d["state"] == "idle"));
    Ok((all && platform.groups()?.is_empty()).then_some(()))
}

fn router(platform: &Platform) -> Result<String> {
    Ok(platform.client()?["router"].as_str().context("router")?.trim_start_matches("http://").to_owned())
}

/// Seconds since the epoch.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What a share `q` of them did not exceed.
fn quantile(of: &[f64], q: f64) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1) as f64 * q).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

fn print(figures: &Figures) {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("The platform, wall time in ms. Linux {}", kernel.trim());
    println!("{:<56}{:>8}{:>10}{:>10}{:>10}{:>10}", "", "runs", "min", "p50", "p99", "max");
    for (name, of) in figures {
        let cells = [0.0, 0.5, 0.99, 1.0].map(|q| format!("{:>10.3}", quantile(of, q))).concat();
        println!("{name:<56}{:>8}{cells}", of.len());
    }
}

fn to_json(figures: &Figures) -> Value {
    let figure = |of: &Vec<f64>| json!({ "runs": of.len(), "min_ms": quantile(of, 0.0), "p50_ms": quantile(of, 0.5), "p99_ms": quantile(of, 0.99), "max_ms": quantile(of, 1.0) });
    figures.iter().map(|(name, of)| ((*name).to_owned(), figure(of))).collect::<serde_json::Map<_, _>>().into()
}

/// The goals of these figures.
fn goals(figures: &Figures) -> Result<()> {
    let p50 = |name: &str| figures.get(name).map_or(f64::NAN, |of| quantile(of, 0.5));
    let goals = [
        ("a hundred dynos that sleep are up within a second", p50("scale 0 to 100, a program that sleeps") < 1000.0),
        ("a hundred servers are up within a second", p50("scale 0 to 100, a server that does nothing") < 1000.0),
        ("a wake costs less than 2 ms before the app's own start", p50("wake, idle: request to the shell at work") < 2.0),
    ];
    for (goal, met) in &goals {
        println!("{}: {goal}", if *met { "met" } else { "MISSED" });
    }
    ensure!(goals.iter().all(|(_, met)| *met), "goals were missed");
    Ok(())
}
