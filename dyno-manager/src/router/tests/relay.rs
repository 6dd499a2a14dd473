//! Exchanges that go well: heads, bodies, connections, many dynos.

use std::{convert::Infallible, time::Instant};

use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

use super::*;

#[tokio::test]
async fn an_exchange_is_relayed_and_logged() {
    let place = answers(
        "HTTP/1.1 201 Created\r\nContent-Length: 13\r\nX-App: yes\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\nhello, world!",
        Then::Hang,
    )
    .await;
    let mut bench = Bench::with(Settings::default(), &[place]).await;
    let reply = bench.ask("GET /a\"c?b HTTP/1.1\r\nHost: Shop.localhost:5000\r\n\r\n").await;
    assert_eq!((reply.status(), reply.body.as_str()), (201, "hello, world!"));
    assert_eq!(reply.field("x-app"), Some("yes"));
    assert_eq!(reply.field("via"), Some("1.1 dyno-router"));
    for hop in ["x-hop", "keep-alive", "connection"] {
        assert_eq!(reply.field(hop), None, "{hop} was relayed");
    }
    assert_eq!(
        bench.line().await,
        "at=info method=GET path=\"/a%22c?b\" host=shop.localhost request_id=ID fwd=\"127.0.0.1\" dyno=web.1 \
         connect=Nms service=Nms status=201 bytes=13 protocol=http"
    );
}

/// A dyno on a real HTTP library that answers with the head that it got.
async fn mirror() -> Place {
    dyno(|wire, _| async move {
        let answer = |request: Request<Incoming>| async move {
            let mut text = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
            for (name, value) in request.headers() {
                text += &format!("{name}: {}\n", value.to_str().unwrap());
            }
            Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from(text))))
        };
        let io = TokioIo::new(wire.0.into_inner());
        http1::Builder::new().serve_connection(io, service_fn(answer)).await.ok();
    })
    .await
}

