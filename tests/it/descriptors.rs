//! Out of descriptors, out of places: who is served goes on, who is idle gives way, and service comes back by itself.
//!
//! The limit is set on the running process (`prlimit`), so that relief is a raise of it as well as clients that go. The
//! full form has 20,000 idle clients in processes of their own: this test binary again, as `idle_clients`.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::{
    Conf, Connection, Failure, Gate, Instant, LIMIT, Origin, Weir, soak, times, wait_for, wait_for_within, wait_until,
};

/// Sets the soft limit; the hard one stays.
fn limit_descriptors(weir: &Weir, descriptors: u64) {
    let pid = Pid::from_raw(weir.pid().try_into().unwrap());
    let now = prlimit(pid, Resource::Nofile, rustix::process::getrlimit(Resource::Nofile)).unwrap();
    let limit = Rlimit { current: Some(descriptors), maximum: now.maximum };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

fn relieve(weir: &Weir) {
    limit_descriptors(weir, rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(4096));
}

fn open_descriptors(weir: &Weir) -> usize {
    fs::read_dir(format!("/proc/{}/fd", weir.pid())).unwrap().count()
}

/// Seconds of processor time.
fn cpu(weir: &Weir) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", weir.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn events(weir: &Weir, event: &str, reason: &str) -> usize {
    let (event, reason) = (format!("\"event\":\"{event}\""), format!("\"reason\":\"{reason}\""));
    weir.stderr().lines().filter(|line| line.contains(&event) && line.contains(&reason)).count()
}

fn shed(weir: &Weir, reason: &str) -> f64 {
    weir.admin.count("weir_shed_connections_total", &[("listener", "web"), ("reason", reason)])
}

/// Connects, asks once if it can be, and stays.
fn idle_client(address: SocketAddr, source: [u8; 4], asks: bool) -> Option<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()?;
    socket.bind(&SocketAddr::from((source, 0)).into()).ok()?;
    socket.connect_timeout(&address.into(), 2 * LIMIT).ok()?;
    let stream: TcpStream = socket.into();
    if asks {
        let mut connection = Connection::over(stream.try_clone().ok()?);
        // Turned away or not, it stays.
        let _ = connection.get("/idle");
    }
    Some(stream)
}

/// Idle clients, in this process or in others.
enum Idle {
    Here(Vec<TcpStream>),
    There(Vec<Child>),
}

impl Idle {
    fn open(address: SocketAddr, count: usize) -> Self {
        if count <= 5000 {
            let here = |part: usize| {
                let open = move |n: usize| idle_client(address, [127, 0, 0, 2 + part as u8], n.is_multiple_of(8));
                std::thread::spawn(move || (0..count / 4).filter_map(open).collect::<Vec<_>>())
            };
            let threads: Vec<_> = (0..4).map(here).collect();
            return Self::Here(threads.into_iter().flat_map(|t| t.join().unwrap()).collect());
        }
        let there = |part: usize| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "descriptors::idle_clients"]);
            command.env("WEIR_IDLE", format!("{address} {} {part}", count / 4));
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
        };
        Self::There((0..4).map(there).collect())
    }

    /// All have tried to connect.
    fn wait(&mut self, weir: &Weir) {
        if let Self::There(_) = self {
            let shed = || shed(weir, "descriptors") + shed(weir, "rejected");
            // Nobody comes back, so that what is closed stands still once all have come.
            let mut last = (-1.0, Instant::now());
            wait_for_within("all have come", 20 * LIMIT, || {
                let now = shed();
                if now != last.0 {
                    last = (now, Instant::now());
                }
                (now > 0.0 && last.1.elapsed() > Duration::from_secs(3)).then_some(())
            });
        }
    }

    fn close(self) {
        match self {
            Self::Here(clients) => drop(clients),
            Self::There(children) => {
                for mut child in children {
                    child.kill().unwrap();
                    child.wait().unwrap();
                }
            }
        }
    }
}

