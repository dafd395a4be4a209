//! Drain and shutdown as clients of each protocol see them: what they are told, in bytes, and what is counted.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::websocket::{Socket, WsOrigin};
use crate::support::{
    Conf, Connection, Failure, Frames, Gate, Instant, LIMIT, Origin, Weir, frames, free_address, wait_until,
};

/// Requests and streams, and tunnels, have so long.
const BRIEF: &str = "drain = { timeout = \"1s\", upgraded_timeout = \"3s\" }";
const EVENTS: &str = "GET /events HTTP/1.1\r\nHost: app.test\r\n\r\n";

/// What makes something go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The endpoint leaves the file.
    File,
    Endpoint,
    Version,
    /// The listener's address leaves the file.
    Listener,
    Term,
}

const ALL: [Way; 5] = [Way::File, Way::Endpoint, Way::Version, Way::Listener, Way::Term];

/// A weir before one origin of streams, and another one that stays.
struct Setup {
    weir: Weir,
    leaving: WsOrigin,
    staying: Origin,
    conf: Conf,
}

impl Setup {
    fn new() -> Self {
        let (leaving, staying) = (WsOrigin::new(), Origin::named("other"));
        let conf = Conf::one(leaving.origin.address).split(BRIEF).top("shutdown = { timeout = \"3s\" }");
        Self { weir: Weir::start(&conf), leaving, staying, conf }
    }

    /// Begins to drain, and returns once that is seen.
    fn go(&self, way: Way) {
        let path = "/api/v1/splits/shop/versions/v1/drain";
        let endpoint = self.leaving.origin.address.to_string();
        match way {
            Way::File => {
                let conf = Conf::one(self.staying.address).split(BRIEF).top("shutdown = { timeout = \"3s\" }");
                self.weir.edit(&conf);
                let new = self.staying.address.to_string();
                wait_until("the file is taken", || self.weir.admin.get("/api/v1/config").text().contains(&new));
            }
            Way::Endpoint => {
                let answer = self.weir.admin.post(path, json!({ "endpoint": endpoint }));
                assert_eq!(answer.status(), 200, "{}", answer.text());
            }
            Way::Version => assert_eq!(self.weir.admin.post(path, json!({})).status(), 200),
            Way::Listener => {
                self.weir.edit(&self.conf.clone().bind(free_address()));
                wait_until("the address is free", || Connection::open(self.weir.web()).is_err());
            }
            Way::Term => {
                self.weir.signal(Signal::TERM);
                wait_until("nobody new is accepted", || Connection::open(self.weir.web()).is_err());
            }
        }
    }

    /// In flight at the endpoint that leaves, by kind.
    fn left(&self) -> (u64, u64, u64) {
        let path = format!("/api/v1/splits/shop/versions/v1/drain?endpoint={}", self.leaving.origin.address);
        let counts = self.weir.admin.get(&path).json()["in_flight"].clone();
        let of = |kind: &str| counts[kind].as_u64().unwrap();
        (of("requests"), of("streams"), of("upgrades"))
    }

    /// Waits for the count, in the metrics or, of a process that has ended, in its last words.
    fn expect_cut(&mut self, way: Way, kind: &str, count: u64) {
        if way == Way::Term {
            assert_eq!(self.weir.wait_exit(LIMIT).code(), Some(0));
            let (log, wanted) = (self.weir.stderr(), format!("\"{kind}s_cut\":{count}"));
            let last = log.lines().find(|line| line.contains("\"ended\"")).unwrap_or_default();
            assert!(last.contains(&wanted), "no {wanted} in {log}");
            return;
        }
        let labels = [("split", "shop"), ("version", "v1"), ("kind", kind)];
        self.weir.admin.wait_metric("weir_drain_aborted_total", &labels, count as f64);
        if way != Way::Listener {
            let is_line = |line: &&str| line.contains("drain-cut") && line.contains(&format!("\"{kind}s\":{count}"));
            wait_until("the log tells", || self.weir.stderr().lines().filter(is_line).count() == 1);
        }
    }
}

