//! A terminal inside a sandbox: the caller's terminal is put into raw mode, its size is passed on, and bytes are carried both ways.
//!
//! `cargo run --example shell -- ROOTFS [COMMAND [ARG…]]` (as root). Without a terminal on stdin, plain bytes do as well.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
};

use anyhow::{Context, Result, bail};
use dyno_runtime::{Host, Layer, Sandbox, StartOptions, Stdio, Streams};
use rustix::{
    event::{PollFd, PollFlags, poll},
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize},
};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let rootfs = args.next().context("usage: shell ROOTFS [COMMAND…]")?;
    let command: Vec<String> = args.collect();
    let command = if command.is_empty() { vec!["/bin/sh".to_owned()] } else { command };
    let mut sandbox = Sandbox::new(vec![Layer::Directory(rootfs.into())], command);
    sandbox.env.insert("TERM".into(), std::env::var("TERM").unwrap_or_else(|_| "dumb".into()));
    sandbox.env.insert("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into());

    let name = format!("dyno-shell-{}", std::process::id());
    let host = Host::open(format!("/run/{name}").as_ref(), &name)?;
    let result = run(&host, &sandbox);
    host.dismantle()?;
    std::process::exit(result?)
}

fn run(host: &Host, sandbox: &Sandbox) -> Result<i32> {
    let size = tcgetwinsize(std::io::stdin()).map_or((24, 80), |size| (size.ws_row, size.ws_col));
    let mut dyno = host.start("shell", sandbox, StartOptions { stdio: Stdio::Tty { rows: size.0, cols: size.1 }, ..Default::default() })?;
    let Streams::Tty(master) = dyno.take_streams() else { bail!("no terminal") };
    let carried = {
        let _raw = Raw::enter();
        carry(&master)
    };
    let exit = dyno.wait()?;
    dyno.free()?;
    carried?;
    Ok(exit.status)
}

/// The caller's terminal in raw mode, until dropped: ^C and the like are for the sandbox.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(e) = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0) {
            eprintln!("your terminal may need `reset`: {e}");
        }
    }
}

/// Until the last program has closed the terminal inside (EIO).
fn carry(master: &OwnedFd) -> Result<()> {
    let (mut there, mut back) = (File::from(master.try_clone()?), File::from(master.try_clone()?));
    let (stdin, mut open, mut chunk) = (std::io::stdin(), true, [0; 4096]);
    loop {
        let mut fds = vec![PollFd::new(master, PollFlags::IN)];
        if open {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        poll(&mut fds, None)?;
        let typed = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        if !fds[0].revents().is_empty() {
            match back.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(n) => std::io::stdout().write_all(&chunk[..n]).and_then(|()| std::io::stdout().flush())?,
                Err(e) if e.raw_os_error() == Some(libc::EIO) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
        if typed {
            // Cheaper than a handler of SIGWINCH: the kernel tells the programs inside only when the size has changed.
            if let Ok(size) = tcgetwinsize(&stdin) {
                tcsetwinsize(master, size)?;
            }
            let n = rustix::io::read(&stdin, &mut chunk)?;
            open = n > 0;
            // ^D: the end of input, for a line discipline.
            there.write_all(if open { &chunk[..n] } else { b"\x04" })?;
        }
    }
}
