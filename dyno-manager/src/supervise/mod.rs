//! Carries out what `schedule` decides: starts dynos through the warden, follows their logs and ends, keeps the routing
//! table in step, and takes up what runs when the daemon starts again.
//!
//! ```text
//!  Start ─▶ warden.start ─▶ Started ─▶ (web) $PORT answers ─▶ Bound
//!              │ refused                    │ pidfd readable
//!              ▼                            ▼
//!          StartFailed             exit record, log drained ─▶ Exited ─▶ warden.free
//! ```

mod adopt;
mod boot;
mod follow;
mod launch;
mod routes;
mod sleep;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dyno_runtime::Sandbox;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
};
use uuid::Uuid;

use self::sleep::Parked;
use crate::{
    build::Image,
    logs::{LogHub, Source},
    model::{DynoId, Exit},
    platform::Engine,
    router,
    schedule::{self, Action, Dyno, Event, State, Timing},
    warden::{Client, StdioFds},
};

/// The port that web dynos are told to bind. Every dyno has a network of its own, so all can have the same.
pub const PORT: u16 = 5000;

/// How dynos are run; the operator's.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The stack image.
    pub stack: Image,
    /// Where slugs are: `<sha256>.sqsh`.
    pub slugs: PathBuf,
    /// Time limits of the scheduler.
    pub timing: Timing,
    /// Web dynos of an app without exchanges fall asleep after this long, if ever.
    pub sleep_after: Option<Duration>,
    /// Apps that sleep and have a sandbox parked.
    pub parked: usize,
}

/// The supervisor. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    settings: Settings,
    warden: Client,
    logs: LogHub,
    table: Arc<router::Table>,
    state: Mutex<State>,
    live: Mutex<HashMap<DynoId, Arc<Live>>>,
    routed: Mutex<HashMap<Uuid, crate::model::AppName>>,
    parked: Parked,
    parking: mpsc::UnboundedSender<(Sandbox, usize)>,
    changed: watch::Sender<u64>,
}

/// What is held for one dyno while it is in the scheduler's table.
struct Live {
    phase: watch::Sender<Phase>,
    streams: Mutex<Option<StdioFds>>,
}

/// How far a launch has come.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Starting,
    Started,
    Failed,
    Ended(Exit),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Supervisor {
    /// A supervisor without any app; [`crate::platform::Platform::load`] and [`Self::adopt`] fill it.
    pub fn new(settings: Settings, warden: Client, logs: LogHub, table: Arc<router::Table>) -> Self {
        let state = State::with_timing(Uuid::new_v4(), settings.timing);
        let (parking, wanted) = mpsc::unbounded_channel();
        tokio::spawn(sleep::keep_parked(warden.clone(), wanted));
        let this = Self(Arc::new(Inner {
            settings,
            warden,
            logs,
            table,
            state: Mutex::new(state),
            live: Mutex::default(),
            routed: Mutex::default(),
            parked: Parked::default(),
            parking,
            changed: watch::channel(0).0,
        }));
        tokio::spawn(this.clone().keep_time());
        if let Some(patience) = this.0.settings.sleep_after {
            tokio::spawn(this.clone().keep_quiet(patience));
        }
        this
    }

    /// Takes one event: one step, its actions begun, the routing table in step.
    fn take(&self, event: Event) {
        let (app, actions) = {
            let mut state = lock(&self.0.state);
            let app = routes::app_of(&event, &state);
            let actions = schedule::step(&mut state, event, Timestamp::now());
            self.route(&state, app);
            (app, actions)
        };
        if let Some(app) = app
            && !actions.iter().any(|a| matches!(a, Action::Start(_)))
        {
            // A start comes first: what is parked is for it.
            self.unpark(app);
        }
        for action in actions {
            self.carry_out(action);
        }
        self.0.changed.send_modify(|n| *n += 1);
    }

    fn carry_out(&self, action: Action) {
        match action {
            Action::Start(dyno) => {
                self.expect(dyno.id);
                tokio::spawn(self.clone().start(*dyno));
            }
            Action::Signal { dyno_id, signal } => {
                let warden = self.0.warden.clone();
                tokio::spawn(async move {
                    // A dyno that has just ended is told so by its pidfd; one not yet started is signalled again.
                    if let Err(e) = warden.signal(dyno_id, signal).await {
                        tracing::debug!(%dyno_id, signal, %e, "signal");
                    }
                });
            }
            Action::Log { app_id, ps, text } => self.0.logs.publish(app_id, Source::Platform, &ps, &text, Timestamp::now()),
            Action::Forget { dyno_id } => drop(lock(&self.0.live).remove(&dyno_id)),
        }
    }

    fn expect(&self, id: DynoId) -> Arc<Live> {
        let live = Arc::new(Live { phase: watch::channel(Phase::Starting).0, streams: Mutex::new(None) });
        lock(&self.0.live).insert(id, live.clone());
        live
    }

    fn live(&self, id: DynoId) -> Option<Arc<Live>> {
        lock(&self.0.live).get(&id).cloned()
    }

    /// Feeds `Tick` at each deadline of the scheduler.
    async fn keep_time(self) {
        let mut changed = self.0.changed.subscribe();
        loop {
            let deadline = lock(&self.0.state).next_deadline();
            let sleep = async {
                match deadline {
                    Some(at) => {
                        let left = at.duration_since(Timestamp::now());
                        tokio::time::sleep(left.try_into().unwrap_or_default()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => self.take(Event::Tick),
                gone = changed.changed() => if gone.is_err() { return },
            }
        }
    }
}

impl Engine for Supervisor {
    fn apply(&self, event: Event) -> BoxFuture<'_, ()> {
        self.take(event);
        Box::pin(std::future::ready(()))
    }

    fn dynos(&self, app_id: Uuid) -> Vec<Dyno> {
        lock(&self.0.state).dynos(app_id).into_iter().cloned().collect()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    fn take_attach(&self, dyno: DynoId) -> BoxFuture<'_, Option<StdioFds>> {
        let live = self.live(dyno);
        Box::pin(async move {
            let live = live?;
            let mut phase = live.phase.subscribe();
            phase.wait_for(|p| *p != Phase::Starting).await.ok()?;
            lock(&live.streams).take()
        })
    }

    fn exit(&self, dyno: DynoId) -> BoxFuture<'_, Option<Exit>> {
        let live = self.live(dyno);
        Box::pin(async move {
            let mut phase = live?.phase.subscribe();
            let end = phase.wait_for(|p| matches!(p, Phase::Failed | Phase::Ended(_))).await.ok()?;
            if let Phase::Ended(exit) = &*end { Some(exit.clone()) } else { None }
        })
    }

    fn signal(&self, dyno: DynoId, signal: i32) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(e) = self.0.warden.signal(dyno, signal).await {
                tracing::debug!(%dyno, signal, %e, "signal");
            }
        })
    }
}

impl router::Dial for Supervisor {
    fn dial(&self, dyno: DynoId) -> BoxFuture<'_, std::io::Result<TcpStream>> {
        Box::pin(self.0.warden.connect(dyno, PORT))
    }

    fn wake(&self, app: Uuid) {
        self.take(Event::Visited { app_id: app });
    }
}
