//! One attached session: frames of a client on one side, the streams of a one-off on the other.
//!
//! ```text
//!  client ──frames──▶ read_input ──queue──▶ feed ──▶ stdin
//!                        └─ Resize, Signal at once
//!  client ◀──frames── deliver ◀──queue── relay ◀── stdout, stderr      then Exit, then the end
//! ```
//! Every queue is bounded: a side that does not read stalls the other, nothing piles up here. The session ends
//! when the dyno has ended and all its output is delivered, or when the client is gone; then the dyno's streams
//! are closed and it is told SIGHUP, as a terminal that is closed does.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, watch},
};
use tokio_util::codec::{Encoder, FramedRead};

use super::stdio::{Sink, Source, Streams, Tty};
use crate::{
    attach::{Frame, FrameCodec, MAX_PAYLOAD},
    model::{DynoId, Exit},
    platform::{Engine, Platform, Ticket},
};

/// Frames that may wait in a queue; with full frames 1 MiB.
const QUEUE: usize = 16;
/// An empty output frame is sent this often, so that a client that went without a word is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// After the exit, output is over once nothing came for this long, even if somebody still holds the stream open.
const QUIET: Duration = Duration::from_secs(2);
/// Between two SIGHUPs to a dyno whose client is gone (Heroku: 5 s).
const HANG_UP_EVERY: Duration = Duration::from_secs(5);
/// SIGHUPs before R16.
const HANG_UPS: u32 = 6;
const SIGHUP: i32 = 1;
/// Highest number that a client may send; there are 64 signals on Linux (signal(7)).
const MAX_SIGNAL: u8 = 64;

/// The client is gone, or what it sends is no session.
#[derive(Debug)]
struct Gone;

/// Joins a client to the dyno of its ticket until one of them ends.
pub(super) async fn run(platform: &Platform, mut ticket: Ticket, io: impl AsyncRead + AsyncWrite) {
    let joined = join(platform.engine().as_ref(), &mut ticket, io).await;
    if joined.is_err() {
        hang_up(platform, ticket).await;
    }
}

async fn join(engine: &dyn Engine, ticket: &mut Ticket, io: impl AsyncRead + AsyncWrite) -> Result<(), Gone> {
    let (from, to) = tokio::io::split(io);
    let (frames, queue) = mpsc::channel(QUEUE);
    let (dyno, exit) = (ticket.dyno, ticket.exit.clone());
    let (opened, is_open) = tokio::sync::oneshot::channel();
    let produce = async {
        send(&frames, Frame::State("starting".into())).await?;
        let streams = match ticket.streams.as_mut().await.map(Streams::open) {
            Some(Ok(streams)) => streams,
            failed => return refuse(frames, failed.and_then(Result::err), exit).await,
        };
        send(&frames, Frame::State("up".into())).await?;
        let Streams { stdin, stdout, stderr, tty } = streams;
        // Dropped with the session itself, if nobody listens any more.
        drop(opened.send((stdin, tty)));
        relay(frames, stdout, stderr, exit).await
    };
    let consume = async { deliver(to, queue).await.map_err(|_gone| Gone) };
    let output = async { tokio::try_join!(produce, consume).map(|_| ()) };
    let input = async {
        // A dyno that never starts has no input; its session ends with `output`.
        let Ok((stdin, tty)) = is_open.await else { return std::future::pending().await };
        read_input(engine, dyno, from, stdin, tty).await
    };
    tokio::select! {
        biased;
        done = output => done,
        gone = input => Err(gone),
    }
}

/// The dyno could not be started: says so and ends the session in order.
async fn refuse(frames: mpsc::Sender<Frame>, error: Option<io::Error>, exit: watch::Receiver<Option<Exit>>) -> Result<(), Gone> {
    let why = error.map_or_else(|| "the dyno could not be started; its log says why".to_owned(), |e| e.to_string());
    send(&frames, Frame::Stderr(Bytes::from(format!("{why}\n")))).await?;
    send(&frames, Frame::Exit(ended(exit).await)).await
}

/// All output, then the exit.
async fn relay(frames: mpsc::Sender<Frame>, stdout: Source, stderr: Option<Source>, exit: watch::Receiver<Option<Exit>>) -> Result<(), Gone> {
    let out = copy(stdout, &frames, Frame::Stdout, exit.clone());
    let err = async {
        match stderr {
            Some(stderr) => copy(stderr, &frames, Frame::Stderr, exit.clone()).await,
            None => Ok(()),
        }
    };
    let finish = async {
        tokio::try_join!(out, err)?;
        send(&frames, Frame::Exit(ended(exit.clone()).await)).await
    };
    let beat = async {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            send(&frames, Frame::Stdout(Bytes::new())).await?;
        }
    };
    tokio::select! {
        done = finish => done,
        gone = beat => gone,
    }
}

