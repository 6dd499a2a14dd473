//! What only a program sends.

use anyhow::{Result, ensure};
use dyno_tests::Platform;

use super::{STEADY, all_hold, unharmed};

pub(super) fn requests(platform: &Platform) -> Result<()> {
    let token = format!("Bearer {}", platform.token()?);
    let good = Some(token.as_str());
    let formation = format!("/apps/{STEADY}/formation");
    let dynos = format!("/apps/{STEADY}/dynos");
    let builds = format!("/apps/{STEADY}/builds");
    let elsewhere = r#"{"source_blob": {"url": "http://example.com/source.tgz"}}"#;
    // Authorization, method, path, body; status, and a part of the message.
    let rows: &[(Option<&str>, &str, &str, &str, u16, &str)] = &[
        (None, "GET", "/apps", "", 401, "Invalid credentials"),
        (Some("Bearer wrong"), "GET", "/apps", "", 401, "Invalid credentials"),
        (Some("Bearer "), "GET", "/apps", "", 401, "Invalid credentials"),
        (Some("Basic Ojp3cm9uZw=="), "GET", "/apps", "", 401, "Invalid credentials"),
        (Some("nonsense"), "GET", "/apps", "", 401, "Invalid credentials"),
        (None, "DELETE", "/apps/steady", "", 401, "Invalid credentials"),
        (None, "POST", "/sources", "", 401, "Invalid credentials"),
        (good, "GET", "/apps/no-such-app", "", 404, "no-such-app"),
        (good, "GET", "/apps/..%2f..%2fetc", "", 404, "app"),
        (good, "GET", "/nonsense", "", 404, "no such path"),
        (good, "PUT", "/apps", "", 405, "does not take that method"),
        (good, "POST", "/apps", "{\"name\": ", 400, "the body does not fit"),
        (good, "POST", "/apps", "[]", 400, "the body does not fit"),
        (good, "POST", "/apps", "\u{0}", 400, "the body does not fit"),
        (good, "PATCH", &formation, r#"{"updates": [{"type": "web", "quantity": -1}]}"#, 422, "quantity"),
        (good, "PATCH", &formation, r#"{"updates": [{"type": "web", "quantity": 101}]}"#, 422, "100"),
        (good, "PATCH", &formation, r#"{"updates": [{"type": "web", "quantity": 1.5}]}"#, 422, "quantity"),
        (good, "PATCH", &formation, r#"{"updates": [{"type": "web", "quantity": 1e99}]}"#, 422, "quantity"),
        (good, "PATCH", &formation, r#"{"updates": [{"type": "nonsense", "quantity": 1}]}"#, 404, "web, worker"),
        (good, "POST", &dynos, r#"{"command": ""}"#, 422, "command"),
        (good, "POST", &dynos, r#"{"command": "true", "env": {"PORT": "1"}}"#, 422, "PORT"),
        (good, "POST", &dynos, r#"{"command": "true", "type": "web"}"#, 422, "web"),
        (good, "POST", &dynos, r#"{"command": "true", "size": "huge"}"#, 422, "huge"),
        (good, "POST", &builds, elsewhere, 422, "source_blob.url"),
        (good, "POST", &builds, r#"{"source_blob": {"url": "file:///etc/passwd"}}"#, 422, "source_blob.url"),
        (good, "GET", &format!("{builds}/nonsense"), "", 404, "nonsense"),
        (None, "PUT", "/sources/0123456789abcdef0123456789abcdef", "x", 404, "source"),
        (None, "PUT", "/sources/..%2f..%2fplatform.db", "x", 404, "source"),
        (None, "GET", "/attach/nonsense", "", 426, "Connection: Upgrade"),
        (None, "GET", "/logs/nonsense", "", 404, "log session"),
    ];
    unharmed(platform, || {
        let mut failures = Vec::new();
        for (authorization, method, path, body, status, says) in rows {
            let answer = platform.request(*authorization, method, path, body.as_bytes())?;
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
