//! A name server under the test's control, over UDP and TCP: answers, refuses, or says nothing.
//!
//! The messages are written by hand (RFC 1035 section 4): one question, its answers, nothing else. What does not fit a
//! datagram is sent truncated, so that it is asked for again over TCP.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;
/// RFC 1035 section 4.2.1.
const DATAGRAM: usize = 512;

/// What is answered for a name.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A records and how long they live; there is no AAAA.
    Addresses(Vec<Ipv4Addr>, u32),
    /// SRV records: priority, weight, port, target.
    Services(Vec<(u16, u16, u16, &'static str)>, u32),
    /// The name is there, the record is not.
    Empty,
    NxDomain,
    ServFail,
    /// Nothing at all.
    Silence,
}

/// See the file's head. Ends with the test.
pub struct NameServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    replies: Mutex<HashMap<String, Reply>>,
    /// Of A and SRV, by name.
    questions: Mutex<HashMap<String, usize>>,
    over_tcp: AtomicUsize,
    stop: AtomicBool,
}

impl NameServer {
    pub fn new() -> Self {
        let (tcp, udp) = sockets();
        let address = tcp.local_addr().unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let shared = Arc::<Shared>::default();
        let (theirs, others) = (shared.clone(), shared.clone());
        std::thread::spawn(move || datagrams(&udp, &theirs));
        std::thread::spawn(move || accept(&tcp, &others));
        Self { address, shared }
    }

    /// With one name that has these addresses.
    pub fn with(name: &str, ips: &[Ipv4Addr], ttl: u32) -> Self {
        let this = Self::new();
        this.set(name, Reply::Addresses(ips.to_vec(), ttl));
        this
    }

    /// From now on; a name that was never set does not exist.
    pub fn set(&self, name: &str, reply: Reply) {
        self.shared.replies.lock().unwrap().insert(name.to_owned(), reply);
    }

    /// How often a name was asked for.
    pub fn questions(&self, name: &str) -> usize {
        self.shared.questions.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    /// Questions that came over TCP.
    pub fn over_tcp(&self) -> usize {
        self.shared.over_tcp.load(Ordering::SeqCst)
    }

    /// `[dns]` of a configuration that asks it and nobody else.
    pub fn section(&self) -> String {
        format!("[dns]\nservers = [\"{}\"]\nhosts = \"@DIR@/hosts\"", self.address)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accept loop, which then sees the flag.
        drop(TcpStream::connect(self.address));
    }
}

/// Both on one port.
fn sockets() -> (TcpListener, UdpSocket) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (tcp, udp);
        }
    }
    panic!("no port that is free for both TCP and UDP");
}

fn datagrams(socket: &UdpSocket, shared: &Shared) {
    let mut question = [0; DATAGRAM];
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
        let Some(answer) = shared.answer(&question[..length]) else { continue };
        let whole = answer.len() <= DATAGRAM;
        let sent = if whole { answer } else { truncated(&answer) };
        drop(socket.send_to(&sent, from));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let (Ok(stream), shared) = (stream, shared.clone()) else { continue };
        std::thread::spawn(move || drop(serve(stream, &shared)));
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_read_timeout(Some(super::LIMIT))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question)?;
        shared.over_tcp.fetch_add(1, Ordering::SeqCst);
        let Some(answer) = shared.answer(&question) else { continue };
        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &answer].concat())?;
    }
}

/// Header and question alone, with the bit that says so.
fn truncated(answer: &[u8]) -> Vec<u8> {
    let (_, _, end) = question(answer).unwrap();
    let mut short = answer[..end].to_vec();
    short[2] |= 0x02;
    short[6..8].fill(0);
    short
}

/// Name, type, and where the question ends.
fn question(message: &[u8]) -> Option<(String, u16, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?);
    Some((labels.join("."), kind, at + 4))
}

impl Shared {
    fn answer(&self, asked: &[u8]) -> Option<Vec<u8>> {
        let (name, kind, end) = question(asked)?;
        if kind != AAAA {
            *self.questions.lock().unwrap().entry(name.clone()).or_default() += 1;
        }
        let reply = self.replies.lock().unwrap().get(&name).cloned().unwrap_or(Reply::NxDomain);
        let (code, records) = match reply {
            Reply::Silence => return None,
            Reply::ServFail => (2, Vec::new()),
            Reply::NxDomain => (3, Vec::new()),
            Reply::Addresses(ips, ttl) if kind == A => (0, ips.iter().map(|ip| record(A, ttl, &ip.octets())).collect()),
            Reply::Services(all, ttl) if kind == SRV => (0, all.iter().map(|one| service(*one, ttl)).collect()),
            Reply::Addresses(..) | Reply::Services(..) | Reply::Empty => (0, Vec::new()),
        };
        // An answer, recursion desired and available; one question.
        let head = [asked[0], asked[1], 0x81, 0x80 | code, 0, 1];
        let counts = [&u16::try_from(records.len()).unwrap().to_be_bytes()[..], &[0; 4]].concat();
        Some([&head[..], &counts, &asked[12..end], &records.concat()].concat())
    }
}

/// Of the name in the question.
fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    let fields = [&kind.to_be_bytes()[..], &[0, 1], &ttl.to_be_bytes(), &length.to_be_bytes()].concat();
    [&[0xc0, 0x0c][..], &fields, data].concat()
}

fn service((priority, weight, port, target): (u16, u16, u16, &str), ttl: u32) -> Vec<u8> {
    let label = |label: &str| [&[label.len() as u8], label.as_bytes()].concat();
    let target = [target.split('.').flat_map(label).collect::<Vec<u8>>(), vec![0]].concat();
    let numbers = [priority, weight, port].map(u16::to_be_bytes).concat();
    record(SRV, ttl, &[numbers, target].concat())
}
