//! Sources and builds.

use super::*;

#[tokio::test]
async fn a_build_leads_to_a_release() {
    let bench = Bench::new().await;
    bench.ok("POST", "/apps", json!({ "name": "demo" })).await;
    let url = bench.upload(b"abc").await;
    let digest = "SHA256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let body = json!({ "source_blob": { "url": url, "version": "6933f9b123456", "checksum": digest }, "egress": "none" });
    let (status, build) = bench.call("POST", "/apps/demo/builds", body).await;
    assert_eq!(status, 201);
    check_fields(&build, "id app status stack buildpacks source_blob output_stream_url slug release user created_at updated_at egress error");
    assert_eq!((&build["status"], &build["egress"]), (&json!("pending"), &json!("none")));
    assert_eq!(build["source_blob"]["checksum"], digest);
    let path = format!("/apps/demo/builds/{}", str_of(&build["id"]));
    let (record, source) = bench.compiler.request();
    assert_eq!((record.id, source.as_slice()), (id_of(&build), &b"abc"[..]));

    let other = bench.upload(b"x").await;
    bench.refused("POST", "/apps/demo/builds", json!({ "source_blob": { "url": other } }), 409, "").await;

    let lines = bench.compiler.succeed(&[("web", "w")]).await.unwrap();
    assert_eq!(lines, ["Released v1", "http://demo.localhost:5000/ deployed to Dyno"]);
    let build = bench.get(&path).await;
    assert_eq!(build["status"], "succeeded");
    let release = bench.get("/apps/demo/releases/v1").await;
    assert_eq!((&build["release"]["id"], &build["slug"]), (&release["id"], &release["slug"]));
    assert_eq!(release["description"], "Deploy 6933f9b1");
    assert_eq!(bench.ps("demo").await, ["web.1:up:1"]);
    assert_eq!(bench.get("/apps/demo/builds").await, json!([build]));
    bench.refused("DELETE", &path, Value::Null, 409, "ended").await;
    // The source that a refused build did not use is still there.
    bench.ok("POST", "/apps/demo/builds", json!({ "source_blob": { "url": other } })).await;
    assert_eq!(bench.compiler.succeed(&[("clock", "c")]).await.unwrap(), ["Released v2"], "no address without web");
}

#[tokio::test]
async fn a_failed_build_changes_nothing_but_its_record() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let url = bench.upload(b"broken").await;
    let build = bench.ok("POST", "/apps/demo/builds", json!({ "source_blob": { "url": url } })).await;
    assert_eq!(bench.compiler.fail("failed to compile").await.unwrap_err(), "failed to compile");
    let build = bench.get(&format!("/apps/demo/builds/{}", str_of(&build["id"]))).await;
    assert_eq!((&build["status"], &build["error"]), (&json!("failed"), &json!("failed to compile")));
    assert_eq!((&build["slug"], &build["release"]), (&Value::Null, &Value::Null));
    assert_eq!(bench.ps("demo").await, ["web.1:up:1"]);
    assert!(bench.log("demo").await.contains(&"api: Build failed: failed to compile".to_owned()));
}

#[tokio::test]
async fn a_running_build_is_cancelled_by_the_compiler() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let url = bench.upload(b"slow").await;
    let build = bench.ok("POST", "/apps/demo/builds", json!({ "source_blob": { "url": url } })).await;
    let path = format!("/apps/demo/builds/{}", str_of(&build["id"]));
    assert_eq!(bench.ok("DELETE", &path, Value::Null).await["status"], "pending");
    bench.compiler.fail("canceled").await.unwrap_err();
    assert_eq!(bench.get(&path).await["status"], "failed");
    bench.ok("DELETE", "/apps/demo/build-cache", Value::Null).await;
}

#[tokio::test]
async fn an_app_that_is_destroyed_while_it_is_built() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let url = bench.upload(b"late").await;
    bench.ok("POST", "/apps/demo/builds", json!({ "source_blob": { "url": url } })).await;
    bench.ok("DELETE", "/apps/demo", Value::Null).await;
    assert!(bench.compiler.succeed(&[("web", "w")]).await.unwrap_err().contains("build"));
    assert_eq!(bench.get("/apps").await, json!([]));
}

#[tokio::test]
async fn sources_are_checked() {
    let bench = Bench::new().await;
    bench.ok("POST", "/apps", json!({ "name": "demo" })).await;
    let build = |url: &str| json!({ "source_blob": { "url": url } });
    bench.refused("POST", "/apps/demo/builds", json!({}), 400, "source_blob").await;
    bench.refused("POST", "/apps/demo/builds", build("https://example.com/x.tgz"), 422, "POST /sources").await;
    let unknown = format!("{BASE}/sources/{}", "0".repeat(32));
    bench.refused("POST", "/apps/demo/builds", build(&unknown), 404, "source").await;
    let empty = bench.ok("POST", "/sources", Value::Null).await["source_blob"]["get_url"].clone();
    bench.refused("POST", "/apps/demo/builds", build(str_of(&empty)), 409, "PUT").await;
    let url = bench.upload(b"abc").await;
    let wrong = json!({ "source_blob": { "url": url, "checksum": format!("SHA256:{}", "0".repeat(64)) } });
    bench.refused("POST", "/apps/demo/builds", wrong, 422, "sha256").await;
    let egress = json!({ "source_blob": { "url": url }, "egress": "all" });
    bench.refused("POST", "/apps/demo/builds", egress, 422, "registries").await;
    let put = url.strip_prefix(BASE).unwrap();
    bench.refused("PUT", put, json!("again"), 409, "uploaded").await;
    bench.refused("PUT", &format!("/sources/{}", "0".repeat(32)), json!("x"), 404, "source").await;
    let request = Request::put(str_of(&empty).strip_prefix(BASE).unwrap()).header(header::CONTENT_LENGTH, (1u64 << 30) + 1);
    assert_eq!(bench.raw(request.body(Body::empty()).unwrap()).await.status(), 413);
    assert_eq!(bench.get("/apps/demo/builds").await, json!([]), "nothing was recorded");
}

#[tokio::test]
async fn large_sources_pass_the_limit_of_json_bodies() {
    let bench = Bench::new().await;
    bench.upload(&vec![7; 3 << 20]).await;
}

#[tokio::test]
async fn the_output_is_opened_by_its_own_key_or_the_token() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let url = bench.upload(b"x").await;
    let build = bench.ok("POST", "/apps/demo/builds", json!({ "source_blob": { "url": url } })).await;
    let signed = str_of(&build["output_stream_url"]).strip_prefix(BASE).unwrap().to_owned();
    let bare = signed.split_once('?').unwrap().0.to_owned();
    let status = async |path: String| bench.raw(Request::get(path).body(Body::empty()).unwrap()).await.status().as_u16();
    // 404 is past the door: this compiler keeps no output.
    assert_eq!(status(signed.clone()).await, 404);
    assert_eq!(status(bare.clone()).await, 401);
    assert_eq!(status(format!("{bare}?key=0")).await, 401);
    let other = bare.replace(str_of(&build["id"]), &uuid::Uuid::new_v4().to_string());
    assert_eq!(status(format!("{other}?{}", signed.split_once('?').unwrap().1)).await, 401, "one key, one build");
    bench.refused("GET", &bare, Value::Null, 404, "output").await;
}
