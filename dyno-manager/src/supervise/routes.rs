//! The routing table follows the scheduler's state, step by step.

use uuid::Uuid;

use super::{Supervisor, lock};
use crate::{
    model::DynoState,
    router::{AppRoute, Backend, Target},
    schedule::{Event, State},
};

/// The app that an event is about; None for those about all.
pub(super) fn app_of(event: &Event, state: &State) -> Option<Uuid> {
    match event {
        Event::AppCreated { app } | Event::AppChanged { app } | Event::Loaded { app, .. } => Some(app.id),
        Event::AppDestroyed { app_id }
        | Event::Released { app_id, .. }
        | Event::FormationChanged { app_id, .. }
        | Event::Restart { app_id, .. }
        | Event::Stop { app_id, .. }
        | Event::Quiet { app_id }
        | Event::Visited { app_id } => Some(*app_id),
        Event::Adopted { dyno } | Event::Run { dyno } => Some(dyno.app_id),
        Event::Started { dyno_id } | Event::Bound { dyno_id } | Event::StartFailed { dyno_id, .. } | Event::Exited { dyno_id, .. } => {
            state.dyno(*dyno_id).map(|dyno| dyno.app_id)
        }
        Event::Settled | Event::Tick => None,
    }
}

impl Supervisor {
    /// Brings the route of `app` (None: of every app) up to date.
    pub(super) fn route(&self, state: &State, app: Option<Uuid>) {
        let ids: Vec<Uuid> = app.map_or_else(|| state.apps().map(|a| a.id).collect(), |id| vec![id]);
        let mut routed = lock(&self.0.routed);
        for id in ids {
            let name = state.app(id).map(|a| a.name.clone());
            if let Some(old) = routed.get(&id).filter(|old| Some(*old) != name.as_ref()) {
                self.0.table.remove(old);
                routed.remove(&id);
            }
            if let Some(name) = name {
                self.0.table.set(&name, AppRoute { app_id: id, target: target(state, id) });
                routed.insert(id, name);
            }
        }
    }
}

fn target(state: &State, id: Uuid) -> Target {
    if state.app(id).is_some_and(|app| app.maintenance) {
        return Target::Maintenance;
    }
    let Some(slug) = state.release(id).and_then(|r| r.slug.as_ref()) else { return Target::Blank };
    let declared = slug.process_types.keys().any(crate::model::ProcessType::is_web);
    let wanted = state.formation(id).is_some_and(|f| f.iter().any(|(t, e)| t.is_web() && e.quantity > 0));
    if !declared || !wanted {
        return Target::NoWeb;
    }
    let web: Vec<_> = state.dynos(id).into_iter().filter(|d| d.binds_port() && d.is_current()).collect();
    let up: Vec<Backend> = web.iter().filter(|d| d.state == DynoState::Up).map(|d| Backend { dyno: d.id, name: d.name.clone() }).collect();
    if !up.is_empty() {
        Target::Up(up)
    } else if !web.is_empty() && web.iter().all(|d| d.state == DynoState::Crashed) {
        Target::Crashed
    } else if web.iter().any(|d| d.state == DynoState::Idle) && web.iter().all(|d| d.state != DynoState::Starting) {
        Target::Asleep
    } else {
        Target::Booting
    }
}
