//! Keep-alive HTTP/1.1 clients: GET, POST with a length and POST in chunks, each body checked byte for byte.
//!
//! They follow `Connection: close`. A request that crosses the FIN of an idle connection, that is, one that not a single
//! byte was answered to on a connection used before, is made again once (amendments.md 2.4) and counted apart.

use super::echo;
use super::plan::{Client, HOST};
use super::tally::End;
use crate::support::{Answer, Connection, Failure, Head};

/// A connection and how many requests it has carried.
type Open = Option<(Connection, usize)>;

pub fn run(client: &Client) {
    let mut rng = fastrand::Rng::with_seed(client.seed);
    let mut open = None;
    while !client.is_over() {
        let ask = Ask::any(&mut rng);
        match exchange(client, &mut open, &ask) {
            Ok(endpoint) => client.tally.ok(&endpoint),
            Err(failure) if client.is_done_by(&failure) => return,
            Err(failure) => {
                open = None;
                client.tally.failed(&format!("{ask:?}: {failure}"));
            }
        }
        std::thread::sleep(client.pause(&mut rng));
    }
    if open.is_some() {
        client.tally.ended(End::Done);
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub way: Way,
    pub seed: u64,
    pub length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Get,
    Post,
    PostInChunks,
}

impl Ask {
    /// Mostly small, now and then more than the buffers on the way hold.
    pub fn any(rng: &mut fastrand::Rng) -> Self {
        let way = [Way::Get, Way::Get, Way::Post, Way::PostInChunks][rng.usize(..4)];
        let length = if rng.u8(..) < 16 { rng.usize(..200_000) } else { rng.usize(..4000) };
        Self { way, seed: rng.u64(..), length }
    }

    /// What the answer must be, and a POST carries.
    pub fn body(&self) -> Vec<u8> {
        echo::bytes(self.seed, self.length)
    }

    pub fn target(&self) -> String {
        match self.way {
            Way::Get => format!("/body?seed={}&length={}", self.seed, self.length),
            Way::Post | Way::PostInChunks => "/echo".to_owned(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let method = if self.way == Way::Get { "GET" } else { "POST" };
        let head = format!("{method} {} HTTP/1.1\r\nHost: {HOST}\r\n", self.target());
        match self.way {
            Way::Get => format!("{head}\r\n").into(),
            Way::Post => [format!("{head}Content-Length: {}\r\n\r\n", self.length).as_bytes(), &self.body()].concat(),
            Way::PostInChunks => {
                let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
                for chunk in self.body().chunks(1500) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend([chunk, b"\r\n"].concat());
                }
                bytes.extend(b"0\r\n\r\n");
                bytes
            }
        }
    }
}

/// Gives the name of the endpoint that has answered.
fn exchange(client: &Client, open: &mut Open, ask: &Ask) -> Result<String, Failure> {
    let seen = client.plan.fence.seen();
    let mut may_cross = true;
    loop {
        let (mut connection, used) = match open.take() {
            Some(open) => open,
            None => (client.connect()?, 0),
        };
        let head = match begin(&mut connection, ask) {
            Err(Failure::ClosedBeforeHead | Failure::Send(_)) if used > 0 && may_cross => {
                client.tally.ended(End::Crossed);
                may_cross = false;
                continue;
            }
            head => head?,
        };
        let answer = finish(&mut connection, head)?;
        let endpoint = check(&answer, ask)?;
        client.plan.fence.check(&seen, &endpoint).map_err(Failure::Malformed)?;
        if !connection.left_over().is_empty() {
            return Err(Failure::Malformed("bytes behind the answer".to_owned()));
        }
        if answer.head.closes() {
            client.tally.ended(End::SaidClose);
        } else {
            *open = Some((connection, used + 1));
        }
        return Ok(endpoint);
    }
}

/// Sends the request and reads the head of its answer.
fn begin(connection: &mut Connection, ask: &Ask) -> Result<Head, Failure> {
    // An answer may be there although the request could not be sent to its end.
    let sent = connection.send(ask.bytes());
    match connection.head() {
        Err(Failure::ClosedBeforeHead) if sent.is_err() => Err(sent.unwrap_err()),
        head => head,
    }
}

/// Whatever goes wrong here is a cut, also if no byte of the body has come.
fn finish(connection: &mut Connection, head: Head) -> Result<Answer, Failure> {
    let body =
        connection.body(&head).map_err(|failure| Failure::Cut(format!("in the body of {}: {failure}", head.first)));
    Ok(Answer { body: body?, head })
}

fn check(answer: &Answer, ask: &Ask) -> Result<String, Failure> {
    if answer.status() != 200 {
        return Err(Failure::Malformed(format!("{}{}", answer.head.raw, answer.text())));
    }
    if let Some(difference) = echo::difference(&ask.body(), &answer.body) {
        return Err(Failure::Malformed(difference));
    }
    let endpoint = answer.head.get("x-endpoint").map(str::to_owned);
    endpoint.ok_or_else(|| Failure::Malformed(format!("nobody's answer: {}", answer.head.raw)))
}
