//! Clients of server-sent events: a long answer of numbered events, of which none is missing and whose end is its end.

use std::time::Duration;

use super::plan::{Client, HOST};
use super::tally::End;
use crate::support::{Connection, Failure};

/// How long an answer is; its duration is what a drain has to wait for.
const COUNT: u64 = 60;
const EVERY: Duration = Duration::from_millis(8);

pub fn run(client: &Client) {
    while !client.is_over() {
        match listen(client) {
            Ok(endpoint) => client.tally.ok(&endpoint),
            Err(failure) if client.is_done_by(&failure) => return,
            Err(failure) => client.tally.failed(&failure.to_string()),
        }
    }
}

fn listen(client: &Client) -> Result<String, Failure> {
    let seen = client.plan.fence.seen();
    let mut connection = client.connect()?;
    let target = format!("/events?count={COUNT}&every={}", EVERY.as_millis());
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/event-stream\r\n\r\n"))?;
    let head = connection.head()?;
    let endpoint = head.get("x-endpoint").unwrap_or("nobody").to_owned();
    if head.status() != 200 {
        return Err(Failure::Malformed(head.raw));
    }
    client.plan.fence.check(&seen, &endpoint).map_err(Failure::Malformed)?;
    let text = read(&mut connection).map_err(|failure| Failure::Cut(format!("events of {endpoint}: {failure}")))?;
    let expected: String = (0..COUNT).map(|n| format!("id: {n}\ndata: {n} of {COUNT}\n\n")).collect();
    if text != expected {
        return Err(Failure::Malformed(format!("events of {endpoint} with gaps, or an early end: {text:?}")));
    }
    client.tally.ended(if head.closes() { End::SaidClose } else { End::Done });
    Ok(endpoint)
}

fn read(connection: &mut Connection) -> Result<String, Failure> {
    let mut text = Vec::new();
    while let Some(chunk) = connection.chunk()? {
        text.extend(chunk);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
