//! What may become of an ambiguous request, and the judgement of what became of one.
//!
//! Words with a meaning in every case: a request for `/smuggled` sits inside a body and must never arrive; `evil` and
//! `6.6.6.6` are what a forger wants believed and must be in no head at the origin.

use std::fmt;

use crate::support::strict::Head;
use crate::support::{Seen, Stage};

/// The innocent request behind every case.
pub const NEXT: &str = "GET /next HTTP/1.1\r\nHost: app.test\r\n\r\n";

/// 42 bytes that must stay part of a body.
pub const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";

/// What is right. Statuses are those a refusal may have.
#[derive(Clone, Debug)]
pub enum Expect {
    /// Refused, closed, and nothing of it at the origin.
    Refused(&'static [u16]),
    /// Its head is sound and may have gone on, its body is not: never whole at the origin. Answered 4xx, or just closed.
    Broken,
    /// One request with this target and body at the origin.
    Passes(&'static str, &'static str),
    /// The specification leaves the choice.
    Either(&'static [u16], &'static str, &'static str),
    /// The same where only the body is in doubt: broken, or this.
    BrokenOr(&'static str, &'static str),
    /// Sound until its end and not behind it: at the origin once at most, whatever the client is told.
    AtMostOnce(&'static str, &'static str),
}

/// What the origin got, in order.
pub struct Origin<'a> {
    seen: Vec<&'a Seen>,
}

impl<'a> Origin<'a> {
    pub fn new(seen: &'a [Seen]) -> Self {
        Self { seen: seen.iter().collect() }
    }

    /// For protocols where the innocent request is none of the refused one's business.
    pub fn without_next(&self) -> Origin<'a> {
        Origin { seen: self.split().0 }
    }

