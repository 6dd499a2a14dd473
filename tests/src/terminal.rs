//! A terminal in which a test runs one program, as a person at a keyboard would.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    process::{Child, Command},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// A pseudo-terminal and the session in it.
pub struct Terminal {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
    child: Child,
}

impl Terminal {
    /// Runs `command` as the leader of a session whose controlling terminal has this size.
    ///
    /// # Errors
    /// When the terminal or the process cannot be made.
    pub fn open(command: &Command, rows: u16, cols: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        resize(&master, rows, cols)?;
        let slave = OpenOptions::new().read(true).write(true).open(name.to_str()?)?;
        // setsid(1) takes its input for the controlling terminal and becomes the program, so that a signal of the terminal
        // reaches that and nobody else. It forks only as a group leader, which a fresh child is not.
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        session.env("TERM", "dumb").stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        let child = session.spawn().context("setsid")?;
        // Our copies of the other side; while they are open the terminal never ends.
        drop(session);
        let keyboard = File::from(master);
        let screen = watch(keyboard.try_clone()?);
        Ok(Self { keyboard, screen, seen: String::new(), child })
    }

    /// Presses keys.
    ///
    /// # Errors
    /// When nobody is there any more.
    pub fn keys(&mut self, keys: &str) -> Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    /// Waits until `text` is on the screen, below what an earlier call has found; what came before it.
    ///
    /// # Errors
    /// After `seconds` without it, with what is on the screen.
    pub fn until(&mut self, text: &str, seconds: u64) -> Result<String> {
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            if let Some((before, after)) = self.seen.split_once(text) {
                let (before, after) = (before.to_owned(), after.to_owned());
                self.seen = after;
                return Ok(before);
            }
            match self.screen.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => bail!("no {text:?} within {seconds} s; the screen: {:?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => bail!("no {text:?} before the end; the screen: {:?}", self.seen),
            }
        }
    }

    /// Pulls at the corner of the window.
    ///
    /// # Errors
    /// Of the system call.
    pub fn resize(&self, rows: u16, cols: u16) -> Result<()> {
        resize(&self.keyboard, rows, cols)
    }

    /// Waits for the end of the program; its exit status.
    ///
    /// # Errors
    /// After `seconds`, with what is on the screen.
    pub fn status(mut self, seconds: u64) -> Result<i32> {
        let end = Instant::now() + Duration::from_secs(seconds);
        // The screen ends when the last process that has the terminal is gone.
        loop {
            match self.screen.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("still there after {seconds} s; the screen: {:?}", self.seen),
            }
        }
        let status = self.child.wait()?;
        status.code().with_context(|| format!("{status}"))
    }
}

/// The window is closed: the program gets SIGHUP; should it stay, SIGKILL.
impl Drop for Terminal {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        debug_assert!(ended.is_ok(), "{ended:?}");
    }
}

fn resize(terminal: impl std::os::fd::AsFd, rows: u16, cols: u16) -> Result<()> {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

fn watch(mut screen: File) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // EIO is how a terminal says that nobody is at its other side.
        while let Ok(n @ 1..) = screen.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_sees_the_terminal() -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", "stty size; read line; echo \"got $line\"; exit 4"]);
        let mut terminal = Terminal::open(&command, 7, 33)?;
        terminal.until("7 33", 10)?;
        terminal.keys("word\n")?;
        terminal.until("got word", 10)?;
        assert_eq!(terminal.status(10)?, 4);
        Ok(())
    }
}
