//! The proxy of one build, the file of its requests, and what the build's output says of refusals.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    os::fd::OwnedFd,
    path::Path,
};

use tokio::{
    net::TcpListener,
    sync::mpsc::{self, UnboundedReceiver},
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    egress::{self, Policy, Request},
    output::Output,
};

/// Lines kept in the file, and reasons kept apart.
const MAX_REQUESTS: usize = 10_000;
/// Refusals named in the output.
const MAX_NAMED: usize = 5;

/// The way out of a running build; it closes when this is dropped.
pub(super) struct Registries {
    cancel: DropGuard,
    served: JoinHandle<()>,
    recorded: JoinHandle<Refusals>,
}

/// How often each reason was given.
type Refusals = BTreeMap<String, usize>;

impl Registries {
    /// Serves on `listener`, a socket of the dyno's own network namespace.
    pub(super) fn open(listener: OwnedFd, policy: Policy, record: &Path) -> io::Result<Self> {
        let listener = std::net::TcpListener::from(listener);
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let file = BufWriter::new(File::create(record)?);
        let (send, requests) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        Ok(Self {
            served: tokio::spawn(egress::serve(listener, policy, send, cancel.clone())),
            recorded: spawn_blocking(move || keep(file, requests)),
            cancel: cancel.drop_guard(),
        })
    }

    /// Ends what is still open and says what was refused.
    pub(super) async fn close(self, output: &Output) {
        drop(self.cancel);
        let (_, refusals) = tokio::join!(self.served, self.recorded);
        let refusals = refusals.unwrap_or_default();
        for (reason, times) in refusals.iter().take(MAX_NAMED) {
            let times = if *times > 1 { format!(" ({times} requests)") } else { String::new() };
            output.line(&format!(" !     {reason}{times}")).await;
        }
        if refusals.len() > MAX_NAMED {
            output.line(&format!(" !     {} more hosts were refused", refusals.len() - MAX_NAMED)).await;
        }
    }
}

fn keep(mut file: impl Write, mut requests: UnboundedReceiver<Request>) -> Refusals {
    let mut refusals = Refusals::new();
    let mut seen = 0;
    let mut written = Ok(());
    while let Some(request) = requests.blocking_recv() {
        seen += 1;
        if seen <= MAX_REQUESTS && written.is_ok() {
            written = serde_json::to_writer(&mut file, &request).map_err(io::Error::from).and_then(|()| file.write_all(b"\n"));
        }
        let Some(reason) = request.reason.filter(|_| !request.allowed) else { continue };
        if refusals.len() < MAX_REQUESTS || refusals.contains_key(&reason) {
            *refusals.entry(reason).or_default() += 1;
        }
    }
    if let Err(error) = written.and_then(|()| file.flush()) {
        tracing::warn!(%error, "recording the requests of a build");
    }
    refusals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_lines_and_refusals_are_counted() {
        let (send, requests) = mpsc::unbounded_channel();
        let request = |host: &str, reason: Option<&str>| Request {
            at: jiff::Timestamp::UNIX_EPOCH,
            method: "CONNECT".into(),
            host: host.into(),
            port: 443,
            allowed: reason.is_none(),
            reason: reason.map(str::to_owned),
            bytes_up: 1,
            bytes_down: 2,
            status: 200,
        };
        for (host, reason) in [("a", None), ("b", Some("no b")), ("b", Some("no b"))] {
            send.send(request(host, reason)).unwrap();
        }
        for _ in 0..MAX_REQUESTS {
            send.send(request("c", None)).unwrap();
        }
        drop(send);
        let mut file = Vec::new();
        assert_eq!(keep(&mut file, requests), Refusals::from([("no b".to_owned(), 2)]));
        let text = String::from_utf8(file).unwrap();
        assert_eq!(text.lines().count(), MAX_REQUESTS);
        let first = r#"{"at":"1970-01-01T00:00:00Z","method":"CONNECT","host":"a","port":443,"allowed":true,"reason":null,"bytes_up":1,"bytes_down":2,"status":200}"#;
        assert_eq!(text.lines().next(), Some(first));
    }
}
