//! The only way out of a build: an HTTP proxy that reaches listed hosts and records what it did.
//!
//! It listens inside the build dyno's network namespace, which has nothing but a loopback, and
//! connects from the daemon's. `CONNECT` carries TLS that it does not look into; requests in
//! absolute form are passed on. A name is resolved once, and that address is the one connected to,
//! so an answer cannot change between the check and the use. A refusal says host and policy in its
//! status line, because that is the part that package clients print.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod names;
mod policy;
mod record;
#[cfg(test)]
mod tests;
mod tunnel;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, ext::ReasonPhrase, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc::UnboundedSender},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{names::Names, policy::Denied, record::Meter};
pub use self::{policy::Policy, record::Request};

/// Connections at once; further ones wait in the listener's queue.
const CONNECTIONS: usize = 64;
/// Bytes of a request's head.
const HEAD: usize = 16 << 10;
const HEAD_TIME: Duration = Duration::from_secs(10);
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Until a host answers, and between two bytes of a tunnel.
const IDLE_TIME: Duration = Duration::from_secs(120);

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Serves until `cancel`; when it returns, every request has been sent to `record`.
pub async fn serve(listener: TcpListener, policy: Policy, record: UnboundedSender<Request>, cancel: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = TaskTracker::new();
    let (policy, names) = (Arc::new(policy), Arc::new(Names::default()));
    let accept = async {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let proxy = Proxy {
                        policy: Arc::clone(&policy),
                        names: Arc::clone(&names),
                        record: record.clone(),
                        cancel: cancel.clone(),
                        tasks: tasks.clone(),
                        place: Arc::new(place),
                    };
                    tasks.spawn(proxy.converse(stream));
                }
                // Out of descriptors, or a connection that was gone already: neither lasts.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let _stopped = cancel.run_until_cancelled(accept).await;
    tasks.close();
    tasks.wait().await;
}

/// One connection from the build.
#[derive(Clone)]
struct Proxy {
    policy: Arc<Policy>,
    names: Arc<Names>,
    record: UnboundedSender<Request>,
    cancel: CancellationToken,
    tasks: TaskTracker,
    /// Held by the connection and by the tunnel that it may turn into.
    place: Arc<OwnedSemaphorePermit>,
}

