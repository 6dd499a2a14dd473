//! Which app answers at which name, and with what: written by the supervisor, read once per request.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use crate::model::{AppName, DynoId, DynoName};

use super::{Dial, code::Code, pool::Upstream, settings::Settings};

/// What answers for one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppRoute {
    /// Whose log the router's lines go to.
    pub app_id: Uuid,
    /// What a request gets.
    pub target: Target,
}

/// What a request to an app gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// H80.
    Maintenance,
    /// No release yet: H81.
    Blank,
    /// The formation wants no web dyno: H14.
    NoWeb,
    /// All web dynos have crashed: H10.
    Crashed,
    /// Web dynos are on their way: requests wait, H20 if for too long.
    Booting,
    /// As `Booting` once somebody asks: the first request has them started ([`super::Dial::wake`]).
    Asleep,
    /// These web dynos have bound their port. Empty is the same as [`Target::NoWeb`].
    Up(Vec<Backend>),
}

/// A web dyno that takes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// What [`super::Dial`] connects to.
    pub dyno: DynoId,
    /// For the log line.
    pub name: DynoName,
}

/// The routes of all apps. Reads take a short shared lock; requests that wait for a boot are woken by any change.
#[derive(Default)]
pub struct Table {
    apps: RwLock<HashMap<String, Arc<Route>>>,
    changed: watch::Sender<u64>,
}

/// A route with its dynos' live state.
pub(super) struct Route {
    pub(super) app_id: Uuid,
    live: Live,
    /// Requests that wait for a boot; shared by all successive routes of the app.
    waiting: Arc<AtomicUsize>,
}

enum Live {
    Answer(Code),
    Booting,
    Asleep,
    Up(Arc<[Arc<Upstream>]>),
}

/// Why no dyno can be picked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unready {
    /// The app went away while the request waited.
    Gone,
    /// The code to answer with.
    Code(Code),
}

impl Table {
    /// No apps.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what answers for `app`. Dynos that stay keep their connections and counts; those that left lose their idle
    /// connections now, and their exchanges under way go on.
    pub fn set(&self, app: &AppName, route: AppRoute) {
        let mut apps = self.write();
        let old = apps.remove(app.as_str());
        let live = match route.target {
            Target::Maintenance => Live::Answer(Code::H80),
            Target::Blank => Live::Answer(Code::H81),
            Target::NoWeb => Live::Answer(Code::H14),
            Target::Crashed => Live::Answer(Code::H10),
            Target::Booting => Live::Booting,
            Target::Asleep => Live::Asleep,
            Target::Up(backends) if backends.is_empty() => Live::Answer(Code::H14),
            Target::Up(backends) => {
                let mut known: HashMap<DynoId, &Arc<Upstream>> = HashMap::new();
                known.extend(old.iter().flat_map(|old| old.upstreams()).map(|u| (u.backend.dyno, u)));
                // The live state of a dyno that was there before stays.
                let upstream = |b: Backend| known.get(&b.dyno).filter(|u| u.backend == b).map_or_else(|| Upstream::new(b), |u| Arc::clone(u));
                Live::Up(backends.into_iter().map(upstream).collect())
            }
        };
        let waiting = old.as_ref().map(|old| old.waiting.clone()).unwrap_or_default();
        let new = Route { app_id: route.app_id, live, waiting };
        retire_missing(old.as_deref(), new.upstreams());
        apps.insert(app.as_str().to_owned(), Arc::new(new));
        drop(apps);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Forgets `app`: its name answers 404 from now on.
    pub fn remove(&self, app: &AppName) {
        let old = self.write().remove(app.as_str());
        retire_missing(old.as_deref(), &[]);
        self.changed.send_modify(|n| *n += 1);
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Arc<Route>>> {
        self.apps.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The route of the app of this name.
    pub(super) fn route(&self, app: &str) -> Option<Arc<Route>> {
        self.apps.read().unwrap_or_else(PoisonError::into_inner).get(app).cloned()
    }

    /// The dynos of an app, after waking it and waiting for its boot if need be.
    pub(super) async fn ready(&self, app: &str, settings: &Settings, dial: &dyn Dial) -> Result<Arc<[Arc<Upstream>]>, Unready> {
        let deadline = Instant::now() + settings.boot;
        let mut changed = self.changed.subscribe();
        let mut place = None;
        loop {
            changed.mark_unchanged();
            let route = self.route(app).ok_or(Unready::Gone)?;
            match &route.live {
                Live::Up(upstreams) => return Ok(upstreams.clone()),
                Live::Answer(code) => return Err(Unready::Code(*code)),
                Live::Booting | Live::Asleep if place.is_none() => {
                    let waiting = Waiting::join(&route.waiting, settings.waiting_per_app);
                    place = Some(waiting.ok_or(Unready::Code(Code::H11))?);
                }
                Live::Booting | Live::Asleep => {}
            }
            if matches!(route.live, Live::Asleep) {
                dial.wake(route.app_id);
            }
            timeout_at(deadline, changed.changed()).await.map_err(|_| Unready::Code(Code::H20))?.map_err(|_| Unready::Gone)?;
        }
    }

    /// True if the app now has another answer than `seen`: a dyno that is not among them, or none.
    pub(super) fn has_moved_on(&self, app: &str, seen: &[Arc<Upstream>]) -> bool {
        let Some(route) = self.route(app) else { return true };
        let now = route.upstreams();
        now.is_empty() || now.iter().any(|n| !seen.iter().any(|s| Arc::ptr_eq(n, s)))
    }

    /// Since when no exchange with a dyno of the app is under way; None while one is, and when its dynos are not [`Target::Up`].
    pub fn quiet_since(&self, app: &AppName) -> Option<Instant> {
        let route = self.route(app.as_str())?;
        route.upstreams().iter().map(|u| u.quiet_since()).reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))).flatten()
    }

