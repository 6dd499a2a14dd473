//! The world around the scheduler of a history: its processes, its daemons, and what it was promised.

use std::collections::BTreeSet;

use super::*;

/// A process on the host, as far as a scheduler can know it.
#[derive(Debug, Clone)]
pub struct Process {
    pub dyno: Dyno,
    launched: Timestamp,
    running: bool,
    bound: bool,
    /// When SIGTERM came.
    term: Option<Timestamp>,
    killed: bool,
    adopted: bool,
}

/// The world around the scheduler: carries out its actions and holds it to its promises.
#[derive(Debug)]
pub struct Host {
    pub state: State,
    now: Timestamp,
    daemons: u128,
    version: u32,
    runs: u32,
    /// What the store would hold.
    pub desired: BTreeMap<Uuid, (Option<CurrentRelease>, Formation)>,
    pub processes: BTreeMap<DynoId, Process>,
    launched: Vec<DynoId>,
    forgotten: BTreeSet<DynoId>,
    loading: bool,
    pub record: Vec<Action>,
}

impl Host {
    pub fn new() -> Self {
        Self {
            state: State::new(Uuid::from_u128(1)),
            now: Timestamp::UNIX_EPOCH,
            daemons: 1,
            version: 0,
            runs: 0,
            desired: BTreeMap::new(),
            processes: BTreeMap::new(),
            launched: Vec::new(),
            forgotten: BTreeSet::new(),
            loading: false,
            record: Vec::new(),
        }
    }

    pub fn happen(&mut self, what: Happening) {
        match what {
            Happening::Create(index) => {
                self.desired.entry(app_id(index)).or_default();
                self.tell(Event::AppCreated { app: app(app_id(index)) });
            }
            Happening::Destroy(index) => {
                self.desired.remove(&app_id(index));
                self.tell(Event::AppDestroyed { app_id: app_id(index) });
            }
            Happening::Release { app, quantities, in_slug } => self.release(app_id(app), quantities, in_slug),
            Happening::Scale { app, quantities, large } => {
                let formation = wish(quantities, large);
                if let Some((_, wanted)) = self.desired.get_mut(&app_id(app)) {
                    wanted.clone_from(&formation);
                }
                self.tell(Event::FormationChanged { app_id: app_id(app), formation });
            }
            Happening::Run(index) => {
                self.runs += 1;
                let name = format!("run.{}", self.runs);
                let dyno = one_off(app_id(index), Uuid::from_u128(0x1000 + u128::from(self.runs)), &name, DynoKind::OneOff);
                self.tell(Event::Run { dyno });
            }
            Happening::Restart { app, which } => self.tell(Event::Restart { app_id: app_id(app), which }),
            Happening::Stop { app, which } => self.tell(Event::Stop { app_id: app_id(app), which }),
            Happening::Started(pick) => self.with(pick, Self::started),
            Happening::Bound(pick) => self.with(pick, Self::bound),
            Happening::StartFailed(pick) => self.with(pick, |host, dyno_id| {
                if !host.processes[&dyno_id].running {
                    host.processes.remove(&dyno_id);
                    host.tell(Event::StartFailed { dyno_id, reason: "no disk".into(), code: None });
                }
            }),
            Happening::Exited(pick, cause) => self.with(pick, |host, id| host.exited(id, cause)),
            Happening::Echo(pick) => self.echo(pick),
            Happening::Quiet(index) => {
                self.tell(Event::Quiet { app_id: app_id(index) });
                assert!(self.state.dynos(app_id(index)).iter().all(|d| !d.binds_port() || d.state != DynoState::Up), "it is still up");
            }
            Happening::Visited(index) => {
                self.tell(Event::Visited { app_id: app_id(index) });
                assert!(self.state.dynos(app_id(index)).iter().all(|d| d.state != DynoState::Idle), "it sleeps on");
            }
            Happening::Wait(milliseconds) => self.wait(self.now + Duration::from_millis(milliseconds)),
            Happening::NewDaemon { dies } => self.new_daemon(dies),
        }
    }

