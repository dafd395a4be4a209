//! A scripted HTTP/1.1 origin: sees raw bytes, answers (or misbehaves) as the test says. One thread per connection.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;

use super::{Connection, Failure, Gate, Head};

/// What becomes of the connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Keep,
    Close,
    Reset,
}

/// One request and the connection it came on.
pub struct Exchange<'a> {
    pub head: Head,
    pub wire: &'a mut Connection,
}

impl Exchange<'_> {
    /// The request's whole body.
    pub fn body(&mut self) -> Result<Vec<u8>, Failure> {
        if self.head.is_chunked() || self.head.has("content-length") {
            self.wire.body(&self.head)
        } else {
            Ok(Vec::new())
        }
    }

    /// A whole answer with Content-Length.
    pub fn answer(&mut self, status: &str, fields: &str, body: &[u8]) -> Result<After, Failure> {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
        let body = if self.head.method() == "HEAD" { &[] } else { body };
        self.wire.send([head.as_bytes(), body].concat())?;
        Ok(After::Keep)
    }

    pub fn ok(&mut self, body: &str) -> Result<After, Failure> {
        self.answer("200 OK", "", body.as_bytes())
    }

    /// One chunk of a chunked answer.
    pub fn chunk(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.wire.send([format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat())
    }
}

type Script = dyn Fn(&mut Exchange<'_>) -> Result<After, Failure> + Send + Sync;

/// See the file's head.
pub struct Origin {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Box<Script>,
    tls: Option<Arc<ServerConfig>>,
    stop: AtomicBool,
    requests: AtomicUsize,
    connections: AtomicUsize,
    open: AtomicUsize,
    heads: Mutex<Vec<Head>>,
}

/// More heads than this are only counted: load must not fill the memory.
const HEADS_KEPT: usize = 1000;

impl Origin {
    /// Answers every request with its name.
    pub fn named(name: &str) -> Self {
        let name = name.to_owned();
        Self::scripted(move |exchange| {
            exchange.body()?;
            exchange.ok(&name)
        })
    }

    /// Answers with its name; paths that begin with `/hold` only once the gate lets them.
    pub fn gated(name: &str, gate: &Gate) -> Self {
        let (name, gate) = (name.to_owned(), gate.clone());
        Self::scripted(move |exchange| {
            exchange.body()?;
            if exchange.head.target().starts_with("/hold") && !gate.wait() {
                return Ok(After::Close);
            }
            exchange.ok(&name)
        })
    }

    /// Does what the script says, request by request.
    pub fn scripted(script: impl Fn(&mut Exchange<'_>) -> Result<After, Failure> + Send + Sync + 'static) -> Self {
        Self::over(None, Box::new(script))
    }

    /// The same over TLS.
    pub fn secure(
        tls: Arc<ServerConfig>,
        script: impl Fn(&mut Exchange<'_>) -> Result<After, Failure> + Send + Sync + 'static,
    ) -> Self {
        Self::over(Some(tls), Box::new(script))
    }

    fn over(tls: Option<Arc<ServerConfig>>, script: Box<Script>) -> Self {
        Self::on(super::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap(), tls, script)
    }

    /// One origin on each of these loopback addresses, all on the same port, as the addresses of one name are. Each
    /// answers with its address.
    pub fn on_one_port(ips: &[Ipv4Addr]) -> (u16, Vec<Self>) {
        // Somebody may have the port of the first on another address: then another port.
        for _ in 0..100 {
            let first = super::listen(SocketAddr::from((ips[0], 0))).unwrap();
            let port = first.local_addr().unwrap().port();
            let rest: Result<Vec<_>, _> =
                ips[1..].iter().map(|ip| super::listen(SocketAddr::from((*ip, port)))).collect();
            let Ok(rest) = rest else { continue };
            let listeners = std::iter::once(first).chain(rest);
            let one = |(listener, ip): (TcpListener, &Ipv4Addr)| {
                let name = ip.to_string();
                Self::on(listener, None, Box::new(move |exchange| exchange.body().and_then(|_| exchange.ok(&name))))
            };
            return (port, listeners.zip(ips).map(one).collect());
        }
        panic!("no port that is free on all of {ips:?}");
    }

    fn on(listener: TcpListener, tls: Option<Arc<ServerConfig>>, script: Box<Script>) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script,
            tls,
            stop: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            heads: Mutex::default(),
        });
        let theirs = shared.clone();
        std::thread::spawn(move || accept(&listener, &theirs));
        Self { address, shared }
    }

    /// Requests whose head arrived whole.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// `requests` for somebody who counts beside the test.
    pub fn counter(&self) -> Box<dyn Fn() -> usize + Send> {
        let shared = self.shared.clone();
        Box::new(move || shared.requests.load(Ordering::SeqCst))
    }

    /// Connections ever accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// The heads of the first thousand requests.
    pub fn heads(&self) -> Vec<Head> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// The only head it has seen.
    #[track_caller]
    pub fn only_head(&self) -> Head {
        let heads = self.heads();
        assert_eq!(heads.len(), 1, "{heads:?}");
        heads.into_iter().next().unwrap()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accept loop, which then sees the flag.
        drop(TcpStream::connect(self.address));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let shared = shared.clone();
        std::thread::spawn(move || {
            let wire = match &shared.tls {
                None => Ok(Connection::over(stream)),
                Some(config) => Connection::over_tls(stream, config),
            };
            // A handshake that fails is the peer's affair.
            wire.into_iter().for_each(|wire| serve(wire, &shared));
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn serve(mut wire: Connection, shared: &Shared) {
    loop {
        let head = match wire.head() {
            Ok(head) => head,
            // An idle connection is silent; the test's end or the peer ends it.
            Err(Failure::Silent) if !shared.stop.load(Ordering::SeqCst) => continue,
            Err(_) => return,
        };
        shared.requests.fetch_add(1, Ordering::SeqCst);
        let mut heads = shared.heads.lock().unwrap();
        if heads.len() < HEADS_KEPT {
            heads.push(head.clone());
        }
        drop(heads);
        match (shared.script)(&mut Exchange { head, wire: &mut wire }) {
            Ok(After::Keep) => {}
            Ok(After::Reset) => return wire.reset(),
            Ok(After::Close) | Err(_) => return,
        }
    }
}
