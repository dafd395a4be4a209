//! What a client of the mixed load has seen, told so that a failure can be found in weir's log: who, when, what exactly.
//!
//! A connection that ends is an end with a name; whatever has no name in [`End`] is a cut, and a cut is a failure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a client connection ended, where that is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The client had what it wanted.
    Done,
    /// `Connection: close` was said and followed.
    SaidClose,
    /// GOAWAY without an error was said and followed.
    GoAway,
    /// A WebSocket closed by weir with this code, 1001 or 1012.
    ClosedByUs(u16),
    /// A request crossed the FIN of an idle connection (amendments.md 2.4).
    Crossed,
}

/// Counts of one client; of several, added up.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests answered as they should be; a stream of events or messages counts once, a WebSocket once per echo.
    pub ok: usize,
    pub opened: usize,
    pub ends: BTreeMap<End, usize>,
    /// Streams above a GOAWAY's last one, or refused before they were taken up, sent again on another connection.
    pub resent: usize,
    /// Which endpoint has answered how often.
    pub by_endpoint: BTreeMap<String, usize>,
    pub failures: Vec<String>,
}

impl Counts {
    pub fn ended(&self, end: End) -> usize {
        self.ends.get(&end).copied().unwrap_or_default()
    }

    pub fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.opened += other.opened;
        self.resent += other.resent;
        self.failures.extend_from_slice(&other.failures);
        other.ends.iter().for_each(|(end, n)| *self.ends.entry(*end).or_default() += n);
        other.by_endpoint.iter().for_each(|(name, n)| *self.by_endpoint.entry(name.clone()).or_default() += n);
    }
}

/// One client's counts while it runs; clones are the same.
#[derive(Clone)]
pub struct Tally {
    /// What it speaks, and which of its kind it is.
    pub client: String,
    counts: Arc<Mutex<Counts>>,
}

impl Tally {
    pub fn new(client: String) -> Self {
        Self { client, counts: Arc::default() }
    }

    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap()
    }

    pub fn ok(&self, endpoint: &str) {
        let mut counts = self.counts();
        counts.ok += 1;
        match counts.by_endpoint.get_mut(endpoint) {
            Some(count) => *count += 1,
            None => _ = counts.by_endpoint.insert(endpoint.to_owned(), 1),
        }
    }

    pub fn opened(&self) {
        self.counts().opened += 1;
    }

    pub fn ended(&self, end: End) {
        *self.counts().ends.entry(end).or_default() += 1;
    }

    pub fn resent(&self) {
        self.counts().resent += 1;
    }

    /// Bounded: what fails always must not fill the memory.
    pub fn failed(&self, what: &str) {
        let mut counts = self.counts();
        if counts.failures.len() < 100 {
            let text = format!("{} {} after {} ok: {what}", clock(), self.client, counts.ok);
            counts.failures.push(text);
        }
    }
}

/// `12:00:00.123`, UTC as in weir's log.
fn clock() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs() % 86_400, since.subsec_millis());
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// One line per client.
pub fn table(clients: &[(String, Counts)]) -> String {
    let mut text = String::new();
    for (client, counts) in clients {
        let Counts { ok, opened, ends, resent, failures, .. } = counts;
        let _ = writeln!(
            text,
            "  {client:<18} {ok:>7} ok  {:>3} failed  {opened:>5} opened  {resent:>3} resent  {ends:?}",
            failures.len()
        );
    }
    text
}
