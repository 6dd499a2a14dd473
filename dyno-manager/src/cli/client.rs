//! The HTTP side of the command line: one request per connection, over TCP or a unix socket, JSON in and
//! out, streams and upgrades where an endpoint has them.
//!
//! The addresses inside answers (`put_url`, `output_stream_url`, `attach_url`) are only followed by path:
//! they lead to the platform that gave them, so the token goes nowhere else and a unix socket stays in use.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Empty, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client::conn::http1, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{
    endpoint::{Address, Endpoint},
    error::{CliError, Result},
};
use crate::attach;

/// How long one address is tried.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an ordinary request may take; streams and waits have no limit.
const ANSWER: Duration = Duration::from_secs(60);
/// The longest JSON answer that is read.
const MAX_JSON: usize = 64 << 20;

/// The body of a request.
pub(super) type Payload = UnsyncBoxBody<Bytes, io::Error>;

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Speaks to one platform.
pub(super) struct Client {
    endpoint: Endpoint,
}

#[derive(Deserialize)]
struct Refusal {
    id: String,
    message: String,
}

impl Client {
    /// Connects at the first request.
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// `GET path`, read as `T`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        typed(self.call(Method::GET, path, None).await?)
    }

    /// One JSON request and its answer; `Null` where the answer has no body.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let answered = async {
            let request = self.request(method, path).header(header::CONTENT_TYPE, "application/json");
            read_json(checked(self.send(request, json(body)).await?).await?).await
        };
        let late = |_| CliError::new(format!("The platform did not answer within {} s.", ANSWER.as_secs()));
        timeout(ANSWER, answered).await.map_err(late)?
    }

    /// A request that may take as long as it takes (a long poll).
    pub(super) async fn wait(&self, path: &str) -> Result<Value> {
        read_json(checked(self.send(self.request(Method::GET, path), json(None)).await?).await?).await
    }

    /// The body of `GET url`, as it comes.
    pub(super) async fn stream(&self, url: &str) -> Result<Incoming> {
        let request = self.request(Method::GET, path_of(url)?);
        Ok(checked(self.send(request, json(None)).await?).await?.into_body())
    }

    /// `PUT url` with a streamed body.
    pub(super) async fn upload(&self, url: &str, body: Payload) -> Result<()> {
        let request = self.request(Method::PUT, path_of(url)?).header(header::CONTENT_TYPE, "application/gzip");
        checked(self.send(request, body).await?).await.map(drop)
    }

    /// `GET url`, upgraded to an attached session.
    pub(super) async fn attach(&self, url: &str) -> Result<TokioIo<Upgraded>> {
        let request = self.request(Method::GET, path_of(url)?);
        let request = request.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, attach::UPGRADE);
        let response = checked(self.send(request, json(None)).await?).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(CliError::new(format!("The platform did not open a session (HTTP {}).", response.status())));
        }
        let upgraded = hyper::upgrade::on(response).await;
        upgraded.map(TokioIo::new).map_err(|e| CliError::new(format!("The session did not open: {e}")))
    }

    fn request(&self, method: Method, path: &str) -> request::Builder {
        let host = self.endpoint.addresses.iter().find_map(|address| match address {
            Address::Tcp(host, port) => Some(format!("{host}:{port}")),
            Address::Unix(_) => None,
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host.as_deref().unwrap_or("localhost"))
            .header(header::ACCEPT, "application/vnd.heroku+json; version=3")
            .header(header::USER_AGENT, concat!("dyno/", env!("CARGO_PKG_VERSION")));
        match &self.endpoint.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    async fn send(&self, request: request::Builder, body: Payload) -> Result<Response<Incoming>> {
        // The cause may quote the token: it is not shown.
        let refused = |_| CliError::usage("DYNO_TOKEN or an address holds characters that HTTP refuses.");
        let request = request.body(body).map_err(refused)?;
        let broken = |e: hyper::Error| CliError::new(format!("The platform broke off: {}", chain(&e)));
        let io = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = http1::handshake(io).await.map_err(broken)?;
        // Its errors also reach whoever reads the answer.
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(broken)
    }

    async fn connect(&self) -> Result<Box<dyn Wire>> {
        let mut tries = Vec::new();
        for address in &self.endpoint.addresses {
            match timeout(CONNECT, dial(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(e)) => tries.push(format!("{address}: {e}")),
                Err(_) => tries.push(format!("{address}: no answer within {} s", CONNECT.as_secs())),
            }
        }
        Err(CliError::new(format!("The platform is not reachable at {}", tries.join(", nor at ")))
            .hint("Does dynod run? Start it, or set DYNO_URL (and DYNO_TOKEN) to where it is."))
    }
}

async fn dial(address: &Address) -> io::Result<Box<dyn Wire>> {
    Ok(match address {
        Address::Tcp(host, port) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, *port)).await?;
            // Keystrokes of an attached session are single bytes.
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

fn json(body: Option<&Value>) -> Payload {
    match body {
        Some(value) => Full::from(value.to_string()).map_err(|e| match e {}).boxed_unsync(),
        None => Empty::new().map_err(|e| match e {}).boxed_unsync(),
    }
}

/// The path and query of a path or an absolute url.
fn path_of(url: &str) -> Result<&str> {
    let rest = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => url,
    };
    if rest.starts_with('/') {
        return Ok(rest);
    }
    Err(CliError::new(format!("The platform named an address that cannot be followed: {url:?}")))
}

/// Turns the API's errors into ours.
async fn checked(response: Response<Incoming>) -> Result<Response<Incoming>> {
    let status = response.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let bytes = Limited::new(response.into_body(), MAX_JSON).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    Err(refusal(status, &bytes))
}

fn refusal(status: StatusCode, body: &[u8]) -> CliError {
    let Ok(Refusal { id, message }) = serde_json::from_slice(body) else {
        return CliError::new(format!("The platform answered HTTP {status}."));
    };
    let error = CliError::new(message);
    match id.as_str() {
        "unauthorized" => error.hint("Check DYNO_TOKEN, or who may read the daemon's client.json."),
        _ => error,
    }
}

async fn read_json(response: Response<Incoming>) -> Result<Value> {
    let collected = Limited::new(response.into_body(), MAX_JSON).collect().await;
    let bytes = collected.map_err(|e| CliError::new(format!("The answer broke off: {e}")))?.to_bytes();
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|e| CliError::new(format!("The platform's answer is not JSON: {e}")))
}

