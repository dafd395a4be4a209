//! An origin that is a process of its own, so that its end is a process' end: this test binary once more, told by its
//! environment to serve. It says its name with every answer.
//!
//! Invariant: it outlives nobody. Its standard input is a pipe that its parent holds; when that ends, so does it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::echo::{self, BINARY, CLOSE, PING, PONG, Reader, WsFrame};
use super::origin_http2;
use crate::support::{After, Connection, Exchange, Failure, KillOnDrop, LIMIT, Origin};

const NAME: &str = "WEIR_TEST_ORIGIN";
const READY: &str = "origin-ready ";

/// The other process, seen from the test.
pub struct OriginProcess {
    pub name: String,
    /// HTTP/1.1: bodies, events, WebSocket.
    pub http1: SocketAddr,
    /// HTTP/2 in cleartext: gRPC.
    pub http2: SocketAddr,
    process: KillOnDrop,
    _alive: ChildStdin,
}

impl OriginProcess {
    /// Serves when this returns.
    #[track_caller]
    pub fn start(name: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "mixed::origin::serves_until_it_is_killed", "--nocapture"]).env(NAME, name);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = KillOnDrop(command.spawn().unwrap());
        let alive = process.0.stdin.take().unwrap();
        let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let (said, hears) = mpsc::channel();
        // Reads to the end, so that the child never stands before a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| _ = said.send(line)));
        let line =
            std::iter::from_fn(|| hears.recv_timeout(LIMIT).ok()).find_map(|l| Some(l.split_once(READY)?.1.to_owned()));
        let line = line.unwrap_or_else(|| panic!("origin {name} did not come up"));
        let mut addresses = line.split(' ').map(|text| text.parse().unwrap());
        let (http1, http2) = (addresses.next().unwrap(), addresses.next().unwrap());
        Self { name: name.to_owned(), http1, http2, process, _alive: alive }
    }

    /// As `kill -9` does it: whatever is open is cut.
    pub fn kill(mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }
}

/// The test of it, and in the other process the place where it serves.
#[test]
fn serves_until_it_is_killed() {
    if let Ok(name) = std::env::var(NAME) {
        return serve(&name);
    }
    let origin = OriginProcess::start("o");
    let (http1, http2) = (origin.http1, origin.http2);
    let answer = Connection::open(http1).unwrap().get("/body?seed=3&length=1000").unwrap();
    assert_eq!((answer.head.get("x-endpoint"), answer.body), (Some("o"), echo::bytes(3, 1000)));
    assert!(Connection::open(http2).is_ok());
    let mut open = Connection::open(http1).unwrap();
    origin.kill();
    assert!(open.is_closed_within(LIMIT));
    assert_eq!(Connection::open(http1).err(), Some(Failure::Refused));
    assert_eq!(Connection::open(http2).err(), Some(Failure::Refused));
}

/// Until the parent is gone.
fn serve(name: &str) {
    let own = name.to_owned();
    let http1 = Origin::scripted(move |exchange| answer(&own, exchange));
    let http2 = origin_http2::start(name);
    let mut stdout = std::io::stdout();
    writeln!(stdout, "\n{READY}{} {http2}", http1.address).unwrap();
    stdout.flush().unwrap();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}

fn answer(name: &str, exchange: &mut Exchange<'_>) -> Result<After, Failure> {
    let target = exchange.head.target().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let number = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok());
    let number = |key: &str| -> u64 { number(key).unwrap_or(0) };
    let field = format!("X-Endpoint: {name}\r\n");
    match path {
        "/body" => exchange.answer("200 OK", &field, &echo::bytes(number("seed"), number("length") as usize)),
        "/echo" => {
            let body = exchange.body()?;
            exchange.answer("200 OK", &field, &body)
        }
        "/events" => events(exchange, &field, number("count"), Duration::from_millis(number("every"))),
        "/socket" => socket(exchange, &field),
        _ => exchange.answer("404 Not Found", &field, b""),
    }
}

/// Numbered events, one by one.
fn events(exchange: &mut Exchange<'_>, field: &str, count: u64, every: Duration) -> Result<After, Failure> {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n{field}\r\n");
    exchange.wire.send(head)?;
    for n in 0..count {
        exchange.chunk(format!("id: {n}\ndata: {n} of {count}\n\n").as_bytes())?;
        std::thread::sleep(every);
    }
    exchange.wire.send("0\r\n\r\n")?;
    Ok(After::Keep)
}

/// Gives every message back until it is told to close.
fn socket(exchange: &mut Exchange<'_>, field: &str) -> Result<After, Failure> {
    let Some(key) = exchange.head.get("sec-websocket-key").map(echo::accept_of) else {
        return exchange.answer("400 Bad Request", field, b"no handshake");
    };
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket";
    exchange.wire.send(format!("{upgrade}\r\nSec-WebSocket-Accept: {key}\r\n{field}\r\n"))?;
    let mut reader = Reader::default();
    loop {
        let frame = match reader.frame() {
            Ok(frame) => frame,
            Err(missing) => {
                reader.push(&exchange.wire.take(missing)?);
                continue;
            }
        };
        let (opcode, is_last) = match frame.opcode {
            PING => (PONG, false),
            PONG => continue,
            CLOSE => (CLOSE, true),
            _ => (BINARY, false),
        };
        exchange.wire.send(WsFrame::new(opcode, frame.payload).bytes(None))?;
        if is_last {
            return Ok(After::Close);
        }
    }
}