#[test]
fn a_websocket_is_told_to_go_before_its_deadline() {
    for way in ALL {
        for open in [Socket::http1, Socket::http2] {
            let mut s = Setup::new();
            let mut socket = open(s.weir.web(), "/chat");
            socket.echoes();
            let begun = Instant::now();
            s.go(way);
            socket.echoes();
            if matches!(way, Way::File | Way::Endpoint | Way::Version) {
                assert_eq!(s.left(), (0, 0, 1), "{way:?}");
            }
            let (code, before) = socket.closes();
            assert_eq!((code, before), (if way == Way::Term { 1012 } else { 1001 }, Vec::new()), "{way:?}");
            // In the last half of its time, not when the drain begins.
            assert!(begun.elapsed() > Duration::from_secs(1), "{way:?} {:?}", begun.elapsed());
            wait_until("the origin is told", || s.leaving.closes().len() == 1);
            let theirs = &s.leaving.closes()[0];
            assert_eq!((theirs.code(), theirs.is_masked), (code, true), "{way:?}");
            s.expect_cut(way, "upgrade", 1);
        }
    }
}

#[test]
fn a_close_frame_stands_between_frames_also_in_a_flood() {
    for way in [Way::Endpoint, Way::Term] {
        for open in [Socket::http1, Socket::http2] {
            let mut s = Setup::new();
            let mut socket = open(s.weir.web(), "/flood");
            s.go(way);
            let (code, before) = socket.closes();
            assert_eq!(code, if way == Way::Term { 1012 } else { 1001 });
            assert!(before.len() > 10, "{} messages", before.len());
            for (n, message) in before.iter().enumerate() {
                let length = 40_000 + n % 7;
                assert_eq!((message.opcode, message.payload.len()), (2, length), "message {n}");
                assert!(message.payload.iter().enumerate().all(|(i, byte)| usize::from(*byte) == i % 256));
            }
            wait_until("the origin is told", || s.leaving.closes().len() == 1);
            s.expect_cut(way, "upgrade", 1);
        }
    }
}

#[test]
fn a_websocket_that_does_not_answer_is_not_waited_for() {
    let mut s = Setup::new();
    let mut socket = Socket::http1(s.weir.web(), "/chat");
    let begun = Instant::now();
    s.go(Way::Term);
    assert_eq!(socket.next().unwrap().code(), 1012);
    assert_eq!(socket.next().unwrap_err(), Failure::Cut("body at 0 of 2 bytes".into()), "the end, and nothing else");
    s.expect_cut(Way::Term, "upgrade", 1);
    assert!(begun.elapsed() < Duration::from_secs(3 + 5), "{:?}", begun.elapsed());
}

#[test]
fn an_undrain_in_time_spares_a_websocket() {
    let s = Setup::new();
    let mut socket = Socket::http1(s.weir.web(), "/chat");
    let begun = Instant::now();
    s.go(Way::Version);
    socket.echoes();
    assert_eq!(s.weir.admin.post("/api/v1/splits/shop/versions/v1/undrain", json!({})).status(), 200);
    // Through the whole time of the drain that was called off, and beyond.
    while begun.elapsed() < Duration::from_secs(4) {
        socket.echoes();
    }
    assert_eq!(s.leaving.closes(), []);
    assert_eq!(s.weir.admin.count("weir_drain_aborted_total", &[]), 0.0);
}

#[test]
fn a_reload_in_the_middle_does_not_prolong_a_drain() {
    let s = Setup::new();
    let mut socket = Socket::http1(s.weir.web(), "/chat");
    let begun = Instant::now();
    s.go(Way::Endpoint);
    let long = "drain = { timeout = \"1h\", upgraded_timeout = \"2h\" }";
    s.weir.edit(&Conf::one(s.leaving.origin.address).split(long).top("shutdown = { timeout = \"3s\" }"));
    wait_until("the file is taken", || s.weir.admin.get("/api/v1/config").text().contains("2h"));
    assert_eq!(socket.closes().0, 1001);
    assert!(begun.elapsed() < LIMIT);
}

/// The closes of a hundred WebSockets are spread over a second: 2 to 3 s after the signal.
#[test]
fn clients_do_not_all_come_back_at_once() {
    let origin = WsOrigin::new();
    let mut weir = Weir::start(&Conf::one(origin.origin.address).top("shutdown = { timeout = \"4s\" }"));
    let sockets: Vec<_> = (0..100).map(|_| Socket::http1(weir.web(), "/chat")).collect();
    weir.signal(Signal::TERM);
    let wait = |mut socket: Socket| {
        std::thread::spawn(move || {
            assert_eq!(socket.next().unwrap().code(), 1012);
            let told = Instant::now();
            socket.send(8, &1012u16.to_be_bytes());
            told
        })
    };
    let threads: Vec<_> = sockets.into_iter().map(wait).collect();
    let mut told: Vec<Instant> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    told.sort();
    let in_first_tenth = told.iter().filter(|at| **at - told[0] < Duration::from_millis(100)).count();
    assert!(in_first_tenth < 60, "{in_first_tenth} of 100 in the first tenth");
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
    assert!(weir.stderr().contains("\"upgrades_cut\":100"), "{}", weir.stderr());
    wait_until("all origins are told", || origin.closes().len() == 100);
}

