//! The lock, the schema, the files, and apps.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use super::*;
use crate::model::BuildStatus;

#[tokio::test]
async fn a_second_daemon_is_told_who_holds_the_directory_until_the_first_is_gone() {
    let Fixture { dir, store } = fixture();
    let clone = store.clone();
    drop(store);
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }));
    let (dir_name, pid) = (dir.path().display(), std::process::id());
    let want = format!("{dir_name} is in use by another dynod (pid {pid}); stop that one or give this one a state directory of its own");
    assert_eq!(error.to_string(), want);
    assert_eq!(crate::store::free(dir.path()).unwrap_err().to_string(), want);
    clone.apps().await.unwrap();
    drop(clone);
    unlocked(|| crate::store::free(dir.path())).unwrap();
    open_again(dir.path()).unwrap();
}

#[test]
fn a_pid_left_in_the_lock_file_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lock"), "999999\n").unwrap();
    Store::open(dir.path()).unwrap();
    let pid = std::fs::read_to_string(dir.path().join("lock")).unwrap();
    assert_eq!(pid.trim(), std::process::id().to_string());
}

const CHILD_STATE: &str = "DYNO_TEST_STATE_DIR";

#[tokio::test]
async fn a_killed_daemon_lets_go_of_the_lock_and_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::opening::be_the_other_daemon", "--nocapture", "--ignored"])
        .env(CHILD_STATE, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    assert!(output.lines().any(|line| line.unwrap().contains("acknowledged")), "the child ended early");
    check_refused(Store::open(dir.path()), &format!("in use by another dynod (pid {})", child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    let store = open_again(dir.path()).unwrap();
    store.find_app("blue-sky").await.unwrap();
}

/// Run by the test above as a process of its own; ends with the pipe of its standard input at the latest.
#[tokio::test]
#[ignore = "half of another test"]
async fn be_the_other_daemon() {
    let Some(dir) = std::env::var_os(CHILD_STATE) else { return };
    let store = Store::open(Path::new(&dir)).unwrap();
    store.create_app("blue-sky".parse().unwrap()).await.unwrap();
    println!("acknowledged");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[tokio::test]
async fn only_the_owner_reads_the_database() {
    let f = fixture();
    f.app("blue-sky").await;
    for name in ["platform.db", "platform.db-wal", "platform.db-shm", "lock"] {
        let mode = std::fs::metadata(f.dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_state_directory_that_cannot_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file/state");
    std::fs::write(dir.path().join("file"), "").unwrap();
    check_refused(Store::open(&path), &path.display().to_string());
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("platform.db"), "x".repeat(4096)).unwrap();
    check_refused(Store::open(dir.path()), "platform.db: file is not a database");
}

#[tokio::test]
async fn durable_settings_are_in_force() {
    let f = fixture();
    let pragma = |name: &'static str| f.store.transact(move |tx| Ok(tx.pragma_query_value(None, name, |r| r.get(0))?));
    let journal: String = pragma("journal_mode").await.unwrap();
    assert_eq!(journal, "wal");
    let number = |name: &'static str| f.store.transact(move |tx| Ok(tx.pragma_query_value(None, name, |r| r.get::<_, i64>(0))?));
    assert_eq!(number("synchronous").await.unwrap(), 2);
    assert_eq!(number("foreign_keys").await.unwrap(), 1);
    assert_eq!(number("user_version").await.unwrap(), i64::try_from(schema::MIGRATIONS.len()).unwrap());
}

#[test]
fn migrations_keep_rows_run_once_and_go_whole_or_not_at_all() {
    let path = Path::new("platform.db");
    let mut db = Connection::open_in_memory().unwrap();
    let first = "CREATE TABLE apps (name TEXT); INSERT INTO apps VALUES ('old');";
    let second = "ALTER TABLE apps ADD COLUMN size TEXT DEFAULT 'basic'; INSERT INTO apps VALUES ('new', 'big');";
    let version = |db: &Connection| -> u32 { db.pragma_query_value(None, "user_version", |r| r.get(0)).unwrap() };
    schema::migrate(&mut db, path, &[first]).unwrap();
    assert_eq!(version(&db), 1);

    let broken = "INSERT INTO apps VALUES ('lost'); CREATE TABLE apps (name TEXT);";
    schema::migrate(&mut db, path, &[first, broken]).unwrap_err();
    assert_eq!(version(&db), 1);

    schema::migrate(&mut db, path, &[first, second]).unwrap();
    schema::migrate(&mut db, path, &[first, second]).unwrap();
    assert_eq!(version(&db), 2);
    let rows: String = db.query_row("SELECT group_concat(name || ':' || size, ' ') FROM apps", [], |r| r.get(0)).unwrap();
    assert_eq!(rows, "old:basic new:big");
}

#[tokio::test]
async fn a_database_of_a_later_version_is_left_alone() {
    let Fixture { dir, store } = fixture();
    store.transact(|tx| Ok(tx.pragma_update(None, "user_version", 99)?)).await.unwrap();
    drop(store);
    check_refused(open_again(dir.path()), "has schema 99, this dynod knows up to");
}

#[tokio::test]
async fn what_a_former_daemon_left_unfinished_has_failed() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    let done = f.deploy(&app, 'a', &["web"]).await;
    let second = f.store.create_build(new_build(&app)).await.unwrap();
    let slug = new_slug('b', &["web"]);
    let pending = f.store.finish_build(second.id, slug, "Deploy".into(), ReleaseStatus::Pending).await.unwrap();
    let third = f.store.create_build(new_build(&app)).await.unwrap();

    let f = f.reopen();
    let third = f.store.build(app.id, third.id).await.unwrap();
    assert_eq!(third.status, BuildStatus::Failed);
    assert_eq!(third.error.as_deref(), Some("the daemon restarted during the build"));
    assert_eq!(f.store.build(app.id, done.build.id).await.unwrap(), done.build);
    let release = f.store.find_release(app.id, &pending.released.release.id.to_string()).await.unwrap();
    assert_eq!(release.status, ReleaseStatus::Failed);
    assert_eq!(f.store.current_release(app.id).await.unwrap(), Some(done.released.release));
    f.deploy(&app, 'c', &["web"]).await;
}

#[tokio::test]
async fn everything_reads_back_after_a_restart() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    f.app("amber").await;
    f.deploy(&app, 'a', &["web", "worker"]).await;
    f.set(&app, "KEY", Some("line 1\nline 2 é")).await.unwrap();
    f.scale(&app, "worker", 3).await.unwrap();
    let before = f.store.snapshots().await.unwrap();
    assert_eq!(before.iter().map(|s| s.app.name.as_str()).collect::<Vec<_>>(), ["amber", "blue-sky"]);
    assert_eq!(before[1], f.store.snapshot(app.id).await.unwrap());
    assert_eq!(shown(&before[1].formation), "web=1 worker=3");
    let f = f.reopen();
    assert_eq!(f.store.snapshots().await.unwrap(), before);
}

#[tokio::test]
async fn names_are_unique_and_free_again_after_a_rename_or_the_end_of_an_app() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    let change = |name: &str| AppChange { name: Some(name.parse().unwrap()), maintenance: None };
    check_refused(f.store.create_app(app.name.clone()).await, "app name blue-sky is already taken");
    let renamed = f.store.change_app(app.id, change("red-sky")).await.unwrap();
    assert_eq!((renamed.id, renamed.name.as_str()), (app.id, "red-sky"));
    let other = f.app("blue-sky").await;
    check_refused(f.store.change_app(app.id, change("blue-sky")).await, "already taken");
    f.store.destroy_app(other.id).await.unwrap();
    f.store.change_app(app.id, change("blue-sky")).await.unwrap();
    assert_eq!(f.store.find_app("blue-sky").await.unwrap().id, app.id);
    assert_eq!(f.store.find_app(&app.id.to_string()).await.unwrap().name.as_str(), "blue-sky");
    check_refused(f.store.find_app("red-sky").await, "no app \"red-sky\"");
}

#[tokio::test]
async fn changes_of_an_app_leave_the_rest_of_it() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    let on = AppChange { name: None, maintenance: Some(true) };
    let changed = f.store.change_app(app.id, on.clone()).await.unwrap();
    assert_eq!(changed, App { maintenance: true, updated_at: changed.updated_at, ..app });
    assert_eq!(f.store.change_app(app.id, on).await.unwrap(), changed, "no change, no new updated_at");
}

