//! What must hold of what a build's clients say to the way out.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, mpsc},
};

use super::{HEAD, Names, Policy, Proxy};
use crate::{fuzzing::one_line, model::Egress};

/// Nobody is let out here: every answer is an answer to a request, whole and with one line of reason, and every request that names a
/// host is on record as refused.
pub(crate) fn requests(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (answers, records) = runtime.block_on(converse(bytes));
    let mut rest = &answers[..];
    let mut refused = 0;
    while !rest.is_empty() {
        let (status, length) = answer(rest);
        refused += usize::from(status == 403);
        rest = &rest[length..];
    }
    assert_eq!(records.len(), refused, "{records:?}");
    for record in records {
        assert!(!record.allowed && record.host.chars().count() <= 256, "{record:?}");
        one_line(&record.reason.expect("why it was refused"));
    }
}

async fn converse(bytes: &[u8]) -> (Vec<u8>, Vec<super::Request>) {
    let (ours, theirs) = tokio::io::duplex(4 * HEAD + bytes.len());
    let (record, mut records) = mpsc::unbounded_channel();
    let policy = Policy { egress: Egress::Registries, hosts: Vec::new(), allow_private: false };
    let place = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("a place");
    let proxy = Proxy {
        policy: Arc::new(policy),
        names: Arc::new(Names::default()),
        record,
        cancel: tokio_util::sync::CancellationToken::new(),
        tasks: tokio_util::task::TaskTracker::new(),
        place: Arc::new(place),
    };
    let client = async {
        let (mut read, mut write) = tokio::io::split(theirs);
        let mut answers = Vec::new();
        let ask = async {
            // An answer may end the connection before all was asked.
            drop(write.write_all(bytes).await);
            drop(write.shutdown().await);
        };
        let (_, read) = tokio::join!(ask, read.read_to_end(&mut answers));
        read.expect("an end");
        answers
    };
    let (answers, ()) = tokio::join!(client, proxy.converse(ours));
    let mut all = Vec::new();
    while let Ok(record) = records.try_recv() {
        all.push(record);
    }
    (answers, all)
}

/// Status and length of the answer that `bytes` begin with.
fn answer(bytes: &[u8]) -> (u16, usize) {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(head)) = response.parse(bytes) else { panic!("no answer: {}", bytes.escape_ascii()) };
    assert!(response.headers.len() <= 5, "fields that nobody wrote: {}", bytes.escape_ascii());
    let status = response.code.expect("a status");
    assert!(matches!(status, 400 | 403 | 414 | 431), "{status}: {}", bytes.escape_ascii());
    let length = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok()).unwrap_or(0);
    // A HEAD has the length of what it does not have.
    let there = bytes.len() - head;
    let is_next = [&b"HTTP/1.1 "[..], b"HTTP/1.0 "].iter().any(|version| bytes[head..].starts_with(version));
    (status, head + if is_next { 0 } else { length.min(there) })
}

/// A name that passes is none that the C library takes for an address, is on the list or the port of the web, and the addresses to connect
/// to are public.
pub(crate) fn policy(bytes: &[u8]) {
    let Some((head, host)) = bytes.split_first_chunk::<20>() else { return };
    let Ok(host) = std::str::from_utf8(host) else { return };
    let port = u16::from_be_bytes([head[1], head[2]]);
    let hosts = ["registry.example", ".mirror.example", "inner.example:3141"].map(str::to_owned).to_vec();
    let egress = [Egress::None, Egress::Registries, Egress::Open][usize::from(head[0] % 3)];
    let policy = Policy { egress, hosts, allow_private: false };
    let to = match policy.check(host, port) {
        Ok(to) => to,
        Err(denied) => return one_line(&denied.0),
    };
    assert!(egress != Egress::None && !c_literal(&to.host) && to.host.parse::<IpAddr>().is_err(), "{to:?}");
    assert!(to.host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)), "{to:?}");
    let listed = match port {
        80 | 443 => to.host == "registry.example" || to.host.ends_with(".mirror.example"),
        3141 => to.host == "inner.example",
        _ => false,
    };
    assert!(listed || egress == Egress::Open && matches!(port, 80 | 443), "{to:?}");
    let mut octets = [0; 16];
    octets.copy_from_slice(&head[4..]);
    let v4 = Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]);
    let found = [IpAddr::from(Ipv6Addr::from(octets)), v4.into(), v4.to_ipv6_mapped().into()].map(|ip| SocketAddr::new(ip, port));
    for address in policy.reachable(&to, found.to_vec()).unwrap_or_default() {
        let (ip, v6) = (address.ip().to_canonical(), address.is_ipv6());
        assert!(!ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast(), "{ip}");
        match ip {
            IpAddr::V4(ip) => assert!(!ip.is_private() && !ip.is_link_local() && !ip.is_broadcast() && !ip.is_documentation(), "{ip} ({v6})"),
            IpAddr::V6(ip) => assert!(!ip.is_unique_local() && !ip.is_unicast_link_local(), "{ip}"),
        }
    }
}

/// What inet_aton(3) takes: one to four numbers, decimal, octal or hexadecimal.
fn c_literal(host: &str) -> bool {
    let number = |part: &str| match part.strip_prefix("0x") {
        Some(hex) => !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()),
    };
    host.split('.').count() <= 4 && host.split('.').all(number)
}
