//! `dyno run` in a terminal: what people do.

use std::fs;

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, terminal::Terminal, until};

use super::{APP, ready};

/// Enough for a key press on a busy host.
const SOON: u64 = 15;

fn open(platform: &Platform, command: &str, rows: u16, cols: u16) -> Result<(Terminal, String)> {
    let mut terminal = Terminal::open(&platform.dyno(&["run", "-a", APP, command]), rows, cols)?;
    terminal.until(&format!("Running {command} on ⬢ {APP}..."), SOON)?;
    terminal.until("up, ", SOON)?;
    // Behind the name the rest of the line is cleared.
    let line = terminal.until("\r\n", SOON)?;
    let name: String = line.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
    Ok((terminal, name))
}

/// A person's shell: prompt, echo, the size of the window, Ctrl-C, and the status of `exit`.
pub fn shell(platform: &Platform) -> Result<()> {
    ready(platform)?;
    let (mut terminal, name) = open(platform, "bash --norc", 33, 101)?;
    terminal.until("$ ", SOON)?;
    // What is typed is echoed by the terminal inside, then answered.
    terminal.keys("echo I am $DYNO, $((40 + 2))\r")?;
    terminal.until("echo I am $DYNO, $((40 + 2))\r\n", SOON)?;
    terminal.until(&format!("I am {name}, 42\r\n"), SOON)?;
    terminal.keys("stty size; tty; echo $TERM $LINES $COLUMNS\r")?;
    terminal.until("33 101\r\n/dev/pts/0\r\ndumb 33 101\r\n", SOON)?;
    // Split in two, so that the echo of the line is not taken for its output.
    terminal.keys("echo be''gun; sleep 1000; echo not''reached\r")?;
    terminal.until("begun\r\n", SOON)?;
    sleeps(platform, &name)?;
    terminal.keys("\x03")?;
    let between = terminal.until("$ ", SOON)?;
    ensure!(between.contains("^C") && !between.contains("notreached"), "{between:?}");
    terminal.keys("echo alive-$((1 + 1)), $?\r")?;
    terminal.until("alive-2, 130\r\n", SOON)?;
    terminal.keys("exit 3\r")?;
    ensure!(terminal.status(SOON)? == 3);
    let said = platform.try_dyno(&["run:wait", &name, "-a", APP])?;
    ensure!(said.status == 3, "{said:?}");
    Ok(())
}

/// Waits until the shell has made itself a `sleep`. A shell that is interrupted between fork and exec loses the interrupt,
/// bash on a plain terminal no less.
fn sleeps(platform: &Platform, name: &str) -> Result<()> {
    let list = platform.json(&["ps", "run", "-a", APP])?;
    let dyno = list.as_array().context("list")?.iter().find(|dyno| dyno["name"] == name).context("the dyno")?;
    let id = dyno["id"].as_str().context("id")?;
    let asleep = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n");
    until(SOON, "the shell runs sleep", || Ok(platform.pids(id)?.iter().any(asleep).then_some(())))
}

/// A change of the window's size is a SIGWINCH inside, and the new size is there.
pub fn resize(platform: &Platform) -> Result<()> {
    ready(platform)?;
    // Waited for with sigwait(3): a handler would miss a signal that comes just before a read blocks.
    let program = "import os, signal\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])\n\
        print(*os.get_terminal_size(), flush=True)\n\
        for _ in range(2):\n  signal.sigwait([signal.SIGWINCH])\n  print(*os.get_terminal_size(), flush=True)\n\
        print('over', flush=True)";
    let command = format!("LINES= COLUMNS= python3 -uc \"{program}\"");
    let mut terminal = Terminal::open(&platform.dyno(&["run", "-a", APP, &command]), 24, 80)?;
    terminal.until("up, run.", SOON)?;
    terminal.until("80 24\r\n", SOON)?;
    for (rows, cols) in [(40, 132), (10, 20)] {
        terminal.resize(rows, cols)?;
        terminal.until(&format!("{cols} {rows}\r\n"), SOON)?;
    }
    terminal.until("over\r\n", SOON)?;
    ensure!(terminal.status(SOON)? == 0);
    Ok(())
}

/// The window is closed: the shell and what runs in it are told SIGHUP and end.
pub fn closed(platform: &Platform) -> Result<()> {
    ready(platform)?;
    let (mut terminal, name) = open(platform, "bash --norc", 24, 80)?;
    terminal.until("$ ", SOON)?;
    terminal.keys("echo be''gun; sleep 1000\r")?;
    terminal.until("begun\r\n", SOON)?;
    sleeps(platform, &name)?;
    let mut log = platform.tail(APP, &["-p", &name])?;
    drop(terminal);
    log.until("Client connection closed. Sending SIGHUP to all processes", SOON)?;
    let end = log.until("Process exited with status ", SOON)?;
    let status = end.rsplit(' ').next().context("status")?;
    ensure!(status == "129", "bash ends with 128 + SIGHUP, not {status}");
    Ok(())
}
