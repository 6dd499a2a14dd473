//! Dynos: listing, one-offs, restart, stop, wait.

use super::*;

#[tokio::test]
async fn dynos_are_listed_and_shown() {
    let bench = Bench::deployed(&[("web", "python web.py")]).await;
    let dynos = bench.get("/apps/demo/dynos").await;
    check_fields(&dynos[0], "id name type command state size release app attach_url created_at updated_at retry_at exit");
    assert_eq!(dynos[0]["release"]["id"], bench.get("/apps/demo/releases/1").await["id"]);
    assert_eq!(bench.get("/apps/demo/dynos/web.1").await, dynos[0]);
    assert_eq!(bench.get(&format!("/apps/demo/dynos/{}", id_of(&dynos[0]))).await, dynos[0]);
    for missing in ["web.2", "web", "00000000-0000-0000-0000-000000000000"] {
        bench.refused("GET", &format!("/apps/demo/dynos/{missing}"), Value::Null, 404, missing).await;
    }
}

#[tokio::test]
async fn a_crashed_dyno_says_when_it_is_tried_again() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    bench.engine.end(id_of(&bench.get("/apps/demo/dynos/web.1").await), 3);
    let dyno = bench.get("/apps/demo/dynos/web.1").await;
    assert_eq!((&dyno["state"], &dyno["exit"]["status"]), (&json!("crashed"), &json!(3)));
    assert!(dyno["retry_at"].is_string());
    assert_eq!(bench.ps("demo").await, ["web.1:crashed:1"]);
}

#[tokio::test]
async fn a_one_off_from_start_to_exit() {
    let bench = Bench::deployed(&[("web", "w"), ("worker", "python worker.py")]).await;
    let body = json!({ "command": "worker --once", "env": { "A": "1" }, "size": "standard-2x" });
    let (status, dyno) = bench.call("POST", "/apps/demo/dynos", body).await;
    assert_eq!(status, 201);
    assert_eq!(
        [&dyno["name"], &dyno["type"], &dyno["command"], &dyno["size"], &dyno["attach_url"]],
        [&json!("run.1"), &json!("run"), &json!("python worker.py --once"), &json!("Standard-2X"), &Value::Null]
    );
    assert_eq!(bench.ps("demo").await, ["run.1:up:1", "web.1:up:1"]);
    let wait = bench.ok("GET", "/apps/demo/dynos/run.1/wait", Value::Null);
    let (waited, ()) = tokio::join!(wait, async {
        tokio::task::yield_now().await;
        bench.engine.end(id_of(&dyno), 7);
    });
    assert_eq!((&waited["state"], &waited["exit"]["status"], &waited["exit"]["cause"]), (&json!("complete"), &json!(7), &json!("exited")));
    assert_eq!(bench.ps("demo").await, ["web.1:up:1"], "not listed any more");
    assert_eq!(bench.get("/apps/demo/dynos/run.1/wait").await["exit"]["status"], 7, "yet known to who asks late");
    // Whoever follows it to its end has been woken, and has his turn before the scheduler forgets it.
    tokio::task::yield_now().await;
    bench.engine.later(3600);
    assert_eq!(crate::platform::Engine::dynos(bench.engine.as_ref(), id_of(&dyno["app"])).len(), 1, "the scheduler has forgotten it");
    assert_eq!(bench.get("/apps/demo/dynos/run.1").await["exit"]["status"], 7, "the platform has not");
    let next = bench.ok("POST", "/apps/demo/dynos", json!({ "command": "bash", "type": "rake" })).await;
    assert_eq!(next["name"], "rake.2", "numbers are not given out twice");
}

