//! Each way in which the standard streams can go.

pub(crate) mod support;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Dyno, ExitRecord, Stdio, Stream, Streams, log};
use rustix::event::{PollFd, PollFlags, poll};

use support::{Case, Stage, read_all, same};

pub(crate) const CASES: &[Case] = &[
    ("null", null),
    ("inherit", inherit),
    ("pipes", pipes),
    ("files_and_mixtures", files_and_mixtures),
    ("terminal", terminal),
    ("terminal_resize", terminal_resize),
    ("log_records", log_records),
    ("log_counts_what_nobody_reads", log_counts_what_nobody_reads),
    ("log_counts_what_a_late_reader_missed", log_counts_what_a_late_reader_missed),
    ("log_second_reader", log_second_reader),
];

fn main() -> ExitCode {
    support::suite("streams", &[], CASES)
}

fn null(stage: &Stage) -> Result<()> {
    let mut dyno = stage.start(&stage.sandbox(&["copy"]), Stdio::Null)?;
    ensure!(matches!(dyno.take_streams(), Streams::None));
    same("reads the end of file at once", dyno.wait()?.status, 0)?;
    ensure!(dyno.open_log().is_err(), "a log without Stdio::Log");
    Ok(dyno.free()?)
}

/// The caller's own streams, here those of this test run by itself.
fn inherit(stage: &Stage) -> Result<()> {
    let path = stage.work().join("inherited");
    let saved = rustix::io::dup(std::io::stdout())?;
    let file = File::create(&path)?;
    rustix::stdio::dup2_stdout(&file)?;
    let started = stage.start(&stage.sandbox(&["say", "to", "the", "caller's"]), Stdio::Inherit);
    rustix::stdio::dup2_stdout(&saved)?;
    let dyno = started?;
    same("status", dyno.wait()?.status, 0)?;
    dyno.free()?;
    same("what it wrote", std::fs::read_to_string(path)?, "to the caller's\n".into())
}

fn pipes(stage: &Stage) -> Result<()> {
    let mut dyno = stage.start(&stage.sandbox(&["copy"]), Stdio::Pipes)?;
    let Streams::Pipes { stdin, stdout, stderr } = dyno.take_streams() else { bail!("no pipes") };
    ensure!(matches!(dyno.take_streams(), Streams::None), "streams are taken once");
    File::from(stdin).write_all(b"there and back")?; // and closed: its end of file
    same("stdout", read_all(stdout)?, "there and back".into())?;
    same("stderr", read_all(stderr)?, String::new())?;
    same("status", dyno.wait()?.status, 0)?;
    dyno.free()?;
    let mut dyno = stage.start(&stage.sandbox(&["warn", "careful"]), Stdio::Pipes)?;
    let Streams::Pipes { stderr, .. } = dyno.take_streams() else { bail!("no pipes") };
    same("stderr", read_all(stderr)?, "careful\n".into())?;
    dyno.free()?;
    let mut reopened = stage.start(&stage.sandbox(&["write", "/dev/stdout", "by name"]), Stdio::Pipes)?;
    let Streams::Pipes { stdout, .. } = reopened.take_streams() else { bail!("no pipes") };
    same("/dev/stdout", read_all(stdout)?, "by name".into())?;
    Ok(reopened.free()?)
}

fn files_and_mixtures(stage: &Stage) -> Result<()> {
    let (input, output) = (stage.work().join("input"), stage.work().join("output"));
    std::fs::write(&input, "from a file")?;
    let stdio =
        Stdio::Each { stdin: Stream::File(File::open(&input)?.into()), stdout: Stream::File(File::create(&output)?.into()), stderr: Stream::Pipe };
    let mut dyno = stage.start(&stage.sandbox(&["copy"]), stdio)?;
    let Streams::Each { stdin: None, stdout: None, stderr: Some(stderr) } = dyno.take_streams() else { bail!("other ends") };
    same("status", dyno.wait()?.status, 0)?;
    same("file", std::fs::read_to_string(&output)?, "from a file".into())?;
    same("the one pipe", read_all(stderr)?, String::new())?;
    dyno.free()?;
    // What may only be read cannot be written inside.
    let stdio = Stdio::Each { stdin: Stream::Null, stdout: Stream::File(File::open(&input)?.into()), stderr: Stream::Null };
    let dyno = stage.start(&stage.sandbox(&["write", "/dev/stdout", "x"]), stdio)?;
    ensure!(dyno.wait()?.status != 0, "it wrote");
    dyno.free()?;
    same("the input is as it was", std::fs::read_to_string(&input)?, "from a file".into())
}

