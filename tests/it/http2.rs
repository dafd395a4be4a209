//! HTTP/2 clients: everything HTTP/1.1 clients get, many at a time, and an end that is said beforehand.

use std::future::Future;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use rustix::process::Signal;

use crate::support::frames::{self, Frames};
use crate::support::{After, Conf, Gate, Instant, LIMIT, Origin, Weir, run, tool, wait_for, wait_until};

/// Runs a client to its end, in time.
#[track_caller]
fn drive<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(2 * LIMIT, client).await.expect("in time") })
}

async fn connect(weir: &Weir) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(weir.web()).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://app.test{path}"))
}

async fn ask(client: &mut SendRequest<Bytes>, request: Request<()>) -> Response<RecvStream> {
    let mut client = client.clone().ready().await.unwrap();
    client.send_request(request, true).unwrap().0.await.unwrap()
}

async fn get(client: &mut SendRequest<Bytes>, path: &str) -> Response<RecvStream> {
    ask(client, request("GET", path).body(()).unwrap()).await
}

/// The whole body; an early end is an error.
async fn body(stream: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        all.extend(data);
    }
    Ok(all)
}

/// Lets the client's own connection go on meanwhile.
async fn until(what: &str, mut ask: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !ask() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn a_request_goes_to_the_origin_as_http_1_and_its_answer_comes_back() {
    let origin = Origin::scripted(|exchange| {
        exchange.answer("200 OK", "Connection: keep-alive, x-own\r\nX-Own: 1\r\nX-Kept: 2\r\n", b"hello")
    });
    let weir = Weir::start(&Conf::one(origin.address));
    drive(async {
        let mut client = connect(&weir).await;
        let crumbs = request("GET", "/a?b=c").header("cookie", "a=1").header("cookie", "b=2");
        let answer = ask(&mut client, crumbs.body(()).unwrap()).await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["x-kept"]), (200, &"2".parse().unwrap()));
        assert_eq!(answer.headers()["content-length"], "5");
        assert!(!answer.headers().contains_key("connection") && !answer.headers().contains_key("x-own"));
        assert_eq!(body(&mut answer.into_body()).await.unwrap(), b"hello");
    });
    let head = origin.only_head();
    assert_eq!(head.first, "GET /a?b=c HTTP/1.1");
    assert_eq!((head.get("host"), head.get("cookie")), (Some("app.test"), Some("a=1; b=2")));
    let line = wait_for("an access line", || weir.stdout().lines().next().map(str::to_owned));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["proto"], &line["host"], &line["status"]), (&"h2".into(), &"app.test".into(), &200.into()));
}

#[test]
fn a_body_with_trailers_goes_both_ways() {
    const UPLOAD: &[u8] = b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n";
    let origin = Origin::scripted(|exchange| {
        assert!(exchange.head.is_chunked());
        let got = exchange.wire.take(UPLOAD.len())?;
        assert_eq!(got, UPLOAD, "{}", String::from_utf8_lossy(&got));
        exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-done\r\n\r\n")?;
        exchange.chunk(b"world")?;
        exchange.wire.send("0\r\nX-Done: yes\r\n\r\n")?;
        Ok(After::Keep)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    drive(async {
        let mut client = connect(&weir).await.ready().await.unwrap();
        let upload = request("POST", "/").header("trailer", "x-sum").header("te", "trailers").body(()).unwrap();
        let (answer, mut stream) = client.send_request(upload, false).unwrap();
        stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
        stream.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())])).unwrap();
        let answer = answer.await.unwrap();
        assert!(!answer.headers().contains_key("transfer-encoding"));
        let mut stream = answer.into_body();
        assert_eq!(body(&mut stream).await.unwrap(), b"world");
        assert_eq!(stream.trailers().await.unwrap().unwrap()["x-done"], "yes");
    });
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let origin = Origin::scripted(|exchange| match exchange.head.target() {
        "/x/204" => {
            exchange.wire.send("HTTP/1.1 204 No Content\r\n\r\n")?;
            Ok(After::Keep)
        }
        "/x/304" => {
            exchange.wire.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n")?;
            Ok(After::Keep)
        }
        _ => exchange.ok("seven b"),
    });
    let weir = Weir::start(
        &Conf::one(origin.address).routes("[[routes]]\nmatch = { path_prefix = \"/x\" }\nsplit = \"shop\""),
    );
    drive(async {
        let mut client = connect(&weir).await;
        for (method, path, status) in
            [("HEAD", "/x/", 200), ("GET", "/x/204", 204), ("GET", "/x/304", 304), ("HEAD", "/none", 404)]
        {
            let answer = ask(&mut client, request(method, path).body(()).unwrap()).await;
            assert_eq!(answer.status(), status, "{method} {path}");
            let mut stream = answer.into_body();
            assert!(stream.is_end_stream(), "{method} {path}");
            assert_eq!(body(&mut stream).await.unwrap(), b"");
        }
        let answer = get(&mut client, "/none").await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["weir-error"]), (404, &"no-route".parse().unwrap()));
        let length: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
        assert_eq!(body(&mut answer.into_body()).await.unwrap().len(), length);
    });
}

