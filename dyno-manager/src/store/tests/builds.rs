//! Builds, and what is left over when an app goes.

use super::*;
use crate::model::BuildStatus;

#[tokio::test]
async fn an_app_has_one_build_at_a_time() {
    let f = fixture();
    let (app, other) = (f.app("blue-sky").await, f.app("red-sky").await);
    let calls = (0..5).map(|_| f.store.create_build(new_build(&app)));
    let (made, refused): (Vec<_>, Vec<_>) = futures_util::future::join_all(calls).await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 4));
    let build = made.into_iter().next().unwrap().unwrap();
    for error in refused {
        check_refused(error, &format!("build {} of this app is still running", build.id));
    }
    f.store.create_build(new_build(&other)).await.unwrap();
    f.store.fail_build(build.id, "out of memory".into()).await.unwrap();
    let second = f.store.create_build(new_build(&app)).await.unwrap();
    let ids: Vec<_> = f.store.builds(app.id).await.unwrap().into_iter().map(|b| b.id).collect();
    assert_eq!(ids, [build.id, second.id]);
    check_refused(f.store.build(other.id, build.id).await, "no build");
}

#[tokio::test]
async fn a_finished_build_names_what_it_made() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    let Finished { build, released } = f.deploy(&app, 'a', &["web"]).await;
    let slug = released.slug.unwrap();
    assert_eq!(build.status, BuildStatus::Succeeded);
    assert_eq!((build.slug_id, build.release_id), (Some(slug.id), Some(released.release.id)));
    assert_eq!((released.release.user.as_str(), slug.commit.as_deref()), ("dev@example.com", Some("6933f9b0")));
    assert_eq!((slug.size, slug.sha256), (13_200_000, "a".repeat(64)));
    assert_eq!(f.store.build(app.id, build.id).await.unwrap(), build);
}

#[tokio::test]
async fn a_build_ends_once() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    let finish = |id| f.store.finish_build(id, new_slug('b', &["web"]), "Deploy".into(), ReleaseStatus::Succeeded);
    let failed = f.store.create_build(new_build(&app)).await.unwrap();
    f.store.fail_build(failed.id, "cancelled".into()).await.unwrap();
    let again = f.store.fail_build(failed.id, "something else".into()).await.unwrap();
    assert_eq!(again.error.as_deref(), Some("cancelled"));
    check_refused(finish(failed.id).await, "has ended already: cancelled");

    let done = f.deploy(&app, 'a', &["web"]).await.build;
    check_refused(f.store.fail_build(done.id, "late".into()).await, "has succeeded already");
    check_refused(finish(done.id).await, "has ended already");
    check_refused(finish(uuid::Uuid::nil()).await, "no build");
    assert_eq!(f.store.releases(app.id).await.unwrap().len(), 1);
    assert_eq!(f.store.slugs_in_use().await.unwrap().len(), 1, "a refused build leaves no slug");
}

#[tokio::test]
async fn a_build_that_cannot_be_released_is_still_pending_and_leaves_nothing() {
    let f = fixture();
    let app = f.app("blue-sky").await;
    let first = f.store.create_build(new_build(&app)).await.unwrap();
    let finish = |id, sha| f.store.finish_build(id, new_slug(sha, &["web"]), "Deploy".into(), ReleaseStatus::Pending);
    finish(first.id, 'a').await.unwrap();
    let second = f.store.create_build(new_build(&app)).await.unwrap();
    check_refused(finish(second.id, 'b').await, "release v1 is still running");
    assert_eq!(f.store.build(app.id, second.id).await.unwrap(), second);
    assert_eq!(f.store.slugs_in_use().await.unwrap().into_iter().collect::<Vec<_>>(), ["a".repeat(64)]);
}

#[tokio::test]
async fn a_destroyed_app_leaves_no_row_and_names_its_files() {
    let f = fixture();
    let (app, other) = (f.app("blue-sky").await, f.app("red-sky").await);
    let first = f.deploy(&app, 'a', &["web"]).await.build;
    let second = f.deploy(&app, 'b', &["web"]).await.build;
    let running = f.store.create_build(new_build(&app)).await.unwrap();
    f.deploy(&other, 'b', &["web"]).await;
    f.set(&app, "A", Some("1")).await.unwrap();
    f.store.next_run_number(app.id).await.unwrap();

    let mut gone = f.store.destroy_app(app.id).await.unwrap();
    assert_eq!((gone.app.id, gone.slugs), (app.id, vec!["a".repeat(64)]), "the other app's image stays");
    let mut builds = vec![first.id, second.id, running.id];
    builds.sort_unstable();
    gone.builds.sort_unstable();
    assert_eq!(gone.builds, builds);

    check_refused(f.store.destroy_app(app.id).await, "no app");
    check_refused(f.store.builds(app.id).await, "no app");
    check_refused(f.store.fail_build(running.id, "late".into()).await, "no build");
    let id = app.id.to_string();
    let left: i64 = f
        .store
        .transact(move |tx| {
            let tables = ["slugs", "releases", "formation", "builds", "counters"];
            let counts = tables.map(|t| format!("(SELECT count(*) FROM {t} WHERE app_id = ?1)"));
            Ok(tx.query_row(&format!("SELECT {}", counts.join(" + ")), [id], |r| r.get(0))?)
        })
        .await
        .unwrap();
    assert_eq!(left, 0);
    assert_eq!(f.store.snapshot(other.id).await.unwrap().slug.unwrap().sha256, "b".repeat(64));
}
