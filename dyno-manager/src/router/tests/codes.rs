//! Every H-code: what the client gets and what the log says.

use super::*;

const COMMON: &str = "path=\"/\" host=shop.localhost request_id=ID fwd=\"127.0.0.1\"";

/// The page and the line of one faulty exchange.
async fn check(mut bench: Bench, request: &str, status: u16, line: &str) {
    let reply = bench.ask(request).await;
    assert_eq!(reply.status(), status, "{line}");
    assert_eq!(bench.line().await, line, "{request}");
    assert!(bench.lines.try_recv().is_err(), "one exchange, one line");
}

fn failed(code: &str, desc: &str, rest: &str) -> String {
    format!("at=error code={code} desc=\"{desc}\" method=GET {COMMON} {rest} protocol=http")
}

const NO_DYNO: &str = "dyno= connect= service= status=503 bytes=";
const NO_BYTES: &str = "dyno=web.1 connect=Nms service=Nms status=503 bytes=0";
const NO_SERVICE: &str = "dyno=web.1 connect=Nms service= status=503 bytes=";

#[tokio::test]
async fn targets_without_dynos_h10_h14_h20_h80_h81() {
    for (target, code, desc) in [
        (Target::Crashed, "H10", "App crashed"),
        (Target::NoWeb, "H14", "No web processes running"),
        (Target::Booting, "H20", "App boot timeout"),
        (Target::Maintenance, "H80", "Maintenance mode"),
        (Target::Blank, "H81", "Blank app"),
    ] {
        let bench = Bench::new(Settings { boot: SHORT, ..Settings::default() }).await;
        bench.set(target);
        let mut line = failed(code, desc, NO_DYNO);
        if code.starts_with("H8") {
            line = line.replace("at=error", "at=info");
        }
        check(bench, GET, 503, &line).await;
    }
}

#[tokio::test]
async fn dynos_that_cannot_be_reached_h19_h21() {
    let bench = Bench::with(Settings { connect: SHORT, ..Settings::default() }, &[Place::Nowhere]).await;
    check(bench, GET, 503, &failed("H19", "Backend connection timeout", NO_SERVICE)).await;
    let bench = Bench::with(Settings::default(), &[closed_port()]).await;
    check(bench, GET, 503, &failed("H21", "Backend connection refused", NO_SERVICE)).await;
}

#[tokio::test]
async fn dynos_that_answer_badly_h12_h13_h17() {
    for (answer, then, code, desc) in [
        ("", Then::Hang, "H12", "Request timeout"),
        ("", Then::Close, "H13", "Connection closed without response"),
        ("HTTP/1.1 20", Then::Close, "H13", "Connection closed without response"),
        ("this is no HTTP\r\n\r\n", Then::Close, "H17", "Poorly formatted HTTP response"),
        ("HTTP/1.1 200 OK\r\nbad name: 1\r\n\r\n", Then::Close, "H17", "Poorly formatted HTTP response"),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Then::Close, "H17", "Poorly formatted HTTP response"),
        ("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", Then::Hang, "H17", "Poorly formatted HTTP response"),
    ] {
        let first_byte = if code == "H12" { SHORT } else { PATIENCE };
        let settings = Settings { first_byte, ..Settings::default() };
        let bench = Bench::with(settings, &[answers(answer, then).await]).await;
        check(bench, GET, 503, &failed(code, desc, NO_BYTES)).await;
    }
}

#[tokio::test]
async fn responses_that_break_off_h15_h18() {
    let part = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    for (then, code, desc) in [(Then::Hang, "H15", "Idle connection"), (Then::Close, "H18", "Server Request Interrupted")] {
        let settings = if code == "H15" { short_idle() } else { Settings::default() };
        let mut bench = Bench::with(settings, &[answers(part, then).await]).await;
        let mut wire = bench.connect().await;
        wire.send(GET).await;
        let head = wire.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(wire.rest().await, "abc", "the client must see that the body is cut short");
        let line = failed(code, desc, "dyno=web.1 connect=Nms service=Nms status=503 bytes=3");
        assert_eq!(bench.line().await, if code == "H18" { format!("sock=backend {line}") } else { line });
    }
}

