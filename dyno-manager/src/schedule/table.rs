//! Every launch that is not forgotten: by id, by app in order of name, and by deadline.
//!
//! The indexes make a step cost what its own app costs, however many other apps there are.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use uuid::Uuid;

use super::{Dyno, Timing, timing::after};
use crate::model::{DynoId, DynoName, DynoState};

/// Launches of one name stand together, the oldest first.
type ByName = BTreeSet<(DynoName, Timestamp, DynoId)>;

/// The launches and their indexes.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    timing: Timing,
    by_id: BTreeMap<DynoId, Dyno>,
    by_app: BTreeMap<Uuid, ByName>,
    deadlines: BTreeSet<(Timestamp, DynoId)>,
}

impl Table {
    pub fn new(timing: Timing) -> Self {
        Self { timing, ..Self::default() }
    }

    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    pub fn get(&self, id: DynoId) -> Option<&Dyno> {
        self.by_id.get(&id)
    }

    /// The launches of an app, by name.
    pub fn of_app(&self, app_id: Uuid) -> impl Iterator<Item = &Dyno> {
        self.by_app.get(&app_id).into_iter().flatten().filter_map(|(_, _, id)| self.by_id.get(id))
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Launches whose deadline has come, the longest overdue first.
    pub fn due(&self, now: Timestamp) -> Vec<DynoId> {
        self.deadlines.range(..=(now, DynoId::max())).map(|(_, id)| *id).collect()
    }

    /// Adds a launch, or replaces the one of the same id.
    pub fn put(&mut self, dyno: Dyno) {
        self.take(dyno.id);
        self.by_app.entry(dyno.app_id).or_default().insert(key(&dyno));
        self.deadlines.extend(deadline(&dyno, &self.timing).map(|at| (at, dyno.id)));
        self.by_id.insert(dyno.id, dyno);
    }

    /// Changes a launch in place.
    pub fn change(&mut self, id: DynoId, edit: impl FnOnce(&mut Dyno)) {
        if let Some(mut dyno) = self.take(id) {
            edit(&mut dyno);
            self.put(dyno);
        }
    }

    /// Removes a launch.
    pub fn take(&mut self, id: DynoId) -> Option<Dyno> {
        let dyno = self.by_id.remove(&id)?;
        if let Some(at) = deadline(&dyno, &self.timing) {
            self.deadlines.remove(&(at, id));
        }
        if let Some(names) = self.by_app.get_mut(&dyno.app_id) {
            names.remove(&key(&dyno));
            if names.is_empty() {
                self.by_app.remove(&dyno.app_id);
            }
        }
        Some(dyno)
    }
}

fn key(dyno: &Dyno) -> (DynoName, Timestamp, DynoId) {
    (dyno.name.clone(), dyno.created_at, dyno.id)
}

/// When time alone changes something about a launch.
fn deadline(dyno: &Dyno, timing: &Timing) -> Option<Timestamp> {
    if dyno.exit.is_some() {
        return Some(dyno.retry_at.unwrap_or_else(|| after(dyno.since, timing.keep_ended)));
    }
    if let Some(stopping) = dyno.stopping {
        return Some(stopping.kill_at);
    }
    let boots = dyno.state == DynoState::Starting && dyno.binds_port();
    boots.then(|| after(dyno.since, timing.boot))
}