    /// Lets nothing more through to the app's dynos, if none of them has had anything to do since `then`; requests wait until the route is
    /// set again. True if it is so: then nobody hears of an end of these dynos.
    pub fn close_if_quiet(&self, app: &AppName, then: Instant) -> bool {
        let mut apps = self.write();
        let Some(route) = apps.get(app.as_str()).filter(|route| !route.upstreams().is_empty()) else { return false };
        let closed: Vec<_> = route.upstreams().iter().take_while(|u| u.close_if_quiet(then)).collect();
        if closed.len() < route.upstreams().len() {
            closed.into_iter().for_each(|u| u.reopen());
            return false;
        }
        let closed = Arc::new(Route { app_id: route.app_id, live: Live::Booting, waiting: route.waiting.clone() });
        retire_missing(Some(route), &[]);
        apps.insert(app.as_str().to_owned(), closed);
        true
    }

    /// Closes connections to dynos that have been idle for `keep`.
    pub(super) fn sweep(&self, keep: Duration) {
        let apps = self.apps.read().unwrap_or_else(PoisonError::into_inner);
        apps.values().flat_map(|route| route.upstreams()).for_each(|upstream| upstream.sweep(keep));
    }
}

impl Route {
    pub(super) fn upstreams(&self) -> &[Arc<Upstream>] {
        match &self.live {
            Live::Up(upstreams) => upstreams,
            _ => &[],
        }
    }
}

fn retire_missing(old: Option<&Route>, new: &[Arc<Upstream>]) {
    let stays: HashSet<*const Upstream> = new.iter().map(Arc::as_ptr).collect();
    old.map(Route::upstreams).unwrap_or_default().iter().filter(|u| !stays.contains(&Arc::as_ptr(u))).for_each(|u| u.retire());
}

