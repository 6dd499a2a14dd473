//! `/sources`: where archives are uploaded before a build.

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header},
    routing::{post, put},
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::sync::Arc;

use super::{Api, Shared, failure::Answer};
use crate::platform::{Error, MAX_SOURCE};

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/sources", post(create))
}

pub(super) fn signed_routes() -> Router<Arc<Api>> {
    Router::new().route("/sources/{id}", put(upload)).layer(DefaultBodyLimit::disable())
}

async fn create(State(api): Shared) -> Answer<(StatusCode, Json<Value>)> {
    let id = api.platform.sources().create()?;
    let url = format!("{}/sources/{id}", api.base_url);
    Ok((StatusCode::CREATED, Json(json!({ "source_blob": { "get_url": url, "put_url": url } }))))
}

/// Written to disk as it comes; a length over the limit is refused before the first byte.
async fn upload(State(api): Shared, Path(id): Path<String>, headers: HeaderMap, body: Body) -> Answer<Json<Value>> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_SOURCE) {
        return Err(Error::TooLarge(format!("the source archive is over the limit of {MAX_SOURCE} bytes")).into());
    }
    let mut upload = api.platform.sources().upload(&id).await?;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|e| Error::BadRequest(format!("the upload broke off: {e}")))?;
        upload.write(&piece).await?;
    }
    upload.finish().await?;
    Ok(Json(json!({})))
}
