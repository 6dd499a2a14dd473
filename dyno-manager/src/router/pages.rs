//! The router's own answers: short pages that say what happened and what to do.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
};
use http_body_util::Full;

use super::{body::Answer, code::Code, headers::X_REQUEST_ID};

/// The form that a client reads best, taken from its request before that is sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For browsers.
    Html,
    /// For all else.
    Plain,
}

impl Form {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let html = |v: &HeaderValue| v.to_str().is_ok_and(|v| v.contains("text/html"));
        if headers.get_all(ACCEPT).iter().any(html) { Self::Html } else { Self::Plain }
    }
}

/// The page for a code.
pub(super) fn fault(code: Code, form: Form, request_id: &str) -> Response<Answer> {
    page(code.status(), form, &format!("{code:?}: {}", code.desc()), code.advice(), request_id)
}

/// The page for a request that is refused, with the reason.
pub(super) fn refused(status: StatusCode, cause: &str, form: Form, request_id: &str) -> Response<Answer> {
    page(status, form, "H26: Request Error", &format!("The request was refused: {cause}."), request_id)
}

/// The page for a host that names no app.
pub(super) fn unknown(host: &str, app: &str, request_id: &str) -> Response<Answer> {
    let advice = format!(
        "No app answers at {host}: the first label of the host name must be an app's name, and there is no app {app:?}.\n\
         See what there is with: dyno apps\n\
         Make it with: dyno apps:create, then dyno deploy"
    );
    page(StatusCode::NOT_FOUND, Form::Plain, "No such app", &advice, request_id)
}

fn page(status: StatusCode, form: Form, title: &str, advice: &str, request_id: &str) -> Response<Answer> {
    let (kind, text) = match form {
        Form::Plain => ("text/plain; charset=utf-8", format!("{title}\n{advice}\nRequest id: {request_id}\n")),
        Form::Html => (
            "text/html; charset=utf-8",
            format!(
                "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
                 <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem}}\
                 small{{color:#666}}</style></head>\n<body><h1>{title}</h1><p>{}</p>\
                 <small>Request id: {request_id}</small></body></html>\n",
                escape(advice)
            ),
        ),
    };
    let mut response = Response::new(Answer::Page(Full::new(Bytes::from(text))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(X_REQUEST_ID, id);
    }
    response
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_html_and_others_text() {
        for (accept, want) in [
            (Some("text/html,application/xhtml+xml"), Form::Html),
            (Some("*/*"), Form::Plain),
            (Some("application/json"), Form::Plain),
            (None, Form::Plain),
        ] {
            let headers = accept.map(|v| (ACCEPT, HeaderValue::from_static(v))).into_iter().collect();
            assert_eq!(Form::of(&headers), want, "{accept:?}");
        }
    }
}
