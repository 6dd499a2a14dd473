//! `/apps/:app/log-sessions` and the streams they lead to.

use axum::{
    Json, Router,
    body::Body as HttpBody,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc};

use super::{
    Api, Shared,
    failure::Answer,
    json::{Body, id_of},
};
use crate::platform::LogRequest;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/apps/{app}/log-sessions", post(create))
}

pub(super) fn signed_routes() -> Router<Arc<Api>> {
    Router::new().route("/logs/{session}", get(stream))
}

#[derive(Deserialize)]
struct Create {
    dyno: Option<String>,
    source: Option<String>,
    lines: Option<usize>,
    #[serde(default)]
    tail: Option<bool>,
}

async fn create(State(api): Shared, Path(app): Path<String>, Body(wanted): Body<Create>) -> Answer<(StatusCode, Json<Value>)> {
    let app = api.platform.app(&app).await?;
    let Create { dyno, source, lines, tail } = wanted;
    let request = LogRequest { dyno, source, lines, tail: tail == Some(true) };
    let session = api.platform.create_log_session(&app, request)?;
    let answer = json!({
        "id": id_of("log session", &session.id),
        "logplex_url": format!("{}/logs/{}", api.base_url, session.id),
        "created_at": session.created_at,
        "updated_at": session.created_at,
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

async fn stream(State(api): Shared, Path(session): Path<String>) -> Answer<Response> {
    let lines = api.platform.read_log(&session)?;
    let body = HttpBody::from_stream(lines.map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}
