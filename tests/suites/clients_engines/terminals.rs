//! Containers with a terminal, at one that a person could sit at.

use anyhow::{Result, ensure};
use dyno_tests::{
    clients::{Engine, Outcome},
    terminal::Terminal,
    until,
};

/// Seconds for a key press on a busy host.
const SOON: u64 = 15;

pub fn terminal<E: Engine>(engine: &E) -> Result<Outcome> {
    let arguments = engine.arguments("run", &["--rm", "-it", "--env", "PS1=% "], &["sh"]);
    let mut terminal = Terminal::open(&engine.bare(&arguments), 33, 101)?;
    terminal.until("% ", SOON)?;
    terminal.keys("tty; echo sum $((40 + 2)); test -t 0 && test -c /dev/console && echo console\r")?;
    terminal.until("/dev/pts/0\r\nsum 42\r\nconsole\r\n", SOON)?;
    // The size travels beside the program, not before it.
    terminal.keys("until [ \"$(stty size)\" = '33 101' ]; do :; done; echo si''zed\r")?;
    terminal.until("sized\r\n", SOON)?;
    terminal.resize(20, 60)?;
    terminal.keys("until [ \"$(stty size)\" = '20 60' ]; do :; done; echo re''sized\r")?;
    terminal.until("resized\r\n", SOON)?;
    terminal.keys("echo be''gun; cat; echo af''ter $?\r")?;
    terminal.until("begun\r\n", SOON)?;
    terminal.keys("typed\r")?;
    // Echoed by the terminal, then said by cat.
    terminal.until("typed\r\ntyped\r\n", SOON)?;
    terminal.keys("\x03")?;
    terminal.until("% ", SOON)?;
    terminal.keys("echo status $?; ls -l /proc/self/fd/0\r")?;
    terminal.until("status 130\r\n", SOON)?;
    terminal.until("% ", SOON)?;
    terminal.keys("exit 3\r")?;
    ensure!(terminal.status(SOON)? == 3);
    Ok(Outcome::Seen)
}

pub fn attached<E: Engine>(engine: &E) -> Result<Outcome> {
    let arguments = engine.arguments("run", &["-it", "--name", "left", "--detach-keys", "ctrl-]", "--env", "PS1=% "], &["sh"]);
    let mut terminal = Terminal::open(&engine.bare(&arguments), 24, 80)?;
    terminal.until("% ", SOON)?;
    // podman takes the key for what it means only where it is read alone.
    terminal.keys("x=kept; echo re''ady\r")?;
    terminal.until("ready\r\n", SOON)?;
    terminal.until("% ", SOON)?;
    terminal.keys("\x1d")?;
    ensure!(terminal.status(SOON)? == 0);
    ensure!(engine.inspect("left")?["State"]["Status"] == "running");
    let mut terminal = Terminal::open(&engine.bare(&["attach", "left"]), 24, 80)?;
    until(SOON, "it is attached", || {
        terminal.keys("echo still $x\r")?;
        Ok(terminal.until("still kept\r\n", 1).ok())
    })?;
    terminal.keys("exit 4\r")?;
    terminal.status(SOON)?;
    ensure!(engine.ok(&["wait", "left"])? == "4");
    engine.ok(&["rm", "left"])?;
    Ok(Outcome::Seen)
}

pub fn exec<E: Engine>(engine: &E) -> Result<Outcome> {
    engine.with("host", &[], &["sleep", "1000"], |_| {
        let mut terminal = Terminal::open(&engine.bare(&["exec", "-it", "--env", "PS1=% ", "host", "sh"]), 33, 101)?;
        terminal.until("% ", SOON)?;
        terminal.keys("tty; until [ \"$(stty size)\" = '33 101' ]; do :; done; echo si''zed; exit 6\r")?;
        terminal.until("/dev/pts/0\r\nsized\r\n", SOON)?;
        ensure!(terminal.status(SOON)? == 6);
        Ok(())
    })?;
    Ok(Outcome::Seen)
}
