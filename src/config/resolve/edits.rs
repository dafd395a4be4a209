//! Changes to header fields.
//!
//! Refused are fields that belong to one connection (RFC 9110 section 7.6.1) or say where a message ends: an edit of
//! those is how requests are smuggled (faults.md 1.2). And what is weir's own word on answers.

use http::{HeaderName, HeaderValue};

use super::{Context, redirects};
use crate::config::HeaderEdits;
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::RawHeaders;

/// Whose fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

/// Of one connection, of a message's framing, or (`expect`) of the talk about its body.
const OURS: [&str; 12] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

pub fn edits(raw: Option<&RawHeaders>, side: Side, path: &Path, cx: &mut Context<'_>) -> HeaderEdits {
    let mut edits = HeaderEdits::default();
    let Some(raw) = raw else { return edits };
    for (text, value) in &raw.set {
        let path = path.key("set").key(text);
        let value = set_value(text, value, &path, cx);
        let Some(name) = name(text, side, true, &path, cx) else { continue };
        if edits.set.iter().any(|(other, _)| *other == name) {
            let problem = cx.problem_at_key(Code::DuplicateName, &path, format!("`{name}` is set twice"));
            problem.label = Some("the same field again".into());
            problem.help = Some("take one of them out; upper and lower case make no difference".into());
        }
        edits.set.extend(value.map(|value| (name, value)));
    }
    for (i, text) in raw.remove.iter().enumerate() {
        let name = name(text, side, false, &path.key("remove").index(i), cx);
        edits.remove.extend(name.filter(|name| !edits.remove.contains(name)));
    }
    edits
}

/// A field that may be set or removed; reports and gives nothing if it is none.
pub fn name(text: &str, side: Side, is_set: bool, path: &Path, cx: &mut Context<'_>) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| ("not a field's name", "write for example x-env"));
    let name = name.and_then(|name| match refusal(&name, side, is_set) {
        Some(why) => Err((why, "take it out")),
        None => Ok(name),
    });
    match name {
        Ok(name) => Some(name),
        Err((why, help)) => {
            let message = format!("{text:?} cannot be {} here: {why}", if is_set { "set" } else { "removed" });
            let problem = match is_set {
                true => cx.problem_at_key(Code::OutOfRange, path, message),
                false => cx.problem(Code::OutOfRange, path, message),
            };
            (problem.label, problem.help) = (Some(why.into()), Some(help.into()));
            None
        }
    }
}

fn refusal(name: &HeaderName, side: Side, is_set: bool) -> Option<&'static str> {
    let is_host = *name == http::header::HOST;
    match () {
        () if OURS.contains(&name.as_str()) => Some("weir decides this field for each connection"),
        () if is_host && side == Side::Response => Some("no answer has this field"),
        () if is_host && !is_set => Some("no request may be without it"),
        () if side == Side::Response && name.as_str().starts_with("weir-") => Some("weir speaks in this field"),
        () => None,
    }
}

/// What a field may be set to; reports and gives nothing if it is nothing of that kind.
pub fn set_value(name: &str, text: &str, path: &Path, cx: &mut Context<'_>) -> Option<HeaderValue> {
    let bad = match () {
        () if text.trim_matches([' ', '\t']) != text => Some("a field's value neither begins nor ends with a blank"),
        () if name.eq_ignore_ascii_case("host") && !redirects::is_authority(text) => Some("not a host"),
        () => None,
    };
    let value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| "no field's value has this character");
    match value.and_then(|value| bad.map_or(Ok(value), Err)) {
        Ok(value) => Some(value),
        Err(why) => {
            let message = format!("`{path}` cannot be {text:?}: {why}");
            cx.tell(Code::OutOfRange, path, message, why, "write visible characters, on one line");
            None
        }
    }
}
