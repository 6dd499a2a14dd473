//! As much of D-Bus as it takes to ask systemd (dbus-specification.html, 0.43): a call, its answer, and the signals between them.
//!
//! systemd's own socket is asked where it is ours to open: no broker is needed there. Else the broker's.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use crate::error::{Context, Error, ErrorKind, Result};

/// How long systemd may take; what runc gives it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nothing that we ask for is answered at such length.
const LONGEST: usize = 16 << 20;

const CALL: u8 = 1;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A value with its type, as systemd's properties have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
    Pids(Vec<u32>),
    Bytes(Vec<u8>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
}

/// Bytes in little-endian order, aligned from their own start.
#[derive(Debug, Default)]
pub(super) struct Out(Vec<u8>);

impl Out {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub fn byte(&mut self, n: u8) {
        self.0.push(n);
    }

    pub fn word(&mut self, n: u32) {
        self.align(4);
        self.0.extend(n.to_le_bytes());
    }

    fn long(&mut self, n: u64) {
        self.align(8);
        self.0.extend(n.to_le_bytes());
    }

    #[allow(clippy::cast_possible_truncation, reason = "far below LONGEST")]
    pub fn text(&mut self, text: &str) {
        self.word(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    #[allow(clippy::cast_possible_truncation, reason = "our own signatures")]
    fn signature(&mut self, text: &str) {
        self.byte(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array whose elements are aligned to `align`.
    #[allow(clippy::cast_possible_truncation, reason = "far below LONGEST")]
    pub fn array(&mut self, align: usize, fill: impl FnOnce(&mut Self)) {
        self.word(0);
        let at = self.0.len() - 4;
        self.align(align);
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    pub fn variant(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Flag(flag) => {
                self.signature("b");
                self.word((*flag).into());
            }
            Value::Number(n) => {
                self.signature("t");
                self.long(*n);
            }
            Value::Pids(pids) => {
                self.signature("au");
                self.array(4, |out| pids.iter().for_each(|pid| out.word(*pid)));
            }
            Value::Bytes(bytes) => {
                self.signature("ay");
                self.array(1, |out| out.0.extend(bytes));
            }
            Value::Pairs(pairs) => {
                self.signature("a(ss)");
                self.array(8, |out| {
                    for (one, other) in pairs {
                        out.align(8);
                        out.text(one);
                        out.text(other);
                    }
                });
            }
        }
    }

    /// `a(sv)`
    pub fn properties(&mut self, properties: &[(&str, Value)]) {
        self.array(8, |out| {
            for (name, value) in properties {
                out.align(8);
                out.text(name);
                out.variant(value);
            }
        });
    }
}

/// Bytes that came, read from their start. None at their end.
struct In<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> In<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn word(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.word()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?.into();
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Some(text)
    }
}

/// What came.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    member: String,
    error: String,
    answers: u32,
    signature: String,
    body: Vec<u8>,
}

impl Message {
    /// The fixed part (16 bytes), the rest of the header, the body.
    fn parse(header: &[u8], body: Vec<u8>) -> Option<Self> {
        let mut fields = In { bytes: header, at: 12 };
        let mut this = Self { kind: *header.get(1)?, body, ..Self::default() };
        let end = fields.word()? as usize + 16;
        while fields.at < end {
            fields.align(8);
            let code = fields.byte()?;
            match fields.signature()?.as_str() {
                "u" => {
                    let number = fields.word()?;
                    if code == REPLY_SERIAL {
                        this.answers = number;
                    }
                }
                "s" | "o" => match (code, fields.text()?) {
                    (MEMBER, text) => this.member = text,
                    (ERROR_NAME, text) => this.error = text,
                    _ => {}
                },
                "g" => this.signature = fields.signature()?,
                _ => return None,
            }
        }
        Some(this)
    }

    /// All texts that its body begins with; numbers are skipped.
    fn texts(&self) -> Vec<String> {
        let mut body = In { bytes: &self.body, at: 0 };
        let mut texts = Vec::new();
        for kind in self.signature.chars() {
            let more = match kind {
                's' | 'o' => body.text().map(|text| texts.push(text)),
                'u' | 'i' => body.word().map(drop),
                _ => None,
            };
            if more.is_none() {
                break;
            }
        }
        texts
    }
}

/// A connection with systemd.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Jobs that came to their end, with their results.
    ended: Vec<(String, String)>,
}

/// systemd itself; a user's own for users. The second is true of a broker's.
fn sockets() -> Vec<(PathBuf, bool)> {
    if super::place::is_privileged() {
        return vec![("/run/systemd/private".into(), false), ("/run/dbus/system_bus_socket".into(), true)];
    }
    let runtime =
        std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from(format!("/run/user/{}", super::place::outer_uid())), PathBuf::from);
    let named = std::env::var("DBUS_SESSION_BUS_ADDRESS").ok();
    let named = named.and_then(|address| Some(address.strip_prefix("unix:path=")?.split([',', ';']).next()?.into()));
    vec![(runtime.join("systemd/private"), false), (named.unwrap_or_else(|| runtime.join("bus")), true)]
}

