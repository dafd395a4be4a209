//! Gentle load: a few clients with kept-alive connections, and the tally of what they got.
//!
//! Invariant: every request asked for ends in exactly one `Seen`: a version's answer, weir's own answer, or none.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::toys::TOY_VERSION;
use crate::model::Instant;

/// Over all clients.
pub const PER_SECOND: u32 = 20;
const CLIENTS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client got for one request.
#[derive(Clone, Debug)]
pub enum Seen {
    /// An answer made by a version.
    Version { name: String, status: StatusCode, took: Duration },
    /// An answer made by the proxy itself.
    Proxy,
    /// No answer.
    Nothing,
}

/// Starts the clients. They end, each after its last answer, when the sender of `stop` is dropped.
pub fn start(port: u16, stop: &watch::Receiver<()>) -> mpsc::Receiver<Seen> {
    let (sender, receiver) = mpsc::channel(256);
    for i in 0..CLIENTS {
        let first = Duration::from_secs(1) * i / PER_SECOND;
        tokio::spawn(client(port, first, sender.clone(), stop.clone()));
    }
    receiver
}

async fn client(port: u16, first: Duration, seen: mpsc::Sender<Seen>, mut stop: watch::Receiver<()>) {
    let mut ticks = tokio::time::interval_at(Instant::now() + first, Duration::from_secs(1) * CLIENTS / PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => return,
            _ = ticks.tick() => {}
        }
        let got = tokio::time::timeout(PATIENCE, request(port, &mut connection)).await;
        let got = got.ok().flatten();
        if got.is_none() {
            connection = None;
        }
        if seen.send(got.unwrap_or(Seen::Nothing)).await.is_err() {
            return;
        }
    }
}

type Connection = SendRequest<Empty<Bytes>>;

/// `None`: no answer. A kept connection may be closed while the request is on its way, as HTTP allows; like any client,
/// this one then asks once more on a new one.
async fn request(port: u16, connection: &mut Option<Connection>) -> Option<Seen> {
    if let Some(kept) = connection.take()
        && let Some(seen) = exchange(port, kept, connection).await
    {
        return Some(seen);
    }
    exchange(port, connect(port).await?, connection).await
}

/// One request over an open connection, which is kept if it can be.
async fn exchange(port: u16, mut open: Connection, keep: &mut Option<Connection>) -> Option<Seen> {
    let start = Instant::now();
    open.ready().await.ok()?;
    let request = Request::get("/").header("host", format!("127.0.0.1:{port}")).body(Empty::new()).ok()?;
    let (head, body) = open.send_request(request).await.ok()?.into_parts();
    body.collect().await.ok()?;
    *keep = Some(open);
    Some(match head.headers.get(TOY_VERSION).and_then(|v| v.to_str().ok()) {
        Some(name) => Seen::Version { name: name.to_owned(), status: head.status, took: start.elapsed() },
        None => Seen::Proxy,
    })
}

async fn connect(port: u16) -> Option<Connection> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(driver);
    Some(sender)
}

/// What the clients got over some time.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// By name, in the order of the names.
    pub versions: std::collections::BTreeMap<String, Tally>,
    /// Answers made by the proxy itself.
    pub by_proxy: u64,
    /// Requests without an answer.
    pub unanswered: u64,
}

/// What one version answered.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub requests: u64,
    /// Of these: 5xx.
    pub errors: u64,
    /// At 20 requests a second these are few enough to keep them all.
    took: Vec<Duration>,
}

impl Totals {
    pub fn add(&mut self, seen: &Seen) {
        match seen {
            Seen::Proxy => self.by_proxy += 1,
            Seen::Nothing => self.unanswered += 1,
            Seen::Version { name, status, took } => {
                let tally = self.versions.entry(name.clone()).or_default();
                tally.requests += 1;
                tally.errors += u64::from(status.is_server_error());
                tally.took.push(*took);
            }
        }
    }

    /// Requests asked for.
    pub fn requests(&self) -> u64 {
        self.versions.values().map(|t| t.requests).sum::<u64>() + self.by_proxy + self.unanswered
    }
}

impl Tally {
    /// Milliseconds that half of the answers were within.
    fn median_ms(&self) -> f64 {
        let mut took = self.took.clone();
        took.sort_unstable();
        took.get(took.len() / 2).map_or(0.0, |d| d.as_secs_f64() * 1000.0)
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.requests();
        write!(f, "{all:>4} requests")?;
        for (name, tally) in &self.versions {
            let Tally { requests, errors, .. } = tally;
            let percent = *requests as f64 * 100.0 / all as f64;
            write!(f, "   {name} {requests:>3} ({percent:>4.1}%) {errors} errors p50 {:.0}ms", tally.median_ms())?;
        }
        if self.by_proxy > 0 {
            write!(f, "   weir itself {}", self.by_proxy)?;
        }
        if self.unanswered > 0 {
            write!(f, "   no answer {}", self.unanswered)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_accounts_for_every_request() {
        let mut totals = Totals::default();
        let answer = |name: &str, status, ms| Seen::Version {
            name: name.to_owned(),
            status: StatusCode::from_u16(status).unwrap(),
            took: Duration::from_millis(ms),
        };
        for seen in [answer("v2", 500, 30), answer("v1", 200, 3), answer("v1", 200, 5), answer("v1", 404, 4)] {
            totals.add(&seen);
        }
        let line = "   4 requests   v1   3 (75.0%) 0 errors p50 4ms   v2   1 (25.0%) 1 errors p50 30ms";
        assert_eq!(totals.to_string(), line);
        totals.add(&Seen::Proxy);
        totals.add(&Seen::Nothing);
        assert!(totals.to_string().ends_with("   weir itself 1   no answer 1"), "{totals}");
        assert_eq!(totals.requests(), 6);
        assert_eq!(Totals::default().to_string(), "   0 requests");
    }
}
