//! Histories as data: each row is one event in words and the actions that it must cause.
//!
//! Dynos are named `web.1` (its latest launch) or `web.1#2` (its second launch).

mod adoption;
mod formation;
mod histories;
mod life;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use uuid::Uuid;

use super::*;
use crate::model::{App, ConfigVars, DynoId, DynoKind, DynoName, DynoSize, DynoState, Exit, ExitCause, Formation, FormationEntry, ProcessType, Slug};

const APP: Uuid = Uuid::from_u128(0xa);

/// Plays the rows and compares, action by action.
fn check(rows: &[(&str, &str)]) {
    let mut world = World::new();
    for (at, (command, want)) in rows.iter().enumerate() {
        let want: Vec<_> = want.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        assert_eq!(world.tell(command), want, "row {at}: {command}");
    }
}

/// One app, every launch that was ever asked for, and a clock.
struct World {
    state: State,
    now: Timestamp,
    launches: Vec<Dyno>,
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: State::new(Uuid::from_u128(1)), now: Timestamp::UNIX_EPOCH, launches: Vec::new() };
        assert_eq!(step(&mut world.state, Event::AppCreated { app: app(APP) }, world.now), []);
        world
    }

    /// Carries out one command and puts its effects into words.
    fn tell(&mut self, command: &str) -> Vec<String> {
        let words: Vec<_> = command.split(' ').collect();
        let event = match words[..] {
            ["ps"] => return self.ps(),
            ["new", "daemon"] => {
                self.state = State::new(Uuid::from_u128(2));
                return Vec::new();
            }
            [seconds] if seconds.starts_with('+') => {
                self.now += Duration::from_millis((seconds[1..].parse::<f64>().unwrap() * 1000.0) as u64);
                Event::Tick
            }
            ["destroy"] => Event::AppDestroyed { app_id: APP },
            ["release", version, ..] => {
                Event::Released { app_id: APP, release: release(version.parse().unwrap(), &words[2..]), formation: formation(&words[2..]) }
            }
            ["load", version, ..] => {
                Event::Loaded { app: app(APP), release: Some(release(version.parse().unwrap(), &words[2..])), formation: formation(&words[2..]) }
            }
            ["scale", ..] => Event::FormationChanged { app_id: APP, formation: formation(&words[1..]) },
            ["run", name] => Event::Run { dyno: self.one_off(name, DynoKind::OneOff) },
            ["run", name, "release-phase"] => Event::Run { dyno: self.one_off(name, DynoKind::Release) },
            ["restart", what] => Event::Restart { app_id: APP, which: which(what) },
            ["stop", what] => Event::Stop { app_id: APP, which: which(what) },
            ["started", label] => Event::Started { dyno_id: self.id(label) },
            ["bound", label] => Event::Bound { dyno_id: self.id(label) },
            ["fail", label, "R17", reason] => Event::StartFailed { dyno_id: self.id(label), reason: reason.into(), code: Some("R17") },
            ["fail", label, reason] => Event::StartFailed { dyno_id: self.id(label), reason: reason.into(), code: None },
            ["exit", label, status] => Event::Exited { dyno_id: self.id(label), exit: exit(status.parse().unwrap(), ExitCause::Exited) },
            ["exit", label, status, cause] => Event::Exited { dyno_id: self.id(label), exit: exit(status.parse().unwrap(), cause_of(cause)) },
            ["adopt", label, state] => Event::Adopted { dyno: self.found(label, state) },
            ["settled"] => Event::Settled,
            ["quiet"] => Event::Quiet { app_id: APP },
            ["visited"] => Event::Visited { app_id: APP },
            _ => panic!("no such command: {command}"),
        };
        let actions = step(&mut self.state, event, self.now);
        actions.into_iter().map(|action| self.word(action)).collect()
    }

    fn word(&mut self, action: Action) -> String {
        match action {
            Action::Start(dyno) => {
                self.launches.push(*dyno);
                let dyno = &self.launches[self.launches.len() - 1];
                format!("START {} v{} {}", self.label(dyno.id), dyno.release, dyno.size)
            }
            Action::Signal { dyno_id, signal: SIGTERM } => format!("TERM {}", self.label(dyno_id)),
            Action::Signal { dyno_id, signal: SIGKILL } => format!("KILL {}", self.label(dyno_id)),
            Action::Signal { signal, .. } => panic!("signal {signal}"),
            Action::Log { ps, text, .. } => format!("{ps}: {text}"),
            Action::Forget { dyno_id } => format!("FORGET {}", self.label(dyno_id)),
        }
    }

    fn ps(&self) -> Vec<String> {
        self.state.dynos(APP).iter().map(|d| format!("{} {} crashes={}", self.label(d.id), d.state, d.crashes)).collect()
    }

    fn label(&self, id: DynoId) -> String {
        let at = self.launches.iter().position(|d| d.id == id).expect("a launch that was asked for");
        let name = &self.launches[at].name;
        format!("{name}#{}", self.launches[..=at].iter().filter(|d| d.name == *name).count())
    }

    fn launch(&self, label: &str) -> &Dyno {
        let (name, number) = label.split_once('#').unwrap_or((label, ""));
        let mut of_name = self.launches.iter().filter(|d| d.name.to_string() == name);
        let found = if number.is_empty() { of_name.next_back() } else { of_name.nth(number.parse::<usize>().unwrap() - 1) };
        found.unwrap_or_else(|| panic!("{label} was never launched"))
    }

    fn id(&self, label: &str) -> DynoId {
        self.launch(label).id
    }

    /// A launch of a former daemon, as its record and the kernel tell of it.
    fn found(&self, label: &str, state: &str) -> Dyno {
        let state = match state {
            "starting" => DynoState::Starting,
            "up" => DynoState::Up,
            "stopping" => DynoState::Stopping,
            other => panic!("{other}"),
        };
        Dyno { state, ..self.launch(label).clone() }
    }

    fn one_off(&self, name: &str, kind: DynoKind) -> Dyno {
        one_off(APP, Uuid::from_u128(0x1000 + self.launches.len() as u128), name, kind)
    }
}

