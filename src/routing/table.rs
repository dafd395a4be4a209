//! The route table: from a request's listener, host, path and method to a split.
//!
//! Built once per configuration. A host leads to its group, a group's paths are found by hash (exact, and each prefix
//! of whole segments from the longest to the shortest), regexes come last. Invariant: rules that share a host and a
//! path are kept in the order of precedence (a method before none, then file order), so the first that fits wins.

use std::collections::HashMap;

use regex::Regex;

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
}

/// One alternative of one route.
#[derive(Debug)]
struct Rule {
    route: usize,
    /// Indexes into `config.listeners`; empty = all.
    listeners: Vec<usize>,
    methods: Vec<String>,
}

impl Rule {
    fn fits(&self, query: &Query<'_>) -> bool {
        let here = self.listeners.is_empty() || query.listener.is_some_and(|l| self.listeners.contains(&l));
        here && (self.methods.is_empty() || self.methods.iter().any(|m| m == query.method))
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
                if let Ok(regex) = Regex::new(pattern) {
                    let at = self.regex.partition_point(|(_, r)| before(r, &rule));
                    self.regex.insert(at, (regex, rule));
                }
            }
        }
    }

    fn find(&self, query: &Query<'_>) -> Option<usize> {
        let fitting = |rules: &Vec<Rule>| rules.iter().find(|r| r.fits(query)).map(|r| r.route);
        let exact = || self.exact.get(query.path).and_then(fitting);
        let prefix = || prefixes(query.path).find_map(|p| self.prefix.get(p).and_then(fitting));
        let regex = || self.regex.iter().find(|(p, r)| r.fits(query) && p.is_match(query.path)).map(|(_, r)| r.route);
        // The prefix `/` (or no path at all) says nothing about the path, so a regex is more specific than it.
        let root = || self.prefix.get("").and_then(fitting);
        if !self.exact.is_empty()
            && let Some(route) = exact()
        {
            return Some(route);
        }
        prefix().or_else(regex).or_else(root)
    }
}

fn before(a: &Rule, b: &Rule) -> bool {
    (a.methods.is_empty(), a.route) <= (b.methods.is_empty(), b.route)
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
                let rule = Rule { route: index, listeners: listeners(config, route), methods: one.methods.clone() };
                table.group(one.host.as_ref()).add(one.path.as_ref(), rule);
            }
        }
        table.suffix.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
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

    /// The index of the most specific route that matches.
    pub fn find(&self, query: &Query<'_>) -> Option<usize> {
        let exact = || self.exact.get(query.host).and_then(|g| g.find(query));
        let longer = |s: &str| query.host.len() > s.len() && query.host.ends_with(s);
        let suffix = || self.suffix.iter().filter(|(s, _)| longer(s)).find_map(|(_, g)| g.find(query));
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
mod tests {
    use super::*;

    /// Name, host, path, methods.
    type Row<'a> = (&'a str, Option<&'a str>, Option<PathMatch>, &'a [&'a str]);

    fn table(routes: &[Row<'_>]) -> RouteTable {
        let mut table = RouteTable::default();
        for (index, (name, host, path, methods)) in routes.iter().enumerate() {
            table.targets.push(RouteTarget { name: RouteName::new(name).unwrap(), to: Destination::Split(0) });
            let host = host.map(|h| match h.strip_prefix('*') {
                Some(suffix) => HostMatch::Suffix(suffix.into()),
                None => HostMatch::Exact(h.into()),
            });
            let methods = methods.iter().map(|m| (*m).to_owned()).collect();
            let rule = Rule { route: index, listeners: Vec::new(), methods };
            table.group(host.as_ref()).add(path.as_ref(), rule);
        }
        table.suffix.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table
    }

    fn route<'a>(table: &'a RouteTable, method: &str, host: &str, path: &str) -> Option<&'a str> {
        let found = table.find(&Query { listener: Some(0), host, path, method });
        found.map(|i| table.targets()[i].name.as_str())
    }

    fn exact(p: &str) -> Option<PathMatch> {
        Some(PathMatch::Exact(p.into()))
    }

    fn prefix(p: &str) -> Option<PathMatch> {
        Some(PathMatch::Prefix(p.trim_end_matches('/').into()))
    }

    #[test]
    fn the_most_specific_wins_whatever_the_order() {
        let table = table(&[
            ("any", None, None, &[]),
            ("wild", Some("*.example.com"), None, &[]),
            ("longer-wild", Some("*.eu.example.com"), None, &[]),
            ("host", Some("shop.example.com"), None, &[]),
            ("regex", Some("shop.example.com"), Some(PathMatch::Regex("^/v[12]/".into())), &[]),
            ("prefix", Some("shop.example.com"), prefix("/cart"), &[]),
            ("longer-prefix", Some("shop.example.com"), prefix("/cart/items/"), &[]),
            ("exact", Some("shop.example.com"), exact("/cart"), &[]),
            ("exact-post", Some("shop.example.com"), exact("/cart"), &["POST"]),
        ]);
        for (method, host, path, want) in [
            ("GET", "other.test", "/", "any"),
            ("GET", "a.example.com", "/", "wild"),
            ("GET", "a.eu.example.com", "/", "longer-wild"),
            ("GET", "example.com", "/", "any"),
            ("GET", "shop.example.com", "/", "host"),
            ("GET", "shop.example.com", "/v1/x", "regex"),
            ("GET", "shop.example.com", "/cart", "exact"),
            ("POST", "shop.example.com", "/cart", "exact-post"),
            ("GET", "shop.example.com", "/cart/", "prefix"),
            ("GET", "shop.example.com", "/cart/x", "prefix"),
            ("GET", "shop.example.com", "/cartoon", "host"),
            ("GET", "shop.example.com", "/cart/items/7", "longer-prefix"),
        ] {
            assert_eq!(route(&table, method, host, path), Some(want), "{method} {host}{path}");
        }
    }

    #[test]
    fn a_route_that_does_not_fit_gives_way_to_a_wider_one() {
        let table = table(&[("get-only", Some("a.test"), exact("/x"), &["GET"]), ("posts", None, None, &["POST"])]);
        assert_eq!(route(&table, "GET", "a.test", "/x"), Some("get-only"));
        assert_eq!(route(&table, "POST", "a.test", "/x"), Some("posts"));
        assert_eq!(route(&table, "PUT", "a.test", "/x"), None);
    }

    #[test]
    fn of_equals_the_first_in_the_file_wins() {
        let table = table(&[("first", None, prefix("/a"), &[]), ("second", None, prefix("/a"), &[])]);
        assert_eq!(route(&table, "GET", "", "/a/b"), Some("first"));
    }

    #[test]
    fn a_rule_bound_to_a_listener_is_seen_there_only() {
        let mut table = RouteTable::default();
        table.targets.push(RouteTarget { name: RouteName::new("inner").unwrap(), to: Destination::Split(0) });
        table.any.add(None, Rule { route: 0, listeners: vec![1], methods: Vec::new() });
        let query = |listener| Query { listener, host: "", path: "/", method: "GET" };
        assert_eq!(table.find(&query(Some(1))), Some(0));
        assert_eq!(table.find(&query(Some(0))), None);
        assert_eq!(table.find(&query(None)), None);
    }
}
