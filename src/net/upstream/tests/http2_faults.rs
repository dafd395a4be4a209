//! HTTP/2 as it goes wrong: refusals, GOAWAY, storms, heads that are none, dead connections.

use h2::Reason;
use h2::server::SendResponse;

use super::http2::{Origin, answer, ok};
use super::*;

const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// GOAWAY without an error.
fn go_away(last: u32) -> Vec<u8> {
    frame(GO_AWAY, 0, 0, &[last.to_be_bytes(), 0u32.to_be_bytes()].concat())
}

/// A literal field without Huffman coding or index (RFC 7541 section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |t: &str| [&[u8::try_from(t.len()).unwrap()], t.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

impl Wire {
    /// Speaks first: an HTTP/2 connection without settings of its own.
    async fn begin_http2(&mut self) {
        self.bytes(PREFACE).await;
        self.write(frame(SETTINGS, 0, 0, &[])).await;
    }

    /// Reads frames up to one of a kind; its stream.
    async fn frame(&mut self, wanted: u8) -> u32 {
        loop {
            let head = self.bytes(9).await;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            self.bytes(length).await;
            if head[3] == wanted {
                return u32::from_be_bytes(head[5..9].try_into().unwrap());
            }
        }
    }
}

/// An upstream and a lease on a raw HTTP/2 connection.
async fn raw() -> (Rc<Upstream<TestBody>>, Lease<TestBody>, Wire, TcpListener) {
    let (listener, address) = listener().await;
    let upstream = upstream_with(address, cleartext(Protocol::Http2));
    let accept = async {
        let mut wire = Wire::accept(&listener).await;
        wire.begin_http2().await;
        wire
    };
    let (lease, wire) = tokio::join!(upstream.dial(None), accept);
    (upstream, lease.unwrap(), wire, listener)
}

/// What the raw answer `bytes` on stream 1 comes to.
async fn fault_after(bytes: Vec<u8>) -> SendFault {
    let (_upstream, mut lease, mut wire, _listener) = raw().await;
    origin(async move {
        wire.frame(HEADERS).await;
        wire.write(bytes).await;
        wire.ended().await;
    });
    fault_of(&mut lease, get("/")).await
}

async fn refuse(_: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    respond.send_reset(Reason::REFUSED_STREAM);
}

#[test]
fn a_refused_request_comes_back_if_its_body_was_not_touched() {
    local(async {
        let origin = Origin::new(|_| {}, refuse).await;
        let upstream = origin.upstream();
        let mut lease = upstream.dial(None).await.unwrap();
        let error = send(&mut lease, get("/a")).await.expect_err("refused");
        let request = error.request.expect("it is back");
        assert_eq!((error.kind, request.uri().path()), (SendFault::Closed, "/a"));
        assert_eq!(request.headers()["host"], "shop.test");
        drop(lease);

        let mut lease = upstream.checkout().expect("only the stream was refused");
        let body = TestBody::full("gone");
        let is_touched = body.is_touched.clone();
        let error = send(&mut lease, post(body)).await.expect_err("refused");
        assert_eq!(error.request.is_some(), !is_touched.get());
        assert!(is_touched.get(), "there was room to send");
    });
}

#[test]
fn without_room_a_body_is_not_touched_and_comes_back() {
    local(async {
        let closed = |builder: &mut h2::server::Builder| {
            builder.initial_window_size(0);
        };
        let origin = Origin::new(closed, refuse).await;
        let mut lease = origin.upstream().dial(None).await.unwrap();
        let error = send(&mut lease, post(TestBody::full("kept"))).await.expect_err("refused");
        let body = error.request.expect("it is back").into_body();
        assert!(!body.is_touched.get());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "kept");
    });
}

#[test]
fn a_reset_for_another_reason_is_not_said_to_be_unsent() {
    local(async {
        let reset = |_, mut respond: SendResponse<Bytes>| async move { respond.send_reset(Reason::INTERNAL_ERROR) };
        let origin = Origin::new(|_| {}, reset).await;
        let mut lease = origin.upstream().dial(None).await.unwrap();
        let error = send(&mut lease, get("/")).await.expect_err("reset");
        assert!(error.request.is_none());
        assert_eq!(error.kind, SendFault::Closed);
    });
}

#[test]
fn requests_above_a_go_aways_last_stream_come_back_and_others_are_answered() {
    local(async {
        let (upstream, mut first, mut wire, _listener) = raw().await;
        let mut second = upstream.checkout().unwrap();
        let script = origin(async move {
            assert_eq!(wire.frame(HEADERS).await, 1);
            assert_eq!(wire.frame(HEADERS).await, 3);
            wire.write(go_away(1)).await;
            // 0x88: `:status` 200 of the static table.
            wire.write(frame(HEADERS, END_HEADERS, 1, &[0x88])).await;
            wire.write(frame(DATA, END_STREAM, 1, b"ok")).await;
            wire.ended().await;
        });
        let (answered, refused) = tokio::join!(send(&mut first, get("/1")), send(&mut second, get("/3")));
        assert_eq!(read(answered.unwrap()).await.0, "ok");
        assert_eq!(refused.expect_err("refused").request.unwrap().uri().path(), "/3");
        assert!(upstream.checkout().is_none(), "no new request goes there");
        first.give_back();
        drop(second);
        upstream.tidy(Instant::now(), false);
        until("its last stream ends it", || live(&upstream) == 0).await;
        script.await.unwrap();
    });
}

