//! Attached sessions over real sockets, with real pipes and a real pseudo-terminal.

use std::{io::Read as _, io::Write as _, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream, unix::pipe},
};
use tokio_util::{
    codec::{Encoder, Framed},
    sync::CancellationToken,
};

use super::{fake::Inside, *};
use crate::{
    api::serve,
    attach::{Frame, FrameCodec, UPGRADE},
};

/// A client of a session, after the upgrade.
struct Client<S>(Framed<S, FrameCodec>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Asks for the session at `path`; the status and, if it was 101, the client.
    async fn join(mut socket: S, path: &str) -> (u16, Option<Self>) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {UPGRADE}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let status = String::from_utf8_lossy(&head[9..12]).parse().unwrap();
        (status, (status == 101).then(|| Self(Framed::new(socket, FrameCodec))))
    }

    async fn send(&mut self, frame: Frame) {
        let mut wire = BytesMut::new();
        FrameCodec.encode(frame, &mut wire).unwrap();
        self.0.get_mut().write_all(&wire).await.unwrap();
    }

    /// The next frame that is not a heartbeat; None at the end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.0.next().await.transpose().unwrap() {
                Some(Frame::Stdout(bytes)) if bytes.is_empty() => {}
                frame => return frame,
            }
        }
    }

    async fn expect(&mut self, want: Frame) {
        assert_eq!(self.next().await, Some(want));
    }

    /// The dyno's output begins with `text`, in however many pieces the kernel hands it out.
    async fn expect_output(&mut self, text: &str) {
        let mut got = Vec::new();
        while got.len() < text.len() {
            match self.next().await {
                Some(Frame::Stdout(bytes)) => got.extend_from_slice(&bytes),
                other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&got)),
            }
        }
        assert!(got == text.as_bytes(), "{} instead of {text}", String::from_utf8_lossy(&got));
    }

    async fn expect_up(&mut self) {
        self.expect(Frame::State("starting".into())).await;
        self.expect(Frame::State("up".into())).await;
    }

    /// All output up to the exit, and its status.
    async fn finish(&mut self) -> (Vec<u8>, Vec<u8>, i32) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match self.next().await.expect("an exit before the end") {
                Frame::Stdout(bytes) => out.extend_from_slice(&bytes),
                Frame::Stderr(bytes) => err.extend_from_slice(&bytes),
                Frame::Exit(exit) => {
                    assert_eq!(self.next().await, None, "nothing follows the exit");
                    return (out, err, exit.status);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// An app with an attached one-off, and an API that listens.
struct Session {
    bench: Bench,
    address: std::net::SocketAddr,
    dyno: DynoId,
    path: String,
    _shutdown: tokio_util::sync::DropGuard,
}

async fn session(extra: Value) -> Session {
    let bench = Bench::deployed(&[("web", "w")]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(listener, bench.router.clone(), shutdown.clone()));
    let mut body = json!({ "command": "bash", "attach": true });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let dyno = bench.ok("POST", "/apps/demo/dynos", body).await;
    let path = str_of(&dyno["attach_url"]).strip_prefix(BASE).unwrap().to_owned();
    Session { bench, address, dyno: id_of(&dyno), path, _shutdown: shutdown.drop_guard() }
}

impl Session {
    async fn join(&self) -> Client<TcpStream> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        Client::join(socket, &self.path).await.1.expect("a session")
    }

    fn pipes(&self) -> (pipe::Receiver, pipe::Sender, pipe::Sender) {
        let Inside::Pipes { stdin, stdout, stderr } = self.bench.engine.inside(self.dyno) else { panic!("no pipes") };
        let sender = |fd| pipe::Sender::from_owned_fd(fd).unwrap();
        (pipe::Receiver::from_owned_fd(stdin).unwrap(), sender(stdout), sender(stderr))
    }

    async fn log_has(&self, text: &str) -> bool {
        self.bench.log("demo").await.contains(&format!("run.1: {text}"))
    }
}

fn stdin(text: &'static str) -> Frame {
    Frame::Stdin(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn input_output_and_exit_pass_through_pipes() {
    let mut session = session(json!({})).await;
    let mut client = session.join().await;
    let (mut input, mut output, mut errors) = session.pipes();
    client.expect_up().await;

    client.send(stdin("ls\n")).await;
    let mut read = [0; 3];
    input.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"ls\n");
    output.write_all(b"file\n").await.unwrap();
    client.expect_output("file\n").await;
    errors.write_all(b"oops\n").await.unwrap();
    client.expect(Frame::Stderr(Bytes::from_static(b"oops\n"))).await;

    client.send(Frame::Signal(2)).await;
    assert_eq!(session.bench.signals.recv().await, Some((session.dyno, 2)));
    client.send(Frame::Resize { rows: 1, cols: 1 }).await;
    client.send(Frame::Eof).await;
    assert_eq!(input.read(&mut read).await.unwrap(), 0, "end of input is an end of file");

    drop((output, errors));
    session.bench.engine.end(session.dyno, 3);
    assert_eq!(client.finish().await, (vec![], vec![], 3));
    assert!(session.log_has("Awaiting client").await);
    assert!(!session.log_has("Client connection closed. Sending SIGHUP to all processes").await);
}

#[tokio::test]
async fn all_output_comes_before_the_exit() {
    let session = session(json!({})).await;
    let (_input, mut output, errors) = session.pipes();
    let text: Vec<u8> = (0..2_000_000u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    let mut client = session.join().await;
    client.expect_up().await;
    let wrote = text.clone();
    let writer = tokio::spawn(async move {
        output.write_all(&wrote).await.unwrap();
        drop(errors);
    });
    // It has ended long before its output has passed.
    session.bench.engine.end(session.dyno, 0);
    let (out, err, status) = client.finish().await;
    writer.await.unwrap();
    assert_eq!((out.len(), out == text, err.len(), status), (2_000_000, true, 0, 0));
}

#[tokio::test]
async fn a_command_that_ended_before_its_client_came() {
    let session = session(json!({})).await;
    let (input, mut output, errors) = session.pipes();
    output.write_all(b"done\n").await.unwrap();
    drop((input, output, errors));
    session.bench.engine.end(session.dyno, 4);
    let mut client = session.join().await;
    client.expect_up().await;
    assert_eq!(client.finish().await, (b"done\n".to_vec(), vec![], 4));
}

#[tokio::test]
async fn a_stream_that_somebody_keeps_open_does_not_hold_the_exit_back() {
    let session = session(json!({})).await;
    let mut client = session.join().await;
    client.expect_up().await;
    session.bench.engine.end(session.dyno, 0);
    tokio::time::pause();
    assert_eq!(client.finish().await.2, 0);
    drop(session.pipes());
}

#[tokio::test]
async fn input_that_nobody_reads_ends_nothing() {
    let session = session(json!({})).await;
    let mut client = session.join().await;
    client.expect_up().await;
    let (input, mut output, errors) = session.pipes();
    drop(input);
    for _ in 0..3 {
        client.send(stdin("into the void\n")).await;
    }
    output.write_all(b"still here\n").await.unwrap();
    client.expect_output("still here\n").await;
    drop((output, errors));
    session.bench.engine.end(session.dyno, 0);
    assert_eq!(client.finish().await.2, 0);
}

#[tokio::test]
async fn a_client_that_goes_hangs_up_the_dyno() {
    let mut session = session(json!({})).await;
    let mut client = session.join().await;
    client.expect_up().await;
    let (mut input, output, errors) = session.pipes();
    drop(client);
    assert_eq!(session.bench.signals.recv().await, Some((session.dyno, 1)));
    assert!(session.log_has("Client connection closed. Sending SIGHUP to all processes").await);
    assert_eq!(input.read(&mut [0]).await.unwrap(), 0, "its input has ended");
    // It ignores SIGHUP: five more, then R16, and it goes on.
    tokio::time::pause();
    for _ in 0..5 {
        assert_eq!(session.bench.signals.recv().await, Some((session.dyno, 1)));
    }
    let r16 = "Error R16 (Detached) -> An attached process is not responding to SIGHUP after its external connection was closed.";
    let mut lines = session.bench.hub.tail(session.bench.platform.app("demo").await.unwrap().id, Filter::default(), 1500);
    while lines.next().await.unwrap().text != r16 {}
    assert_eq!(session.bench.ps("demo").await, ["run.1:up:1", "web.1:up:1"]);
    drop((output, errors));
}

#[tokio::test]
async fn what_is_no_session_is_hung_up() {
    for wrong in [Frame::State("up".into()), Frame::Stdout(Bytes::from_static(b"x")), Frame::Signal(65), Frame::Signal(0)] {
        let mut session = session(json!({})).await;
        let mut client = session.join().await;
        client.expect_up().await;
        client.send(wrong).await;
        assert_eq!(session.bench.signals.recv().await, Some((session.dyno, 1)));
        assert_eq!(client.next().await, None);
    }
}

#[tokio::test]
async fn a_terminal_echoes_resizes_and_ends() {
    let session = session(json!({ "tty": { "rows": 24, "cols": 80 } })).await;
    let Inside::Tty(slave) = session.bench.engine.inside(session.dyno) else { panic!("no terminal") };
    let mut client = session.join().await;
    client.expect_up().await;
    client.send(stdin("hi\n")).await;
    client.expect_output("hi\r\n").await;
    client.send(Frame::Resize { rows: 50, cols: 132 }).await;
    client.send(stdin("there")).await;
    client.expect_output("there").await;
    // The echo came after the resize, so it is done.
    let size = rustix::termios::tcgetwinsize(&slave).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (50, 132));
    // The unfinished line and then the end of file.
    client.send(Frame::Eof).await;
    let mut slave = std::fs::File::from(slave);
    let (slave, read) = tokio::task::spawn_blocking(move || {
        let mut read = Vec::new();
        slave.read_to_end(&mut read).unwrap();
        (slave, read)
    })
    .await
    .unwrap();
    assert_eq!(read, b"hi\nthere");
    drop(slave);
    session.bench.engine.end(session.dyno, 0);
    assert_eq!(client.finish().await.2, 0);
}

#[tokio::test]
async fn much_output_of_a_terminal_passes_without_a_gap() {
    let session = session(json!({ "tty": { "rows": 24, "cols": 80 } })).await;
    let Inside::Tty(slave) = session.bench.engine.inside(session.dyno) else { panic!("no terminal") };
    let mut client = session.join().await;
    client.expect_up().await;
    let lines = 40_000;
    let writer = tokio::task::spawn_blocking(move || {
        let mut slave = std::fs::File::from(slave);
        for n in 0..lines {
            slave.write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
    });
    client.expect_output(&(0..lines).map(|n| format!("line {n}\r\n")).collect::<String>()).await;
    writer.await.unwrap();
    session.bench.engine.end(session.dyno, 0);
    assert_eq!(client.finish().await, (vec![], vec![], 0));
}

#[tokio::test]
async fn a_secret_serves_one_upgrade() {
    let session = session(json!({})).await;
    // Without an upgrade it is not spent.
    let plain = session.bench.raw(Request::get(&session.path).body(Body::empty()).unwrap()).await;
    assert_eq!((plain.status().as_u16(), &plain.headers()["upgrade"]), (426, &UPGRADE.parse().unwrap()));
    let _client = session.join().await;
    for path in [session.path.as_str(), "/attach/0123456789abcdef0123456789abcdef"] {
        let socket = TcpStream::connect(session.address).await.unwrap();
        assert_eq!(Client::join(socket, path).await.0, 404);
    }
}

#[tokio::test]
async fn a_one_off_whose_client_does_not_come_is_stopped() {
    let session = session(json!({})).await;
    tokio::time::pause();
    let ended = session.bench.get("/apps/demo/dynos/run.1/wait").await;
    assert_eq!(ended["exit"]["cause"], "stopped");
    assert!(session.log_has("Error R13 (Attach error) -> Failed to attach to process").await);
}

#[tokio::test]
async fn a_dyno_that_cannot_start_says_so() {
    let session = session(json!({ "command": "cannot-start" })).await;
    let mut client = session.join().await;
    client.expect(Frame::State("starting".into())).await;
    let (_, err, status) = client.finish().await;
    assert_eq!((String::from_utf8_lossy(&err).contains("could not be started"), status), (true, 1));
}

#[tokio::test]
async fn a_silent_session_has_a_heartbeat() {
    let session = session(json!({})).await;
    let mut client = session.join().await;
    client.expect_up().await;
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    assert_eq!(client.0.next().await.unwrap().unwrap(), Frame::Stdout(Bytes::new()));
    assert!(before.elapsed() >= Duration::from_secs(14), "{:?}", before.elapsed());
}

#[tokio::test]
async fn sessions_over_a_unix_socket() {
    let session = session(json!({})).await;
    let socket = session.bench.dir.path().join("api.sock");
    let shutdown = CancellationToken::new();
    let listener = UnixListener::bind(&socket).unwrap();
    let served = tokio::spawn(serve(listener, session.bench.router.clone(), shutdown.clone()));
    let stream = UnixStream::connect(&socket).await.unwrap();
    let mut client = Client::join(stream, &session.path).await.1.expect("a session");
    client.expect_up().await;
    drop(session.pipes());
    session.bench.engine.end(session.dyno, 5);
    assert_eq!(client.finish().await.2, 5);
    shutdown.cancel();
    served.await.unwrap().unwrap();
}
