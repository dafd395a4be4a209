//! One check against origins that answer, misbehave and hang, over TCP, Unix sockets and HTTP/2.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::probe::{Probed, Target, probe};
use crate::config::{GrpcCheck, HealthCheck, HealthKind, HttpCheck, Protocol, Statuses};
use crate::model::{Address, Instant};
use crate::net::upstream::{DialError, Settings};

fn http() -> HttpCheck {
    HttpCheck {
        path: "/healthz?deep=1".parse().unwrap(),
        method: Method::GET,
        host: None,
        headers: Vec::new(),
        expect: Statuses(vec![(200, 399)]),
    }
}

fn grpc(service: &str) -> HealthKind {
    HealthKind::Grpc(GrpcCheck { service: service.into(), host: None, headers: Vec::new() })
}

fn target(address: impl Into<Address>, kind: HealthKind) -> Target {
    let (healthy_after, unhealthy_after) = (2, 3);
    let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(5));
    Target {
        host: None,
        address: address.into(),
        settings: Settings { idle_cap: 0, idle_for: None, max_age: None, protocol: Protocol::Auto, tls: None },
        check: Arc::new(HealthCheck { kind, interval, timeout, healthy_after, unhealthy_after }),
    }
}

fn in_time(mut target: Target, timeout: Duration) -> Target {
    Arc::make_mut(&mut target.check).timeout = timeout;
    target
}

fn failed(why: &str) -> Probed {
    Probed::Failed(why.to_owned())
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn answers(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) -> String {
    let head = head(&mut stream).await;
    // Whoever is checked may find the check gone.
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
    head
}

/// What comes of one check whose answer is these bytes, and the head of its request.
async fn against(check: HttpCheck, answer: &'static [u8]) -> (Probed, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(listener.local_addr().unwrap(), HealthKind::Http(check));
    let origin = async { answers(listener.accept().await.unwrap().0, answer).await };
    tokio::join!(probe(&target), origin)
}

#[tokio::test]
async fn the_request_is_what_the_file_says() {
    let headers = vec![(HeaderName::from_static("x-probe"), HeaderValue::from_static("1"))];
    let host = Some("shop.test".parse().unwrap());
    let (probed, head) =
        against(HttpCheck { method: Method::HEAD, host, headers, ..http() }, b"HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(probed, Probed::Passed);
    assert!(head.starts_with("HEAD /healthz?deep=1 HTTP/1.1\r\n"), "{head}");
    for field in ["host: shop.test\r\n", "user-agent: weir-health\r\n", "x-probe: 1\r\n"] {
        assert_eq!(head.matches(field).count(), 1, "{field} in {head}");
    }
}

#[tokio::test]
async fn statuses_decide_and_redirects_are_not_followed() {
    let (status_503, moved) = (b"HTTP/1.1 503 No\r\n\r\n", b"HTTP/1.1 302 Found\r\nLocation: /other\r\n\r\n");
    assert_eq!(against(http(), status_503).await.0, failed("status 503, not 200-399"));
    assert_eq!(against(http(), moved).await.0, Probed::Passed);
    let strict = || HttpCheck { expect: Statuses(vec![(200, 200), (204, 206)]), ..http() };
    assert_eq!(against(strict(), moved).await.0, failed("status 302, not 200,204-206"));
    let interim = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 205 Fine\r\n\r\n";
    assert_eq!(against(strict(), interim).await.0, Probed::Passed);
}

#[tokio::test]
async fn what_is_no_answer_is_told_in_words() {
    for (answer, why) in [
        (&b""[..], "the connection was closed before an answer"),
        (b"HTTP/1.1 200", "the connection was closed before an answer"),
        (b"220 mail.test ESMTP\r\n", "the answer is not valid HTTP"),
    ] {
        assert_eq!(against(http(), answer).await.0, failed(why), "{answer:?}");
    }
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(200_000)).into_bytes().leak();
    assert_eq!(against(http(), large).await.0, failed("the answer's head is too large"));
}

#[tokio::test]
async fn it_ends_in_time_whatever_the_endpoint_does() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = |kind| in_time(target(listener.local_addr().unwrap(), kind), Duration::from_millis(150));
    let origin = async {
        // Silent from the start, then a head that never ends.
        let _silent = listener.accept().await.unwrap();
        let (mut slow, _) = listener.accept().await.unwrap();
        slow.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        while slow.write_all(b"x: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _silent_http2 = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
    };
    let checks = async {
        for kind in [HealthKind::Http(http()), HealthKind::Http(http()), grpc("")] {
            assert_eq!(probe(&target(kind)).await, failed("no answer within 150ms"));
        }
    };
    tokio::select! { () = checks => {} () = origin => {} }
}

#[tokio::test]
async fn a_body_without_end_holds_no_check_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(listener.local_addr().unwrap(), HealthKind::Http(http()));
    let origin = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut sent = 0;
        while stream.write_all(&[b'x'; 1024]).await.is_ok() {
            sent += 1024;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sent
    };
    let began = Instant::now();
    let (probed, _) = tokio::join!(probe(&target), origin);
    assert_eq!(probed, Probed::Passed);
    assert!(began.elapsed() < target.check.timeout, "as long as the timeout");
}

