//! How a version's endpoints share its requests: balance, ejection, connections and queue.

use http::HeaderName;

use super::Context;
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{RawBalance, RawEject, RawHash, RawHashBy, RawPool, RawSplit, RawWeighBy};
use crate::config::{Balance, Eject, HashKey, PoolLimits, WeighBy};

pub fn weigh_by(raw: RawWeighBy) -> WeighBy {
    match raw {
        RawWeighBy::Weight => WeighBy::Weight,
        RawWeighBy::Endpoints => WeighBy::Endpoints,
    }
}

pub fn balance(raw: &RawSplit, path: &Path, cx: &mut Context<'_>) -> Balance {
    let at = path.key("hash");
    match (raw.balance, &raw.hash) {
        (RawBalance::Hash, None) => Balance::Hash(HashKey::ClientIp),
        // What is wrong with it has been told.
        (RawBalance::Hash, Some(hash)) => Balance::Hash(key(hash, &at, cx).unwrap_or(HashKey::ClientIp)),
        (balance, hash) => {
            if hash.is_some() {
                useless(&at, "nothing is hashed", "take `hash` out, or write balance = \"hash\"", cx);
            }
            if matches!(balance, RawBalance::RoundRobin) { Balance::RoundRobin } else { Balance::LeastRequests }
        }
    }
}

fn useless(path: &Path, why: &str, help: &str, cx: &mut Context<'_>) {
    let message = format!("{} means nothing here", path.words());
    let problem = cx.problem_at_key(Code::UnknownKey, path, message);
    problem.label = Some(why.into());
    problem.help = Some(help.into());
}

fn key(raw: &RawHash, path: &Path, cx: &mut Context<'_>) -> Option<HashKey> {
    let at = path.key("name");
    let name = match (raw.by, &raw.name) {
        (RawHashBy::ClientIp, None) => return Some(HashKey::ClientIp),
        (RawHashBy::ClientIp, Some(_)) => {
            let help = "take `name` out, or write by = \"header\" or by = \"cookie\"";
            useless(&at, "an address has no name", help, cx);
            return None;
        }
        (_, Some(name)) => name,
        (_, None) => {
            no_name(path, &at, cx);
            return None;
        }
    };
    // A cookie's name is a token (RFC 6265 section 4.1.1), as a method is.
    let key = match raw.by {
        RawHashBy::Header => HeaderName::from_bytes(name.as_bytes()).ok().map(HashKey::Header),
        _ => http::Method::from_bytes(name.as_bytes()).ok().map(|_| HashKey::Cookie(name.clone())),
    };
    if key.is_none() {
        let problem = cx.problem(Code::OutOfRange, &at, format!("{name:?} cannot be such a name"));
        problem.label = Some("neither a header nor a cookie is called so".into());
        problem.help = Some("write the name alone, for example \"x-user-id\"".into());
    }
    key
}

fn no_name(path: &Path, at: &Path, cx: &mut Context<'_>) {
    if cx.lacks_keys(path) {
        return;
    }
    let problem = cx.problem_at_key(Code::MissingKey, path, format!("{} has no `name`", path.words()));
    problem.key = Some(at.to_string());
    problem.label = Some("which one?".into());
    problem.help = Some("add the name of the header or cookie, for example name = \"x-user-id\"".into());
}

/// `None`: off.
pub fn eject(raw: &RawEject, path: &Path, cx: &mut Context<'_>) -> Option<Eject> {
    if raw.duration.0.is_zero() {
        let message = format!("`for` of {} is 0s: nothing would be ejected", path.words());
        let problem = cx.problem(Code::OutOfRange, &path.key("for"), message);
        problem.label = Some("it would be back at once".into());
        problem.help = Some("write for example \"10s\", or errors = 0 to switch it off".into());
    }
    (raw.errors > 0).then_some(Eject { errors: raw.errors, duration: raw.duration.0, max_percent: raw.max_percent })
}

pub fn pool(raw: &RawPool, path: &Path, cx: &mut Context<'_>) -> PoolLimits {
    if raw.queue_timeout.0.is_zero() {
        let message = format!("`queue_timeout` of {} is 0s: no request would wait", path.words());
        let problem = cx.problem(Code::OutOfRange, &path.key("queue_timeout"), message);
        problem.label = Some("not \"no limit\" here: waiting must end".into());
        problem.help = Some("write for example \"1s\", or queue = 0".into());
    }
    PoolLimits {
        idle_per_endpoint: raw.idle_per_endpoint,
        max_in_flight: raw.max_in_flight,
        queue: raw.queue,
        queue_timeout: raw.queue_timeout.0,
        max_age: raw.max_age.limit(),
    }
}
