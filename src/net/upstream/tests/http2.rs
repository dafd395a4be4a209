//! HTTP/2 as it should be: shared connections, the request's form, interim answers, trailers, uploads, idle ends.

use std::cell::RefCell;
use std::future::Future;

use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use tokio::sync::Notify;

use super::*;

type Handled = Pin<Box<dyn Future<Output = ()>>>;

/// An origin over HTTP/2 with prior knowledge; every request is given to `handle`.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    pub(super) connections: Rc<Cell<usize>>,
    /// Tells every connection to end when its streams have.
    pub(super) goes_away: Rc<Notify>,
}

impl Origin {
    pub(super) async fn new<F: Future<Output = ()> + 'static>(
        settings: impl Fn(&mut Builder) + 'static,
        handle: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + 'static,
    ) -> Self {
        let (listener, address) = listener().await;
        let origin = Self { address, connections: Rc::default(), goes_away: Rc::default() };
        let (count, goes_away) = (origin.connections.clone(), origin.goes_away.clone());
        let handle: Rc<dyn Fn(_, _) -> Handled> = Rc::new(move |request, respond| Box::pin(handle(request, respond)));
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.set(count.get() + 1);
                let mut builder = Builder::new();
                settings(&mut builder);
                tokio::task::spawn_local(serve(stream, builder, handle.clone(), goes_away.clone()));
            }
        });
        origin
    }

    pub(super) fn upstream(&self) -> Rc<Upstream<TestBody>> {
        upstream_with(self.address, cleartext(Protocol::Http2))
    }
}

async fn serve(
    stream: TcpStream,
    builder: Builder,
    handle: Rc<dyn Fn(Request<RecvStream>, SendResponse<Bytes>) -> Handled>,
    goes_away: Rc<Notify>,
) {
    let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
    let mut told = false;
    loop {
        tokio::select! {
            next = connection.accept() => match next {
                Some(Ok((request, respond))) => drop(tokio::task::spawn_local(handle(request, respond))),
                Some(Err(_)) | None => return,
            },
            () = goes_away.notified(), if !told => {
                told = true;
                connection.graceful_shutdown();
            }
        }
    }
}

pub(super) fn ok() -> Response<()> {
    Response::new(())
}

pub(super) async fn answer(_: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    respond.send_response(ok(), false).unwrap().send_data(Bytes::from_static(b"ok"), true).unwrap();
}

pub(super) async fn body_of(request: Request<RecvStream>) -> (usize, Option<HeaderMap>) {
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        length += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    (length, body.trailers().await.unwrap())
}

#[test]
fn one_connection_carries_many_requests_in_http2s_own_form() {
    local(async {
        let seen: Rc<RefCell<Vec<Request<()>>>> = Rc::default();
        let log = seen.clone();
        let origin = Origin::new(
            |_| {},
            move |request, respond| {
                let (parts, body) = request.into_parts();
                log.borrow_mut().push(Request::from_parts(parts, ()));
                answer(Request::new(body), respond)
            },
        )
        .await;
        let upstream = origin.upstream();
        let mut first = upstream.dial(None).await.unwrap();
        let mut second = upstream.checkout().unwrap();
        assert!(first.is_http2() && !first.reused && second.is_http2() && second.reused);
        let mut request = get("/a?b");
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        let answers = tokio::join!(send(&mut first, request), send(&mut second, get("/c")));
        for answer in [answers.0.unwrap(), answers.1.unwrap()] {
            assert_eq!(answer.version(), http::Version::HTTP_2);
            assert_eq!(read(answer).await.0, "ok");
        }
        first.give_back();
        second.give_back();
        let seen = seen.take();
        assert_eq!(seen[0].uri(), "http://shop.test/a?b");
        assert_eq!(seen[0].headers().iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["te"]);
        assert_eq!(seen[1].uri(), "http://shop.test/c");
        assert_eq!((origin.connections.get(), live(&upstream)), (1, 1));
        drained(&upstream).await;
    });
}

#[test]
fn interim_answers_are_handed_over_while_the_answer_is_awaited() {
    local(async {
        let (seen_to, seen) = mpsc::unbounded_channel();
        let seen = Rc::new(RefCell::new(Some(seen)));
        let origin = Origin::new(
            |_| {},
            move |_, mut respond| {
                let mut seen = seen.take().unwrap();
                async move {
                    for status in [103u16, 102] {
                        let interim = Response::builder().status(status).body(()).unwrap();
                        respond.send_informational(interim).unwrap();
                        assert_eq!(seen.recv().await, Some(status));
                    }
                    respond.send_response(ok(), true).unwrap();
                }
            },
        )
        .await;
        let mut lease = origin.upstream().dial(None).await.unwrap();
        let mut interim = |answer: Response<()>| seen_to.send(answer.status().as_u16()).unwrap();
        assert_eq!(lease.send(get("/"), &mut interim).await.unwrap().status(), 200);
    });
}

