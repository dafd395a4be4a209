//! Requests that two readers could read differently, sent as raw bytes to weir in front of a recording origin.
//!
//! The oracle (faults.md 1.2 and 4.9): each is refused and reaches nobody, or arrives as exactly one request with one
//! reading. No byte of a body ever becomes a request, no field of one connection crosses, nothing forged is believed.
//! The tables say which of the two is expected; where the specification leaves a choice, both are.

mod chunks;
mod downgrade;
mod framing;
mod head;
mod hops;
mod host;
mod oracle;
mod target;

use std::collections::HashSet;

use crate::support::{Conf, Connection, Failure, Recorder, Weir, wait_until};
use oracle::{Expect, NEXT, Origin, judge};

/// A row of a table.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    expect: Expect,
}

/// What the client got.
#[derive(Debug)]
struct Client {
    /// Final answers, in order.
    statuses: Vec<u16>,
    /// How it ended after them.
    end: Option<Failure>,
}

/// `POST /case` with these field lines (CRLF each) and this body.
fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /case HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n{body}").into_bytes()
}

/// `GET /case` with these field lines and no body.
fn get(fields: &str) -> Vec<u8> {
    format!("GET /case HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n").into_bytes()
}

/// A whole head, then a blank line.
fn raw(head: &str) -> Vec<u8> {
    format!("{head}\r\n\r\n").into_bytes()
}

fn case(name: &'static str, bytes: Vec<u8>, expect: Expect) -> Case {
    Case { name, bytes, expect }
}

/// Runs a table; all that is wrong is told at once.
#[track_caller]
fn hold(cases: Vec<Case>) {
    let names: HashSet<_> = cases.iter().map(|c| c.name).collect();
    assert_eq!(names.len(), cases.len(), "a name is there twice");
    let recorder = Recorder::start();
    let weir = Weir::start(&Conf::one(recorder.address));
    let wrong: Vec<String> = cases.iter().filter_map(|c| run(&weir, &recorder, c).err()).collect();
    assert!(wrong.is_empty(), "{} of {} cases are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The case with an innocent `GET /next` right behind it.
fn run(weir: &Weir, recorder: &Recorder, case: &Case) -> Result<(), String> {
    let client = send(weir.connect(), &[&case.bytes, NEXT.as_bytes()].concat());
    wait_until("nothing is in flight", || in_flight(weir) == 0);
    let seen = recorder.take();
    let is_closed = client.end.as_ref().is_some_and(|end| *end != Failure::Silent);
    let origin = Origin::new(&seen);
    judge(&case.expect, &client.statuses, is_closed, &origin).map_err(|why| {
        format!("- {}: {why}\n  client: {client:?}\n  origin: {origin}\n  sent: {:?}", case.name, shown(&case.bytes))
    })
}

fn send(mut connection: Connection, bytes: &[u8]) -> Client {
    // A refusal may come, and the connection end, before all of it is sent.
    let _ = connection.send(bytes);
    let is_head = bytes.starts_with(b"HEAD ");
    let mut client = Client { statuses: Vec::new(), end: None };
    while client.statuses.len() < 2 {
        match connection.answer(is_head && client.statuses.is_empty()) {
            Ok(answer) if answer.status() < 200 => {}
            Ok(answer) => {
                client.statuses.push(answer.status());
                if answer.head.closes() {
                    let closed = connection.is_closed_within(crate::support::LIMIT);
                    client.end = Some(if closed { Failure::ClosedBeforeHead } else { Failure::Silent });
                    break;
                }
            }
            Err(failure) => {
                client.end = Some(failure);
                break;
            }
        }
    }
    client
}

fn in_flight(weir: &Weir) -> u64 {
    weir.admin.shop()["versions"][0]["endpoints"][0]["in_flight"].as_u64().unwrap()
}

fn shown(bytes: &[u8]) -> String {
    let text: String = bytes.iter().take(300).map(|b| char::from(*b)).collect();
    if bytes.len() > 300 { format!("{text}... ({} bytes)", bytes.len()) } else { text }
}

/// The origin answers before the body, as one does that sees no body in a request with `Expect` (0.CL, 2025): what of
/// the body comes afterwards is never a request, neither at weir nor at the origin.
#[test]
fn an_answer_before_the_body_of_an_expecting_request() {
    let recorder = Recorder::start();
    let weir = Weir::start(&Conf::one(recorder.address));
    for expectation in ["Expect: 100-continue\r\n", ""] {
        let mut client = weir.connect();
        client
            .send(format!("POST /early HTTP/1.1\r\nHost: app.test\r\nContent-Length: 42\r\n{expectation}\r\n"))
            .unwrap();
        let mut answer = client.answer(false).unwrap();
        while answer.status() < 200 {
            answer = client.answer(false).unwrap();
        }
        assert_eq!(answer.text(), "early");
        // The connection may be closed by now.
        let _ = client.send(oracle::SMUGGLED);
        let _ = client.send(NEXT);
        let is_closed = !client.answer(false).is_ok_and(|a| a.status() == 200);
        drop(client);
        wait_until("nothing is in flight", || in_flight(&weir) == 0);
        let seen = recorder.take();
        let targets: Vec<_> = seen.iter().filter_map(|s| s.head.as_ref()).map(|h| h.target.as_str()).collect();
        let expected: &[&str] = if is_closed { &["/early"] } else { &["/early", "/next"] };
        assert_eq!(targets, expected, "{expectation:?}");
    }
}

/// What a client breaks is not the version's fault: else anybody could talk a canary into its rollback.
#[test]
fn a_broken_body_is_not_on_the_books_of_the_version() {
    let recorder = Recorder::start();
    let weir = Weir::start(&Conf::one(recorder.address));
    for body in ["zz\r\n", "5\r\nhelloXX0\r\n\r\n", "5\r\nhello\r\n0\r\nno trailer\r\n\r\n"] {
        let client = send(weir.connect(), &post("Transfer-Encoding: chunked\r\n", body));
        assert!(client.statuses.iter().all(|s| (400..500).contains(s)), "{body:?}: {client:?}");
    }
    assert_eq!(weir.connect().get("/next").unwrap().status(), 200);
    weir.admin.wait_metric("weir_requests_total", &[("version", "v1"), ("code", "200")], 1.0);
    assert_eq!(weir.admin.metric("weir_errors_total", &[("version", "v1")]).unwrap_or_default(), 0.0);
}
