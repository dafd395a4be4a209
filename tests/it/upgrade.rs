//! The binary is replaced under load: nobody is refused, cut or forgotten, and a new one that fails changes nothing.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use http::Request;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    After, Conf, Connection, Failure, Gate, LIMIT, Load, Origin, Weir, free_address, times, wait_until,
};

/// Clients of one kind in the background, until they are told to stop: how many were served, and what went wrong.
struct Clients {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Clients {
    fn start(
        count: usize,
        client: impl Fn(&dyn Fn() -> bool, &AtomicUsize) -> Vec<String> + Clone + Send + 'static,
    ) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = |_| {
            let (stop, served, client) = (stop.clone(), served.clone(), client.clone());
            std::thread::spawn(move || client(&|| stop.load(Ordering::SeqCst), &served))
        };
        let threads = (0..count).map(thread).collect();
        Self { stop, served, threads }
    }

    fn wait_for_more(&self, count: usize) {
        let before = self.served.load(Ordering::SeqCst);
        wait_until("more are served", || {
            self.served.load(Ordering::SeqCst) >= before + count || self.threads.iter().any(JoinHandle::is_finished)
        });
    }

    #[track_caller]
    fn expect_no_failure(self) {
        self.stop.store(true, Ordering::SeqCst);
        let failures: Vec<String> = self.threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        assert!(
            failures.is_empty(),
            "{} of {:?}: {:#?}",
            failures.len(),
            self.served,
            &failures[..failures.len().min(9)]
        );
    }
}

/// A connection for each request: they meet the accept queues.
fn fresh(open: impl Fn() -> Result<Connection, Failure> + Clone + Send + 'static) -> Clients {
    Clients::start(4, move |is_over, served| {
        let mut failures = Vec::new();
        while !is_over() {
            let answer =
                open().and_then(|mut c| c.ask("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"));
            match answer {
                Ok(answer) if answer.status() == 200 => drop(served.fetch_add(1, Ordering::SeqCst)),
                Ok(answer) => failures.push(answer.head.raw),
                Err(failure) => failures.push(format!("fresh: {failure}")),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        failures
    })
}

/// Eight streams at a time over one connection; another one after GOAWAY, as RFC 9113 section 6.8 has it.
fn http2(address: SocketAddr) -> Clients {
    Clients::start(2, move |is_over, served| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut failures = Vec::new();
            while !is_over() {
                if let Err(failure) = connection(address, is_over, served).await {
                    failures.push(failure);
                }
            }
            failures
        })
    })
}

