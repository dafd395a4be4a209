//! What a route does: exactly one of `split`, `redirect`, `respond`.

use super::{Context, redirects};
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{RawConfig, RawMatch, RawRespond, RawRoute};
use crate::config::{Action, Respond};
use crate::model::SplitName;

const ONE_OF: &str = "a route needs exactly one of split, redirect, respond";

pub fn action(raw: &RawRoute, path: &Path, all: &RawConfig, cx: &mut Context<'_>) -> Option<Action> {
    exactly_one(raw, path, cx);
    strip_prefix(raw, path, cx);
    if raw.split.is_none() && raw.request_headers.is_some() && leads_somewhere(raw) {
        let key = path.key("request_headers");
        let message = format!("`{key}` reaches nobody: the route answers by itself");
        cx.tell(Code::BadMatch, &key, message, "no one is sent this", "take `request_headers` out");
    }
    if let Some(name) = &raw.split {
        let split = split(name, path, all, cx)?;
        return Some(Action::Split { split, strip_prefix: raw.strip_prefix });
    }
    if let Some(redirect) = &raw.redirect {
        return redirects::redirect(redirect, &path.key("redirect"), cx).map(Action::Redirect);
    }
    respond(raw.respond.as_ref()?, &path.key("respond"), cx).map(Action::Respond)
}

/// False: neither split, redirect nor respond.
pub fn leads_somewhere(raw: &RawRoute) -> bool {
    raw.split.is_some() || raw.redirect.is_some() || raw.respond.is_some()
}

fn exactly_one(raw: &RawRoute, path: &Path, cx: &mut Context<'_>) {
    let keys =
        [("split", raw.split.is_some()), ("redirect", raw.redirect.is_some()), ("respond", raw.respond.is_some())];
    let mut given = keys.into_iter().filter_map(|(key, is_given)| is_given.then_some(key));
    match (given.next(), given.next()) {
        (None, _) if !cx.lacks_keys(path) => {
            let problem = cx.problem_at_key(Code::MissingKey, path, format!("{} leads nowhere", path.words()));
            problem.key = Some(path.key("split").to_string());
            problem.label = Some("`split` is missing here".into());
            problem.help = Some(ONE_OF.into());
        }
        (Some(first), Some(second)) => {
            let message = format!("`{first}` and `{second}` cannot stand together in {}", path.words());
            let problem = cx.problem_at_key(Code::BadMatch, &path.key(second), message);
            problem.label = Some("a second thing to do".into());
            problem.help = Some(ONE_OF.into());
        }
        _ => {}
    }
}

fn split(name: &String, path: &Path, all: &RawConfig, cx: &mut Context<'_>) -> Option<SplitName> {
    if !all.splits.contains_key(name) {
        if !cx.lacks_keys(&Path::root().key("splits")) {
            cx.unknown_name(format!("there is no split `{name}`"), name, all.splits.keys(), &path.key("split"));
        }
        return None;
    }
    SplitName::new(name).ok()
}

/// The prefix can be cut off only where there is one, and for somebody who gets the request.
fn strip_prefix(raw: &RawRoute, path: &Path, cx: &mut Context<'_>) {
    if !raw.strip_prefix {
        return;
    }
    let key = path.key("strip_prefix");
    if raw.split.is_none() && leads_somewhere(raw) {
        let message = format!("`{key}` does nothing: the route answers by itself");
        cx.tell(Code::BadMatch, &key, message, "nobody gets the path", "take `strip_prefix` out");
        return;
    }
    let help = "give every match of the route a path_prefix, or take `strip_prefix` out";
    let message = format!("`{key}` needs a `path_prefix` in every match of {}", path.words());
    let matches = path.key("match");
    let Some(alternatives) = &raw.matches else {
        if !cx.lacks_keys(path) {
            cx.tell(Code::BadMatch, &key, message, "there is no prefix to cut off", help);
        }
        return;
    };
    let place = |i| if alternatives.is_list() { matches.index(i) } else { matches.clone() };
    let without = |(i, one): (usize, &RawMatch)| {
        let place = place(i);
        (one.path_prefix.is_none() && !cx.lacks_keys(&place)).then_some(place)
    };
    if let Some(without) = alternatives.as_slice().iter().enumerate().find_map(without) {
        let place = cx.tree.place_of(&without);
        let problem = cx.tell(Code::BadMatch, &key, message, "there is no prefix to cut off", help);
        problem.related = place.map(|p| (p, "this one has no path_prefix".into()));
    }
}

fn respond(raw: &RawRespond, path: &Path, cx: &mut Context<'_>) -> Option<Respond> {
    let code = u16::try_from(raw.code?).ok()?;
    // RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
    if matches!(code, 204 | 205 | 304) && !raw.body.is_empty() {
        let message = format!("`{}` is never sent: an answer with code {code} has no body", path.key("body"));
        let help = "take `body` out, or use code 200";
        cx.tell(Code::OutOfRange, &path.key("body"), message, "allowed: nothing", help);
    }
    Some(Respond { code, body: raw.body.clone() })
}