fn start_terminal(stage: &Stage, args: &[&str]) -> Result<(Dyno, OwnedFd)> {
    let mut dyno = stage.start(&stage.sandbox(args), Stdio::Tty { rows: 33, cols: 101 })?;
    let Streams::Tty(master) = dyno.take_streams() else { bail!("no terminal") };
    Ok((dyno, master))
}

fn terminal(stage: &Stage) -> Result<()> {
    let (dyno, master) = start_terminal(stage, &["terminal"])?;
    let size = rustix::termios::tcgetwinsize(&master)?;
    same("size", (size.ws_row, size.ws_col), (33, 101))?;
    rustix::io::write(&master, b"echo this\n")?;
    let text = read_all(master)?;
    // The echo of what was typed may come before or after the first line.
    for line in ["true true true\r\n", "echo this\r\n", "ECHO THIS\r\n"] {
        ensure!(text.contains(line), "{line:?} is not in {text:?}");
    }
    same("status", dyno.wait()?.status, 0)?;
    dyno.free()?;
    let (dyno, master) = start_terminal(stage, &["list", "/dev/pts"])?;
    same("its own devpts holds it", read_all(master)?, "0 ptmx\r\n".into())?;
    Ok(dyno.free()?)
}

/// The kernel's own way: the size is set on the master, and the line discipline turns ^C into SIGINT for the program.
fn terminal_resize(stage: &Stage) -> Result<()> {
    let (dyno, master) = start_terminal(stage, &["forever"])?;
    let mut here = [0; 6];
    File::from(master.try_clone()?).read_exact(&mut here)?;
    let mut size = rustix::termios::tcgetwinsize(&master)?;
    size.ws_row = 7;
    rustix::termios::tcsetwinsize(&master, size)?;
    same("rows", rustix::termios::tcgetwinsize(&master)?.ws_row, 7)?;
    rustix::io::write(&master, b"\x03")?;
    let exit = dyno.wait()?;
    same("ended by ^C", (exit.status, exit.signal), (130, Some(libc::SIGINT)))?;
    Ok(dyno.free()?)
}

/// One record of the log.
#[derive(Debug)]
struct Record {
    kind: u8,
    stream: u8,
    dropped: u32,
    time: u64,
    text: String,
}

/// All records up to the end of file.
fn records(fd: &OwnedFd) -> Result<Vec<Record>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 65536];
    loop {
        poll(&mut [PollFd::new(fd, PollFlags::IN)], None)?;
        match rustix::io::read(fd, &mut chunk) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(rustix::io::Errno::AGAIN) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let mut records = Vec::new();
    let mut left = bytes.as_slice();
    while !left.is_empty() {
        let (header, rest) = left.split_at_checked(log::HEADER).context("half a header")?;
        ensure!(header[..4] == log::MAGIC, "no magic: {header:?}");
        let length = usize::from(u16::from_le_bytes([header[6], header[7]]));
        ensure!(length <= log::MAX_PAYLOAD);
        let (payload, rest) = rest.split_at_checked(length).context("half a payload")?;
        records.push(Record {
            kind: header[4],
            stream: header[5],
            dropped: u32::from_le_bytes(header[8..12].try_into()?),
            time: u64::from_le_bytes(header[16..24].try_into()?),
            text: String::from_utf8(payload.to_vec())?,
        });
        left = rest;
    }
    Ok(records)
}

