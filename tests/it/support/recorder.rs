//! A recording origin that reads HTTP/1.1 as strictly as RFC 9112 lets anybody: what it takes has one reading only.
//!
//! Everything it is sent is kept: whole requests, requests that were cut, and bytes that are no strict request at all.
//! It answers a request once its body is whole; targets that begin with `/early` are answered before the body.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::strict::{self, Framing};
use super::{LIMIT, wait_for};

/// How far a request has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its bytes are still arriving.
    Open,
    Whole,
    /// The connection ended inside it.
    Cut,
    /// No strict request; says why.
    Fault(String),
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The head, the empty line included.
    pub raw: Vec<u8>,
    /// `None` until the head is whole, and if it is faulty.
    pub head: Option<strict::Head>,
    /// Without any framing.
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub stage: Stage,
}

/// See the file's head.
pub struct Recorder {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Vec<Seen>>,
    /// Every connection so far; those that are over cannot be upgraded.
    connections: Mutex<Vec<(SocketAddr, Weak<TcpStream>)>>,
}

impl Recorder {
    pub fn start() -> Self {
        let listener = super::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        std::thread::spawn(move || {
            while let Ok((stream, peer)) = listener.accept() {
                if theirs.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, shared) = (Arc::new(stream), theirs.clone());
                theirs.connections.lock().unwrap().push((peer, Arc::downgrade(&stream)));
                std::thread::spawn(move || Reader { stream, buffer: Vec::new(), shared }.serve());
            }
        });
        Self { address, shared }
    }

    /// All that was sent here since the last call, as far as it has left the sender.
    ///
    /// Connections are accepted in order, so whatever was connected before our own is known once ours is; and a reader
    /// says that a request has begun before it takes the first byte of it. So nothing can hide.
    #[track_caller]
    pub fn take(&self) -> Vec<Seen> {
        let ours = TcpStream::connect(self.address).unwrap();
        let port = ours.local_addr().unwrap();
        wait_for("the origin sees the end of every request", || {
            let mut connections = self.shared.connections.lock().unwrap();
            let is_known = connections.iter().any(|(peer, _)| *peer == port);
            let is_read = |stream: Arc<TcpStream>| rustix::io::ioctl_fionread(&*stream).is_ok_and(|n| n == 0);
            if !is_known || !connections.iter().filter_map(|(_, stream)| stream.upgrade()).all(is_read) {
                return None;
            }
            let mut seen = self.shared.seen.lock().unwrap();
            seen.iter().all(|s| s.stage != Stage::Open).then(|| {
                connections.retain(|(peer, stream)| *peer != port && stream.strong_count() > 0);
                std::mem::take(&mut *seen)
            })
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

/// Why reading stopped.
enum End {
    Closed,
    Fault(String),
}

impl From<String> for End {
    fn from(why: String) -> Self {
        Self::Fault(why)
    }
}

struct Reader {
    stream: Arc<TcpStream>,
    buffer: Vec<u8>,
    shared: Arc<Shared>,
}

impl Reader {
    fn serve(mut self) {
        self.stream.set_read_timeout(Some(2 * LIMIT)).unwrap();
        while !self.buffer.is_empty() || self.stream.peek(&mut [0]).is_ok_and(|n| n > 0) {
            let mut seen =
                Seen { raw: Vec::new(), head: None, body: Vec::new(), trailers: Vec::new(), stage: Stage::Open };
            let place = self.open(&seen);
            let end = self.request(&mut seen);
            seen.stage = match &end {
                Ok(()) => Stage::Whole,
                Err(End::Closed) => Stage::Cut,
                Err(End::Fault(why)) => Stage::Fault(why.clone()),
            };
            let text = format!("{}\n", seen.head.as_ref().map_or("?", |h| h.target.as_str()));
            let is_head = seen.head.as_ref().is_some_and(|h| h.method == "HEAD");
            self.close(place, seen);
            let body = if is_head { "" } else { text.as_str() };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", text.len());
            if end.is_err() || (&*self.stream).write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// A place among what was seen, so that nobody thinks that nothing is on its way.
    fn open(&self, seen: &Seen) -> usize {
        let mut all = self.shared.seen.lock().unwrap();
        all.push(seen.clone());
        all.len() - 1
    }

    fn close(&self, place: usize, seen: Seen) {
        // `take` only empties the list when nothing in it is open, so the place is still ours.
        self.shared.seen.lock().unwrap()[place] = seen;
    }

    fn request(&mut self, seen: &mut Seen) -> Result<(), End> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                seen.raw = self.buffer.drain(..at + 4).collect();
                break;
            }
            if self.fill(self.buffer.len() + 1).is_err() {
                seen.raw = std::mem::take(&mut self.buffer);
                return Err(End::Closed);
            }
        }
        let head = strict::Head::parse(&seen.raw)?;
        let framing = head.framing()?;
        if head.all("expect").iter().any(|v| v.eq_ignore_ascii_case("100-continue")) {
            // If that fails, so does the next read.
            let _ = (&*self.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if head.target.starts_with("/early") {
            let _ = (&*self.stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nearly\n");
        }
        seen.head = Some(head);
        match framing {
            Framing::None => Ok(()),
            Framing::Length(length) => self.take(length).map(|body| seen.body = body),
            Framing::Chunked => self.chunks(seen),
        }
    }

    fn chunks(&mut self, seen: &mut Seen) -> Result<(), End> {
        loop {
            let line = self.line()?;
            let is_size = (1..=15).contains(&line.len()) && line.iter().all(u8::is_ascii_hexdigit);
            let text = String::from_utf8_lossy(&line).into_owned();
            let size = usize::from_str_radix(&text, 16).ok().filter(|_| is_size);
            match size.ok_or_else(|| format!("chunk size {text:?}"))? {
                0 => break,
                size => seen.body.extend(self.take(size)?),
            }
            if self.take(2)? != b"\r\n" {
                return Err(End::Fault("no CRLF after a chunk".to_owned()));
            }
        }
        loop {
            match self.line()? {
                line if line.is_empty() => return Ok(()),
                line => seen.trailers.push(strict::field(&line)?),
            }
        }
    }

    /// Up to the next CRLF, without it.
    fn line(&mut self) -> Result<Vec<u8>, End> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = self.buffer.drain(..at + 2).take(at).collect::<Vec<u8>>();
                return Ok(line);
            }
            self.fill(self.buffer.len() + 1)?;
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, End> {
        self.fill(length)?;
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads until there are that many bytes.
    fn fill(&mut self, length: usize) -> Result<(), End> {
        let mut piece = [0; 16 * 1024];
        while self.buffer.len() < length {
            match (&*self.stream).read(&mut piece) {
                Ok(n) if n > 0 => self.buffer.extend_from_slice(&piece[..n]),
                _ => return Err(End::Closed),
            }
        }
        Ok(())
    }
}
