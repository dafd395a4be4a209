//! Whether what an origin read is one reading of what the client sent, and the client was told about it.

use super::origin::{Seen, Stage};
use super::reading::{Reading, Request, read};
use crate::strict::Head;

/// # Panics
/// If it is not.
pub fn judge(sent: &[u8], got: &[u8], seen: &[Seen]) {
    let told = || {
        let text =
            |bytes: &[u8]| bytes.iter().take(4000).flat_map(|b| b.escape_ascii()).map(char::from).collect::<String>();
        format!("\nsent: {}\ngot: {}\nseen: {seen:#?}", text(sent), text(got))
    };
    seen.iter().for_each(|seen| sound(seen).unwrap_or_else(|why| panic!("{why}{}", told())));
    let statuses = statuses(got).unwrap_or_else(|why| panic!("what the client got: {why}{}", told()));
    count(&statuses, seen).unwrap_or_else(|why| panic!("{why}; answers {statuses:?}{}", told()));
    let reading = read(sent);
    same(&reading, seen).unwrap_or_else(|why| panic!("{why}\nread: {reading:#?}{}", told()));
}

/// It can be read in one way only.
fn sound(seen: &Seen) -> Result<(), String> {
    match &seen.stage {
        Stage::Fault(why) => return Err(format!("not strict at the origin: {why}")),
        Stage::Open => return Err("neither whole nor cut, though its client is gone".to_owned()),
        Stage::Whole | Stage::Cut => {}
    }
    let Some(head) = &seen.head else { return Ok(()) };
    fields(head)?;
    path(head)?;
    seen.trailers.iter().try_for_each(|(name, _)| trailer(name))
}

fn fields(head: &Head) -> Result<(), String> {
    for (name, expected) in [("host", None), ("x-forwarded-for", Some("unknown")), ("x-forwarded-proto", Some("http"))]
    {
        let all = head.all(name);
        check(all.len() == 1 && expected.is_none_or(|e| all == [e]), format!("{name}: {all:?}"))?;
    }
    check(head.all("x-forwarded-host") == head.all("host"), "X-Forwarded-Host is not the host".to_owned())?;
    for (name, value) in &head.fields {
        let crosses = match name.as_str() {
            // A request for a tunnel may be passed on, with exactly what makes it one.
            "connection" => value.eq_ignore_ascii_case("upgrade") && head.all("upgrade").len() == 1,
            "upgrade" => value.eq_ignore_ascii_case("websocket") && !head.all("connection").is_empty(),
            "te" => value == "trailers",
            "keep-alive" | "proxy-connection" | "http2-settings" | "proxy-authorization" => false,
            name => !name.contains('_'),
        };
        check(crosses, format!("field {name}: {value} crossed"))?;
    }
    Ok(())
}

fn path(head: &Head) -> Result<(), String> {
    let path = head.target.split('?').next().unwrap_or_default();
    let is_origin_form = path.starts_with('/') || (path == "*" && head.method == "OPTIONS");
    check(is_origin_form, format!("{} is not in origin form", head.target))?;
    let lower = format!("{}/", path.to_ascii_lowercase());
    let odd = ["/./", "/../", "%2e", "\\", "%5c", "%00"].iter().find(|dots| lower.contains(*dots));
    check(odd.is_none() && !head.target.contains('#'), format!("the target {} can be read in two ways", head.target))
}

/// RFC 9110 section 6.5.1: what frames, routes or authenticates is no trailer.
fn trailer(name: &str) -> Result<(), String> {
    let barred = ["host", "content-length", "transfer-encoding", "connection", "te", "authorization", "cookie"];
    let is_fine = !barred.contains(&name) && !name.starts_with("x-forwarded-") && !name.contains('_');
    check(is_fine, format!("trailer {name} crossed"))
}

/// Every request at the origin is one the client knows of. Only the origin says 200.
fn count(statuses: &[u16], seen: &[Seen]) -> Result<(), String> {
    let ok = statuses.iter().filter(|s| **s == 200).count();
    let whole = seen.iter().filter(|s| s.stage == Stage::Whole).count();
    check(whole <= ok, format!("{whole} whole requests at the origin, {ok} answers of it"))?;
    check(ok <= seen.len(), format!("{ok} answers of the origin to {} requests", seen.len()))?;
    // The last may have been cut by its client, who then gets no answer.
    let unanswered = usize::from(seen.last().is_some_and(|s| s.stage == Stage::Cut));
    check(seen.len() <= statuses.len() + unanswered, format!("{} requests, {} answers", seen.len(), statuses.len()))
}

/// The final statuses, in order.
fn statuses(mut got: &[u8]) -> Result<Vec<u16>, String> {
    let mut statuses = Vec::new();
    while !got.is_empty() {
        let end = got.windows(4).position(|w| w == b"\r\n\r\n").ok_or("a head is cut")? + 4;
        let head = std::str::from_utf8(&got[..end]).map_err(|_| "a head is not ASCII")?;
        let status = head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "));
        let status: u16 =
            status.and_then(|s| s.get(..3)?.parse().ok()).ok_or_else(|| format!("no status in {head}"))?;
        got = &got[end..];
        if status < 200 {
            continue;
        }
        statuses.push(status);
        let length = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok();
        let length: usize = head.lines().find_map(length).unwrap_or(0);
        // The answer to HEAD says how long it would be; no text of ours begins like the next answer.
        if !got.is_empty() && !got.starts_with(b"HTTP/1.") {
            got = got.get(length..).ok_or("a body is cut")?;
        }
    }
    Ok(statuses)
}

/// What the origin read is, in order, among what the client said.
fn same(reading: &Reading, seen: &[Seen]) -> Result<(), String> {
    let mut said = reading.requests.iter();
    let with_head = seen.iter().filter_map(|seen| seen.head.as_ref().map(|head| (seen, head)));
    let mut beyond = 0;
    for (seen, head) in with_head {
        if said.by_ref().any(|said| is(said, seen, head)) {
            continue;
        }
        // What no one reading is left of may be made into one request, by whoever says which; then it must be over.
        beyond += 1;
        check(reading.is_ambiguous && beyond == 1, format!("the client never said {} {}", head.method, head.target))?;
    }
    Ok(())
}

fn is(said: &Request, seen: &Seen, head: &Head) -> bool {
    let body = match seen.stage {
        Stage::Whole => said.is_whole && said.body == seen.body,
        _ => said.body.starts_with(&seen.body),
    };
    // In every other case the target is to be written anew.
    let is_plain = said.target.starts_with('/') && !said.target.contains(['%', '#']) && !said.target.contains("/.");
    body && said.method == head.method && (!is_plain || said.target == head.target)
}

fn check(is_right: bool, what: String) -> Result<(), String> {
    if is_right { Ok(()) } else { Err(what) }
}
