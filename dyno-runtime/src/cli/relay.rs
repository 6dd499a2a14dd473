//! What `dyno-runtime sandbox` does while the program runs: carries a terminal or counted output, passes signals on, tells of denied
//! calls. One thread, one poll.

use std::{
    io::Write,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use super::{
    Failure, complain,
    terminal::{self, Raw},
};
use crate::{Denial, Denials, Dyno, Streams, sys::next_signal};

/// Passed on, but for the last, which is about our own terminal.
pub(super) const WATCHED: [i32; 7] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];

/// Everything that can happen meanwhile.
pub(super) struct Relay {
    signals: OwnedFd,
    denials: Option<Denials>,
    master: Option<OwnedFd>,
    stdin_open: bool,
    /// Ends of the program's output that we carry to our own: false for stdout.
    outputs: Vec<(OwnedFd, bool)>,
    raw: Option<Raw>,
}

impl Relay {
    pub fn new(dyno: &mut Dyno, signals: OwnedFd, tty: bool) -> Result<Self, Failure> {
        let (mut master, mut outputs) = (None, Vec::new());
        match dyno.take_streams() {
            Streams::Tty(own) => {
                outputs.push((own.try_clone().map_err(|e| Failure::new(format!("dup: {e}")))?, false));
                master = Some(own);
            }
            Streams::Each { stdout, stderr, .. } => {
                outputs.extend(stdout.map(|fd| (fd, false)));
                outputs.extend(stderr.map(|fd| (fd, true)));
            }
            _ => {}
        }
        Ok(Self { signals, denials: dyno.take_denials(), stdin_open: tty, master, outputs, raw: if tty { Raw::enter() } else { None } })
    }

    /// Until the program has ended, and what it wrote has been carried.
    pub fn run(&mut self, dyno: &Dyno) -> Result<(), Failure> {
        let mut ended = false;
        while !(ended && self.outputs.is_empty()) {
            let happened = self.poll(dyno, ended)?;
            ended |= happened.ended;
            if happened.signal {
                self.signal(dyno)?;
            }
            if happened.denied {
                self.deny()?;
            }
            if ended {
                // Nobody is left to be denied anything; 6.1's listener says so only once somebody has waited for the dyno.
                self.denials = None;
            }
            if happened.typed {
                self.typed()?;
            }
            self.carry(&happened.written)?;
        }
        Ok(())
    }

    fn poll(&self, dyno: &Dyno, ended: bool) -> Result<Happened, Failure> {
        let stdin = std::io::stdin();
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(self.outputs.iter().map(|(fd, _)| PollFd::new(fd, PollFlags::IN)));
        let outputs = 1..fds.len();
        let mut also = |present: bool, fd| present.then(|| (fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN)), fds.len() - 1).1);
        let pidfd = also(!ended, dyno.pidfd());
        let denials = self.denials.as_ref().and_then(|denials| also(true, denials.as_fd()));
        let typed = also(self.stdin_open && !ended, stdin.as_fd());
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Happened::default()),
            Err(e) => return Err(Failure::new(format!("poll: {e}"))),
        }
        let is = |at: usize| !fds[at].revents().is_empty();
        Ok(Happened {
            signal: is(0),
            written: outputs.map(is).collect(),
            ended: pidfd.is_some_and(is),
            denied: denials.is_some_and(is),
            typed: typed.is_some_and(is),
        })
    }

    fn signal(&self, dyno: &Dyno) -> Result<(), Failure> {
        while let Ok(signal) = next_signal(&self.signals) {
            match (signal, &self.master) {
                (libc::SIGWINCH, Some(master)) => {
                    terminal::fit(master.as_fd()).map_err(|e| Failure::new(format!("ioctl(TIOCSWINSZ): {e}")))?;
                }
                (libc::SIGWINCH, None) => {}
                _ => dyno.signal(signal)?,
            }
        }
        Ok(())
    }

    fn deny(&mut self) -> Result<(), Failure> {
        let Some(denials) = &mut self.denials else { return Ok(()) };
        match denials.next_within(Duration::ZERO)? {
            // A terminal in raw mode does not return to the first column by itself.
            Some(denial) => complain(&(describe(&denial) + if self.raw.is_some() { "\r" } else { "" })),
            None if denials.has_ended() => self.denials = None,
            None => {}
        }
        Ok(())
    }

    fn typed(&mut self) -> Result<(), Failure> {
        let (Some(master), mut chunk) = (&self.master, [0; 4096]) else { return Ok(()) };
        let n = rustix::io::read(std::io::stdin(), &mut chunk).unwrap_or(0);
        self.stdin_open = n > 0;
        let end = if n > 0 { Vec::new() } else { terminal::end_of_input(master.as_fd()) };
        let mut left: &[u8] = if n > 0 { &chunk[..n] } else { &end };
        while !left.is_empty() {
            match rustix::io::write(master, left) {
                Ok(n) => left = &left[n..],
                Err(Errno::INTR) => {}
                // Nobody holds the terminal any more.
                Err(Errno::IO) => return Ok(()),
                Err(e) => return Err(Failure::new(format!("write to the terminal: {e}"))),
            }
        }
        Ok(())
    }

    /// Moves a chunk from every output that has one; drops those at their end.
    fn carry(&mut self, ready: &[bool]) -> Result<(), Failure> {
        let (mut ready, mut result) = (ready.iter(), Ok(()));
        self.outputs.retain(|(from, to_stderr)| {
            let mut chunk = [0; 16384];
            if ready.next() != Some(&true) {
                return true;
            }
            match rustix::io::read(from, &mut chunk) {
                Ok(n @ 1..) => match write(&chunk[..n], *to_stderr) {
                    // Who reads us has stopped: the program learns it in the same way.
                    Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => false,
                    Err(e) => {
                        result = Err(Failure::new(format!("write output: {e}")));
                        false
                    }
                    Ok(()) => true,
                },
                Err(Errno::INTR | Errno::AGAIN) => true,
                // EIO: the last program has closed its terminal.
                _ => false,
            }
        });
        result
    }
}

fn write(bytes: &[u8], to_stderr: bool) -> std::io::Result<()> {
    if to_stderr { std::io::stderr().write_all(bytes) } else { std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()) }
}

/// What a poll has shown.
#[derive(Default)]
struct Happened {
    signal: bool,
    written: Vec<bool>,
    ended: bool,
    denied: bool,
    typed: bool,
}

fn describe(denial: &Denial) -> String {
    let Denial { pid_inside, program, args, explanation, .. } = denial;
    let args: Vec<String> = args.iter().map(|arg| format!("{arg:#x}")).collect();
    format!("denied: {program}[{pid_inside}] {}({}) = {} ({})", explanation.call, args.join(", "), explanation.action, explanation.rule)
}
