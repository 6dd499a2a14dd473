//! What only a program sends.

use anyhow::{Result, ensure};
use dyno_tests::Platform;

use super::{all_hold, unharmed};

/// Stands for the operator's token.
const TOKEN: &str = "token";

/// Authorization, method, path, body; status, and a part of the message.
type Row = (Option<&'static str>, &'static str, &'static str, &'static str, u16, &'static str);

const REQUESTS: &[Row] = &[
    (None, "GET", "/apps", "", 401, "Invalid credentials"),
    (Some("Bearer wrong"), "GET", "/apps", "", 401, "Invalid credentials"),
    (Some("Bearer "), "GET", "/apps", "", 401, "Invalid credentials"),
    (Some("Basic Ojp3cm9uZw=="), "GET", "/apps", "", 401, "Invalid credentials"),
    (Some("nonsense"), "GET", "/apps", "", 401, "Invalid credentials"),
    (None, "DELETE", "/apps/steady", "", 401, "Invalid credentials"),
    (None, "POST", "/sources", "", 401, "Invalid credentials"),
    (Some(TOKEN), "GET", "/apps/no-such-app", "", 404, "no-such-app"),
    (Some(TOKEN), "GET", "/apps/..%2f..%2fetc", "", 404, "app"),
    (Some(TOKEN), "GET", "/nonsense", "", 404, "no such path"),
    (Some(TOKEN), "PUT", "/apps", "", 405, "does not take that method"),
    (Some(TOKEN), "POST", "/apps", "{\"name\": ", 400, "the body does not fit"),
    (Some(TOKEN), "POST", "/apps", "[]", 400, "the body does not fit"),
    (Some(TOKEN), "POST", "/apps", "\u{0}", 400, "the body does not fit"),
    (Some(TOKEN), "PATCH", "/apps/steady/formation", r#"{"updates": [{"type": "web", "quantity": -1}]}"#, 422, "quantity"),
    (Some(TOKEN), "PATCH", "/apps/steady/formation", r#"{"updates": [{"type": "web", "quantity": 101}]}"#, 422, "100"),
    (Some(TOKEN), "PATCH", "/apps/steady/formation", r#"{"updates": [{"type": "web", "quantity": 1.5}]}"#, 422, "quantity"),
    (Some(TOKEN), "PATCH", "/apps/steady/formation", r#"{"updates": [{"type": "web", "quantity": 1e99}]}"#, 422, "quantity"),
    (Some(TOKEN), "PATCH", "/apps/steady/formation", r#"{"updates": [{"type": "nonsense", "quantity": 1}]}"#, 404, "web, worker"),
    (Some(TOKEN), "POST", "/apps/steady/dynos", r#"{"command": ""}"#, 422, "command"),
    (Some(TOKEN), "POST", "/apps/steady/dynos", r#"{"command": "true", "env": {"PORT": "1"}}"#, 422, "PORT"),
    (Some(TOKEN), "POST", "/apps/steady/dynos", r#"{"command": "true", "type": "web"}"#, 422, "web"),
    (Some(TOKEN), "POST", "/apps/steady/dynos", r#"{"command": "true", "size": "huge"}"#, 422, "huge"),
    (Some(TOKEN), "POST", "/apps/steady/builds", r#"{"source_blob": {"url": "http://example.com/source.tgz"}}"#, 422, "source_blob.url"),
    (Some(TOKEN), "POST", "/apps/steady/builds", r#"{"source_blob": {"url": "file:///etc/passwd"}}"#, 422, "source_blob.url"),
    (Some(TOKEN), "GET", "/apps/steady/builds/nonsense", "", 404, "nonsense"),
    (None, "PUT", "/sources/0123456789abcdef0123456789abcdef", "x", 404, "source"),
    (None, "PUT", "/sources/..%2f..%2fplatform.db", "x", 404, "source"),
    (None, "GET", "/attach/nonsense", "", 426, "Connection: Upgrade"),
    (None, "GET", "/logs/nonsense", "", 404, "log session"),
];

pub(super) fn requests(platform: &Platform) -> Result<()> {
    let token = format!("Bearer {}", platform.token()?);
    unharmed(platform, || {
        let mut failures = Vec::new();
        for (authorization, method, path, body, status, says) in REQUESTS {
            let answer = platform.request(authorization.map(|a| if a == TOKEN { &*token } else { a }), method, path, body.as_bytes())?;
            if answer.status != *status || !answer.message().contains(says) {
                failures.push(format!("{method} {path} {body} ({authorization:?}): wanted {status} {says:?}, got {answer:?}"));
            }
        }
        all_hold(&failures)
    })
}

pub(super) fn huge_body(platform: &Platform) -> Result<()> {
    let token = format!("Bearer {}", platform.token()?);
    unharmed(platform, || {
        let body = format!("{{\"name\": \"{}\"}}", "x".repeat(2 << 20));
        let answer = platform.request(Some(&token), "POST", "/apps", body.as_bytes())?;
        ensure!(answer.status == 413 && answer.message().contains("over the limit of 1048576 bytes"), "{answer:?}");
        // A source that says it is larger than any may be is refused before its first byte.
        let source = platform.call("POST", "/sources", &serde_json::Value::Null)?.json();
        let url = source["source_blob"]["put_url"].as_str().unwrap_or_default().to_owned();
        let path = url.rsplit_once("/sources/").map(|(_, id)| format!("/sources/{id}")).unwrap_or_default();
        let answer = platform.announce("PUT", &path, 2 << 30)?;
        ensure!(answer.status == 413 && answer.message().contains("over the limit"), "{answer:?}");
        Ok(())
    })
}
