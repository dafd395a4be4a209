//! HTTP/2 floods (faults.md 1.2, CVE-2019-9511..9518, CVE-2023-44487, CVE-2024-27316, CVE-2025-8671): while a raw client
//! does its worst, honest clients of both protocols are served without a failure, memory stays bounded, the abuser is
//! sent away, and afterwards weir is idle.
//!
//! One second each, ten with `WEIR_SOAK=1`. An abuser that is sent away comes back at once, on a new connection.

mod abuser;
mod honest;
mod memory;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::h2wire::{CANCEL, END_STREAM, Frame, H2, Outcome, kind, setting};
use crate::support::{Conf, Load, Origin, Plan, Weir, hpack, tell, times, wait_until};
use abuser::{Flood, abuse};
use honest::Honest;
use memory::Memory;

/// More than this is a leak or an unbounded queue.
const MOST_GROWTH: u64 = 64 << 20;
/// Requests one abusive connection may start at the origin before it is sent away.
const MOST_WORK: usize = 500;
/// An honest request that takes longer is as good as failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// The abuser is to be sent away.
#[track_caller]
fn assert_sent_away(name: &str, flood: &Flood) {
    let (fate, work) = beside_honest_clients(name, "", |weir| abuse(weir.web(), flood));
    assert!(fate.sent_away > 0, "{name}: never sent away: {fate:?}");
    // What is cancelled must not become work upstream without bound (faults.md 4.10).
    assert!(work <= fate.connections * MOST_WORK, "{name}: {work} requests at the origin: {fate:?}");
}

/// The abuser does not read, so that it is stopped by its own full buffers: that is enough.
#[track_caller]
fn assert_bounded(name: &str, flood: Flood) {
    let flood = Flood { reads: false, ..flood };
    let (fate, _) = beside_honest_clients(name, "", |weir| abuse(weir.web(), &flood));
    assert!(fate.bytes > 0, "{name}: nothing was sent: {fate:?}");
}

/// Runs an attack while two honest clients are served (`web`: a line for their listener); gives what came of it and how
/// many requests for `/large` reached the origin. Looks at weir before, during and after it.
#[track_caller]
fn beside_honest_clients<T: std::fmt::Debug>(name: &str, web: &str, attack: impl FnOnce(&Weir) -> T) -> (T, usize) {
    let work = Arc::new(AtomicUsize::new(0));
    let theirs = work.clone();
    let origin = Origin::scripted(move |exchange| match exchange.head.target() {
        "/large" => {
            theirs.fetch_add(1, Ordering::SeqCst);
            exchange.answer("200 OK", "", &[b'x'; 1 << 20])
        }
        _ => {
            exchange.body()?;
            exchange.ok("v1")
        }
    });
    let conf = Conf::one(origin.address).web(web).split("timeouts = { idle = \"500ms\" }");
    let weir = Weir::start(&conf);
    let http1 = Load::start(&Plan {
        address: weir.web(),
        connections: 2,
        pace: Some(Duration::from_millis(2)),
        until_refused: false,
    });
    let http2 = Honest::start(weir.web());
    http1.wait_for_more(20);
    http2.wait_for_more(20);
    let memory = Memory::watch(weir.pid());
    let fate = attack(&weir);
    http1.wait_for_more(20);
    http2.wait_for_more(20);
    let (before, most) = memory.stop();
    tell(&format!(
        "flood `{name}`: {} MiB, at most {} MiB; {} reached the origin; {fate:?}",
        before >> 20,
        most >> 20,
        work.load(Ordering::SeqCst)
    ));
    let served = http2.stop();
    let report = http1.stop();
    report.expect_no_failure();
    assert!(served > 20 && report.served.len() > 20);
    let slow = report.served.iter().filter(|s| s.ended - s.began > PATIENCE).count();
    assert_eq!(slow, 0, "{name}: {slow} honest requests took longer than {PATIENCE:?}");
    assert!(most.saturating_sub(before) < MOST_GROWTH, "{name}: from {before} to {most} bytes");
    assert_idle(name, &weir, &origin);
    (fate, work.load(Ordering::SeqCst))
}