#[tokio::test]
async fn what_cannot_run_is_refused() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    for (body, part) in [
        (json!({}), "command"),
        (json!({ "command": "  " }), "empty"),
        (json!({ "command": "a\0b" }), "NUL"),
        (json!({ "command": "x".repeat(70_000) }), "64 KiB"),
        (json!({ "command": "x", "type": "web" }), "formation"),
        (json!({ "command": "x", "type": "../x" }), "process type"),
        (json!({ "command": "x", "size": "huge" }), "Standard-1X"),
        (json!({ "command": "x", "size": "Build" }), "builds only"),
        (json!({ "command": "x", "env": { "A-B": "1" } }), "A-B"),
        (json!({ "command": "x", "env": { "PORT": "1" } }), "platform"),
        (json!({ "command": "x", "time_to_live": 0 }), "86400"),
    ] {
        bench.refused("POST", "/apps/demo/dynos", body, 422, part).await;
    }
    let tty = json!({ "command": "x", "attach": true, "tty": { "rows": 1, "cols": 70_000 } });
    bench.refused("POST", "/apps/demo/dynos", tty, 400, "does not fit").await;
    bench.ok("POST", "/apps", json!({ "name": "blank" })).await;
    bench.refused("POST", "/apps/blank/dynos", json!({ "command": "x" }), 422, "deploy it first").await;
    for _ in 0..50 {
        bench.ok("POST", "/apps/demo/dynos", json!({ "command": "sleep 1" })).await;
    }
    bench.refused("POST", "/apps/demo/dynos", json!({ "command": "x" }), 422, "50 one-off").await;
}

#[tokio::test]
async fn restart_and_stop_replace_or_end() {
    let bench = Bench::deployed(&[("web", "w"), ("worker", "k")]).await;
    bench.ok("PATCH", "/apps/demo/formation/web", json!({ "quantity": 2 })).await;
    bench.ok("PATCH", "/apps/demo/formation/worker", json!({ "quantity": 1 })).await;
    let ids = async || -> Vec<String> {
        let dynos = bench.get("/apps/demo/dynos").await;
        dynos.as_array().unwrap().iter().map(|d| str_of(&d["id"]).to_owned()).collect()
    };
    // Which of web.1, web.2, worker.1 have another identity afterwards.
    for (method, path, want) in [
        ("DELETE", "/apps/demo/dynos", [true, true, true]),
        ("DELETE", "/apps/demo/dynos/web.2", [false, true, false]),
        ("DELETE", "/apps/demo/formations/web", [true, true, false]),
        ("POST", "/apps/demo/dynos/worker.1/actions/stop", [false, false, true]),
        ("POST", "/apps/demo/formations/web/actions/stop", [true, true, false]),
    ] {
        let before = ids().await;
        let (status, _) = bench.call(method, path, Value::Null).await;
        assert_eq!(status, 202, "{path}");
        let after = ids().await;
        let replaced: Vec<_> = before.iter().zip(&after).map(|(b, a)| a != b).collect();
        assert_eq!(replaced, want, "{method} {path}");
    }
    let run = bench.ok("POST", "/apps/demo/dynos", json!({ "command": "bash" })).await;
    bench.ok("POST", &format!("/apps/demo/dynos/{}/actions/stop", id_of(&run)), Value::Null).await;
    assert_eq!(bench.get("/apps/demo/dynos/run.1/wait").await["exit"]["cause"], "stopped");
    for (method, path) in [
        ("DELETE", "/apps/demo/dynos/web.9"),
        ("POST", "/apps/demo/dynos/run.9/actions/stop"),
        ("DELETE", "/apps/demo/formations/clock"),
        ("POST", "/apps/demo/formations/clock/actions/stop"),
    ] {
        bench.refused(method, path, Value::Null, 404, "").await;
    }
}

#[tokio::test]
async fn a_name_means_the_launch_in_service() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    bench.engine.stubborn.store(true, std::sync::atomic::Ordering::Relaxed);
    let old = bench.get("/apps/demo/dynos/web.1").await;
    bench.ok("DELETE", "/apps/demo/dynos/web.1", Value::Null).await;
    assert_eq!(bench.ps("demo").await, ["web.1:up:1"], "the old launch is out of the listing's way");
    assert_ne!(bench.get("/apps/demo/dynos/web.1").await["id"], old["id"]);
    assert_eq!(bench.get(&format!("/apps/demo/dynos/{}", id_of(&old))).await["state"], "stopping", "yet there, by its id");
    bench.ok("PATCH", "/apps/demo/formation/web", json!({ "quantity": 0 })).await;
    assert_eq!(bench.ps("demo").await, ["web.1:stopping:1"], "shown, once, while nothing replaces it");
    bench.engine.later(60);
    assert_eq!(bench.ps("demo").await, [""; 0]);
}

#[tokio::test]
async fn a_one_off_that_outlives_its_time_is_stopped() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    tokio::time::pause();
    bench.ok("POST", "/apps/demo/dynos", json!({ "command": "sleep 99", "time_to_live": 60 })).await;
    let ended = bench.get("/apps/demo/dynos/run.1/wait").await;
    assert_eq!(ended["exit"]["cause"], "stopped");
}