#[test]
fn an_event_stream_goes_on_to_its_deadline_and_is_visibly_cut() {
    for way in ALL {
        let mut s = Setup::new();
        let mut client = s.weir.connect();
        client.send(EVENTS).unwrap();
        client.head().unwrap();
        client.chunk().unwrap();
        let begun = Instant::now();
        s.go(way);
        if matches!(way, Way::File | Way::Endpoint | Way::Version) {
            assert_eq!(s.left(), (0, 1, 0), "{way:?}");
        }
        assert!(client.chunk().unwrap().is_some(), "{way:?}: it goes on");
        let end = loop {
            match client.chunk() {
                Ok(Some(_)) => assert!(begun.elapsed() < LIMIT, "{way:?}: never cut"),
                end => break end,
            }
        };
        assert!(matches!(end, Err(Failure::Cut(_) | Failure::ClosedBeforeHead)), "{way:?}: no clean end: {end:?}");
        assert!(begun.elapsed() > Duration::from_millis(900), "{way:?}: after {:?}", begun.elapsed());
        s.expect_cut(way, "stream", 1);
    }
}

/// The same over HTTP/2, as gRPC has it.
#[test]
fn a_grpc_stream_goes_on_to_its_deadline_and_is_visibly_cut() {
    for way in ALL {
        let mut s = Setup::new();
        let mut client = Frames::open(s.weir.web());
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "app.test"),
            (":path", "/grpc"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        client.send(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, 1, &frames::block(&fields));
        client.until(frames::DATA);
        let begun = Instant::now();
        s.go(way);
        client.until(frames::DATA);
        let end = loop {
            match client.next() {
                Ok(frame) if frame.kind == frames::RST_STREAM => break Some(frame.reason()),
                Ok(frame) => assert!(frame.flags & frames::END_STREAM == 0 || frame.kind > 1, "{way:?}: a clean end"),
                Err(_) => break None,
            }
            assert!(begun.elapsed() < LIMIT, "{way:?}: never cut");
        };
        // With its connection where that goes, else alone.
        assert_eq!(end.is_some(), !matches!(way, Way::Listener | Way::Term), "{way:?}");
        assert!(begun.elapsed() > Duration::from_millis(900), "{way:?}: after {:?}", begun.elapsed());
        s.expect_cut(way, "stream", 1);
    }
}

/// One connection from weir to its endpoint, another weir, carries both.
#[test]
fn a_stream_is_cut_beside_a_tunnel_that_goes_on() {
    let origin = WsOrigin::new();
    let behind = Weir::start(&Conf::one(origin.origin.address));
    let conf = Conf::one(behind.web()).split(BRIEF).version("v1", "protocol = \"http2\"").workers(1);
    let weir = Weir::start(&conf);
    for open in [Socket::http1, Socket::http2] {
        let told = origin.closes().len();
        let mut socket = open(weir.web(), "/chat");
        let mut client = weir.connect();
        client.send(EVENTS).unwrap();
        client.head().unwrap();
        assert_eq!(weir.admin.post("/api/v1/splits/shop/versions/v1/drain", json!({})).status(), 200);
        while client.chunk().is_ok() {}
        socket.echoes();
        assert_eq!(socket.closes().0, 1001);
        wait_until("the origin is told", || origin.closes().len() == told + 1);
        assert_eq!((origin.closes()[told].code(), origin.closes()[told].is_masked), (1001, true));
        let answer = weir.admin.get("/api/v1/splits/shop/versions/v1/drain?wait=10s");
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(weir.admin.post("/api/v1/splits/shop/versions/v1/undrain", json!({})).status(), 200);
    }
    weir.admin.wait_metric("weir_drain_aborted_total", &[("kind", "stream")], 2.0);
    weir.admin.wait_metric("weir_drain_aborted_total", &[("kind", "upgrade")], 2.0);
}

