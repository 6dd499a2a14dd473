//! Apps that nobody visits fall asleep. That a request wakes one is the router's word (`router::Dial::wake`); that none came is seen here.
//!
//! An app that sleeps keeps one sandbox parked, behind its walls and without a program: the first dyno that the request has started takes it.
//! What is parked is a matter of speed alone. It goes with the warden, and nothing waits for it.

use std::{collections::VecDeque, sync::Mutex, time::Duration};

use dyno_runtime::Sandbox;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use super::{Supervisor, launch, lock};
use crate::{model::DynoState, schedule::Event, warden::Client};

/// Tells the warden what is to be parked, in the order in which it was decided.
pub(super) async fn keep_parked(warden: Client, mut wanted: mpsc::UnboundedReceiver<(Sandbox, usize)>) {
    while let Some((sandbox, count)) = wanted.recv().await {
        if let Err(e) = warden.park(sandbox, count).await {
            tracing::debug!(count, %e, "park");
        }
    }
}

/// What is parked for which app, the longest first.
pub(super) type Parked = Mutex<VecDeque<(Uuid, Sandbox)>>;

impl Supervisor {
    /// Tells the scheduler of each app whose web dynos have had nothing to do for `patience`. It wakes at the moment at which the next
    /// of those that it knows can be due; what happens in the meantime makes nobody due earlier.
    pub(super) async fn keep_quiet(self, patience: Duration) {
        loop {
            let now = Instant::now();
            let mut next = now + patience;
            let apps: Vec<_> = lock(&self.0.routed).iter().map(|(id, name)| (*id, name.clone())).collect();
            for (app_id, name) in apps {
                match self.0.table.quiet_since(&name).map(|since| since + patience) {
                    Some(due) if due > now => next = next.min(due),
                    Some(_) if self.0.table.close_if_quiet(&name, now - patience) => {
                        self.take(Event::Quiet { app_id });
                        self.park(app_id);
                    }
                    _ => {}
                }
            }
            sleep_until(next).await;
        }
    }

    /// Has a sandbox parked for an app that has just fallen asleep; of too many the oldest goes.
    fn park(&self, app_id: Uuid) {
        let Some(sandbox) = self.asleep(app_id) else { return };
        let mut parked = lock(&self.0.parked);
        parked.push_back((app_id, sandbox.clone()));
        let surplus = parked.len().saturating_sub(self.0.settings.parked);
        let gone: Vec<_> = parked.drain(..surplus).collect();
        let kept = parked.back().is_some_and(|(id, _)| *id == app_id);
        drop(parked);
        for (_, sandbox) in gone {
            self.tell_parked(sandbox);
        }
        if kept {
            self.tell_parked(sandbox);
        }
    }

    /// Lets go of what is parked for an app, unless it sleeps.
    pub(super) fn unpark(&self, app_id: Uuid) {
        let find = |parked: &VecDeque<(Uuid, Sandbox)>| parked.iter().position(|(id, _)| *id == app_id);
        if find(&lock(&self.0.parked)).is_none() || self.asleep(app_id).is_some() {
            return;
        }
        let mut parked = lock(&self.0.parked);
        let sandbox = find(&parked).and_then(|at| parked.remove(at)).map(|(_, sandbox)| sandbox);
        drop(parked);
        sandbox.into_iter().for_each(|sandbox| self.tell_parked(sandbox));
    }

    /// The walls of the app's first dyno that sleeps; what a parked sandbox leaves open is left out.
    fn asleep(&self, app_id: Uuid) -> Option<Sandbox> {
        let state = lock(&self.0.state);
        let dyno = state.dynos(app_id).into_iter().find(|d| d.state == DynoState::Idle)?;
        let (app, release) = (state.app(app_id)?, state.release(app_id)?);
        let mut sandbox = launch::launch(&self.0.settings, app, release, dyno).ok()?.sandbox;
        sandbox.argv.truncate(1);
        sandbox.env.clear();
        sandbox.hostname = "parked".to_owned();
        Some(sandbox)
    }

    /// Apps of the same slug have the same walls: as many of these are to be parked as sleep.
    fn tell_parked(&self, sandbox: Sandbox) {
        let parked = lock(&self.0.parked);
        let count = parked.iter().filter(|(_, other)| *other == sandbox).count();
        // Only a supervisor that ends no longer listens.
        drop(self.0.parking.send((sandbox, count)));
    }
}
