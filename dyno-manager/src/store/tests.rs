//! Each test works on a database file of its own and reads back what it did.

mod builds;
mod opening;
mod releases;

use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::model::{App, Egress, ReleaseStatus};

/// A store in a directory that goes away with the test.
struct Fixture {
    dir: TempDir,
    store: Store,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    Fixture { dir, store }
}

impl Fixture {
    /// Closes the database and opens it again, as a restart of the daemon does.
    fn reopen(self) -> Self {
        let Self { dir, store } = self;
        drop(store);
        let store = open_again(dir.path()).unwrap();
        Self { dir, store }
    }

    async fn app(&self, name: &str) -> App {
        self.store.create_app(name.parse().unwrap()).await.unwrap()
    }

    /// Builds and releases a slug with these process types; the sha256 is `sha` repeated.
    async fn deploy(&self, app: &App, sha: char, types: &[&str]) -> Finished {
        let build = self.store.create_build(new_build(app)).await.unwrap();
        let slug = new_slug(sha, types);
        self.store.finish_build(build.id, slug, "Deploy 6933f9b".into(), ReleaseStatus::Succeeded).await.unwrap()
    }

    async fn set(&self, app: &App, name: &str, value: Option<&str>) -> Result<Option<Released>> {
        let changes = vec![(name.to_owned(), value.map(str::to_owned))];
        self.store.set_config(app.id, changes, format!("Set {name} config vars"), "ops@example.com".into()).await
    }

    async fn scale(&self, app: &App, process_type: &str, quantity: u32) -> Result<crate::model::Formation> {
        let process_type = process_type.parse().unwrap();
        let update = FormationUpdate { process_type, quantity: Some(quantity), size: None };
        self.store.scale(app.id, vec![update]).await
    }
}

/// Once nobody holds the lock. A process that another test has just forked has its file too, until it executes something.
fn unlocked<T>(attempt: impl Fn() -> Result<T>) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match attempt() {
            Err(StoreError::Locked { .. }) if Instant::now() < end => std::thread::yield_now(),
            other => return other,
        }
    }
}

fn open_again(dir: &Path) -> Result<Store> {
    unlocked(|| Store::open(dir))
}

fn new_build(app: &App) -> NewBuild {
    NewBuild {
        app_id: app.id,
        egress: Egress::Registries,
        commit: Some("6933f9b0".into()),
        source_sha256: "5".repeat(64),
        user: "dev@example.com".into(),
    }
}

fn new_slug(sha: char, types: &[&str]) -> NewSlug {
    NewSlug {
        sha256: sha.to_string().repeat(64),
        size: 13_200_000,
        process_types: types.iter().map(|t| (t.parse().unwrap(), format!("run-{t}"))).collect(),
        buildpack: "Python".into(),
        stack: "c".repeat(64),
    }
}

/// `web=1 worker=0`
fn shown(formation: &crate::model::Formation) -> String {
    let entries: Vec<_> = formation.iter().map(|(t, e)| format!("{t}={}", e.quantity)).collect();
    entries.join(" ")
}

fn check_refused<T: std::fmt::Debug>(result: Result<T>, want: &str) {
    let message = result.unwrap_err().to_string();
    assert!(message.contains(want), "{message:?} does not say {want:?}");
}
