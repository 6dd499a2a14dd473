//! The router over real sockets: a bench with scripted dynos and a client that writes bytes.

mod codes;
mod relay;
mod switch;

use std::{
    collections::HashMap,
    future::pending,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::model::AppName;

/// Longer than any step of any test takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a test's dyno is.
#[derive(Clone, Copy)]
enum Place {
    At(SocketAddr),
    /// Connecting to it never ends.
    Nowhere,
}

#[derive(Default)]
struct Places {
    known: Mutex<HashMap<DynoId, Place>>,
    /// Told of every dial and waking.
    dialled: Notify,
    /// Apps that were woken.
    woken: Mutex<Vec<Uuid>>,
}

impl Dial for Places {
    fn dial(&self, dyno: DynoId) -> BoxFuture<'_, io::Result<TcpStream>> {
        let place = self.known.lock().unwrap().get(&dyno).copied();
        self.dialled.notify_one();
        Box::pin(async move {
            match place {
                Some(Place::At(address)) => TcpStream::connect(address).await,
                Some(Place::Nowhere) => pending().await,
                None => Err(io::ErrorKind::NotFound.into()),
            }
        })
    }

    fn wake(&self, app: Uuid) {
        self.woken.lock().unwrap().push(app);
        self.dialled.notify_one();
    }
}

/// A router that serves the app `shop`.
struct Bench {
    address: SocketAddr,
    table: Arc<Table>,
    places: Arc<Places>,
    lines: mpsc::UnboundedReceiver<(Uuid, String)>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

const APP_ID: Uuid = Uuid::from_u128(7);

impl Bench {
    async fn new(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (table, places) = (Arc::new(Table::new()), Arc::new(Places::default()));
        let (sender, lines) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let log = move |app, line| drop(sender.send((app, line)));
        let serving = tokio::spawn(serve(listener, table.clone(), places.clone(), log, settings, shutdown.clone()));
        Self { address, table, places, lines, shutdown, serving }
    }

    /// Its app has these dynos, `web.1` and on.
    async fn with(settings: Settings, dynos: &[Place]) -> Self {
        let bench = Self::new(settings).await;
        bench.up(dynos);
        bench
    }

    fn set(&self, target: Target) {
        self.table.set(&app(), AppRoute { app_id: APP_ID, target });
    }

    /// `web.N` has the id N, so a dyno that is given again stays.
    fn up(&self, dynos: &[Place]) {
        let backend = |n: usize| Backend { dyno: Uuid::from_u128(n as u128), name: format!("web.{n}").parse().unwrap() };
        for (i, place) in dynos.iter().enumerate() {
            self.places.known.lock().unwrap().insert(Uuid::from_u128(i as u128 + 1), *place);
        }
        self.set(Target::Up((1..=dynos.len()).map(backend).collect()));
    }

    async fn connect(&self) -> Wire {
        Wire::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// One request on its own connection; the whole answer.
    async fn ask(&self, request: &str) -> Reply {
        let mut wire = self.connect().await;
        wire.send(request).await;
        wire.reply().await
    }

    /// Exchanges that the dynos are counted to have.
    fn active(&self) -> usize {
        self.table.route("shop").unwrap().upstreams().iter().map(|u| u.active()).sum()
    }

    /// The next log line, with its variable parts replaced.
    async fn line(&mut self) -> String {
        let (app, line) = timeout(PATIENCE, self.lines.recv()).await.expect("no log line").unwrap();
        assert_eq!(app, APP_ID);
        shape(&line)
    }
}

fn app() -> AppName {
    "shop".parse().unwrap()
}

/// A log line with times and ids made equal.
pub(super) fn shape(line: &str) -> String {
    let word = |word: &str| match word.split_once('=') {
        Some(("request_id", id)) => format!("request_id={}", if id.is_empty() { "" } else { "ID" }),
        Some((key @ ("connect" | "service"), ms)) if ms.ends_with("ms") => format!("{key}=Nms"),
        _ => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// One end of a connection, as text.
struct Wire(BufStream<TcpStream>);

impl Wire {
    fn new(tcp: TcpStream) -> Self {
        Self(BufStream::new(tcp))
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    async fn text_line(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("no line").unwrap();
        line
    }

    /// A head, up to and without its empty line; empty at the end of the stream.
    async fn head(&mut self) -> String {
        let mut head = String::new();
        loop {
            let line = self.text_line().await;
            if line.trim().is_empty() {
                return head;
            }
            head += &line;
        }
    }

    async fn exactly(&mut self, n: usize) -> String {
        let mut bytes = vec![0; n];
        timeout(PATIENCE, self.0.read_exact(&mut bytes)).await.expect("too few bytes").unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// What comes until the stream ends, well or not.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("no end").ok();
        String::from_utf8(bytes).unwrap()
    }

    /// A response; its body by its length or its chunks.
    async fn reply(&mut self) -> Reply {
        let head = self.head().await;
        let mut reply = Reply { head, body: String::new() };
        if let Some(length) = reply.field("content-length") {
            reply.body = self.exactly(length.parse().unwrap()).await;
        } else if reply.field("transfer-encoding").is_some() {
            while let size @ 1.. = usize::from_str_radix(self.text_line().await.trim(), 16).expect("broken chunk") {
                reply.body += &self.exactly(size).await;
                self.text_line().await;
            }
            self.text_line().await;
        }
        reply
    }
}

struct Reply {
    head: String,
    body: String,
}

impl Reply {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status: {:?}", self.head))
    }

    fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// A dyno that does `script` with each connection; the number counts them from 0.
async fn dyno<F, R>(script: F) -> Place
where
    F: Fn(Wire, usize) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut n = 0;
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(script(Wire::new(tcp), n));
            n += 1;
        }
    });
    Place::At(address)
}

/// A dyno that answers each request's head with `answer`, then closes (`Close`) or keeps quiet (`Hang`).
async fn answers(answer: &'static str, then: Then) -> Place {
    dyno(move |mut wire, _| async move {
        wire.head().await;
        wire.send(answer).await;
        if then == Then::Hang {
            wire.rest().await;
        }
    })
    .await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Close,
    Hang,
}

/// A dyno that answers every request of every connection with `hello, N`, N the connection's number.
async fn hello() -> Place {
    dyno(|mut wire, n| async move {
        while !wire.head().await.is_empty() {
            wire.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhello, {n}")).await;
        }
    })
    .await
}

/// An address at which nothing listens. Its socket stays bound, so that no other test is given the port.
fn closed_port() -> Place {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    Place::At(address)
}

/// A limit that a test can wait for. A test shortens only the one that it is about: on a busy machine any other might
/// run out first.
const SHORT: Duration = Duration::from_millis(300);

fn short_idle() -> Settings {
    Settings { idle: SHORT, ..Settings::default() }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