#[test]
fn trailers_pass_both_ways() {
    local(async {
        let origin = Origin::new(
            |_| {},
            |request, mut respond| async move {
                let (length, trailers) = body_of(request).await;
                assert_eq!((length, &trailers.unwrap()["x-sum"]), (4, &"7".parse().unwrap()));
                let mut stream = respond.send_response(ok(), false).unwrap();
                stream.send_data(Bytes::from_static(b"ok"), false).unwrap();
                let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
                stream.send_trailers(trailers).unwrap();
            },
        )
        .await;
        let mut lease = origin.upstream().dial(None).await.unwrap();
        let (body, feed) = TestBody::fed();
        feed.send(Ok(Frame::data(Bytes::from_static(b"body")))).unwrap();
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
        feed.send(Ok(Frame::trailers(trailers))).unwrap();
        let (text, trailers) = read(send(&mut lease, post(body)).await.unwrap()).await;
        assert_eq!((text.as_str(), &trailers["grpc-status"]), ("ok", &"0".parse().unwrap()));
        lease.give_back();
    });
}

#[test]
fn an_upload_keeps_to_the_peers_window() {
    const PIECE: usize = 100_000;
    local(async {
        let origin = Origin::new(
            |builder| {
                builder.initial_window_size(10_000).initial_connection_window_size(70_000);
            },
            |request, mut respond| async move {
                let (length, _) = body_of(request).await;
                let length = Bytes::from(length.to_string());
                respond.send_response(ok(), false).unwrap().send_data(length, true).unwrap();
            },
        )
        .await;
        let upstream = origin.upstream();
        let mut lease = upstream.dial(None).await.unwrap();
        let (body, feed) = TestBody::fed();
        for _ in 0..10 {
            feed.send(Ok(Frame::data(vec![b'x'; PIECE].into()))).unwrap();
        }
        drop(feed);
        let (text, _) = read(send(&mut lease, post(body)).await.unwrap()).await;
        assert_eq!(text, (10 * PIECE).to_string());
        lease.give_back();
        drained(&upstream).await;
    });
}

#[test]
fn a_large_answer_comes_through_our_windows() {
    local(async {
        let origin = Origin::new(
            |_| {},
            |_, mut respond| async move {
                let mut stream = respond.send_response(ok(), false).unwrap();
                stream.send_data(vec![b'y'; 3_000_000].into(), true).unwrap();
            },
        )
        .await;
        let mut lease = origin.upstream().dial(None).await.unwrap();
        let (text, _) = read(send(&mut lease, get("/")).await.unwrap()).await;
        assert_eq!(text.len(), 3_000_000);
    });
}

#[test]
fn an_early_answer_ends_an_upload_that_goes_on_too_long() {
    local(async {
        let (over_to, mut over) = mpsc::unbounded_channel();
        let origin = Origin::new(
            |_| {},
            move |request, mut respond| {
                let over = over_to.clone();
                async move {
                    respond.send_response(ok(), true).unwrap();
                    // The stream's end, by an error: the upload was not completed.
                    let mut body = request.into_body();
                    while let Some(data) = body.data().await {
                        if let Err(error) = data {
                            let _ = over.send(error.reason());
                            return;
                        }
                    }
                    let _ = over.send(None);
                }
            },
        )
        .await;
        let upstream = origin.upstream();
        let mut lease = upstream.dial(None).await.unwrap();
        let (body, _feed) = TestBody::fed();
        read(send(&mut lease, post(body)).await.unwrap()).await;
        lease.give_back();
        assert_eq!(over.recv().await.unwrap(), Some(h2::Reason::CANCEL));
        assert!(upstream.checkout().is_some(), "the connection serves on");
        assert_eq!(live(&upstream), 1);
    });
}

#[test]
fn a_lease_that_is_dropped_resets_its_stream_and_nothing_else() {
    local(async {
        let (over_to, mut over) = mpsc::unbounded_channel();
        let origin = Origin::new(
            |_| {},
            move |request, mut respond| {
                let over = over_to.clone();
                async move {
                    if request.uri().path() == "/quick" {
                        return answer(request, respond).await;
                    }
                    let _ = over.send(None);
                    let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                    let _ = over.send(Some(reset.unwrap()));
                }
            },
        )
        .await;
        let upstream = origin.upstream();
        let mut lease = upstream.dial(None).await.unwrap();
        {
            let mut interim = |_| {};
            let waiting = lease.send(get("/slow"), &mut interim);
            tokio::select! {
                biased;
                _ = waiting => panic!("there is no answer"),
                begun = over.recv() => assert_eq!(begun, Some(None)),
            }
        }
        drop(lease);
        assert_eq!(over.recv().await, Some(Some(h2::Reason::CANCEL)));
        let mut lease = upstream.checkout().expect("the connection serves on");
        assert_eq!(read(send(&mut lease, get("/quick")).await.unwrap()).await.0, "ok");
        lease.give_back();
        assert_eq!(origin.connections.get(), 1);
        drained(&upstream).await;
    });
}