/// No request in flight, no client connection, no connection to the origin.
#[track_caller]
fn assert_idle(name: &str, weir: &Weir, origin: &Origin) {
    wait_until(&format!("{name}: nothing is in flight"), || {
        weir.admin.shop()["versions"][0]["endpoints"][0]["in_flight"].as_u64() == Some(0)
    });
    weir.admin.wait_metric("weir_requests_in_flight", &[], 0.0);
    weir.admin.wait_metric("weir_connections", &[("listener", "web")], 0.0);
    wait_until(&format!("{name}: no connection to the origin is held"), || origin.open() == 0);
}

/// The stream of round `n`.
fn stream(round: u32) -> u32 {
    2 * round + 1
}

fn request(method: &str, path: &str) -> Vec<u8> {
    hpack::block(&[(":method", method), (":scheme", "http"), (":authority", "app.test"), (":path", path)])
}

/// CVE-2023-44487: what is asked for is cancelled at once, so that the limit of streams never bites.
#[test]
fn rapid_reset() {
    assert_sent_away(
        "rapid reset",
        &Flood::of(|round| {
            let id = stream(round);
            let head = Frame::headers(id, END_STREAM, request("GET", "/large")).bytes();
            [head, Frame::number(kind::RST_STREAM, id, CANCEL).bytes()].concat()
        }),
    );
}

/// CVE-2024-27316: a head that never ends.
#[test]
fn continuation_flood() {
    let piece = hpack::block(&[("x-flood", "y".repeat(1000))]);
    let mut flood = Flood::of(move |_| Frame::new(kind::CONTINUATION, 0, 1, piece.clone()).bytes());
    flood.first = Frame::new(kind::HEADERS, END_STREAM, 1, request("GET", "/")).bytes();
    assert_sent_away("CONTINUATION", &flood);
}

/// The same without any bytes in it.
#[test]
fn empty_continuation_flood() {
    let mut flood = Flood::of(|_| Frame::new(kind::CONTINUATION, 0, 1, []).bytes());
    flood.first = Frame::new(kind::HEADERS, END_STREAM, 1, request("GET", "/")).bytes();
    assert_sent_away("empty CONTINUATION", &flood);
}

/// CVE-2019-9518: frames without data cost no window.
#[test]
fn empty_data_flood() {
    let mut flood = Flood::of(|_| Frame::data(1, 0, []).bytes());
    flood.first = Frame::headers(1, 0, request("POST", "/")).bytes();
    assert_sent_away("empty DATA", &flood);
}

/// CVE-2019-9515: each is to be acknowledged; an abuser that does not read lets the answers pile up.
#[test]
fn settings_flood() {
    let round = |_| Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 65_535)]).bytes();
    assert_sent_away("SETTINGS", &Flood::of(round));
    assert_bounded("SETTINGS, answers unread", Flood::of(round));
}

/// CVE-2019-9512.
#[test]
fn ping_flood() {
    let round = |n: u32| Frame::new(kind::PING, 0, 0, u64::from(n).to_be_bytes()).bytes();
    assert_sent_away("PING", &Flood::of(round));
    assert_bounded("PING, answers unread", Flood::of(round));
}

/// CVE-2019-9513: changes of priorities nobody keeps any more (RFC 9113 section 5.3.2).
#[test]
fn priority_flood() {
    assert_sent_away(
        "PRIORITY",
        &Flood::of(|round| {
            let id = stream(round % 1000);
            Frame::new(kind::PRIORITY, 0, id, [0, 0, 0, 0, (round % 256) as u8]).bytes()
        }),
    );
}