fn one_off(app_id: Uuid, id: DynoId, name: &str, kind: DynoKind) -> Dyno {
    Dyno {
        id,
        app_id,
        name: name.parse().unwrap(),
        kind,
        command: "bash".into(),
        size: DynoSize::default(),
        release: 1,
        state: DynoState::Starting,
        since: Timestamp::UNIX_EPOCH,
        created_at: Timestamp::UNIX_EPOCH,
        retry_at: None,
        crashes: 0,
        exit: None,
        attached: false,
        stopping: None,
        env: BTreeMap::new(),
        tty: None,
    }
}

fn app(id: Uuid) -> App {
    let at = Timestamp::UNIX_EPOCH;
    let name = "shop".parse().unwrap();
    App { id, name, maintenance: false, buildpack_description: None, created_at: at, updated_at: at, released_at: None }
}

/// `web=2:standard-2x` asks for two; a type after `!` is not in the slug.
fn formation(words: &[&str]) -> Formation {
    let entry = |word: &&str| {
        let (kind, quantity) = word.trim_start_matches('!').split_once('=').unwrap();
        let (quantity, size) = quantity.split_once(':').unwrap_or((quantity, "standard-1x"));
        let entry = FormationEntry { quantity: quantity.parse().unwrap(), size: size.parse().unwrap() };
        (kind.parse().unwrap(), entry)
    };
    words.iter().filter(|w| **w != "no-slug").map(entry).collect()
}

fn release(version: u32, words: &[&str]) -> CurrentRelease {
    let kinds = words.iter().filter(|w| !w.starts_with('!')).map(|w| w.split_once('=').map_or(*w, |(kind, _)| kind));
    let process_types: BTreeMap<ProcessType, String> = kinds.clone().map(|k| (k.parse().unwrap(), format!("./{k}"))).collect();
    let slug = Slug {
        id: Uuid::from_u128(0x51),
        app_id: APP,
        sha256: "0".repeat(64),
        size: 1,
        process_types,
        buildpack: "Python".into(),
        stack: "0".repeat(64),
        commit: None,
        created_at: Timestamp::UNIX_EPOCH,
    };
    let slug = (!words.contains(&"no-slug")).then_some(slug);
    CurrentRelease { version, slug, config: ConfigVars::default() }
}

fn which(word: &str) -> Which {
    match (word, word.parse::<DynoName>()) {
        ("all", _) => Which::All,
        (_, Ok(name)) => Which::Name(name),
        (kind, Err(_)) => Which::Type(kind.parse().unwrap()),
    }
}

fn exit(status: i32, cause: ExitCause) -> Exit {
    Exit { status, cause, memory_peak: None, oom_kills: 0, cpu_us: 0, wall_us: 0 }
}

fn cause_of(word: &str) -> ExitCause {
    match word {
        "memory" => ExitCause::Memory,
        "time" => ExitCause::Time,
        "stopped" => ExitCause::Stopped,
        "lost" => ExitCause::Lost,
        other => panic!("{other}"),
    }
}
