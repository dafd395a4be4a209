//! The mixed load: some clients of each kind at the same time, all of them bounded, all accounted for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::plan::{Client, Plan};
use super::stage::closes_websockets;
use super::stream_kinds::Kind;
use super::tally::{Counts, End, Tally, table};
use super::{events, keep_alive, socket, streams};
use crate::support::{LIMIT, times, wait_for_within};

/// Running clients; they end when it is dropped.
pub struct Mix {
    pub plan: Arc<Plan>,
    tallies: Vec<Tally>,
    threads: Vec<JoinHandle<()>>,
}

/// Clients over HTTP/1.1: name, thread's work, over TLS or not, pace in milliseconds.
type Blocking = (&'static str, fn(&Client), bool, u64);
const BLOCKING: &[Blocking] = &[
    ("http1 a", keep_alive::run, false, 4),
    ("http1 b", keep_alive::run, false, 4),
    ("http1 idle", keep_alive::run, false, 150),
    ("http1-tls a", keep_alive::run, true, 4),
    ("http1-tls idle", keep_alive::run, true, 150),
    ("ws", socket::run, false, 5),
    ("ws-tls", socket::run, true, 5),
    ("sse", events::run, false, 0),
    ("sse-tls", events::run, true, 0),
];

/// Clients over HTTP/2.
const STREAMS: &[(&str, Kind, bool, u64)] = &[
    ("h2c", Kind::Requests, false, 8),
    ("h2-tls", Kind::Requests, true, 8),
    ("h2-tls idle", Kind::Requests, true, 200),
    ("ws-h2c", Kind::Sockets, false, 5),
    ("ws-h2-tls", Kind::Sockets, true, 5),
    ("grpc", Kind::Calls, false, 5),
    ("grpc-tls", Kind::Calls, true, 5),
];

impl Mix {
    /// Every client has had an answer when this returns.
    #[track_caller]
    pub fn start(plan: Plan) -> Self {
        let mut this = Self { plan: Arc::new(plan), tallies: Vec::new(), threads: Vec::new() };
        for (name, run, is_secure, pace) in BLOCKING {
            let client = this.client(name, *is_secure, *pace);
            this.threads.push(std::thread::spawn(move || run(&client)));
        }
        let kinds = STREAMS.iter().map(|(name, kind, is_secure, pace)| (this.client(name, *is_secure, *pace), *kind));
        let kinds = kinds.collect();
        this.threads.push(std::thread::spawn(move || all(kinds)));
        this.wait_for_more(1);
        this
    }

    fn client(&mut self, name: &str, is_secure: bool, pace: u64) -> Client {
        let tally = Tally::new(name.to_owned());
        self.tallies.push(tally.clone());
        // Gentle in the short form: the machine is shared with every other test.
        let pace = Duration::from_millis(pace * times(2, 1) as u64);
        Client { plan: self.plan.clone(), tally, is_secure, pace, seed: self.tallies.len() as u64 * 1000 }
    }

    /// Until every client has had so many more answers; fails with the first failure of any.
    #[track_caller]
    pub fn wait_for_more(&self, count: usize) {
        let before: Vec<usize> = self.tallies.iter().map(|tally| tally.counts().ok).collect();
        self.wait("every client has had more answers", |this| {
            this.tallies.iter().zip(&before).all(|(tally, before)| tally.counts().ok >= before + count)
        });
    }

    /// Until that endpoint has answered somebody, over both protocols of its own.
    #[track_caller]
    pub fn wait_for_endpoint(&self, name: &str) {
        let has = |tally: &Tally| tally.counts().by_endpoint.contains_key(name);
        self.wait(&format!("{name} answers requests and calls"), |this| {
            let (calls, rest): (Vec<&Tally>, Vec<&Tally>) =
                this.tallies.iter().partition(|t| t.client.starts_with("grpc"));
            calls.into_iter().any(has) && rest.into_iter().any(has)
        });
    }

    /// From now on a refused connect is a client's end, and no failure.
    pub fn end_when_refused(&self) {
        self.plan.until_refused.store(true, Ordering::SeqCst);
    }

    /// All clients are done by themselves.
    pub fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    #[track_caller]
    pub fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        wait_for_within(what, 2 * LIMIT, || {
            self.check();
            is_so(self).then_some(())
        });
    }

    /// Fails with what has failed so far.
    #[track_caller]
    pub fn check(&self) {
        let failures = self.failures();
        let first = &failures[..failures.len().min(10)];
        assert!(failures.is_empty(), "{} failures: {first:#?}\n{}", failures.len(), table(&self.counts()));
    }

    /// What has failed so far.
    fn failures(&self) -> Vec<String> {
        self.tallies.iter().flat_map(|tally| tally.counts().failures.clone()).collect()
    }

    /// Until not a single client is left that has seen nothing.
    #[track_caller]
    pub fn wait_for_failures_of_all(&self) {
        wait_for_within("every client has failed", 2 * LIMIT, || {
            self.tallies.iter().all(|tally| !tally.counts().failures.is_empty()).then_some(())
        });
    }

    fn counts(&self) -> Vec<(String, Counts)> {
        self.tallies.iter().map(|tally| (tally.client.clone(), tally.counts().clone())).collect()
    }

    /// Stops every client after what it is at; none may have failed.
    #[track_caller]
    pub fn stop(mut self) -> Summary {
        self.end();
        self.check();
        self.summary()
    }

    /// `stop`, for tests that want to see failures.
    pub fn stop_anyhow(mut self) -> Summary {
        self.end();
        self.summary()
    }

    fn summary(&self) -> Summary {
        let clients = self.counts();
        let mut total = Counts::default();
        clients.iter().for_each(|(_, counts)| total.add(counts));
        Summary { clients, total }
    }

    fn end(&mut self) {
        self.plan.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let is_whole = thread.join().is_ok();
            assert!(is_whole || std::thread::panicking(), "a client has panicked");
        }
    }
}