#[tokio::test]
async fn full_dynos_h11() {
    let settings = Settings { active_per_dyno: 1, ..Settings::default() };
    let (entered, mut seen) = mpsc::unbounded_channel();
    let place = dyno(move |mut wire, _| {
        let entered = entered.clone();
        async move {
            wire.head().await;
            entered.send(()).unwrap();
            wire.rest().await;
        }
    })
    .await;
    let bench = Bench::with(settings, &[place]).await;
    let mut first = bench.connect().await;
    first.send(GET).await;
    seen.recv().await.unwrap();
    check(bench, GET, 503, &failed("H11", "Backlog too deep", NO_DYNO)).await;
}

#[tokio::test]
async fn clients_that_leave_h27() {
    let (entered, mut seen) = mpsc::unbounded_channel();
    let place = dyno(move |mut wire, _| {
        let entered = entered.clone();
        async move {
            wire.head().await;
            entered.send(()).unwrap();
            wire.rest().await; // returns when the router lets go of the dyno's connection too
            entered.send(()).unwrap();
        }
    })
    .await;
    let mut bench = Bench::with(Settings::default(), &[place]).await;
    let mut wire = bench.connect().await;
    wire.send(GET).await;
    seen.recv().await.unwrap();
    drop(wire);
    let line = failed("H27", "Client Request Interrupted", &NO_BYTES.replace("503", "499"));
    assert_eq!(bench.line().await, format!("sock=client {}", line.replace("at=error", "at=warning")));
    seen.recv().await.unwrap();
    assert_eq!(bench.active(), 0);
}

#[tokio::test]
async fn clients_that_leave_a_response_or_an_upload_h27() {
    let part = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    let mut bench = Bench::with(Settings::default(), &[answers(part, Then::Hang).await]).await;
    let mut wire = bench.connect().await;
    wire.send(GET).await;
    wire.head().await;
    assert_eq!(wire.exactly(3).await, "abc");
    drop(wire);
    assert!(bench.line().await.contains("code=H27 desc=\"Client Request Interrupted\""));

    let mut bench = Bench::with(Settings::default(), &[answers("", Then::Hang).await]).await;
    let mut wire = bench.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nabc").await;
    drop(wire);
    assert!(bench.line().await.contains("code=H27 desc=\"Client Request Interrupted\""));
}

#[tokio::test]
async fn clients_that_fall_silent_h28() {
    let bench = Bench::with(short_idle(), &[answers("", Then::Hang).await]).await;
    let request = "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 10\r\n\r\nabc";
    let line = failed("H28", "Client Connection Idle", &NO_BYTES.replace("503", "499"));
    check(bench, request, 499, &line.replace("GET", "POST")).await;
}

#[tokio::test]
async fn clients_that_stop_reading_h28() {
    let place = dyno(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\n\r\n").await;
        while wire.0.write_all(&[b'x'; 65536]).await.is_ok() {}
    })
    .await;
    let mut bench = Bench::with(short_idle(), &[place]).await;
    let mut wire = bench.connect().await;
    wire.send(GET).await;
    wire.head().await;
    let line = bench.line().await;
    assert!(line.starts_with("at=error code=H28 desc=\"Client Connection Idle\""), "{line}");
}

#[tokio::test]
async fn exchanges_that_outlast_the_shutdown_h24() {
    let place = answers("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", Then::Hang).await;
    let settings = Settings { drain: SHORT, ..Settings::default() };
    let mut bench = Bench::with(settings, &[place]).await;
    let mut wire = bench.connect().await;
    wire.send(GET).await;
    wire.head().await;
    bench.shutdown.cancel();
    let want = failed("H24", "Forced close", "dyno=web.1 connect=Nms service=Nms status=503 bytes=3");
    assert_eq!(bench.line().await, want);
    timeout(PATIENCE, bench.serving).await.expect("still serving").unwrap();
}

