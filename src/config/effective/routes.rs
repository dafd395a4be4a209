//! Routes as they are written: what each matches, does, changes and lets through.

use toml::Value;

use super::{table, text, texts, time};
use crate::config::{
    Action, HeaderEdits, HostMatch, Match, PathMatch, RateKey, RateLimit, Redirect, Respond, Route, ValueMatch,
};

pub fn route(r: &Route) -> Value {
    let mut entries = vec![("name", text(r.name.as_str()))];
    if !r.listeners.is_empty() {
        entries.push(("listeners", texts(&r.listeners)));
    }
    if !r.matches.is_empty() {
        entries.push(("match", Value::Array(r.matches.iter().map(one_match).collect())));
    }
    entries.extend(action(&r.action));
    entries.extend(edits(&r.request_headers).map(|e| ("request_headers", e)));
    entries.extend(edits(&r.response_headers).map(|e| ("response_headers", e)));
    entries.extend(r.rate_limit.as_ref().map(|l| ("rate_limit", rate_limit(l))));
    table(entries)
}

fn action(action: &Action) -> Vec<(&'static str, Value)> {
    match action {
        Action::Split { split, strip_prefix } => {
            let mut entries = vec![("split", text(split.as_str()))];
            entries.extend(strip_prefix.then_some(("strip_prefix", true.into())));
            entries
        }
        Action::Redirect(Redirect { to, code }) => {
            vec![("redirect", table([("to", text(to)), ("code", Value::Integer((*code).into()))]))]
        }
        Action::Respond(Respond { code, body }) => {
            vec![("respond", table([("code", Value::Integer((*code).into())), ("body", text(body))]))]
        }
    }
}

/// The table of a `match`.
pub fn one_match(m: &Match) -> Value {
    let mut entries = Vec::new();
    match &m.host {
        Some(HostMatch::Exact(name)) => entries.push(("host", text(name))),
        Some(HostMatch::Suffix(suffix)) => entries.push(("host", text(&format!("*{suffix}")))),
        None => {}
    }
    match &m.path {
        Some(PathMatch::Exact(path)) => entries.push(("path", text(path))),
        Some(PathMatch::Prefix(path)) => entries.push(("path_prefix", text(if path.is_empty() { "/" } else { path }))),
        Some(PathMatch::Regex(pattern)) => entries.push(("path_regex", text(pattern.0.as_str()))),
        None => {}
    }
    if !m.methods.is_empty() {
        entries.push(("method", texts(&m.methods)));
    }
    entries.extend(conditions(&m.headers).map(|c| ("header", c)));
    entries.extend(conditions(&m.cookies).map(|c| ("cookie", c)));
    entries.extend(conditions(&m.queries).map(|c| ("query", c)));
    if !m.client_ip.is_empty() {
        entries.push(("client_ip", texts(&m.client_ip)));
    }
    table(entries)
}

fn conditions<N: AsRef<str>>(all: &[(N, ValueMatch)]) -> Option<Value> {
    (!all.is_empty()).then(|| table(all.iter().map(|(name, wanted)| (name.as_ref(), value(wanted)))))
}

fn value(wanted: &ValueMatch) -> Value {
    match wanted {
        ValueMatch::Exact(exact) => text(exact),
        ValueMatch::Regex(pattern) => table([("regex", text(pattern.0.as_str()))]),
        ValueMatch::Present => table([("present", true.into())]),
        ValueMatch::Absent => table([("present", false.into())]),
    }
}

fn edits(edits: &HeaderEdits) -> Option<Value> {
    let mut entries = Vec::new();
    if !edits.set.is_empty() {
        // Values come from a text, so they are UTF-8.
        let value = |v: &http::HeaderValue| text(&String::from_utf8_lossy(v.as_bytes()));
        entries.push(("set", table(edits.set.iter().map(|(name, v)| (name.as_str(), value(v))))));
    }
    if !edits.remove.is_empty() {
        entries.push(("remove", texts(&edits.remove)));
    }
    (!entries.is_empty()).then(|| table(entries))
}

fn rate_limit(limit: &RateLimit) -> Value {
    let per = match &limit.per {
        RateKey::Route => "route".to_owned(),
        RateKey::ClientIp => "client_ip".to_owned(),
        RateKey::Header(name) => format!("header:{name}"),
    };
    table([
        ("per", text(&per)),
        ("requests", Value::Integer(limit.requests.into())),
        ("every", time(limit.every)),
        ("burst", Value::Integer(limit.burst.into())),
    ])
}
