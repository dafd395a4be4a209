//! What is asked of an endpoint, in every way there is, and every way in which it can fail to answer.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::{FAST, HANG, Patient, RESET, checked, health_events, wait_state};
use crate::support::{Authority, Conf, Connection, Mortal, Origin, Weir, wait_until};

#[test]
fn the_request_of_a_check_is_the_one_of_the_file() {
    let origin = Patient::new("v1");
    let more = "method = \"HEAD\", host = \"inner.test\", headers = { X-Probe = \"weir\" }";
    let weir = Weir::start(&Conf::one(origin.address()).split(&format!("health = {{ {FAST}, {more} }}")));
    wait_state(&weir, "v1", origin.address(), "up");
    let head = &origin.origin.heads()[0];
    assert_eq!((head.method(), head.target()), ("HEAD", "/healthz"));
    assert_eq!((head.get("host"), head.get("user-agent")), (Some("inner.test"), Some("weir-health")));
    assert_eq!(head.get("x-probe"), Some("weir"));
    // Each over a connection of its own.
    origin.wait_checks(3);
    let heads = origin.origin.requests();
    assert!(origin.origin.connections() >= heads, "{} for {heads}", origin.origin.connections());
    wait_until("and none stays", || origin.origin.open() <= 1);
}

/// The file may want another host for the check than for requests: an origin with several behind one address.
#[test]
fn a_page_behind_a_host() {
    let origin = Origin::scripted(|exchange| {
        let is_there = exchange.head.get("host") == Some("inner.test");
        exchange.answer(if is_there { "200 OK" } else { "404 Not Found" }, "", b"page")
    });
    let with = |more: &str| Conf::one(origin.address).split(&format!("health = {{ {FAST}{more} }}"));
    let weir = Weir::start(&with(", host = \"inner.test\""));
    wait_state(&weir, "v1", origin.address, "up");
    weir.edit(&with(""));
    assert_eq!(wait_state(&weir, "v1", origin.address, "down")["reason"], "status 404, not 200-399");
}

#[test]
fn hang_reset_and_refusal_are_failures_with_their_reason() {
    let (other, patient, mut mortal) = (Patient::new("a"), Patient::new("b"), Mortal::start("c"));
    let weir = Weir::start(&checked(&[("v1", 1, &[other.address(), patient.address(), mortal.address])]));
    for (status, reason) in [(HANG, "no answer within 1s"), (RESET, "the connection was closed before an answer")] {
        wait_state(&weir, "v1", patient.address(), "up");
        patient.set(status);
        let down = wait_state(&weir, "v1", patient.address(), "down");
        let reason_now = down["reason"].as_str().unwrap_or_default();
        assert!(reason_now == reason || status == RESET && reason_now.contains("reset"), "{down}");
        patient.set(200);
    }
    wait_state(&weir, "v1", mortal.address, "up");
    mortal.kill();
    let down = wait_state(&weir, "v1", mortal.address, "down");
    assert!(down["reason"].as_str().is_some_and(|why| why.starts_with("connect: Connection refused")), "{down}");
    let table = weir.cli(&["status", "shop"]).stdout;
    assert!(table.contains(&format!("! v1  {}  down: connect: Connection refused", mortal.address)), "{table}");
    mortal.raise();
    wait_state(&weir, "v1", mortal.address, "up");
}

#[test]
fn over_tls_with_the_versions_own_settings() {
    let authority = Authority::new();
    let origin = Origin::secure(authority.server(&authority.sign("inner.test"), false), |exchange| exchange.ok("v1"));
    let conf = |name: &str| {
        let tls = format!("tls = {{ ca = \"ca.pem\", server_name = \"{name}\" }}");
        checked(&[("v1", 1, &[origin.address])]).https().version("v1", &tls)
    };
    let weir = Weir::start_with(&conf("inner.test"), &[], &[("ca.pem", &authority.pem)]);
    wait_state(&weir, "v1", origin.address, "up");
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
    weir.edit(&conf("other.test"));
    let down = wait_state(&weir, "v1", origin.address, "down");
    assert!(down["reason"].as_str().is_some_and(|why| why.starts_with("tls: ")), "{down}");
}

