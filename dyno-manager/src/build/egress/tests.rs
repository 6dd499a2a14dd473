//! The proxy over real loopback connections. `localhost` stands for a host of the list: it has a
//! private address, as a mirror inside the house does.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc::{self, UnboundedReceiver},
    task::JoinHandle,
};

use super::*;
use crate::model::Egress;

struct Fixture {
    proxy: SocketAddr,
    cancel: CancellationToken,
    served: JoinHandle<()>,
    records: UnboundedReceiver<Request>,
}

impl Fixture {
    async fn new(egress: Egress, hosts: &[String], allow_private: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let (record, records) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let policy = Policy { egress, hosts: hosts.to_vec(), allow_private };
        let served = tokio::spawn(serve(listener, policy, record, cancel.clone()));
        Self { proxy, cancel, served, records }
    }

    /// A proxy that reaches `localhost` on the port of `upstream`.
    async fn reaching(upstream: &TcpListener) -> Self {
        let port = upstream.local_addr().unwrap().port();
        Self::new(Egress::Registries, &[format!("localhost:{port}")], true).await
    }

    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Sends `request`, reads to the end.
    async fn ask(&self, request: &str) -> String {
        let mut answer = String::new();
        self.send(request).await.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn finish(mut self) -> Vec<Request> {
        self.cancel.cancel();
        self.served.await.unwrap();
        let mut all = Vec::new();
        while let Some(request) = self.records.recv().await {
            all.push(request);
        }
        all
    }
}

async fn upstream() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn connect(host: &str, port: u16) -> String {
    format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n")
}

fn brief(request: &Request) -> (&str, &str, bool, u16, u64, u64) {
    (&request.method, &request.host, request.allowed, request.status, request.bytes_up, request.bytes_down)
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_is_recorded() {
    const SIZE: usize = 24 << 20;
    let (listener, port) = upstream().await;
    let proxy = Fixture::reaching(&listener).await;
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let mut client = proxy.send(&connect("LOCALHOST", port)).await;
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200"));
    let sent: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
    let (mut from, mut to) = client.split();
    let write = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, read) = tokio::join!(write, from.read_to_end(&mut got));
    read.unwrap();
    assert!(got == sent, "{} of {SIZE} bytes came back", got.len());
    echo.await.unwrap();
    let records = proxy.finish().await;
    assert_eq!(records.len(), 1);
    assert_eq!(brief(&records[0]), ("CONNECT", "LOCALHOST", true, 200, SIZE as u64, SIZE as u64));
}

#[tokio::test]
async fn absolute_form_is_passed_on_with_its_own_host_header() {
    let (listener, port) = upstream().await;
    let proxy = Fixture::reaching(&listener).await;
    let origin = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        let answer = "HTTP/1.1 201 Created\r\nContent-Length: 7\r\nKeep-Alive: timeout=5\r\nX-Own: 1\r\n\r\nthe-end";
        stream.write_all(answer.as_bytes()).await.unwrap();
        (head.to_ascii_lowercase(), body)
    });
    let request = format!(
        "POST http://localhost:{port}/simple/x?y=1 HTTP/1.1\r\nHost: evil.test\r\nProxy-Authorization: Basic x\r\n\
         Connection: close, X-Drop\r\nX-Drop: 1\r\nX-Keep: 1\r\nContent-Length: 5\r\n\r\nhello"
    );
    let answer = proxy.ask(&request).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 201 created") && answer.ends_with("\r\n\r\nthe-end"), "{answer}");
    assert!(answer.contains("x-own: 1") && !answer.contains("keep-alive:"), "{answer}");
    let (head, body) = origin.await.unwrap();
    assert_eq!(&body, b"hello");
    assert!(head.starts_with("post /simple/x?y=1 http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: localhost:{port}\r\n")) && head.contains("x-keep: 1"), "{head}");
    for gone in ["evil.test", "proxy-authorization", "x-drop"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    let records = proxy.finish().await;
    assert_eq!(brief(&records[0]), ("POST", "localhost", true, 201, 5, 7));
}