#[tokio::test]
async fn requests_that_are_refused_h26() {
    let long = format!("GET / HTTP/1.1\r\nHost: shop.localhost\r\nCookie: {}\r\n\r\n", "x".repeat(9000));
    let both = "GET / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let order = "GET / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n";
    let connect = "CONNECT shop.localhost:80 HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    let gzip = "GET / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    for (request, status, cause) in [
        (long.as_str(), 431, "request head over 8192 bytes"),
        (both, 400, "both Content-Length and Transfer-Encoding"),
        (order, 400, "both Content-Length and Transfer-Encoding"),
        (gzip, 400, "transfer coding other than chunked"),
        (connect, 400, "CONNECT is for proxies"),
    ] {
        let bench = Bench::with(Settings::default(), &[hello().await]).await;
        let line = failed("H26", &format!("Request Error\" cause=\"{cause}"), &NO_DYNO.replace("503", &status.to_string()));
        let line = if request == connect { line.replace("=GET", "=CONNECT") } else { line };
        check(bench, request, status, &line).await;
    }
}

#[tokio::test]
async fn a_smuggled_second_request_is_refused_too() {
    let bench = Bench::with(Settings::default(), &[hello().await]).await;
    let mut wire = bench.connect().await;
    let bad = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    wire.send(&format!("{GET}{bad}{GET}")).await;
    assert_eq!(wire.reply().await.status(), 200);
    assert_eq!(wire.reply().await.status(), 400);
    assert_eq!(wire.rest().await, "", "the connection must end with the refused request");
}

#[tokio::test]
async fn hosts_without_an_app_are_told_what_to_do() {
    let mut bench = Bench::with(Settings::default(), &[hello().await]).await;
    for (host, status, word) in [
        ("Host: nope.localhost\r\n", 404, "dyno apps:create"),
        ("Host: 127.0.0.1\r\n", 404, "there is no app \"127\""),
        ("", 400, "exactly one valid host"),
        ("Host: shop\r\nHost: other\r\n", 400, "exactly one valid host"),
    ] {
        let reply = bench.ask(&format!("GET / HTTP/1.1\r\n{host}\r\n")).await;
        assert_eq!(reply.status(), status, "{host:?}");
        assert!(reply.body.contains(word), "{}", reply.body);
    }
    bench.table.remove(&app());
    assert_eq!(bench.ask(GET).await.status(), 404);
    assert!(bench.lines.try_recv().is_err(), "no app, no log");
}

#[tokio::test]
async fn pages_carry_the_request_id_and_no_body_to_head() {
    let bench = Bench::new(Settings::default()).await;
    bench.set(Target::Crashed);
    let id = "0123456789-0123456789";
    let fields = format!("Host: shop\r\nX-Request-Id: {id}\r\nAccept: text/html\r\n\r\n");
    let reply = bench.ask(&format!("GET / HTTP/1.1\r\n{fields}")).await;
    assert_eq!(reply.field("x-request-id"), Some(id));
    assert_eq!(reply.field("content-type"), Some("text/html; charset=utf-8"));
    assert!(reply.body.contains("H10: App crashed") && reply.body.contains(id), "{}", reply.body);
    let mut wire = bench.connect().await;
    wire.send(&format!("HEAD / HTTP/1.1\r\nConnection: close\r\n{fields}")).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 503"));
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn requests_that_are_no_http_are_refused_without_an_app() {
    let huge = format!("GET / HTTP/1.1\r\nHost: shop\r\nCookie: {}", "x".repeat(80 << 10));
    let many = format!("GET / HTTP/1.1\r\nHost: shop\r\n{}\r\n", "A: b\r\n".repeat(101));
    let mut bench = Bench::with(Settings::default(), &[hello().await]).await;
    for (request, status) in [
        (huge.as_str(), 431),
        (many.as_str(), 431),
        ("GET / HTTP/1.1\r\nHost : shop\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        ("GET / HTTP/1.1\r\nHost: shop\r\nContent-Length: -1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: shop\r\n A: folded\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1} a TLS hello\r\n\r\n", 400),
    ] {
        assert_eq!(bench.ask(request).await.status(), status, "{:?}", &request[..40.min(request.len())]);
    }
    assert!(bench.lines.try_recv().is_err());
    assert_eq!(bench.ask(GET).await.status(), 200, "the router still serves");
}

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    let bench = Bench::with(Settings { head: SHORT, ..Settings::default() }, &[hello().await]).await;
    let mut wire = bench.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: shop\r\n").await;
    let rest = wire.rest().await;
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
}
