//! Bodies in and lists out.

use axum::{
    Json,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::failure::Failure;
use crate::{model::App, platform::Error};

/// A JSON body; an empty one counts as `{}`. The content type is not asked for, as on Heroku.
pub(super) struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(e) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Error::TooLarge(format!("the body is over the limit of {} bytes", super::MAX_BODY))
            }
            other => Error::BadRequest(other.to_string()),
        })?;
        let text = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { bytes.as_ref() };
        let value = serde_json::from_slice(text).map_err(|e| Error::BadRequest(format!("the body does not fit: {e}")))?;
        Ok(Self(value))
    }
}

/// A list, with what Heroku's client asks of it by `Range: <field> ..; order=desc, max=10`. There are no further
/// pages: without `max`, all of the list is given.
pub(super) fn list(headers: &HeaderMap, mut items: Vec<Value>) -> Response {
    let range = headers.get(header::RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut options = range.split([';', ',', ' ']).filter_map(|option| option.trim().split_once('='));
    let max = options.clone().find(|(name, _)| *name == "max").and_then(|(_, n)| n.parse().ok());
    if options.any(|option| option == ("order", "desc")) {
        items.reverse();
    }
    let cut = max.is_some_and(|max| items.len() > max);
    items.truncate(max.unwrap_or(usize::MAX));
    let status = if cut { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    (status, Json(Value::Array(items))).into_response()
}

/// `{"id","name"}` of an app.
pub(super) fn app_ref(app: &App) -> Value {
    json!({ "id": app.id, "name": app.name })
}

/// `{"id","name"}` of something that has only a name; the id follows from it.
pub(super) fn named(kind: &str, name: &str) -> Value {
    json!({ "id": id_of(kind, name), "name": name })
}

/// `{"id","email"}` of a user.
pub(super) fn user(email: &str) -> Value {
    json!({ "id": id_of("user", email), "email": email })
}

/// A stable id for what has none of its own.
pub(super) fn id_of(kind: &str, name: &str) -> Uuid {
    let digest = Sha256::new().chain_update(kind).chain_update([0]).chain_update(name).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