impl Bus {
    pub fn connect() -> Result<Self> {
        let mut last = None;
        for (path, broker) in sockets() {
            match UnixStream::connect(&path) {
                Ok(stream) => return Self::greet(stream, broker),
                Err(e) => last = Some(Err(e).wall(|| format!("systemd: connect({})", path.display()))),
            }
        }
        last.unwrap_or_else(|| Err(Error::refused(ErrorKind::Wall, "systemd: no socket")))
    }

    /// Who we are the kernel tells; what remains is a formality.
    fn greet(stream: UnixStream, broker: bool) -> Result<Self> {
        let what = || "systemd: authentication".to_owned();
        stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE))).wall(what)?;
        let mut this = Self { stream, serial: 0, ended: Vec::new() };
        let uid = super::place::outer_uid().to_string();
        let hex: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        this.stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes()).wall(what)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") && answer.len() < 512 {
            let mut byte = [0];
            this.stream.read_exact(&mut byte).wall(what)?;
            answer.extend(byte);
        }
        if !answer.starts_with(b"OK ") {
            return Err(Error::refused(ErrorKind::Wall, format!("systemd: authentication: {}", String::from_utf8_lossy(&answer).trim())));
        }
        this.stream.write_all(b"BEGIN\r\n").wall(what)?;
        if broker {
            let dbus = ["org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"];
            this.call(dbus, "Hello", "", |_| {})?;
            this.call(dbus, "AddMatch", "s", |out| out.text("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'"))?;
        }
        Ok(this)
    }

    /// A method of systemd's manager. What it answers with, as far as that is text.
    pub fn manager(&mut self, member: &str, signature: &str, fill: impl FnOnce(&mut Out)) -> Result<Vec<String>> {
        self.call(["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"], member, signature, fill)
    }

    fn call(&mut self, [destination, path, interface]: [&str; 3], member: &str, signature: &str, fill: impl FnOnce(&mut Out)) -> Result<Vec<String>> {
        self.serial += 1;
        let mut body = Out::default();
        fill(&mut body);
        let message = encode(self.serial, [destination, path, interface, member], signature, &body.0);
        self.stream.write_all(&message).wall(|| format!("systemd: {member}"))?;
        loop {
            let answer = self.receive(member)?;
            if answer.answers != self.serial {
                continue;
            }
            return match answer.kind {
                ERROR => Err(Error::refused(ErrorKind::Wall, format!("systemd: {member}: {} ({})", answer.texts().concat(), answer.error))),
                _ => Ok(answer.texts()),
            };
        }
    }

    /// Waits until a job has ended; its result, `done` if all went well.
    pub fn wait(&mut self, job: &str) -> Result<String> {
        loop {
            if let Some(at) = self.ended.iter().position(|(ended, _)| ended == job) {
                return Ok(self.ended.swap_remove(at).1);
            }
            self.receive("JobRemoved")?;
        }
    }

    /// The next message. Ends of jobs are noted.
    fn receive(&mut self, member: &str) -> Result<Message> {
        let broken = || Error::refused(ErrorKind::Wall, format!("systemd: {member}: what it answers is no D-Bus message"));
        let mut header = vec![0u8; 16];
        self.stream.read_exact(&mut header).wall(|| format!("systemd: {member}: no answer"))?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let (body, fields) = (word(4), word(12));
        if header[0] != b'l' || body > LONGEST || fields > LONGEST {
            return Err(broken());
        }
        let mut rest = vec![0u8; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut rest).wall(|| format!("systemd: {member}: no answer"))?;
        let body = rest.split_off(fields.next_multiple_of(8));
        header.extend(rest);
        let message = Message::parse(&header, body).ok_or_else(broken)?;
        if message.kind == SIGNAL && message.member == "JobRemoved" {
            // A number, the job, its unit, its result.
            if let [job, _, result] = &message.texts()[..] {
                self.ended.push((job.clone(), result.clone()));
            }
        }
        Ok(message)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "far below LONGEST")]
fn encode(serial: u32, [destination, path, interface, member]: [&str; 4], signature: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Out::default();
    for byte in [b'l', CALL, 0, 1] {
        out.byte(byte);
    }
    out.word(body.len() as u32);
    out.word(serial);
    out.array(8, |out| {
        for (code, kind, text) in [(PATH, "o", path), (INTERFACE, "s", interface), (MEMBER, "s", member), (DESTINATION, "s", destination)] {
            out.align(8);
            out.byte(code);
            out.signature(kind);
            out.text(text);
        }
        if !signature.is_empty() {
            out.align(8);
            out.byte(SIGNATURE);
            out.signature("g");
            out.signature(signature);
        }
    });
    out.align(8);
    out.0.extend(body);
    out.0
}

/// Any bytes as a message, its header and its body: the texts that come of it are parts of it.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (header, body) = rest.split_at(rest.len().min(usize::from(*length)));
    let Some(message) = Message::parse(header, body.to_vec()) else { return };
    let texts = message.texts();
    assert!(texts.len() <= message.signature.chars().count() && texts.len() <= body.len() / 5, "{message:?}");
    // A byte that is no UTF-8 becomes three.
    assert!(texts.iter().map(String::len).sum::<usize>() <= body.len() * 3 && message.member.len() <= header.len() * 3);
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