/// No test: what `Idle` runs in other processes. Ends when its standard input does.
#[test]
fn idle_clients() {
    let Ok(plan) = std::env::var("WEIR_IDLE") else { return };
    let mut plan = plan.split(' ');
    let mut next = || plan.next().unwrap();
    let (address, count, part) =
        (next().parse().unwrap(), next().parse::<usize>().unwrap(), next().parse::<u8>().unwrap());
    let open = |n: usize| idle_client(address, [127, 0, 1, 2 + part], n.is_multiple_of(64));
    let clients: Vec<_> = (0..count).filter_map(open).collect();
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    drop(clients);
}

/// Clients that ask again and again over one connection each.
struct Established {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<(), Failure>>>,
}

impl Established {
    fn start(weir: &Weir, count: usize) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (mut client, stop, asked) = (weir.connect(), stop.clone(), asked.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let answer = client.get("/established")?;
                    assert_eq!((answer.status(), answer.text().as_str()), (200, "v1"), "established");
                    asked.fetch_add(1, Ordering::SeqCst);
                    // A pace, no waiting: they must not become idle enough to give way.
                    std::thread::sleep(Duration::from_millis(50));
                }
                Ok(())
            })
        };
        let threads = (0..count).map(client).collect();
        Self { stop, asked, threads }
    }

    #[track_caller]
    fn go_on(&self) {
        let before = self.asked.load(Ordering::SeqCst);
        wait_until("established clients are served", || self.asked.load(Ordering::SeqCst) >= before + 16);
    }

    fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|t| t.join().unwrap().unwrap());
    }
}

/// Until a new client is served; how long that took.
#[track_caller]
fn served_anew(weir: &Weir) -> Duration {
    let begun = Instant::now();
    wait_for("a new client is served", || {
        let answer = Connection::open(weir.web()).and_then(|mut client| client.get("/new")).ok()?;
        (answer.status() == 200).then_some(())
    });
    begun.elapsed()
}

#[test]
fn idle_clients_give_way_and_service_comes_back() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address));
    served_anew(&weir);
    let before = open_descriptors(&weir);
    let established = Established::start(&weir, 4);
    let descriptors = times(256, 1024);
    limit_descriptors(&weir, descriptors as u64);
    let begun = cpu(&weir);
    let mut idle = Idle::open(weir.web(), times(1500, 20_000));
    idle.wait(&weir);
    eprintln!("taking them: {:.2} s of processor time", cpu(&weir) - begun);
    wait_until("idle ones have given way", || shed(&weir, "descriptors") > 0.0);
    assert!(open_descriptors(&weir) <= descriptors);
    established.go_on();

    let (begun, from) = (cpu(&weir), Instant::now());
    let window = Duration::from_secs(times(1, 10) as u64);
    wait_for_within("the time is over", 2 * window, || (from.elapsed() >= window).then_some(()));
    let share = (cpu(&weir) - begun) / from.elapsed().as_secs_f64();
    let starved = served_anew(&weir);
    established.go_on();
    idle.close();
    let relieved = served_anew(&weir);
    eprintln!("processor {:.1} %, a new client after {starved:?}, after relief {relieved:?}", share * 100.0);
    if soak() {
        assert!(share < 0.05, "{share}");
        assert!(starved < Duration::from_secs(1) && relieved < Duration::from_secs(1), "{starved:?} {relieved:?}");
    }
    established.go_on();
    established.stop();
    relieve(&weir);
    wait_until("nothing is left", || open_descriptors(&weir) <= before + 8);
    let told = |event| events(&weir, event, "descriptors");
    wait_until("the end is told", || told("shortage-over") == told("shortage-begun"));
    let met = weir.admin.count("weir_accept_errors_total", &[("listener", "web"), ("reason", "descriptors")]);
    assert!((1..4).contains(&told("shortage-begun")) && met > 20.0, "{met} times, told as an episode");
    assert_eq!(weir.admin.count("weir_errors_total", &[]), 0.0, "no version is to blame");
}

