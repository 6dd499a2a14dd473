//! The HTTP API without the command line: for requests that it would never send.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Platform;

/// An answer of the API.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its body.
    pub body: String,
}

/// A build that was asked for over the API, at its end.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its record.
    pub record: Value,
    /// Its output.
    pub output: String,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The member `message` of an error.
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Platform {
    /// The operator's token.
    ///
    /// # Errors
    /// When the daemon does not run.
    pub fn token(&self) -> Result<String> {
        Ok(self.client()?["token"].as_str().context("token")?.to_owned())
    }

    /// A request to the API with this `Authorization`. HTTP/1.0, so that the answer comes in one piece and ends with the connection.
    ///
    /// # Errors
    /// When the API cannot be reached or does not speak HTTP.
    pub fn request(&self, authorization: Option<&str>, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let mut stream = self.announced(authorization, method, path, body.len())?;
        // A refusal may come before the body has been read.
        let sent = stream.write_all(body);
        answer(&mut stream).with_context(|| format!("{method} {path}: sent {sent:?}"))
    }

    /// The head of a request whose body of `length` bytes never comes.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn announce(&self, method: &str, path: &str, length: usize) -> Result<Answer> {
        answer(&mut self.announced(None, method, path, length)?).with_context(|| format!("{method} {path}"))
    }

    fn announced(&self, authorization: Option<&str>, method: &str, path: &str, length: usize) -> Result<TcpStream> {
        let client = self.client()?;
        let address = client["url"].as_str().context("url")?.trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&address).with_context(|| format!("connect to the API at {address}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        let authorization = authorization.map(|a| format!("Authorization: {a}\r\n")).unwrap_or_default();
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: {address}\r\n{authorization}Content-Length: {length}\r\n\r\n")?;
        Ok(stream)
    }

    /// A request with the operator's token.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        self.request(Some(&format!("Bearer {}", self.token()?)), method, path, &body)
    }

    /// Uploads `archive` and starts a build of it; the build's record.
    ///
    /// # Errors
    /// When one of the requests is refused.
    pub fn begin_build(&self, app: &str, archive: &[u8]) -> Result<Value> {
        let source = self.call("POST", "/sources", &Value::Null)?.json();
        let put = source["source_blob"]["put_url"].as_str().context("put_url")?.to_owned();
        let path = &put[put.find("/sources/").context("put_url")?..];
        let uploaded = self.request(None, "PUT", path, archive)?;
        ensure!(uploaded.status == 200, "upload: {uploaded:?}");
        let answer = self.call("POST", &format!("/apps/{app}/builds"), &json!({ "source_blob": { "url": put } }))?;
        ensure!(answer.status == 201, "build: {answer:?}");
        Ok(answer.json())
    }

    /// Builds `archive` to its end, good or bad.
    ///
    /// # Errors
    /// As [`Self::begin_build`].
    pub fn build(&self, app: &str, archive: &[u8]) -> Result<Built> {
        let begun = self.begin_build(app, archive)?;
        let path = format!("/apps/{app}/builds/{}", begun["id"].as_str().context("id")?);
        // The output ends with the build.
        let output = self.call("GET", &format!("{path}/output"), &Value::Null)?.body;
        let record = self.call("GET", &path, &Value::Null)?.json();
        Ok(Built { record, output })
    }
}

fn answer(stream: &mut TcpStream) -> Result<Answer> {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.with_context(|| format!("no answer: read {read:?}"))?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok(Answer { status, body })
}