    fn release(&mut self, app_id: Uuid, quantities: [u32; 3], in_slug: [bool; 3]) {
        self.version += 1;
        let kinds: Vec<_> = KINDS.into_iter().zip(in_slug).filter(|(_, is)| *is).map(|(kind, _)| kind).collect();
        let (release, formation) = (release(self.version, &kinds), wish(quantities, false));
        if let Some(desired) = self.desired.get_mut(&app_id) {
            *desired = (Some(release.clone()), formation.clone());
        }
        self.tell(Event::Released { app_id, release, formation });
        for dyno in self.state.dynos(app_id).into_iter().filter(|d| in_service(d)) {
            assert_eq!(dyno.release, self.version, "{} outlived a release", dyno.name);
        }
    }

    /// Something about the `pick`th process, if there is any.
    fn with(&mut self, pick: usize, what: impl FnOnce(&mut Self, DynoId)) {
        let ids: Vec<_> = self.processes.keys().copied().collect();
        if !ids.is_empty() {
            what(self, ids[pick % ids.len()]);
        }
    }

    fn started(&mut self, dyno_id: DynoId) {
        if let Some(process) = self.processes.get_mut(&dyno_id).filter(|p| !p.running) {
            process.running = true;
            self.tell(Event::Started { dyno_id });
        }
    }

    fn bound(&mut self, dyno_id: DynoId) {
        if let Some(process) = self.processes.get_mut(&dyno_id).filter(|p| p.running && p.dyno.binds_port()) {
            process.bound = true;
            self.tell(Event::Bound { dyno_id });
        }
    }

    fn exited(&mut self, dyno_id: DynoId, cause: ExitCause) {
        if self.processes[&dyno_id].running {
            self.processes.remove(&dyno_id);
            self.tell(Event::Exited { dyno_id, exit: exit(1, cause) });
        }
    }

    fn echo(&mut self, pick: usize) {
        let gone: Vec<_> = self.launched.iter().copied().filter(|id| !self.processes.contains_key(id)).collect();
        let dyno_id = if gone.is_empty() { Uuid::nil() } else { gone[pick % gone.len()] };
        let before = self.record.len();
        self.tell(Event::Started { dyno_id });
        self.tell(Event::Bound { dyno_id });
        self.tell(Event::StartFailed { dyno_id, reason: String::new(), code: Some("R17") });
        self.tell(Event::Exited { dyno_id, exit: exit(0, ExitCause::Exited) });
        assert_eq!(self.record.len(), before, "news of a dyno that is gone moved something");
    }

    fn wait(&mut self, until: Timestamp) {
        self.now = until;
        self.tell(Event::Tick);
        assert!(self.state.next_deadline().is_none_or(|at| at > self.now), "a tick left its own work undone");
    }

    fn new_daemon(&mut self, dies: usize) {
        self.daemons += 1;
        self.state = State::new(Uuid::from_u128(self.daemons));
        self.loading = true;
        for (id, (release, formation)) in self.desired.clone() {
            self.tell(Event::Loaded { app: app(id), release, formation });
        }
        // What the former daemon had only asked for never came to be.
        self.processes.retain(|_, p| p.running);
        for process in self.processes.values_mut() {
            (process.adopted, process.term, process.killed) = (true, None, false);
        }
        for process in self.processes.clone().into_values() {
            let up = process.bound || !process.dyno.binds_port();
            let state = if up { DynoState::Up } else { DynoState::Starting };
            self.tell(Event::Adopted { dyno: Dyno { state, ..process.dyno } });
        }
        self.with(dies, |host, id| host.exited(id, ExitCause::Lost));
        // Requests that come too early start nothing either.
        for app_id in self.desired.keys().copied().collect::<Vec<_>>() {
            self.tell(Event::Restart { app_id, which: Which::All });
            self.tell(Event::Stop { app_id, which: Which::Name("web.1".parse().unwrap()) });
        }
        self.wait(self.now + Duration::from_secs(1));
        self.loading = false;
        self.tell(Event::Settled);
    }

    /// One step, its actions carried out, all promises checked.
    fn tell(&mut self, event: Event) {
        let actions = step(&mut self.state, event, self.now);
        for action in &actions {
            self.carry_out(action);
        }
        self.record.extend(actions);
        self.check_promises();
    }