/// So many requests that are held by the origin.
fn hold(weir: &Weir, count: usize) -> Vec<Connection> {
    let ask = |_| {
        let mut client = weir.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
        client
    };
    (0..count).map(ask).collect()
}

#[test]
fn a_request_whose_endpoint_cannot_be_reached_for_lack_of_a_descriptor_is_told_so() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let weir = Weir::start(&Conf::one(origin.address));
    // An idle weir has some fifty by itself; half of these clients find none for their endpoint.
    let room = 60;
    limit_descriptors(&weir, (open_descriptors(&weir) + room) as u64);
    let held = hold(&weir, 36);
    let overloaded =
        || weir.stdout().lines().filter(|line| line.contains("/hold") && line.contains("\"status\":503")).count();
    // Who could not even be accepted while nobody was idle is closed unheard.
    let rejected = || shed(&weir, "rejected") as usize;
    wait_until("some are refused", || overloaded() > 0);
    wait_until("the others are with the origin", || gate.waiting() + overloaded() + rejected() == 36);
    let (refused, unheard) = (overloaded(), rejected());
    gate.open();
    let answers: Vec<_> = held.into_iter().filter_map(|mut client| client.answer(false).ok()).collect();
    assert_eq!(answers.len(), 36 - unheard);
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status() == 200);
    assert_eq!(bad.len(), refused);
    assert!(good.len() >= 20, "{}", good.len());
    for answer in bad {
        assert_eq!((answer.status(), answer.head.get("weir-error")), (503, Some("overloaded")), "{}", answer.head.raw);
        assert_eq!(answer.head.get("retry-after"), Some("1"));
    }
    assert_eq!(weir.admin.count("weir_errors_total", &[("reason", "connect")]), 0.0, "not the endpoint's doing");
    served_anew(&weir);
    wait_until("the end is told", || events(&weir, "shortage-over", "descriptors") > 0);
}

#[test]
fn idle_clients_give_way_to_connections_to_endpoints() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let weir = Weir::start(&Conf::one(origin.address));
    let idle: Vec<_> = (0..40).map(|_| weir.connect()).collect();
    wait_until("they are in", || weir.admin.metric("weir_connections", &[("listener", "web")]) == Some(40.0));
    // Idle for long enough to give way.
    let since = Instant::now();
    wait_until("they are idle", || since.elapsed() > Duration::from_millis(800));
    limit_descriptors(&weir, (open_descriptors(&weir) + 30) as u64);
    let held = hold(&weir, 25);
    wait_until("every request is with the origin", || gate.waiting() == 25);
    gate.open();
    for mut client in held {
        assert_eq!(client.answer(false).unwrap().status(), 200);
    }
    wait_until("idle ones have given way", || shed(&weir, "descriptors") > 0.0);
    drop(idle);
}

/// Clients that come when there is none.
const COMING: usize = 12;

#[test]
fn clients_that_find_no_descriptor_are_closed_and_not_left_hanging() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let weir = Weir::start(&Conf::one(origin.address));
    let held = hold(&weir, 20);
    wait_until("all are with the origin", || gate.waiting() == 20);
    // Fewer than there are: the kernel gives none any more (EMFILE), and nobody is idle.
    limit_descriptors(&weir, open_descriptors(&weir) as u64 - 10);
    let (begun, from) = (cpu(&weir), Instant::now());
    let heard = Arc::new(AtomicUsize::new(0));
    let ask = |_| {
        let (web, heard) = (weir.web(), heard.clone());
        std::thread::spawn(move || {
            let outcome = Connection::open(web).and_then(|mut client| client.get("/hold"));
            heard.fetch_add(1, Ordering::SeqCst);
            outcome
        })
    };
    let asked: Vec<_> = (0..COMING).map(ask).collect();
    // A few may find a descriptor that somebody has just let go.
    let told = || heard.load(Ordering::SeqCst);
    wait_until("all are told, or served", || told() > 0 && told() + gate.waiting() == COMING + 20);
    assert!(told() >= COMING / 2, "{} of {COMING}", told());
    let spent = cpu(&weir) - begun;
    assert!(spent < 0.5 * from.elapsed().as_secs_f64() + 0.1, "{spent} s of {:?}: it spins", from.elapsed());
    relieve(&weir);
    served_anew(&weir);
    wait_until("they are counted", || shed(&weir, "rejected") > 0.0);
    gate.open();
    for mut client in held {
        assert_eq!(client.answer(false).unwrap().status(), 200, "what was established went on");
    }
    for outcome in asked.into_iter().map(|asked| asked.join().unwrap()) {
        match outcome {
            Err(failure) => assert_ne!(failure, Failure::Silent, "it was left hanging"),
            Ok(answer) => assert!(matches!(answer.status(), 200 | 503), "{}", answer.head.raw),
        }
    }
    assert!(!weir.stderr().contains("accept-failed"), "told as an episode, not one by one");
    wait_until("the end is told", || events(&weir, "shortage-over", "descriptors") >= 1);
}

