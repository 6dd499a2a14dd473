//! What holds for every request: who may ask, what is understood, what an answer carries.

use super::*;

const PROTECTED: &str = "GET /apps, POST /apps, GET /apps/demo, DELETE /apps/demo, GET /apps/demo/config-vars, \
    PATCH /apps/demo/config-vars, GET /apps/demo/formation, PATCH /apps/demo/formation/web, GET /apps/demo/dynos, \
    POST /apps/demo/dynos, DELETE /apps/demo/dynos, GET /apps/demo/dynos/web.1/wait, DELETE /apps/demo/formations/web, \
    POST /sources, POST /apps/demo/builds, GET /apps/demo/builds, DELETE /apps/demo/build-cache, \
    GET /apps/demo/releases, POST /apps/demo/releases, POST /apps/demo/log-sessions, GET /dyno-sizes, GET /account, GET /stacks";

#[tokio::test]
async fn nothing_without_the_token() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    for line in PROTECTED.split(", ") {
        let (method, path) = line.trim().split_once(' ').unwrap();
        for header in [None, Some("Bearer wrong"), Some("Bearer "), Some("Basic OndSb25n"), Some(TOKEN)] {
            let mut request = Request::builder().method(method).uri(path);
            if let Some(header) = header {
                request = request.header(header::AUTHORIZATION, header);
            }
            let response = bench.raw(request.body(Body::empty()).unwrap()).await;
            assert_eq!(response.status(), 401, "{line} with {header:?}");
            assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
            assert!(text(response).await.contains(r#""id":"unauthorized""#));
        }
    }
    assert_eq!(bench.ps("demo").await, ["web.1:up:1"], "nothing has happened");
}

#[tokio::test]
async fn the_token_as_a_password() {
    let bench = Bench::new().await;
    // base64 of ":open-sesame"
    let request = Request::get("/account").header(header::AUTHORIZATION, "Basic Om9wZW4tc2VzYW1l");
    assert_eq!(bench.raw(request.body(Body::empty()).unwrap()).await.status(), 200);
}

#[tokio::test]
async fn what_is_not_understood_is_refused_in_json() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    bench.refused("GET", "/no/such/path", Value::Null, 404, "no such path").await;
    bench.refused("PUT", "/apps", Value::Null, 405, "method").await;
    bench.refused("POST", "/apps", json!([1]), 400, "does not fit").await;
    bench.refused("PATCH", "/apps/demo/config-vars", json!({ "A": 1 }), 400, "does not fit").await;
    bench.refused("PATCH", "/apps/demo/config-vars", json!({ "A": "x".repeat(2 << 20) }), 413, "limit").await;
    let broken = Request::post("/apps").header(header::AUTHORIZATION, format!("Bearer {TOKEN}")).body(Body::from("{")).unwrap();
    let response = bench.raw(broken).await;
    assert_eq!(response.status(), 400);
}

/// Found by a fuzzer: what was asked for stood in the message as it came.
#[tokio::test]
async fn refusals_are_one_line() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let long = "\u{1b}".repeat(10_000);
    for (method, path, body) in [
        ("GET", "/apps/%1b%5b2J%0a/formation", Value::Null),
        ("GET", "/apps/demo/formation/%1b", Value::Null),
        ("PATCH", "/apps/demo/formation/web", json!({ "size": long })),
        ("POST", "/apps/demo/builds", json!({ "source_blob": long })),
    ] {
        let (status, answer) = bench.call(method, path, body).await;
        let message = answer["message"].as_str().unwrap();
        assert!(status.is_client_error() && message.chars().count() <= 1000 && !message.contains(char::is_control), "{path}: {message:?}");
    }
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let bench = Bench::new().await;
    for (given, kept) in [(None, false), (Some("0123-abcd"), true), (Some("short"), false), (Some("not a valid id"), false)] {
        let mut request = Request::get("/account");
        if let Some(given) = given {
            request = request.header("X-Request-Id", given);
        }
        let response = bench.raw(request.body(Body::empty()).unwrap()).await;
        let id = response.headers()["request-id"].to_str().unwrap();
        assert_eq!(Some(id) == given, kept, "{given:?} became {id:?}");
    }
}

#[tokio::test]
async fn a_change_is_carried_out_when_its_client_leaves() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let request = Request::patch("/apps/demo/formation/web")
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
        .body(Body::from(r#"{"quantity":3}"#))
        .unwrap();
    let mut changed = crate::platform::Engine::changed(bench.engine.as_ref());
    let mut call = Box::pin(bench.raw(request));
    // Polled once, so that it is under way, then dropped like the future of a connection that closed.
    assert!(futures_util::poll!(call.as_mut()).is_pending());
    drop(call);
    changed.changed().await.unwrap();
    assert_eq!(bench.ps("demo").await, ["web.1:up:1", "web.2:up:1", "web.3:up:1"]);
}

#[tokio::test]
async fn lists_are_turned_and_cut_on_request() {
    let bench = Bench::new().await;
    for name in ["aaa", "bbb", "ccc"] {
        bench.ok("POST", "/apps", json!({ "name": name })).await;
    }
    for (range, status, want) in [
        ("", 200, "aaa bbb ccc"),
        ("name ..; order=desc", 200, "ccc bbb aaa"),
        ("name ..; max=2, order=desc", 206, "ccc bbb"),
        ("name ..; order=asc;max=3", 200, "aaa bbb ccc"),
        ("max=x", 200, "aaa bbb ccc"),
    ] {
        let request = Request::get("/apps").header(header::AUTHORIZATION, format!("Bearer {TOKEN}")).header(header::RANGE, range);
        let response = bench.raw(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), status, "{range:?}");
        let apps: Value = serde_json::from_str(&text(response).await).unwrap();
        let names: Vec<_> = apps.as_array().unwrap().iter().map(|app| str_of(&app["name"])).collect();
        assert_eq!(names.join(" "), want, "{range:?}");
    }
}

#[tokio::test]
async fn the_catalog() {
    let bench = Bench::new().await;
    check_fields(&bench.get("/account").await, "id email name");
    assert_eq!(bench.get("/stacks").await[0]["name"], "dyno-1");
    let sizes = bench.get("/dyno-sizes").await;
    check_fields(&sizes[0], "id name memory compute dedicated dyno_units private_space_only cost pids cpu_weight disk_bytes memory_bytes");
    assert_eq!((&sizes[0]["name"], &sizes[0]["memory"]), (&json!("Standard-1X"), &json!(0.5)));
    assert!(sizes.as_array().unwrap().iter().all(|size| size["name"] != "Build"));
}
