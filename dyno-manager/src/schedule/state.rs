//! The scheduler's memory: what is wanted of every app, and every launch that is not forgotten.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{CurrentRelease, Dyno, Timing, table::Table};
use crate::model::{App, DynoId, DynoName, DynoSize, Formation, FormationEntry, MAX_QUANTITY, ProcessType};

/// What is wanted of one app.
#[derive(Debug, Clone)]
pub(super) struct Desired {
    pub app: App,
    pub release: Option<CurrentRelease>,
    pub formation: Formation,
    /// Between `Loaded` and `Settled`: what runs is not known yet, so nothing is started.
    pub loading: bool,
}

/// What a formation dyno is to be started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spec<'a> {
    pub command: &'a str,
    pub size: DynoSize,
    pub release: u32,
}

impl Desired {
    /// What is wanted under `name`: None for a number above the quantity, and for a type that the current slug lacks.
    pub fn spec(&self, name: &DynoName) -> Option<Spec<'_>> {
        let entry = self.formation.get(&name.process_type)?;
        if !(1..=entry.quantity.min(MAX_QUANTITY)).contains(&name.number) {
            return None;
        }
        let release = self.release.as_ref()?;
        let command = release.slug.as_ref()?.process_types.get(&name.process_type)?;
        Some(Spec { command, size: entry.size, release: release.version })
    }

    /// All names that are wanted: `web.1` to `web.N` of every type.
    pub fn names(&self) -> impl Iterator<Item = DynoName> {
        let numbered = |(kind, entry): (&ProcessType, &FormationEntry)| {
            let kind = kind.clone();
            (1..=entry.quantity.min(MAX_QUANTITY)).map(move |number| DynoName::new(kind.clone(), number))
        };
        self.formation.iter().flat_map(numbered).filter(|name| self.spec(name).is_some())
    }

    /// True when a running formation dyno is just what is wanted under its name.
    pub fn fits(&self, dyno: &Dyno) -> bool {
        self.spec(&dyno.name).is_some_and(|spec| spec.release == dyno.release && spec.size == dyno.size)
    }
}

/// Everything that [`super::step`] decides from. Only `step` changes it.
#[derive(Debug, Clone)]
pub struct State {
    seed: Uuid,
    launches: u64,
    pub(super) apps: BTreeMap<Uuid, Desired>,
    pub(super) dynos: Table,
}

impl State {
    /// An empty state. `seed` is drawn afresh at every start of the daemon: ids of launches derive from it.
    pub fn new(seed: Uuid) -> Self {
        Self::with_timing(seed, Timing::default())
    }

    /// [`Self::new`] with other patience.
    pub fn with_timing(seed: Uuid, timing: Timing) -> Self {
        Self { seed, launches: 0, apps: BTreeMap::new(), dynos: Table::new(timing) }
    }

    /// The patience in use.
    pub fn timing(&self) -> &Timing {
        self.dynos.timing()
    }

    /// When [`super::Event::Tick`] has something to do next, if ever.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.dynos.next_deadline()
    }

    /// All dynos of an app in order of name: running, crashed, stopping (a former launch comes before its
    /// replacement of the same name), and one-offs that ended lately.
    pub fn dynos(&self, app_id: Uuid) -> Vec<&Dyno> {
        self.dynos.of_app(app_id).collect()
    }

    /// One dyno.
    pub fn dyno(&self, id: DynoId) -> Option<&Dyno> {
        self.dynos.get(id)
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

    /// An id for the next launch: unlike any other of this state, and, by the seed, of any other run of the daemon.
    pub(super) fn next_id(&mut self, app_id: Uuid) -> DynoId {
        self.launches += 1;
        let digest = Sha256::new().chain_update(self.seed).chain_update(app_id).chain_update(self.launches.to_le_bytes()).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        // Version 8 (RFC 9562, 5.8): made by a rule of our own.
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}
