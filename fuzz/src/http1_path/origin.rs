//! An origin on loopback that reads HTTP/1.1 by the letter, keeps what it has read, and answers 200 to every request:
//! when it is whole, or right behind the head if its target begins with `/early`.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::reading::{Body, body};
use crate::strict::{Framing, Head};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How far a request has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// More of it may come.
    Open,
    Whole,
    /// The connection ended inside it.
    Cut,
    /// No strict request; says why.
    Fault(String),
}

/// One request as it arrived.
#[derive(Clone)]
pub struct Seen {
    pub raw: Vec<u8>,
    /// `None` until it is whole.
    pub head: Option<Head>,
    /// As far as it has come, without framing.
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub stage: Stage,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, body) = (self.raw.escape_ascii(), self.body.escape_ascii());
        write!(f, "{:?}: {head}; body {body}; trailers {:?}", self.stage, self.trailers)
    }
}

/// See the file's head.
pub struct Origin {
    pub address: SocketAddr,
    /// Bytes and ends so far.
    moved: Cell<u64>,
    seen: RefCell<Vec<Rc<RefCell<Seen>>>>,
}

impl Origin {
    pub async fn start() -> io::Result<Rc<Self>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let origin = Rc::new(Self { address, moved: Cell::new(0), seen: RefCell::default() });
        let own = origin.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                own.moved.set(own.moved.get() + 1);
                let origin = own.clone();
                tokio::task::spawn_local(async move { origin.serve(stream).await });
            }
        });
        Ok(origin)
    }

    pub fn moved(&self) -> u64 {
        self.moved.get()
    }

    /// All since the last call, in the order they began. What is still open stays known to its connection only.
    pub fn take(&self) -> Vec<Seen> {
        self.seen.take().iter().map(|seen| seen.borrow().clone()).collect()
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            // A request is opened with its first byte, so that nothing can hide between two.
            if bytes.is_empty() && self.fill(&mut stream, &mut bytes).await == 0 {
                return;
            }
            let seen = Seen { raw: Vec::new(), head: None, body: Vec::new(), trailers: Vec::new(), stage: Stage::Open };
            let seen = Rc::new(RefCell::new(seen));
            self.seen.borrow_mut().push(seen.clone());
            let stage = match self.request(&mut stream, &mut bytes, &seen).await {
                Ok(true) => Stage::Whole,
                Ok(false) => Stage::Cut,
                Err(why) => Stage::Fault(why),
            };
            let is_whole = stage == Stage::Whole;
            seen.borrow_mut().stage = stage;
            if !is_whole {
                return;
            }
        }
    }

    async fn fill(&self, stream: &mut TcpStream, bytes: &mut Vec<u8>) -> usize {
        let n = stream.read_buf(bytes).await.unwrap_or(0);
        self.moved.set(self.moved.get() + 1);
        n
    }

    /// Reads and answers one; false if the connection ended inside it.
    async fn request(&self, stream: &mut TcpStream, bytes: &mut Vec<u8>, seen: &RefCell<Seen>) -> Result<bool, String> {
        let end = loop {
            seen.borrow_mut().raw.clone_from(bytes);
            match bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if self.fill(stream, bytes).await == 0 => return Ok(false),
                None => {}
            }
        };
        let raw: Vec<u8> = bytes.drain(..end).collect();
        seen.borrow_mut().raw.clone_from(&raw);
        let head = Head::parse(&raw)?;
        let framing = head.framing()?;
        seen.borrow_mut().head = Some(head.clone());
        if head.all("expect").iter().any(|v| v.eq_ignore_ascii_case("100-continue")) {
            // If that fails, so does the next read.
            let _ = stream.write_all(CONTINUE).await;
        }
        let is_early = head.target.starts_with("/early");
        if is_early {
            let _ = stream.write_all(OK).await;
        }
        if !self.body(stream, bytes, framing, seen).await? {
            return Ok(false);
        }
        if !is_early {
            let _ = stream.write_all(OK).await;
        }
        Ok(true)
    }

    async fn body(
        &self,
        stream: &mut TcpStream,
        bytes: &mut Vec<u8>,
        framing: Framing,
        seen: &RefCell<Seen>,
    ) -> Result<bool, String> {
        loop {
            match body(framing, bytes, false)? {
                Body::Whole { len, data, trailers } => {
                    bytes.drain(..len);
                    let mut seen = seen.borrow_mut();
                    (seen.body, seen.trailers) = (data, trailers);
                    return Ok(true);
                }
                Body::Partial(data) => seen.borrow_mut().body = data,
            }
            if self.fill(stream, bytes).await == 0 {
                return Ok(false);
            }
        }
    }
}
