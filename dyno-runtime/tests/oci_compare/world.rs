//! Draws the configurations, has them run, and gathers what differs.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::Read,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use super::{
    bundles::{Bundle, Place, Runtime, compile, oracle},
    dimensions,
    draw::{Draft, Draw, Host},
    observe::{Known, Observation, observe},
    support::{Stage, groups},
    table::{self, Compared},
};

/// Of configurations in a usual run.
const COUNT: usize = 300;
const SEED: u64 = 1;
/// As many at once.
const WORKERS: usize = 2;

fn variable(name: &str, usual: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(usual), |text| text.parse().with_context(|| format!("{name}={text}")))
}

/// A process that keeps namespaces for containers to join.
#[derive(Debug)]
struct Holder {
    child: Child,
    first: u32,
}

impl Holder {
    fn new(probe: &str) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--ipc", "--uts", "--cgroup", "--pid", "--kill-child", probe, "forever"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("run unshare")?;
        child.stdout.as_mut().context("stdout")?.read_exact(&mut [0; 5])?;
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id()))?;
        Ok(Self { first: children.trim().parse().context("the first process")?, child })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Zombies of runtimes that ended before their own children are in the pid namespace too, which cannot end before they are gone.
        let first = rustix::process::Pid::from_raw(self.first as i32).map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        let ended = self.child.kill();
        while rustix::process::wait(rustix::process::WaitOptions::empty()).is_ok() {}
        assert!(ended.is_ok() && first.is_some_and(|f| f.is_ok()), "namespaces are still held: {ended:?}");
    }
}

/// What stands still while configurations are compared.
struct World {
    host: Host,
    known: Known,
    runtimes: Vec<Runtime>,
    probe: std::path::PathBuf,
    _place: Option<Place>,
    _holder: Holder,
}

impl World {
    fn new(stage: &Stage) -> Result<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        fs::set_permissions(stage.work(), Permissions::from_mode(0o755))?;
        let probe = stage.work().join("probe");
        compile(&probe)?;
        let place = Place::new()?;
        let mut runtimes = vec![Runtime::ours()];
        for other in [Runtime::crun(place.as_ref()), Runtime::runc()] {
            match other {
                Ok(runtime) => runtimes.push(runtime),
                Err(reason) => println!("skipped: {reason}"),
            }
        }
        ensure!(runtimes.len() > 1, "nobody to compare with: Debian's packages crun and runc");
        let holder = Holder::new(&probe.display().to_string())?;
        let host = host(stage, &probe, &holder)?;
        Ok(Self { known: namespaces(&holder, place.as_ref())?, host, runtimes, probe, _place: place, _holder: holder })
    }

    /// One configuration by its number.
    fn draw(&self, seed: u64, number: usize, bundle: &Bundle, id: &str) -> (Value, u32) {
        let mut draw = Draw::new(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        let host = Host { bundle: bundle.dir.display().to_string(), ..self.host.clone() };
        let mut draft = Draft::new(&host, id);
        for (chance, add) in dimensions::ALL {
            if draw.percent(*chance) {
                add(&mut draw, &mut draft, &host);
            }
        }
        draft.finish()
    }

    /// Has all run the configuration, in turn, so that nothing but the runtime differs.
    fn run(&self, seed: u64, number: usize, bundle: &Bundle, id: &str) -> Result<(Value, Vec<Observation>)> {
        let (config, owner) = self.draw(seed, number, bundle, id);
        let each = |runtime: &Runtime| {
            bundle.reset(&config, owner)?;
            match observe(bundle, runtime, id, &self.known) {
                Err(e) => broken(bundle, runtime, id, &e),
                seen => seen,
            }
        };
        if std::env::var_os("DYNO_TEST_SHOW").is_some() {
            println!("{number}: {config:#}");
        }
        let seen: Vec<Observation> = self.runtimes.iter().map(each).collect::<Result<_>>()?;
        if std::env::var_os("DYNO_TEST_SHOW").is_some() {
            for (runtime, seen) in self.runtimes.iter().zip(&seen) {
                println!("{number} {}: {:?} {:?}", runtime.name, seen.facts.get("verb create"), seen.messages.first());
            }
        }
        Ok((config, seen))
    }
}

/// What no runtime should come to: nothing further can be looked at.
fn broken(bundle: &Bundle, runtime: &Runtime, id: &str, e: &anyhow::Error) -> Result<Observation> {
    if bundle.root.join(id).exists() {
        bundle.tell(runtime, &["delete", "--force", id])?;
    }
    let facts = [("verb create".to_owned(), format!("broken: {e:#}"))].into();
    Ok(Observation { facts, messages: Vec::new() })
}