    fn carry_out(&mut self, action: &Action) {
        match action {
            Action::Start(dyno) => {
                assert!(!self.loading || dyno.kind == DynoKind::OneOff, "{} started before all was adopted", dyno.name);
                assert!(!self.launched.contains(&dyno.id), "an id was used twice");
                self.launched.push(dyno.id);
                let process =
                    Process { dyno: (**dyno).clone(), launched: self.now, running: false, bound: false, term: None, killed: false, adopted: false };
                self.processes.insert(dyno.id, process);
            }
            Action::Signal { dyno_id, signal } => {
                let now = self.now;
                let process = self.processes.get_mut(dyno_id).expect("a signal goes to what lives");
                if *signal == SIGTERM {
                    process.term.get_or_insert(now);
                } else {
                    let had_its_time = process.term.is_some_and(|at| at + Duration::from_secs(30) <= now);
                    let late = process.dyno.binds_port() && process.launched + Duration::from_secs(60) <= now;
                    assert!(had_its_time || late, "{} was killed early: {process:?}", process.dyno.name);
                    process.killed = true;
                }
            }
            Action::Log { app_id, text, .. } => {
                assert!(self.desired.contains_key(app_id), "a line for the log of an app that is gone");
                assert!(!text.contains('\n'));
            }
            Action::Forget { dyno_id } => {
                assert!(!self.processes.contains_key(dyno_id), "a living dyno was forgotten");
                assert!(self.forgotten.insert(*dyno_id), "forgotten twice");
            }
        }
    }

    fn check_promises(&self) {
        if !self.loading {
            for id in self.processes.keys() {
                assert!(self.state.dyno(*id).is_some(), "a process that the table does not know");
            }
        }
        for (app_id, desired) in &self.desired {
            let dynos = self.state.dynos(*app_id);
            let mut serving: Vec<_> = dynos.iter().filter(|d| in_service(d)).map(|d| d.name.to_string()).collect();
            serving.sort();
            let wanted = wanted_names(desired);
            if self.loading {
                assert!(serving.windows(2).all(|w| w[0] != w[1]) && serving.iter().all(|n| wanted.contains(n)), "{serving:?} {wanted:?}");
            } else {
                // Never more than wanted, never two of a name; and what is missing is at least on its way.
                assert_eq!(serving, wanted);
            }
            for dyno in dynos {
                assert_eq!(dyno.is_alive(), self.processes.contains_key(&dyno.id), "{dyno:?}");
                assert_eq!(dyno.retry_at.is_some(), dyno.state == DynoState::Crashed && dyno.kind == DynoKind::Formation, "{dyno:?}");
                assert!(dyno.stopping.is_none() || dyno.is_alive(), "{dyno:?}");
                assert!(dyno.stopping.is_some() || dyno.state != DynoState::Stopping, "{dyno:?}");
                assert_eq!(self.state.dyno(dyno.id), Some(dyno));
            }
        }
    }

    /// Everything that can happen of itself does, until nothing more does.
    pub fn settle(&mut self) {
        for _ in 0..1000 {
            for id in self.processes.keys().copied().collect::<Vec<_>>() {
                self.started(id);
                self.bound(id);
                if self.processes.get(&id).is_some_and(|p| p.term.is_some() || p.killed) {
                    self.exited(id, ExitCause::Stopped);
                }
            }
            match self.state.next_deadline() {
                Some(at) => self.wait(at.max(self.now)),
                None => return,
            }
        }
        panic!("this never comes to rest: {:?}", self.state);
    }
}

fn in_service(dyno: &Dyno) -> bool {
    dyno.kind == DynoKind::Formation && dyno.is_current()
}

fn wish(quantities: [u32; 3], large: bool) -> Formation {
    let size = if large { "standard-2x" } else { "standard-1x" };
    let words: Vec<_> = KINDS.iter().zip(quantities).map(|(kind, quantity)| format!("{kind}={quantity}:{size}")).collect();
    formation(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

pub fn wanted_names((release, formation): &(Option<CurrentRelease>, Formation)) -> Vec<String> {
    let types = release.as_ref().and_then(|r| r.slug.as_ref()).map(|s| s.process_types.clone()).unwrap_or_default();
    let wanted = formation.iter().filter(|(kind, _)| types.contains_key(kind));
    let mut names: Vec<_> = wanted.flat_map(|(kind, entry)| (1..=entry.quantity).map(move |n| format!("{kind}.{n}"))).collect();
    names.sort();
    names
}