#[test]
fn a_connection_is_enough_for_tcp() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap();
    let health = "health = { kind = \"tcp\", interval = \"50ms\", timeout = \"300ms\" }";
    let weir = Weir::start(&Conf::one(address).split(health));
    wait_state(&weir, "v1", address, "up");
    drop(mute);
    wait_state(&weir, "v1", address, "down");
}

/// A gRPC server that knows only `grpc.health.v1.Health/Check`, for the service `shop`.
fn grpc_health(serving: Arc<AtomicU16>) -> SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_grpc(stream, serving.clone()));
            }
        });
    });
    address
}

async fn serve_grpc(stream: tokio::net::TcpStream, serving: Arc<AtomicU16>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let serving = serving.load(Ordering::SeqCst);
        tokio::spawn(async move {
            let is_check = request.uri().path() == "/grpc.health.v1.Health/Check";
            let message = request.into_body().data().await;
            let is_shop = message.is_some_and(|m| m.is_ok_and(|m| m[..] == b"\0\0\0\0\x06\x0a\x04shop"[..]));
            if !is_check || !is_shop {
                let head = http::Response::builder().header("grpc-status", "5").body(()).unwrap();
                return drop(respond.send_response(head, true));
            }
            let Ok(mut stream) = respond.send_response(http::Response::new(()), false) else { return };
            let _ = stream.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, serving as u8]), false);
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let _ = stream.send_trailers(trailers);
        });
    }
}

#[test]
fn grpc_servers_are_asked_in_their_own_way() {
    let serving = Arc::new(AtomicU16::new(1));
    let address = grpc_health(serving.clone());
    let conf = |service: &str| {
        let more = "interval = \"50ms\", timeout = \"1s\"";
        let health = format!("health = {{ kind = \"grpc\", service = \"{service}\", {more} }}");
        Conf::one(address).split(&health).version("v1", "protocol = \"http2\"")
    };
    let weir = Weir::start(&conf("shop"));
    wait_state(&weir, "v1", address, "up");
    serving.store(2, Ordering::SeqCst);
    assert_eq!(wait_state(&weir, "v1", address, "down")["reason"], "NOT_SERVING");
    serving.store(1, Ordering::SeqCst);
    wait_state(&weir, "v1", address, "up");
    weir.edit(&conf("cart"));
    let down = wait_state(&weir, "v1", address, "down");
    assert_eq!(down["reason"], "grpc-status 5: the service is not known there");
}

/// Without a descriptor left for its checks weir knows nothing new of anybody (faults.md 3.5).
#[test]
fn our_own_want_of_descriptors_takes_nobody_out() {
    let origin = Patient::new("v1");
    let weir = Weir::start(&checked(&[("v1", 1, &[origin.address()])]));
    wait_state(&weir, "v1", origin.address(), "up");
    // Accepted before: no other will be.
    let mut page = Connection::open(weir.admin.address).unwrap();
    let mut not_made = || {
        let text = page.get("/metrics").unwrap().text();
        let line = text.lines().find(|l| l.starts_with("weir_health_checks_total") && l.contains("\"error\""));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).unwrap_or_default()
    };
    assert_eq!(not_made(), 0);
    let pid = Pid::from_raw(weir.pid().cast_signed());
    let before = prlimit(pid, Resource::Nofile, Rlimit { current: Some(3), ..getrlimit(Resource::Nofile) }).unwrap();
    wait_until("checks cannot be made", || not_made() >= 5);
    prlimit(pid, Resource::Nofile, before).unwrap();
    assert!(health_events(&weir).iter().all(|e| e["to"] == "up"), "{:?}", health_events(&weir));
    origin.wait_checks(2);
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
}
