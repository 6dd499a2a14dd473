//! An attached session from the client's side: local input, window changes and signals become frames, frames
//! become output, and the last one is the exit status.
//!
//! ```text
//!   input ─────┐                        ┌──▶ out
//!              ├─▶ sending ═══▶ dyno ═══▶ receiving ──▶ err
//!   controls ──┘   (controls first)     └──▶ Exit: the session's end
//! ```
//!
//! The two directions never wait for each other: a dyno that prints without reading, or reads without
//! printing, blocks one of them only. Four interrupts within a second without any answer end the session from
//! here.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::mpsc,
    time::Instant,
};
use tokio_util::codec::{Encoder, FramedRead};

use super::{
    error::{CliError, Result},
    screen::Screen,
};
use crate::{
    attach::{Frame, FrameCodec},
    model::Exit,
};

/// The byte of Ctrl-C.
const CTRL_C: u8 = 3;
/// SIGINT, as frames carry it.
const SIGINT: u8 = 2;
/// So many interrupts …
const PATIENCE: usize = 4;
/// … within this time, unanswered, end the session.
const WINDOW: Duration = Duration::from_secs(1);

/// What happens on this side apart from input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// The terminal has this size now: rows, columns.
    Resize(u16, u16),
    /// Hand this signal on.
    Signal(u8),
    /// This process is told to end, by this signal.
    Quit(u8),
}

/// This side of a session.
pub(super) struct Local {
    /// Closes at the end of input.
    pub(super) input: mpsc::Receiver<Bytes>,
    /// Signals and sizes.
    pub(super) controls: mpsc::Receiver<Control>,
    /// The input are keys of a raw terminal, where Ctrl-C is a byte.
    pub(super) keys: bool,
}

/// How a session ended.
#[derive(Debug, PartialEq)]
pub(super) enum Ending {
    /// The dyno ended.
    Exit(Exit),
    /// The connection did, first.
    Lost,
    /// The user's repeated interrupts.
    Detached,
    /// A signal to this process.
    Quit(u8),
}

/// An open session over any stream.
pub(super) struct Session<S> {
    frames: FramedRead<ReadHalf<S>, FrameCodec>,
    writer: WriteHalf<S>,
    /// The frame that showed that the dyno had started.
    pending: Option<Frame>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Frames over an upgraded connection.
    pub(super) fn new(stream: S) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { frames: FramedRead::new(reader, FrameCodec), writer, pending: None }
    }

    /// Waits until the dyno is up, has written something or has ended; shows the states on the way.
    pub(super) async fn started(&mut self, screen: &mut Screen) -> Result<bool> {
        while let Some(frame) = self.frames.next().await {
            match frame.map_err(|e| garbled(&e))? {
                Frame::State(state) if state == "up" => return Ok(true),
                Frame::State(state) => screen.meanwhile(&super::layout::plain(&state)).await,
                frame => {
                    let ended = matches!(frame, Frame::Exit(_));
                    self.pending = Some(frame);
                    return Ok(!ended);
                }
            }
        }
        Ok(false)
    }

    /// Carries the session to its end.
    pub(super) async fn pump(self, local: Local, screen: &mut Screen) -> Result<Ending> {
        let stream = futures_util::stream::iter(self.pending.map(Ok)).chain(self.frames);
        let patience = Patience::default();
        let (urgent, queue) = mpsc::unbounded_channel();
        tokio::select! {
            ending = receiving(stream, screen, &patience) => ending,
            ending = controlling(local.controls, urgent, &patience) => Ok(ending),
            ending = sending(self.writer, local.input, queue, local.keys.then_some(&patience)) => Ok(ending),
        }
    }
}

fn garbled(error: &std::io::Error) -> CliError {
    CliError::new(format!("The session broke: {error}"))
}

/// Counts interrupts that nothing answered.
#[derive(Default)]
struct Patience {
    presses: RefCell<VecDeque<Instant>>,
    answered: Cell<bool>,
}

impl Patience {
    /// One more interrupt; true when the user has had enough.
    fn press(&self, now: Instant) -> bool {
        let mut presses = self.presses.borrow_mut();
        if self.answered.replace(false) {
            presses.clear();
        }
        presses.push_back(now);
        while presses.front().is_some_and(|first| now.duration_since(*first) > WINDOW) {
            presses.pop_front();
        }
        presses.len() >= PATIENCE
    }

    /// Keys of a terminal; true when the user has had enough.
    fn typed(&self, keys: &[u8]) -> bool {
        keys.iter().filter(|key| **key == CTRL_C).any(|_| self.press(Instant::now()))
    }

