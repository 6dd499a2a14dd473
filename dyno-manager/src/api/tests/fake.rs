//! An engine without a kernel: the real scheduler, dynos that are up at once and end when a test says so; and a
//! compiler whose builds end when a test says so.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::{
    build::{BuildRequest, Finish, Outcome, OutputReader, SlugCompiler, StartError},
    logs::{LogHub, Source},
    model::{DynoId, Exit, ExitCause, Slug},
    platform::Engine,
    schedule::{self, Action, Dyno, Event, State},
    warden::StdioFds,
};

/// The dyno's own ends of its streams.
pub enum Inside {
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    Tty(OwnedFd),
}

/// None while it runs; then the exit, or None again if it never ran.
type Ending = watch::Sender<Option<Option<Exit>>>;

pub struct FakeEngine {
    hub: LogHub,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    endings: Mutex<HashMap<DynoId, Ending>>,
    outside: Mutex<HashMap<DynoId, StdioFds>>,
    inside: Mutex<HashMap<DynoId, Inside>>,
    /// Dynos ignore SIGTERM.
    pub stubborn: AtomicBool,
    /// Signals other than the scheduler's own.
    signals: mpsc::UnboundedSender<(DynoId, i32)>,
}

pub fn exit(status: i32, cause: ExitCause) -> Exit {
    Exit { status, cause, memory_peak: Some(1), oom_kills: 0, cpu_us: 1, wall_us: 1 }
}

impl FakeEngine {
    pub fn new(hub: LogHub) -> (Arc<Self>, mpsc::UnboundedReceiver<(DynoId, i32)>) {
        let (signals, sent) = mpsc::unbounded_channel();
        let engine = Self {
            hub,
            state: Mutex::new(State::new(Uuid::from_u128(7))),
            changed: watch::channel(0).0,
            endings: Mutex::default(),
            outside: Mutex::default(),
            inside: Mutex::default(),
            stubborn: AtomicBool::new(false),
            signals,
        };
        (Arc::new(engine), sent)
    }

    fn step(&self, event: Event) {
        self.step_at(event, Timestamp::now());
    }

    /// What the scheduler does by itself, were it `seconds` later.
    pub fn later(&self, seconds: u64) {
        self.step_at(Event::Tick, Timestamp::now() + std::time::Duration::from_secs(seconds));
    }

    fn step_at(&self, event: Event, now: Timestamp) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if let Event::Exited { dyno_id, exit } = &event {
                self.ending(*dyno_id).send_replace(Some(Some(exit.clone())));
            }
            let actions = schedule::step(&mut self.state.lock().unwrap(), event, now);
            events.extend(actions.into_iter().flat_map(|action| self.carry_out(action)));
        }
        self.changed.send_modify(|n| *n += 1);
    }

    fn carry_out(&self, action: Action) -> Vec<Event> {
        match action {
            Action::Start(dyno) if dyno.command == "cannot-start" => {
                self.ending(dyno.id).send_replace(Some(None));
                vec![Event::StartFailed { dyno_id: dyno.id, reason: "no image".into(), code: Some("R17") }]
            }
            Action::Start(dyno) => self.start(&dyno),
            Action::Signal { signal: schedule::SIGTERM, .. } if self.stubborn.load(Ordering::Relaxed) => vec![],
            Action::Signal { dyno_id, signal } => {
                vec![Event::Exited { dyno_id, exit: exit(128 + signal, ExitCause::Stopped) }]
            }
            Action::Log { app_id, ps, text } => {
                self.hub.publish(app_id, Source::Platform, &ps, &text, Timestamp::now());
                vec![]
            }
            Action::Forget { .. } => vec![],
        }
    }

    fn start(&self, dyno: &Dyno) -> Vec<Event> {
        if dyno.attached {
            let (outside, inside) = streams(dyno.tty);
            self.outside.lock().unwrap().insert(dyno.id, outside);
            self.inside.lock().unwrap().insert(dyno.id, inside);
        }
        let started = Event::Started { dyno_id: dyno.id };
        if dyno.binds_port() { vec![started, Event::Bound { dyno_id: dyno.id }] } else { vec![started] }
    }

    fn ending(&self, id: DynoId) -> Ending {
        self.endings.lock().unwrap().entry(id).or_insert_with(|| watch::channel(None).0).clone()
    }

    /// A dyno ends of its own accord.
    pub fn end(&self, id: DynoId, status: i32) {
        self.step(Event::Exited { dyno_id: id, exit: exit(status, ExitCause::Exited) });
    }

    /// What the process of an attached dyno would hold.
    pub fn inside(&self, id: DynoId) -> Inside {
        self.inside.lock().unwrap().remove(&id).expect("an attached dyno")
    }

    pub fn release(&self, app_id: Uuid) -> Option<schedule::CurrentRelease> {
        self.state.lock().unwrap().release(app_id).cloned()
    }
}

