//! Errors as Heroku answers them: a status and `{"id","message"}`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{platform::Error, printable::printable};

/// An error on its way to a client.
pub(super) struct Failure(pub Error);

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// What a handler gives.
pub(super) type Answer<T> = Result<T, Failure>;

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, id) = match &self.0 {
            Error::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
            Error::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_params"),
            Error::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Error::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Error::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"),
            Error::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Error::Internal(cause) => {
                tracing::error!("request failed: {cause:#}");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal_server_error")
            }
        };
        let mut response = refusal(status, id, &self.0.to_string());
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"dyno\""));
        }
        response
    }
}

/// `{"id","message"}`. Messages quote what was asked for, and end on terminals: one line, not endless, nothing that a terminal obeys.
pub(super) fn refusal(status: StatusCode, id: &str, message: &str) -> Response {
    const MOST: usize = 1000;
    (status, Json(json!({ "id": id, "message": printable(message, MOST) }))).into_response()
}

pub(super) fn method_not_allowed() -> Response {
    refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This resource does not take that method.")
}