#[tokio::test]
async fn run_numbers_are_given_out_once_per_app() {
    let f = fixture();
    let (app, other) = (f.app("blue-sky").await, f.app("red-sky").await);
    let calls = (0..40).map(|_| f.store.next_run_number(app.id));
    let mut numbers: Vec<_> = futures_util::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
    let f = f.reopen();
    assert_eq!(f.store.next_run_number(app.id).await.unwrap(), 41);
    assert_eq!(f.store.next_run_number(other.id).await.unwrap(), 1);
    check_refused(f.store.next_run_number(uuid::Uuid::nil()).await, "no app");
}

#[tokio::test]
async fn a_panic_rolls_back_and_costs_only_its_own_caller() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    let id = app.id.to_string();
    let result = f.store.transact::<(), _>(move |tx| {
        tx.execute("DELETE FROM apps WHERE id = ?1", [id])?;
        panic!("on purpose")
    });
    assert!(matches!(result.await, Err(StoreError::Gone)));
    assert_eq!(f.store.find_app("blue-sky").await.unwrap(), app);
}

#[tokio::test]
async fn work_goes_on_when_its_caller_has_gone() {
    let f = fixture();
    {
        let mut call = std::pin::pin!(f.store.create_app("blue-sky".parse().unwrap()));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        // Handed over at the first poll; whether it is done by then does not matter.
        drop(call.as_mut().poll(&mut cx));
    }
    f.store.find_app("blue-sky").await.unwrap();
}
