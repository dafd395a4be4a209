//! Routes: the names they use, and whether any request can reach them.

use super::edits::{self, Side};
use super::{Context, actions, matches, rate_limits};
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{RawConfig, RawRoute};
use crate::config::{Match, Route};
use crate::model::{ListenerName, RouteName};

pub fn routes(raw: &RawConfig, cx: &mut Context<'_>) -> Vec<Route> {
    let group = Path::root().key("routes");
    let mut routes: Vec<(Route, Path)> = Vec::new();
    for (i, one) in raw.routes.iter().enumerate() {
        let path = group.index(i);
        let Some(route) = route(one, i, &path, raw, cx) else { continue };
        duplicate_name(&route, &path, &routes, cx);
        if !cx.is_flawed(&path) {
            unreachable(&route, &path, &routes, cx);
        }
        routes.push((route, path));
    }
    unused_splits(raw, cx);
    routes.into_iter().map(|(route, _)| route).collect()
}

fn route(raw: &RawRoute, i: usize, path: &Path, all: &RawConfig, cx: &mut Context<'_>) -> Option<Route> {
    let listeners = listeners(raw, path, all, cx);
    let matches = raw.matches.as_ref().map(|m| matches::alternatives(m, &path.key("match"), cx)).unwrap_or_default();
    let action = actions::action(raw, path, all, cx);
    let mut edits = |raw, side, key| edits::edits(Option::as_ref(raw), side, &path.key(key), cx);
    let request_headers = edits(&raw.request_headers, Side::Request, "request_headers");
    let response_headers = edits(&raw.response_headers, Side::Response, "response_headers");
    let limit = raw.rate_limit.as_ref();
    let rate_limit = limit.and_then(|limit| rate_limits::rate_limit(limit, &path.key("rate_limit"), cx));
    let text = raw.name.clone().unwrap_or_else(|| format!("route-{}", i + 1));
    let name = cx.name(RouteName::new(&text), &text, &path.key("name"))?;
    Some(Route { name, listeners, matches, action: action?, request_headers, response_headers, rate_limit })
}

fn listeners(raw: &RawRoute, path: &Path, all: &RawConfig, cx: &mut Context<'_>) -> Vec<ListenerName> {
    let path = path.key("listeners");
    let Some(names) = &raw.listeners else { return Vec::new() };
    if names.is_empty() {
        let problem = cx.problem(Code::BadMatch, &path, format!("`{path}` is an empty list: it matches nothing"));
        problem.label = Some("no listener".into());
        problem.help = Some("leave `listeners` out to take requests from all".into());
    }
    let mut found = Vec::new();
    for (i, name) in names.iter().enumerate() {
        if all.listeners.contains_key(name) {
            found.extend(ListenerName::new(name).ok());
        } else if !cx.lacks_keys(&Path::root().key("listeners")) {
            cx.unknown_name(format!("there is no listener `{name}`"), name, all.listeners.keys(), &path.index(i));
        }
    }
    found
}

fn duplicate_name(route: &Route, path: &Path, earlier: &[(Route, Path)], cx: &mut Context<'_>) {
    let Some((_, first)) = earlier.iter().find(|(other, _)| other.name == route.name) else { return };
    let place = cx.tree.place_of(&first.key("name"));
    let problem = cx.problem(Code::DuplicateName, &path.key("name"), format!("two routes are named `{}`", route.name));
    problem.label = Some("the same name again".into());
    problem.related = place.map(|p| (p, "first given here".into()));
    problem.help = Some("rename one of them; names tell routes apart in metrics and logs".into());
}

/// A route is surely never taken if earlier routes have every one of its alternatives, on all its listeners.
fn unreachable(route: &Route, path: &Path, earlier: &[(Route, Path)], cx: &mut Context<'_>) {
    let any = [Match::default()];
    let parts = |route: &'_ Route| if route.matches.is_empty() { any.to_vec() } else { route.matches.clone() };
    let covers = |other: &Route| {
        let all = |l: &ListenerName| other.listeners.contains(l);
        other.listeners.is_empty() || !route.listeners.is_empty() && route.listeners.iter().all(all)
    };
    let covering: Vec<_> = earlier.iter().filter(|(other, _)| covers(other)).collect();
    let taken = |one: &Match| covering.iter().find(|(other, _)| parts(other).contains(one));
    let firsts: Option<Vec<_>> = parts(route).iter().map(taken).collect();
    let Some((first, first_path)) = firsts.and_then(|f| f.first().copied()) else { return };
    let place = cx.tree.place_of(first_path);
    let message = format!("no request can reach route `{}`: route `{}` has the same match", route.name, first.name);
    let problem = cx.problem(Code::UnreachableRoute, path, message);
    problem.label = Some("never taken".into());
    problem.related = place.map(|p| (p, "this one takes them all".into()));
    problem.help = Some("of equal matches the first wins: make this one more specific, or take it out".into());
}

fn unused_splits(raw: &RawConfig, cx: &mut Context<'_>) {
    // A route that leads nowhere known was meant for one of them.
    let unknown = |r: &RawRoute| r.split.as_ref().is_some_and(|name| !raw.splits.contains_key(name));
    let lost = |r: &RawRoute| unknown(r) || !actions::leads_somewhere(r);
    if cx.is_flawed(&Path::root().key("routes")) || raw.routes.iter().any(lost) {
        return;
    }
    for name in raw.splits.keys().filter(|name| !raw.routes.iter().any(|r| r.split.as_ref() == Some(*name))) {
        let path = Path::root().key("splits").key(name);
        let problem = cx.problem_at_key(Code::UnusedSplit, &path, format!("no route leads to split `{name}`"));
        problem.label = Some("gets no request".into());
        problem.help = Some(format!("add a route with split = \"{name}\", or take the split out"));
    }
}