#[test]
fn an_unused_connection_ages_and_a_used_one_does_not() {
    local(async {
        let origin = Origin::new(|_| {}, answer).await;
        let settings = Settings { idle_for: Some(Duration::from_secs(5)), ..cleartext(Protocol::Http2) };
        let upstream = upstream_with(origin.address, settings);
        let mut lease = upstream.dial(None).await.unwrap();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        upstream.tidy(at(0), false);
        upstream.tidy(at(9), false);
        assert_eq!(live(&upstream), 1, "a stream is on it");
        read(send(&mut lease, get("/")).await.unwrap()).await;
        lease.give_back();
        upstream.tidy(at(10), false);
        upstream.tidy(at(14), false);
        upstream.checkout().unwrap().give_back();
        upstream.tidy(at(16), false);
        upstream.tidy(at(20), false);
        assert!(upstream.checkout().is_some(), "it was used in between");
        upstream.tidy(at(30), false);
        upstream.tidy(at(35), false);
        until("it has aged", || live(&upstream) == 0).await;
    });
}

#[test]
fn an_old_connection_finishes_what_it_has_and_takes_nothing_new() {
    local(async {
        let origin = Origin::new(|_| {}, answer).await;
        let settings = Settings { max_age: Some(Duration::from_secs(10)), ..cleartext(Protocol::Http2) };
        let upstream = upstream_with(origin.address, settings);
        let mut lease = upstream.dial(None).await.unwrap();
        let now = Instant::now();
        upstream.tidy(now + Duration::from_secs(8), false);
        drop(upstream.checkout().expect("not old yet"));
        upstream.tidy(now + Duration::from_secs(11), false);
        assert!(upstream.checkout().is_none());
        assert_eq!(read(send(&mut lease, get("/")).await.unwrap()).await.0, "ok");
        lease.give_back();
        until("it has ended", || live(&upstream) == 0).await;
    });
}

#[test]
fn what_was_made_with_other_settings_serves_no_new_request() {
    local(async {
        let origin = Origin::new(|_| {}, answer).await;
        let upstream = origin.upstream();
        let mut lease = upstream.dial(None).await.unwrap();
        upstream.configure(cleartext(Protocol::Http2));
        drop(upstream.checkout().expect("nothing has changed"));
        upstream.configure(cleartext(Protocol::Http1));
        assert!(upstream.checkout().is_none());
        // What runs goes on.
        assert_eq!(read(send(&mut lease, get("/")).await.unwrap()).await.0, "ok");
        lease.give_back();
        until("the connection is gone", || live(&upstream) == 0).await;
    });
}

/// A client that does not read leaves what its stream gets here; others on the same connection must not suffer for it.
#[test]
fn small_messages_that_nobody_reads_do_not_end_the_connection() {
    const MESSAGES: usize = 5000;
    local(async {
        let messages = |request: Request<RecvStream>, mut respond: SendResponse<Bytes>| async move {
            let is_many = request.uri().path() == "/many";
            let mut stream = respond.send_response(ok(), false).unwrap();
            for _ in 0..if is_many { MESSAGES } else { 1 } {
                stream.reserve_capacity(5);
                // One frame each, as the window and the connection take them.
                std::future::poll_fn(|cx| {
                    if stream.capacity() >= 5 { Poll::Ready(()) } else { stream.poll_capacity(cx).map(drop) }
                })
                .await;
                stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
                tokio::task::yield_now().await;
            }
            stream.send_data(Bytes::new(), true).unwrap();
        };
        let origin = Origin::new(|_| {}, messages).await;
        let upstream = origin.upstream();
        let mut slow = upstream.dial(None).await.unwrap();
        let unread = send(&mut slow, get("/many")).await.unwrap();
        for _ in 0..MESSAGES {
            tokio::task::yield_now().await;
        }
        let mut other = upstream.checkout().unwrap();
        assert_eq!(read(send(&mut other, get("/")).await.unwrap()).await.0, "hello");
        assert_eq!(read(unread).await.0.len(), 5 * MESSAGES);
        assert_eq!(origin.connections.get(), 1);
    });
}
