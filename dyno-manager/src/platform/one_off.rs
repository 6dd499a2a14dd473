//! One-offs: who may attach to them, and how they ended.
//!
//! ```text
//!   run ──▶ waiting for its client ──GET /attach/<secret>──▶ attached ──▶ ended, exit known
//!                 │ 30 s
//!                 └──▶ R13, stopped
//! ```
//! The scheduler forgets a one-off when it ends; the last ones are remembered here, so that a client that
//! asks late still learns the exit status.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use uuid::Uuid;

use super::{Engine, secret};
use crate::{
    model::{DynoId, DynoState, Exit, ExitCause},
    schedule::Dyno,
    warden::StdioFds,
};

/// How long a one-off waits for its client.
pub const ATTACH_WAIT: Duration = Duration::from_secs(30);
/// Ended one-offs that are remembered, over all apps.
const REMEMBERED: usize = 256;

/// The right to attach to one dyno, once.
pub struct Ticket {
    /// The dyno.
    pub dyno: DynoId,
    /// Its app.
    pub app_id: Uuid,
    /// `run.13`.
    pub ps: String,
    /// Resolves when it has started; None if it never will.
    pub streams: BoxFuture<'static, Option<StdioFds>>,
    /// Some once it has ended.
    pub exit: watch::Receiver<Option<Exit>>,
}

/// Tickets given out, and one-offs that ended.
#[derive(Default)]
pub struct OneOffs {
    tickets: Mutex<HashMap<String, Ticket>>,
    ended: Mutex<VecDeque<Dyno>>,
}

impl OneOffs {
    /// Follows a dyno that has just been asked for, to its end; with `attach` gives the secret of its ticket.
    pub fn follow(self: &Arc<Self>, engine: &Arc<dyn Engine>, dyno: &Dyno, attach: bool) -> Option<String> {
        let (told, exit) = watch::channel(None);
        tokio::spawn(follow(self.clone(), engine.clone(), dyno.clone(), told));
        if !attach {
            return None;
        }
        let (id, held) = (dyno.id, engine.clone());
        // Taken now, not when the client comes: the streams must outlive a command that ends at once.
        let streams = tokio::spawn(async move { held.take_attach(id).await });
        let ticket =
            Ticket { dyno: id, app_id: dyno.app_id, ps: dyno.name.to_string(), streams: Box::pin(async move { streams.await.ok().flatten() }), exit };
        let secret = secret();
        self.tickets().insert(secret.clone(), ticket);
        Some(secret)
    }

    /// Redeems a ticket.
    pub fn claim(&self, secret: &str) -> Option<Ticket> {
        self.tickets().remove(secret)
    }

    /// An ended one-off.
    pub fn ended(&self, app_id: Uuid, matches: impl Fn(&Dyno) -> bool) -> Option<Dyno> {
        self.ended_list().iter().rev().find(|d| d.app_id == app_id && matches(d)).cloned()
    }

    /// Remembers how a dyno ended.
    fn remember(&self, dyno: Dyno) {
        let mut ended = self.ended_list();
        if ended.len() == REMEMBERED {
            ended.pop_front();
        }
        ended.push_back(dyno);
    }

    fn tickets(&self) -> MutexGuard<'_, HashMap<String, Ticket>> {
        self.tickets.lock().expect("no panic happens under this lock")
    }

    fn ended_list(&self) -> MutexGuard<'_, VecDeque<Dyno>> {
        self.ended.lock().expect("no panic happens under this lock")
    }
}

async fn follow(one_offs: Arc<OneOffs>, engine: Arc<dyn Engine>, dyno: Dyno, told: watch::Sender<Option<Exit>>) {
    let exit = engine.exit(dyno.id).await.unwrap_or_else(never_ran);
    // The scheduler's last word on it, if it still has one.
    let last = engine.dynos(dyno.app_id).into_iter().find(|d| d.id == dyno.id && d.exit.is_some());
    let last = last.unwrap_or_else(|| Dyno { state: DynoState::Complete, since: jiff::Timestamp::now(), exit: Some(exit.clone()), ..dyno });
    one_offs.remember(last);
    told.send_replace(Some(exit));
}

/// The exit of a dyno that could not be started: status 1, as a shell says of a command it could not set up.
pub fn never_ran() -> Exit {
    Exit { status: 1, cause: ExitCause::Lost, memory_peak: None, oom_kills: 0, cpu_us: 0, wall_us: 0 }
}
