//! What each sample app does beyond the others.

use std::{
    io::{BufRead, Read, Write},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, http};

/// Pages with a status of their own, and more data than one buffer holds.
pub fn flask(platform: &Platform, app: &str) -> Result<()> {
    let missing = platform.fetch(app, "/env/NO_SUCH_THING")?;
    ensure!(missing.status == 404 && missing.body == "not set\n", "{missing:?}");
    ensure!(platform.page(app, "/env/HOME")? == "/app\n");
    let big = platform.page(app, "/big?n=2048")?;
    ensure!(big.len() == 2048 << 10, "{} bytes", big.len());
    Ok(())
}

/// Streams line by line, echoes over a WebSocket, and stops in an orderly way.
pub fn express(platform: &Platform, app: &str) -> Result<()> {
    streams(platform, app, "/stream?n=3", 3)?;
    websocket(platform, app)?;
    let mut log = platform.tail(app, &["-p", "web.1"])?;
    platform.ok(&["ps:restart", "web.1", "-a", app])?;
    log.until("Stopping all processes with SIGTERM", 10)?;
    log.until("app[web.1]: stopping", 20)?;
    log.until("heroku[web.1]: Process exited with status ", 20)?;
    platform.wait_up(app)
}

/// Streams line by line, too.
pub fn sinatra(platform: &Platform, app: &str) -> Result<()> {
    streams(platform, app, "/stream", 5)?;
    let missing = platform.fetch(app, "/env/NO_SUCH_THING")?;
    ensure!(missing.status == 404 && missing.body == "not set\n", "{missing:?}");
    Ok(())
}

/// Serves files with their type; not what .slugignore names, hidden files or the Procfile's kin.
pub fn static_site(platform: &Platform, app: &str) -> Result<()> {
    let style = platform.fetch(app, "/style.css")?;
    ensure!(style.status == 200 && style.head.to_ascii_lowercase().contains("content-type: text/css"), "{style:?}");
    for hidden in ["/README.md", "/.slugignore", "/.dyno/static/server.py", "/nothing"] {
        ensure!(platform.fetch(app, hidden)?.status == 404, "{hidden} is served");
    }
    let files = platform.ok(&["run", "-a", app, "--no-tty", "ls"])?;
    ensure!(files == "index.html\nstyle.css\n", "the slug holds {files:?}");
    Ok(())
}

/// Three process types, each with its lines in the log; the worker says goodbye.
pub fn multi(platform: &Platform, app: &str) -> Result<()> {
    let mut log = platform.tail(app, &[])?;
    log.until_all(&["app[worker.1]: worker.1 job 2 done", "app[clock.1]: clock.1 tick 1"], 20)?;
    let text = platform.ok(&["ps", "-a", app])?;
    for header in ["=== clock (Standard-1X): python clock.py (1)", "=== worker (Standard-1X): python worker.py (1)"] {
        ensure!(text.contains(header), "{text}");
    }
    platform.ok(&["ps:restart", "worker", "-a", app])?;
    log.until("heroku[worker.1]: Stopping all processes with SIGTERM", 10)?;
    log.until("app[worker.1]: worker.1 finished its last job", 20)?;
    log.until("heroku[worker.1]: Process exited with status 0", 20)?;
    platform.wait_up(app)
}

/// The talk's demo: the app, deployed, compiles itself in a one-off dyno.
pub fn compiler(platform: &Platform, app: &str) -> Result<()> {
    let said = platform.try_dyno(&["run", "-a", app, "bin/compile", "."])?;
    ensure!(said.status == 0 && said.stderr.starts_with(&format!("Running bin/compile . on ⬢ {app}... up, run.")), "{said:?}");
    let lines: Vec<_> = said.stdout.lines().collect();
    ensure!(lines[..lines.len().saturating_sub(1)] == ["-----> Compiler app detected", "-----> The compiler compiled itself"], "{said:?}");
    compiled_size(lines.last().unwrap_or(&""))?;
    // Something that is as large as its size says: random bytes do not shrink.
    let script = "mkdir /tmp/app && head -c 3145728 /dev/urandom >/tmp/app/random && bin/compile /tmp/app";
    let large = platform.ok(&["run", "-a", app, script])?;
    let size = compiled_size(large.lines().last().unwrap_or_default())?;
    ensure!(size == 3 << 20, "3 MiB that do not shrink became a slug of {size} bytes: {large}");
    Ok(())
}

/// The size in `-----> Compiled slug is 13M`, in bytes.
fn compiled_size(line: &str) -> Result<u64> {
    let size = line.strip_prefix("-----> Compiled slug is ").with_context(|| format!("last line: {line:?}"))?;
    let unit = if size.ends_with('K') { 1 << 10 } else { 1 << 20 };
    let number: u64 = size.strip_suffix(['K', 'M']).and_then(|n| n.parse().ok()).with_context(|| format!("size {size:?}"))?;
    ensure!(number > 0, "{line}");
    Ok(number * unit)
}

/// `path` sends `lines` lines, one per second: each must come when it is sent, not when all are.
fn streams(platform: &Platform, app: &str, path: &str, lines: usize) -> Result<()> {
    let began = Instant::now();
    let mut answer = platform.dial(app, path, "Connection: close\r\n")?;
    let head = http::head(&mut answer)?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut body = Vec::new();
    let mut first = None;
    while let Some(chunk) = http::chunk(&mut answer)? {
        first.get_or_insert_with(|| began.elapsed());
        body.extend(chunk);
    }
    ensure!(body.lines().count() == lines, "{:?}", String::from_utf8_lossy(&body));
    let (first, all) = (first.unwrap_or_default(), began.elapsed());
    ensure!(all > first + Duration::from_millis(1500), "the first line came after {first:?}, the last after {all:?}");
    Ok(())
}

/// Echo over a WebSocket (RFC 6455): handshake, text, binary, close.
fn websocket(platform: &Platform, app: &str) -> Result<()> {
    // Key and answer of RFC 6455, section 1.3.
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut answer = platform.dial(app, "/ws", handshake)?;
    let head = http::head(&mut answer)?;
    ensure!(head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    for (opcode, payload) in [(1_u8, b"hello".as_slice()), (2, &[0, 255, 1]), (1, b"again")] {
        answer.get_mut().write_all(&frame(opcode, payload)?)?;
        let mut echo = vec![0; 2 + payload.len()];
        answer.read_exact(&mut echo)?;
        ensure!(echo[0] == 0x80 | opcode && usize::from(echo[1]) == payload.len() && echo[2..] == *payload, "echo: {echo:?}");
    }
    // Status 1000, "normal closure"; the other side answers with the same and closes.
    answer.get_mut().write_all(&frame(8, &1000_u16.to_be_bytes())?)?;
    let mut rest = Vec::new();
    answer.read_to_end(&mut rest)?;
    ensure!(rest == [0x88, 2, 0x03, 0xe8], "goodbye: {rest:?}");
    Ok(())
}

/// One frame from a client: final, masked with zeros.
fn frame(opcode: u8, payload: &[u8]) -> Result<Vec<u8>> {
    let length = u8::try_from(payload.len()).ok().filter(|n| *n < 126).context("a short payload")?;
    Ok([&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat())
}
