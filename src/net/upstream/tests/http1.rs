//! HTTP/1.1: reuse, interim answers, trailers, early answers and every way an answer can go wrong.

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An upstream with one new connection, and its other end.
async fn connected() -> (Rc<Upstream<TestBody>>, Lease<TestBody>, Wire) {
    let (listener, address) = listener().await;
    let upstream = upstream_with(address, cleartext(Protocol::Auto));
    let lease = upstream.dial(None).await.unwrap();
    let wire = Wire::accept(&listener).await;
    (upstream, lease, wire)
}

/// What a request comes to if the origin answers it with `bytes` and then closes.
async fn fault_after(bytes: Vec<u8>) -> SendFault {
    let (upstream, mut lease, mut wire) = connected().await;
    let script = origin(async move {
        wire.head().await;
        // It may have been hung up on in the middle.
        let _ = wire.stream.write_all(&bytes).await;
        let _ = wire.stream.shutdown().await;
        wire.ended().await;
    });
    let fault = fault_of(&mut lease, get("/")).await;
    drop(lease);
    script.await.unwrap();
    until("the connection is gone", || live(&upstream) == 0).await;
    fault
}

#[test]
fn a_connection_is_used_again_and_te_does_not_go_on() {
    local(async {
        let (upstream, mut lease, mut wire) = connected().await;
        assert!(!lease.reused && !lease.is_http2());
        let script = origin(async move {
            for _ in 0..2 {
                let head = wire.head().await;
                assert!(head.starts_with("GET /a HTTP/1.1\r\n") && !head.contains("te:"), "{head}");
                wire.write(OK).await;
            }
            wire.ended().await;
        });
        for _ in 0..2 {
            let mut request = get("/a");
            request.headers_mut().insert("te", "trailers".parse().unwrap());
            let answer = send(&mut lease, request).await.unwrap();
            assert_eq!(read(answer).await.0, "ok");
            lease.give_back();
            until("it is idle", || !upstream.idle.borrow().is_empty()).await;
            lease = upstream.checkout().unwrap();
            assert!(lease.reused);
        }
        assert_eq!(live(&upstream), 1);
        lease.give_back();
        drained(&upstream).await;
        script.await.unwrap();
    });
}

#[test]
fn one_that_was_closed_or_says_something_unasked_is_not_used_again() {
    local(async {
        for unasked in ["", OK] {
            let (upstream, mut lease, mut wire) = connected().await;
            let script = origin(async move {
                wire.head().await;
                wire.write(OK).await;
                wire.write(unasked).await;
                drop(wire);
            });
            read(send(&mut lease, get("/")).await.unwrap()).await;
            lease.give_back();
            script.await.unwrap();
            until("the connection is gone", || live(&upstream) == 0).await;
            assert!(upstream.checkout().is_none());
        }
    });
}

#[test]
fn idle_connections_are_bounded_and_age() {
    local(async {
        let (listener, address) = listener().await;
        let settings = Settings { idle_cap: 1, idle_for: Some(Duration::from_secs(5)), ..cleartext(Protocol::Auto) };
        let upstream = upstream_with(address, settings);
        let mut leases = Vec::new();
        for _ in 0..2 {
            let mut lease = upstream.dial(None).await.unwrap();
            let mut wire = Wire::accept(&listener).await;
            origin(async move {
                wire.head().await;
                wire.write(OK).await;
                wire.ended().await;
            });
            read(send(&mut lease, get("/")).await.unwrap()).await;
            leases.push(lease);
        }
        leases.into_iter().for_each(Lease::give_back);
        until("one of the two is gone", || live(&upstream) == 1).await;
        let now = Instant::now();
        upstream.tidy(now, false);
        upstream.tidy(now + Duration::from_secs(4), false);
        assert_eq!(upstream.idle.borrow().len(), 1);
        upstream.tidy(now + Duration::from_secs(5), false);
        until("it has aged", || live(&upstream) == 0).await;
    });
}

