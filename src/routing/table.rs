//! The route table: from what a request is to the route it takes.
//!
//! Built once per configuration. A host leads to its group, a group's paths are found by hash (exact, and each prefix
//! of whole segments from the longest to the shortest), regexes come last. Invariant: rules that share a host and a
//! path are kept in the order of precedence (a method before none, then most fields, cookies and parameters, an address
//! before none, then file order), so the first that fits wins.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

use http::HeaderMap;
use regex::Regex;

use super::matcher;
use crate::config::{Config, HostMatch, Match, PathMatch, Route};
use crate::model::RouteName;

/// Where a route leads.
#[derive(Clone, Debug)]
pub struct RouteTarget {
    pub name: RouteName,
    pub to: Destination,
}

/// See `config::Action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Index into `config.splits`.
    Split(usize),
    /// Answered by us, as `config.routes[i].action` says.
    Answer,
}

impl RouteTarget {
    /// The split it leads to, if it leads to one.
    pub fn split(&self) -> Option<usize> {
        match self.to {
            Destination::Split(split) => Some(split),
            Destination::Answer => None,
        }
    }
}

/// What of a request decides its route; host and path in normal form.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Index into `config.listeners`; `None` if the listener has left the configuration.
    pub listener: Option<usize>,
    pub host: &'a str,
    pub path: &'a str,
    pub method: &'a str,
    pub headers: &'a HeaderMap,
    /// As it came, without `?`.
    pub query: Option<&'a str>,
    /// `None` for clients without an address (on a Unix socket).
    pub client: Option<IpAddr>,
}

/// The route a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Index into `config.routes`, as of `RouteTable::targets`.
    pub route: usize,
    /// Length of the `path_prefix` that matched, for `strip_prefix`; 0 if none did.
    pub prefix: usize,
}

/// One alternative of one route.
#[derive(Debug)]
struct Rule {
    route: usize,
    /// Indexes into `config.listeners`; empty = all.
    listeners: Vec<usize>,
    /// What is left to be asked once host and path are found.
    rest: Match,
}

impl Rule {
    fn new(route: usize, listeners: Vec<usize>, one: &Match) -> Self {
        Self { route, listeners, rest: Match { host: None, path: None, ..one.clone() } }
    }

    fn fits(&self, query: &Query<'_>) -> bool {
        let here = self.listeners.is_empty() || query.listener.is_some_and(|l| self.listeners.contains(&l));
        here && matcher::rest_fits(&self.rest, query)
    }

    /// Smaller comes first (surface.md section 4).
    fn rank(&self) -> impl Ord {
        let Match { methods, headers, cookies, queries, client_ip, .. } = &self.rest;
        let counts = (Reverse(headers.len()), Reverse(cookies.len()), Reverse(queries.len()));
        (methods.is_empty(), counts, client_ip.is_empty(), self.route)
    }
}

/// The rules of one host, by path.
#[derive(Debug, Default)]
struct Group {
    exact: HashMap<String, Vec<Rule>>,
    prefix: HashMap<String, Vec<Rule>>,
    regex: Vec<(Regex, Rule)>,
}

impl Group {
    fn add(&mut self, path: Option<&PathMatch>, rule: Rule) {
        match path {
            Some(PathMatch::Exact(path)) => push_in_order(self.exact.entry(path.clone()).or_default(), rule),
            Some(PathMatch::Prefix(prefix)) => push_in_order(self.prefix.entry(prefix.clone()).or_default(), rule),
            None => push_in_order(self.prefix.entry(String::new()).or_default(), rule),
            Some(PathMatch::Regex(pattern)) => {
                let at = self.regex.partition_point(|(_, r)| before(r, &rule));
                self.regex.insert(at, (pattern.0.clone(), rule));
            }
        }
    }

