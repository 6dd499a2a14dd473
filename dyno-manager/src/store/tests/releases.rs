//! Releases, rollbacks, config vars and the formation that goes with them.

use super::*;
use crate::model::{DynoSize, MAX_QUANTITY};

#[tokio::test]
async fn versions_count_up_and_the_current_one_is_the_last_that_succeeded() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    assert_eq!(f.store.snapshot(app.id).await.unwrap().release, None);
    let first = f.set(&app, "A", Some("1")).await.unwrap().unwrap();
    assert_eq!((first.release.version, first.slug, first.formation.len()), (1, None, 0));
    let second = f.deploy(&app, 'a', &["web"]).await.released;
    assert_eq!((second.release.version, second.release.config.get("A")), (2, Some("1")));
    assert_eq!(second.app.released_at, Some(second.release.created_at));
    assert_eq!(second.app.buildpack_description.as_deref(), Some("Python"));
    let third = f.set(&app, "A", None).await.unwrap().unwrap();
    assert_eq!((third.release.version, third.slug), (3, second.slug));
    assert!(third.release.config.is_empty());
    let versions: Vec<_> = f.store.releases(app.id).await.unwrap().into_iter().map(|r| r.version).collect();
    assert_eq!(versions, [1, 2, 3]);
    assert_eq!(f.store.current_release(app.id).await.unwrap(), Some(third.release));
}

#[tokio::test]
async fn releases_made_at_once_get_different_versions_and_lose_no_change() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    let names: Vec<_> = (0..20).map(|n| format!("K{n}")).collect();
    let made = futures_util::future::join_all(names.iter().map(|name| f.set(&app, name, Some("x")))).await;
    let mut versions: Vec<_> = made.into_iter().map(|r| r.unwrap().unwrap().release.version).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=20).collect::<Vec<_>>());
    assert_eq!(f.store.config(app.id).await.unwrap().iter().count(), 20);
}

#[tokio::test]
async fn config_that_changes_nothing_or_breaks_a_rule_makes_no_release() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    f.set(&app, "A", Some("1")).await.unwrap();
    assert_eq!(f.set(&app, "A", Some("1")).await.unwrap(), None);
    assert_eq!(f.set(&app, "B", None).await.unwrap(), None);
    check_refused(f.set(&app, "PORT", Some("80")).await, "is set by the platform");
    assert_eq!(f.store.releases(app.id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn releases_are_found_by_version_or_id_within_their_app() {
    let f = fixture();
    let (app, other) = (f.app("blue-sky").await, f.app("red-sky").await);
    let release = f.deploy(&app, 'a', &["web"]).await.released.release;
    for name in ["1", "v1", &release.id.to_string()] {
        assert_eq!(f.store.find_release(app.id, name).await.unwrap(), release, "{name}");
        check_refused(f.store.find_release(other.id, name).await, "no release");
    }
    for name in ["", "v", "v0", "2", "-1", "vv1", "current", "99999999999"] {
        check_refused(f.store.find_release(app.id, name).await, "no release");
    }
}

#[tokio::test]
async fn a_rollback_is_a_new_release_with_the_old_slug_and_config() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    let first = f.deploy(&app, 'a', &["web"]).await.released;
    f.set(&app, "A", Some("1")).await.unwrap();
    f.deploy(&app, 'b', &["web", "worker"]).await;
    let user = || "ops@example.com".to_owned();

    let back = f.store.rollback(app.id, RollbackTo::Version(1), user()).await.unwrap();
    assert_eq!((back.release.version, back.release.description.as_str()), (4, "Rollback to v1"));
    assert_eq!((&back.slug, &back.release.config), (&first.slug, &first.release.config));
    assert_eq!(shown(&back.formation), "web=1");

    let again = f.store.rollback(app.id, RollbackTo::Previous, user()).await.unwrap();
    assert_eq!((again.release.version, again.release.description.as_str()), (5, "Rollback to v3"));
    assert_eq!(again.release.config.get("A"), Some("1"));
    assert_eq!(shown(&again.formation), "web=1 worker=0");

    let by_id = f.store.rollback(app.id, RollbackTo::Id(first.release.id), user()).await.unwrap();
    assert_eq!(by_id.release.slug_id, first.release.slug_id);
}

#[tokio::test]
async fn rollbacks_to_what_never_ran_are_refused() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    let back = |to| f.store.rollback(app.id, to, "ops@example.com".into());
    check_refused(back(RollbackTo::Previous).await, "no earlier release");
    f.set(&app, "A", Some("1")).await.unwrap();
    check_refused(back(RollbackTo::Previous).await, "no earlier release");
    check_refused(back(RollbackTo::Version(1)).await, "v1 has no slug");
    check_refused(back(RollbackTo::Version(9)).await, "no release \"v9\"");
    let build = f.store.create_build(new_build(&app)).await.unwrap();
    let slug = new_slug('a', &["web"]);
    let made = f.store.finish_build(build.id, slug, "Deploy".into(), ReleaseStatus::Pending).await.unwrap();
    f.store.finish_release(app.id, made.released.release.id, ReleaseStatus::Failed).await.unwrap();
    check_refused(back(RollbackTo::Version(2)).await, "v2 was never in effect");
}