#[test]
fn an_old_connection_takes_no_new_request() {
    local(async {
        let (listener, address) = listener().await;
        let aged = |age| Settings { max_age: Some(age), ..cleartext(Protocol::Auto) };
        let upstream = upstream_with(address, aged(Duration::from_secs(60)));
        for (age, kept) in [(Duration::from_secs(60), true), (Duration::ZERO, false)] {
            upstream.configure(aged(age));
            let mut lease = upstream.dial(None).await.unwrap();
            let mut wire = Wire::accept(&listener).await;
            origin(async move {
                wire.head().await;
                wire.write(OK).await;
                wire.ended().await;
            });
            read(send(&mut lease, get("/")).await.unwrap()).await;
            lease.give_back();
            until("it is settled", || kept == (upstream.idle.borrow().len() == 1)).await;
            let now = Instant::now();
            upstream.tidy(now + Duration::from_secs(50), false);
            assert_eq!(upstream.idle.borrow().len(), usize::from(kept));
            upstream.tidy(now + Duration::from_secs(61), false);
            until("it is too old", || live(&upstream) == 0).await;
        }
    });
}

#[test]
fn interim_answers_are_handed_over_while_the_answer_is_awaited() {
    local(async {
        let (_upstream, mut lease, mut wire) = connected().await;
        let (seen_to, mut seen) = mpsc::unbounded_channel();
        origin(async move {
            wire.head().await;
            wire.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await;
            // The answer comes only when the interim ones have arrived.
            assert_eq!(seen.recv().await, Some(100));
            assert_eq!(seen.recv().await, Some(103));
            wire.write("HTTP/1.1 102 Processing\r\n\r\n").await;
            wire.write(OK).await;
            wire.ended().await;
        });
        let mut all = Vec::new();
        let mut interim = |answer: Response<()>| {
            all.push(answer.status().as_u16());
            let _ = seen_to.send(answer.status().as_u16());
        };
        let answer = lease.send(get("/"), &mut interim).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(all, [100, 103, 102]);
    });
}

#[test]
fn a_storm_of_interim_answers_ends_the_connection() {
    local(async {
        let storm = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(5000).into_bytes();
        assert_eq!(fault_after(storm).await, SendFault::TooManyInterim);
    });
}

#[test]
fn answers_that_are_none() {
    local(async {
        let long_head = [&b"HTTP/1.1 200 OK\r\na: "[..], &[b'x'; 70_000], b"\r\n\r\n"].concat();
        let many_fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(200)).into_bytes();
        assert_eq!(fault_after(long_head).await, SendFault::HeadTooLarge);
        assert_eq!(fault_after(many_fields).await, SendFault::HeadTooLarge);
        assert_eq!(fault_after(Vec::new()).await, SendFault::Closed);
        for broken in [
            "HTTP/1.1 600 Odd\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 1000 Odd\r\ncontent-length: 0\r\n\r\n",
            "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\ncontent-le",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HT",
            "SSH-2.0-OpenSSH_9.9\r\n",
        ] {
            assert_eq!(fault_after(broken.as_bytes().to_vec()).await, SendFault::Protocol, "{broken}");
        }
    });
}

#[test]
fn trailers_pass_both_ways() {
    local(async {
        let (upstream, mut lease, mut wire) = connected().await;
        let script = origin(async move {
            let head = wire.head().await;
            assert!(head.contains("transfer-encoding: chunked") && head.contains("trailer: x-sum"), "{head}");
            assert_eq!(wire.read_to("0\r\nx-sum: 7\r\n\r\n").await, "4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n");
            wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: grpc-status\r\n\r\n").await;
            wire.write("2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n").await;
            wire.ended().await;
        });
        let (body, feed) = TestBody::fed();
        let mut request = post(body);
        request.headers_mut().insert("trailer", "x-sum".parse().unwrap());
        feed.send(Ok(Frame::data(Bytes::from_static(b"body")))).unwrap();
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
        feed.send(Ok(Frame::trailers(trailers))).unwrap();
        drop(feed);
        let (text, trailers) = read(send(&mut lease, request).await.unwrap()).await;
        assert_eq!((text.as_str(), &trailers["grpc-status"]), ("ok", &"0".parse().unwrap()));
        lease.give_back();
        drained(&upstream).await;
        script.await.unwrap();
    });
}

#[test]
fn after_an_early_answer_a_connection_is_idle_only_when_the_upload_has_ended() {
    local(async {
        let (upstream, mut lease, mut wire) = connected().await;
        let script = origin(async move {
            wire.head().await;
            wire.write(OK).await;
            wire.read_to("0\r\n\r\n").await;
            wire.ended().await;
        });
        let (body, feed) = TestBody::fed();
        read(send(&mut lease, post(body)).await.unwrap()).await;
        lease.give_back();
        tokio::task::yield_now().await;
        assert!(upstream.checkout().is_none());
        drop(feed);
        until("it is idle", || !upstream.idle.borrow().is_empty()).await;
        drained(&upstream).await;
        script.await.unwrap();
    });
}