#[tokio::test]
async fn dynos_are_told_where_a_request_came_from() {
    let bench = Bench::with(Settings::default(), &[mirror().await]).await;
    let reply = bench
        .ask(
            "GET http://shop.localhost/x?y HTTP/1.0\r\nHost: ignored\r\nX-Forwarded-For: 9.9.9.9\r\n\
             X-Forwarded-Proto: https\r\nConnection: keep-alive\r\n\r\n",
        )
        .await;
    assert_eq!(reply.body.lines().next(), Some("GET /x?y HTTP/1.1"));
    let port = bench.address.port().to_string();
    for (name, want) in [
        ("host", Some("shop.localhost")),
        ("x-forwarded-for", Some("9.9.9.9, 127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-port", Some(port.as_str())),
        ("via", Some("1.1 dyno-router")),
        ("connection", None),
    ] {
        assert_eq!(field(&reply.body, name), want, "{name}");
    }
    assert!(Uuid::try_parse(field(&reply.body, "x-request-id").unwrap()).is_ok());
    assert!(field(&reply.body, "x-request-start").unwrap().parse::<u64>().is_ok());
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let mut bench = Bench::with(Settings::default(), &[hello().await]).await;
    let mut wire = bench.connect().await;
    for _ in 0..3 {
        wire.send(GET).await;
        assert_eq!(wire.reply().await.body, "hello, 0");
        bench.line().await;
    }
    let post = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n";
    wire.send(post).await;
    assert_eq!(wire.reply().await.body, "hello, 0", "it has just been used, so it is good for a POST");
}

#[tokio::test]
async fn connections_to_a_dyno_close_when_it_leaves_or_they_are_idle() {
    for keep in [Settings::default().keep, Duration::from_millis(50)] {
        let (ended, mut end) = mpsc::unbounded_channel();
        let place = dyno(move |mut wire, _| {
            let ended = ended.clone();
            async move {
                wire.head().await;
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                wire.rest().await;
                ended.send(()).unwrap();
            }
        })
        .await;
        let bench = Bench::with(Settings { keep, ..Settings::default() }, &[place]).await;
        assert_eq!(bench.ask(GET).await.status(), 200);
        if keep == Settings::default().keep {
            assert!(end.try_recv().is_err());
            bench.set(Target::Maintenance);
        }
        timeout(Duration::from_secs(5), end.recv()).await.expect("the connection is still open").unwrap();
    }
}

#[tokio::test]
async fn a_stale_connection_is_replaced_once() {
    // Each connection answers once and closes at the second request: the worst moment.
    let place = dyno(|mut wire, n| async move {
        wire.head().await;
        wire.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhello, {n}")).await;
        wire.head().await;
    })
    .await;
    let mut bench = Bench::with(Settings::default(), &[place]).await;
    for n in 0..3 {
        assert_eq!(bench.ask(GET).await.body, format!("hello, {n}"));
        assert!(bench.line().await.starts_with("at=info"));
    }
    let post = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(bench.ask(post).await.status(), 503, "a request that may have had effects is not sent twice");
    assert!(bench.line().await.contains("code=H13"));
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let place = dyno(|mut wire, _| async move {
        let head = wire.head().await;
        assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        while let size @ 1.. = usize::from_str_radix(wire.text_line().await.trim(), 16).unwrap() {
            let chunk = wire.exactly(size).await.to_uppercase();
            wire.text_line().await;
            wire.send(&format!("{size:x}\r\n{chunk}\r\n")).await;
        }
        wire.send("0\r\n\r\n").await;
    })
    .await;
    let mut bench = Bench::with(Settings::default(), &[place]).await;
    let mut wire = bench.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    for word in ["one", "four"] {
        // Each answer must come before the next piece is sent: nothing waits for a whole body.
        wire.send(&format!("{:x}\r\n{word}\r\n", word.len())).await;
        assert_eq!(wire.text_line().await.trim(), format!("{:x}", word.len()));
        assert_eq!(wire.text_line().await.trim(), word.to_uppercase());
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(wire.text_line().await, "0\r\n");
    assert!(bench.line().await.contains("status=200 bytes=7"));
}

#[tokio::test]
async fn large_bodies_pass_whole() {
    const SIZE: usize = 8 << 20;
    let place = dyno(|mut wire, _| async move {
        wire.head().await;
        let body = wire.exactly(SIZE).await;
        wire.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n{body}")).await;
    })
    .await;
    let mut bench = Bench::with(Settings::default(), &[place]).await;
    let body: String = (0..SIZE).map(|i| char::from(b'a' + (i % 23) as u8)).collect();
    let mut wire = bench.connect().await;
    wire.send(&format!("PUT / HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: {SIZE}\r\n\r\n")).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 100"));
    wire.send(&body).await;
    assert!(wire.reply().await.body == body, "the body changed on its way");
    assert!(bench.line().await.contains(&format!("bytes={SIZE} ")));
}

#[tokio::test]
async fn framing_is_the_routers_own() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let by_end = "HTTP/1.0 200 OK\r\n\r\nabcde";
    let none = "HTTP/1.1 204 No Content\r\n\r\n";
    for (answer, status, body) in [(chunked, 200, "abcde"), (by_end, 200, "abcde"), (none, 204, "")] {
        let mut bench = Bench::with(Settings::default(), &[answers(answer, Then::Close).await]).await;
        let reply = bench.ask(GET).await;
        assert_eq!((reply.status(), reply.body.as_str()), (status, body));
        assert!(bench.line().await.contains(&format!("status={status} bytes={}", body.len())));
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let place = answers("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", Then::Hang).await;
    let mut bench = Bench::with(Settings::default(), &[place]).await;
    let mut wire = bench.connect().await;
    wire.send("HEAD / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").await;
    assert_eq!(field(&wire.head().await, "content-length"), Some("1000"));
    assert_eq!(wire.rest().await, "");
    assert!(bench.line().await.contains("status=200 bytes=0"));
}

#[tokio::test]
async fn requests_wait_for_a_boot() {
    let bench = Bench::new(Settings::default()).await;
    bench.set(Target::Booting);
    let mut wire = bench.connect().await;
    wire.send(GET).await;
    let place = hello().await;
    let (reply, ()) = tokio::join!(wire.reply(), async { bench.up(&[place]) });
    assert_eq!(reply.body, "hello, 0");
}

#[tokio::test]
async fn a_request_wakes_an_app_that_sleeps() {
    let bench = Bench::new(Settings::default()).await;
    bench.set(Target::Asleep);
    let mut wire = bench.connect().await;
    let place = hello().await;
    wire.send(GET).await;
    let wake = async {
        bench.places.dialled.notified().await;
        bench.set(Target::Booting);
        bench.up(&[place]);
    };
    let (reply, ()) = tokio::join!(wire.reply(), wake);
    assert_eq!(reply.body, "hello, 0");
    assert_eq!(*bench.places.woken.lock().unwrap(), [APP_ID]);
}

/// A dyno that writes the head of an answer and its body apart and has Nagle's algorithm on, as most servers do.
#[tokio::test]
async fn an_answer_in_two_pieces_is_not_held_up() {
    let place = dyno(|mut wire, _| async move {
        while !wire.head().await.is_empty() {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
            wire.send("hello").await;
        }
    })
    .await;
    let bench = Bench::with(Settings::default(), &[place]).await;
    let mut wire = bench.connect().await;
    let mut times = Vec::new();
    for _ in 0..20 {
        let from = Instant::now();
        wire.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        assert_eq!(wire.reply().await.body, "hello");
        times.push(from.elapsed());
    }
    times.sort_unstable();
    // The kernel delays an acknowledgement by 40 ms; a busy machine delays few of twenty exchanges as long.
    assert!(times[10] < Duration::from_millis(35), "{times:?}");
}

#[tokio::test]
async fn a_dyno_that_refuses_is_passed_over() {
    let settings = Settings { connect: SHORT, ..Settings::default() };
    let mut bench = Bench::with(settings, &[closed_port(), Place::Nowhere, hello().await]).await;
    for _ in 0..10 {
        assert_eq!(bench.ask(GET).await.status(), 200);
        assert!(bench.line().await.contains("dyno=web.3"));
    }
}

#[tokio::test]
async fn dynos_replaced_under_a_request_do_not_fail_it() {
    let (dialled, place) = (Settings { connect: SHORT, ..Settings::default() }, hello().await);
    for target in [Some(Target::Booting), None] {
        let mut bench = Bench::with(dialled.clone(), &[Place::Nowhere]).await;
        let mut wire = bench.connect().await;
        wire.send(GET).await;
        let replace = async {
            bench.places.dialled.notified().await;
            target.into_iter().for_each(|target| bench.set(target));
            bench.up(&[Place::Nowhere, place]);
        };
        let (reply, ()) = tokio::join!(wire.reply(), replace);
        assert_eq!(reply.status(), 200);
        assert!(bench.line().await.contains("dyno=web.2"));
    }
}

#[tokio::test]
async fn open_exchanges_finish_after_shutdown_is_asked_for() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let place = dyno(move |mut wire, _| {
        let mut gate = gate.clone();
        async move {
            wire.head().await;
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").await;
            gate.wait_for(|go| *go).await.unwrap();
            wire.send("cde").await;
        }
    })
    .await;
    let bench = Bench::with(Settings::default(), &[place]).await;
    let mut wire = bench.connect().await;
    wire.send(GET).await;
    wire.head().await;
    assert_eq!(wire.exactly(2).await, "ab");
    bench.shutdown.cancel();
    go.send(true).unwrap();
    assert_eq!(wire.rest().await, "cde");
    timeout(PATIENCE, bench.serving).await.expect("still serving").unwrap();
    assert!(TcpStream::connect(bench.address).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn silent_connections_do_not_hold_up_a_shutdown() {
    let bench = Bench::with(Settings::default(), &[hello().await]).await;
    let mut silent = bench.connect().await;
    let mut kept = bench.connect().await;
    kept.send(GET).await;
    assert_eq!(kept.reply().await.status(), 200); // so the earlier connection has been accepted too
    bench.shutdown.cancel();
    timeout(Duration::from_secs(5), bench.serving).await.expect("still serving").unwrap();
    assert_eq!((silent.rest().await, kept.rest().await), (String::new(), String::new()));
}

#[tokio::test]
async fn an_early_answer_to_an_upload_reaches_the_client() {
    let no = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    let mut bench = Bench::with(Settings::default(), &[answers(no, Then::Hang).await]).await;
    let mut wire = bench.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 100000000\r\n\r\nabc").await;
    let reply = wire.reply().await;
    assert_eq!((reply.status(), reply.body.as_str()), (413, "no"));
    assert!(bench.line().await.contains("status=413 bytes=2"));
}

#[tokio::test]
async fn targets_are_passed_on_as_they_are() {
    let bench = Bench::with(Settings::default(), &[mirror().await]).await;
    for target in ["*", "/%2e%2e/%00?q=%20&r", "/a//b/../c;d=e?", "/?a=http://b/"] {
        let method = if target == "*" { "OPTIONS" } else { "DELETE" };
        let reply = bench.ask(&format!("{method} {target} HTTP/1.1\r\nHost: shop\r\n\r\n")).await;
        assert_eq!(reply.body.lines().next(), Some(format!("{method} {target} HTTP/1.1").as_str()));
    }
}

#[tokio::test]
async fn many_exchanges_at_once_are_each_answered_and_logged_once() {
    const ALL: usize = 120;
    let mut bench = Bench::with(Settings::default(), &[hello().await, hello().await, hello().await]).await;
    let mut wires = Vec::new();
    for _ in 0..ALL {
        let mut wire = bench.connect().await;
        wire.send(GET).await;
        wires.push(wire);
    }
    for wire in &mut wires {
        assert_eq!(wire.reply().await.status(), 200);
    }
    let mut dynos = std::collections::BTreeSet::new();
    for _ in 0..ALL {
        dynos.insert(bench.line().await.split(' ').find(|word| word.starts_with("dyno=")).unwrap().to_owned());
    }
    assert_eq!(dynos.into_iter().collect::<Vec<_>>(), ["dyno=web.1", "dyno=web.2", "dyno=web.3"]);
    assert!(bench.lines.try_recv().is_err());
    assert_eq!(bench.active(), 0);
}
