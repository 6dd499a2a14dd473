//! What must hold of an exchange, whatever a client or a dyno sends: what goes on to the other side is one message that every reader ends at
//! the same byte, and says nothing that only one hop may say.
//!
//! The whole way is gone, but for sockets: hyper reads the bytes in small pieces, the head is rewritten, hyper writes it to the other side,
//! and that is read by [`strict`], which shares nothing with either.

mod strict;
mod wire;

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{runtime::Runtime, time::timeout};

use self::{strict::Read, wire::Wire};
use super::{
    framing::Framing,
    headers::{self, Hop},
};

/// An exchange in memory takes microseconds.
const STUCK: Duration = Duration::from_secs(10);
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// What dynos got, or why that must not be.
type Relayed = Vec<Result<Vec<u8>, String>>;

/// The client's bytes, of which the first says in what pieces they come.
pub(crate) fn request(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else { return };
    for wire in relayed(bytes, *size) {
        let wire = wire.unwrap_or_else(|e: String| panic!("{e}"));
        match strict::message(&wire, false) {
            Ok(Read::Incomplete) => {}
            Ok(Read::Whole { length, fields }) => {
                assert_eq!(length, wire.len(), "more than a request went to the dyno: {}", wire.escape_ascii());
                hold(&fields);
            }
            Ok(Read::UntilClose) => panic!("a request without an end: {}", wire.escape_ascii()),
            Err(what) => panic!("{what}: {}", wire.escape_ascii()),
        }
    }
}

fn relayed(bytes: &[u8], size: u8) -> Relayed {
    let framing = Arc::new(Mutex::new(Framing::default()));
    let client = Wire::new(bytes, size).watched(framing.clone());
    let relayed = Arc::new(Mutex::new(Vec::new()));
    let (to, seen) = (relayed.clone(), Arc::new(Mutex::new(0)));
    let service = service_fn(move |request: Request<Incoming>| {
        let (relayed, framing, seen) = (to.clone(), framing.clone(), seen.clone());
        async move {
            let ordinal = {
                let mut seen = lock(&seen);
                *seen += 1;
                *seen
            };
            let (heads, conflict) = {
                let framing = lock(&framing);
                (framing.heads(), framing.conflict())
            };
            if heads < ordinal {
                // Not lost sight of: a length that is stated in two ways would pass.
                lock(&relayed).push(Err(format!("request {ordinal} was served, and {heads} heads were seen")));
            }
            Ok::<_, Infallible>(relay(request, conflict == Some(ordinal), &relayed).await)
        }
    });
    let output = client.output();
    runtime().block_on(async {
        // The end of what the client sends is not the end of the client.
        let serving = http1::Builder::new().half_close(true).max_buf_size(64 << 10).serve_connection(TokioIo::new(client), service);
        // How it ends is the client's affair.
        drop(timeout(STUCK, serving).await.expect("nobody goes on"));
    });
    let answers = lock(&output);
    assert!(answers.is_empty() || answers.starts_with(b"HTTP/1."), "{}", answers.escape_ascii());
    std::mem::take(&mut *lock(&relayed))
}

/// As the router does it, to a dyno that answers with nothing.
async fn relay(request: Request<Incoming>, conflicts: bool, relayed: &Mutex<Relayed>) -> Response<Body> {
    let Some(host) = headers::host(&request) else { return empty(StatusCode::BAD_REQUEST) };
    if conflicts || headers::objection(&request).is_some() || headers::size(&request) > 8 << 10 {
        return empty(StatusCode::BAD_REQUEST);
    }
    let upgrade = headers::wanted_upgrade(&request);
    let (mut head, body) = request.into_parts();
    let hop = Hop { peer: PEER, port: 80, request_id: headers::request_id(&head.headers) };
    headers::to_dyno(&mut head, &host, &hop, upgrade.as_ref());
    let dyno = Wire::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 0).open();
    let received = dyno.output();
    if let Ok((mut sender, connection)) = client::conn::http1::Builder::new().handshake(TokioIo::new(dyno)).await {
        let connection = tokio::spawn(connection);
        // A client that breaks off leaves half a request.
        drop(sender.send_request(Request::from_parts(head, body)).await);
        drop(sender);
        connection.abort();
    }
    let received = std::mem::take(&mut *lock(&received));
    lock(relayed).push(Ok(received));
    empty(StatusCode::OK)
}