async fn copy(mut from: Source, to: &mpsc::Sender<Frame>, frame: fn(Bytes) -> Frame, exit: watch::Receiver<Option<Exit>>) -> Result<(), Gone> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(MAX_PAYLOAD / 4);
        let mut piece = (&mut from).take(MAX_PAYLOAD as u64);
        let read = tokio::select! {
            biased;
            read = piece.read_buf(&mut buffer) => read,
            () = quiet(exit.clone()) => return Ok(()),
        };
        match read {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => send(to, frame(buffer.split().freeze())).await?,
        }
    }
}

async fn quiet(exit: watch::Receiver<Option<Exit>>) {
    ended(exit).await;
    tokio::time::sleep(QUIET).await;
}

async fn ended(mut exit: watch::Receiver<Option<Exit>>) -> Exit {
    let known = exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
    known.unwrap_or_else(crate::platform::never_ran)
}

async fn send(to: &mpsc::Sender<Frame>, frame: Frame) -> Result<(), Gone> {
    to.send(frame).await.map_err(|_| Gone)
}

/// Writes frames until the last sender is gone and all is written.
async fn deliver(mut to: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Frame>) -> io::Result<()> {
    let mut wire = BytesMut::new();
    while let Some(frame) = queue.recv().await {
        FrameCodec.encode(frame, &mut wire)?;
        // What has gathered meanwhile goes out in the same write.
        while wire.len() < MAX_PAYLOAD {
            let Ok(frame) = queue.try_recv() else { break };
            FrameCodec.encode(frame, &mut wire)?;
        }
        to.write_all_buf(&mut wire).await?;
        to.flush().await?;
    }
    to.shutdown().await
}

/// Takes the client's frames until it is gone.
async fn read_input(engine: &dyn Engine, dyno: DynoId, from: impl AsyncRead + Unpin, stdin: Sink, tty: Option<Tty>) -> Gone {
    let (queue, queued) = mpsc::channel(QUEUE);
    let mut frames = FramedRead::new(from, FrameCodec);
    let read = async {
        while let Some(Ok(frame)) = frames.next().await {
            match frame {
                Frame::Stdin(bytes) => drop(queue.send(Input::Bytes(bytes)).await),
                Frame::Eof => drop(queue.send(Input::End).await),
                Frame::Resize { rows, cols } => resize(tty.as_ref(), rows, cols),
                Frame::Signal(n @ 1..=MAX_SIGNAL) => engine.signal(dyno, i32::from(n)).await,
                Frame::Signal(_) | Frame::Stdout(_) | Frame::Stderr(_) | Frame::Exit(_) | Frame::State(_) => break,
            }
        }
        Gone
    };
    tokio::select! {
        gone = read => gone,
        never = feed(stdin, tty.is_some(), queued) => match never {},
    }
}

fn resize(tty: Option<&Tty>, rows: u16, cols: u16) {
    let resized = tty.map_or(Ok(()), |tty| tty.resize(rows, cols));
    if let Err(error) = resized {
        tracing::debug!(%error, "the terminal keeps its size");
    }
}

enum Input {
    Bytes(Bytes),
    End,
}

/// Writes input to the dyno. Never returns: a dyno that reads no more is no reason to end the session.
async fn feed(mut stdin: Sink, tty: bool, mut queue: mpsc::Receiver<Input>) -> std::convert::Infallible {
    // A terminal hands out an unfinished line at the first ^D and says end of file only at the next (termios(3), VEOF).
    let mut mid_line = false;
    while let Some(input) = queue.recv().await {
        let bytes = match input {
            Input::Bytes(bytes) => bytes,
            Input::End if tty && mid_line => Bytes::from_static(&[4, 4]),
            Input::End if tty => Bytes::from_static(&[4]),
            Input::End => break,
        };
        mid_line = bytes.last().map_or(mid_line, |last| !matches!(*last, b'\n' | b'\r' | 4));
        if stdin.write_all(&bytes).await.is_err() {
            break;
        }
    }
    drop(stdin);
    while queue.recv().await.is_some() {}
    std::future::pending().await
}

/// What follows when the client is gone and the dyno is not.
pub(super) async fn hang_up(platform: &Platform, ticket: Ticket) {
    let Ticket { dyno, ref exit, .. } = ticket;
    if exit.borrow().is_some() {
        return;
    }
    platform.log_session_event(&ticket, "Client connection closed. Sending SIGHUP to all processes");
    for _ in 0..HANG_UPS {
        platform.engine().signal(dyno, SIGHUP).await;
        if tokio::time::timeout(HANG_UP_EVERY, ended(exit.clone())).await.is_ok() {
            return;
        }
    }
    let text = "Error R16 (Detached) -> An attached process is not responding to SIGHUP after its external connection was closed.";
    platform.log_session_event(&ticket, text);
}