fn now_us() -> Result<u64> {
    Ok(u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_micros())?)
}

fn log_records(stage: &Stage) -> Result<()> {
    let began = now_us()?;
    let mut streams = BTreeMap::new();
    for (args, stream) in [(["say", "out"], 1), (["warn", "err"], 2)] {
        let mut dyno = stage.start(&stage.sandbox(&args), Stdio::Log)?;
        let Streams::Log(fd) = dyno.take_streams() else { bail!("no log") };
        same("status", dyno.wait()?.status, 0)?;
        let records = records(&fd)?;
        for record in &records {
            same("kind and stream", (record.kind, record.stream, record.dropped), (log::OUTPUT, stream, 0))?;
            ensure!((began..=now_us()?).contains(&record.time), "{record:?}");
        }
        streams.insert(stream, records.iter().map(|r| r.text.as_str()).collect::<String>());
        dyno.free()?;
    }
    same("texts", streams, BTreeMap::from([(1, "out\n".to_owned()), (2, "err\n".to_owned())]))
}

/// The program never waits for a reader; what did not fit is counted line by line.
fn log_counts_what_nobody_reads(stage: &Stage) -> Result<()> {
    let mut dyno = stage.start(&stage.sandbox(&["lines", &LINES.to_string()]), Stdio::Log)?;
    let Streams::Log(fd) = dyno.take_streams() else { bail!("no log") };
    // Nothing has been read, and yet it ends.
    let exit = dyno.wait()?;
    let all = records(&fd)?;
    // A count is small and may fit where output does not.
    let text: String = all.iter().take_while(|r| r.kind == log::OUTPUT).map(|r| r.text.as_str()).collect();
    // The last record may end in the middle of a line.
    let text = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for (n, line) in text.lines().enumerate() {
        same("lines kept are the oldest, in order", line, &format!("line {n}"))?;
    }
    ensure!((1000..LINES).contains(&text.lines().count()), "{} lines were kept", text.lines().count());
    same("kept and dropped", counted(&all, &exit), LINES)?;
    Ok(dyno.free()?)
}

const LINES: usize = 100_000;

/// Lines kept and lines said to be lost. Records are cut anywhere: it is the ends of lines that count.
fn counted(all: &[Record], exit: &ExitRecord) -> usize {
    let kept: usize = all.iter().map(|r| r.text.matches('\n').count()).sum();
    let dropped: u32 = all.iter().filter(|r| r.kind == log::DROPPED).map(|r| r.dropped).sum();
    kept + dropped as usize + exit.log_dropped as usize
}

/// The same with a reader that wakes up in the middle.
fn log_counts_what_a_late_reader_missed(stage: &Stage) -> Result<()> {
    let mut dyno = stage.start(&stage.sandbox(&["lines", &LINES.to_string()]), Stdio::Log)?;
    let Streams::Log(fd) = dyno.take_streams() else { bail!("no log") };
    let full = |fd: &OwnedFd| rustix::io::ioctl_fionread(fd).map(|n| n > 200 * 1024);
    while !full(&fd)? && !dyno.has_ended() {
        std::thread::yield_now();
    }
    let all = records(&fd)?;
    same("kept and dropped", counted(&all, &dyno.wait()?), LINES)?;
    Ok(dyno.free()?)
}

fn log_second_reader(stage: &Stage) -> Result<()> {
    let mut dyno = stage.start(&stage.sandbox(&["say", "late"]), Stdio::Log)?;
    let first = dyno.take_streams();
    same("status", dyno.wait()?.status, 0)?;
    // The writer is gone already: the text and its end must show all the same.
    let second = dyno.open_log()?;
    drop(first); // The FIFO and what it holds outlive the first reader.
    same("text", records(&second)?.iter().map(|r| r.text.as_str()).collect::<String>(), "late\n".into())?;
    Ok(dyno.free()?)
}
