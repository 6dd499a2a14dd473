//! The runs of a row: bare, with walls taken away, full; and what they say together.

use std::{path::Path, sync::OnceLock};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{
    Capability, Layer, Network, Profile, Sandbox, Stdio, Streams, Tier, Upper, Volume,
    broken::{self, Part},
    seccomp::ProfileData,
};

use super::{
    row::{Answer, Change, Control, Row},
    scene::{Scene, parse},
};
use crate::support;

/// What a mutation takes away from every run.
#[derive(Debug, Clone, Default)]
pub struct Mutant {
    /// A profile in place of the shipped one.
    pub profile: Option<ProfileData>,
    /// Steps left out.
    pub parts: Vec<Part>,
    /// Paths of procfs left as they are.
    pub uncovered: Vec<String>,
}

/// How a row stands on this kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All runs were what they must be.
    Holds,
    /// There is nothing to attack on this kernel, which said so; the full sandbox refuses all the same.
    Vacuous(String),
    /// The full sandbox refuses; the other runs may be in a throw-away machine only.
    FullOnly(String),
}

/// One run and its answer, for the report.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub verdict: Verdict,
    pub control: Option<Answer>,
    /// What was taken away, and the answer.
    pub without: Vec<(String, Answer)>,
    pub full: Answer,
    /// The same from a sandbox that was parked; None where none can be.
    pub parked: Option<Answer>,
}

/// Whether this is a throw-away machine: two signs of it, so that a variable that was left set does no harm.
pub fn in_machine() -> bool {
    static SIGN: OnceLock<bool> = OnceLock::new();
    *SIGN.get_or_init(|| std::env::var_os("DYNO_TEST_THROWAWAY").is_some() && Path::new("/payload/run/plan").is_file())
}

/// An init that is no pid 1 ends what it may signal at its end, which is more than its own.
fn only_in_machine(changes: &[Change]) -> bool {
    changes.contains(&Change::Without(Part::PidNamespace))
        || (changes.contains(&Change::Without(Part::UserNamespace)) && changes.contains(&Change::Root))
}

/// Whether a mutation may run here.
pub fn may_run(mutant: &Mutant) -> bool {
    let parts: Vec<Change> = mutant.parts.iter().copied().map(Change::Without).collect();
    in_machine() || !only_in_machine(&parts) && !parts.contains(&Change::Without(Part::UserNamespace))
}

/// All runs of a row.
pub fn judge(scene: &Scene, row: &Row) -> Result<Outcome> {
    if row.landlock > super::segment::landlock_abi() {
        return absent(scene, row, format!("Landlock's ABI is {}, {} is needed", super::segment::landlock_abi(), row.landlock));
    }
    let full = attacked(scene, row, &[], &Mutant::default())?;
    let control = match row.control {
        Control::None(_) => None,
        Control::Machine if !in_machine() => None,
        control => Some(scene.bare(row.bare.unwrap_or(row.attack), control)?),
    };
    // An empty directory is as good as none.
    let lacking = match control {
        Some(Answer::Errno(errno)) => row.vacuous.contains(&errno),
        Some(Answer::Nothing) => row.vacuous.contains(&libc::ENOENT),
        _ => false,
    };
    if let Some(answer) = control.as_ref().filter(|_| lacking) {
        ensure!(!matches!(full, Answer::Did(_)), "vacuous bare, and yet it succeeds inside: {full:?}");
        let why = format!("bare: {answer}");
        return Ok(Outcome { verdict: Verdict::Vacuous(why), control, without: Vec::new(), full, parked: None });
    }
    ensure!(row.full.is(&full), "full: wanted {}, got {full:?}", row.full);
    if let Some(answer) = &control {
        ensure!(matches!(answer, Answer::Did(_)), "the attack does not work bare: {answer:?}");
    }
    let mut outcome = Outcome { verdict: Verdict::Holds, control, without: Vec::new(), full, parked: None };
    for (changes, want) in &row.without {
        let text = changes.iter().map(Change::to_string).collect::<Vec<_>>().join(", ");
        if only_in_machine(&[&row.given[..], changes].concat()) && !in_machine() {
            outcome.verdict = Verdict::FullOnly(format!("{text}: in a throw-away machine only"));
            continue;
        }
        let answer = attacked(scene, row, changes, &Mutant::default())?;
        ensure!(want.is(&answer), "{text}: wanted {want}, got {answer:?}");
        outcome.without.push((text, answer));
    }
    Ok(outcome)
}

