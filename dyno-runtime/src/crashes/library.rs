//! A process that uses the library: it opens an instance, starts one dyno, stops it and takes the instance down, and is killed, or one that
//! it has made, or fails on the way. Then the next process of that instance comes.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::watch::{Ended, Role, collect};
use crate::{
    Dyno, Egress, Found, Host, HostOptions, Layer, Network, Policy, Protocol, Publish, Sandbox, StartOptions, Stdio, Tier, Upper, Volume,
    support::{PROGRAM, layer, leaks},
};

/// Where all stories are played.
#[derive(Debug, Clone)]
pub struct Ground {
    /// State directory of the instance, and name of its groups.
    pub run: PathBuf,
    pub name: String,
    /// Holds `rootfs`, and `image.sqsh` if there was a program to make it.
    pub work: PathBuf,
}

/// A way to start and to stop.
#[derive(Debug)]
pub struct Story {
    pub name: &'static str,
    sandbox: fn(&Ground) -> Result<Sandbox>,
    /// What is kept ready.
    tier: Tier,
    stdio: fn() -> Stdio,
    listen: &'static [u16],
    /// Whose calls are swept; those of the others are the same as in another story.
    pub roles: &'static [Role],
}

const ALL: &[Role] = &["spawner", "workshop", "helper", "child", "init", "program to be"];

pub const STORIES: &[Story] = &[
    Story { name: "cold", sandbox: plain, tier: Tier::Cold, stdio: || Stdio::Log, listen: &[], roles: ALL },
    Story { name: "parts", sandbox: plain, tier: Tier::Parts, stdio: || Stdio::Pipes, listen: &[], roles: ALL },
    Story { name: "parked", sandbox: plain, tier: Tier::Parked, stdio: || Stdio::Log, listen: &[], roles: ALL },
    Story {
        name: "large",
        sandbox: large,
        tier: Tier::Cold,
        stdio: || Stdio::Tty { rows: 24, cols: 80 },
        listen: &[80],
        roles: &["spawner", "mkfs.ext4", "child", "init"],
    },
    Story { name: "egress", sandbox: linked, tier: Tier::Cold, stdio: || Stdio::Null, listen: &[], roles: &["spawner", "nft"] },
];

fn plain(ground: &Ground) -> Result<Sandbox> {
    Ok(Sandbox::new(vec![Layer::Directory(ground.work.join("rootfs"))], [PROGRAM, "forever"]))
}

fn large(ground: &Ground) -> Result<Sandbox> {
    let (mut sandbox, image) = (plain(ground)?, ground.work.join("image.sqsh"));
    if image.exists() {
        sandbox.root.layers.insert(0, layer(&image)?);
    }
    sandbox.limits.cpu_millis = Some(2000);
    sandbox.volumes = vec![Volume::Bind { source: ground.work.join("rootfs"), target: "/data".into(), writable: false }];
    sandbox.root.upper = Upper::Disk { directory: ground.work.clone(), bytes: 8 << 20, inodes: 64 };
    Ok(sandbox)
}

fn linked(ground: &Ground) -> Result<Sandbox> {
    let mut sandbox = plain(ground)?;
    let publish = Publish { address: std::net::Ipv4Addr::UNSPECIFIED, host_port: 8080, port: 80, protocol: Protocol::Tcp };
    sandbox.network = Network::Egress(Egress { policy: Policy::Open, dns: vec![std::net::Ipv4Addr::new(192, 0, 2, 1)], publish: vec![publish] });
    Ok(sandbox)
}

/// The parts of a story, which are the names of the thread that plays them: the watcher counts none of its other calls.
const PHASES: [&str; 5] = ["crash-open", "crash-ready", "crash-start", "crash-stop", "crash-close"];
const OVER: &str = "crash-over";

/// Who is who in a story.
pub fn cast(name: &str, is_first: bool, inside: Option<u32>) -> Option<Role> {
    if is_first {
        return PHASES.contains(&name).then_some("spawner").or((name == "dyno-workshop").then_some("workshop"));
    }
    let is_number = name.bytes().all(|b| b.is_ascii_digit());
    match (name, inside) {
        ("program", _) => Some("program"),
        // Before it has given itself a name it bears that of the memory file, or the descriptor's number.
        ("dyno-init" | "memfd:dyno-init", Some(1)) => Some("init"),
        (_, Some(1)) if is_number => Some("init"),
        ("dyno-init", _) => Some("program to be"),
        ("nft", _) => Some("nft"),
        ("mkfs.ext4", _) => Some("mkfs.ext4"),
        (_, Some(_)) => Some("child"),
        (OVER, None) => None,
        (_, None) => Some("helper"),
    }
}

