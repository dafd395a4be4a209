//! `rate_limit` of a route.

use http::HeaderName;

use super::Context;
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::RawRateLimit;
use crate::config::suggest::did_you_mean;
use crate::config::{RateKey, RateLimit};

pub fn rate_limit(raw: &RawRateLimit, path: &Path, cx: &mut Context<'_>) -> Option<RateLimit> {
    let per = raw.per.as_deref().and_then(|text| key(text, &path.key("per"), cx));
    let every = raw.every?.0;
    if every.is_zero() {
        let key = path.key("every");
        let help = "write for example \"1s\"; take `rate_limit` out for no limit";
        cx.tell(Code::OutOfRange, &key, format!("`{key}` is 0s"), "allowed: 1ms or more", help);
    }
    let requests = raw.requests?;
    Some(RateLimit { per: per?, requests, every, burst: raw.burst.unwrap_or(requests) })
}

fn key(text: &str, path: &Path, cx: &mut Context<'_>) -> Option<RateKey> {
    if let Some(name) = text.strip_prefix("header:") {
        let field = HeaderName::from_bytes(name.as_bytes());
        if field.is_err() {
            let message = format!("`{path}` cannot be {text:?}: {name:?} is not a field's name");
            cx.tell(Code::OutOfRange, path, message, "not a field's name", "write for example \"header:x-api-key\"");
        }
        return field.ok().map(RateKey::Header);
    }
    match text {
        "route" => Some(RateKey::Route),
        "client_ip" => Some(RateKey::ClientIp),
        _ => {
            let label = did_you_mean(text, ["route", "client_ip", "header:"]).unwrap_or("not known here".into());
            let help = "values allowed here: route, client_ip, header:NAME";
            cx.tell(Code::UnknownName, path, format!("`{path}` cannot be {text:?}"), &label, help);
            None
        }
    }
}
