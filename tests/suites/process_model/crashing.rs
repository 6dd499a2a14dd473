//! Processes that end unasked.

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, tail::seconds_between};

use super::{app, destroy, dyno, id};

/// 1 s, 2 s, 4 s; seen in `ps`; from the beginning again after a release.
pub fn back_off(platform: &Platform) -> Result<()> {
    app(platform, "crashing", "worker: echo born; exit 7\n", &[], &["worker=1"])?;
    let mut log = platform.tail("crashing", &[])?;
    for (crash, wait) in [(1, 1), (2, 2)] {
        log.until("heroku[worker.1]: Starting process with command `echo born; exit 7`", 10)?;
        log.until("app[worker.1]: born", 10)?;
        log.until("heroku[worker.1]: Process exited with status 7", 10)?;
        log.until("heroku[worker.1]: State changed from up to crashed", 10)?;
        let crashed = log.until(&format!("heroku[worker.1]: Next try in {wait}s (crash {crash})"), 10)?;
        if crash == 2 {
            shown(platform)?;
        }
        let again = log.until("heroku[worker.1]: State changed from crashed to starting", 10)?;
        let waited = seconds_between(&crashed, &again)?;
        ensure!((f64::from(wait) - 0.1..f64::from(wait) + 2.0).contains(&waited), "after crash {crash} it waited {waited} s");
    }
    log.until("heroku[worker.1]: Next try in 4s (crash 3)", 10)?;
    platform.ok(&["config:set", "A=1", "-a", "crashing"])?;
    // At once, not after the four seconds, and counting from one.
    let released = log.until("heroku[api]: Set A config vars by user operator", 10)?;
    let again = log.until("heroku[worker.1]: Next try in 1s (crash 1)", 10)?;
    ensure!(seconds_between(&released, &again)? < 3.0, "{released}\n{again}");
    ensure!(dyno(platform, "crashing", "worker.1")?["release"]["version"] == 2);
    destroy(platform, "crashing")
}

/// The listing while it waits for its second try.
fn shown(platform: &Platform) -> Result<()> {
    let text = platform.ok(&["ps", "-a", "crashing"])?;
    let line = text.lines().find(|l| l.starts_with("worker.1: crashed ")).with_context(|| text.clone())?;
    let (_, next) = line.split_once(", next try in ").with_context(|| text.clone())?;
    ensure!(next.strip_suffix('s').and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n <= 2), "{text}");
    let listed = dyno(platform, "crashing", "worker.1")?;
    ensure!(listed["state"] == "crashed" && listed["retry_at"].is_string(), "{listed}");
    ensure!(listed["exit"]["status"] == 7 && listed["exit"]["cause"] == "exited", "{listed}");
    Ok(())
}

/// R10 for `web` that binds nothing; a worker beside it needs no port. Then H10.
pub fn boot_timeout(platform: &Platform) -> Result<()> {
    app(platform, "booting", "web: exec sleep 1000\nworker: exec sleep 1000\n", &[], &["worker=1"])?;
    let mut log = platform.tail("booting", &[])?;
    let began = log.until("heroku[web.1]: Starting process with command `exec sleep 1000`", 10)?;
    log.until("heroku[worker.1]: State changed from starting to up", 10)?;
    let (web, worker) = (id(platform, "booting", "web.1")?, id(platform, "booting", "worker.1")?);
    ensure!(platform.variable(&web, "PORT")?.as_deref() == Some("5000"), "web has no PORT");
    ensure!(platform.variable(&worker, "PORT")?.is_none(), "worker has a PORT");
    ensure!(dyno(platform, "booting", "web.1")?["state"] == "starting");
    let text = "Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 3 seconds of launch";
    let late = log.until(&format!("heroku[web.1]: {text}"), 15)?;
    let waited = seconds_between(&began, &late)?;
    ensure!((2.9..6.0).contains(&waited), "R10 came after {waited} s");
    log.until("heroku[web.1]: Stopping process with SIGKILL", 10)?;
    log.until("heroku[web.1]: Process exited with status 137", 10)?;
    log.until("heroku[web.1]: State changed from starting to crashed", 10)?;
    ensure!(id(platform, "booting", "worker.1")? == worker, "the worker was replaced");
    ensure!(log.read().iter().all(|line| !line.contains("[worker.1]: Error")), "{:?}", log.read());
    // While it boots again the router waits for it; when that fails too, H10.
    let answer = platform.fetch("booting", "/")?;
    ensure!(answer.status == 503 && answer.body.starts_with("H10: App crashed\n"), "{answer:?}");
    log.until("heroku[router]: at=error code=H10 desc=\"App crashed\" method=GET path=\"/\" host=booting.localhost", 10)?;
    destroy(platform, "booting")
}

/// A process that takes more than its size has: killed, told, tried again; its neighbour of the same app goes on.
pub fn memory(platform: &Platform) -> Result<()> {
    let procfile = "worker: python3 -c \"x = b'x' * (700 << 20); print(len(x))\"\nneighbour: exec sleep 1000\n";
    app(platform, "hungry", procfile, &[], &["neighbour=1", "worker=1"])?;
    let neighbour = id(platform, "hungry", "neighbour.1")?;
    let mut log = platform.tail("hungry", &[])?;
    let used = log.until("heroku[worker.1]: Process running mem=", 30)?;
    let percent = used.rsplit_once('(').and_then(|(_, p)| p.strip_suffix("%)")?.parse::<f64>().ok());
    ensure!(percent.is_some_and(|p| (99.0..=101.0).contains(&p)), "{used}");
    log.until("heroku[worker.1]: Error R15 (Memory quota vastly exceeded)", 10)?;
    log.until("heroku[worker.1]: Process exited with status 137", 10)?;
    log.until("heroku[worker.1]: State changed from up to crashed", 10)?;
    log.until("heroku[worker.1]: Next try in 1s (crash 1)", 10)?;
    let text = platform.ok(&["ps", "worker", "-a", "hungry"])?;
    let listed = dyno(platform, "hungry", "worker.1")?;
    ensure!(text.contains("\nworker.1: crashed ") && listed["state"] == "crashed", "{text}{listed}");
    ensure!(listed["exit"]["status"] == 137 && listed["exit"]["cause"] == "memory", "{listed}");
    ensure!(listed["exit"]["oom_kills"].as_u64().is_some_and(|n| n > 0), "{listed}");
    ensure!(id(platform, "hungry", "neighbour.1")? == neighbour, "the neighbour was replaced");
    let said = platform.try_dyno(&["run", "-a", "hungry", "worker"])?;
    ensure!(said.status == 137 && said.stdout.is_empty(), "{said:?}");
    ensure!(said.stderr.contains("Process exited with code 137 (out of memory)"), "{said:?}");
    destroy(platform, "hungry")
}
