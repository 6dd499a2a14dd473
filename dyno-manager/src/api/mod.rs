//! The Heroku Platform API v3 over HTTP: authentication, JSON shapes, streams.
//!
//! Nothing is decided here: a handler reads a request, calls one method of [`Platform`] and shapes its answer.
//! A request that changes something runs to its end even when its client leaves (see [`uncancelled`]).

mod apps;
mod attach;
mod auth;
mod builds;
mod catalog;
mod config;
mod dynos;
mod failure;
mod formation;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod json;
mod logs;
mod releases;
mod serve;
mod session;
mod sources;
mod stdio;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, Method, header::HeaderName},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use uuid::Uuid;

use crate::platform::{Error, Platform};
use failure::Failure;

pub use serve::serve;

/// Longest JSON body, bytes; config vars are at most 64 KiB.
const MAX_BODY: usize = 1 << 20;

/// What the API itself needs to know.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Where clients reach this API (`http://127.0.0.1:5080`), without a slash at the end; signed URLs start with it.
    pub base_url: String,
    /// The operator's token: a Bearer token, or the password of Basic authentication.
    pub token: String,
}

/// What every handler shares.
struct Api {
    platform: Arc<Platform>,
    base_url: String,
    keys: auth::Keys,
}

type Shared = axum::extract::State<Arc<Api>>;

/// All of the API.
pub fn router(platform: Arc<Platform>, settings: ApiSettings) -> Router {
    let base_url = settings.base_url.trim_end_matches('/').to_owned();
    let api = Arc::new(Api { platform, base_url, keys: auth::Keys::new(&settings.token) });
    let with_token = Router::new()
        .merge(apps::routes())
        .merge(builds::routes())
        .merge(catalog::routes())
        .merge(config::routes())
        .merge(dynos::routes())
        .merge(formation::routes())
        .merge(logs::routes())
        .merge(releases::routes())
        .merge(sources::routes())
        .route_layer(middleware::from_fn_with_state(api.clone(), auth::require_token));
    // Each of these holds a secret in its address, as the signed URLs of Heroku do.
    let with_secret =
        Router::new().merge(attach::routes()).merge(builds::signed_routes()).merge(logs::signed_routes()).merge(sources::signed_routes());
    with_token
        .merge(with_secret)
        .fallback(async || Failure(Error::not_found("resource", "no such path")))
        .method_not_allowed_fallback(async || failure::method_not_allowed())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(uncancelled))
        .layer(middleware::from_fn(request_id))
        .with_state(api)
}

/// Runs a request that changes something in a task of its own: between the store's commit and the engine's event
/// there must be no point at which a client that hangs up leaves the two apart.
async fn uncancelled(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(panic) => Failure(Error::internal(panic)).into_response(),
    }
}

/// Every answer names its request; a client may choose the name.
async fn request_id(request: Request, next: Next) -> Response {
    const NAME: HeaderName = HeaderName::from_static("request-id");
    let given = request.headers().get(&NAME).or_else(|| request.headers().get("x-request-id"));
    let fits = |v: &&HeaderValue| {
        let ok = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
        (8..=128).contains(&v.len()) && v.as_bytes().iter().all(ok)
    };
    let fresh = || HeaderValue::try_from(Uuid::new_v4().to_string()).unwrap_or_else(|_| HeaderValue::from_static("-"));
    let id = given.filter(fits).cloned().unwrap_or_else(fresh);
    let mut response = next.run(request).await;
    response.headers_mut().insert(NAME, id);
    response
}
