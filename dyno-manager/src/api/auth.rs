//! Who may ask: the operator's token, or a key that was signed with it for one build's output.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Api, failure::Answer};
use crate::platform::{Error, hex};

/// The token as a digest: comparing digests tells nothing about how much of a guess was right.
pub(super) struct Keys {
    token: [u8; 32],
}

impl Keys {
    pub fn new(token: &str) -> Self {
        Self { token: Sha256::digest(token).into() }
    }

    fn is_token(&self, given: &str) -> bool {
        same(&self.token, &Sha256::digest(given).into())
    }

    /// The key that opens the output of one build and nothing else. SHA-256 over a secret of fixed length and an id of
    /// fixed length: there is nothing to extend.
    pub fn output_key(&self, build: Uuid) -> String {
        hex(&self.signature(build)[..16])
    }

    pub fn opens_output(&self, build: Uuid, key: &str) -> bool {
        let digest = |s: &str| <[u8; 32]>::from(Sha256::digest(s));
        same(&digest(&self.output_key(build)), &digest(key))
    }

    fn signature(&self, build: Uuid) -> [u8; 32] {
        Sha256::new().chain_update(self.token).chain_update(b"build output ").chain_update(build).finalize().into()
    }
}

/// Compares without stopping at the first difference.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0u8, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// Lets a request pass that carries the token.
pub(super) async fn require_token(State(api): State<Arc<Api>>, request: Request, next: Next) -> Answer<Response> {
    if !authorized(&api.keys, &request) {
        return Err(Error::Unauthorized.into());
    }
    Ok(next.run(request).await)
}

pub(super) fn authorized(keys: &Keys, request: &Request) -> bool {
    let header = request.headers().get(header::AUTHORIZATION);
    header.and_then(|value| value.to_str().ok()).and_then(token).is_some_and(|token| keys.is_token(&token))
}

/// The token of `Bearer TOKEN` or `Basic base64(anyone:TOKEN)`.
fn token(header: &str) -> Option<String> {
    let (scheme, value) = header.split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(base64(value)?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// Base64 with or without padding (RFC 4648, section 4); None for anything else.
fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = text.trim_end_matches('=');
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len()), 0u32, 0u32);
    for symbol in text.bytes() {
        let value = ALPHABET.iter().position(|a| *a == symbol)?;
        bits = (bits << 6 | u32::try_from(value).ok()?) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_either_scheme() {
        for (header, want) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic OmFiYw==", Some("abc")),
            ("Basic dXNlcjphYmM6ZA", Some("abc:d")),
            ("Basic YWJj", None),
            ("Basic !!!", None),
            ("Digest abc", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(token(header).as_deref(), want, "{header:?}");
        }
    }

    #[test]
    fn an_output_key_opens_one_build() {
        let (keys, a, b) = (Keys::new("t"), Uuid::from_u128(1), Uuid::from_u128(2));
        assert!(keys.opens_output(a, &keys.output_key(a)));
        assert!(!keys.opens_output(b, &keys.output_key(a)));
        assert!(!keys.opens_output(a, ""));
        assert!(!keys.opens_output(a, &Keys::new("u").output_key(a)));
    }
}