#[tokio::test]
async fn nobody_there_and_our_own_faults_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(probe(&target(address, HealthKind::Tcp)).await, Probed::Passed);
    drop(listener);
    for kind in [HealthKind::Tcp, HealthKind::Http(http()), grpc("")] {
        let probed = probe(&target(address, kind)).await;
        assert!(matches!(&probed, Probed::Failed(why) if why.starts_with("connect: Connection refused")), "{probed:?}");
    }
    let no_descriptor = DialError::Connect(Arc::new(io::Error::from_raw_os_error(24)));
    assert!(matches!(Probed::from(no_descriptor), Probed::NotMade(_)));
    let refused = DialError::Connect(Arc::new(io::ErrorKind::ConnectionRefused.into()));
    assert!(matches!(Probed::from(refused), Probed::Failed(_)));
}

#[tokio::test]
async fn over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("origin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let address = Address::Unix(path.to_str().unwrap().into());
    let target = target(address, HealthKind::Http(http()));
    let origin = async { answers(listener.accept().await.unwrap().0, b"HTTP/1.1 200 OK\r\n\r\n").await };
    let (probed, head) = tokio::join!(probe(&target), origin);
    assert_eq!(probed, Probed::Passed);
    assert!(head.contains("host: localhost\r\n"), "{head}");
}

/// What an HTTP/2 origin answers: a head, perhaps with a body and trailers.
struct Script {
    status: u16,
    /// In the head, or in the trailers if there is a body.
    grpc_status: Option<&'static str>,
    body: Option<Vec<u8>>,
}

fn serving(status: u8) -> Script {
    Script { status: 200, grpc_status: Some("0"), body: Some(vec![0, 0, 0, 0, 2, 8, status]) }
}

async fn against_http2(
    target: impl FnOnce(Address) -> Target,
    script: Script,
) -> (Probed, http::request::Parts, Bytes) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(listener.local_addr().unwrap().into());
    let origin = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let (parts, mut body) = request.into_parts();
        let mut fields = HeaderMap::new();
        fields
            .extend(script.grpc_status.map(|s| (HeaderName::from_static("grpc-status"), HeaderValue::from_static(s))));
        let mut head = Response::builder().status(script.status).body(()).unwrap();
        let serve = async move {
            let message = if body.is_end_stream() { Bytes::new() } else { body.data().await.unwrap().unwrap() };
            match script.body {
                None => {
                    head.headers_mut().extend(fields);
                    respond.send_response(head, true).unwrap();
                }
                Some(bytes) => {
                    let mut stream = respond.send_response(head, false).unwrap();
                    stream.send_data(bytes.into(), false).unwrap();
                    // Whoever has read enough is gone.
                    let _ = stream.send_trailers(fields);
                }
            }
            message
        };
        let (message, ()) = tokio::join!(serve, async { while connection.accept().await.is_some() {} });
        (parts, message)
    };
    let (probed, (parts, message)) = tokio::join!(probe(&target), origin);
    (probed, parts, message)
}

#[tokio::test]
async fn a_page_over_http2() {
    let page = |address: Address| {
        let mut target = target(address, HealthKind::Http(http()));
        target.settings.protocol = Protocol::Http2;
        target
    };
    let answer = |status| Script { status, grpc_status: None, body: None };
    let (probed, request, _) = against_http2(page, answer(204)).await;
    assert_eq!(probed, Probed::Passed);
    assert_eq!((request.method, request.uri.path()), (Method::GET, "/healthz"));
    assert_eq!(request.uri.query(), Some("deep=1"));
    assert!(request.uri.authority().is_some_and(|a| a.as_str().starts_with("127.0.0.1:")));
    assert_eq!(request.headers["user-agent"], "weir-health");
    assert_eq!(against_http2(page, answer(500)).await.0, failed("status 500, not 200-399"));
}

#[tokio::test]
async fn grpc_asks_the_health_service() {
    let ask = |address| target(address, grpc("shop"));
    let (probed, request, message) = against_http2(ask, serving(1)).await;
    assert_eq!(probed, Probed::Passed);
    assert_eq!((request.method, request.uri.path()), (Method::POST, "/grpc.health.v1.Health/Check"));
    assert_eq!(request.headers["content-type"], "application/grpc");
    assert_eq!(request.headers["te"], "trailers");
    assert_eq!(request.headers["grpc-timeout"], "5000m");
    assert_eq!(&message[..], b"\0\0\0\0\x06\x0a\x04shop");
}

#[tokio::test]
async fn grpc_answers_that_do_not_pass() {
    let only = |grpc_status| Script { status: 200, grpc_status, body: None };
    for (script, why) in [
        (serving(2), "NOT_SERVING"),
        (serving(3), "SERVICE_UNKNOWN"),
        (only(Some("5")), "grpc-status 5: the service is not known there"),
        (only(Some("12")), "grpc-status 12: it has no grpc.health.v1.Health"),
        (only(Some("14")), "grpc-status 14"),
        (only(Some("x")), "no grpc-status"),
        (only(None), "no grpc-status"),
        (only(Some("0")), "the answer is not one of grpc.health.v1"),
        (Script { status: 503, grpc_status: None, body: None }, "status 503, not 200"),
        (Script { grpc_status: Some("2"), ..serving(1) }, "grpc-status 2"),
        (Script { body: Some(vec![0; 8192]), ..serving(1) }, "the answer is not one of grpc.health.v1"),
        (Script { body: Some(vec![9; 7]), ..serving(1) }, "the answer is not one of grpc.health.v1"),
    ] {
        assert_eq!(against_http2(|address| target(address, grpc("")), script).await.0, failed(why));
    }
}
