//! Releases, slugs and rollback.

use super::*;

#[tokio::test]
async fn releases_are_listed_shown_and_gone_back_to() {
    let bench = Bench::deployed(&[("web", "old")]).await;
    bench.ok("PATCH", "/apps/demo/config-vars", json!({ "A": "1" })).await;
    bench.deploy("demo", b"other source", &[("web", "new"), ("worker", "k")]).await;
    let releases = bench.get("/apps/demo/releases").await;
    check_fields(&releases[0], "id app version description status current slug user addon_plan_names output_stream_url created_at updated_at");
    let versions: Vec<_> = releases.as_array().unwrap().iter().map(|r| (r["version"].clone(), r["current"].clone())).collect();
    assert_eq!(versions, [(json!(1), json!(false)), (json!(2), json!(false)), (json!(3), json!(true))]);
    for by in ["v1", "1", str_of(&releases[0]["id"])] {
        assert_eq!(bench.get(&format!("/apps/demo/releases/{by}")).await, releases[0]);
    }

    let (status, back) = bench.call("POST", "/apps/demo/releases", json!({ "release": "v1" })).await;
    assert_eq!((status.as_u16(), &back["version"], &back["description"]), (201, &json!(4), &json!("Rollback to v1")));
    assert_eq!((&back["slug"], &back["current"]), (&releases[0]["slug"], &json!(true)));
    assert_eq!(bench.get("/apps/demo/config-vars").await, json!({}), "the config vars of v1 too");
    assert_eq!(bench.ps("demo").await, ["web.1:up:4"]);
    assert_eq!(bench.get("/apps/demo/dynos/web.1").await["command"], "old");

    let again = bench.ok("POST", "/apps/demo/releases", json!({ "slug": releases[2]["slug"]["id"] })).await;
    assert_eq!(again["version"], 5);
    assert!(str_of(&again["description"]).starts_with("Deploy "));
    assert_eq!(bench.get("/apps/demo/dynos/web.1").await["command"], "new");
    bench.ok("POST", "/apps/demo/releases", json!({ "release": 2 })).await;

    let log = bench.log("demo").await;
    for line in ["Rollback to v1", "Release v4 created"] {
        assert!(log.contains(&format!("api: {line} by user operator@localhost")), "{line}: {log:?}");
    }
}

#[tokio::test]
async fn slugs_are_shown() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let release = bench.get("/apps/demo/releases/1").await;
    let slug = bench.get(&format!("/apps/demo/slugs/{}", str_of(&release["slug"]["id"]))).await;
    check_fields(
        &slug,
        "id app blob checksum commit commit_description process_types size stack buildpack_provided_description created_at updated_at",
    );
    assert_eq!((&slug["process_types"], &slug["size"]), (&json!({ "web": "w" }), &json!(4096)));
    assert!(str_of(&slug["checksum"]).starts_with("SHA256:"));
    assert_eq!(bench.get("/apps/demo").await["slug_size"], 4096);
}

#[tokio::test]
async fn what_cannot_be_released_is_refused() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let path = "/apps/demo/releases";
    bench.refused("POST", path, json!({ "release": "v9" }), 404, "v9").await;
    bench.refused("POST", path, json!({ "release": "x" }), 404, "x").await;
    bench.refused("POST", path, json!({ "slug": "x" }), 404, "slug").await;
    bench.refused("POST", path, json!({ "slug": uuid::Uuid::nil() }), 404, "slug").await;
    bench.refused("POST", path, json!({ "slug": "a", "release": "b" }), 400, "not both").await;
    bench.refused("POST", path, json!({}), 409, "").await;
    bench.refused("GET", "/apps/demo/releases/v9", Value::Null, 404, "v9").await;
    // What belongs to another app is not there.
    bench.ok("POST", "/apps", json!({ "name": "thief" })).await;
    let slug = bench.get("/apps/demo/releases/1").await["slug"]["id"].clone();
    bench.refused("POST", "/apps/thief/releases", json!({ "slug": slug }), 404, "slug").await;
    bench.refused("GET", &format!("/apps/thief/slugs/{}", str_of(&slug)), Value::Null, 404, "slug").await;
}
