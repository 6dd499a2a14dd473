//! The API over a real store and the real scheduler, without a kernel: see [`fake`].

mod apps;
mod attach;
mod builds;
mod dynos;
mod fake;
mod formation;
mod logs;
mod releases;
mod requests;

use std::sync::Arc;

use axum::{Router, body::Body};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::ServiceExt;

use super::{ApiSettings, router};
use crate::{
    logs::{Filter, LogHub},
    model::{DynoId, Egress},
    platform::{Platform, Settings},
    store::Store,
};
use fake::{FakeCompiler, FakeEngine};

const BASE: &str = "http://127.0.0.1:5080";
const TOKEN: &str = "open-sesame";

struct Bench {
    router: Router,
    platform: Arc<Platform>,
    engine: Arc<FakeEngine>,
    compiler: Arc<FakeCompiler>,
    hub: LogHub,
    signals: mpsc::UnboundedReceiver<(DynoId, i32)>,
    /// Last, so that it goes after all that uses it.
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::over(tempfile::tempdir().unwrap()).await
    }

    async fn over(dir: tempfile::TempDir) -> Self {
        let hub = LogHub::new();
        let (engine, signals) = FakeEngine::new(hub.clone());
        let compiler = FakeCompiler::new(dir.path());
        let settings = Settings {
            state: dir.path().to_owned(),
            user: "operator@localhost".into(),
            domain: "localhost:5000".into(),
            stack: "dyno-1".into(),
            egress: Egress::Registries,
        };
        let store = Store::open(dir.path()).unwrap();
        let platform = Platform::new(settings, store, engine.clone(), hub.clone(), compiler.clone()).unwrap();
        platform.load().await.unwrap();
        let settings = ApiSettings { base_url: format!("{BASE}/"), token: TOKEN.into() };
        Self { router: router(platform.clone(), settings), platform, engine, compiler, hub, signals, dir }
    }

    /// An app `demo` with a release of these types.
    async fn deployed(types: &[(&str, &str)]) -> Self {
        let bench = Self::new().await;
        bench.ok("POST", "/apps", json!({ "name": "demo" })).await;
        bench.deploy("demo", b"source", types).await;
        bench
    }

    async fn raw(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .body(body)
            .unwrap();
        let response = self.raw(request).await;
        let status = response.status();
        (status, serde_json::from_str(&text(response).await).unwrap_or(Value::Null))
    }

    /// A call that has to succeed.
    async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        answer
    }

    async fn get(&self, path: &str) -> Value {
        self.ok("GET", path, Value::Null).await
    }

    /// A call that has to be refused: status, id, and a part of the message.
    async fn refused(&self, method: &str, path: &str, body: Value, status: u16, part: &str) {
        let id = match status {
            400 => "bad_request",
            401 => "unauthorized",
            404 => "not_found",
            405 => "method_not_allowed",
            409 => "conflict",
            413 => "payload_too_large",
            _ => "invalid_params",
        };
        let (got, answer) = self.call(method, path, body.clone()).await;
        assert_eq!((got.as_u16(), &answer["id"]), (status, &json!(id)), "{method} {path} {body}: {answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(part), "{method} {path} {body}: {message:?} lacks {part:?}");
    }

    /// Uploads a source and gives its address.
    async fn upload(&self, source: &[u8]) -> String {
        let blob = self.ok("POST", "/sources", Value::Null).await["source_blob"].clone();
        let put = blob["put_url"].as_str().unwrap().strip_prefix(BASE).unwrap();
        // The address is its own permission.
        let request = Request::put(put).body(Body::from(source.to_vec())).unwrap();
        assert_eq!(self.raw(request).await.status(), StatusCode::OK);
        blob["get_url"].as_str().unwrap().to_owned()
    }

    async fn deploy(&self, app: &str, source: &[u8], types: &[(&str, &str)]) -> Vec<String> {
        let url = self.upload(source).await;
        self.ok("POST", &format!("/apps/{app}/builds"), json!({ "source_blob": { "url": url } })).await;
        self.compiler.succeed(types).await.unwrap()
    }

    /// `web.1:up:1` for every dyno of the listing: name, state, release.
    async fn ps(&self, app: &str) -> Vec<String> {
        let dynos = self.get(&format!("/apps/{app}/dynos")).await;
        let shown = |d: &Value| format!("{}:{}:{}", str_of(&d["name"]), str_of(&d["state"]), d["release"]["version"]);
        dynos.as_array().unwrap().iter().map(shown).collect()
    }

    /// The platform's log of an app: `api: App created by …`.
    async fn log(&self, app: &str) -> Vec<String> {
        let app = self.platform.app(app).await.unwrap();
        let lines = self.hub.snapshot(app.id, &Filter::default(), 1500);
        lines.iter().map(|line| format!("{}: {}", line.ps, line.text)).collect()
    }
}

fn str_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string"))
}

fn id_of(value: &Value) -> uuid::Uuid {
    str_of(&value["id"]).parse().unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// The fields of an object, sorted.
fn fields(value: &Value) -> Vec<&str> {
    let mut names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Asserts that an object has these fields (Heroku's, in the schema's order) and no others.
fn check_fields(value: &Value, want: &str) {
    let mut want: Vec<_> = want.split_whitespace().collect();
    want.sort_unstable();
    assert_eq!(fields(value), want);
}