/// Fields of a request that a dyno gets.
fn hold(fields: &[(String, String)]) {
    let all = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
    assert_eq!(all("host").len(), 1, "{fields:?}");
    for name in ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "expect"] {
        assert!(all(name).is_empty(), "{name} in {fields:?}");
    }
    let switches = !all("upgrade").is_empty();
    assert!(all("upgrade").len() <= 1 && all("connection") == if switches { vec!["upgrade"] } else { vec![] }, "{fields:?}");
    assert_eq!((all("x-forwarded-proto"), all("x-forwarded-port")), (vec!["http"], vec!["80"]));
    let chain = all("x-forwarded-for");
    assert!(chain.len() == 1 && chain[0].ends_with("192.0.2.7"), "{chain:?}");
    assert!(all("x-request-id").len() == 1 && all("x-request-start").len() == 1 && all("via").last() == Some(&"1.1 dyno-router"), "{fields:?}");
}

/// The dyno's bytes, of which the first says in what pieces they come, and whether a HEAD is asked for.
pub(crate) fn response(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let only_head = first % 2 == 1;
    let output = answered(bytes, first / 2, only_head);
    match strict::message(&output, only_head) {
        Ok(Read::Whole { length, fields }) => {
            assert_eq!(length, output.len(), "more than a response went to the client: {}", output.escape_ascii());
            assert!(!fields.iter().any(|(name, _)| matches!(name.as_str(), "keep-alive" | "proxy-connection" | "te" | "upgrade")), "{fields:?}");
        }
        Ok(Read::Incomplete | Read::UntilClose) => {}
        Err(what) => panic!("{what}: {}", output.escape_ascii()),
    }
}

/// What the client gets.
fn answered(bytes: &[u8], size: u8, only_head: bool) -> Vec<u8> {
    let bytes = bytes.to_vec();
    let method = if only_head { "HEAD" } else { "GET" };
    let client = Wire::new(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes(), 0);
    let output = client.output();
    let service = service_fn(move |request: Request<Incoming>| {
        let dyno = Wire::answering(&bytes, size);
        async move { Ok::<_, Infallible>(ask(dyno, request).await) }
    });
    runtime().block_on(async {
        let serving = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(client), service);
        drop(timeout(STUCK, serving).await.expect("nobody goes on"));
    });
    std::mem::take(&mut *lock(&output))
}

async fn ask(dyno: Wire, request: Request<Incoming>) -> Response<Body> {
    let Ok((mut sender, connection)) = client::conn::http1::Builder::new().max_buf_size(256 << 10).handshake(TokioIo::new(dyno)).await else {
        return empty(StatusCode::BAD_GATEWAY);
    };
    tokio::spawn(connection);
    let (mut head, body) = request.into_parts();
    head.headers = HeaderMap::new();
    let Ok(response) = sender.send_request(Request::from_parts(head, body)).await else { return empty(StatusCode::BAD_GATEWAY) };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return empty(StatusCode::BAD_GATEWAY);
    }
    let (mut head, body) = response.into_parts();
    headers::to_client(&mut head, None);
    Response::from_parts(head, body.boxed_unsync())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing would be held if nothing came through.
    #[test]
    fn the_way_is_open() {
        let ask = b"POST http://a/x HTTP/1.1\r\nhost: b\r\ncontent-length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nkeep-alive: x\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        for size in [0, 1, 7] {
            let relayed = relayed(ask, size);
            assert!(matches!(&relayed[..], [Ok(post), Ok(get)] if post.ends_with(b"\r\n\r\nhello") && get.starts_with(b"GET / ")), "{relayed:?}");
            let answered = answered(answer, size, false);
            assert!(matches!(strict::message(&answered, false), Ok(Read::Whole { .. })), "{}", answered.escape_ascii());
            assert!(size != 0 || answered.ends_with(b"5\r\nhello\r\n0\r\n\r\n"), "{}", answered.escape_ascii());
        }
    }
}
