//! The scheduler's memory: what is wanted of every app, and every launch that is not forgotten.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::{CurrentRelease, Dyno, Timing};
use crate::model::{App, DynoId, Formation};

/// What is wanted of one app.
#[derive(Debug, Clone)]
pub(super) struct Desired {
    pub app: App,
    pub release: Option<CurrentRelease>,
    pub formation: Formation,
    /// Between `Loaded` and `Settled`: what runs is not known yet, so nothing is started.
    pub loading: bool,
}

/// Everything that [`super::step`] decides from. Only `step` changes it.
#[derive(Debug, Clone)]
pub struct State {
    pub(super) timing: Timing,
    pub(super) seed: Uuid,
    pub(super) apps: BTreeMap<Uuid, Desired>,
    pub(super) dynos: BTreeMap<DynoId, Dyno>,
}

impl State {
    /// An empty state. `seed` is drawn afresh at every start of the daemon: ids of launches derive from it.
    pub fn new(seed: Uuid) -> Self {
        Self::with_timing(seed, Timing::default())
    }

    /// [`Self::new`] with other patience.
    pub fn with_timing(seed: Uuid, timing: Timing) -> Self {
        Self { timing, seed, apps: BTreeMap::new(), dynos: BTreeMap::new() }
    }

    /// The patience in use.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// When [`super::Event::Tick`] has something to do next, if ever.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        None
    }

    /// All dynos of an app in order of name: running, stopping (old launches of a name included), crashed, and one-offs that ended lately.
    pub fn dynos(&self, app_id: Uuid) -> Vec<&Dyno> {
        self.dynos.values().filter(|d| d.app_id == app_id).collect()
    }

    /// One dyno.
    pub fn dyno(&self, id: DynoId) -> Option<&Dyno> {
        self.dynos.get(&id)
    }

    /// The release in force.
    pub fn release(&self, app_id: Uuid) -> Option<&CurrentRelease> {
        self.apps.get(&app_id)?.release.as_ref()
    }

    /// What is wanted of an app.
    pub fn formation(&self, app_id: Uuid) -> Option<&Formation> {
        Some(&self.apps.get(&app_id)?.formation)
    }

    /// One app.
    pub fn app(&self, id: Uuid) -> Option<&App> {
        Some(&self.apps.get(&id)?.app)
    }

    /// All apps.
    pub fn apps(&self) -> impl Iterator<Item = &App> {
        self.apps.values().map(|d| &d.app)
    }
}