/// A place among the requests that wait for a boot; given up when dropped.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn join(count: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        count.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).ok()?;
        Some(Self(count.clone()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(n: u128) -> Backend {
        Backend { dyno: Uuid::from_u128(n), name: format!("web.{n}").parse().unwrap() }
    }

    fn route(target: Target) -> AppRoute {
        AppRoute { app_id: Uuid::nil(), target }
    }

    /// Wakes nobody.
    struct Nobody;

    impl Dial for Nobody {
        fn dial(&self, _: DynoId) -> futures_util::future::BoxFuture<'_, std::io::Result<tokio::net::TcpStream>> {
            Box::pin(std::future::ready(Err(std::io::ErrorKind::NotFound.into())))
        }

        fn wake(&self, _: Uuid) {}
    }

    #[test]
    fn only_an_app_without_exchanges_is_closed_and_then_nothing_gets_through() {
        let app: AppName = "shop".parse().unwrap();
        let table = Table::new();
        assert_eq!(table.quiet_since(&app), None);
        table.set(&app, route(Target::Up(vec![backend(1), backend(2)])));
        let upstreams: Vec<_> = table.route("shop").unwrap().upstreams().to_vec();
        let slot = upstreams[1].admit(50).unwrap();
        assert_eq!(table.quiet_since(&app), None, "an exchange is under way");
        assert!(!table.close_if_quiet(&app, Instant::now()));
        let before = Instant::now();
        drop(slot);
        assert!(table.quiet_since(&app).is_some_and(|since| since >= before));
        assert!(!table.close_if_quiet(&app, before - Duration::from_secs(1)), "it was visited since");
        assert!(upstreams[0].admit(50).is_some(), "what was not closed is open");
        assert!(table.close_if_quiet(&app, Instant::now()));
        assert!(upstreams.iter().all(|u| u.admit(50).is_none()) && table.has_moved_on("shop", &upstreams));
        assert_eq!(table.quiet_since(&app), None);
        assert!(!table.close_if_quiet(&app, Instant::now()), "it is closed");
    }

    #[tokio::test]
    async fn each_target_has_its_answer() {
        let app: AppName = "shop".parse().unwrap();
        let table = Table::new();
        let settings = Settings { boot: Duration::from_millis(50), ..Settings::default() };
        assert_eq!(table.ready("shop", &settings, &Nobody).await.err(), Some(Unready::Gone));
        for (target, want) in [
            (Target::Maintenance, Code::H80),
            (Target::Blank, Code::H81),
            (Target::NoWeb, Code::H14),
            (Target::Up(vec![]), Code::H14),
            (Target::Crashed, Code::H10),
            (Target::Booting, Code::H20),
        ] {
            table.set(&app, route(target));
            assert_eq!(table.ready("shop", &settings, &Nobody).await.err(), Some(Unready::Code(want)));
        }
    }

    #[tokio::test]
    async fn waiters_are_bounded_and_woken() {
        let app: AppName = "shop".parse().unwrap();
        let table = Arc::new(Table::new());
        let settings = Settings { waiting_per_app: 1, ..Settings::default() };
        table.set(&app, route(Target::Booting));
        let first = tokio::spawn({
            let (table, settings) = (table.clone(), settings.clone());
            async move { table.ready("shop", &settings, &Nobody).await.map(|u| u.len()) }
        });
        tokio::task::yield_now().await;
        assert_eq!(table.ready("shop", &settings, &Nobody).await.err(), Some(Unready::Code(Code::H11)));
        table.set(&app, route(Target::Up(vec![backend(1)])));
        assert_eq!(first.await.unwrap(), Ok(1));
    }

    #[tokio::test]
    async fn dynos_that_stay_keep_their_state() {
        let app: AppName = "shop".parse().unwrap();
        let table = Table::new();
        table.set(&app, route(Target::Up(vec![backend(1), backend(2)])));
        let old = table.ready("shop", &Settings::default(), &Nobody).await.ok().unwrap();
        let slot = old[1].admit(50).unwrap();
        table.set(&app, route(Target::Up(vec![backend(2), backend(3)])));
        let new = table.ready("shop", &Settings::default(), &Nobody).await.ok().unwrap();
        assert_eq!(new.iter().map(|u| u.active()).collect::<Vec<_>>(), [1, 0]);
        drop(slot);
        assert_eq!(new[0].active(), 0);
    }
}
