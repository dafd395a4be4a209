//! Every way an origin can go wrong on the wire (faults.md 3.2): what the client sees, what the books say, and that
//! afterwards weir is idle and holds nothing (faults.md 4.11).
//!
//! Elsewhere, and not repeated here: no answer at all, refused connections and `first_byte` in `errors`; garbage,
//! statuses 99 and 1000, two lengths, both framings, an unasked 101, bytes behind a plain answer, stale pooled
//! connections in `oddities`; bodies cut short of their length or last chunk in `streaming`.

mod cut;
mod early;
mod slow;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{After, Answer, Conf, Connection, Failure, Gate, Instant, Origin, Weir, wait_until};

/// What is right.
#[derive(Clone, Debug)]
enum Expect {
    /// Our own answer with one of these words.
    Ours(u16, &'static [&'static str]),
    /// A head, then a visible end before the body's; or our 502, if that much was clear in time.
    Cut,
    /// This whole body.
    Whole(&'static str),
    /// The specification leaves the choice between our 502 and this body.
    Either(&'static str),
}

/// What the origin sends for a request, and what then.
struct Row {
    name: &'static str,
    sends: Vec<u8>,
    after: After,
    expect: Expect,
}

const BAD: &[&str] = &["upstream-protocol"];
/// An end inside a head is the one or the other.
const BAD_OR_RESET: &[&str] = &["upstream-protocol", "upstream-reset"];

fn row(name: &'static str, sends: impl Into<Vec<u8>>, after: After, expect: Expect) -> Row {
    Row { name, sends: sends.into(), after, expect }
}

/// Head lines (CRLF each) behind a status line of 200, and a body; the connection stays.
fn answer(name: &'static str, fields: &str, body: &str, expect: Expect) -> Row {
    row(name, format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}"), After::Keep, expect)
}

/// A whole answer behind this first line.
fn status(name: &'static str, line: &str, expect: Expect) -> Row {
    // A good answer's connection may be kept, so the origin closes that itself.
    let after = if matches!(expect, Expect::Ours(..)) { After::Keep } else { After::Close };
    row(name, format!("{line}\r\nContent-Length: 2\r\n\r\nok"), after, expect)
}

/// A POST, because that is never sent again: one request, one entry in the books.
fn post(target: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi")
}

/// All rows against one weir; what is wrong is told at once. Whatever the origin did, its connection is closed.
#[track_caller]
fn hold(rows: Vec<Row>) {
    let rows = Arc::new(rows);
    let theirs = rows.clone();
    let origin = Origin::scripted(move |exchange| {
        exchange.body()?;
        let number: usize = exchange.head.target()[1..].parse().unwrap();
        exchange.wire.send(&theirs[number].sends)?;
        Ok(theirs[number].after)
    });
    let weir = Weir::start(&Conf::one(origin.address).workers(1).split("timeouts = { first_byte = \"5s\" }"));
    let mut wrong = Vec::new();
    let mut failed = 0.0;
    for (number, row) in rows.iter().enumerate() {
        let seen = final_answer(&mut weir.connect(), &post(&format!("/{number}")));
        if let Err(why) = judge(&row.expect, &seen) {
            wrong.push(format!("- {}: {why}: {seen:?}", row.name));
        }
        failed += if seen.is_ok_and(|a| a.status() == 200) { 0.0 } else { 1.0 };
        if !is_released(&origin) {
            wrong.push(format!("- {}: the odd connection is kept", row.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows are wrong:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    if failed > 0.0 {
        weir.admin.wait_metric("weir_errors_total", &[("version", "v1")], failed);
    }
    assert_idle(&weir, &origin);
}

/// Whether no connection to the origin is left, now or soon.
fn is_released(origin: &Origin) -> bool {
    let deadline = Instant::now() + Duration::from_secs(3);
    while origin.open() > 0 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    origin.open() == 0
}

/// Asks, and passes over interim answers.
fn final_answer(client: &mut Connection, request: &str) -> Result<Answer, Failure> {
    client.send(request)?;
    loop {
        let head = client.head()?;
        let lengths = head.all("content-length");
        if lengths.len() > 1 || !lengths.iter().all(|l| l.bytes().all(|b| b.is_ascii_digit())) {
            return Err(Failure::Malformed(format!("lengths {lengths:?} of an answer")));
        }
        if head.status() >= 200 {
            let body = client.body(&head)?;
            return Ok(Answer { head, body });
        }
    }
}

fn judge(expect: &Expect, seen: &Result<Answer, Failure>) -> Result<(), String> {
    let is_ours = |status: u16, words: &[&str]| {
        let answer = seen.as_ref().map_err(|_| format!("no answer instead of {status}"))?;
        let word = answer.head.all("weir-error");
        let is_right = answer.status() == status && word.len() == 1 && words.contains(&word[0]);
        if is_right { Ok(()) } else { Err(format!("not {status} {words:?}")) }
    };
    let is_whole = |body: &str| match seen {
        Ok(answer) if answer.status() == 200 && answer.text() == body => Ok(()),
        _ => Err(format!("not the answer {body:?}")),
    };
    match expect {
        Expect::Ours(status, words) => is_ours(*status, words),
        Expect::Whole(body) => is_whole(body),
        Expect::Either(body) => is_whole(body).or_else(|_| is_ours(502, BAD_OR_RESET)),
        Expect::Cut => match seen {
            Err(Failure::Cut(_) | Failure::ClosedBeforeHead) => Ok(()),
            _ => is_ours(502, BAD).map_err(|_| "neither visibly cut nor refused".to_owned()),
        },
    }
}

/// No request in flight, no connection to the origin.
#[track_caller]
fn assert_idle(weir: &Weir, origin: &Origin) {
    wait_until("nothing is in flight", || {
        weir.admin.shop()["versions"][0]["endpoints"][0]["in_flight"].as_u64() == Some(0)
    });
    weir.admin.wait_metric("weir_requests_in_flight", &[], 0.0);
    wait_until("no connection to the origin is held", || origin.open() == 0);
}

#[test]
fn ends_inside_the_head() {
    let mut rows = Vec::new();
    for after in [After::Close, After::Reset] {
        for (name, text) in [
            ("status line", "HTTP/1.1 20"),
            ("field name", "HTTP/1.1 200 OK\r\nContent-Le"),
            ("field value", "HTTP/1.1 200 OK\r\nContent-Length: 2"),
            ("before the empty line", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"),
            ("inside an interim head", "HTTP/1.1 103 Early Hints\r\nLink: </a"),
            ("after an interim head", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        ] {
            rows.push(row(name, text, after, Expect::Ours(502, BAD_OR_RESET)));
        }
    }
    hold(rows);
}

#[test]
fn status_lines() {
    let bad = |name, line| status(name, line, Expect::Ours(502, BAD));
    hold(vec![
        bad("HTTP/2.0", "HTTP/2.0 200 OK"),
        bad("HTTP/0.9", "HTTP/0.9 200 OK"),
        bad("HTTP/1", "HTTP/1 200 OK"),
        bad("HTTP/1.10", "HTTP/1.10 200 OK"),
        bad("another protocol", "ICY 200 OK"),
        bad("SSH", "SSH-2.0-x"),
        bad("no version", "200 OK"),
        bad("no status", "HTTP/1.1 OK"),
        bad("nothing but the version", "HTTP/1.1"),
        bad("two digits", "HTTP/1.1 20 OK"),
        bad("letters", "HTTP/1.1 2x0 OK"),
        bad("negative", "HTTP/1.1 -20 OK"),
        bad("000", "HTTP/1.1 000 None"),
        bad("600", "HTTP/1.1 600 Too High"),
        bad("999", "HTTP/1.1 999 Too High"),
        bad("NUL in the reason", "HTTP/1.1 200 O\0K"),
        bad("two blanks", "HTTP/1.1  200 OK"),
        status("no reason", "HTTP/1.1 200", Expect::Either("ok")),
        status("empty reason", "HTTP/1.1 200 ", Expect::Whole("ok")),
        row("a TLS alert", [0x15, 3, 1, 0, 2, 2, 70], After::Close, Expect::Ours(502, BAD_OR_RESET)),
        row("HTTP/2 settings", [0, 0, 0, 4, 0, 0, 0, 0, 0], After::Close, Expect::Ours(502, BAD_OR_RESET)),
        row("a body without a head", "<html>\n<body>it works</body>\n</html>\n", After::Close, {
            Expect::Ours(502, BAD_OR_RESET)
        }),
    ]);
}

#[test]
fn heads() {
    let bad = |name, fields: &str| answer(name, fields, "ok", Expect::Ours(502, BAD));
    let either = |name, fields: &str| {
        row(name, format!("HTTP/1.1 200 OK\r\n{fields}\r\nok"), After::Close, Expect::Either("ok"))
    };
    hold(vec![
        bad("length with a sign", "Content-Length: +2\r\n"),
        bad("length of letters", "Content-Length: two\r\n"),
        bad("length in hexadecimal", "Content-Length: 0x2\r\n"),
        bad("length after an overflow", "Content-Length: 18446744073709551618\r\n"),
        bad("empty length", "Content-Length:\r\n"),
        bad("list of two lengths", "Content-Length: 2, 3\r\n"),
        bad("NUL in a value", "X: a\0b\r\nContent-Length: 2\r\n"),
        bad("CR in a value", "X: a\rb\r\nContent-Length: 2\r\n"),
        bad("no colon", "nonsense\r\nContent-Length: 2\r\n"),
        bad("no name", ": x\r\nContent-Length: 2\r\n"),
        bad("blank before a coding's colon", "Transfer-Encoding : chunked\r\nContent-Length: 2\r\n"),
        either("the same length twice", "Content-Length: 2\r\nContent-Length: 2\r\n"),
        either("list of the same length", "Content-Length: 2, 2\r\n"),
        either("blank before the colon", "X : y\r\nContent-Length: 2\r\n"),
        either("folded", "X: a\r\n b\r\nContent-Length: 2\r\n"),
        either("LF as line end", "X: a\nContent-Length: 2\r\n"),
        either("a coding nobody knows", "Transfer-Encoding: cow\r\n"),
    ]);
}

/// An answer that was split by what an application put into a field: the second one reaches nobody.
#[test]
fn bytes_behind_answers_without_a_body() {
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let origin = Origin::scripted(move |exchange| {
        exchange.body()?;
        let first = match exchange.head.target() {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n",
            "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
            "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "/empty" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            _ => return exchange.ok("fine"),
        };
        exchange.wire.send([first, second].concat())?;
        Ok(After::Keep)
    });
    let weir = Weir::start(&Conf::one(origin.address).workers(1));
    for target in ["/204", "/304", "/head", "/chunked", "/empty"] {
        let mut client = weir.connect();
        let method = if target == "/head" { "HEAD" } else { "GET" };
        let answer = client.ask(format!("{method} {target} HTTP/1.1\r\nHost: app.test\r\n\r\n")).unwrap();
        assert!(answer.body.is_empty() || answer.text() == "ok", "{target}: {answer:?}");
        // At once, so that what lies behind the answer is not noticed by waiting.
        assert_eq!(client.get("/").unwrap().text(), "fine", "{target}");
        assert!(client.left_over().is_empty(), "{target}");
        wait_until("the odd connection is closed, the good one is kept", || origin.open() == 1);
    }
}

/// What an origin says unasked on an idle connection is for nobody: neither a planted answer nor a farewell.
#[test]
fn unsolicited_answers() {
    for (planted, after) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", After::Keep),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", After::Close),
        ("HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nevil", After::Close),
        ("e", After::Keep),
    ] {
        let (may_plant, is_planted) = (Gate::default(), Gate::default());
        let (wait, tell) = (may_plant.clone(), is_planted.clone());
        let origin = Origin::scripted(move |exchange| {
            exchange.body()?;
            exchange.ok("fine")?;
            if exchange.head.target() != "/plant" {
                return Ok(After::Keep);
            }
            wait.wait();
            exchange.wire.send(planted)?;
            tell.open();
            Ok(after)
        });
        let weir = Weir::start(&Conf::one(origin.address).workers(1));
        let mut client = weir.connect();
        assert_eq!(client.get("/plant").unwrap().text(), "fine");
        may_plant.open();
        assert!(is_planted.wait(), "the origin had no chance");
        for request in [post("/"), post("/"), "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n".to_owned()] {
            let answer = client.ask(&request).unwrap();
            assert_eq!((answer.status(), answer.text().as_str()), (200, "fine"), "{planted:?} then {after:?}");
        }
        wait_until("the odd connection is closed", || origin.open() == 1);
        assert_eq!(weir.admin.metric("weir_errors_total", &[("version", "v1")]).unwrap_or_default(), 0.0);
    }
}

/// Without a length and without chunks the end of the connection is the end of the body, but only a FIN is one.
#[test]
fn a_reset_is_no_end_of_a_body() {
    hold(vec![
        row("with a FIN", "HTTP/1.1 200 OK\r\n\r\nall of it", After::Close, Expect::Whole("all of it")),
        row("with a RST", "HTTP/1.1 200 OK\r\n\r\na part", After::Reset, Expect::Cut),
        row("HTTP/1.0 with a RST", "HTTP/1.0 200 OK\r\n\r\na part", After::Reset, Expect::Cut),
        row("HTTP/1.0 with a FIN", "HTTP/1.0 200 OK\r\n\r\nall of it", After::Close, Expect::Whole("all of it")),
        row(
            "chunked in HTTP/1.0, cut",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfir",
            After::Close,
            Expect::Cut,
        ),
    ]);
}

#[test]
fn chunks_of_answers() {
    let chunked = |name, body: &str, expect| answer(name, "Transfer-Encoding: chunked\r\n", body, expect);
    hold(vec![
        chunked("bad size", "zz\r\nok\r\n0\r\n\r\n", Expect::Cut),
        chunked("0x", "2\r\nok\r\n0x0\r\n\r\n", Expect::Cut),
        chunked("negative", "2\r\nok\r\n-1\r\n\r\n", Expect::Cut),
        chunked("overflow", "2\r\nok\r\n10000000000000000\r\n\r\n", Expect::Cut),
        chunked("no CRLF behind the data", "2\r\nokXX0\r\n\r\n", Expect::Cut),
        chunked("LF as line end", "2\nok\n0\n\n", Expect::Cut),
        chunked("LF in an extension", "2;x\ny\r\nok\r\n0\r\n\r\n", Expect::Cut),
        chunked("bytes behind the last", "2\r\nok\r\n0\r\n\r\nevil", Expect::Whole("ok")),
    ]);
}

/// Ten interim answers are plenty; an origin that goes on never comes to the point.
#[test]
fn interim_storms() {
    let storm = |count: usize, last: &str| "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(count) + last;
    let fine = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    hold(vec![
        row("eleven", storm(11, fine), After::Keep, Expect::Ours(502, BAD)),
        row("a hundred", storm(100, fine), After::Keep, Expect::Ours(502, BAD)),
        row("a million bytes", storm(25_000, ""), After::Keep, Expect::Ours(502, BAD)),
    ]);
    let origin = Origin::scripted(move |exchange| {
        exchange.wire.send(storm(10, fine))?;
        Ok(After::Keep)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let last = final_answer(&mut weir.connect(), "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    assert_eq!(last.text(), "ok", "ten are allowed");
}

#[test]
fn huge_heads() {
    let fine = "Content-Length: 2\r\n";
    let huge = |name, fields: String| answer(name, &fields, "ok", Expect::Ours(502, BAD));
    hold(vec![
        huge("a value of 4 MB", format!("X: {}\r\n{fine}", "y".repeat(4 << 20))),
        huge("a name of 4 MB", format!("{}: y\r\n{fine}", "x".repeat(4 << 20))),
        huge("a hundred thousand fields", "X: y\r\n".repeat(100_000) + fine),
        row("a reason of 4 MB", format!("HTTP/1.1 200 {}\r\n{fine}\r\nok", "x".repeat(4 << 20)), After::Keep, {
            Expect::Ours(502, BAD)
        }),
        row("no line end at all", "x".repeat(4 << 20), After::Keep, Expect::Ours(502, BAD)),
        row(
            "an interim head of 4 MB",
            {
                format!("HTTP/1.1 103 Early Hints\r\nX: {}\r\n\r\nHTTP/1.1 200 OK\r\n{fine}\r\nok", "y".repeat(4 << 20))
            },
            After::Keep,
            Expect::Ours(502, BAD),
        ),
    ]);
}

/// All of it at once: bad origins one after the other on the same weir, an honest one beside them undisturbed.
#[test]
fn an_honest_version_beside_a_faulty_one_is_undisturbed() {
    let honest = Origin::named("v1");
    let turn = AtomicUsize::new(0);
    let faulty = Origin::scripted(move |exchange| {
        exchange.body()?;
        let (sends, after) = match turn.fetch_add(1, Ordering::SeqCst) % 6 {
            0 => ("", After::Reset),
            1 => ("garbage\r\n\r\n", After::Keep),
            2 => ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", After::Reset),
            3 => ("HTTP/1.1 200 OK\r\n\r\ncut", After::Reset),
            4 => ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", After::Close),
            _ => ("HTTP/1.1 20", After::Close),
        };
        exchange.wire.send(sends)?;
        Ok(after)
    });
    let conf = Conf::two((1, honest.address), (1, faulty.address)).workers(1);
    let weir = Weir::start(&conf);
    let mut fine = 0;
    for _ in 0..120 {
        match Connection::open(weir.web()).and_then(|mut c| c.ask(post("/"))) {
            Ok(answer) if answer.status() == 200 => {
                assert_eq!(answer.text(), "v1");
                fine += 1;
            }
            Ok(answer) => assert_eq!(answer.status(), 502, "{answer:?}"),
            Err(failure) => assert!(!matches!(failure, Failure::Silent | Failure::Refused), "{failure}"),
        }
    }
    assert!(fine >= 50, "{fine} of 120 with half the weight");
    assert_eq!(weir.admin.metric("weir_errors_total", &[("version", "v1")]).unwrap_or_default(), 0.0);
    wait_until("no faulty connection is held", || faulty.open() == 0);
}
