//! A platform of a test's own: answers by method and path over real TCP, keeps what it was sent, and plays the
//! dyno's side of an attached session.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs, io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context as Poller, Poll},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use clap::Parser;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use http::StatusCode;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use jiff::{
    Timestamp,
    tz::{Offset, TimeZone},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpListener,
    sync::{mpsc, oneshot},
};
use tokio_util::codec::{Encoder, FramedRead};

use super::{Cli, ambient::Ambient, screen::Screen};
use crate::{
    attach::{Frame, FrameCodec},
    model::{Exit, ExitCause},
};

/// The time in all tests.
pub(super) const NOW: &str = "2026-08-04T20:58:15Z";
/// Five minutes before.
const BEFORE: &str = "2026-08-04T20:53:15Z";

/// The time zone in all tests.
pub(super) fn zone() -> TimeZone {
    TimeZone::fixed(Offset::constant(-7))
}

/// Surroundings with these variables and an empty standard input.
pub(super) fn ambient(directory: &Path, vars: &[(&str, &str)]) -> Ambient {
    Ambient {
        vars: vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>(),
        directory: directory.to_owned(),
        zone: zone(),
        clock: || NOW.parse::<Timestamp>().unwrap(),
        terminal: false,
        input: Some(mpsc::channel(1).1),
    }
}

/// The words of a shell line, up to a redirection or a pipe.
pub(super) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '<' | '>' | '|') => break,
            (None, ' ') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What a screen showed.
#[derive(Clone, Default)]
pub(super) struct Captured {
    out: Sheet,
    err: Sheet,
}

impl Captured {
    /// A screen and what it shows.
    pub(super) fn screen() -> (Screen, Self) {
        let captured = Self::default();
        (Screen::new(Box::new(captured.out.clone()), Box::new(captured.err.clone()), false), captured)
    }

    /// Standard output so far.
    pub(super) fn out(&self) -> String {
        self.out.text()
    }
}

#[derive(Clone, Default)]
struct Sheet(Arc<Mutex<Vec<u8>>>);