#[test]
fn keep_alive_connections_of_a_listener_that_goes_are_served_once_more() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let conf = Conf::one(origin.address);
    let weir = Weir::start(&conf);
    let [mut busy, mut idle, mut silent] = [(); 3].map(|()| weir.connect());
    assert_eq!(idle.get("/").unwrap().status(), 200);
    assert_eq!(silent.get("/").unwrap().status(), 200);
    busy.send("GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    wait_until("it is at the origin", || gate.waiting() == 1);
    weir.edit(&conf.clone().bind(free_address()));
    wait_until("the address is free", || Connection::open(weir.web()).is_err());
    let answer = idle.get("/").unwrap();
    assert!(answer.status() == 200 && answer.head.closes(), "{}", answer.head.raw);
    gate.open();
    let answer = busy.answer(false).unwrap();
    assert!(answer.status() == 200 && answer.head.closes(), "{}", answer.head.raw);
    for client in [&mut busy, &mut idle, &mut silent] {
        assert!(client.is_closed_within(LIMIT));
    }
}

/// Its answer's head was out before, so nobody has told it; a request that crosses the end must not be lost.
#[test]
fn a_connection_that_was_busy_when_the_drain_began_has_its_grace() {
    let gate = Gate::default();
    let theirs = gate.clone();
    let origin = Origin::scripted(move |exchange| {
        exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        theirs.wait();
        exchange.wire.send("0\r\n\r\n")?;
        Ok(crate::support::After::Keep)
    });
    let mut weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    let head = client.head().unwrap();
    assert!(!head.closes());
    client.chunk().unwrap();
    weir.signal(Signal::TERM);
    wait_until("nobody new is accepted", || Connection::open(weir.web()).is_err());
    // Past the grace of those that were idle.
    let begun = Instant::now();
    wait_until("a grace is over", || begun.elapsed() > Duration::from_millis(2500));
    gate.open();
    assert_eq!(client.chunk().unwrap(), None);
    let answer = client.get("/").unwrap();
    assert!(answer.status() == 200 && answer.head.closes(), "{}", answer.head.raw);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn http2_clients_of_a_listener_that_goes_are_told_twice() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let conf = Conf::one(origin.address);
    let weir = Weir::start(&conf);
    let (mut idle, mut busy) = (Frames::open(weir.web()), Frames::open(weir.web()));
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/hold")];
    busy.send(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, 1, &frames::block(&fields));
    wait_until("it is at the origin", || gate.waiting() == 1);
    weir.edit(&conf.clone().bind(free_address()));
    for client in [&mut idle, &mut busy] {
        let first = client.until(frames::GOAWAY);
        assert_eq!((first.reason(), &first.payload[..4]), (0, &[0x7f, 0xff, 0xff, 0xff][..]), "all may still come");
        let ping = client.until(frames::PING);
        client.send(frames::PING, frames::ACK, 0, &ping.payload);
    }
    let last = idle.until(frames::GOAWAY);
    assert_eq!((last.reason(), &last.payload[..4]), (0, &[0; 4][..]));
    idle.expect_end();
    let last = busy.until(frames::GOAWAY);
    assert_eq!((last.reason(), &last.payload[..4]), (0, &[0, 0, 0, 1][..]));
    gate.open();
    assert_eq!(busy.until(frames::DATA).payload, b"v1", "what it has begun is finished");
    busy.expect_end();
}

#[test]
fn the_cli_shows_what_is_left_as_it_goes() {
    let origin = WsOrigin::new();
    // The tunnel is told after half of its time.
    let drain = "drain = { timeout = \"2s\", upgraded_timeout = \"10s\" }";
    let weir = Weir::start(&Conf::one(origin.origin.address).split(drain));
    let mut socket = Socket::http1(weir.web(), "/chat");
    let mut client = weir.connect();
    client.send(EVENTS).unwrap();
    client.head().unwrap();
    let client = std::thread::spawn(move || {
        while client.chunk().is_ok() {}
        socket.closes().0
    });
    let done = weir.cli(&["drain", "shop/v1", "--wait"]).expect_code(0);
    assert!(done.stderr.contains("2 in flight: 0 requests, 1 streams, 1 upgrades"), "{done:?}");
    assert!(done.stderr.contains("1 in flight: 0 requests, 0 streams, 1 upgrades"), "{done:?}");
    assert!(done.stdout.contains("drained"), "{done:?}");
    assert_eq!(client.join().unwrap(), 1001);
}