#[test]
fn many_streams_share_a_connection() {
    let origin = Origin::scripted(|exchange| {
        let body = exchange.body()?;
        exchange.answer("200 OK", "", &body)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    drive(async {
        let client = connect(&weir).await;
        // One that has not heard our limit yet may open all at once; hundreds refused would count as abuse.
        let mut first = client.clone().ready().await.unwrap();
        first.send_request(request("POST", "/").body(()).unwrap(), true).unwrap().0.await.unwrap();
        let mut uploads = Vec::new();
        for i in 0..500usize {
            let mut client = client.clone();
            uploads.push(tokio::spawn(async move {
                client = client.ready().await.unwrap();
                let (answer, mut stream) = client.send_request(request("POST", "/").body(()).unwrap(), false).unwrap();
                let sent = Bytes::from(vec![i as u8; i * 17]);
                stream.send_data(sent.clone(), true).unwrap();
                assert_eq!(body(&mut answer.await.unwrap().into_body()).await.unwrap(), sent);
            }));
        }
        for upload in uploads {
            upload.await.unwrap();
        }
    });
    assert_eq!(origin.requests(), 501);
    weir.admin.wait_metric("weir_requests_total", &[("version", "v1"), ("code", "200")], 501.0);
}

#[test]
fn a_stream_that_its_client_resets_ends_upstream_too() {
    let closed = Arc::new(AtomicUsize::new(0));
    let theirs = closed.clone();
    let origin = Origin::scripted(move |exchange| {
        match exchange.head.target() {
            "/head" => {}
            "/body" => {
                exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                exchange.chunk(b"first")?;
            }
            _ => return exchange.ok("v1"),
        }
        assert!(exchange.wire.is_closed_within(LIMIT), "the request was not cancelled");
        theirs.fetch_add(1, Ordering::SeqCst);
        Ok(After::Close)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    drive(async {
        let mut client = connect(&weir).await;
        for (i, path) in ["/head", "/body"].into_iter().enumerate() {
            let mut client = client.clone().ready().await.unwrap();
            let (answer, mut stream) = client.send_request(request("GET", path).body(()).unwrap(), true).unwrap();
            until("the origin has it", || origin.requests() == i + 1).await;
            let answer = if path == "/body" { Some(answer.await.unwrap()) } else { None };
            stream.send_reset(Reason::CANCEL);
            until("the origin's connection is closed", || closed.load(Ordering::SeqCst) == i + 1).await;
            drop(answer);
        }
        assert_eq!(get(&mut client, "/").await.status(), 200, "the connection lives on");
    });
}

#[test]
fn an_answer_cut_upstream_is_a_reset_and_no_end() {
    let origin = Origin::scripted(|exchange| {
        let framing =
            if exchange.head.target() == "/chunked" { "Transfer-Encoding: chunked" } else { "Content-Length: 9" };
        exchange.wire.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nab"))?;
        Ok(After::Close)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    drive(async {
        let mut client = connect(&weir).await;
        for path in ["/chunked", "/length"] {
            let error = body(&mut get(&mut client, path).await.into_body()).await.expect_err(path);
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{path}");
        }
    });
}

#[test]
fn a_client_that_opens_no_window_stops_the_origin_and_loses_nothing() {
    const BLOCK: usize = 64 << 10;
    const BLOCKS: usize = 1024;
    let sent = Arc::new(AtomicUsize::new(0));
    let theirs = sent.clone();
    let origin = Origin::scripted(move |exchange| {
        exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for i in 0..BLOCKS {
            exchange.chunk(&vec![i as u8; BLOCK])?;
            theirs.fetch_add(1, Ordering::SeqCst);
        }
        exchange.wire.send("0\r\n\r\n")?;
        Ok(After::Keep)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    drive(async {
        let mut client = connect(&weir).await;
        let mut stream = get(&mut client, "/").await.into_body();
        let mut before = usize::MAX;
        until("the origin stands still", || {
            before == std::mem::replace(&mut before, sent.load(Ordering::SeqCst)) && before > 0
        })
        .await;
        assert!(sent.load(Ordering::SeqCst) < BLOCKS / 2, "{before} blocks without a window");
        let all = body(&mut stream).await.unwrap();
        assert_eq!(all.len(), BLOCK * BLOCKS);
        assert!(all.chunks(BLOCK).enumerate().all(|(i, block)| block.iter().all(|b| *b == i as u8)));
    });
}

#[test]
fn an_answer_before_the_upload_is_over_is_whole_and_then_the_upload_is_declined() {
    let origin = Origin::scripted(|exchange| {
        exchange.wire.take(5)?;
        exchange.answer("413 Content Too Large", "Connection: close\r\n", b"too much")?;
        Ok(After::Close)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    drive(async {
        let mut client = connect(&weir).await.ready().await.unwrap();
        let (answer, mut stream) = client.send_request(request("POST", "/").body(()).unwrap(), false).unwrap();
        stream.send_data(Bytes::from_static(b"first of many"), false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 413);
        assert_eq!(body(&mut answer.into_body()).await.unwrap(), b"too much");
        let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
        assert_eq!(reason, Reason::NO_ERROR);
    });
}

#[test]
fn a_head_over_the_limit_is_refused_by_name() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address).web("limits = { header_bytes = \"8KiB\" }"));
    drive(async {
        let mut client = connect(&weir).await;
        let with = |length: usize| request("GET", "/").header("x-big", "x".repeat(length)).body(()).unwrap();
        assert_eq!(ask(&mut client, with(7 << 10)).await.status(), 200);
        let answer = ask(&mut client, with(9 << 10)).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["weir-error"]),
            (431, &"header-too-large".parse().unwrap())
        );
        weir.admin.wait_metric("weir_refused_requests_total", &[("reason", "header-too-large")], 1.0);
        // Beyond what the library bears it answers by itself.
        assert_eq!(ask(&mut client, with(20 << 10)).await.status(), 431);
        assert_eq!(get(&mut client, "/").await.status(), 200);
    });
    assert_eq!(origin.requests(), 2);
}

#[test]
fn at_shutdown_a_client_is_told_and_what_it_has_begun_is_finished() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let mut weir = Weir::start(&Conf::one(origin.address));
    let mut idle = Frames::open(weir.web());
    let (answered, is_told) = (AtomicBool::new(false), AtomicBool::new(false));
    drive(async {
        let client = connect(&weir).await;
        let busy = async {
            let mut client = client.clone().ready().await.unwrap();
            let (answer, _) = client.send_request(request("GET", "/hold").body(()).unwrap(), true).unwrap();
            assert_eq!(body(&mut answer.await.unwrap().into_body()).await.unwrap(), b"v1");
            answered.store(true, Ordering::SeqCst);
        };
        let rest = async {
            until("the request is at the origin", || gate.waiting() == 1).await;
            weir.signal(Signal::TERM);
            // GOAWAY: the client may begin nothing more.
            until("the client is told", || {
                is_told.store(
                    client.clone().send_request(request("GET", "/").body(()).unwrap(), true).is_err(),
                    Ordering::SeqCst,
                );
                is_told.load(Ordering::SeqCst)
            })
            .await;
            assert!(!answered.load(Ordering::SeqCst));
            gate.open();
        };
        tokio::join!(busy, rest);
    });
    // The idle one has heard it, too, and was not waited for.
    assert_eq!(idle.until(frames::GOAWAY).reason(), 0);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn at_shutdown_a_client_that_does_not_answer_is_not_waited_for() {
    let origin = Origin::named("v1");
    let mut weir = Weir::start(&Conf::one(origin.address));
    let mut silent = Frames::open(weir.web());
    wait_until("it is served", || weir.admin.metric("weir_connections", &[]).is_none_or(|n| n >= 1.0));
    weir.signal(Signal::TERM);
    // It never answers the PING between the two.
    assert_eq!(silent.until(frames::GOAWAY).stream, 0);
    assert_eq!(silent.until(frames::GOAWAY).reason(), 0);
    silent.expect_end();
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn common_clients_get_along() {
    let origin = Origin::scripted(|exchange| {
        exchange.body()?;
        exchange.answer("200 OK", "", &[b'x'; 100_000])
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let url = format!("http://{}/", weir.web());
    if let Some(curl) = tool("curl") {
        let done =
            run(Command::new(curl).args(["-s", "--http2-prior-knowledge", "-d", "a=b", &url]), LIMIT).expect_code(0);
        assert_eq!(done.all().len(), 100_000);
    }
    if let Some(nghttp) = tool("nghttp") {
        let done = run(Command::new(nghttp).args(["-n", "-v", &url]), LIMIT).expect_code(0);
        assert!(done.all().contains(":status: 200"), "{}", done.all());
    }
    if let Some(h2load) = tool("h2load") {
        let done =
            run(Command::new(h2load).args(["-n", "2000", "-c", "4", "-m", "20", &url]), 2 * LIMIT).expect_code(0);
        assert!(done.all().contains("2000 succeeded, 0 failed, 0 errored"), "{}", done.all());
    }
}
