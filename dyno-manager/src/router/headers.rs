//! What changes in a message's head on its way through, and what is read from it.
//!
//! Hop-by-hop fields end here (RFC 9110 section 7.6.1), also those that `Connection` names. What the router knows better
//! than the client (`X-Forwarded-Proto`, `-Port`, `X-Request-Start`) is overwritten, never trusted.

use std::{net::IpAddr, time::SystemTime};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{self, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE, VIA},
    request, response,
    uri::PathAndQuery,
};
use percent_encoding::{CONTROLS, utf8_percent_encode};
use uuid::Uuid;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_REQUEST_START: HeaderName = HeaderName::from_static("x-request-start");

/// Fields of one hop. `Trailer` is not among them: it announces fields that are relayed.
const HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

const NAME: &str = "1.1 dyno-router";

/// What the router adds to a request.
pub(super) struct Hop {
    /// The client's address.
    pub(super) peer: IpAddr,
    /// The port it came in on.
    pub(super) port: u16,
    /// See [`request_id`].
    pub(super) request_id: String,
}

/// The host that a request names: from the request target if that is absolute, else from the one `Host` field. `None`
/// if there is none, more than one, or one with bytes that no host name has.
pub(super) fn host<B>(request: &Request<B>) -> Option<String> {
    let mut fields = request.headers().get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return None;
    }
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => field?.to_str().ok()?,
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    (!host.is_empty() && host.len() <= 255 && host.bytes().all(fits)).then(|| host.to_ascii_lowercase())
}

/// The app that a host names: its first label.
pub(super) fn app_of(host: &str) -> &str {
    host.split(['.', ':']).next().unwrap_or_default()
}

/// A host without its port.
pub(super) fn without_port(host: &str) -> &str {
    host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name })
}

/// The client's request id if it is one (20 to 200 of `A-Za-z0-9+/=-`, Heroku's rule), else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(X_REQUEST_ID).and_then(|v| v.to_str().ok());
    let fits = |s: &&str| (20..=200).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=-".contains(&b));
    given.filter(fits).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// The chain of addresses that a request came through, the client's own last: all before it is hearsay.
pub(super) fn forwarded_for(headers: &HeaderMap, peer: IpAddr) -> String {
    let given = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok());
    let mut chain: Vec<_> = given.map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect();
    chain.push(peer.to_canonical().to_string());
    chain.join(", ")
}

/// Why a request is refused before an app sees it, in words for the log and the page.
pub(super) fn objection<B>(request: &Request<B>) -> Option<&'static str> {
    let codings: Vec<_> = request.headers().get_all(TRANSFER_ENCODING).iter().collect();
    let chunked = |v: &HeaderValue| v.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    match codings[..] {
        [] => {}
        [one] if chunked(one) => {}
        _ => return Some("transfer coding other than chunked"),
    }
    (request.method() == Method::CONNECT).then_some("CONNECT is for proxies")
}

/// Bytes that the head took on the wire, near enough.
pub(super) fn size<B>(request: &Request<B>) -> usize {
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let target = request.uri().path_and_query().map_or(1, |p| p.as_str().len());
    request.method().as_str().len() + target + 12 + fields.sum::<usize>()
}

/// The protocol that a request asks to switch to. `h2c` is not relayed: it would carry requests that the router does
/// not see, and RFC 9113 dropped it.
pub(super) fn wanted_upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let names = |v: &HeaderValue| tokens(v).any(|t| t.eq_ignore_ascii_case("upgrade"));
    let asked = request.version() == Version::HTTP_11 && request.headers().get_all(CONNECTION).iter().any(names);
    let protocol = request.headers().get(UPGRADE).filter(|_| asked)?;
    let h2c = tokens(protocol).any(|t| t.to_ascii_lowercase().starts_with("h2c"));
    (!h2c).then(|| protocol.clone())
}

