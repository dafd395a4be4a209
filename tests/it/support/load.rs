//! Steady load from keep-alive clients, every request accounted for: which version, when it began, how it failed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Connection, Failure, Instant, wait_until};

/// What load to make.
#[derive(Clone, Debug)]
pub struct Plan {
    pub address: SocketAddr,
    pub connections: usize,
    /// Between two requests of a connection; `None`: as fast as it goes.
    pub pace: Option<Duration>,
    /// A client that is refused when it connects is done (for shutdowns); otherwise that is a failure.
    pub until_refused: bool,
}

/// One answered request. The answer's text is the version's name.
#[derive(Clone, Debug)]
pub struct Served {
    pub began: Instant,
    pub ended: Instant,
    pub version: String,
}

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    served: Mutex<Vec<Served>>,
    failures: Mutex<Vec<String>>,
}

/// Running load; ends when dropped.
pub struct Load {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

/// What it came to.
#[derive(Debug)]
pub struct Report {
    pub served: Vec<Served>,
    pub failures: Vec<String>,
}

impl Load {
    pub fn start(plan: &Plan) -> Self {
        let tally = Arc::new(Tally::default());
        let client = |number| {
            let (plan, tally) = (plan.clone(), tally.clone());
            std::thread::spawn(move || client(number, &plan, &tally))
        };
        let clients = (0..plan.connections).map(client).collect();
        Self { tally, clients }
    }

    /// Gentle load in the short form, full load in the full one; running when this returns.
    #[track_caller]
    pub fn steady(address: SocketAddr) -> Self {
        let pace = (!super::soak()).then_some(Duration::from_millis(2));
        let connections = super::times(8, 16);
        let load = Self::start(&Plan { address, connections, pace, until_refused: false });
        load.wait_for_more(connections * 2);
        load
    }

    /// Until that many more requests that begin from now on are answered.
    #[track_caller]
    pub fn wait_for_more(&self, count: usize) {
        let since = Instant::now();
        wait_until("more requests are answered", || self.since(since, |_| true) >= count || self.has_failed());
    }

    /// Until a request that began after `since` was answered by that version; says when that was.
    #[track_caller]
    pub fn wait_for_version(&self, version: &str, since: Instant) -> Instant {
        super::wait_for(&format!("an answer of {version}"), || {
            let served = self.served();
            let new = served.iter().rev().take_while(|s| s.ended >= since);
            new.filter(|s| s.began >= since && s.version == version).map(|s| s.ended).last()
        })
    }

    /// How many that began after `since` are answered and fit.
    pub fn since(&self, since: Instant, fits: impl Fn(&Served) -> bool) -> usize {
        self.served().iter().rev().take_while(|s| s.ended >= since).filter(|s| s.began >= since && fits(s)).count()
    }

    pub fn has_failed(&self) -> bool {
        !self.tally.failures.lock().unwrap().is_empty()
    }

    /// All clients are done by themselves.
    pub fn is_over(&self) -> bool {
        self.clients.iter().all(JoinHandle::is_finished)
    }

    /// Stops all clients after their present request.
    pub fn stop(mut self) -> Report {
        self.end();
        let served = std::mem::take(&mut *self.served());
        let failures = std::mem::take(&mut *self.tally.failures.lock().unwrap());
        Report { served, failures }
    }

    fn end(&mut self) {
        self.tally.stop.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            client.join().unwrap();
        }
    }

    fn served(&self) -> MutexGuard<'_, Vec<Served>> {
        self.tally.served.lock().unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Report {
    /// Fails if anything failed; something must have been served.
    #[track_caller]
    pub fn expect_no_failure(&self) {
        let shown = self.failures.iter().take(10).collect::<Vec<_>>();
        assert!(self.failures.is_empty(), "{} of {} failed: {shown:#?}", self.failures.len(), self.served.len());
        assert!(!self.served.is_empty(), "no request was made");
    }

    pub fn by_version(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for served in &self.served {
            *counts.entry(served.version.as_str()).or_default() += 1;
        }
        counts
    }
}

fn client(number: usize, plan: &Plan, tally: &Tally) {
    let mut connection = None;
    let mut sent = 0;
    while !tally.stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        match one(&mut connection, plan.address) {
            Ok(version) => tally.served.lock().unwrap().push(Served { began, ended: Instant::now(), version }),
            Err(Failure::Refused) if plan.until_refused => return,
            Err(failure) => {
                let text = format!("client {number}, its request {sent}: {failure}");
                tally.failures.lock().unwrap().push(text);
                connection = None;
            }
        }
        sent += 1;
        if let Some(pace) = plan.pace {
            std::thread::sleep(pace);
        }
    }
}

/// One request over the open connection, or over a new one.
fn one(connection: &mut Option<(Connection, usize)>, address: SocketAddr) -> Result<String, Failure> {
    let (mut open, used) = match connection.take() {
        Some(open) => open,
        None => (Connection::open(address)?, 0),
    };
    let answer = open.get("/").map_err(|failure| match failure {
        Failure::Refused => Failure::Connect("refused in an exchange".to_owned()),
        Failure::ClosedBeforeHead => Failure::Cut(format!("closed without an answer after {used} requests")),
        other => other,
    })?;
    if answer.status() != 200 {
        return Err(Failure::Malformed(format!("{} {}", answer.head.first, answer.text())));
    }
    if !open.left_over().is_empty() {
        return Err(Failure::Malformed("bytes behind the answer".to_owned()));
    }
    if !answer.head.closes() {
        *connection = Some((open, used + 1));
    }
    Ok(answer.text())
}
