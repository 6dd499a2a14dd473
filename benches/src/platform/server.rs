//! The server that is deployed and its client: the least that speaks HTTP.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{tiny, until};
use tempfile::TempDir;

const SOURCE: &str = include_str!("../../programs/server.c");

/// The compiled program.
pub struct Server(PathBuf);

/// It runs on the host, past the platform.
pub struct Running {
    child: Child,
    address: String,
}

/// One connection.
pub struct Client(TcpStream);

impl Server {
    /// Compiles it, static, into `dir`.
    ///
    /// # Errors
    /// What the compiler said.
    pub fn compile(dir: &Path) -> Result<Self> {
        let (source, program) = (dir.join("server.c"), dir.join("server"));
        fs::write(&source, SOURCE)?;
        let output = Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).arg(&source).output().context("run cc")?;
        ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self(program))
    }

    /// An app of it. The shell that starts it notes the time at which it is at work.
    ///
    /// # Errors
    /// Of writing it.
    pub fn app(&self, procfile: &str) -> Result<TempDir> {
        let dir = tiny(procfile, &[(".profile.d/0.sh", "export BOOT_AT=$EPOCHREALTIME\n")])?;
        fs::copy(&self.0, dir.path().join("server"))?;
        Ok(dir)
    }

    /// Runs it on the host.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn run(&self) -> Result<Running> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let port = address.rsplit(':').next().unwrap_or_default();
        let child = Command::new(&self.0).env("PORT", port).stdin(Stdio::null()).spawn()?;
        let running = Running { child, address };
        until(10, "the server listens", || Ok(TcpStream::connect(&running.address).ok()))?;
        Ok(running)
    }
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It is ours and not yet waited for.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

impl Client {
    /// A new connection.
    ///
    /// # Errors
    /// Of connect(2).
    pub fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// One exchange; the body of the answer.
    ///
    /// # Errors
    /// Of any answer but 200 with a length.
    pub fn ask(&mut self, host: &str) -> Result<String> {
        self.0.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let n = self.0.read(&mut buffer)?;
            ensure!(n > 0, "the connection ended: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..n]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            ensure!(head.starts_with("HTTP/1.1 200 "), "{text}");
            let field = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().to_owned()));
            if body.len() >= field.context("no length")?.parse()? {
                return Ok(body.to_owned());
            }
        }
    }
}
