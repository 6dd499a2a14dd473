//! Calls of gRPC over a unix socket, by curl: what a kubelet asks of containerd, without a Go toolchain on the host.
//!
//! Debian 12 has no crictl. The Container Runtime Interface is protocol buffers (encoding: protobuf.dev/programming-guides/encoding), of which
//! these cases need three kinds of field: numbers, bytes, and messages, which are bytes. A message is written and read by field numbers; those
//! are in Kubernetes' `cri-api/pkg/apis/runtime/v1/api.proto`.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::Said;

/// A protocol buffer in the making, or one that came.
#[derive(Debug, Clone, Default)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// With a number in it.
    #[must_use]
    pub fn number(mut self, field: u64, value: u64) -> Self {
        varint(&mut self.bytes, field << 3);
        varint(&mut self.bytes, value);
        self
    }

    /// With a text in it.
    #[must_use]
    pub fn text(mut self, field: u64, value: &str) -> Self {
        self.put(field, value.as_bytes());
        self
    }

    /// With texts in it.
    #[must_use]
    pub fn texts(self, field: u64, values: &[&str]) -> Self {
        values.iter().fold(self, |message, value| message.text(field, value))
    }

    /// With a message in it.
    #[must_use]
    pub fn message(mut self, field: u64, value: &Self) -> Self {
        self.put(field, &value.bytes);
        self
    }

    fn put(&mut self, field: u64, value: &[u8]) {
        varint(&mut self.bytes, field << 3 | 2);
        varint(&mut self.bytes, value.len() as u64);
        self.bytes.extend(value);
    }

    /// The number in `field`; one that is not there is 0.
    ///
    /// # Errors
    /// When these are not the bytes of a message.
    pub fn get_number(&self, field: u64) -> Result<u64> {
        Ok(self.find(field)?.0)
    }

    /// The text in `field`; one that is not there is empty.
    ///
    /// # Errors
    /// When these are not the bytes of a message.
    pub fn get_text(&self, field: u64) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.find(field)?.1).into_owned())
    }

    /// The message in `field`.
    ///
    /// # Errors
    /// When these are not the bytes of a message.
    pub fn get(&self, field: u64) -> Result<Self> {
        Ok(Self { bytes: self.find(field)?.1 })
    }

    fn find(&self, wanted: u64) -> Result<(u64, Vec<u8>)> {
        let mut rest = self.bytes.as_slice();
        let mut found = (0, Vec::new());
        while !rest.is_empty() {
            let key = take_varint(&mut rest)?;
            let value = match key & 7 {
                0 => (take_varint(&mut rest)?, Vec::new()),
                1 => (0, take(&mut rest, 8)?.to_vec()),
                2 => {
                    let length = usize::try_from(take_varint(&mut rest)?)?;
                    (0, take(&mut rest, length)?.to_vec())
                }
                5 => (0, take(&mut rest, 4)?.to_vec()),
                kind => bail!("no field has kind {kind}"),
            };
            if key >> 3 == wanted {
                found = value;
            }
        }
        Ok(found)
    }
}

/// Calls a method, `/package.Service/Method`, of whoever listens on `socket`.
///
/// # Errors
/// What the other side said instead of an answer.
pub fn call(socket: &Path, method: &str, message: &Message) -> Result<Message> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "60", "--http2-prior-knowledge", "--unix-socket"]).arg(socket);
    // Trailers, where gRPC has its status, are written with the headers.
    curl.args(["--header", "content-type: application/grpc", "--header", "te: trailers", "--dump-header", "/dev/stderr", "--data-binary", "@-"]);
    curl.arg(format!("http://localhost{method}")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = curl.spawn().context("curl")?;
    let mut request = vec![0];
    request.extend(u32::try_from(message.bytes.len())?.to_be_bytes());
    request.extend(&message.bytes);
    child.stdin.take().context("stdin")?.write_all(&request)?;
    let output = child.wait_with_output()?;
    let answer = output.stdout.clone();
    let said = Said::of(output)?;
    let header = |name: &str| said.stderr.lines().rev().find_map(|line| line.strip_prefix(name)).map(str::trim);
    ensure!(header("grpc-status:") == Some("0"), "{method}: {}", header("grpc-message:").unwrap_or(&said.stderr));
    ensure!(answer.len() >= 5 && answer[0] == 0, "{method}: no message in {answer:?}");
    Ok(Message { bytes: answer[5..].to_vec() })
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    bail!("a number without an end")
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length).context("the message is cut off")?;
    *rest = after;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() -> Result<()> {
        let inner = Message::default().text(1, "x").number(2, 300);
        let message = Message::default().number(1, u64::MAX).message(3, &inner).texts(9, &["a", "b"]).text(1000, "far");
        assert_eq!(message.get_number(1)?, u64::MAX);
        assert_eq!((message.get(3)?.get_text(1)?, message.get(3)?.get_number(2)?), ("x".to_owned(), 300));
        assert_eq!((message.get_text(1000)?, message.get_text(7)?), ("far".to_owned(), String::new()));
        // The example of the encoding's documentation.
        assert_eq!(Message::default().number(1, 150).bytes, [0x08, 0x96, 0x01]);
        assert!(Message { bytes: vec![0x0a, 5, 1] }.get(1).is_err());
        Ok(())
    }
}
