//! The rules: one function per event, and the comparison of what is wanted with what runs.

use std::collections::BTreeSet;

use jiff::Timestamp;
use uuid::Uuid;

use super::{Action, CurrentRelease, Dyno, Event, Step, Which, life::Told, state::Desired};
use crate::model::{App, DynoId, DynoKind, DynoState, Formation, ProcessType};

impl Step<'_> {
    /// Hands an event to its rule.
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::AppCreated { app } => self.app_created(app),
            Event::AppChanged { app } => self.app_changed(app),
            Event::AppDestroyed { app_id } => self.app_destroyed(app_id),
            Event::Released { app_id, release, formation } => self.released(app_id, release, formation),
            Event::Loaded { app, release, formation } => self.loaded(app, release, formation),
            Event::Adopted { dyno } => self.adopted(dyno),
            Event::Settled => self.settled(),
            Event::FormationChanged { app_id, formation } => self.formation_changed(app_id, formation),
            Event::Quiet { app_id } => self.quiet(app_id),
            Event::Visited { app_id } => self.visited(app_id),
            Event::Run { dyno } => self.run(dyno),
            Event::Restart { app_id, which } => self.restart(app_id, &which),
            Event::Stop { app_id, which } => self.stop(app_id, &which),
            Event::Started { dyno_id } => self.started(dyno_id),
            Event::Bound { dyno_id } => self.bound(dyno_id),
            Event::StartFailed { dyno_id, reason, code } => self.start_failed(dyno_id, &reason, code),
            Event::Exited { dyno_id, exit } => self.exited(dyno_id, exit),
            Event::Tick => self.tick(),
        }
    }

    fn app_created(&mut self, app: App) {
        match self.state.apps.get_mut(&app.id) {
            Some(desired) => desired.app = app,
            None => drop(self.state.apps.insert(app.id, Desired { app, release: None, formation: Formation::new(), loading: false })),
        }
    }

    fn app_changed(&mut self, app: App) {
        if let Some(desired) = self.state.apps.get_mut(&app.id) {
            desired.app = app;
        }
    }

    fn app_destroyed(&mut self, app_id: Uuid) {
        // First the app: from here on no line is logged for it, so that its log can be thrown away.
        self.state.apps.remove(&app_id);
        for id in self.ids(app_id, |_| true) {
            match self.state.dyno(id) {
                Some(dyno) if !dyno.is_alive() => self.forget(id),
                _ => self.end(id, Told::Down),
            }
        }
    }

    fn released(&mut self, app_id: Uuid, release: CurrentRelease, formation: Formation) {
        let Some(desired) = self.state.apps.get_mut(&app_id) else { return };
        desired.release = Some(release);
        desired.formation = formation;
        self.reconcile(app_id, |_| true);
    }

    fn loaded(&mut self, app: App, release: Option<CurrentRelease>, formation: Formation) {
        self.state.apps.insert(app.id, Desired { app, release, formation, loading: true });
    }

    fn adopted(&mut self, mut dyno: Dyno) {
        if self.state.dyno(dyno.id).is_some() {
            return;
        }
        let (id, kind, found) = (dyno.id, dyno.kind, dyno.state);
        if found == DynoState::Starting {
            // Nobody watched its port meanwhile: its time to boot begins anew.
            dyno.since = self.now;
        } else {
            dyno.state = DynoState::Up;
        }
        (dyno.exit, dyno.retry_at, dyno.stopping) = (None, None, None);
        let desired = self.state.apps.get(&dyno.app_id);
        let wanted = desired.is_some_and(|d| kind != DynoKind::Formation || d.fits(&dyno));
        let rival = self.rival(&dyno);
        let late = rival.is_some_and(|(_, created_at)| created_at > dyno.created_at);
        self.state.dynos.put(dyno);
        if matches!(kind, DynoKind::Build | DynoKind::Release) {
            self.kill(id);
        } else if !wanted || late || found == DynoState::Stopping {
            self.end(id, Told::Down);
        } else if let Some((rival, _)) = rival {
            // A restart was under way when the former daemon died: the newer launch is the replacement.
            self.end(rival, Told::Down);
        }
    }

    /// Another formation dyno in service under the same name, and when it was made.
    fn rival(&self, dyno: &Dyno) -> Option<(DynoId, Timestamp)> {
        let same = |d: &&Dyno| d.is_current() && d.kind == DynoKind::Formation && d.name == dyno.name;
        let found = self.state.dynos.of_app(dyno.app_id).find(same)?;
        (dyno.kind == DynoKind::Formation).then_some((found.id, found.created_at))
    }

    fn settled(&mut self) {
        let loading: Vec<Uuid> = self.state.apps.iter().filter(|(_, d)| d.loading).map(|(id, _)| *id).collect();
        for app_id in loading {
            if let Some(desired) = self.state.apps.get_mut(&app_id) {
                desired.loading = false;
            }
            self.reconcile(app_id, |_| false);
        }
    }

    fn formation_changed(&mut self, app_id: Uuid, formation: Formation) {
        let Some(desired) = self.state.apps.get_mut(&app_id) else { return };
        let former = std::mem::replace(&mut desired.formation, formation.clone());
        let scaled = |kind: &ProcessType| former.get(kind) != formation.get(kind);
        for id in self.ids(app_id, |d| d.kind == DynoKind::Formation && scaled(&d.name.process_type)) {
            self.state.dynos.change(id, |d| d.crashes = 0);
        }
        // Whoever scales a type that crashed or sleeps wants to see it tried now, not at the end of the back-off or at the next request.
        self.reconcile(app_id, |d| matches!(d.state, DynoState::Crashed | DynoState::Idle) && scaled(&d.name.process_type));
    }

    fn quiet(&mut self, app_id: Uuid) {
        for id in self.ids(app_id, |d| d.binds_port() && d.state == DynoState::Up) {
            self.idle(id);
        }
    }

    fn visited(&mut self, app_id: Uuid) {
        for id in self.ids(app_id, |d| d.state == DynoState::Idle) {
            self.wake(id);
        }
    }

    fn run(&mut self, mut dyno: Dyno) {
        if self.state.dyno(dyno.id).is_some() {
            return;
        }
        if !self.state.apps.contains_key(&dyno.app_id) {
            return self.actions.push(Action::Forget { dyno_id: dyno.id });
        }
        if dyno.kind == DynoKind::Formation {
            // Only the formation makes formation dynos.
            dyno.kind = DynoKind::OneOff;
        }
        (dyno.crashes, dyno.retry_at, dyno.exit, dyno.stopping) = (0, None, None, None);
        self.start(dyno);
    }

    fn restart(&mut self, app_id: Uuid, which: &Which) {
        if *which != Which::All {
            for id in self.ids(app_id, |d| d.kind != DynoKind::Formation && d.is_current() && which.covers(&d.name)) {
                self.end(id, Told::Down);
            }
        }
        self.reconcile(app_id, |d| which.covers(&d.name));
    }

    fn stop(&mut self, app_id: Uuid, which: &Which) {
        for id in self.ids(app_id, |d| d.is_current() && d.is_alive() && which.covers(&d.name)) {
            self.end(id, Told::Down);
        }
        self.reconcile(app_id, |_| false);
    }

    fn tick(&mut self) {
        for id in self.state.dynos.due(self.now) {
            let Some(dyno) = self.state.dyno(id) else { continue };
            match dyno.state {
                DynoState::Crashed if dyno.retry_at.is_some() => self.retry(id),
                _ if !dyno.is_alive() => self.forget(id),
                _ if dyno.stopping.is_some() => self.kill(id),
                _ => self.boot_timeout(id),
            }
        }
    }

    /// Ends what runs and is not wanted, replaces what is wanted otherwise or for which `renew` holds, and starts what is missing.
    fn reconcile(&mut self, app_id: Uuid, renew: impl Fn(&Dyno) -> bool) {
        let Some(desired) = self.state.apps.get(&app_id).filter(|d| !d.loading) else { return };
        let mut missing: BTreeSet<_> = desired.names().collect();
        let in_service = |d: &&Dyno| d.kind == DynoKind::Formation && d.is_current();
        let mut changes = Vec::new();
        for dyno in self.state.dynos.of_app(app_id).filter(in_service) {
            match missing.take(&dyno.name) {
                None => changes.push((dyno.id, None)),
                Some(name) if !desired.fits(dyno) || renew(dyno) => changes.push((dyno.id, Some(name))),
                Some(_) => {}
            }
        }
        for (id, replacement) in changes {
            match replacement {
                None => self.end(id, Told::Down),
                Some(name) => {
                    self.end(id, Told::Restart);
                    self.launch(app_id, name, 0);
                }
            }
        }
        for name in missing {
            self.launch(app_id, name, 0);
        }
    }

    /// The ids of an app's dynos for which `pick` holds, by name.
    fn ids(&self, app_id: Uuid, pick: impl Fn(&Dyno) -> bool) -> Vec<DynoId> {
        self.state.dynos.of_app(app_id).filter(|d| pick(d)).map(|d| d.id).collect()
    }
}
