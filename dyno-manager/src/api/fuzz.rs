//! What must hold of any request to the API: it is answered, by what it asks for or by a refusal that says why, and never by a fault of ours.

use std::{cell::RefCell, sync::Arc};

use axum::{Router, body::Body};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt;

#[allow(dead_code, unused_imports, reason = "the tests of the API use all of it")]
#[path = "tests/fake.rs"]
mod fake;

use super::{ApiSettings, router};
use crate::{
    fuzzing::{Folder, one_line},
    logs::LogHub,
    model::{Egress, MAX_QUANTITY},
    platform::{Platform, Settings},
    store::Store,
};

/// Requests to one platform; then it begins anew, so that it stays small.
const REQUESTS: u32 = 300;

/// A platform with an app `demo` that has a release.
struct Bench {
    runtime: Runtime,
    router: Router,
    platform: Arc<Platform>,
    left: u32,
    _folder: Folder,
}

impl Bench {
    fn new() -> Self {
        let folder = Folder::new("api");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let hub = LogHub::new();
        let (engine, _) = fake::FakeEngine::new(hub.clone());
        let compiler = fake::FakeCompiler::new(&folder.0);
        let domain = "localhost:5000".to_owned();
        let settings = Settings { state: folder.0.clone(), user: "operator@localhost".into(), domain, stack: "dyno-1".into(), egress: Egress::None };
        let store = Store::open(&folder.0).expect("a store");
        let platform = Platform::new(settings, store, engine, hub, compiler).expect("a platform");
        let api = ApiSettings { base_url: "http://127.0.0.1:5080".into(), token: "token".into() };
        let bench = Self { router: router(platform.clone(), api), platform, runtime, left: REQUESTS, _folder: folder };
        bench.runtime.block_on(async {
            bench.platform.load().await.expect("an empty store");
            bench.call(request("POST", "/apps", "", b"{\"name\":\"demo\"}".to_vec()).expect("a request")).await;
        });
        bench
    }

    async fn call(&self, request: Request<Body>) -> (StatusCode, Vec<u8>) {
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let streams = head.headers.get(header::CONTENT_TYPE).is_none_or(|kind| !kind.as_bytes().starts_with(b"application/json"));
        // A log goes on for ever.
        let body = if streams { Vec::new() } else { body.collect().await.expect("a body").to_bytes().to_vec() };
        (head.status, body)
    }

    /// Names and numbers that others rely on, whatever was asked.
    async fn hold(&self) {
        for app in self.platform.apps().await.expect("the apps") {
            assert!(app.name.as_str().len() <= 30);
            for row in self.platform.formation(&app).await.expect("a formation") {
                assert!(row.quantity <= MAX_QUANTITY, "{row:?}");
            }
        }
    }
}

fn request(method: &str, path: &str, range: &str, body: Vec<u8>) -> Option<Request<Body>> {
    let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, "Bearer token");
    let request = if range.is_empty() { request } else { request.header(header::RANGE, range) };
    request.body(Body::from(body)).ok()
}

/// `METHOD PATH`, a line for `Range`, the body.
pub(crate) fn request_of(bytes: &[u8]) -> Option<Request<Body>> {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let (method, path) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let range = std::str::from_utf8(lines.next()?).ok()?;
    if !path.starts_with('/') {
        return None;
    }
    request(method, path, range, lines.next()?.to_vec())
}

pub(crate) fn request_bytes(bytes: &[u8]) {
    thread_local!(static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) });
    let Some(request) = request_of(bytes) else { return };
    BENCH.with_borrow_mut(|kept| {
        let bench = kept.get_or_insert_with(Bench::new);
        let (status, body) = bench.runtime.block_on(bench.call(request));
        assert!(!status.is_server_error(), "{status}: {}", body.escape_ascii());
        if !body.is_empty() {
            let answer: Value = serde_json::from_slice(&body).expect("JSON");
            if !status.is_success() {
                one_line(answer["message"].as_str().expect("why"));
                one_line(answer["id"].as_str().expect("which refusal"));
            }
        }
        bench.left -= 1;
        if bench.left % 50 == 0 {
            bench.runtime.block_on(bench.hold());
        }
        if bench.left == 0 {
            *kept = None;
        }
    });
}