impl Sheet {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl AsyncWrite for Sheet {
    fn poll_write(self: Pin<&mut Self>, _: &mut Poller<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a command did.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) status: u8,
    pub(super) out: String,
    pub(super) err: String,
}

#[derive(Clone)]
enum Answer {
    Json(u16, Value),
    Text(String),
    /// So many bytes of the text and a cut connection; the whole text from then on.
    Broken(String, usize),
}

type Script = Box<dyn FnOnce(DynoEnd) -> BoxFuture<'static, ()> + Send>;

#[derive(Default)]
struct Stage {
    answers: HashMap<String, VecDeque<Answer>>,
    requests: Vec<(String, Bytes)>,
    script: Option<Script>,
}

/// The platform, and a directory to run commands in.
pub(super) struct Platform {
    stage: Arc<Mutex<Stage>>,
    url: String,
    directory: tempfile::TempDir,
    input: Vec<Bytes>,
}

impl Platform {
    /// Listens on a free port.
    pub(super) async fn start() -> Self {
        let stage = Arc::new(Mutex::new(Stage::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handle).with_state(stage.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { stage, url, directory: tempfile::tempdir().unwrap(), input: Vec::new() }
    }

    fn set(&mut self, request: &str, answer: Answer, fresh: bool) {
        let mut stage = self.stage.lock().unwrap();
        let asked = stage.requests.iter().any(|(of, _)| of == request);
        let queue = stage.answers.entry(request.to_owned()).or_default();
        // A test that sets an answer after it was asked means the next one.
        if asked || fresh {
            queue.clear();
        }
        queue.push_back(answer);
    }

    /// Answers `METHOD /path`; of several answers each is given once, the last one for ever.
    pub(super) fn answer(&mut self, request: &str, body: Value) {
        self.set(request, Answer::Json(200, body), false);
    }

    /// Answers with an error of the API.
    pub(super) fn refuse(&mut self, request: &str, status: u16, message: &str) {
        self.set(request, Answer::Json(status, json!({"id": "refused", "message": message})), true);
    }

    /// Answers with text.
    pub(super) fn text(&mut self, request: &str, text: &str) {
        self.set(request, Answer::Text(text.to_owned()), true);
    }

    /// Answers with text that breaks off after `bytes`, the first time.
    pub(super) fn broken_text(&mut self, request: &str, text: &str, bytes: usize) {
        self.set(request, Answer::Broken(text.to_owned(), bytes), true);
    }

    /// Plays the dyno of the next session at `/attach/secret`.
    pub(super) fn attach<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &mut self,
        script: impl FnOnce(DynoEnd) -> F + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let play = |end| script(end).map(|told| drop(sender.send(told))).boxed();
        self.stage.lock().unwrap().script = Some(Box::new(play));
        receiver
    }

    /// Standard input of the next command.
    pub(super) fn input(&mut self, chunks: &[&[u8]]) {
        self.input = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect();
    }

    /// Runs `dyno LINE`.
    pub(super) async fn run(&mut self, line: &str) -> Ran {
        let cli = Cli::try_parse_from(words(&format!("dyno {line}"))).unwrap();
        let directory = self.directory.path().canonicalize().unwrap();
        let mut ambient = ambient(&directory, &[("DYNO_URL", &self.url), ("DYNO_TOKEN", "t")]);
        let (sender, receiver) = mpsc::channel(16);
        for chunk in self.input.drain(..) {
            sender.try_send(chunk).unwrap();
        }
        ambient.input = Some(receiver);
        drop(sender);
        let (screen, captured) = Captured::screen();
        let status = super::run(cli, screen, ambient).await;
        Ran { status, out: captured.out.text(), err: captured.err.text() }
    }

    /// Runs `dyno LINE`, which must succeed, and returns its output.
    pub(super) async fn out(&mut self, line: &str) -> String {
        let ran = self.run(line).await;
        assert_eq!(ran.status, 0, "{line}: {}", ran.err);
        ran.out
    }

    /// Whether a request came.
    pub(super) fn was_asked(&self, request: &str) -> bool {
        self.stage.lock().unwrap().requests.iter().any(|(of, _)| of == request)
    }

    /// The body of the last such request.
    pub(super) fn sent_bytes(&self, request: &str) -> Vec<u8> {
        let stage = self.stage.lock().unwrap();
        let found = stage.requests.iter().rev().find(|(of, _)| of == request);
        found.unwrap_or_else(|| panic!("{request} was not asked")).1.to_vec()
    }

    /// The same as JSON.
    pub(super) fn sent(&self, request: &str) -> Value {
        serde_json::from_slice(&self.sent_bytes(request)).unwrap()
    }

    /// A file of the directory.
    pub(super) fn file(&self, path: &str) -> String {
        fs::read_to_string(self.directory.path().join(path)).unwrap()
    }

    /// Writes a file of the directory.
    pub(super) fn plant(&self, path: &str, text: &str) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

async fn handle(State(stage): State<Arc<Mutex<Stage>>>, mut request: Request) -> Response {
    let name = format!("{} {}", request.method(), request.uri().path());
    if request.headers().get("authorization").is_none_or(|token| token != "Bearer t") {
        return (StatusCode::UNAUTHORIZED, json!({"id": "unauthorized", "message": "No."}).to_string()).into_response();
    }
    if name == "GET /attach/secret" {
        assert_eq!(request.headers()["upgrade"], "dyno-attach");
        let upgrade = hyper::upgrade::on(&mut request);
        let script = stage.lock().unwrap().script.take().expect("a script for the dyno");
        tokio::spawn(async move { script(DynoEnd::new(upgrade.await.unwrap())).await });
        let headers = [("connection", "upgrade"), ("upgrade", "dyno-attach")];
        return (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
    }
    let body = to_bytes(request.into_body(), usize::MAX).await.unwrap_or_default();
    let mut stage = stage.lock().unwrap();
    stage.requests.push((name.clone(), body));
    let queue = stage.answers.entry(name.clone()).or_default();
    let answer = if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() };
    match answer {
        None => (StatusCode::NOT_FOUND, json!({"id": "not_found", "message": format!("no answer to {name}")}).to_string()).into_response(),
        Some(Answer::Json(status, body)) => (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response(),
        Some(Answer::Text(text)) => text.into_response(),
        Some(Answer::Broken(text, bytes)) => {
            *queue = VecDeque::from([Answer::Text(text.clone())]);
            let part = Bytes::from(text[..bytes].to_owned());
            // The pause lets hyper write the first part before it sees the error.
            let parts = futures_util::stream::iter([Ok(part), Err(io::Error::other("cut"))]).then(async |part| {
                tokio::task::yield_now().await;
                part
            });
            Body::from_stream(parts).into_response()
        }
    }
}

/// The dyno's side of an attached session.
pub(super) struct DynoEnd {
    frames: FramedRead<ReadHalf<TokioIo<Upgraded>>, FrameCodec>,
    writer: WriteHalf<TokioIo<Upgraded>>,
}

impl DynoEnd {
    fn new(upgraded: Upgraded) -> Self {
        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        Self { frames: FramedRead::new(reader, FrameCodec), writer }
    }

    /// The next frame; None once the client is gone.
    pub(super) async fn hear(&mut self) -> Option<Frame> {
        self.frames.next().await.and_then(Result::ok)
    }

    /// Sends a frame.
    pub(super) async fn say(&mut self, frame: Frame) {
        let mut wire = BytesMut::new();
        FrameCodec.encode(frame, &mut wire).unwrap();
        self.writer.write_all(&wire).await.unwrap();
        self.writer.flush().await.unwrap();
    }
}

/// An ordinary exit.
pub(super) fn exit(status: i32) -> Exit {
    Exit { status, cause: ExitCause::Exited, memory_peak: Some(13_841_203), oom_kills: 0, cpu_us: 400_000, wall_us: 2_100_000 }
}

/// An app as the API shows it.
pub(super) fn app(name: &str, maintenance: bool) -> Value {
    json!({
        "id": "01234567-89ab-cdef-0123-456789abcdef", "name": name, "maintenance": maintenance,
        "web_url": format!("http://{name}.localhost:8080/"), "slug_size": 13_841_203, "created_at": BEFORE,
        "released_at": null, "buildpack_provided_description": null, "stack": {"name": "debian"},
    })
}

/// A dyno of release v23.
pub(super) fn dyno(name: &str, state: &str, updated_at: &str, command: &str) -> Value {
    let (process_type, _) = name.split_once('.').unwrap();
    json!({
        "id": "d1", "name": name, "type": process_type, "command": command, "state": state, "size": "Standard-1X",
        "release": {"id": "r23", "version": 23}, "attach_url": null, "created_at": updated_at, "updated_at": updated_at,
    })
}

/// Release r5 is v5.
pub(super) fn release(version: u32, description: &str, current: bool) -> Value {
    json!({
        "id": format!("r{version}"), "version": version, "description": description, "status": "succeeded",
        "current": current, "slug": {"id": format!("s{version}")}, "user": {"email": "me@example.com"},
        "created_at": BEFORE,
    })
}

/// Build b1.
pub(super) fn build(status: &str) -> Value {
    json!({
        "id": "b1", "status": status, "error": (status == "failed").then_some("compile failed"),
        "output_stream_url": "http://127.0.0.1:5080/apps/my-app/builds/b1/output",
        "source_blob": {"version": "6933f9b0123456789012345678901234567890ab"}, "slug": null, "release": null,
        "user": {"email": "me@example.com"}, "created_at": BEFORE, "updated_at": BEFORE,
    })
}
