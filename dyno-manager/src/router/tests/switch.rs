//! Upgraded connections.

use super::*;

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: shop.localhost\r\nConnection: keep-alive, Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";

/// A dyno that agrees to switch and then echoes lines in upper case.
async fn echo() -> Place {
    dyno(|mut wire, _| async move {
        let head = wire.head().await;
        assert_eq!(field(&head, "upgrade"), Some("websocket"));
        assert_eq!(field(&head, "connection"), Some("upgrade"));
        assert_eq!(field(&head, "sec-websocket-key"), Some("k"));
        let accept = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n";
        // The first bytes of the new protocol come in one piece with the head, as they may.
        wire.send(&format!("HTTP/1.1 101 Switching Protocols\r\n{accept}\r\nready\n")).await;
        loop {
            let line = wire.text_line().await;
            if line.is_empty() {
                return;
            }
            wire.send(&line.to_uppercase()).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_websocket_is_spliced_both_ways_until_it_ends() {
    let mut bench = Bench::with(Settings::default(), &[echo().await]).await;
    let mut wire = bench.connect().await;
    wire.send(UPGRADE).await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(field(&head, "sec-websocket-accept"), Some("a"));
    assert_eq!(field(&head, "upgrade"), Some("websocket"));
    assert_eq!(wire.text_line().await, "ready\n");
    for word in ["one\n", "two\n"] {
        wire.send(word).await;
        assert_eq!(wire.text_line().await, word.to_uppercase());
    }
    assert!(bench.lines.try_recv().is_err(), "the line is written at the end");
    wire.0.shutdown().await.unwrap();
    assert_eq!(wire.rest().await, "", "the end is passed on and comes back");
    assert_eq!(
        bench.line().await,
        "at=info method=GET path=\"/ws\" host=shop.localhost request_id=ID fwd=\"127.0.0.1\" dyno=web.1 connect=Nms \
         service=Nms status=101 bytes=14 protocol=http"
    );
}

#[tokio::test]
async fn a_quiet_websocket_ends_with_h15() {
    let mut bench = Bench::with(short_idle(), &[echo().await]).await;
    let mut wire = bench.connect().await;
    wire.send(UPGRADE).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 101"));
    assert_eq!(wire.rest().await, "ready\n");
    let line = bench.line().await;
    assert!(line.starts_with("at=error code=H15 desc=\"Idle connection\"") && line.contains("bytes=6"), "{line}");
}

#[tokio::test]
async fn a_websocket_ends_at_once_when_the_router_does() {
    let mut bench = Bench::with(Settings::default(), &[echo().await]).await;
    let mut wire = bench.connect().await;
    wire.send(UPGRADE).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 101"));
    assert_eq!(wire.text_line().await, "ready\n");
    bench.shutdown.cancel();
    assert_eq!(wire.rest().await, "");
    assert!(bench.line().await.starts_with("at=error code=H24 desc=\"Forced close\""));
    timeout(PATIENCE, bench.serving).await.expect("still serving").unwrap();
}

#[tokio::test]
async fn a_dyno_that_will_not_switch_answers_as_usual() {
    let no = "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno";
    let mut bench = Bench::with(Settings::default(), &[answers(no, Then::Hang).await]).await;
    let reply = bench.ask(UPGRADE).await;
    assert_eq!((reply.status(), reply.body.as_str()), (426, "no"));
    assert!(bench.line().await.contains("status=426 bytes=2"));
}
