//! Scaling.

use super::*;

#[tokio::test]
async fn scale_up_and_down() {
    let bench = Bench::deployed(&[("web", "python web.py"), ("worker", "python worker.py")]).await;
    let rows = bench.get("/apps/demo/formation").await;
    check_fields(&rows[0], "id app type command quantity size created_at updated_at");
    let quantities = |rows: &Value| -> Vec<String> {
        let shown = |r: &Value| format!("{}={}:{}", str_of(&r["type"]), r["quantity"], str_of(&r["size"]));
        rows.as_array().unwrap().iter().map(shown).collect()
    };
    assert_eq!(quantities(&rows), ["web=1:Standard-1X", "worker=0:Standard-1X"], "web runs once by default");
    assert_eq!(rows[0]["command"], "python web.py");

    let updates = json!({ "updates": [{ "type": "worker", "quantity": 2, "size": "standard-2x" }, { "type": "web", "quantity": 3 }] });
    let rows = bench.ok("PATCH", "/apps/demo/formation", updates).await;
    assert_eq!(quantities(&rows), ["worker=2:Standard-2X", "web=3:Standard-1X"], "what was asked for, in that order");
    assert_eq!(bench.ps("demo").await, ["web.1:up:1", "web.2:up:1", "web.3:up:1", "worker.1:up:1", "worker.2:up:1"]);
    let log = bench.log("demo").await;
    let line = "api: Scaled to worker@2:Standard-2X web@3:Standard-1X by user operator@localhost";
    assert!(log.iter().any(|l| l == line), "{log:?}");

    let row = bench.ok("PATCH", "/apps/demo/formation/web", json!({ "quantity": 0 })).await;
    assert_eq!(row["quantity"], 0);
    assert_eq!(bench.get("/apps/demo/formation/web").await["quantity"], 0);
    assert_eq!(bench.ps("demo").await, ["worker.1:up:1", "worker.2:up:1"]);
}

#[tokio::test]
async fn what_cannot_be_scaled_is_refused_and_changes_nothing() {
    let bench = Bench::deployed(&[("web", "w"), ("worker", "k")]).await;
    for (quantity, part) in [
        (json!(101), "0 to 100"),
        (json!(-1), "0 to 100"),
        (json!(1.5), "0 to 100"),
        (json!("2"), "0 to 100"),
        (json!(u64::MAX), "0 to 100"),
        (json!([]), "0 to 100"),
    ] {
        bench.refused("PATCH", "/apps/demo/formation/web", json!({ "quantity": quantity }), 422, part).await;
    }
    bench.refused("PATCH", "/apps/demo/formation/web", json!({ "size": "huge" }), 422, "Performance-M").await;
    bench.refused("PATCH", "/apps/demo/formation/web", json!({ "size": "build" }), 422, "builds only").await;
    bench.refused("PATCH", "/apps/demo/formation/clock", json!({ "quantity": 1 }), 404, "web, worker").await;
    bench.refused("GET", "/apps/demo/formation/clock", Value::Null, 404, "web, worker").await;
    let many = |updates: Value| json!({ "updates": updates });
    let unknown = many(json!([{ "type": "web", "quantity": 5 }, { "type": "clock", "quantity": 1 }]));
    bench.refused("PATCH", "/apps/demo/formation", unknown, 404, "web, worker").await;
    let twice = many(json!([{ "type": "web", "quantity": 5 }, { "type": "web", "quantity": 1 }]));
    bench.refused("PATCH", "/apps/demo/formation", twice, 422, "twice").await;
    bench.refused("PATCH", "/apps/demo/formation", many(json!([{ "quantity": 5 }])), 400, "type").await;
    bench.refused("PATCH", "/apps/demo/formation", json!({}), 400, "updates").await;
    assert_eq!(bench.ps("demo").await, ["web.1:up:1"]);

    bench.ok("POST", "/apps", json!({ "name": "blank" })).await;
    bench.refused("PATCH", "/apps/blank/formation/web", json!({ "quantity": 1 }), 404, "deploy it first").await;
    assert_eq!(bench.get("/apps/blank/formation").await, json!([]));
}