#[test]
fn window_update_flood() {
    assert_sent_away("WINDOW_UPDATE", &Flood::of(|_| Frame::number(kind::WINDOW_UPDATE, 0, 1).bytes()));
}

/// One large entry of the table, and then a byte for each time it is meant: 4 KB become 64 MB (CVE-2016-6581).
#[test]
fn header_bomb() {
    let entry = hpack::indexed_literal(b"x-bomb", "y".repeat(3900).as_bytes());
    // Index 62, the newest entry of the dynamic table.
    let many = vec![0xbe; 16_000];
    let mut flood = Flood::of(move |round| {
        Frame::headers(stream(round + 1), END_STREAM, [request("GET", "/"), many.clone()].concat()).bytes()
    });
    flood.first = Frame::headers(stream(0), END_STREAM, [request("GET", "/"), entry].concat()).bytes();
    assert_sent_away("header bomb", &flood);
}

/// CVE-2025-8671, MadeYouReset: the server is made to reset what it was asked for, by a window that grows too large.
#[test]
fn made_you_reset_by_window_overflow() {
    assert_sent_away(
        "MadeYouReset, WINDOW_UPDATE",
        &Flood::of(|round| {
            let id = stream(round);
            let head = Frame::headers(id, END_STREAM, request("GET", "/large")).bytes();
            [head, Frame::number(kind::WINDOW_UPDATE, id, 0x7fff_ffff).bytes()].concat()
        }),
    );
}

/// The same by a window that grows by nothing.
#[test]
fn made_you_reset_by_an_empty_window_update() {
    assert_sent_away(
        "MadeYouReset, WINDOW_UPDATE of 0",
        &Flood::of(|round| {
            let id = stream(round);
            let head = Frame::headers(id, END_STREAM, request("GET", "/large")).bytes();
            [head, Frame::number(kind::WINDOW_UPDATE, id, 0).bytes()].concat()
        }),
    );
}

/// The same by data behind the end.
#[test]
fn made_you_reset_by_data_behind_the_end() {
    assert_sent_away(
        "MadeYouReset, DATA behind the end",
        &Flood::of(|round| {
            let id = stream(round);
            let head = Frame::headers(id, END_STREAM, request("GET", "/large")).bytes();
            [head, Frame::data(id, 0, "late").bytes()].concat()
        }),
    );
}

/// The same by requests that are malformed.
#[test]
fn made_you_reset_by_malformed_heads() {
    assert_sent_away(
        "MadeYouReset, malformed heads",
        &Flood::of(|round| {
            let block = hpack::block(&[(":method", "GET"), ("X-Upper", "case")]);
            Frame::headers(stream(round), END_STREAM, block).bytes()
        }),
    );
}

/// CVE-2019-9517: much is asked for and nothing taken. That is bounded, not forbidden: the streams are reset, or the
/// connection ended, when `timeouts.body` (here 1 s) is over; the origin is not left waiting either.
#[test]
fn zero_windows() {
    let (outcomes, _) = beside_honest_clients("zero windows", "timeouts = { body = \"1s\" }", |weir| {
        let clients: Vec<H2> = (0..times(4, 16)).map(|_| ask_for_much(weir.web())).collect();
        let ends = clients.into_iter().map(|mut client| {
            client.set_read_limit(crate::support::LIMIT);
            (0..50).map(|n| client.outcome(stream(n))).filter(|end| *end == Outcome::Silent).count()
        });
        ends.sum::<usize>()
    });
    assert_eq!(outcomes, 0, "streams that nobody ended");
}

/// Fifty streams with windows of nothing.
fn ask_for_much(address: SocketAddr) -> H2 {
    let mut client = H2::open(address, &[(setting::INITIAL_WINDOW_SIZE, 0)]).unwrap();
    client.gives_back = false;
    for n in 0..50 {
        client.send(&Frame::headers(stream(n), END_STREAM, request("GET", "/large"))).unwrap();
    }
    client
}
