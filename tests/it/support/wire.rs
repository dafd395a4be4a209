//! HTTP/1.1 by hand, for both sides: heads, Content-Length, chunks, and exactly how it went wrong.
//!
//! Independent of hyper on purpose: a client that shares the product's parser shares its mistakes.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use socket2::Socket;

use super::LIMIT;

/// How an exchange failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Refused,
    Connect(String),
    Send(String),
    /// Nothing came for the whole read limit.
    Silent,
    /// The other side closed (or reset) before the first byte of a head.
    ClosedBeforeHead,
    /// It ended inside what it had begun; the text says in what.
    Cut(String),
    Malformed(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The head of a request or an answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub first: String,
    /// Names in lower case, in the order received.
    pub fields: Vec<(String, String)>,
    /// All of it as received, the empty line included.
    pub raw: String,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let raw = String::from_utf8_lossy(bytes).into_owned();
        let mut lines = raw.trim_end_matches("\r\n").split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').ok_or_else(|| Failure::Malformed(format!("field {line:?}")))?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let fields = lines.map(field).collect::<Result<_, _>>()?;
        Ok(Self { first, fields, raw })
    }

    /// The one value of that name; fails if it is there twice.
    #[track_caller]
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "`{name}` more than once in {}", self.raw);
        all.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// Of an answer; 0 if it has none.
    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    /// The sender will not go on with this connection.
    pub fn closes(&self) -> bool {
        let listed = |token: &str| {
            self.all("connection").iter().any(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
        };
        let old = self.first.starts_with("HTTP/1.0") || self.first.ends_with("HTTP/1.0");
        listed("close") || (old && !listed("keep-alive"))
    }

    pub fn is_chunked(&self) -> bool {
        self.all("transfer-encoding").iter().any(|v| v.eq_ignore_ascii_case("chunked"))
    }

    pub fn content_length(&self) -> Option<usize> {
        self.get("content-length").map(|v| v.parse().unwrap())
    }
}

/// An answer with its whole body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {}{}", self.head.raw, self.text()))
    }
}

/// One connection, either side of it.
pub struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
}

enum Stream {
    Plain(Socket),
    TlsClient(Box<StreamOwned<ClientConnection, Socket>>),
    TlsServer(Box<StreamOwned<ServerConnection, Socket>>),
}

impl Stream {
    fn io(&mut self) -> &mut dyn ReadWrite {
        match self {
            Self::Plain(stream) => stream,
            Self::TlsClient(stream) => stream.as_mut(),
            Self::TlsServer(stream) => stream.as_mut(),
        }
    }

    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(stream) => stream,
            Self::TlsClient(stream) => &stream.sock,
            Self::TlsServer(stream) => &stream.sock,
        }
    }
}

trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

impl Connection {
    pub fn open(address: SocketAddr) -> Result<Self, Failure> {
        match TcpStream::connect_timeout(&address, LIMIT) {
            Ok(stream) => Ok(Self::over(stream)),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => Err(Failure::Refused),
            Err(e) => Err(Failure::Connect(e.to_string())),
        }
    }