    fn find(&self, query: &Query<'_>) -> Option<Found> {
        let fitting = |rules: &Vec<Rule>| rules.iter().find(|r| r.fits(query)).map(|r| r.route);
        let found = |prefix| move |route| Found { route, prefix };
        let exact = || self.exact.get(query.path).and_then(fitting).map(found(0));
        let prefix = || prefixes(query.path).find_map(|p| self.prefix.get(p).and_then(fitting).map(found(p.len())));
        let regex = || self.regex.iter().find(|(p, r)| r.fits(query) && p.is_match(query.path));
        // The prefix `/` (or no path at all) says nothing about the path, so a regex is more specific than it.
        let root = || self.prefix.get("").and_then(fitting).map(found(0));
        if !self.exact.is_empty()
            && let Some(route) = exact()
        {
            return Some(route);
        }
        prefix().or_else(|| regex().map(|(_, r)| found(0)(r.route))).or_else(root)
    }
}

fn before(a: &Rule, b: &Rule) -> bool {
    a.rank() <= b.rank()
}

fn push_in_order(rules: &mut Vec<Rule>, rule: Rule) {
    let at = rules.partition_point(|r| before(r, &rule));
    rules.insert(at, rule);
}

/// `/a/b/c` gives `/a/b/c`, `/a/b`, `/a`; not the root.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let whole = path.strip_suffix('/').unwrap_or(path);
    std::iter::successors(Some(whole), |p: &&str| {
        let p: &str = p;
        p.rfind('/').map(|at| &p[..at])
    })
    .take_while(|p| !p.is_empty())
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct RouteTable {
    targets: Vec<RouteTarget>,
    exact: HashMap<String, Group>,
    /// Longest suffix first.
    suffix: Vec<(String, Group)>,
    any: Group,
}

impl RouteTable {
    /// Builds the table; cannot fail, since a `Config` is valid.
    pub fn new(config: &Config) -> Self {
        let mut table = Self::default();
        let everything = [Match::default()];
        for (index, route) in config.routes.iter().enumerate() {
            let split = route.split().and_then(|name| config.splits.iter().position(|s| s.name == *name));
            let to = split.map_or(Destination::Answer, Destination::Split);
            table.targets.push(RouteTarget { name: route.name.clone(), to });
            let matches = if route.matches.is_empty() { &everything[..] } else { &route.matches };
            for one in matches {
                let rule = Rule::new(index, listeners(config, route), one);
                table.group(one.host.as_ref()).add(one.path.as_ref(), rule);
            }
        }
        table.suffix.sort_by_key(|(suffix, _)| Reverse(suffix.len()));
        table
    }

    fn group(&mut self, host: Option<&HostMatch>) -> &mut Group {
        match host {
            None => &mut self.any,
            Some(HostMatch::Exact(host)) => self.exact.entry(host.clone()).or_default(),
            Some(HostMatch::Suffix(suffix)) => {
                let at = self.suffix.iter().position(|(s, _)| s == suffix).unwrap_or_else(|| {
                    self.suffix.push((suffix.clone(), Group::default()));
                    self.suffix.len() - 1
                });
                &mut self.suffix[at].1
            }
        }
    }

    /// The most specific route that matches.
    pub fn find(&self, query: &Query<'_>) -> Option<Found> {
        let exact = || self.exact.get(query.host).and_then(|g| g.find(query));
        let below = |s: &str| matcher::is_below(query.host, s);
        let suffix = || self.suffix.iter().filter(|(s, _)| below(s)).find_map(|(_, g)| g.find(query));
        if !self.exact.is_empty()
            && let Some(route) = exact()
        {
            return Some(route);
        }
        suffix().or_else(|| self.any.find(query))
    }

    /// Where route `index` leads; indexes are those of `config.routes`.
    pub fn targets(&self) -> &[RouteTarget] {
        &self.targets
    }
}

fn listeners(config: &Config, route: &Route) -> Vec<usize> {
    route.listeners.iter().filter_map(|name| config.listeners.iter().position(|l| l.name == *name)).collect()
}

#[cfg(test)]
mod tests;