impl Proxy {
    async fn converse(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let cancel = self.cancel.clone();
        let service = service_fn(move |request| {
            let proxy = self.clone();
            async move { Ok::<_, Infallible>(proxy.handle(request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        // How a connection of the build ends is the build's affair.
        let _ended = cancel.run_until_cancelled(connection).await;
    }

    async fn handle(&self, request: http::Request<Incoming>) -> Response<Body> {
        let uri = request.uri();
        let connect = request.method() == Method::CONNECT;
        let port = uri.port_u16().or((!connect).then_some(80));
        let http = connect || uri.scheme_str() == Some("http");
        let (Some(host), Some(port), true) = (uri.host(), port, http) else {
            return told(StatusCode::BAD_REQUEST, "this is a proxy: use CONNECT host:port, or GET http://host/");
        };
        let meter = Arc::new(Meter::new(request.method().as_str(), host, port, self.record.clone()));
        let upstream = match self.dial(host, port, &meter).await {
            Ok(upstream) => upstream,
            Err((status, reason)) => {
                meter.answer(status.as_u16(), Some(&reason));
                return told(status, &reason);
            }
        };
        if connect { self.tunnel(request, upstream, meter) } else { forward(request, upstream, meter).await }
    }

    async fn dial(&self, host: &str, port: u16, meter: &Meter) -> Result<TcpStream, (StatusCode, String)> {
        let denied = |Denied(reason)| (StatusCode::FORBIDDEN, reason);
        let failed = |what: &str| (StatusCode::BAD_GATEWAY, format!("{host}:{port} {what}"));
        let to = self.policy.check(host, port).map_err(denied)?;
        let found = self.names.find(&to.host, port).await.ok_or_else(|| failed("has no address"))?;
        let addresses = self.policy.reachable(&to, found).map_err(denied)?;
        meter.allow();
        match timeout(CONNECT_TIME, TcpStream::connect(&*addresses)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(&format!("cannot be reached: {error}"))),
            Err(_) => Err(failed("cannot be reached: it does not answer")),
        }
    }

    fn tunnel(&self, request: http::Request<Incoming>, upstream: TcpStream, meter: Arc<Meter>) -> Response<Body> {
        meter.answer(200, None);
        let (place, cancel) = (Arc::clone(&self.place), self.cancel.clone());
        self.tasks.spawn(async move {
            let work = async {
                if let Ok(build) = hyper::upgrade::on(request).await {
                    // A tunnel that breaks is seen by both ends; the record has its bytes.
                    let _ended = tunnel::join(TokioIo::new(build), upstream, &meter, IDLE_TIME).await;
                }
            };
            let _cancelled = cancel.run_until_cancelled(work).await;
            drop(place);
        });
        Response::new(empty())
    }
}

/// Passes a request on over a connection of its own.
async fn forward(request: http::Request<Incoming>, upstream: TcpStream, meter: Arc<Meter>) -> Response<Body> {
    let failed = |what: &str| {
        meter.answer(502, Some(what));
        told(StatusCode::BAD_GATEWAY, what)
    };
    let builder = hyper::client::conn::http1::Builder::new();
    let Ok((mut sender, connection)) = builder.handshake(TokioIo::new(upstream)).await else {
        return failed("the host closed the connection");
    };
    // It ends with the response's body, which the caller's connection holds.
    tokio::spawn(connection);
    let Some(request) = towards(request, &meter) else {
        return failed("the request has no usable address");
    };
    match timeout(IDLE_TIME, sender.send_request(request)).await {
        Ok(Ok(response)) => {
            meter.answer(response.status().as_u16(), None);
            let (mut head, body) = response.into_parts();
            drop_hop_by_hop(&mut head.headers);
            let counted = body.map_frame(move |frame| {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                meter.down.fetch_add(bytes as u64, std::sync::atomic::Ordering::Relaxed);
                frame
            });
            Response::from_parts(head, counted.boxed_unsync())
        }
        Ok(Err(error)) => failed(&format!("the host's answer is no HTTP: {error}")),
        Err(_) => failed("the host does not answer"),
    }
}

/// The request as the host sees it: its own Host header (not one that names another), no
/// credentials for us, path only.
fn towards(request: http::Request<Incoming>, meter: &Arc<Meter>) -> Option<http::Request<Body>> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority()?;
    let host = match authority.port_u16() {
        Some(port) if port != 80 => format!("{}:{port}", authority.host()),
        _ => authority.host().to_owned(),
    };
    drop_hop_by_hop(&mut head.headers);
    head.headers.insert(header::HOST, host.parse().ok()?);
    head.uri = origin_form(&head.uri)?;
    let meter = Arc::clone(meter);
    let counted = body.map_frame(move |frame| {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        meter.up.fetch_add(bytes as u64, std::sync::atomic::Ordering::Relaxed);
        frame
    });
    Some(http::Request::from_parts(head, counted.boxed_unsync()))
}

/// The target without scheme and host. `http://host?query` has no path of its own.
fn origin_form(uri: &Uri) -> Option<Uri> {
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{slash}{path}").parse().ok()
}

/// RFC 9110, section 7.6.1: what `Connection` names, and what is known to be for one hop.
fn drop_hop_by_hop(headers: &mut http::HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| name != "host" && name != "content-length")
        .collect();
    let known = [
        "connection",
        "proxy-connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "transfer-encoding",
        "proxy-authorization",
        "proxy-authenticate",
    ];
    for name in named.iter().map(String::as_str).chain(known) {
        headers.remove(name);
    }
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

/// One line, as body and (because clients show it) as reason phrase.
fn told(status: StatusCode, line: &str) -> Response<Body> {
    let mut response = Response::new(Full::from(format!("{line}\n")).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let text = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    if let Ok(reason) = ReasonPhrase::try_from(line.to_owned()) {
        response.extensions_mut().insert(reason);
    }
    response
}
