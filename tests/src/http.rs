//! Exchanges through the router, taken apart.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::Platform;

/// A whole response.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body, without chunk marks.
    pub body: String,
}

impl Response {
    /// Reads one from its status line to the end of the connection.
    ///
    /// # Errors
    /// When it is no HTTP.
    pub fn read(mut from: impl BufRead) -> Result<Self> {
        let head = head(&mut from)?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).with_context(|| format!("no status: {head}"))?;
        let mut body = Vec::new();
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            while let Some(chunk) = chunk(&mut from)? {
                body.extend(chunk);
            }
        } else {
            from.read_to_end(&mut body)?;
        }
        Ok(Self { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// Everything up to the empty line.
///
/// # Errors
/// When the connection ends before it.
pub fn head(from: &mut impl BufRead) -> Result<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        ensure!(from.read_line(&mut head)? > 0, "the answer ended in its head: {head:?}");
        if head[before..].trim().is_empty() {
            return Ok(head);
        }
    }
}

/// The next chunk of a chunked body; None after the last (RFC 9112, section 7.1).
///
/// # Errors
/// When it is no chunk.
pub fn chunk(from: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let size = usize::from_str_radix(line.trim(), 16).with_context(|| format!("chunk size {line:?}"))?;
    let mut data = vec![0; size + 2];
    from.read_exact(&mut data)?;
    data.truncate(size);
    Ok((size > 0).then_some(data))
}

impl Platform {
    /// Sends `GET path` with further header lines (each with its CRLF) to an app; the answer is to be read.
    ///
    /// # Errors
    /// When the router cannot be reached.
    pub fn dial(&self, app: &str, path: &str, headers: &str) -> Result<BufReader<TcpStream>> {
        let client = self.client()?;
        let router = client["router"].as_str().context("router")?.trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&router).with_context(|| format!("connect to the router at {router}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(90)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {app}.localhost\r\n{headers}\r\n")?;
        Ok(BufReader::new(stream))
    }

    /// One exchange.
    ///
    /// # Errors
    /// As [`Self::dial`], or when the answer is no HTTP.
    pub fn fetch(&self, app: &str, path: &str) -> Result<Response> {
        Response::read(self.dial(app, path, "Connection: close\r\n")?)
    }

    /// One exchange that must end with status 200; its body.
    ///
    /// # Errors
    /// With the whole answer, when it has another status.
    pub fn page(&self, app: &str, path: &str) -> Result<String> {
        let response = self.fetch(app, path)?;
        ensure!(response.status == 200, "GET {path} of {app}: {}{}", response.head, response.body);
        Ok(response.body)
    }
}
