//! Apps and config vars.

use super::*;

#[tokio::test]
async fn an_app_from_its_creation_to_its_end() {
    let bench = Bench::new().await;
    let (status, app) = bench.call("POST", "/apps", json!({ "name": "demo" })).await;
    assert_eq!(status, 201);
    check_fields(
        &app,
        "acm archived_at build_stack buildpack_provided_description created_at git_url id internal_routing maintenance \
         name organization owner region released_at repo_size slug_size space stack team updated_at web_url",
    );
    assert_eq!(app["web_url"], "http://demo.localhost:5000/");
    assert_eq!(bench.get("/apps/demo").await, app);
    assert_eq!(bench.get(&format!("/apps/{}", str_of(&app["id"]))).await, app, "by id as well");
    assert_eq!(bench.get("/apps").await, json!([app]));

    let changed = bench.ok("PATCH", "/apps/demo", json!({ "maintenance": true, "name": "other" })).await;
    assert_eq!((&changed["maintenance"], &changed["name"]), (&json!(true), &json!("other")));
    bench.refused("GET", "/apps/demo", Value::Null, 404, "app (demo)").await;
    assert_eq!(
        bench.log("other").await,
        [
            "api: App created by user operator@localhost",
            "api: Maintenance mode enabled by user operator@localhost",
            "api: Renamed from demo to other by user operator@localhost",
        ]
    );
    bench.ok("DELETE", "/apps/other", Value::Null).await;
    assert_eq!(bench.get("/apps").await, json!([]));
}

#[tokio::test]
async fn names_are_the_models_affair_and_unique() {
    let bench = Bench::new().await;
    bench.ok("POST", "/apps", json!({ "name": "demo" })).await;
    bench.ok("POST", "/apps", json!({ "name": "next" })).await;
    bench.refused("POST", "/apps", json!({ "name": "demo" }), 409, "demo").await;
    bench.refused("POST", "/apps", json!({ "name": "Demo" }), 422, "lowercase").await;
    bench.refused("POST", "/apps", json!({ "name": "../x" }), 422, "app name").await;
    bench.refused("PATCH", "/apps/next", json!({ "name": "demo" }), 409, "demo").await;
    bench.refused("PATCH", "/apps/none", json!({ "maintenance": true }), 404, "none").await;
    bench.refused("DELETE", "/apps/none", Value::Null, 404, "none").await;
    let suggested = bench.ok("POST", "/apps", Value::Null).await;
    assert!(str_of(&suggested["name"]).parse::<crate::model::AppName>().is_ok());
}

#[tokio::test]
async fn destruction_ends_dynos_and_removes_files() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let app = bench.platform.app("demo").await.unwrap();
    let slugs = || std::fs::read_dir(bench.dir.path().join("slugs")).unwrap().count();
    assert_eq!(slugs(), 1);
    // A second app with the same image keeps it alive.
    bench.ok("POST", "/apps", json!({ "name": "twin" })).await;
    bench.deploy("twin", b"source", &[("web", "w")]).await;
    bench.ok("DELETE", "/apps/demo", Value::Null).await;
    assert_eq!(crate::platform::Engine::dynos(bench.engine.as_ref(), app.id), []);
    assert_eq!(slugs(), 1);
    bench.ok("DELETE", "/apps/twin", Value::Null).await;
    assert_eq!(slugs(), 0);
}

#[tokio::test]
async fn config_vars_make_releases() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let vars = "/apps/demo/config-vars";
    assert_eq!(bench.get(vars).await, json!({}));
    assert_eq!(bench.ok("PATCH", vars, json!({ "A": "1", "B": "2" })).await, json!({ "A": "1", "B": "2" }));
    assert_eq!(bench.ps("demo").await, ["web.1:up:2"], "its dynos are replaced");
    assert_eq!(bench.ok("PATCH", vars, json!({ "A": null, "C": "3" })).await, json!({ "B": "2", "C": "3" }));
    assert_eq!(bench.get(vars).await, json!({ "B": "2", "C": "3" }));
    assert_eq!(bench.get("/apps/demo/releases/v2/config-vars").await, json!({ "A": "1", "B": "2" }));
    assert_eq!(bench.ok("PATCH", vars, json!({ "B": "2", "Z": null })).await, json!({ "B": "2", "C": "3" }));
    let releases = bench.get("/apps/demo/releases").await;
    let said: Vec<_> = releases.as_array().unwrap().iter().map(|r| str_of(&r["description"])).collect();
    assert_eq!(said[1..], ["Set A, B config vars", "Set C and remove A config vars"], "no release when nothing changes");
    let id = id_of(&bench.get("/apps/demo").await);
    let in_force = bench.engine.release(id).unwrap();
    assert_eq!((in_force.version, in_force.config.get("C"), in_force.config.get("A")), (3, Some("3"), None));
    for (name, part) in [("PORT", "platform"), ("A-B", "must match"), ("", "must match")] {
        bench.refused("PATCH", vars, json!({ name: "1" }), 422, part).await;
    }
    bench.refused("PATCH", vars, json!({ "A": "x".repeat(70_000) }), 422, "limit").await;
    bench.refused("GET", "/apps/none/config-vars", Value::Null, 404, "none").await;
}

#[tokio::test]
async fn config_vars_before_the_first_deploy() {
    let bench = Bench::new().await;
    bench.ok("POST", "/apps", json!({ "name": "demo" })).await;
    bench.ok("PATCH", "/apps/demo/config-vars", json!({ "A": "1" })).await;
    assert_eq!(bench.ps("demo").await, [""; 0]);
    bench.deploy("demo", b"source", &[("web", "w")]).await;
    assert_eq!(bench.get("/apps/demo/releases/2/config-vars").await, json!({ "A": "1" }));
    assert_eq!(bench.ps("demo").await, ["web.1:up:2"]);
}

#[tokio::test]
async fn a_restart_of_the_daemon_brings_back_what_is_wanted() {
    let bench = Bench::deployed(&[("web", "w"), ("worker", "k")]).await;
    bench.ok("PATCH", "/apps/demo/formation/worker", json!({ "quantity": 2 })).await;
    std::fs::write(bench.dir.path().join("slugs").join(format!("{}.sqsh", "f".repeat(64))), "left over").unwrap();
    let Bench { dir, router, platform, .. } = bench;
    drop((router, platform));
    // The log's follower of the first platform may hold the store for a moment longer; tasks end when they are polled.
    let again = loop {
        match Store::open(dir.path()) {
            Ok(store) => {
                drop(store);
                break Bench::over(dir).await;
            }
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(again.ps("demo").await, [""; 0], "loaded, but not yet told to start");
    crate::platform::Engine::apply(again.engine.as_ref(), crate::schedule::Event::Settled).await;
    assert_eq!(again.ps("demo").await, ["web.1:up:1", "worker.1:up:1", "worker.2:up:1"]);
    assert_eq!(std::fs::read_dir(again.dir.path().join("slugs")).unwrap().count(), 1, "images without a row are removed");
}