async fn connection(address: SocketAddr, is_over: &dyn Fn() -> bool, served: &AtomicUsize) -> Result<(), String> {
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|e| format!("http2 connect: {e}"))?;
    let (client, driver) = h2::client::handshake(stream).await.map_err(|e| format!("http2 handshake: {e}"))?;
    tokio::spawn(driver);
    while !is_over() {
        // Told to go: what is under way is finished already.
        let Ok(mut ready) = client.clone().ready().await else { return Ok(()) };
        let mut answers = Vec::new();
        for _ in 0..8 {
            let request = Request::get("http://app.test/").body(()).unwrap();
            match ready.send_request(request, true) {
                Ok((answer, _)) => answers.push(answer),
                Err(e) if is_told_to_go(&e) => break,
                Err(e) => return Err(format!("http2 request: {e}")),
            }
            let Ok(next) = client.clone().ready().await else { break };
            ready = next;
        }
        for answer in answers {
            match answer.await {
                Ok(answer) if answer.status() == 200 => drop(served.fetch_add(1, Ordering::SeqCst)),
                Ok(answer) => return Err(format!("http2 status {}", answer.status())),
                // Begun after the last stream the server takes: it was not processed, and is asked for again.
                Err(e) if is_told_to_go(&e) => return Ok(()),
                Err(e) => return Err(format!("http2 answer: {e}")),
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

fn is_told_to_go(error: &h2::Error) -> bool {
    error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
        || error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

/// `/stream` sends a chunk whenever the gate lets one; `/ws` switches protocols and echoes; all else is answered `v1`.
fn many_sided(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::scripted(move |exchange| match exchange.head.target() {
        "/stream" => {
            exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for number in 0..3 {
                exchange.chunk(format!("part {number}").as_bytes())?;
                gate.wait();
            }
            exchange.wire.send("0\r\n\r\n")?;
            Ok(After::Close)
        }
        "/ws" => {
            exchange.wire.send(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            )?;
            while let Ok(byte) = exchange.wire.take(1) {
                exchange.wire.send(byte)?;
            }
            Ok(After::Close)
        }
        _ => exchange.ok("v1"),
    })
}

fn open_tunnel(weir: &Weir) -> Connection {
    let mut client = weir.connect();
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    client
        .send(format!("GET /ws HTTP/1.1\r\nHost: app.test\r\nUpgrade: websocket\r\nConnection: upgrade\r\n{key}\r\n"))
        .unwrap();
    assert_eq!(client.head().unwrap().status(), 101);
    echo(&mut client);
    client
}

#[track_caller]
fn echo(client: &mut Connection) {
    client.send("x").unwrap();
    assert_eq!(client.take(1).unwrap(), b"x");
}

fn status(weir: &Weir) -> Value {
    weir.admin.json("/api/v1/status")
}

/// Until the predecessor has finished.
fn wait_alone(weir: &Weir) {
    wait_until("the predecessor is gone", || status(weir)["predecessor"].is_null());
}

#[test]
fn upgrades_under_load_lose_nobody() {
    let gate = Gate::default();
    let origin = many_sided(&gate);
    let mut weir = Weir::start(&Conf::one(origin.address));
    let address = weir.web();
    let load = Load::steady(address);
    let (fresh, http2) = (fresh(move || Connection::open(address)), http2(address));
    let mut stream = weir.connect();
    stream.send("GET /stream HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    stream.head().unwrap();
    let mut tunnel = open_tunnel(&weir);
    let first = weir.pid();
    let mut pids = vec![first];
    for _ in 0..times(3, 20) {
        fresh.wait_for_more(20);
        http2.wait_for_more(20);
        load.wait_for_more(20);
        pids.push(weir.upgrade());
        echo(&mut tunnel);
    }
    fresh.wait_for_more(50);
    http2.wait_for_more(50);
    load.wait_for_more(50);
    assert_eq!(status(&weir)["pid"], *pids.last().unwrap());
    let unique: std::collections::BTreeSet<_> = pids.iter().collect();
    assert_eq!(unique.len(), pids.len(), "each time another process: {pids:?}");
    // The first one stays for its stream and its tunnel, and is seen through all that came between.
    assert!(weir.exited().is_none());
    wait_until("one request or stream and one upgrade are left", || {
        let left = status(&weir)["predecessor"]["in_flight"].clone();
        left["total"] == 2 && left["upgrades"] == 1
    });
    gate.open();
    assert_eq!(stream.chunk().unwrap().as_deref(), Some(&b"part 0"[..]));
    assert_eq!(stream.chunk().unwrap().as_deref(), Some(&b"part 1"[..]));
    assert_eq!(stream.chunk().unwrap().as_deref(), Some(&b"part 2"[..]));
    assert_eq!(stream.chunk().unwrap(), None, "a clean end");
    echo(&mut tunnel);
    drop(tunnel);
    assert_eq!(weir.wait_exit(2 * LIMIT).code(), Some(0));
    wait_alone(&weir);
    load.stop().expect_no_failure();
    fresh.expect_no_failure();
    http2.expect_no_failure();
    weir.admin.wait_metric("weir_upgrades_total", &[("result", "done")], (pids.len() - 1) as f64);
}

#[test]
fn usr2_and_the_command_line_upgrade_too_and_changes_are_kept() {
    let (v1, v2) = crate::support::pair();
    let mut weir = Weir::start(&Conf::two((90, v1.address), (10, v2.address)));
    weir.admin.shift(60, 40);
    weir.signal(Signal::USR2);
    let second = weir.wait_heir(weir.pid());
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
    assert_eq!(weir.admin.weights(), (60, 40));
    let answer = weir.admin.shift(30, 70);
    let done = weir.cli(&["upgrade"]).expect_code(0);
    assert!(done.stdout.contains(&format!("process {second} finishes")), "{}", done.stdout);
    let third = weir.wait_heir(second);
    assert!(done.stdout.contains(&format!("process {third} serves")), "{}", done.stdout);
    assert_eq!(weir.admin.weights(), (30, 70), "acknowledged right before");
    assert_eq!(weir.admin.shop()["revision"], answer["revision"]);
    wait_alone(&weir);
    weir.admin.shift(50, 50);
    assert_eq!(weir.admin.json("/api/v1/history")["history"].as_array().unwrap().len(), 4);
    weir.signal_to(third, Signal::TERM);
    wait_until("it ends as any", || matches!(Connection::open(weir.web()), Err(Failure::Refused)));
}

#[test]
fn changes_up_to_the_last_moment_are_there_afterwards() {
    let (v1, v2) = crate::support::pair();
    let weir = Weir::start(&Conf::two((90, v1.address), (10, v2.address)));
    let (admin, stop) = (weir.admin, Arc::new(AtomicBool::new(false)));
    let theirs = stop.clone();
    // The last one that was acknowledged; what is refused meanwhile says why.
    let changer = std::thread::spawn(move || {
        let (mut last, mut n) = (0, 0);
        while !theirs.load(Ordering::SeqCst) {
            n = n % 99 + 1;
            let body = format!("{{\"weights\":{{\"v1\":{},\"v2\":{n}}}}}", 100 - n);
            let Ok(answer) = admin.try_ask("PUT", "/api/v1/splits/shop/weights", "", Some(&body)) else { continue };
            match answer.status() {
                200 => last = n,
                503 => assert!(
                    answer.text().contains("/problems/upgrading") || answer.text().contains("/problems/shutting-down"),
                    "{}",
                    answer.text()
                ),
                _ => panic!("{}", answer.text()),
            }
        }
        last
    });
    for _ in 0..times(3, 20) {
        weir.upgrade();
        wait_alone(&weir);
    }
    stop.store(true, Ordering::SeqCst);
    let last = changer.join().unwrap();
    assert_eq!(weir.admin.weights(), (100 - last, last));
    let history = weir.admin.json("/api/v1/history?limit=1000");
    let revisions: Vec<u64> =
        history["history"].as_array().unwrap().iter().map(|e| e["revision"].as_u64().unwrap()).collect();
    assert!(revisions.windows(2).all(|w| w[0] == w[1] + 1), "no gap and none twice: {revisions:?}");
}

/// Fails with `part` in its reason; afterwards everything is as it was.
#[track_caller]
fn expect_failure(weir: &mut Weir, part: &str) {
    let answer = weir.admin.ask("POST", "/api/v1/upgrade", "", None);
    assert_eq!(answer.status(), 500, "{}", answer.text());
    assert!(answer.text().contains("/problems/upgrade-failed") && answer.text().contains(part), "{}", answer.text());
    assert!(weir.exited().is_none());
    assert_eq!(status(weir)["pid"], weir.pid());
    let (v1, v2) = weir.admin.weights();
    weir.admin.shift(v2, v1);
    assert_eq!(weir.connect().get("/").unwrap().status(), 200);
}

#[test]
fn a_new_binary_that_fails_changes_nothing() {
    let (v1, v2) = crate::support::pair();
    let conf = Conf::two((90, v1.address), (10, v2.address)).tail("[listeners.local]\nbind = \"unix:@DIR@/weir.sock\"");
    let mut weir = Weir::start_replaceable(&conf.clone().top("watch = false"));
    let load = Load::steady(weir.web());
    weir.replace_binary(Some("#!/bin/sh\nexit 7\n"));
    expect_failure(&mut weir, "exit status: 7");
    weir.replace_binary(Some("not a program"));
    expect_failure(&mut weir, "cannot be started");
    weir.replace_binary(None);
    weir.edit_text("[listeners.web]\nbnid = 1\n");
    expect_failure(&mut weir, "bnid");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let extra = format!("[listeners.extra]\nbind = \"{}\"", taken.local_addr().unwrap());
    weir.edit(&conf.clone().top("watch = false").tail(&extra));
    expect_failure(&mut weir, "in use");
    assert!(Connection::open_unix(&weir.dir().join("weir.sock")).is_ok(), "the path is still there");
    weir.admin.wait_metric("weir_upgrades_total", &[("result", "failed")], 4.0);
    let done = weir.cli(&["upgrade"]).expect_code(1);
    assert!(done.stderr.contains("in use"), "{}", done.stderr);

    weir.edit(&conf.top("watch = false"));
    weir.upgrade();
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
    assert!(Connection::open_unix(&weir.dir().join("weir.sock")).unwrap().get("/").is_ok());
    load.stop().expect_no_failure();
}

#[test]
fn one_that_hangs_is_ended_at_term_and_a_second_upgrade_is_refused() {
    let origin = Origin::named("v1");
    let mut weir = Weir::start_replaceable(&Conf::one(origin.address));
    let note = weir.dir().join("note");
    weir.replace_binary(Some(&format!("#!/bin/sh\necho $$ > {}.new\nmv {0}.new {0}\nexec sleep 60\n", note.display())));
    weir.signal(Signal::USR2);
    let pid = crate::support::wait_for("it is started", || fs::read_to_string(&note).ok()?.trim().parse::<u32>().ok());
    let refused = |weir: &Weir, path: &str, status| {
        let answer = weir.admin.ask("POST", path, "", None);
        assert_eq!(answer.status(), status, "{}", answer.text());
        answer.text()
    };
    assert!(refused(&weir, "/api/v1/upgrade", 409).contains("upgrade-running"));
    assert!(refused(&weir, "/api/v1/splits/shop/versions/v1/drain", 503).contains("upgrading"));
    assert_eq!(status(&weir)["pid"], weir.pid(), "reads go on");
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
    weir.signal(Signal::TERM);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
    let there =
        || rustix::process::test_kill_process(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap()).is_ok();
    let ended = || !there() || is_zombie(pid);
    wait_until("what hung is gone", ended);
}

/// Where nobody reaps orphans.
fn is_zombie(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn listeners_and_workers_of_the_new_file_are_the_new_ones() {
    let origin = Origin::named("v1");
    let [gone, new] = [free_address(), free_address()];
    let conf = |workers, extra: SocketAddr| {
        let tail = format!("[listeners.extra]\nbind = \"{extra}\"\n[listeners.local]\nbind = \"unix:@DIR@/weir.sock\"");
        Conf::one(origin.address).workers(workers).top("watch = false").tail(&tail)
    };
    let weir = Weir::start(&conf(4, gone));
    let path = weir.dir().join("weir.sock");
    let (address, theirs) = (weir.web(), path.clone());
    let load = Load::steady(address);
    let (fresh_tcp, fresh_unix) =
        (fresh(move || Connection::open(address)), fresh(move || Connection::open_unix(&theirs)));
    let serves = |at| Connection::open(at).and_then(|mut c| c.get("/")).is_ok_and(|a| a.text() == "v1");
    assert!(serves(gone));
    let (mut before, mut now) = (gone, new);
    for workers in [1, 3, 2] {
        weir.edit(&conf(workers, now));
        weir.upgrade();
        wait_until("the new one is served", || serves(now));
        wait_until("the old one is not", || matches!(Connection::open(before), Err(Failure::Refused)));
        fresh_tcp.wait_for_more(100);
        fresh_unix.wait_for_more(100);
        (before, now) = (now, before);
    }
    wait_alone(&weir);
    load.stop().expect_no_failure();
    fresh_tcp.expect_no_failure();
    fresh_unix.expect_no_failure();
    assert!(path.exists());
    weir.edit(&Conf::one(origin.address));
    weir.upgrade();
    wait_until("the path of a listener that left is gone", || !path.exists());
}

#[test]
fn a_drain_is_waited_for_over_an_upgrade() {
    let gate = Gate::default();
    let origins = [Origin::gated("a", &gate), Origin::named("b")];
    let [a, b] = origins.each_ref().map(|o| o.address);
    let weir = Weir::start(&Conf::shop(&[("v1", 1, &[a]), ("v2", 0, &[b])]).top("watch = false"));
    let mut client = weir.connect();
    client.send("GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    wait_until("it is at the origin", || gate.waiting() == 1);
    weir.admin.shift(0, 1);
    weir.cli(&["drain", &format!("shop/v1/{a}")]).expect_code(0);
    let old = weir.pid();
    weir.upgrade();
    let drain = |version: &str, at: SocketAddr, wait: &str| {
        weir.admin.get(&format!("/api/v1/splits/shop/versions/{version}/drain?endpoint={at}&wait={wait}"))
    };
    let answer = drain("v1", a, "50ms");
    assert_eq!((answer.status(), answer.json()["in_flight"]["requests"].as_u64()), (202, Some(1)), "{}", answer.text());
    let predecessor = status(&weir)["predecessor"].clone();
    assert_eq!(predecessor["pid"], old);
    assert_eq!(predecessor["endpoints"][0]["address"], a.to_string(), "{predecessor}");
    let shown = weir.cli(&["status"]).expect_code(0).stdout;
    assert!(shown.contains(&format!("process {old} has handed over")), "{shown}");
    // An upgrade later, and with the endpoint out of the file, it is still known.
    weir.edit(&Conf::shop(&[("v1", 1, &[b]), ("v2", 1, &[b])]).top("watch = false"));
    weir.upgrade();
    let answer = drain("v1", a, "50ms");
    assert_eq!(answer.status(), 202, "{}", answer.text());
    let admin = weir.admin;
    let waiting = std::thread::spawn(move || {
        admin.get(&format!("/api/v1/splits/shop/versions/v1/drain?endpoint={a}&wait=20s")).status()
    });
    wait_until("two processes are left", || status(&weir)["predecessor"]["in_flight"]["total"] == 1);
    assert!(!waiting.is_finished());
    gate.open();
    assert_eq!(client.answer(false).unwrap().status(), 200);
    assert_eq!(waiting.join().unwrap(), 200);
    wait_alone(&weir);
}

#[test]
fn an_old_process_that_dies_has_nothing_in_flight_and_one_left_alone_ends() {
    let gate = Gate::default();
    let origin = many_sided(&gate);
    let conf = Conf::one(origin.address).top("shutdown = { timeout = \"1s\" }");
    let mut weir = Weir::start(&conf);
    let _tunnel = open_tunnel(&weir);
    weir.upgrade();
    wait_until("the tunnel is seen", || status(&weir)["predecessor"]["in_flight"]["upgrades"] == 1);
    weir.kill();
    wait_alone(&weir);

    let mut weir = Weir::start(&conf);
    let mut tunnel = open_tunnel(&weir);
    let heir = weir.upgrade();
    wait_until("the tunnel is seen", || status(&weir)["predecessor"]["in_flight"]["upgrades"] == 1);
    echo(&mut tunnel);
    weir.signal_to(heir, Signal::TERM);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0), "nobody looks after it any more");
}

#[test]
fn what_is_drained_after_an_upgrade_is_drained_in_the_old_process_too() {
    let gate = Gate::default();
    let origins = [Origin::gated("a", &gate), Origin::gated("b", &gate)];
    let [a, b] = origins.each_ref().map(|o| o.address);
    let weir = Weir::start(&Conf::shop(&[("v1", 1, &[a]), ("v2", 1, &[b])]));
    let mut held = weir.connect();
    held.send("GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    wait_until("it is at an origin", || gate.waiting() == 1);
    let mut idle = weir.connect();
    assert_eq!(idle.get("/").unwrap().status(), 200);
    weir.upgrade();
    let (busy, free) = if origins[0].open() > 0 && status(&weir)["predecessor"]["endpoints"][0]["version"] == "v1" {
        ("v1", ("v2", &origins[1]))
    } else {
        ("v2", ("v1", &origins[0]))
    };
    let before = free.1.requests();
    weir.cli(&["drain", &format!("shop/{}", free.0), "--wait", "--timeout", "10s"]).expect_code(0);
    // The old process answers once more on its idle connection, and not from what is drained.
    if let Ok(answer) = idle.get("/") {
        assert_ne!(answer.text(), if free.0 == "v1" { "a" } else { "b" });
    }
    assert_eq!(free.1.requests(), before);
    let done = weir.cli(&["drain", &format!("shop/{busy}"), "--wait", "--timeout", "300ms"]).expect_code(9);
    assert!(done.stderr.contains("1 in flight"), "{}", done.stderr);
    gate.open();
    assert_eq!(held.answer(false).unwrap().status(), 200);
    weir.cli(&["drain", &format!("shop/{busy}"), "--wait", "--timeout", "10s"]).expect_code(0);
}
