//! The new process as the old one sees it: ready, then serving, then told what is still in flight.
//!
//! Invariant: a successor that was not told `go`, or did not answer, is ended when this is dropped.

use std::io;
use std::process::Child;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

use super::link::Link;
use super::messages::{Report, ToPredecessor, ToSuccessor};
use super::start::{Failed, end};
use crate::config::Bind;
use crate::model::Instant;
use crate::pool::EndpointKey;

/// From the word to the first connection that is accepted.
const GO: Duration = Duration::from_secs(5);

/// A process that is ready to serve and does not yet.
#[derive(Debug)]
pub struct Successor {
    running: Option<(Child, Link)>,
    pid: u32,
    /// The addresses it goes on with.
    pub kept: Vec<Bind>,
}

impl Successor {
    pub(super) fn new(child: Child, link: Link, kept: Vec<Bind>) -> Self {
        Self { pid: child.id(), running: Some((child, link)), kept }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it serve; when this returns it does. `now` is what this process has in flight. Blocks, five seconds at most.
    ///
    /// # Errors
    /// It died or did not answer, and is gone: this process goes on.
    pub fn go(&mut self, now: Report) -> Result<Reports, Failed> {
        let Some((child, mut link)) = self.running.take() else { return Err(Failed("it has gone already".to_owned())) };
        let answer = link.send(&ToSuccessor::Go(now)).and_then(|()| link.receive(Instant::now() + GO));
        match answer {
            Ok(ToPredecessor::Serving) => Ok(Reports { link }),
            Ok(ToPredecessor::Failed { text }) => Err(end(child, &mut link, Some(text))),
            Ok(ToPredecessor::Ready { .. } | ToPredecessor::Drain(_)) => {
                Err(end(child, &mut link, Some("it did not wait for its turn".to_owned())))
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(end(child, &mut link, None)),
            Err(e) => Err(end(child, &mut link, Some(format!("it did not take over: {e}")))),
        }
    }

    pub(super) fn end(mut self) {
        self.drop_it();
    }

    fn drop_it(&mut self) {
        if let Some((child, mut link)) = self.running.take() {
            end(child, &mut link, Some(String::new()));
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.drop_it();
    }
}

/// The line to a successor that serves.
#[derive(Debug)]
pub struct Reports {
    link: Link,
}

impl Reports {
    /// Tells what is in flight, again and again, and hands on what is to drain, until the other side closes: the successor
    /// has gone. Dropping it closes the line, which says that nothing is in flight.
    pub async fn run(self, every: Duration, report: impl Fn() -> Report, drain: impl Fn(&[EndpointKey])) {
        let stream = self.link.into_stream();
        let Ok(stream) = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream)) else { return };
        let (theirs, mut ours) = stream.into_split();
        let mut orders = BufReader::new(theirs).lines();
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                order = orders.next_line() => {
                    let Ok(Some(order)) = order else { return };
                    // Answered at once by a report, so that whoever waits for a drain does not wait for us.
                    if let Ok(ToPredecessor::Drain(keys)) = serde_json::from_str(&order) {
                        drain(&keys);
                    }
                }
            }
            if write(&mut ours, &ToSuccessor::Report(report())).await.is_err() {
                return;
            }
        }
    }
}

/// One line.
pub(super) async fn write(to: &mut OwnedWriteHalf, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line).await
}
