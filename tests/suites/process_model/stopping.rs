//! Processes that are told to end.

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, until};
use serde_json::Value;

use super::{app, destroy, dyno, id};

/// A parent, its child and a stray that left their session: each says what it hears. The parent ends when the others have.
const FAMILY: &str = r#"
import os, signal

read, write = os.pipe()

def listen(name, wait=False):
    def hear(*_):
        os.write(1, f"{name} heard SIGTERM\n".encode())
        if wait:
            os.close(write)
            while os.read(read, 1):
                pass
        os._exit(0)
    signal.signal(signal.SIGTERM, hear)
    os.write(write, b".")
    while True:
        signal.pause()

def spawn(name, stray):
    if os.fork() == 0:
        if stray:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
        os.close(read)
        listen(name)

spawn("child", False)
spawn("stray", True)
os.read(read, 1)
os.read(read, 1)
print("all are there", flush=True)
listen("parent", wait=True)
"#;

/// SIGTERM is for all processes, not for the first alone; an end in time is no R12.
pub fn to_all(platform: &Platform) -> Result<()> {
    app(platform, "family", "worker: exec python3 family.py\n", &[("family.py", FAMILY)], &["worker=1"])?;
    let mut log = platform.tail("family", &[])?;
    log.until("app[worker.1]: all are there", 20)?;
    let before = id(platform, "family", "worker.1")?;
    // The platform's init, the parent, the child, the stray.
    ensure!(platform.pids(&before)?.len() == 4, "{:?}", platform.pids(&before)?);
    platform.ok(&["ps:restart", "-a", "family"])?;
    log.until("heroku[worker.1]: Restarting", 10)?;
    log.until("heroku[worker.1]: State changed from up to starting", 10)?;
    log.until("heroku[worker.1]: Stopping all processes with SIGTERM", 10)?;
    log.until_all(&["parent heard SIGTERM", "child heard SIGTERM", "stray heard SIGTERM"], 10)?;
    log.until("heroku[worker.1]: Process exited with status 0", 10)?;
    ensure!(log.read().iter().all(|line| !line.contains("Error R12")), "{:?}", log.read());
    ensure!(id(platform, "family", "worker.1")? != before, "it was not replaced");
    destroy(platform, "family")
}

/// R12, and SIGKILL after it; the replacement does not wait for that.
pub fn deaf(platform: &Platform) -> Result<()> {
    let program = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(1000)\n";
    app(platform, "deaf", "worker: exec python3 deaf.py\n", &[("deaf.py", program)], &["worker=1"])?;
    let mut log = platform.tail("deaf", &[])?;
    log.until("app[worker.1]: deaf", 20)?;
    let before = id(platform, "deaf", "worker.1")?;
    platform.ok(&["ps:restart", "worker.1", "-a", "deaf"])?;
    log.until("heroku[worker.1]: Stopping all processes with SIGTERM", 10)?;
    log.until("heroku[worker.1]: State changed from starting to up", 10)?;
    log.until("heroku[worker.1]: Error R12 (Exit timeout) -> At least one process failed to exit within 2 seconds of SIGTERM", 10)?;
    ensure!(id(platform, "deaf", "worker.1")? != before, "its replacement is not there yet");
    log.until("heroku[worker.1]: Stopping remaining processes with SIGKILL", 10)?;
    log.until("heroku[worker.1]: Process exited with status 137", 10)?;
    until(10, "the control group of the old launch is gone", || Ok(platform.group_file(&before, "cgroup.procs").is_err().then_some(())))?;
    destroy(platform, "deaf")
}

/// A formation dyno that is stopped comes back; a one-off does not.
pub fn ps_stop(platform: &Platform) -> Result<()> {
    app(platform, "stopping", "worker: exec sleep 1000\n", &[], &["worker=2"])?;
    platform.wait_up("stopping")?;
    let (first, second) = (id(platform, "stopping", "worker.1")?, id(platform, "stopping", "worker.2")?);
    let mut log = platform.tail("stopping", &[])?;
    let said = platform.try_dyno(&["ps:stop", "worker.1", "-a", "stopping"])?;
    ensure!(said.status == 0 && said.stderr == "Stopping dyno worker.1 on ⬢ stopping... done\n", "{said:?}");
    log.until("heroku[worker.1]: Stopping all processes with SIGTERM", 10)?;
    log.until("heroku[worker.1]: Process exited with status 143", 10)?;
    platform.wait_up("stopping")?;
    ensure!(id(platform, "stopping", "worker.1")? != first, "worker.1 was not stopped");
    ensure!(id(platform, "stopping", "worker.2")? == second, "worker.2 was stopped as well");

    let run: Value = serde_json::from_str(&platform.ok(&["run:detached", "--json", "-a", "stopping", "exec sleep 1000"])?)?;
    let name = run["name"].as_str().context("name")?;
    log.until(&format!("heroku[{name}]: State changed from starting to up"), 10)?;
    platform.ok(&["ps:stop", name, "-a", "stopping"])?;
    let said = platform.try_dyno(&["run:wait", name, "-a", "stopping"])?;
    ensure!(said.status == 143 && said.stderr.contains("down after"), "{said:?}");
    let list = platform.json(&["ps", "-a", "stopping"])?;
    ensure!(list.as_array().is_some_and(|l| l.len() == 2 && l.iter().all(|d| d["name"] != name)), "{list}");
    let said = platform.try_dyno(&["ps:stop", "worker.9", "-a", "stopping"])?;
    ensure!(said.status == 1 && said.stderr.contains("worker.9"), "{said:?}");
    ensure!(dyno(platform, "stopping", "worker.1")?["state"] == "up");
    destroy(platform, "stopping")
}