/// Turns a client's head into the one for the dyno. `upgrade` as from [`wanted_upgrade`].
pub(super) fn to_dyno(head: &mut request::Parts, host: &str, hop: &Hop, upgrade: Option<&HeaderValue>) {
    let chain = forwarded_for(&head.headers, hop.peer);
    let chunked = head.headers.contains_key(TRANSFER_ENCODING);
    strip(&mut head.headers);
    // The router has answered `100-continue` itself by reading the body.
    head.headers.remove(EXPECT);
    if chunked {
        head.headers.remove(CONTENT_LENGTH);
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if head.uri.authority().is_some() {
        put(&mut head.headers, HOST, host);
    }
    switch(&mut head.headers, upgrade);
    put(&mut head.headers, X_FORWARDED_FOR, &chain);
    put(&mut head.headers, X_FORWARDED_PROTO, "http");
    put(&mut head.headers, X_FORWARDED_PORT, &hop.port.to_string());
    put(&mut head.headers, X_REQUEST_ID, &hop.request_id);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    put(&mut head.headers, X_REQUEST_START, &since.as_millis().to_string());
    head.headers.append(VIA, HeaderValue::from_static(NAME));
    head.uri = origin_form(&head.uri);
    head.version = Version::HTTP_11;
    head.extensions.clear();
}

/// The target without scheme, host and fragment, and in ASCII: a raw byte may be a control character, or an end of line (U+0085), to who reads it as
/// Latin-1. Of `http://host#fragment` the library keeps a path that it writes as nothing at all.
fn origin_form(uri: &Uri) -> Uri {
    let Some(target) = uri.path_and_query().filter(|target| target.path() != "/" || target.query().is_some()) else {
        return Uri::from(PathAndQuery::from_static("/"));
    };
    let in_ascii = (!target.as_str().is_ascii()).then(|| utf8_percent_encode(target.as_str(), CONTROLS).to_string());
    Uri::from(in_ascii.and_then(|text| PathAndQuery::from_maybe_shared(text).ok()).unwrap_or_else(|| target.clone()))
}

/// Turns a dyno's head into the one for the client.
pub(super) fn to_client(head: &mut response::Parts, upgrade: Option<&HeaderValue>) {
    strip(&mut head.headers);
    switch(&mut head.headers, upgrade);
    head.headers.append(VIA, HeaderValue::from_static(NAME));
    head.version = Version::HTTP_11;
    head.extensions.clear();
}

fn switch(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
}

/// Removes the fields of one hop.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers.get_all(CONNECTION).iter().flat_map(tokens).filter_map(|t| t.parse().ok()).collect();
    // A client must not take away what frames or routes the message.
    for name in named.iter().filter(|name| **name != HOST && **name != CONTENT_LENGTH) {
        headers.remove(name);
    }
    for name in HOP {
        headers.remove(name);
    }
}

/// The elements of a comma-separated field.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim).filter(|t| !t.is_empty())
}