    /// The dyno said something.
    fn answer(&self) {
        self.answered.set(true);
    }
}

/// Dyno to screen, until the exit.
async fn receiving(mut stream: impl Stream<Item = std::io::Result<Frame>> + Unpin, screen: &mut Screen, patience: &Patience) -> Result<Ending> {
    while let Some(frame) = stream.next().await {
        // A connection that was cut is like one that was closed; only nonsense is told as such.
        let frame = match frame {
            Ok(frame) => frame,
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => return Err(garbled(&e)),
            Err(_) => return Ok(Ending::Lost),
        };
        match frame {
            Frame::Stdout(data) => {
                patience.answer();
                screen.write(&data).await?;
            }
            Frame::Stderr(data) => {
                patience.answer();
                let written = screen.err.write_all(&data).await;
                written.map_err(|e| CliError::output(&e))?;
                screen.err.flush().await.map_err(|e| CliError::output(&e))?;
            }
            Frame::Exit(exit) => return Ok(Ending::Exit(exit)),
            // States after the start say nothing new; the rest only goes the other way.
            _ => {}
        }
    }
    Ok(Ending::Lost)
}

/// Signals and sizes, apart from input: they are taken while the input waits for the dyno.
async fn controlling(mut controls: mpsc::Receiver<Control>, urgent: mpsc::UnboundedSender<Frame>, patience: &Patience) -> Ending {
    while let Some(control) = controls.recv().await {
        let frame = match control {
            Control::Quit(signal) => return Ending::Quit(signal),
            Control::Signal(SIGINT) if patience.press(Instant::now()) => return Ending::Detached,
            Control::Signal(signal) => Frame::Signal(signal),
            Control::Resize(rows, cols) => Frame::Resize { rows, cols },
        };
        if urgent.send(frame).is_err() {
            break;
        }
    }
    std::future::pending().await
}

