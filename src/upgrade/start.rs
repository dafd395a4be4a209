//! The old process's part until the new one is ready.
//!
//! On a thread of its own, which waits for the new process and nothing else. Invariant: whatever goes wrong, no second
//! process is left, and the reason names what the new one said or how it ended.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Program;
use super::link::Link;
use super::messages::{Parcel, ToPredecessor, ToSuccessor};
use super::successor::Successor;
use crate::model::Instant;

/// How long a process that has closed its end may take to be gone.
const EXIT: Duration = Duration::from_millis(500);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(5);

/// Why there is no successor; this process goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

/// Starts the program, hands the parcel over and waits until it is ready, at most `limit`. When `called_off` is over first,
/// the new process is ended before this returns.
///
/// # Errors
/// `Failed` when it cannot be started, says why not, ends, or takes longer.
pub async fn start(
    program: Program,
    parcel: Parcel,
    limit: Duration,
    called_off: impl Future<Output = ()>,
) -> Result<Successor, Failed> {
    let failed = |e: io::Error| Failed(format!("no socket pair: {e}"));
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let line = Line { stream: ours.try_clone().map_err(failed)?, called_off: Arc::default() };
    let theirs_off = line.called_off.clone();
    let (done, mut is_done) = oneshot::channel();
    std::thread::Builder::new()
        .name("weir-upgrade".to_owned())
        .spawn(move || {
            let result = begin(&program, &parcel, (ours, theirs), Instant::now() + limit);
            let result = result.map_err(|why| if theirs_off.load(Ordering::SeqCst) { called_off_error() } else { why });
            // Nobody waits any more: it is not wanted.
            if let Err(Ok(successor)) = done.send(result) {
                successor.end();
            }
        })
        .map_err(|e| Failed(format!("no thread: {e}")))?;
    let result = tokio::select! {
        result = &mut is_done => result,
        () = called_off => {
            line.call_off();
            is_done.await.map(|result| result.and_then(|_| Err(called_off_error())))
        }
    };
    result.unwrap_or_else(|_| Err(Failed("the thread that started it died".to_owned())))
}

fn called_off_error() -> Failed {
    Failed("it was called off".to_owned())
}

/// Ends the talk, so that nobody waits for an answer in vain.
struct Line {
    stream: UnixStream,
    called_off: Arc<AtomicBool>,
}

impl Line {
    fn call_off(&self) {
        self.called_off.store(true, Ordering::SeqCst);
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn begin(
    program: &Program,
    parcel: &Parcel,
    (ours, theirs): (UnixStream, UnixStream),
    until: Instant,
) -> Result<Successor, Failed> {
    let mut link = Link::new(ours).map_err(|e| Failed(format!("no socket pair: {e}")))?;
    let spawned = program.command().stdin(Stdio::from(OwnedFd::from(theirs))).spawn();
    let child = spawned.map_err(|e| Failed(format!("{} cannot be started: {e}", program.path().display())))?;
    // The command, and with it our handle of the other end, is gone: the end of the process shows.
    let answer = parcel.send(&mut link).and_then(|()| link.receive(until));
    match answer {
        Ok(ToPredecessor::Ready { kept }) => Ok(Successor::new(child, link, kept)),
        Ok(ToPredecessor::Failed { text }) => Err(end(child, &mut link, Some(text.trim_end().to_owned()))),
        Ok(ToPredecessor::Serving | ToPredecessor::Drain(_)) => {
            Err(end(child, &mut link, Some("it did not wait for its turn".to_owned())))
        }
        Err(e) if e.kind() == io::ErrorKind::TimedOut => {
            Err(end(child, &mut link, Some("it was not ready in time, and was ended".to_owned())))
        }
        Err(_) => Err(end(child, &mut link, None)),
    }
}

/// Ends it. Without a reason how it ended is the reason.
pub(super) fn end(mut child: Child, link: &mut Link, why: Option<String>) -> Failed {
    let _ = link.send(&ToSuccessor::Cancel);
    let until = Instant::now() + EXIT;
    let mut status = child.try_wait().ok().flatten();
    while why.is_none() && status.is_none() && Instant::now() < until {
        std::thread::sleep(LOOK);
        status = child.try_wait().ok().flatten();
    }
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    Failed(why.unwrap_or_else(|| how(status)))
}

fn how(status: Option<ExitStatus>) -> String {
    match status {
        Some(status) => {
            format!("the new process ended before it was ready ({status}); what it said is on this process's stderr")
        }
        None => "the new process closed its standard input before it was ready, and was ended".to_owned(),
    }
}
