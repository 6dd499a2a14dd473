//! Log sessions.

use super::*;
use crate::logs::Source;

async fn open(bench: &Bench, body: Value) -> Response<Body> {
    let (status, session) = bench.call("POST", "/apps/demo/log-sessions", body).await;
    assert_eq!(status, 201);
    check_fields(&session, "id logplex_url created_at updated_at");
    let path = str_of(&session["logplex_url"]).strip_prefix(BASE).unwrap().to_owned();
    bench.raw(Request::get(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn sessions_read_what_is_kept_and_filter_it() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let id = bench.platform.app("demo").await.unwrap().id;
    let at = "2012-10-11T03:47:20.123456Z".parse().unwrap();
    bench.hub.publish(id, Source::App, "web.1", "hello", at);
    bench.hub.publish(id, Source::App, "worker.1", "there", at);
    assert_eq!(text(open(&bench, json!({ "lines": 1 })).await).await, "2012-10-11T03:47:20.123456+00:00 app[worker.1]: there\n");
    assert_eq!(text(open(&bench, json!({ "source": "app", "dyno": "web.1" })).await).await, "2012-10-11T03:47:20.123456+00:00 app[web.1]: hello\n");
    let platform = text(open(&bench, json!({ "source": "heroku", "dyno": "web" })).await).await;
    assert!(platform.contains("heroku[web.1]: State changed from starting to up\n"), "{platform}");
    bench.refused("POST", "/apps/demo/log-sessions", json!({ "source": "all" }), 422, "app or heroku").await;
    bench.refused("GET", "/logs/0123", Value::Null, 404, "log session").await;
}

#[tokio::test]
async fn a_tail_goes_on() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let response = open(&bench, json!({ "lines": 0, "tail": true, "source": "app" })).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    let mut body = response.into_body();
    let id = bench.platform.app("demo").await.unwrap().id;
    for n in 0..3 {
        bench.hub.publish(id, Source::App, "web.1", &format!("line {n}"), jiff::Timestamp::now());
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(frame.ends_with(format!("app[web.1]: line {n}\n").as_bytes()), "{frame:?}");
    }
    bench.ok("DELETE", "/apps/demo", Value::Null).await;
    // The tail ends with its app.
    while body.frame().await.is_some() {}
}

#[tokio::test]
async fn a_session_expires() {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let session = bench.ok("POST", "/apps/demo/log-sessions", json!({})).await;
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(301)).await;
    let path = str_of(&session["logplex_url"]).strip_prefix(BASE).unwrap();
    bench.refused("GET", path, Value::Null, 404, "log session").await;
}