    /// Over a Unix socket.
    pub fn open_unix(path: &Path) -> Result<Self, Failure> {
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Self::with_limits(stream.into())),
            // No path or nobody behind it: both say that nobody listens.
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Err(Failure::Refused),
            Err(e) => Err(Failure::Connect(e.to_string())),
        }
    }

    /// Over a stream that is open already.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::with_limits(stream.into())
    }

    fn with_limits(stream: Socket) -> Self {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(2 * LIMIT)).unwrap();
        Self { stream: Stream::Plain(stream), buffer: Vec::new() }
    }

    /// A client's side of TLS; its handshake is over when this returns.
    pub fn open_tls(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Result<Self, Failure> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let Self { stream, buffer } = Self::open(address)?;
        let (Stream::Plain(mut socket), Ok(mut tls)) = (stream, ClientConnection::new(config.clone(), name)) else {
            return Err(Failure::Connect("no TLS with this configuration".to_owned()));
        };
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).map_err(|e| Failure::Connect(e.to_string()))?;
        }
        Ok(Self { stream: Stream::TlsClient(Box::new(StreamOwned::new(tls, socket))), buffer })
    }

    /// A server's side of TLS.
    pub fn over_tls(stream: TcpStream, config: &Arc<ServerConfig>) -> Result<Self, Failure> {
        let Self { stream, buffer } = Self::over(stream);
        let (Stream::Plain(mut socket), Ok(mut tls)) = (stream, ServerConnection::new(config.clone())) else {
            return Err(Failure::Connect("no TLS with this configuration".to_owned()));
        };
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).map_err(|e| Failure::Connect(e.to_string()))?;
        }
        Ok(Self { stream: Stream::TlsServer(Box::new(StreamOwned::new(tls, socket))), buffer })
    }

    /// The certificate the server has shown, and whether an earlier session was taken up.
    pub fn tls_peer(&self) -> (Vec<u8>, bool) {
        let Stream::TlsClient(stream) = &self.stream else { return (Vec::new(), false) };
        let shown = stream.conn.peer_certificates().and_then(|all| all.first()).map(|c| c.to_vec());
        let resumed = stream.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        (shown.unwrap_or_default(), resumed)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
        let io = self.stream.io();
        io.write_all(bytes.as_ref()).and_then(|()| io.flush()).map_err(|e| Failure::Send(e.to_string()))
    }

    /// Sends, then reads one whole answer (`GET`, `POST` and the like).
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Result<Answer, Failure> {
        let is_head = request.as_ref().starts_with(b"HEAD ");
        // An answer may be there although the request could not be sent to its end.
        let sent = self.send(request);
        match self.answer(is_head) {
            Err(Failure::ClosedBeforeHead) if sent.is_err() => Err(sent.unwrap_err()),
            other => other,
        }
    }

    /// `ask` for a plain GET.
    pub fn get(&mut self, path: &str) -> Result<Answer, Failure> {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n"))
    }

    /// Reads one whole answer.
    pub fn answer(&mut self, to_head: bool) -> Result<Answer, Failure> {
        let head = self.head()?;
        let body =
            if to_head || matches!(head.status(), 100..=199 | 204 | 304) { Vec::new() } else { self.body(&head)? };
        Ok(Answer { head, body })
    }

    /// The body an answer's head announces.
    pub fn body(&mut self, head: &Head) -> Result<Vec<u8>, Failure> {
        if head.is_chunked() {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk()? {
                body.extend(chunk);
            }
            return Ok(body);
        }
        match head.content_length() {
            Some(length) => self.take(length),
            None => self.rest(),
        }
    }

    /// The next head.
    pub fn head(&mut self) -> Result<Head, Failure> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.buffer[searched..], b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..searched + at + 4).collect();
                return Head::parse(&head);
            }
            searched = self.buffer.len().saturating_sub(3);
            if self.fill()? == 0 {
                let got = String::from_utf8_lossy(&self.buffer).into_owned();
                return Err(if got.is_empty() {
                    Failure::ClosedBeforeHead
                } else {
                    Failure::Cut(format!("head: {got}"))
                });
            }
        }
    }

    /// Exactly that many bytes.
    pub fn take(&mut self, length: usize) -> Result<Vec<u8>, Failure> {
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(Failure::Cut(format!("body at {} of {length} bytes", self.buffer.len())));
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// The next chunk's data; `None` after the last one (trailers are read and dropped).
    pub fn chunk(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| Failure::Malformed(format!("chunk size {line:?}")))?;
        if size == 0 {
            while !self.line()?.is_empty() {}
            return Ok(None);
        }
        let data = self.take(size)?;
        match self.take(2)?.as_slice() {
            b"\r\n" => Ok(Some(data)),
            other => Err(Failure::Malformed(format!("{other:?} after a chunk"))),
        }
    }

    fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if self.fill()? == 0 {
                return Err(Failure::Cut("chunked body without its last chunk".to_owned()));
            }
        }
    }

    /// All there is until the other side closes in good order.
    pub fn rest(&mut self) -> Result<Vec<u8>, Failure> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// True once the other side has closed or reset with nothing more to say; false after `limit`.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.stream.socket().set_read_timeout(Some(limit)).unwrap();
        let closed = match self.fill() {
            Ok(0) => true,
            Ok(_) => false,
            Err(failure) => failure != Failure::Silent,
        };
        self.stream.socket().set_read_timeout(Some(LIMIT)).unwrap();
        closed && self.buffer.is_empty()
    }

    /// What is here but was not asked for.
    pub fn left_over(&self) -> &[u8] {
        &self.buffer
    }

    /// Closes with RST instead of FIN.
    pub fn reset(self) {
        self.stream.socket().set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn fill(&mut self) -> Result<usize, Failure> {
        let mut piece = [0; 64 * 1024];
        loop {
            match self.stream.io().read(&mut piece) {
                Ok(n) => {
                    self.buffer.extend_from_slice(&piece[..n]);
                    return Ok(n);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(Failure::Silent);
                }
                Err(_) if self.buffer.is_empty() => return Err(Failure::ClosedBeforeHead),
                Err(e) => return Err(Failure::Cut(format!("{e} after {} bytes", self.buffer.len()))),
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
