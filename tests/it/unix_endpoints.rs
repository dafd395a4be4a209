//! Endpoints on Unix sockets: everything that an endpoint on TCP can, whatever is spoken.

use std::net::SocketAddr;

use bytes::Bytes;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{After, Conf, Connection, Door, Gate, Origin, Weir, wait_until};

fn upgrade_request(host: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

#[test]
fn requests_over_a_path_are_answered_and_told_of() {
    let origin = Origin::named("v1");
    let door = Door::to(origin.address);
    let weir = Weir::start(&Conf::at(&[&door.endpoint()]));
    let mut client = weir.connect();
    for path in ["/a", "/b", "/c"] {
        assert_eq!(client.get(path).unwrap().text(), "v1");
    }
    assert_eq!((door.accepted(), origin.requests()), (1, 3), "its connection is used again");
    assert!(origin.heads().iter().all(|head| head.get("host") == Some("app.test")));
    assert_eq!(weir.line_of("/b")["endpoint"], door.endpoint());
    assert_eq!(weir.admin.shop()["versions"][0]["endpoints"][0]["address"], door.endpoint());
    weir.admin.wait_metric("weir_endpoint_up", &[("endpoint", &door.endpoint())], 1.0);
}

#[test]
fn a_path_never_becomes_a_host() {
    let origin = Origin::named("v1");
    let door = Door::to(origin.address);
    let weir = Weir::start(&Conf::at(&[&door.endpoint()]).version("v1", "host = \"endpoint\""));
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
    assert_eq!(origin.only_head().get("host"), Some("localhost"));
}

#[test]
fn paths_and_addresses_share_the_load() {
    let origins = ["path", "tcp"].map(Origin::named);
    let door = Door::to(origins[0].address);
    let weir = Weir::start(&Conf::at(&[&door.endpoint(), &origins[1].address.to_string()]));
    let mut client = weir.connect();
    let seen: Vec<String> = (0..200).map(|_| client.get("/").unwrap().text()).collect();
    for name in ["path", "tcp"] {
        let count = seen.iter().filter(|seen| *seen == name).count();
        assert!((50..150).contains(&count), "{name}: {count}");
    }
}

/// An origin that speaks HTTP/2 and nothing else.
fn http2_origin() -> SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_http2(stream));
            }
        });
    });
    address
}

async fn serve_http2(stream: TcpStream) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
        stream.send_data(Bytes::from(authority), true).unwrap();
    }
}

#[test]
fn http2_is_spoken_over_it() {
    let door = Door::to(http2_origin());
    let weir = Weir::start(&Conf::at(&[&door.endpoint()]).workers(1).version("v1", "protocol = \"http2\""));
    let mut client = weir.connect();
    for _ in 0..5 {
        assert_eq!(client.get("/").unwrap().text(), "app.test");
    }
    assert_eq!(door.accepted(), 1);
    // Whoever names no host (HTTP/1.0) is for the endpoint itself, and its path is no authority.
    assert_eq!(weir.connect().ask("GET / HTTP/1.0\r\n\r\n").unwrap().text(), "localhost");
}

#[test]
fn a_websocket_goes_through_it() {
    let origin = Origin::scripted(|exchange| {
        exchange.wire.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )?;
        let asked = exchange.wire.take(4)?;
        exchange.wire.send([&asked[..], b" too"].concat())?;
        Ok(After::Close)
    });
    let door = Door::to(origin.address);
    let weir = Weir::start(&Conf::at(&[&door.endpoint()]));
    let mut client = weir.connect();
    client.send(upgrade_request("app.test")).unwrap();
    assert_eq!(client.head().unwrap().status(), 101);
    client.send("ping").unwrap();
    assert_eq!(client.take(8).unwrap(), b"ping too");
    assert_eq!(client.rest().unwrap(), b"");
}

#[test]
fn it_is_drained_like_any_other_and_over_a_restart() {
    let gate = Gate::default();
    let origins = [Origin::gated("path", &gate), Origin::named("tcp")];
    let door = Door::to(origins[0].address);
    let conf = Conf::at(&[&door.endpoint(), &origins[1].address.to_string()]);
    let weir = Weir::start(&conf);
    let web = weir.web();
    let mut held = Vec::new();
    while gate.waiting() < 1 {
        held.push(std::thread::spawn(move || Connection::open(web)?.get("/hold")));
        wait_until("it arrives", || gate.waiting() == 1 || held.last().is_some_and(|last| last.is_finished()));
    }
    let target = format!("shop/v1/{}", door.endpoint());
    weir.cli(&["drain", &target]).expect_code(0);
    let wait = |wait: &str| {
        let endpoint = door.endpoint().replace('/', "%2F");
        weir.admin.get(&format!("/api/v1/splits/shop/versions/v1/drain?endpoint={endpoint}&wait={wait}")).status()
    };
    assert_eq!(wait("10ms"), 202, "one is in flight");
    gate.open();
    assert_eq!(wait("10s"), 200);
    assert!(held.into_iter().all(|held| held.join().unwrap().unwrap().status() == 200));
    let only_tcp = |weir: &Weir| {
        let mut client = weir.connect();
        (0..50).all(|_| client.get("/").unwrap().text() == "tcp")
    };
    assert!(only_tcp(&weir));
    let weir = weir.kill_and_restart();
    assert!(only_tcp(&weir), "an acknowledged drain is not forgotten");
    let undrain = weir.admin.post("/api/v1/splits/shop/versions/v1/undrain", json!({"endpoint": door.endpoint()}));
    assert_eq!(undrain.status(), 200, "{}", undrain.text());
    assert!(!only_tcp(&weir));

    weir.edit(&Conf::at(&[&origins[1].address.to_string()]));
    wait_until("its connections are closed", || origins[0].open() == 0);
    assert!(only_tcp(&weir));
}

#[test]
fn a_path_nobody_listens_on_is_a_failed_connect_until_somebody_does() {
    let origin = Origin::named("v1");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("later.sock");
    let weir = Weir::start(&Conf::at(&[&format!("unix:{}", path.display())]));
    let answer = weir.connect().get("/").unwrap();
    assert_eq!((answer.status(), answer.head.get("weir-error")), (502, Some("connect-failed")));
    weir.admin.wait_metric("weir_errors_total", &[("version", "v1"), ("reason", "connect")], 1.0);
    let _door = Door::at(&path, origin.address);
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
}