impl Drop for Mix {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a load came to.
pub struct Summary {
    clients: Vec<(String, Counts)>,
    pub total: Counts,
}

impl Summary {
    /// The counts of one client.
    #[track_caller]
    pub fn of(&self, client: &str) -> &Counts {
        &self.clients.iter().find(|(name, _)| name == client).unwrap().1
    }

    /// Nobody was asked to leave: no keep-alive and no HTTP/2 connection has ended before its client's end, and none was
    /// opened but the first.
    #[track_caller]
    pub fn expect_connections_kept(&self) {
        let table = table(&self.clients);
        for end in [End::SaidClose, End::GoAway, End::Crossed] {
            assert_eq!(self.total.ended(end), 0, "connections ended by {end:?}:\n{table}");
        }
        assert_eq!(self.total.resent, 0, "streams sent again:\n{table}");
        let kept =
            self.clients.iter().filter(|(name, _)| !matches!(name.as_str(), "ws" | "ws-tls" | "sse" | "sse-tls"));
        kept.for_each(|(name, counts)| assert_eq!(counts.opened, 1, "connections of {name}:\n{table}"));
    }

    /// WebSockets were closed by weir, and always with that code; none at all if it cannot do that yet.
    #[track_caller]
    pub fn expect_closed_with(&self, code: u16) {
        let closed = |end: &End| matches!(end, End::ClosedByUs(_));
        let codes: Vec<&End> = self.total.ends.keys().filter(|end| closed(end)).collect();
        let expected = closes_websockets().then_some(End::ClosedByUs(code));
        assert_eq!(codes, expected.iter().collect::<Vec<_>>(), "\n{}", table(&self.clients));
    }

    /// Past the test harness' capture.
    pub fn tell(&self, scenario: &str) {
        crate::support::tell(&format!(
            "{scenario}: {} ok, {} failed\n{}",
            self.total.ok,
            self.total.failures.len(),
            table(&self.clients)
        ));
    }
}

/// All HTTP/2 clients share a thread.
fn all(clients: Vec<(Client, Kind)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut running = tokio::task::JoinSet::new();
        for (client, kind) in clients {
            running.spawn(streams::run(Arc::new(client), kind));
        }
        while let Some(ended) = running.join_next().await {
            ended.unwrap();
        }
    });
}
