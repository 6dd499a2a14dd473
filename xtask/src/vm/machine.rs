//! One boot: starts qemu, follows the report on its standard output, and ends it when it is late.
//!
//! ```text
//! booting --boot--> idle --begin--> running --end--> idle … --done--> powering off --> gone
//!    |                |                |                                    |
//!    +----------------+----------------+--- late or gone early: killed, what was not run counts as failed
//! ```

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    items::Item,
    payload::Payload,
    recipes::Machine,
    report::{Counts, Line, Row, rows, tells_of_skipping},
};

/// From the start of qemu to the runner's first line. It takes 15 to 60 s, more on a busy host.
const BOOT: Duration = Duration::from_secs(300);
/// Without the mitigations of processors that this one is not: a second page table for user space would empty the emulator's
/// translations at every system call.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 mitigations=off";
/// Beside an item's own time: ends it inside the machine first, so that the items after it still run.
const GRACE: Duration = Duration::from_secs(60);

/// Boots `machine`, runs all of `items` in it, and counts.
pub fn run(machine: &Machine, payload: &Payload, items: &[Item]) -> Result<Vec<Row>> {
    let version = &machine.version;
    println!("-----> Booting Linux {version} (software emulation; {} items)", items.len());
    let console = payload.logs.join(format!("{version}.console.log"));
    let output = payload.logs.join(format!("{version}.log"));
    let mut qemu = Qemu::start(machine, &payload.image, &console)?;
    let mut reader = Reader { version, lines: qemu.lines()?, log: fs::File::create(&output).context("create the log")? };
    let mut results = Vec::new();
    let ended = reader.follow(items, &mut results);
    qemu.end(ended.is_ok())?;
    if let Err(e) = &ended {
        println!("       {version}: FAILED: {e:#}\n{}", tail(&console, 15));
    }
    // What the machine did not come to is a failure, not a gap in the table.
    for item in items.iter().skip(results.len()) {
        results.push((format!("{} {}", item.suite.name(), item.name), Counts { failed: 1, ..Counts::default() }));
    }
    Ok(rows(version, &results))
}

/// A running emulator; killed when dropped.
struct Qemu(Child);

impl Qemu {
    fn start(machine: &Machine, payload: &Path, console: &Path) -> Result<Self> {
        // It dies with us, however we end.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "pc"]);
        // An old model: the kernel finds no virtualisation, and no vector units whose emulation it would time at boot.
        command.args(["-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2", "-m", "3072"]);
        command.args(["-display", "none", "-no-reboot", "-nic", "none", "-append", COMMAND_LINE]);
        command.arg("-kernel").arg(machine.kernel.join("vmlinuz")).arg("-initrd").arg(machine.kernel.join("initrd"));
        // In this order they are vda, vdb and vdc. What is written to the first goes to a nameless file.
        for (image, mode) in
            [(machine.userland.as_path(), "snapshot=on"), (payload, "readonly=on"), (&machine.kernel.join("modules.ext4"), "readonly=on")]
        {
            command.arg("-drive").arg(format!("file={},format=raw,if=virtio,{mode}", image.display().to_string().replace(',', ",,")));
        }
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.args(["-chardev", "stdio,id=report,signal=off", "-serial", "chardev:report"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(Self(command.spawn().context("start qemu-system-x86_64")?))
    }

    /// What it says, line by line; the channel ends with it.
    fn lines(&mut self) -> Result<Receiver<String>> {
        let stdout = self.0.stdout.take().context("qemu's output")?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    /// Awaits the machine's own end, or ends it.
    fn end(&mut self, orderly: bool) -> Result<()> {
        if !orderly {
            self.0.kill().context("kill qemu")?;
        }
        let status = self.0.wait().context("wait for qemu")?;
        if orderly && !status.success() {
            bail!("qemu ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // After `end` there is nothing left to kill, and both say so.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Reads a machine's report.
struct Reader<'a> {
    version: &'a str,
    lines: Receiver<String>,
    log: fs::File,
}

impl Reader<'_> {
    /// Follows the report to its end, and until the machine is off.
    fn follow(&mut self, items: &[Item], results: &mut Vec<(String, Counts)>) -> Result<()> {
        let began = Instant::now();
        loop {
            if let Line::Boot(release) = self.next(BOOT, "boot")? {
                println!("       {release}: up after {} s", began.elapsed().as_secs());
                break;
            }
        }
        for item in items {
            let name = format!("{} {}", item.suite.name(), item.name);
            let limit = Duration::from_secs(item.seconds) + GRACE;
            let (counts, seconds, output) = self.item(&name, limit)?;
            let Counts { passed, failed, skipped } = counts;
            let mut text = format!("       {}: {name}: {passed} passed, {failed} failed, {skipped} skipped ({seconds} s)", self.version);
            for line in output.iter().filter(|line| failed > 0 || tells_of_skipping(line)) {
                text.push_str("\n         | ");
                text.push_str(line);
            }
            // In one piece: another machine is speaking too.
            println!("{text}");
            results.push((name, counts));
        }
        while self.next(GRACE, "end its report")? != Line::Done {}
        match self.lines.recv_timeout(GRACE) {
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Ok(line) => bail!("it spoke after its end: {line}"),
            Err(RecvTimeoutError::Timeout) => bail!("it did not power off within {} s", GRACE.as_secs()),
        }
    }

    /// One item, from its first to its last line.
    fn item(&mut self, name: &str, limit: Duration) -> Result<(Counts, u64, Vec<String>)> {
        let late = Instant::now() + limit;
        let mut output = Vec::new();
        loop {
            let left = late.saturating_duration_since(Instant::now());
            match self.next(left, name).with_context(|| format!("its last lines:\n{}", output[output.len().saturating_sub(30)..].join("\n")))? {
                Line::Begin(other) if other != name => bail!("{other:?} began where {name:?} was expected"),
                Line::Text(text) => output.push(text),
                Line::End(status, seconds) => return Ok((Counts::of(&output, status), seconds, output)),
                Line::Done => bail!("the report ended before {name}"),
                Line::Begin(_) | Line::Boot(_) | Line::Other(_) => {}
            }
        }
    }

    fn next(&mut self, within: Duration, what: &str) -> Result<Line> {
        match self.lines.recv_timeout(within) {
            Ok(line) => {
                writeln!(self.log, "{}", line.trim_end_matches('\r')).context("write the log")?;
                Ok(Line::parse(&line))
            }
            Err(RecvTimeoutError::Timeout) => bail!("{what}: the machine said nothing in time"),
            Err(RecvTimeoutError::Disconnected) => bail!("{what}: the machine went off"),
        }
    }
}

/// The last lines of a file.
fn tail(path: &PathBuf, count: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