fn host(stage: &Stage, probe: &std::path::Path, holder: &Holder) -> Result<Host> {
    let status = fs::read_to_string("/proc/self/status")?;
    let bounding = status.lines().find_map(|l| l.strip_prefix("CapBnd:")).context("CapBnd")?;
    let bounding = u64::from_str_radix(bounding.trim(), 16)?;
    let limits = fs::read_to_string("/proc/self/limits")?;
    let hard = |title: &str| {
        let line = limits.lines().find(|l| l.starts_with(title))?;
        line[title.len()..].split_whitespace().nth(1).map(|hard| hard.parse().unwrap_or(u64::MAX))
    };
    const LIMITS: &[(&str, &str)] = &[
        ("RLIMIT_CPU", "Max cpu time"),
        ("RLIMIT_FSIZE", "Max file size"),
        ("RLIMIT_DATA", "Max data size"),
        ("RLIMIT_STACK", "Max stack size"),
        ("RLIMIT_CORE", "Max core file size"),
        ("RLIMIT_RSS", "Max resident set"),
        ("RLIMIT_NPROC", "Max processes"),
        ("RLIMIT_NOFILE", "Max open files"),
        ("RLIMIT_MEMLOCK", "Max locked memory"),
        ("RLIMIT_AS", "Max address space"),
        ("RLIMIT_LOCKS", "Max file locks"),
        ("RLIMIT_SIGPENDING", "Max pending signals"),
        ("RLIMIT_MSGQUEUE", "Max msgqueue size"),
        ("RLIMIT_NICE", "Max nice priority"),
        ("RLIMIT_RTPRIO", "Max realtime priority"),
        ("RLIMIT_RTTIME", "Max realtime timeout"),
    ];
    let disk = groups::disk_of(stage.work()).and_then(|text| text.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?))));
    Ok(Host {
        capabilities: (0..dimensions::CAPABILITIES.len()).filter(|n| bounding >> n & 1 == 1).collect(),
        limits: LIMITS.iter().filter_map(|(name, title)| Some((*name, hard(title)?))).collect(),
        namespaces: format!("/proc/{}/ns", holder.first),
        disk,
        bundle: String::new(),
        probe: probe.display().to_string(),
        groups: format!("/{}-oci", stage.name),
    })
}

fn namespaces(holder: &Holder, place: Option<&Place>) -> Result<Known> {
    let mut known = BTreeMap::new();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"] {
        known.insert(fs::read_link(format!("/proc/{}/ns/{kind}", holder.first))?.display().to_string(), "joined");
        known.insert(fs::read_link(format!("/proc/self/ns/{kind}"))?.display().to_string(), "host");
    }
    if let Some(place) = place {
        known.insert(place.link()?, "host");
    }
    Ok(Known { namespaces: known })
}

/// The suite's case.
pub fn compare(stage: &Stage) -> Result<()> {
    let (seed, count) = (variable("DYNO_TEST_SEED", SEED)?, variable("DYNO_TEST_COUNT", COUNT as u64)? as usize);
    let first = variable("DYNO_TEST_FIRST", 0)? as usize;
    let world = World::new(stage)?;
    let (next, report) = (AtomicUsize::new(first), Mutex::new(table::Report::default()));
    let work = |worker: usize| -> Result<()> {
        let bundle = Bundle::new(&stage.work().join(format!("bundle{worker}")), &world.probe)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= first + count {
                return Ok(());
            }
            let id = format!("{}-{worker}", stage.name);
            let (config, seen) = world.run(seed, number, &bundle, &id)?;
            let [ours, others @ ..] = &seen[..] else { continue };
            let mut report = report.lock().map_err(|e| anyhow!("{e}"))?;
            for (n, (runtime, theirs)) in world.runtimes[1..].iter().zip(others).enumerate() {
                let third = others.get(others.len() - 1 - n).filter(|_| others.len() == 2);
                report.add(&Compared { number, config: &config, other: runtime.name, ours, theirs, third });
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?).inspect_err(|e| eprintln!("{e:#}"))
    })?;
    drop(world);
    rustix::process::set_child_subreaper(None)?;
    emptied(stage)?;
    oracle::nothing_left(stage.work(), &format!("{}-", stage.name))?;
    let report = report.into_inner().map_err(|e| anyhow!("{e}"))?;
    println!("{}", report.summary(seed, count));
    report.verdict()
}

/// Takes away the directories that the runtimes leave: the group above the containers', made by the first of them.
fn emptied(stage: &Stage) -> Result<()> {
    for hierarchy in fs::read_dir("/sys/fs/cgroup")?.filter_map(Result::ok) {
        let group = hierarchy.path().join(format!("{}-oci", stage.name));
        if group.exists() {
            fs::remove_dir(&group).with_context(|| format!("remove {}: something is left in it", group.display()))?;
        }
    }
    Ok(())
}