#[tokio::test]
async fn a_slug_is_released_again_only_in_its_own_app() {
    let f = fixture();
    let (app, other) = (f.app("blue-sky").await, f.app("red-sky").await);
    let slug = f.deploy(&app, 'a', &["web"]).await.released.slug.unwrap();
    f.set(&app, "A", Some("1")).await.unwrap();
    let release = |app: &App| f.store.release_slug(app.id, slug.id, "Deploy again".into(), "ops@example.com".into());
    let made = release(&app).await.unwrap();
    assert_eq!((made.release.version, made.release.config.get("A")), (3, Some("1")));
    check_refused(release(&other).await, "no slug");
    check_refused(f.store.slug(other.id, slug.id).await, "no slug");
    assert_eq!(f.store.slug(app.id, slug.id).await.unwrap(), slug);
}

#[tokio::test]
async fn a_pending_release_takes_effect_when_it_is_done_and_lets_no_other_pass() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    let old = f.deploy(&app, 'a', &["web"]).await.released;
    let build = f.store.create_build(new_build(&app)).await.unwrap();
    let slug = new_slug('b', &["web", "worker"]);
    let new = f.store.finish_build(build.id, slug, "Deploy".into(), ReleaseStatus::Pending).await.unwrap().released;
    assert_eq!(f.store.current_release(app.id).await.unwrap(), Some(old.release.clone()));
    check_refused(f.set(&app, "A", Some("1")).await, "release v2 is still running its release command");

    let done = f.store.finish_release(app.id, new.release.id, ReleaseStatus::Succeeded).await.unwrap();
    assert_eq!((done.release.status, shown(&done.formation).as_str()), (ReleaseStatus::Succeeded, "web=1 worker=0"));
    assert_eq!(f.store.current_release(app.id).await.unwrap(), Some(done.release));
    check_refused(f.store.finish_release(app.id, new.release.id, ReleaseStatus::Failed).await, "v2 is not pending");
    f.set(&app, "A", Some("1")).await.unwrap();
}

#[tokio::test]
async fn a_type_starts_with_its_default_and_keeps_its_row_while_it_is_away() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    assert_eq!(shown(&f.deploy(&app, 'a', &["clock", "worker"]).await.released.formation), "clock=0 worker=0");
    assert_eq!(shown(&f.scale(&app, "worker", 2).await.unwrap()), "clock=0 worker=2");
    let rows = f.store.formation(app.id).await.unwrap();
    assert_eq!(shown(&f.deploy(&app, 'b', &["web"]).await.released.formation), "web=1");
    check_refused(f.scale(&app, "worker", 1).await, "is not declared by the current release; its types are web");
    assert_eq!(shown(&f.scale(&app, "web", 0).await.unwrap()), "web=0");
    let back = f.deploy(&app, 'c', &["web", "worker"]).await.released;
    assert_eq!(shown(&back.formation), "web=0 worker=2");
    let now = f.store.formation(app.id).await.unwrap();
    assert_eq!((now[1].id, now[1].updated_at), (rows[1].id, rows[1].updated_at));
    assert_eq!(now[1].command, "run-worker");
}

#[tokio::test]
async fn scaling_is_all_or_nothing() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    check_refused(f.scale(&app, "web", 1).await, "\"web\" is not declared by the current release; deploy the app first");
    f.deploy(&app, 'a', &["web", "worker"]).await;
    let update = |process_type: &str, quantity, size: Option<&str>| FormationUpdate {
        process_type: process_type.parse().unwrap(),
        quantity,
        size: size.map(|s| s.parse().unwrap()),
    };
    let scale = |updates| f.store.scale(app.id, updates);
    check_refused(scale(vec![update("web", Some(5), None), update("cron", Some(1), None)]).await, "web, worker");
    let over = vec![update("worker", Some(5), None), update("web", Some(MAX_QUANTITY + 1), None)];
    check_refused(scale(over).await, "over the limit of 100");
    assert_eq!(shown(&scale(vec![]).await.unwrap()), "web=1 worker=0");

    let both = vec![update("web", Some(MAX_QUANTITY), None), update("worker", None, Some("standard-2x"))];
    let formation = scale(both).await.unwrap();
    assert_eq!(shown(&formation), "web=100 worker=0");
    let sizes: Vec<_> = formation.values().map(|e| e.size).collect();
    assert_eq!(sizes, [DynoSize::default(), "Standard-2X".parse().unwrap()]);
}
