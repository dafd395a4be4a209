//! HTTP/2 floods (faults.md 1.2, CVE-2019-9511..9518, CVE-2023-44487, CVE-2024-27316, CVE-2025-8671): while a raw client
//! does its worst, honest clients of both protocols are served without a failure, memory stays bounded, the abuser is
//! sent away, and afterwards weir is idle.
//!
//! One second each, ten with `WEIR_SOAK=1`. An abuser that is sent away comes back at once, on a new connection.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::h2wire::{CANCEL, END_STREAM, ENHANCE_YOUR_CALM, Frame, H2, Outcome, kind, setting};
use crate::support::{Conf, Instant, Load, Origin, Plan, Weir, hpack, tell, times, wait_for, wait_until};

/// More than this is a leak or an unbounded queue.
const MOST_GROWTH: u64 = 64 << 20;
/// Requests one abusive connection may start at the origin before it is sent away.
const MOST_WORK: usize = 500;
/// Small frames travel in packs of this size.
const PACK: usize = 16 << 10;
/// An honest request that takes longer is as good as failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one connection of an abuser sends.
struct Flood {
    settings: Vec<(u16, u32)>,
    /// Sent once.
    first: Vec<u8>,
    /// The bytes of round `n`, sent until the connection is lost or the time is over. Streams are odd and rise.
    round: Box<dyn Fn(u32) -> Vec<u8>>,
    /// Takes what the server says; without that, the server's own answers pile up.
    reads: bool,
}

impl Flood {
    fn of(round: impl Fn(u32) -> Vec<u8> + 'static) -> Self {
        Self { settings: Vec::new(), first: Vec::new(), round: Box::new(round), reads: true }
    }
}

/// How the abuser fared.
#[derive(Debug, Default)]
struct Fate {
    connections: usize,
    bytes: usize,
    /// Connections that ended before the abuser wanted it.
    sent_away: usize,
    /// Of these, with GOAWAY and ENHANCE_YOUR_CALM.
    calmed: usize,
    /// How the last one ended.
    last: Option<Outcome>,
}

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

/// Floods until the time is over; comes back whenever it is sent away.
fn abuse(address: SocketAddr, flood: &Flood) -> Fate {
    let until = Instant::now() + Duration::from_secs(times(1, 10) as u64);
    let mut fate = Fate::default();
    while Instant::now() < until {
        fate.connections += 1;
        let Ok(mut client) = H2::open(address, &flood.settings) else { continue };
        client.set_write_limit(Duration::from_millis(200));
        (client.replies, client.gives_back) = (false, false);
        let ear = flood.reads.then(|| listen(&client));
        let is_over = pour(&client, flood, until, &mut fate.bytes);
        // What it was told lies in its buffers, unless an ear has it.
        client.set_read_limit(Duration::from_secs(2));
        let end = match ear {
            Some(ear) => {
                client.shut();
                ear.join().unwrap()
            }
            None => client.drain(),
        };
        // A GOAWAY for an error counts at once: the connection may be read on for a while, so that it is not lost.
        let is_told = matches!(end, Outcome::Gone(code) if code != 0);
        fate.sent_away += usize::from(is_told || !is_over);
        fate.calmed += usize::from(end == Outcome::Gone(ENHANCE_YOUR_CALM));
        fate.last = Some(end);
    }
    fate
}

/// True if the time is over, false if the connection is.
fn pour(client: &H2, flood: &Flood, until: Instant, bytes: &mut usize) -> bool {
    let mut writer = client.writer();
    let mut pending = flood.first.clone();
    for round in 0..u32::MAX / 4 {
        pending.extend((flood.round)(round));
        if pending.len() < PACK {
            continue;
        }
        match write(&mut writer, &pending, until) {
            Ok(()) => *bytes += pending.len(),
            Err(is_over) => return is_over,
        }
        pending.clear();
        if Instant::now() > until {
            return true;
        }
    }
    true
}

/// Writes all, however long the other side does not read; `Err(true)` when the time is over, `Err(false)` when the
/// connection is.
fn write(writer: &mut TcpStream, mut bytes: &[u8], until: Instant) -> Result<(), bool> {
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if Instant::now() > until {
                    return Err(true);
                }
            }
            Err(_) => return Err(false),
        }
    }
    Ok(())
}

/// Reads all that comes, in a thread of its own; says how the connection ended.
fn listen(client: &H2) -> JoinHandle<Outcome> {
    let mut ear = H2::over(client.writer());
    ear.gives_back = false;
    ear.replies = false;
    std::thread::spawn(move || ear.drain())
}

/// A client of HTTP/2 that does everything right, one request after the other.
struct Honest {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    failure: Arc<Mutex<Option<String>>>,
    thread: JoinHandle<()>,
}

impl Honest {
    fn start(address: SocketAddr) -> Self {
        let (stop, served, failure) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let theirs = (stop.clone(), served.clone(), failure.clone());
        let thread = std::thread::spawn(move || {
            let (stop, served, failure) = theirs;
            let mut client = H2::open(address, &[]).unwrap();
            client.set_read_limit(PATIENCE);
            for stream in (1..).step_by(2).take_while(|_| !stop.load(Ordering::SeqCst)) {
                let sent = client.get(stream, "/");
                let outcome = client.outcome(stream);
                if outcome.status() != Some(200) {
                    *failure.lock().unwrap() = Some(format!("stream {stream}: {outcome:?}, sent: {sent:?}"));
                    return;
                }
                served.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { stop, served, failure, thread }
    }

    #[track_caller]
    fn wait_for_more(&self, count: usize) {
        let before = self.served.load(Ordering::SeqCst);
        wait_for("more requests over HTTP/2 are answered", || {
            if let Some(failure) = self.failure.lock().unwrap().clone() {
                panic!("the honest HTTP/2 client failed: {failure}");
            }
            (self.served.load(Ordering::SeqCst) >= before + count).then_some(())
        });
    }

    /// How many were served; fails if one was not.
    #[track_caller]
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
        let failure = self.failure.lock().unwrap().take();
        assert_eq!(failure, None, "the honest HTTP/2 client failed");
        self.served.load(Ordering::SeqCst)
    }
}

/// Looks at the resident memory of a process every few milliseconds.
struct Memory {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
    before: u64,
}

impl Memory {
    fn watch(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, before) = (stop.clone(), resident(pid));
        let thread = std::thread::spawn(move || {
            let mut most = before;
            while !theirs.load(Ordering::SeqCst) {
                most = most.max(resident(pid));
                std::thread::sleep(Duration::from_millis(10));
            }
            most
        });
        Self { stop, thread, before }
    }

    /// Before, and at most.
    fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        (self.before, self.thread.join().unwrap())
    }
}

/// VmRSS in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
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