const STORY: &str = "DYNO_CRASH_STORY";
const RUN: &str = "DYNO_CRASH_RUN";
const WORK: &str = "DYNO_CRASH_WORK";

impl Story {
    /// This program, in the role of who uses the library.
    pub fn command(&self, ground: &Ground) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "crashes::actor", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(STORY, self.name).env(RUN, &ground.run).env(WORK, &ground.work).env("RUST_BACKTRACE", "0");
        Ok(command)
    }

    /// What is said where nobody is harmed.
    pub fn says(&self) -> String {
        tier(self.tier)
    }

    fn options(&self, alone: bool) -> HostOptions {
        HostOptions { alone, spares: usize::from(self.tier == Tier::Parts), ..HostOptions::default() }
    }

    fn start(&self, host: &Host, ground: &Ground) -> Result<Dyno> {
        let options = StartOptions { stdio: (self.stdio)(), listen: self.listen.to_vec(), ..StartOptions::default() };
        Ok(host.start("victim", &(self.sandbox)(ground)?, options)?)
    }

    fn play(&self, ground: &Ground) -> Result<()> {
        let host = phase(PHASES[0], || Ok(Host::open_with(&ground.run, &ground.name, &self.options(false))?))?;
        phase(PHASES[1], || self.make_ready(&host, ground))?;
        let dyno = phase(PHASES[2], || self.start(&host, ground))?;
        println!("{}", tier(dyno.tier()));
        phase(PHASES[3], || {
            dyno.stop(Duration::from_secs(5))?;
            Ok(dyno.free()?)
        })?;
        phase(PHASES[4], || Ok(host.dismantle()?))
    }

    fn make_ready(&self, host: &Host, ground: &Ground) -> Result<()> {
        if self.tier == Tier::Parts {
            host.wait_ready()?;
        }
        if self.tier == Tier::Parked {
            let sandbox = (self.sandbox)(ground)?;
            host.keep_parked(&sandbox, 1)?;
            // If it was harmed nothing is parked, and what is started is started cold.
            host.wait_ready().ok();
        }
        Ok(())
    }

    /// The next process of that instance, and what it must find: nothing, or the dyno as it should be; then it can be started anew, and
    /// nothing is left.
    pub fn restart(&self, ground: &Ground, ended: &Ended) -> Result<()> {
        let host = Host::open_with(&ground.run, &ground.name, &self.options(true)).context("open")?;
        let failed = ended.said.contains(FAILED_START);
        let recovered = host.recover().context("recover").and_then(|found| {
            found.into_iter().try_for_each(|found| taken_up(&host, found, failed))?;
            self.start(&host, ground).context("start anew")?.free().context("free")
        });
        let dismantled = host.dismantle().context("dismantle");
        recovered.and(dismantled)?;
        ensure!(collect(Duration::from_secs(5)), "a process is left: {:?}", leaks::snapshot(&ground.run, &ground.name, &ground.work)?);
        leaks::must_be_gone(&ground.run, &ground.name, &ground.work)
    }
}

fn tier(tier: Tier) -> String {
    format!("tier: {tier:?}")
}

/// Does `work` under the name of that part.
fn phase<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let as_thread = |name: &str| rustix::thread::set_name(&std::ffi::CString::new(name)?).context("prctl(PR_SET_NAME)");
    as_thread(name)?;
    let result = work();
    as_thread(OVER)?;
    result.with_context(|| name.to_owned())
}

const FAILED_START: &str = "the story ended: crash-start";

fn taken_up(host: &Host, found: Found, failed: bool) -> Result<()> {
    match found {
        Found::Running(dyno) if failed => bail!("{} runs, which failed to start", dyno.id()),
        Found::Running(dyno) => {
            ensure!(dyno.id() == "victim", "found {}", dyno.id());
            dyno.free().context("free what was found")
        }
        Found::Ended(id, exit) => {
            ensure!(id == "victim", "found {id}: {exit:?}");
            host.sweep(&id).context("sweep what was found")
        }
    }
}

/// Plays the story that the environment names; its end is the status, and what went wrong is said.
pub fn act() {
    let Some(name) = std::env::var_os(STORY) else { return println!("skipped: run by the sweeps") };
    let path = |variable| PathBuf::from(std::env::var_os(variable).unwrap_or_default());
    let run = path(RUN);
    let name_of = |run: &Path| run.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ground = Ground { name: name_of(&run), run, work: path(WORK) };
    let story = STORIES.iter().find(|story| name == story.name).expect("a story");
    if let Err(e) = story.play(&ground) {
        // Its first words are the part's.
        println!("the story ended: {e:#}");
        std::process::exit(3);
    }
}
