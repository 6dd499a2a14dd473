//! `cargo xtask demo`: the first five minutes of a newcomer.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo, host,
    images::{self, Images},
    platform::Platform,
};

const APP: &str = "hello-flask";

/// Sets everything up, starts the platform and shows it.
pub fn run(once: bool) -> Result<()> {
    host::prepare()?;
    let platform = prepare()?;
    let before = once.then(leftovers).transpose()?;
    platform.stop()?;
    if once && platform.state.exists() {
        std::fs::remove_dir_all(&platform.state).context("remove the former demo's state")?;
    }
    println!("-----> Starting dynod");
    let mut daemon = platform.start()?;
    let shown = show(&platform, once);
    if !once {
        shown?;
        farewell(&platform);
        return Ok(());
    }
    println!("-----> Stopping everything");
    platform.stop()?;
    daemon.wait()?;
    std::fs::remove_dir_all(&platform.state).context("remove the demo's state")?;
    std::fs::remove_file(&platform.log).context("remove the demo's log")?;
    shown?;
    let after = leftovers()?;
    ensure!(before.as_ref() == Some(&after), "something was left behind:\nbefore {before:#?}\nafter {after:#?}");
    println!("       Nothing left behind: processes, mounts, loop devices, cgroups, interfaces, namespaces as before");
    Ok(())
}

/// Stops what an earlier demo left running; its apps stay in its state directory.
pub fn stop() -> Result<()> {
    prepare()?.stop()
}

fn prepare() -> Result<Platform> {
    let images: Images = images::make()?;
    println!("-----> Building dynod and dyno");
    Ok(Platform::new(cargo::build()?, images))
}

fn show(platform: &Platform, once: bool) -> Result<()> {
    let sample = cargo::root().join("rootfs/apps/flask");
    let apps = platform.ask(&["apps", "--json"])?;
    if !apps.contains(&format!("\"{APP}\"")) {
        platform.ask(&["apps:create", APP])?;
    }
    println!("$ dyno deploy {}", sample.strip_prefix(cargo::root())?.display());
    stream(platform.dyno(&["deploy", "--app", APP]).arg(&sample))?;
    println!("$ dyno ps:scale web=3");
    let scaled = platform.tell(&["ps:scale", "web=3", "--app", APP])?;
    print!("{scaled}");
    ensure!(scaled.contains("web at 3"), "ps:scale did not answer with the new formation");
    platform.ask(&["ps:wait", "--app", APP])?;
    println!("$ dyno ps");
    let ps = platform.ask(&["ps", "--app", APP])?;
    print!("{ps}");
    for n in 1..=3 {
        ensure!(ps.contains(&format!("web.{n}: up")), "web.{n} is not up");
    }
    let client = std::fs::read_to_string(platform.run.join("api/client.json")).context("read client.json")?;
    let client: serde_json::Value = serde_json::from_str(&client)?;
    let router = client["router"].as_str().unwrap_or_default().trim_start_matches("http://").to_owned();
    println!("$ curl http://{APP}.localhost:{}/", router.rsplit(':').next().unwrap_or_default());
    let answer = get(&router)?;
    println!("{}", answer.rsplit("\r\n\r\n").next().unwrap_or_default());
    ensure!(answer.starts_with("HTTP/1.1 200"), "the router answered {}", answer.lines().next().unwrap_or_default());
    println!("$ dyno run python --version");
    let version = platform.ask(&["run", "--no-tty", "--app", APP, "--", "python", "--version"])?;
    print!("{version}");
    ensure!(version.contains("Python 3"), "the one-off printed something else");
    println!("$ dyno logs -n 10");
    let logs = platform.ask(&["logs", "-n", "10", "--app", APP])?;
    print!("{logs}");
    ensure!(logs.contains("heroku[router]: at=info"), "the log lacks the router's line");
    if once {
        println!("$ dyno apps:destroy {APP}");
        platform.ask(&["apps:destroy", APP, "--confirm", APP])?;
    }
    Ok(())
}

/// Runs a command with its output shown as it comes.
fn stream(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().context("run dyno")?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}

/// One request through the router, to the app's name.
fn get(router: &str) -> Result<String> {
    let mut stream = TcpStream::connect(router).with_context(|| format!("connect to the router at {router}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(40)))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {APP}.localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn farewell(platform: &Platform) {
    let dyno = platform.program().display();
    println!(
        "
The platform is running. To go on:
  export PATH=\"{}:$PATH\" DYNO_APP={APP}
  dyno ps                      what runs
  dyno logs --tail             its log, live
  dyno run bash                a shell in a dyno of its own
  dyno ps:scale web=1          fewer of them
  dyno config:set GREETING=hi  a new release
  dyno rollback                and back
  dyno --help                  everything else
To stop it:
  cargo xtask demo --stop",
        std::path::Path::new(&dyno.to_string()).parent().unwrap_or(std::path::Path::new("")).display()
    );
}

/// What the platform could leave on a host; compared before and after.
#[derive(Debug, PartialEq, Eq)]
struct Leftovers {
    mounts: Vec<String>,
    loops: Vec<String>,
    cgroups: Vec<String>,
    interfaces: Vec<String>,
    processes: Vec<String>,
    directories: Vec<String>,
}

fn leftovers() -> Result<Leftovers> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let point = |line: &str| line.split(' ').nth(4).unwrap_or_default().to_owned();
    let mut processes = Vec::new();
    for entry in std::fs::read_dir("/proc")?.filter_map(Result::ok) {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim).unwrap_or_default().to_owned();
        // An ended orphan is for the host's own pid 1 to collect, when it likes.
        if field("State:").starts_with('Z') && field("PPid:") == "1" {
            continue;
        }
        let uid: u32 = field("Uid:").split_whitespace().next().and_then(|u| u.parse().ok()).unwrap_or(0);
        // Ids of dynos begin at 2^20; the daemons are known by name.
        if uid >= 1 << 20 || field("Name:") == "dynod" {
            processes.push(format!("{} {}", field("Name:"), entry.file_name().to_string_lossy()));
        }
    }
    Ok(Leftovers {
        mounts: mounts.lines().map(point).collect(),
        loops: names("/sys/block", |dir| dir.join("loop/backing_file").exists())?,
        cgroups: cgroups()?,
        interfaces: names("/sys/class/net", |_| true)?,
        processes,
        directories: ["/run/dyno", "/var/lib/dyno-demo"].iter().filter(|d| std::path::Path::new(d).exists()).map(|d| (*d).to_owned()).collect(),
    })
}

fn names(dir: &str, keep: impl Fn(&std::path::Path) -> bool) -> Result<Vec<String>> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir)?.filter_map(|e| Some(e.ok()?.path()).filter(|p| keep(p))).map(|p| p.display().to_string()).collect();
    names.sort();
    Ok(names)
}

fn cgroups() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for top in ["/sys/fs/cgroup".to_owned()].into_iter().chain(names("/sys/fs/cgroup", |p| p.is_dir())?) {
        found.extend(names(&top, |p| p.is_dir() && p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("dyno")))?);
    }
    Ok(found)
}