/// Everything that goes to the dyno. A connection that takes nothing more is not an ending of its own: the exit
/// may already be on its way here. `keys` is given where Ctrl-C comes as a byte.
async fn sending(
    mut writer: impl AsyncWrite + Unpin,
    mut input: mpsc::Receiver<Bytes>,
    mut urgent: mpsc::UnboundedReceiver<Frame>,
    keys: Option<&Patience>,
) -> Ending {
    let mut open = true;
    let mut wire = BytesMut::new();
    loop {
        let frame = tokio::select! {
            biased;
            Some(frame) = urgent.recv() => frame,
            data = input.recv(), if open => match data {
                Some(data) => {
                    if keys.is_some_and(|patience| patience.typed(&data)) {
                        return Ending::Detached;
                    }
                    Frame::Stdin(data)
                }
                None => {
                    open = false;
                    Frame::Eof
                }
            },
            else => return std::future::pending().await,
        };
        let sent = async {
            FrameCodec.encode(frame, &mut wire)?;
            writer.write_all_buf(&mut wire).await?;
            writer.flush().await
        };
        if sent.await.is_err() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::{
        super::testing::{Captured, exit},
        *,
    };

    /// A session with both of its sides in the test's hands.
    struct Stage {
        session: Session<DuplexStream>,
        dyno: DuplexStream,
        input: mpsc::Sender<Bytes>,
        controls: mpsc::Sender<Control>,
        local: Local,
        screen: Screen,
        captured: Captured,
    }

    fn stage(keys: bool) -> Stage {
        let (client, dyno) = duplex(1024);
        let (input, receiver) = mpsc::channel(4);
        let (controls, control_receiver) = mpsc::channel(16);
        let (screen, captured) = Captured::screen();
        let local = Local { input: receiver, controls: control_receiver, keys };
        Stage { session: Session::new(client), dyno, input, controls, local, screen, captured }
    }

    async fn say(dyno: &mut (impl AsyncWrite + Unpin), frame: Frame) {
        let mut wire = BytesMut::new();
        FrameCodec.encode(frame, &mut wire).unwrap();
        dyno.write_all(&wire).await.unwrap();
    }

    #[tokio::test]
    async fn output_that_came_before_the_session_began_is_not_lost() {
        let mut stage = stage(false);
        say(&mut stage.dyno, Frame::State("starting".into())).await;
        say(&mut stage.dyno, Frame::Stdout(Bytes::from_static(b"early"))).await;
        say(&mut stage.dyno, Frame::Exit(exit(7))).await;
        assert!(stage.session.started(&mut stage.screen).await.unwrap());
        let ending = stage.session.pump(stage.local, &mut stage.screen).await.unwrap();
        assert_eq!(ending, Ending::Exit(exit(7)));
        assert_eq!(stage.captured.out(), "early");
    }

    #[tokio::test]
    async fn a_dyno_that_ends_before_it_is_up_has_not_started() {
        let mut stage = stage(false);
        say(&mut stage.dyno, Frame::Exit(exit(1))).await;
        assert!(!stage.session.started(&mut stage.screen).await.unwrap());
        let ending = stage.session.pump(stage.local, &mut stage.screen).await.unwrap();
        assert_eq!(ending, Ending::Exit(exit(1)));
    }

    #[tokio::test]
    async fn a_dyno_that_prints_without_reading_is_still_read() {
        let mut stage = stage(false);
        // Far more input than the wire holds: the sending side is stuck for good.
        let chunk = Bytes::from(vec![b'x'; 16 * 1024]);
        for _ in 0..4 {
            stage.input.send(chunk.clone()).await.unwrap();
        }
        let (mut reader, mut writer) = tokio::io::split(stage.dyno);
        let talks = async {
            for _ in 0..100 {
                say(&mut writer, Frame::Stdout(Bytes::from_static(&[b'y'; 1000]))).await;
            }
            say(&mut writer, Frame::Exit(exit(0))).await;
        };
        let (ending, ()) = tokio::join!(stage.session.pump(stage.local, &mut stage.screen), talks);
        assert_eq!(ending.unwrap(), Ending::Exit(exit(0)));
        assert_eq!(stage.captured.out().len(), 100_000);
        // Held to the end, or the wire would have been cut.
        assert_eq!(tokio::io::AsyncReadExt::read_u8(&mut reader).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_cut_connection_is_told_apart_from_an_exit_and_from_nonsense() {
        let cut = stage(false);
        drop(cut.dyno);
        let mut screen = cut.screen;
        assert_eq!(cut.session.pump(cut.local, &mut screen).await.unwrap(), Ending::Lost);
        let mut nonsense = stage(false);
        nonsense.dyno.write_all(b"HTTP/1.1 500 Oops\r\n").await.unwrap();
        let told = nonsense.session.pump(nonsense.local, &mut nonsense.screen).await.unwrap_err().to_string();
        assert!(told.contains("The session broke"), "{told}");
    }

    #[tokio::test]
    async fn a_signal_to_the_client_ends_it_even_while_input_is_stuck() {
        let mut stage = stage(false);
        stage.input.send(Bytes::from(vec![b'x'; 16 * 1024])).await.unwrap();
        stage.controls.send(Control::Quit(15)).await.unwrap();
        assert_eq!(stage.session.pump(stage.local, &mut stage.screen).await.unwrap(), Ending::Quit(15));
    }

    /// Presses at these milliseconds; an `!` before one means that the dyno answered before it.
    fn patience(script: &str, want: bool) {
        let patience = Patience::default();
        let start = Instant::now();
        let pressed = script.split(' ').map(|step| {
            if step.starts_with('!') {
                patience.answer();
            }
            let at: u64 = step.trim_start_matches('!').parse().unwrap();
            patience.press(start + Duration::from_millis(at))
        });
        assert_eq!(pressed.last(), Some(want), "{script}");
    }

    #[test]
    fn four_interrupts_in_a_second_without_an_answer_are_enough() {
        patience("0 1 2", false);
        patience("0 300 600 1000", true);
        patience("0 300 600 1001", false);
        patience("0 300 600 1001 1002", true);
        patience("0 1 2 !3", false);
        patience("0 !1 2 3 4", true);
    }

    #[tokio::test]
    async fn ctrl_c_is_a_byte_of_keys_and_a_signal_otherwise() {
        let keyed = stage(true);
        let mut screen = keyed.screen;
        for _ in 0..4 {
            keyed.input.send(Bytes::from_static(b"\x03")).await.unwrap();
        }
        assert_eq!(keyed.session.pump(keyed.local, &mut screen).await.unwrap(), Ending::Detached);

        let mut piped = stage(false);
        piped.input.send(Bytes::from_static(b"\x03\x03\x03\x03")).await.unwrap();
        drop(piped.input);
        let reads = async {
            let mut frames = FramedRead::new(&mut piped.dyno, FrameCodec);
            let seen = [frames.next().await.unwrap().unwrap(), frames.next().await.unwrap().unwrap()];
            assert_eq!(seen, [Frame::Stdin(Bytes::from_static(b"\x03\x03\x03\x03")), Frame::Eof]);
            for _ in 0..4 {
                piped.controls.send(Control::Signal(2)).await.unwrap();
            }
        };
        let (ending, ()) = tokio::join!(piped.session.pump(piped.local, &mut piped.screen), reads);
        assert_eq!(ending.unwrap(), Ending::Detached);
    }
}