/// Reads an answer as what it should be.
pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value)
        .map_err(|e| CliError::new(format!("The platform's answer is not understood: {e}")).hint("Are dyno and dynod of the same version?"))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_answers_are_followed_by_path_only() {
        let check = |url: &str, want: Option<&str>| assert_eq!(path_of(url).ok(), want, "{url}");
        check("http://127.0.0.1:5080/attach/secret", Some("/attach/secret"));
        check("https://elsewhere.example/a?b=c", Some("/a?b=c"));
        check("/logs/1", Some("/logs/1"));
        check("http://a", None);
        check("logs/1", None);
    }

    #[test]
    fn refusals_are_said_in_the_platform_s_words() {
        let check = |status: u16, body: &str, want: &str| {
            assert_eq!(refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes()).to_string(), want);
        };
        check(404, r#"{"id":"not_found","message":"No app x."}"#, " ›   Error: No app x.\n");
        check(502, "<html>", " ›   Error: The platform answered HTTP 502 Bad Gateway.\n");
        let told = refusal(StatusCode::UNAUTHORIZED, br#"{"id":"unauthorized","message":"No."}"#).to_string();
        assert!(told.contains("Hint: Check DYNO_TOKEN"), "{told}");
    }

    #[tokio::test]
    async fn a_unix_socket_serves_and_a_dead_one_gives_way_to_the_url() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let router = || axum::Router::new().fallback(async || "[1]");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move { axum::serve(listener, router()).await });
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(tcp, router()).await });
        let (unix, dead) = (Address::Unix(path), Address::Unix(directory.path().join("dead.sock")));
        for addresses in [vec![unix], vec![dead.clone(), Address::Tcp("127.0.0.1".to_owned(), port)]] {
            let client = Client::new(Endpoint { addresses, token: None });
            assert_eq!(client.get::<Vec<u8>>("/apps").await.unwrap(), [1]);
        }
        let nowhere = Client::new(Endpoint { addresses: vec![dead], token: None });
        let told = nowhere.get::<Value>("/apps").await.unwrap_err().to_string();
        assert!(told.contains("dead.sock: No such file") && told.contains("Hint: Does dynod run?"), "{told}");
    }
}