#[test]
fn an_upload_that_goes_on_for_too_long_after_its_answer_ends_the_connection() {
    local(async {
        let (upstream, mut lease, mut wire) = connected().await;
        let script = origin(async move {
            wire.head().await;
            wire.write(OK).await;
            wire.ended().await;
        });
        let (body, _feed) = TestBody::fed();
        read(send(&mut lease, post(body)).await.unwrap()).await;
        lease.give_back();
        tokio::time::pause();
        until("the connection is gone", || live(&upstream) == 0).await;
        tokio::time::resume();
        script.await.unwrap();
    });
}

#[test]
fn an_upload_that_is_too_large_after_its_answer_ends_the_connection() {
    local(async {
        let (upstream, mut lease, mut wire) = connected().await;
        let (body, feed) = TestBody::fed();
        let (given_back, is_given_back) = tokio::sync::oneshot::channel::<()>();
        let script = origin(async move {
            wire.head().await;
            wire.write(OK).await;
            is_given_back.await.unwrap();
            for _ in 0..10 {
                feed.send(Ok(Frame::data(vec![b'x'; 10_000].into()))).unwrap();
            }
            wire.ended().await;
            assert!(!wire.ahead.ends_with(b"0\r\n\r\n") && wire.ahead.len() < 100_000, "it was cut");
        });
        read(send(&mut lease, post(body)).await.unwrap()).await;
        lease.give_back();
        given_back.send(()).unwrap();
        script.await.unwrap();
        until("the connection is gone", || live(&upstream) == 0).await;
    });
}

#[test]
fn a_body_that_fails_is_our_fault_and_is_never_completed() {
    local(async {
        let (upstream, mut lease, mut wire) = connected().await;
        let (body, feed) = TestBody::fed();
        feed.send(Ok(Frame::data(Bytes::from_static(b"part")))).unwrap();
        let script = origin(async move {
            wire.read_to("part\r\n").await;
            feed.send(Err(io::Error::other("the client has gone"))).unwrap();
            wire.ended().await;
            assert!(wire.ahead.is_empty(), "no last chunk");
        });
        assert_eq!(fault_of(&mut lease, post(body)).await, SendFault::Body);
        drop(lease);
        script.await.unwrap();
        until("the connection is gone", || live(&upstream) == 0).await;
    });
}

#[test]
fn a_lease_that_is_dropped_ends_its_connection() {
    local(async {
        let (upstream, mut lease, mut wire) = connected().await;
        {
            let mut interim = |_| {};
            let answer = lease.send(get("/"), &mut interim);
            tokio::select! {
                biased;
                _ = answer => panic!("there is no answer"),
                _ = wire.head() => {}
            }
        }
        drop(lease);
        wire.ended().await;
        until("the connection is gone", || live(&upstream) == 0).await;
    });
}

#[test]
fn a_cut_ends_an_exchange_and_an_answer_in_its_middle() {
    local(async {
        let (upstream, mut lease, mut wire) = connected().await;
        let cutter = upstream.clone();
        let script = origin(async move {
            wire.head().await;
            cutter.cut();
            wire.ended().await;
        });
        assert_eq!(fault_of(&mut lease, get("/")).await, SendFault::Closed);
        script.await.unwrap();

        let (upstream, mut lease, mut wire) = connected().await;
        let script = origin(async move {
            wire.head().await;
            wire.write("HTTP/1.1 200 OK\r\n\r\npart").await;
            wire.ended().await;
        });
        let answer = send(&mut lease, get("/")).await.unwrap();
        upstream.cut();
        answer.into_body().collect().await.expect_err("the answer is cut");
        script.await.unwrap();
        assert_eq!(live(&upstream), 0);
    });
}

#[test]
fn a_request_that_was_not_written_comes_back() {
    local(async {
        let (upstream, mut lease, wire) = connected().await;
        drop(wire);
        until("the connection is gone", || live(&upstream) == 0).await;
        let error = send(&mut lease, get("/back")).await.expect_err("there is no answer");
        assert_eq!(error.kind, SendFault::Closed);
        assert_eq!(error.request.unwrap().uri(), "/back");
    });
}
