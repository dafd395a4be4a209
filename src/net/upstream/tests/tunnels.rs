//! Tunnels over both protocols: bytes both ways, clean ends, cuts.

use super::http2::{Origin, ok};
use super::*;
use crate::net::duplex::Duplex;

fn websocket_http1() -> Request<TestBody> {
    let mut request = get("/chat");
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    request
}

fn websocket_http2() -> Request<TestBody> {
    let mut request = get("/chat");
    *request.method_mut() = http::Method::CONNECT;
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    request
}

/// An origin over HTTP/1.1 that switches protocols, says `hello` at once and then echoes.
async fn http1() -> (Rc<Upstream<TestBody>>, JoinHandle<()>) {
    let (listener, address) = listener().await;
    let script = origin(async move {
        let mut wire = Wire::accept(&listener).await;
        let head = wire.head().await;
        assert!(head.contains("upgrade: websocket"), "{head}");
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello";
        wire.write(switch).await;
        let mut buffer = [0; 64];
        while let Ok(n) = wire.stream.read(&mut buffer).await {
            if n == 0 {
                return;
            }
            wire.write(&buffer[..n]).await;
        }
    });
    (upstream_with(address, cleartext(Protocol::Auto)), script)
}

/// The same over HTTP/2.
async fn http2() -> (Rc<Upstream<TestBody>>, Origin) {
    let enabled = |builder: &mut h2::server::Builder| {
        builder.enable_connect_protocol();
    };
    let echo = |request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>| async move {
        assert_eq!(request.extensions().get::<h2::ext::Protocol>().unwrap().as_str(), "websocket");
        assert_eq!(request.uri(), "http://shop.test/chat");
        let send = respond.send_response(ok(), false).unwrap();
        let mut tunnel = Duplex::new(request.into_body(), send);
        tunnel.write_all(b"hello").await.unwrap();
        let mut buffer = [0; 64];
        while let Ok(n) = tunnel.read(&mut buffer).await {
            if n == 0 {
                let _ = tunnel.shutdown().await;
                return;
            }
            tunnel.write_all(&buffer[..n]).await.unwrap();
        }
    };
    let origin = Origin::new(enabled, echo).await;
    (origin.upstream(), origin)
}

async fn open(upstream: &Rc<Upstream<TestBody>>, request: Request<TestBody>) -> Tunnel {
    let mut lease = upstream.dial(None).await.unwrap();
    let mut response = send(&mut lease, request).await.unwrap();
    let mut tunnel = lease.into_tunnel(&mut response).await.unwrap();
    let mut text = [0; 5];
    tunnel.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hello");
    tunnel
}

async fn echoes(tunnel: &mut Tunnel) {
    tunnel.write_all(b"there").await.unwrap();
    tunnel.flush().await.unwrap();
    let mut text = [0; 5];
    tunnel.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"there");
}

#[test]
fn a_tunnel_over_http1() {
    local(async {
        let (upstream, script) = http1().await;
        let mut tunnel = open(&upstream, websocket_http1()).await;
        echoes(&mut tunnel).await;
        assert_eq!(Rc::strong_count(&upstream), 2, "an endpoint that leaves keeps its tunnels");
        until("HTTP is over", || live(&upstream) == 0).await;
        tunnel.shutdown().await.unwrap();
        assert_eq!(tunnel.read(&mut [0; 8]).await.unwrap(), 0);
        script.await.unwrap();
        drop(tunnel);
        assert_eq!(Rc::strong_count(&upstream), 1);
    });
}

#[test]
fn a_tunnel_over_http2_leaves_its_connection_to_others() {
    local(async {
        let (upstream, origin) = http2().await;
        let mut tunnel = open(&upstream, websocket_http2()).await;
        echoes(&mut tunnel).await;
        assert_eq!(Rc::strong_count(&upstream), 2, "an endpoint that leaves keeps its tunnels");
        let mut second = open(&upstream, websocket_http2()).await;
        tunnel.shutdown().await.unwrap();
        assert_eq!(tunnel.read(&mut [0; 8]).await.unwrap(), 0);
        drop(tunnel);
        echoes(&mut second).await;
        drop(second);
        assert!(upstream.checkout().is_some());
        drained(&upstream).await;
        assert!(origin.connections.get() >= 1);
    });
}