#[tokio::test]
async fn refusals_name_host_and_policy_and_are_recorded() {
    let proxy = Fixture::new(Egress::Registries, &["registry.test".into(), "localhost".into()], false).await;
    let refused = [
        (connect("evil.test", 443), "evil.test:443 is not on"),
        (connect("registry.test", 22), "registry.test:22 is not on"),
        (connect("127.0.0.1", 443), "is an address"),
        (connect("127.1", 443), "is an address"),
        (connect("[::1]", 443), "is an address"),
        // On the list, but it leads into the house.
        (connect("localhost", 443), "localhost:443 has a private address"),
        ("GET http://evil.test/x HTTP/1.1\r\nHost: registry.test\r\nConnection: close\r\n\r\n".into(), "evil.test:80 is not on"),
        ("GET http://registry.test@evil.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(), "evil.test:80 is not on"),
    ];
    for (request, want) in &refused {
        let answer = proxy.ask(request).await;
        let (status, body) = (answer.lines().next().unwrap(), answer.lines().last().unwrap());
        assert!(status.starts_with("HTTP/1.1 403 ") && status.contains(want), "{answer}");
        assert!(body.contains(want) && body.ends_with("(build egress: registries)"), "{answer}");
    }
    let records = proxy.finish().await;
    assert_eq!(records.len(), refused.len());
    for record in records {
        assert!(!record.allowed && record.status == 403 && record.reason.is_some(), "{record:?}");
    }
}

#[tokio::test]
async fn what_is_no_proxy_request_is_answered() {
    let proxy = Fixture::new(Egress::Open, &[], false).await;
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET https://registry.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET ftp://registry.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "CONNECT registry.test HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let answer = proxy.ask(request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
    }
    let large = format!("CONNECT registry.test:443 HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let mut stream = TcpStream::connect(proxy.proxy).await.unwrap();
    // The answer may come, and the connection close, before all of it is sent.
    drop(stream.write_all(large.as_bytes()).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(proxy.finish().await, []);
}

#[tokio::test]
async fn hosts_that_fail_are_told_apart_from_refusals() {
    let (listener, port) = upstream().await;
    let proxy = Fixture::reaching(&listener).await;
    drop(listener);
    let answer = proxy.ask(&connect("localhost", port)).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("cannot be reached"), "{answer}");
    let (listener, port) = upstream().await;
    let other = Fixture::reaching(&listener).await;
    let garbage = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(b"220 mail ready\r\n").await
    });
    let answer = other.ask(&format!("GET http://localhost:{port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    garbage.await.unwrap().unwrap();
    for proxy in [proxy, other] {
        let records = proxy.finish().await;
        assert!(records[0].allowed && records[0].status == 502 && records[0].reason.is_some(), "{records:?}");
    }
}

#[tokio::test]
async fn the_end_of_the_build_ends_tunnels_and_keeps_their_record() {
    let (listener, port) = upstream().await;
    let proxy = Fixture::reaching(&listener).await;
    let mut client = proxy.send(&connect("localhost", port)).await;
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200"));
    let (mut host, _) = listener.accept().await.unwrap();
    host.write_all(b"abc").await.unwrap();
    let mut got = [0; 3];
    client.read_exact(&mut got).await.unwrap();
    let records = proxy.finish().await;
    assert_eq!(brief(&records[0]), ("CONNECT", "localhost", true, 200, 0, 3));
    let end = client.read(&mut got).await.map_err(|error| error.kind());
    assert!(matches!(end, Ok(0) | Err(io::ErrorKind::ConnectionReset)), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_ends_only_when_it_is_quiet_both_ways() {
    let (record, mut records) = mpsc::unbounded_channel();
    let meter = Meter::new("CONNECT", "x", 443, record);
    let (build, _build_end) = tokio::io::duplex(64);
    let (host, mut host_end) = tokio::io::duplex(64);
    let started = tokio::time::Instant::now();
    // A download: the build says nothing for much longer than the limit.
    let feed = async {
        for _ in 0..20 {
            tokio::time::sleep(IDLE_TIME / 2).await;
            host_end.write_all(b"x").await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    let joined = tokio::select! {
        joined = tunnel::join(build, host, &meter, IDLE_TIME) => joined,
        () = feed => unreachable!(),
    };
    assert_eq!(joined.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(started.elapsed() > 10 * IDLE_TIME);
    drop(meter);
    assert_eq!(records.recv().await.unwrap().bytes_down, 20);
}

#[tokio::test]
async fn no_more_than_the_limit_of_connections_is_served() {
    let (listener, port) = upstream().await;
    let proxy = Fixture::reaching(&listener).await;
    let mut tunnels = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = proxy.send(&connect("localhost", port)).await;
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200"));
        tunnels.push((client, listener.accept().await.unwrap()));
    }
    let mut waiting = proxy.send(&connect("localhost", port)).await;
    let early = timeout(Duration::from_millis(100), waiting.read_u8()).await;
    assert!(early.is_err(), "served beyond the limit");
    drop(tunnels.pop());
    assert!(read_head(&mut waiting).await.starts_with("HTTP/1.1 200"));
    assert_eq!(proxy.finish().await.len(), CONNECTIONS + 1);
}

#[test]
fn targets_are_written_as_paths() {
    for (target, want) in [("http://a.test", "/"), ("http://a.test?x", "/?x"), ("http://a.test#y", "/"), ("http://a.test/b?c#d", "/b?c")] {
        assert_eq!(origin_form(&target.parse().unwrap()).unwrap().to_string(), want, "{target}");
    }
}