#[test]
fn a_connection_that_ends_after_a_go_away_does_not_say_that_its_requests_were_unsent() {
    local(async {
        let (_upstream, mut lease, mut wire, _listener) = raw().await;
        origin(async move {
            wire.frame(HEADERS).await;
            wire.write(go_away(1)).await;
            drop(wire);
        });
        let error = send(&mut lease, get("/")).await.expect_err("closed");
        assert!(error.request.is_none());
        assert_eq!(error.kind, SendFault::Closed);
    });
}

#[test]
fn told_to_end_a_connection_finishes_and_the_next_request_opens_another() {
    local(async {
        let origin = Origin::new(|_| {}, answer).await;
        let upstream = origin.upstream();
        let mut lease = upstream.dial(None).await.unwrap();
        origin.goes_away.notify_one();
        read(send(&mut lease, get("/")).await.unwrap()).await;
        until("it serves no new request", || upstream.checkout().is_none()).await;
        lease.give_back();
        let mut lease = upstream.dial(None).await.unwrap();
        read(send(&mut lease, get("/")).await.unwrap()).await;
        lease.give_back();
        assert_eq!(origin.connections.get(), 2);
        upstream.tidy(Instant::now(), false);
        until("the first is gone", || live(&upstream) == 1).await;
    });
}

#[test]
fn answers_that_are_none() {
    local(async {
        for status in ["600", "99", "abc"] {
            let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &field(":status", status));
            assert_eq!(fault_after(head).await, SendFault::Protocol, "{status}");
        }
        let switch = frame(HEADERS, END_HEADERS, 1, &field(":status", "101"));
        assert_eq!(fault_after(switch).await, SendFault::Protocol);
        let no_status = frame(HEADERS, END_HEADERS | END_STREAM, 1, &field("a", "b"));
        assert_eq!(fault_after(no_status).await, SendFault::Protocol);
        assert_eq!(fault_after(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await, SendFault::Protocol);
    });
}

#[test]
fn a_storm_of_interim_answers_ends_the_use_of_the_connection() {
    local(async {
        let early = frame(HEADERS, END_HEADERS, 1, &field(":status", "103"));
        let (upstream, mut lease, mut wire, _listener) = raw().await;
        origin(async move {
            wire.frame(HEADERS).await;
            wire.write(early.repeat(11)).await;
            wire.ended().await;
        });
        let mut count = 0;
        let error = lease.send(get("/"), &mut |_| count += 1).await.expect_err("too many");
        assert_eq!((error.kind, count), (SendFault::TooManyInterim, 10));
        assert!(upstream.checkout().is_none());
        drop(lease);
        upstream.tidy(Instant::now(), false);
        until("the connection is gone", || live(&upstream) == 0).await;
    });
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    local(async {
        let large = |_, mut respond: SendResponse<Bytes>| async move {
            let mut head = ok();
            for n in 0..20 {
                let name: http::HeaderName = format!("x-{n}").parse().unwrap();
                head.headers_mut().insert(name, "v".repeat(4000).parse().unwrap());
            }
            let _ = respond.send_response(head, true);
        };
        let origin = Origin::new(|_| {}, large).await;
        let mut lease = origin.upstream().dial(None).await.unwrap();
        // The library does not tell it from a malformed one.
        assert_eq!(fault_of(&mut lease, get("/")).await, SendFault::Protocol);
    });
}

#[test]
fn a_body_that_fails_is_our_fault_and_resets_its_stream() {
    local(async {
        let (over_to, mut over) = mpsc::unbounded_channel();
        let wait = move |request: Request<h2::RecvStream>, _respond: SendResponse<Bytes>| {
            let over = over_to.clone();
            async move {
                let mut body = request.into_body();
                let end = loop {
                    match body.data().await {
                        Some(Ok(_)) => {}
                        end => break end.map(|e| e.unwrap_err().reason()),
                    }
                };
                over.send(end).unwrap();
            }
        };
        let origin = Origin::new(|_| {}, wait).await;
        let upstream = origin.upstream();
        let mut lease = upstream.dial(None).await.unwrap();
        let (body, feed) = TestBody::fed();
        feed.send(Ok(Frame::data(Bytes::from_static(b"part")))).unwrap();
        feed.send(Err(io::Error::other("the client has gone"))).unwrap();
        assert_eq!(fault_of(&mut lease, post(body)).await, SendFault::Body);
        assert_eq!(over.recv().await, Some(Some(Some(Reason::CANCEL))));
        drop(lease);
        assert!(upstream.checkout().is_some());
    });
}

#[test]
fn a_cut_ends_every_stream() {
    local(async {
        let (upstream, mut lease, mut wire, _listener) = raw().await;
        let cutter = upstream.clone();
        let script = origin(async move {
            wire.frame(HEADERS).await;
            cutter.cut();
            wire.frame(RST_STREAM).await;
            wire.ended().await;
        });
        assert_eq!(fault_of(&mut lease, get("/")).await, SendFault::Closed);
        drop(lease);
        // What drains keeps no connection without streams.
        upstream.tidy(Instant::now(), true);
        script.await.unwrap();
        assert!(upstream.checkout().is_none());
        until("the connection is gone", || live(&upstream) == 0).await;
    });
}