#[test]
fn a_cut_of_requests_spares_tunnels() {
    local(async {
        let (over_http1, _script) = http1().await;
        let (over_http2, _origin) = http2().await;
        for (upstream, request) in [(over_http1, websocket_http1()), (over_http2, websocket_http2())] {
            let mut tunnel = open(&upstream, request).await;
            upstream.cut();
            echoes(&mut tunnel).await;
        }
    });
}

/// One connection carries all three.
#[test]
fn a_cut_ends_the_streams_beside_a_tunnel() {
    local(async {
        let enabled = |builder: &mut h2::server::Builder| {
            builder.enable_connect_protocol();
        };
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        let script = async move |request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>| {
            count.set(count.get() + 1);
            let mut held = Vec::new();
            match request.uri().path() {
                "/chat" => {
                    let send = respond.send_response(ok(), false).unwrap();
                    let mut tunnel = Duplex::new(request.into_body(), send);
                    tunnel.write_all(b"hello").await.unwrap();
                    let mut buffer = [0; 64];
                    while let Ok(n @ 1..) = tunnel.read(&mut buffer).await {
                        tunnel.write_all(&buffer[..n]).await.unwrap();
                    }
                }
                "/body" => held.push(respond.send_response(ok(), false).unwrap()),
                _ => {}
            }
            let reset = std::future::poll_fn(|cx| match held.first_mut() {
                Some(send) => send.poll_reset(cx),
                None => respond.poll_reset(cx),
            });
            assert_eq!(reset.await.unwrap(), h2::Reason::CANCEL);
        };
        let script = Rc::new(script);
        let origin = Origin::new(enabled, move |request, respond| {
            let script = script.clone();
            async move { script(request, respond).await }
        });
        let origin = origin.await;
        let upstream = origin.upstream();
        let mut tunnel = open(&upstream, websocket_http2()).await;
        let mut with_body = upstream.checkout().unwrap();
        let answer = send(&mut with_body, get("/body")).await.unwrap();
        let mut waiting = upstream.checkout().unwrap();
        let no_answer = tokio::task::spawn_local(async move { send(&mut waiting, get("/none")).await.map(drop) });
        let body = tokio::task::spawn_local(async move { answer.into_body().collect().await.map(drop) });
        until("both are waiting", || asked.get() == 3).await;
        upstream.cut();
        body.await.unwrap().expect_err("its stream is cut");
        assert_eq!(no_answer.await.unwrap().expect_err("so is this one").kind, SendFault::Closed);
        echoes(&mut tunnel).await;
        assert_eq!(origin.connections.get(), 1);
    });
}

#[test]
fn where_it_is_not_enabled_the_request_comes_back() {
    local(async {
        let plain = Origin::new(|_| {}, super::http2::answer).await;
        let (over_http1, _script) = http1().await;
        for upstream in [plain.upstream(), over_http1] {
            let mut lease = upstream.dial(None).await.unwrap();
            let error = send(&mut lease, websocket_http2()).await.expect_err("not enabled");
            assert_eq!(error.kind, SendFault::NoExtendedConnect);
            assert_eq!(error.request.unwrap().method(), http::Method::CONNECT);
        }
    });
}

#[test]
fn another_answer_opens_no_tunnel() {
    local(async {
        let (listener, address) = listener().await;
        let upstream = upstream_with(address, cleartext(Protocol::Auto));
        origin(async move {
            let mut wire = Wire::accept(&listener).await;
            wire.head().await;
            wire.write("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
            wire.ended().await;
        });
        let mut lease = upstream.dial(None).await.unwrap();
        let mut response = send(&mut lease, websocket_http1()).await.unwrap();
        let error = lease.into_tunnel(&mut response).await.expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        until("the connection is gone", || live(&upstream) == 0).await;
    });
}
