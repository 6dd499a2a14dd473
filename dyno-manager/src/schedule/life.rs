//! What is done to single launches: start, up, end, kill, crash, forget.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Action, Dyno, SIGKILL, SIGTERM, Step, Stopping, line, timing::after};
use crate::model::{DynoId, DynoKind, DynoName, DynoState, Exit, ExitCause};

/// One-offs of one app that are remembered after their end; the oldest go first.
const MAX_ENDED: usize = 100;

/// Status of a dyno that never started: what shells say of a command that cannot be executed.
const NOT_STARTED: i32 = 126;

/// Why a launch is told to end, as far as its log shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// For good, as far as its name goes.
    Down,
    /// A replacement of the same name follows.
    Restart,
    /// As `Restart`, after a crash: the platform's own doing.
    Retry,
    /// Until somebody asks for it again.
    Idle,
}

impl Step<'_> {
    /// Starts a formation dyno, if one is wanted under this name.
    pub(super) fn launch(&mut self, app_id: Uuid, name: DynoName, crashes: u32) {
        if let Some(dyno) = self.next(app_id, name, crashes) {
            self.start(dyno);
        }
    }

    /// The next formation dyno of this name, if one is wanted.
    fn next(&mut self, app_id: Uuid, name: DynoName, crashes: u32) -> Option<Dyno> {
        let spec = self.state.apps.get(&app_id)?.spec(&name)?;
        let (command, size, release) = (spec.command.to_owned(), spec.size, spec.release);
        Some(Dyno {
            id: self.state.next_id(app_id),
            app_id,
            name,
            kind: DynoKind::Formation,
            command,
            size,
            release,
            state: DynoState::Starting,
            since: self.now,
            created_at: self.now,
            retry_at: None,
            crashes,
            exit: None,
            attached: false,
            stopping: None,
            env: BTreeMap::new(),
            tty: None,
        })
    }

    /// Enters a launch into the table and has it started.
    pub(super) fn start(&mut self, mut dyno: Dyno) {
        (dyno.state, dyno.since) = (DynoState::Starting, self.now);
        self.say(&dyno, &line::starting(&dyno.command));
        self.actions.push(Action::Start(Box::new(dyno.clone())));
        self.state.dynos.put(dyno);
    }

    pub(super) fn started(&mut self, id: DynoId) {
        let Some(dyno) = self.living(id) else { return };
        match dyno.stopping {
            // Told to end before there was a process to hear it.
            Some(stopping) => self.signal(id, if stopping.killed { SIGKILL } else { SIGTERM }),
            None if dyno.state != DynoState::Starting => {}
            // Only now can it work towards its port: the time spent on starting it is not its own.
            None if dyno.binds_port() => self.change(id, |d, now| d.since = now),
            None => self.enter(id, DynoState::Up),
        }
    }

    pub(super) fn bound(&mut self, id: DynoId) {
        let boots = |d: &Dyno| d.state == DynoState::Starting && d.binds_port() && d.stopping.is_none();
        if self.living(id).is_some_and(|d| boots(&d)) {
            self.enter(id, DynoState::Up);
        }
    }

    pub(super) fn start_failed(&mut self, id: DynoId, reason: &str, code: Option<&'static str>) {
        let Some(dyno) = self.living(id) else { return };
        self.say(&dyno, &line::start_failed(code, reason));
        let exit = Exit { status: NOT_STARTED, cause: ExitCause::Lost, memory_peak: None, oom_kills: 0, cpu_us: 0, wall_us: 0 };
        self.ended(&dyno, exit);
    }

    pub(super) fn exited(&mut self, id: DynoId, exit: Exit) {
        let Some(dyno) = self.living(id) else { return };
        for text in line::ending(&exit, dyno.size) {
            self.say(&dyno, &text);
        }
        self.ended(&dyno, exit);
    }

    /// No process of `dyno` is left.
    fn ended(&mut self, dyno: &Dyno, exit: Exit) {
        let told = dyno.state == DynoState::Stopping;
        match dyno.kind {
            DynoKind::Formation if !told => self.crash(dyno, exit),
            DynoKind::Formation | DynoKind::Build => self.forget(dyno.id),
            DynoKind::OneOff | DynoKind::Release => self.one_off_ended(dyno, exit, told),
        }
    }

    fn crash(&mut self, dyno: &Dyno, exit: Exit) {
        if self.state.apps.get(&dyno.app_id).is_none_or(|d| d.loading) {
            // Found dead at the daemon's start, not seen to crash: it is started with all that is missing.
            return self.forget(dyno.id);
        }
        let timing = *self.state.timing();
        let steady = dyno.state == DynoState::Up && after(dyno.since, timing.steady) <= self.now;
        let crashes = if steady { 1 } else { dyno.crashes.saturating_add(1) };
        let wait = timing.retry(crashes);
        self.enter(dyno.id, DynoState::Crashed);
        self.say(dyno, &line::next_try(wait, crashes));
        self.change(dyno.id, |d, now| {
            (d.exit, d.stopping, d.crashes, d.retry_at) = (Some(exit), None, crashes, Some(after(now, wait)));
        });
    }

    fn one_off_ended(&mut self, dyno: &Dyno, exit: Exit, told: bool) {
        let cause = exit.cause;
        self.change(dyno.id, |d, _| (d.exit, d.stopping) = (Some(exit), None));
        match cause {
            // Its log line was written when it was told.
            _ if told => self.change(dyno.id, |d, now| (d.state, d.since) = (DynoState::Down, now)),
            ExitCause::Exited => self.enter(dyno.id, DynoState::Complete),
            ExitCause::Stopped => self.enter(dyno.id, DynoState::Down),
            // Never "complete": what it was run for is not done.
            ExitCause::Memory | ExitCause::Time | ExitCause::Lost => self.enter(dyno.id, DynoState::Crashed),
        }
        if !self.state.apps.contains_key(&dyno.app_id) {
            return self.forget(dyno.id);
        }
        let over = |d: &&Dyno| d.kind != DynoKind::Formation && !d.is_alive();
        let ended = self.state.dynos.of_app(dyno.app_id).filter(over);
        let mut by_age: Vec<_> = ended.map(|d| (d.since, d.id)).collect();
        by_age.sort_unstable();
        for (_, id) in by_age.iter().rev().skip(MAX_ENDED) {
            self.forget(*id);
        }
    }

    /// Tells a launch that is in service to end; one without a process is forgotten at once.
    pub(super) fn end(&mut self, id: DynoId, told: Told) {
        let Some(dyno) = self.state.dyno(id).filter(|d| d.is_current()).cloned() else { return };
        if told == Told::Restart {
            self.say(&dyno, line::RESTARTING);
        }
        let next = match told {
            Told::Down => DynoState::Down,
            Told::Idle => DynoState::Idle,
            Told::Restart | Told::Retry => DynoState::Starting,
        };
        if dyno.state != next {
            self.say(&dyno, &line::changed(dyno.state.as_str(), next.as_str()));
        }
        if !dyno.is_alive() {
            return self.forget(id);
        }
        if dyno.stopping.is_none() {
            self.say(&dyno, line::SIGTERM_ALL);
            self.signal(id, SIGTERM);
        }
        let kill_at = after(self.now, self.state.timing().stop);
        self.change(id, |d, now| {
            (d.state, d.since) = (DynoState::Stopping, now);
            // A SIGKILL that is on its way already is not taken back.
            d.stopping.get_or_insert(Stopping { kill_at, killed: false });
        });
    }

    /// Puts a formation dyno to sleep: it is told to end, and what will be started in its place stands in the table already.
    pub(super) fn idle(&mut self, id: DynoId) {
        let Some(dyno) = self.living(id) else { return };
        self.say(&dyno, line::IDLING);
        self.end(id, Told::Idle);
        if let Some(next) = self.next(dyno.app_id, dyno.name, 0) {
            self.state.dynos.put(Dyno { state: DynoState::Idle, ..next });
        }
    }

    /// Starts a dyno that sleeps.
    pub(super) fn wake(&mut self, id: DynoId) {
        let Some(dyno) = self.state.dyno(id).filter(|d| d.state == DynoState::Idle).cloned() else { return };
        self.say(&dyno, line::UNIDLING);
        self.say(&dyno, &line::changed(dyno.state.as_str(), DynoState::Starting.as_str()));
        self.start(dyno);
    }

    /// Tries a crashed formation dyno again, under a new id.
    pub(super) fn retry(&mut self, id: DynoId) {
        let Some(dyno) = self.state.dyno(id).cloned() else { return };
        self.end(id, Told::Retry);
        self.launch(dyno.app_id, dyno.name, dyno.crashes);
    }

    pub(super) fn boot_timeout(&mut self, id: DynoId) {
        let Some(dyno) = self.living(id) else { return };
        self.say(&dyno, &line::boot_timeout(self.state.timing().boot));
        self.say(&dyno, line::SIGKILL_ONE);
        self.sigkill(id);
    }

    /// The time that SIGTERM gives is over, or was never to be given.
    pub(super) fn kill(&mut self, id: DynoId) {
        let Some(dyno) = self.living(id) else { return };
        match dyno.stopping {
            Some(stopping) if stopping.killed => {}
            Some(_) => {
                self.say(&dyno, &line::exit_timeout(self.state.timing().stop));
                self.say(&dyno, line::SIGKILL_REST);
            }
            None => {
                self.say(&dyno, line::SIGKILL_ONE);
                self.change(id, |d, now| (d.state, d.since) = (DynoState::Stopping, now));
            }
        }
        self.sigkill(id);
    }

    fn sigkill(&mut self, id: DynoId) {
        let kill_at = after(self.now, self.state.timing().kill_again);
        self.change(id, |d, _| d.stopping = Some(Stopping { kill_at, killed: true }));
        self.signal(id, SIGKILL);
    }

    /// Takes a launch of which no process is left from the table.
    pub(super) fn forget(&mut self, id: DynoId) {
        if self.state.dynos.take(id).is_some() {
            self.actions.push(Action::Forget { dyno_id: id });
        }
    }

    /// A copy of a launch that may have processes.
    fn living(&self, id: DynoId) -> Option<Dyno> {
        self.state.dyno(id).filter(|d| d.is_alive()).cloned()
    }

    /// Goes to another state, and says so.
    fn enter(&mut self, id: DynoId, to: DynoState) {
        let Some(dyno) = self.state.dyno(id).cloned() else { return };
        self.say(&dyno, &line::changed(dyno.state.as_str(), to.as_str()));
        self.change(id, |d, now| (d.state, d.since) = (to, now));
    }

    fn change(&mut self, id: DynoId, edit: impl FnOnce(&mut Dyno, jiff::Timestamp)) {
        let now = self.now;
        self.state.dynos.change(id, |dyno| edit(dyno, now));
    }

    fn signal(&mut self, dyno_id: DynoId, signal: i32) {
        self.actions.push(Action::Signal { dyno_id, signal });
    }

    /// One line in the app's log, unless the app is gone: its log would come back to life.
    fn say(&mut self, dyno: &Dyno, text: &str) {
        if self.state.apps.contains_key(&dyno.app_id) {
            let text = text.replace(['\r', '\n'], " ");
            self.actions.push(Action::Log { app_id: dyno.app_id, ps: dyno.name.to_string(), text });
        }
    }
}
