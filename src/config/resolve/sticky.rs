//! How users stay on their version, and what happens to them while it has no endpoint.

use std::time::Duration;

use http::HeaderName;

use super::Context;
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{RawHold, RawOnUnavailable, RawSplit, RawSticky, RawStickyBy};
use crate::config::{Hold, OnUnavailable, Sticky};

const DAY: Duration = Duration::from_secs(86_400);

/// `name` is the split's.
pub fn sticky(name: &str, raw: &RawSplit, path: &Path, cx: &mut Context<'_>) -> Option<Sticky> {
    let sticky = raw.sticky.as_ref()?;
    let path = path.key("sticky");
    if sticky.by != RawStickyBy::Cookie && sticky.ttl.is_some() {
        useless("ttl", "only a cookie has a life", &path, cx);
    }
    match sticky.by {
        RawStickyBy::Cookie => cookie(name, sticky, &path, cx),
        RawStickyBy::Header => header(sticky, &path, cx),
        RawStickyBy::ClientIp => {
            if sticky.name.is_some() {
                useless("name", "an address has no name", &path, cx);
            }
            Some(Sticky::ClientIp)
        }
    }
}

fn useless(key: &str, why: &str, path: &Path, cx: &mut Context<'_>) {
    let message = format!("{} has a `{key}` that means nothing", path.words());
    let problem = cx.problem_at_key(Code::UnknownKey, &path.key(key), message);
    problem.label = Some(why.into());
    problem.help = Some(format!("take `{key}` out, or write by = \"cookie\""));
}

fn cookie(split: &str, raw: &RawSticky, path: &Path, cx: &mut Context<'_>) -> Option<Sticky> {
    let ttl = raw.ttl.map_or(DAY, |ttl| ttl.0);
    if ttl < Duration::from_secs(1) {
        let problem = cx.problem(Code::OutOfRange, &path.key("ttl"), "a sticky cookie must live a second or more");
        problem.label = Some("the browser would forget it at once".into());
        problem.help = Some("write for example \"24h\", or take `sticky` out".into());
    }
    let name = raw.name.clone().unwrap_or_else(|| format!("weir_{split}"));
    // A cookie's name is a token (RFC 6265 section 4.1.1), as a method is.
    if http::Method::from_bytes(name.as_bytes()).is_ok() {
        return Some(Sticky::Cookie { name, ttl });
    }
    let problem = cx.problem(Code::OutOfRange, &path.key("name"), format!("{name:?} cannot be the name of a cookie"));
    problem.label = Some("not a token".into());
    problem.help = Some("use letters, digits, `_`, `-` and `.`, for example \"weir_shop\"".into());
    None
}

fn header(raw: &RawSticky, path: &Path, cx: &mut Context<'_>) -> Option<Sticky> {
    let Some(name) = &raw.name else {
        if !cx.lacks_keys(path) {
            let problem = cx.problem_at_key(Code::MissingKey, path, format!("{} has no `name`", path.words()));
            problem.key = Some(path.key("name").to_string());
            problem.label = Some("which header?".into());
            problem.help = Some("add the header that tells users apart, for example name = \"x-user-id\"".into());
        }
        return None;
    };
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => Some(Sticky::Header(name)),
        Err(_) => {
            let message = format!("{name:?} cannot be the name of a header");
            let problem = cx.problem(Code::OutOfRange, &path.key("name"), message);
            problem.label = Some("not a header's name".into());
            problem.help = Some("write the name alone, for example \"x-user-id\"".into());
            None
        }
    }
}

pub fn on_unavailable(raw: &RawSplit, path: &Path, cx: &mut Context<'_>) -> OnUnavailable {
    match raw.on_unavailable {
        RawOnUnavailable::Spill => OnUnavailable::Spill,
        RawOnUnavailable::Fail => OnUnavailable::Fail,
        RawOnUnavailable::Hold => OnUnavailable::Hold(hold(&raw.hold, &path.key("hold"), cx)),
    }
}

fn hold(raw: &RawHold, path: &Path, cx: &mut Context<'_>) -> Hold {
    if raw.timeout.0.is_zero() {
        let message = format!("`timeout` of {} is 0s: no request would wait", path.words());
        let problem = cx.problem(Code::OutOfRange, &path.key("timeout"), message);
        problem.label = Some("not \"no limit\" here: waiting must end".into());
        problem.help = Some("write for example \"5s\", or on_unavailable = \"fail\"".into());
    }
    Hold { timeout: raw.timeout.0, requests: raw.requests }
}
