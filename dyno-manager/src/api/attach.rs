//! `GET /attach/:secret`: an HTTP/1.1 upgrade to an attached session.

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::sync::Arc;

use super::{
    Api, Shared,
    failure::{Answer, refusal},
    session,
};
use crate::attach::UPGRADE;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/attach/{secret}", get(attach))
}

async fn attach(State(api): Shared, Path(secret): Path<String>, mut request: Request) -> Answer<Response> {
    // The secret is spent only by a request that can become a session.
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let asked = request.method() == Method::GET && asks_for_upgrade(request.headers());
    let Some(upgrade) = upgrade.filter(|_| asked) else {
        let why = format!("Ask with Connection: Upgrade and Upgrade: {UPGRADE} over HTTP/1.1.");
        let mut response = refusal(StatusCode::UPGRADE_REQUIRED, "upgrade_required", &why);
        response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static(UPGRADE));
        return Ok(response);
    };
    let ticket = api.platform.claim(&secret)?;
    let platform = api.platform.clone();
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => session::run(&platform, ticket, TokioIo::new(upgraded)).await,
            Err(error) => {
                tracing::debug!(%error, "the client left before its session began");
                session::hang_up(&platform, ticket).await;
            }
        }
    });
    Ok((StatusCode::SWITCHING_PROTOCOLS, [(header::CONNECTION, "upgrade"), (header::UPGRADE, UPGRADE)]).into_response())
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let names = |name, token: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(token))
    };
    names(header::CONNECTION, "upgrade") && names(header::UPGRADE, UPGRADE)
}