/// Sets a field to a value of the router's making.
fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => drop(headers.insert(name, value)),
        // Only a client's own text could fail here; then the field is better gone than the client's.
        Err(_) => drop(headers.remove(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str, fields: &[(&str, &str)]) -> Request<()> {
        let build = Request::builder().uri(target);
        let build = fields.iter().fold(build, |b, (name, value)| b.header(*name, *value));
        build.body(()).unwrap()
    }

    #[test]
    fn hosts_name_apps() {
        for (target, fields, want) in [
            ("/", &[("host", "shop.localhost:5000")][..], Some("shop")),
            ("/", &[("host", "Shop.Example.COM")], Some("shop")),
            ("/", &[("host", "shop")], Some("shop")),
            ("/", &[("host", "shop:80")], Some("shop")),
            ("/", &[("host", "[::1]:80")], Some("[")),
            ("http://shop.example.com/x", &[("host", "other.example.com")], Some("shop")),
            ("/", &[], None),
            ("/", &[("host", "")], None),
            ("/", &[("host", "a.b"), ("host", "c.d")], None),
            ("/", &[("host", "a b")], None),
            ("/", &[("host", "a\"b")], None),
            ("/", &[("host", "user@shop.example.com")], None),
        ] {
            let host = host(&head(target, fields));
            assert_eq!(host.as_deref().map(app_of), want, "{target} {fields:?}");
        }
    }

    #[test]
    fn fields_of_one_hop_end_here() {
        let hop = Hop { peer: "1.2.3.4".parse().unwrap(), port: 80, request_id: "id".into() };
        let request = head(
            "http://shop.example.com/a?b",
            &[
                ("connection", "close, x-secret, host"),
                ("connection", "X-Forwarded-For, content-length"),
                ("x-secret", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "trailers"),
                ("expect", "100-continue"),
                ("upgrade", "h2c"),
                ("content-length", "3"),
                ("host", "other"),
                ("cookie", "a=b"),
                ("x-forwarded-for", "9.9.9.9"),
                ("x-forwarded-proto", "https"),
                ("x-request-start", "1"),
                ("via", "1.0 old"),
            ],
        );
        let mut head = request.into_parts().0;
        to_dyno(&mut head, "shop.example.com", &hop, None);
        let started = head.headers.remove(X_REQUEST_START).unwrap();
        assert!(started.to_str().unwrap().parse::<u64>().unwrap() > 1_600_000_000_000);
        let mut got: Vec<_> = head.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        got.sort();
        let want = [
            "content-length: 3",
            "cookie: a=b",
            "host: shop.example.com",
            "via: 1.0 old",
            "via: 1.1 dyno-router",
            "x-forwarded-for: 9.9.9.9, 1.2.3.4",
            "x-forwarded-port: 80",
            "x-forwarded-proto: http",
            "x-request-id: id",
        ];
        assert_eq!(got, want);
        assert_eq!(head.uri, "/a?b");
    }

    /// The first was found by a fuzzer: `GET  HTTP/1.1` went to the dyno.
    #[test]
    fn targets_are_written_as_paths() {
        for (target, want) in [
            ("http://shop.example.com#x", "/"),
            ("http://shop.example.com?x#y", "/?x"),
            ("http://shop.example.com", "/"),
            ("http://shop.example.com/a?b#c", "/a?b"),
            ("/#x", "/"),
            ("//x/../y", "//x/../y"),
            ("*", "*"),
            ("/\u{1dd}\u{85}%41?q=ä", "/%C7%9D%C2%85%41?q=%C3%A4"),
        ] {
            let uri: Uri = target.parse().unwrap();
            assert_eq!(origin_form(&uri).to_string(), want, "{target}");
        }
    }

    #[test]
    fn upgrades_need_the_connection_token() {
        let ws = HeaderValue::from_static("websocket");
        for (fields, want) in [
            (&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")][..], Some(&ws)),
            (&[("upgrade", "websocket")], None),
            (&[("connection", "upgrade")], None),
            (&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")], None),
        ] {
            assert_eq!(wanted_upgrade(&head("/", fields)).as_ref(), want, "{fields:?}");
        }
    }

    #[test]
    fn request_ids_are_kept_only_if_they_are_ids() {
        let long = "a".repeat(201);
        for (given, kept) in [
            ("0123456789abcdefABC+/=-", true),
            ("short", false),
            ("0123456789 0123456789", false),
            ("0123456789\"0123456789", false),
            (long.as_str(), false),
        ] {
            let id = request_id(head("/", &[("x-request-id", given)]).headers());
            assert_eq!(id == given, kept, "{given:?} became {id:?}");
        }
    }

    #[test]
    fn odd_codings_are_objected_to() {
        for (fields, refused) in [
            (&[][..], false),
            (&[("transfer-encoding", "Chunked")], false),
            (&[("transfer-encoding", "gzip, chunked")], true),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], true),
        ] {
            assert_eq!(objection(&head("/", fields)).is_some(), refused, "{fields:?}");
        }
    }
}