/// Where the wall itself is not there.
fn absent(scene: &Scene, row: &Row, why: String) -> Result<Outcome> {
    Ok(Outcome {
        verdict: Verdict::Vacuous(why),
        control: None,
        without: Vec::new(),
        full: attacked(scene, row, &[], &Mutant::default())?,
        parked: None,
    })
}

/// The full sandbox's answer to a row under a mutation, if it is another than it must be.
pub fn red(scene: &Scene, row: &Row, mutant: &Mutant) -> Result<bool> {
    let answer = attacked(scene, row, &[], mutant)?;
    Ok(!row.full.is(&answer))
}

/// One run in a sandbox.
pub fn attacked(scene: &Scene, row: &Row, changes: &[Change], mutant: &Mutant) -> Result<Answer> {
    set(scene, row, changes, mutant)?.run(scene)
}

/// The full run of every row that holds once more, in sandboxes that were raised before anybody asked for them. Rows that ask for nothing of
/// their own share a shape, because what runs inside is free to choose; those of which none can be parked are left out.
pub fn from_parked(scene: &Scene, judged: &mut [super::report::Judged]) -> Result<()> {
    let mut wrong = Vec::new();
    for alike in [true, false] {
        for (row, outcome) in judged.iter_mut().filter(|(row, _)| row.given.is_empty() == alike) {
            let Ok(outcome) = outcome else { continue };
            let setting = set(scene, row, &[], &Mutant::default())?;
            let whole = setting.parts.is_empty() && setting.uncovered.is_empty() && setting.layer.is_none() && matches!(setting.stdio, Stdio::Pipes);
            if matches!(outcome.verdict, Verdict::Vacuous(_)) || !whole || !park(scene, &setting.sandbox)? {
                continue;
            }
            let shape = setting.sandbox.clone();
            let answer = setting.run_on(scene, Some(Tier::Parked))?;
            if !alike {
                scene.stage.host.keep_parked(&shape, 0)?;
            }
            if !row.full.is(&answer) {
                wrong.push(format!("{}: wanted {}, got {answer:?}", row.test(), row.full));
            }
            outcome.parked = Some(answer);
        }
        let alike = Sandbox::new(vec![Layer::Directory(scene.stage.rootfs())], ["/bin/probe"]);
        scene.stage.host.keep_parked(&bounded(alike), 0)?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// So that no attack takes more than a test may.
fn bounded(sandbox: Sandbox) -> Sandbox {
    let limits = dyno_runtime::Limits { memory: Some(128 << 20), ..sandbox.limits };
    Sandbox { limits, ..sandbox }
}

/// Waits until one is parked; false where none can be.
fn park(scene: &Scene, sandbox: &Sandbox) -> Result<bool> {
    if scene.stage.host.keep_parked(sandbox, 2).is_err() {
        return Ok(false);
    }
    scene.stage.host.wait_ready()?;
    Ok(true)
}

fn set(scene: &Scene, row: &Row, changes: &[Change], mutant: &Mutant) -> Result<Setting> {
    let mut argv = vec!["/bin/probe".to_owned()];
    argv.extend(scene.words(row.attack, true)?);
    let mut sandbox = bounded(Sandbox::new(vec![Layer::Directory(scene.stage.rootfs())], argv));
    if let Some(profile) = &mutant.profile {
        sandbox.seccomp = Profile::Custom(Box::new(profile.clone()));
    }
    let mut setting = Setting { sandbox, stdio: Stdio::Pipes, parts: mutant.parts.clone(), uncovered: mutant.uncovered.clone(), layer: None };
    for change in row.given.iter().chain(changes) {
        setting.apply(scene, *change)?;
    }
    Ok(setting)
}

/// A sandbox in the making.
struct Setting {
    sandbox: Sandbox,
    stdio: Stdio,
    parts: Vec<Part>,
    uncovered: Vec<String>,
    layer: Option<tempfile::TempDir>,
}

impl Setting {
    fn apply(&mut self, scene: &Scene, change: Change) -> Result<()> {
        let sandbox = &mut self.sandbox;
        match change {
            Change::Allow(call) => allow(&mut sandbox.seccomp, call),
            Change::NoFilter => sandbox.seccomp = Profile::Unconfined,
            Change::Root => (sandbox.identity.uid, sandbox.identity.gid) = (0, 0),
            Change::Grant(name) => sandbox.identity.capabilities.push(name.parse::<Capability>().map_err(anyhow::Error::msg)?),
            Change::HostNetwork => sandbox.network = Network::Host,
            Change::ReadOnlyRoot => sandbox.root.upper = Upper::ReadOnly,
            Change::DiskBytes(bytes) => sandbox.root.upper = Upper::Tmpfs { bytes, inodes: 1000 },
            Change::DiskFiles(inodes) => sandbox.root.upper = Upper::Tmpfs { bytes: 8 << 20, inodes },
            Change::Memory(limit) => sandbox.limits.memory = limit,
            Change::Processes(limit) => sandbox.limits.pids = limit,
            Change::OpenFiles(files) => sandbox.limits.open_files = files,
            Change::Terminal => self.stdio = Stdio::Tty { rows: 24, cols: 80 },
            Change::HostDirectory => sandbox.volumes.push(Volume::Bind { source: scene.work().to_owned(), target: "/data".into(), writable: false }),
            Change::Symlink(name, target) => self.mislead(scene, name, target)?,
            Change::Uncovered(path) => self.uncovered.push(path.to_owned()),
            Change::Without(part) => self.parts.push(part),
        }
        Ok(())
    }

    /// An image in which a directory of ours is a symlink.
    fn mislead(&mut self, scene: &Scene, name: &str, target: &str) -> Result<()> {
        let layer = tempfile::tempdir_in(scene.stage.work())?;
        std::fs::set_permissions(layer.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        for dir in ["bin", "tmp", "data", "proc", "dev"].into_iter().filter(|dir| *dir != name) {
            std::fs::create_dir(layer.path().join(dir))?;
        }
        for below in ["pts", "shm"] {
            std::fs::create_dir(layer.path().join("data").join(below))?;
        }
        std::fs::copy(scene.work().join("probe"), layer.path().join("bin/probe"))?;
        std::os::unix::fs::symlink(target, layer.path().join(name))?;
        self.sandbox.root.layers = vec![Layer::Directory(layer.path().to_owned())];
        self.layer = Some(layer);
        Ok(())
    }

    fn run(self, scene: &Scene) -> Result<Answer> {
        self.run_on(scene, None)
    }

    /// With a tier that it must have been started from.
    fn run_on(mut self, scene: &Scene, tier: Option<Tier>) -> Result<Answer> {
        if self.parts.contains(&Part::Undumpable) {
            self.sandbox.env.insert("DYNO_BREAK_WALLS".into(), "dumpable".into());
        }
        let removed = broken::remove(&self.parts, &self.uncovered);
        let started = scene.stage.start(&self.sandbox, self.stdio);
        drop(removed);
        let mut dyno = match started {
            Ok(dyno) => dyno,
            Err(e) => return Ok(Answer::NoStart(e.to_string())),
        };
        ensure!(tier.is_none_or(|tier| dyno.tier() == tier), "started from {:?}, not {tier:?}", dyno.tier());
        let said = match dyno.take_streams() {
            Streams::Pipes { stdout, .. } => support::read_all(stdout)?,
            Streams::Tty(master) => support::read_all(master)?,
            other => bail!("no streams: {other:?}"),
        };
        let exit = dyno.wait()?;
        dyno.free()?;
        if let Some(signal) = exit.signal {
            return Ok(Answer::Killed(signal));
        }
        parse(&said).with_context(|| format!("{exit:?}"))
    }
}

/// One more call that goes through, whatever the profile said of it.
fn allow(profile: &mut Profile, call: &str) {
    let mut data = match profile {
        Profile::Custom(data) => (**data).clone(),
        _ => super::filter::shipped(),
    };
    super::filter::let_through(&mut data, call);
    *profile = Profile::Custom(Box::new(data));
}
