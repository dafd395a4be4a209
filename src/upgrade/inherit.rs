//! The new process's part: whether it is one, what it was given, and its word to the old one.
//!
//! Invariant: nothing that was given is served from before the old process says so; a process that is not a successor
//! leaves its standard input alone.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use super::elsewhere::{Elsewhere, Predecessor};
use super::link::Link;
use super::messages::{Parcel, Report, ToPredecessor, ToSuccessor};
use super::program::FROM;
use crate::config::Bind;
use crate::model::Instant;

/// What the old process may take to send everything.
const MANIFEST: Duration = Duration::from_secs(10);
/// What it may take to say `go`; then it has forgotten us.
const GO: Duration = Duration::from_secs(60);

/// What a successor begins with.
#[derive(Debug)]
pub struct Inheritance {
    pub parcel: Parcel,
    pub heir: Heir,
}

/// The line to the old process.
#[derive(Debug)]
pub struct Heir {
    link: Link,
    pid: u32,
}

/// What the process before us has handed over, if there is one; within a tokio runtime. Blocks.
///
/// # Errors
/// It began to, and what came is not understood.
pub fn inherit() -> io::Result<Option<Inheritance>> {
    let Some(from) = std::env::var(FROM).ok().and_then(|text| text.parse::<u32>().ok()) else { return Ok(None) };
    let Some(stream) = line_to(from)? else { return Ok(None) };
    let mut link = Link::new(stream)?;
    let (pid, parcel) = Parcel::receive(&mut link, Instant::now() + MANIFEST)?;
    Ok(Some(Inheritance { parcel, heir: Heir { link, pid } }))
}

/// Our standard input, if that process is at its other end: the variable alone may have come down from a grandparent.
fn line_to(pid: u32) -> io::Result<Option<UnixStream>> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&stdin)?.st_mode) != rustix::fs::FileType::Socket {
        return Ok(None);
    }
    let stream = UnixStream::from(stdin);
    stream.set_nonblocking(true)?;
    // By tokio, whose call is safe with a process that a PID namespace hides.
    let peer = tokio::net::UnixStream::from_std(stream.try_clone()?).and_then(|s| s.peer_cred())?.pid();
    if peer.and_then(|peer| u32::try_from(peer).ok()) != Some(pid) {
        stream.set_nonblocking(false)?;
        return Ok(None);
    }
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(Some(stream))
}

impl Heir {
    /// Which process we follow.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Says why we will not follow it.
    pub fn fail(mut self, text: &str) {
        let _ = self.link.send(&ToPredecessor::Failed { text: text.to_owned() });
    }

    /// Says that all is ready, with the addresses that we go on with, and waits for the word. Returns what the old
    /// process has in flight. Blocks.
    ///
    /// # Errors
    /// The old process goes on itself, or has died.
    pub fn ready(&mut self, kept: Vec<Bind>) -> io::Result<Report> {
        self.link.send(&ToPredecessor::Ready { kept })?;
        match self.link.receive(Instant::now() + GO)? {
            ToSuccessor::Go(report) => Ok(report),
            _ => Err(io::Error::new(io::ErrorKind::Interrupted, "the old process goes on itself")),
        }
    }

    /// Says that we accept. From here on the old process is a predecessor.
    pub fn serving(mut self, first: Report) -> (Predecessor, Elsewhere) {
        // If it has died meanwhile, so much the more are we the ones that serve.
        let _ = self.link.send(&ToPredecessor::Serving);
        Predecessor::new(self.pid, SystemTime::now(), first, self.link.into_stream())
    }
}