    /// Requests other than the innocent one, and how often that one came.
    fn split(&self) -> (Vec<&'a Seen>, usize) {
        let is_next = |s: &&Seen| s.head.as_ref().is_some_and(|h| h.target == "/next") && s.stage == Stage::Whole;
        let (next, others): (Vec<_>, Vec<_>) = self.seen.iter().copied().partition(is_next);
        (others, next.len())
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for seen in &self.seen {
            let text = |bytes: &[u8]| bytes.iter().take(600).map(|b| char::from(*b)).collect::<String>();
            write!(
                f,
                "[{:?} {:?} body {:?} trailers {:?}] ",
                seen.stage,
                text(&seen.raw),
                text(&seen.body),
                seen.trailers
            )?;
        }
        if self.seen.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}

/// Whether a client that got these final statuses and an origin that got this are both as they should be.
///
/// # Errors
/// What is wrong.
pub fn judge(expect: &Expect, statuses: &[u16], is_closed: bool, origin: &Origin<'_>) -> Result<(), String> {
    origin.seen.iter().copied().try_for_each(sound)?;
    let refused = |allowed| refused(allowed, statuses, is_closed, origin);
    let passed = |target, body| passed(target, body, statuses, is_closed, origin);
    match expect {
        Expect::Refused(allowed) => refused(allowed),
        Expect::Broken => broken(statuses, is_closed, origin),
        Expect::Passes(target, body) => passed(target, body),
        Expect::BrokenOr(target, body) => broken(statuses, is_closed, origin)
            .or_else(|not_broken| passed(target, body).map_err(|why| format!("{not_broken}, and {why}"))),
        Expect::AtMostOnce(target, body) => match origin.split().0.as_slice() {
            [] => Ok(()),
            [one] => is(one, target, body),
            others => Err(format!("{} requests at the origin instead of one", others.len())),
        },
        Expect::Either(allowed, target, body) => refused(allowed)
            .or_else(|not_refused| passed(target, body).map_err(|why| format!("{not_refused}, and {why}"))),
    }
}

fn refused(allowed: &[u16], statuses: &[u16], is_closed: bool, origin: &Origin<'_>) -> Result<(), String> {
    match statuses {
        [status] if allowed.contains(status) => {}
        _ => return Err(format!("answered {statuses:?}, refusals are {allowed:?}")),
    }
    check(is_closed, "refused, but the connection stays open")?;
    check(origin.seen.is_empty(), "refused, but the origin got something")
}

fn broken(statuses: &[u16], is_closed: bool, origin: &Origin<'_>) -> Result<(), String> {
    check(statuses.len() < 2 && !statuses.contains(&200), "a broken body was answered as if it was whole")?;
    check(statuses.iter().all(|s| (400..500).contains(s)), "the client broke it, and another one is blamed")?;
    check(is_closed, "the connection stays open after a broken body")?;
    check(origin.seen.iter().all(|s| s.stage == Stage::Cut), "more than a visibly cut request is at the origin")
}

fn passed(target: &str, body: &str, statuses: &[u16], is_closed: bool, origin: &Origin<'_>) -> Result<(), String> {
    let (others, next) = origin.split();
    let [one] = others.as_slice() else {
        return Err(format!("{} requests at the origin instead of one", others.len()));
    };
    check(one.stage == Stage::Whole, "the request is not whole at the origin")?;
    is(one, target, body)?;
    match (statuses, next) {
        ([200, 200], 1) => Ok(()),
        // Closed after the first, or the bytes behind it were refused.
        ([200], 0) if is_closed => Ok(()),
        ([200, second], 0) if *second >= 400 => Ok(()),
        _ => Err(format!("answers {statuses:?} with {next} innocent requests at the origin, closed: {is_closed}")),
    }
}

fn is(one: &Seen, target: &str, body: &str) -> Result<(), String> {
    let head = one.head.as_ref().ok_or("no head")?;
    check(head.target == target, &format!("target {:?} instead of {target:?}", head.target))?;
    check(one.body == body.as_bytes(), &format!("body {:?} instead of {body:?}", String::from_utf8_lossy(&one.body)))
}

fn check(is_right: bool, what: &str) -> Result<(), String> {
    if is_right { Ok(()) } else { Err(what.to_owned()) }
}

/// Whatever the case: what the origin got can be read in one way only.
pub fn sound(seen: &Seen) -> Result<(), String> {
    if let Stage::Fault(why) = &seen.stage {
        return Err(format!("not strict at the origin: {why}"));
    }
    let Some(head) = &seen.head else { return Ok(()) };
    let text: String = seen.raw.iter().map(|b| char::from(*b).to_ascii_lowercase()).collect();
    check(!text.contains("smuggled"), "a body became a request")?;
    check(!text.contains("evil") && !text.contains("6.6.6.6"), "something forged is believed")?;
    fields(head)?;
    path(head)?;
    seen.trailers.iter().try_for_each(|(name, _)| trailer(name))
}

fn fields(head: &Head) -> Result<(), String> {
    check(head.all("host").len() == 1, "not exactly one Host")?;
    check(head.all("x-forwarded-for") == ["127.0.0.1"], "x-forwarded-for is not the client's address alone")?;
    for (name, value) in &head.fields {
        let crosses = match name.as_str() {
            // A request for a tunnel may be passed on, with exactly what makes it one.
            "connection" => value.eq_ignore_ascii_case("upgrade") && head.all("upgrade").len() == 1,
            "upgrade" => !value.to_ascii_lowercase().contains("h2c") && !head.all("connection").is_empty(),
            "te" => value == "trailers",
            "keep-alive" | "proxy-connection" | "http2-settings" | "proxy-authorization" => false,
            name => !name.contains('_'),
        };
        check(crosses, &format!("field {name}: {value} crossed"))?;
    }
    Ok(())
}

fn path(head: &Head) -> Result<(), String> {
    let path = head.target.split('?').next().unwrap_or_default();
    check(path.starts_with('/') || (path == "*" && head.method == "OPTIONS"), "the target is not in origin form")?;
    let lower = path.to_ascii_lowercase();
    for dots in ["/./", "/../", "%2e", "\\", "%5c", "%00", "#"] {
        check(!format!("{lower}/").contains(dots), &format!("the path holds {dots}"))?;
    }
    check(!head.target.contains('#'), "the target holds a fragment")
}

/// RFC 9110 section 6.5.1: what frames, routes or authenticates is no trailer.
fn trailer(name: &str) -> Result<(), String> {
    let barred = ["host", "content-length", "transfer-encoding", "connection", "te", "authorization", "cookie"];
    let is_fine = !barred.contains(&name) && !name.starts_with("x-forwarded-") && !name.contains('_');
    check(is_fine, &format!("trailer {name} crossed"))
}