fn streams(tty: Option<(u16, u16)>) -> (StdioFds, Inside) {
    if tty.is_some() {
        use rustix::{fs, pty};
        let master = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
        pty::unlockpt(&master).unwrap();
        let name = pty::ptsname(&master, Vec::new()).unwrap();
        let slave = fs::open(name, fs::OFlags::RDWR | fs::OFlags::NOCTTY, fs::Mode::empty()).unwrap();
        return (StdioFds::Tty(master), Inside::Tty(slave));
    }
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let ((in_read, in_write), (out_read, out_write), (err_read, err_write)) = (pipe(), pipe(), pipe());
    let outside = StdioFds::Pipes { stdin: in_write, stdout: out_read, stderr: err_read };
    (outside, Inside::Pipes { stdin: in_read, stdout: out_write, stderr: err_write })
}

impl Engine for FakeEngine {
    fn apply(&self, event: Event) -> BoxFuture<'_, ()> {
        Box::pin(async { self.step(event) })
    }

    fn dynos(&self, app_id: Uuid) -> Vec<Dyno> {
        self.state.lock().unwrap().dynos(app_id).into_iter().cloned().collect()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn take_attach(&self, dyno: DynoId) -> BoxFuture<'_, Option<StdioFds>> {
        Box::pin(async move { self.outside.lock().unwrap().remove(&dyno) })
    }

    fn exit(&self, dyno: DynoId) -> BoxFuture<'_, Option<Exit>> {
        let mut ending = self.ending(dyno).subscribe();
        Box::pin(async move { ending.wait_for(Option::is_some).await.ok().and_then(|e| e.clone()).flatten() })
    }

    fn signal(&self, dyno: DynoId, signal: i32) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.signals.send((dyno, signal)).unwrap() })
    }
}

/// Takes one build at a time and holds it.
pub struct FakeCompiler {
    slugs: std::path::PathBuf,
    held: Mutex<Option<(BuildRequest, Finish)>>,
}

impl FakeCompiler {
    pub fn new(state: &std::path::Path) -> Arc<Self> {
        let slugs = state.join("slugs");
        std::fs::create_dir_all(&slugs).unwrap();
        Arc::new(Self { slugs, held: Mutex::default() })
    }

    /// The build that is held, with its source as uploaded.
    pub fn request(&self) -> (crate::model::Build, Vec<u8>) {
        let held = self.held.lock().unwrap();
        let (request, _) = held.as_ref().expect("a build");
        (request.build.clone(), std::fs::read(&request.source).unwrap())
    }

    pub async fn fail(&self, error: &str) -> Result<Vec<String>, String> {
        let (request, finish) = self.held.lock().unwrap().take().expect("a build");
        std::fs::remove_file(&request.source).unwrap();
        finish(Outcome::Failed { error: error.into() }).await
    }

    /// Ends the held build with a slug of these process types.
    pub async fn succeed(&self, types: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let (request, finish) = self.held.lock().unwrap().take().expect("a build");
        let sha256 = request.build.source_sha256.clone();
        std::fs::rename(&request.source, self.slugs.join(format!("{sha256}.sqsh"))).unwrap();
        let process_types = types.iter().map(|(name, command)| (name.parse().unwrap(), (*command).to_owned())).collect();
        let slug = Slug {
            id: Uuid::new_v4(),
            app_id: request.app.id,
            sha256,
            size: 4096,
            process_types,
            buildpack: "Python".into(),
            stack: "0".repeat(64),
            commit: None,
            created_at: Timestamp::now(),
        };
        finish(Outcome::Built(slug)).await
    }
}

impl SlugCompiler for FakeCompiler {
    fn start(&self, request: BuildRequest, finish: Finish) -> Result<(), StartError> {
        *self.held.lock().unwrap() = Some((request, finish));
        Ok(())
    }

    fn output(&self, _: Uuid) -> BoxFuture<'_, std::io::Result<Option<OutputReader>>> {
        Box::pin(async { Ok(None) })
    }

    fn cancel(&self, build: Uuid) -> bool {
        self.held.lock().unwrap().as_ref().is_some_and(|(request, _)| request.build.id == build)
    }

    fn purge_cache(&self, _: Uuid) -> BoxFuture<'_, std::io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