#[test]
fn at_the_limit_of_connections_the_oldest_idle_one_goes_and_the_busy_stay() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let weir = Weir::start(&Conf::one(origin.address).web("limits = { connections = 6 }"));
    let held = hold(&weir, 3);
    wait_until("they are with the origin", || gate.waiting() == 3);
    let idle: Vec<_> = (0..3)
        .map(|_| {
            let mut client = weir.connect();
            assert_eq!(client.get("/").unwrap().status(), 200);
            client
        })
        .collect();
    let mut new = weir.connect();
    assert_eq!(new.get("/").unwrap().text(), "v1", "room was made");
    let closed = |client: &mut Connection| client.is_closed_within(Duration::from_millis(20));
    let gone: usize = idle.into_iter().map(|mut client| usize::from(closed(&mut client))).sum();
    assert_eq!(gone as f64, wait_for("it is counted", || Some(shed(&weir, "conn-limit")).filter(|n| *n > 0.0)));
    // Nobody is idle now: whoever comes waits, and is served when one has gone.
    let more = hold(&weir, 6);
    wait_until("as many as may be are with the origin", || gate.waiting() == 6);
    assert_eq!(weir.admin.metric("weir_connections", &[("listener", "web")]).map(|n| n <= 6.0), Some(true));
    gate.open();
    for mut client in held {
        assert_eq!(client.answer(false).unwrap().status(), 200);
    }
    drop(new);
    for mut client in more {
        assert_eq!(client.answer(false).unwrap().status(), 200);
    }
    wait_until("the end is told", || events(&weir, "shortage-over", "conn-limit") >= 1);
    assert!(events(&weir, "shortage-begun", "conn-limit") >= 1);
}

#[test]
fn the_bounds_are_told_at_the_start_and_all_descriptors_are_taken() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address).web("limits = { connections = 100 }"));
    let limits = fs::read_to_string(format!("/proc/{}/limits", weir.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "the soft limit is the hard one");
    let stderr = weir.stderr();
    let bounds: Vec<&str> = stderr.lines().filter(|line| line.contains("\"event\":\"bounds\"")).collect();
    assert_eq!(bounds.len(), 1, "{stderr}");
    let bounds: serde_json::Value = serde_json::from_str(bounds[0]).unwrap();
    assert_eq!(bounds["descriptors"].to_string(), words[3]);
    assert_eq!((bounds["connections"].as_str(), bounds["workers"].as_u64()), (Some("web 100"), Some(2)));
    let of_one = bounds["http1_connection_bytes"].as_u64().unwrap();
    assert_eq!(bounds["memory_http1_bytes"].as_u64(), Some(100 * of_one));
    assert!(!stderr.contains("bounds-too-small"));

    let weir = Weir::start(&Conf::one(origin.address).web("limits = { connections = 10_000_000 }"));
    let stderr = weir.stderr();
    let warned = stderr.lines().find(|line| line.contains("bounds-too-small")).unwrap_or_else(|| panic!("{stderr}"));
    assert!(warned.contains("at least 10001024"), "{warned}");
}
