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
mod tests {
    use super::*;
    use crate::config::Pattern;

    /// Name, host, path, methods.
    type Row<'a> = (&'a str, Option<&'a str>, Option<PathMatch>, &'a [&'a str]);

    fn add(table: &mut RouteTable, name: &str, listeners: Vec<usize>, one: &Match) {
        let index = table.targets.len();
        table.targets.push(RouteTarget { name: RouteName::new(name).unwrap(), to: Destination::Split(0) });
        table.group(one.host.as_ref()).add(one.path.as_ref(), Rule::new(index, listeners, one));
        table.suffix.sort_by_key(|(suffix, _)| Reverse(suffix.len()));
    }

    fn table(routes: &[Row<'_>]) -> RouteTable {
        let mut table = RouteTable::default();
        for (name, host, path, methods) in routes {
            let host = host.map(|h| match h.strip_prefix('*') {
                Some(suffix) => HostMatch::Suffix(suffix.into()),
                None => HostMatch::Exact(h.into()),
            });
            let methods = methods.iter().map(|m| (*m).to_owned()).collect();
            add(&mut table, name, Vec::new(), &Match { host, path: path.clone(), methods, ..Match::default() });
        }
        table
    }

    fn query<'a>(headers: &'a HeaderMap, method: &'a str, host: &'a str, path: &'a str) -> Query<'a> {
        Query { listener: Some(0), host, path, method, headers, query: None, client: None }
    }

    fn route<'a>(table: &'a RouteTable, method: &str, host: &str, path: &str) -> Option<&'a str> {
        let found = table.find(&query(&HeaderMap::new(), method, host, path));
        found.map(|f| table.targets()[f.route].name.as_str())
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
            ("regex", Some("shop.example.com"), Some(PathMatch::Regex(Pattern(Regex::new("^/v[12]/").unwrap()))), &[]),
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
        add(&mut table, "inner", vec![1], &Match::default());
        let headers = HeaderMap::new();
        let find = |listener| table.find(&Query { listener, ..query(&headers, "GET", "", "/") });
        assert_eq!(find(Some(1)), Some(Found { route: 0, prefix: 0 }));
        assert_eq!(find(Some(0)), None);
        assert_eq!(find(None), None);
    }

    #[test]
    fn the_prefix_that_matched_is_measured() {
        let table = table(&[
            ("root", None, None, &[]),
            ("api", None, prefix("/api"), &[]),
            ("deep", None, prefix("/api/v1/"), &["POST"]),
            ("exact", None, exact("/api/x"), &[]),
            ("regex", None, Some(PathMatch::Regex(Pattern(Regex::new("^/r").unwrap()))), &[]),
        ]);
        let headers = HeaderMap::new();
        for (method, path, prefix) in [
            ("GET", "/", 0),
            ("GET", "/api", 4),
            ("GET", "/api/", 4),
            ("GET", "/api/v1/x", 4),
            ("POST", "/api/v1/x", 7),
            ("GET", "/api/x", 0),
            ("GET", "/r/x", 0),
            ("GET", "/other", 0),
        ] {
            let found = table.find(&query(&headers, method, "", path));
            assert_eq!(found.map(|f| f.prefix), Some(prefix), "{method} {path}");
        }
    }

    /// The table, from a file, of one host and path, least first: each wins over those before it, whatever the order.
    #[test]
    fn the_more_is_asked_the_earlier_it_is_asked() {
        let rows = [
            ("any", ""),
            ("client", "client_ip = \"10.0.0.0/8\""),
            ("query", "query = { q = \"1\" }"),
            ("query-client", "query = { q = \"1\" }, client_ip = \"10.0.0.0/8\""),
            ("queries", "query = { q = \"1\", r = { present = false } }"),
            ("cookie", "cookie = { c = \"1\" }"),
            ("header", "header = { h = \"1\" }"),
            ("header-query", "header = { h = \"1\" }, query = { q = \"1\" }"),
            ("header-cookie", "header = { h = \"1\" }, cookie = { c = \"1\" }"),
            ("headers", "header = { h = \"1\", i = { present = false } }"),
            ("method", "method = \"GET\""),
            ("method-client", "method = \"GET\", client_ip = \"10.0.0.1\""),
            ("method-header", "method = \"GET\", header = { h = \"1\" }"),
        ];
        let headers: HeaderMap = [("h", "1"), ("cookie", "c=1")]
            .map(|(n, v)| (http::HeaderName::from_static(n), http::HeaderValue::from_static(v)))
            .into_iter()
            .collect();
        let client = Some(IpAddr::from([10, 0, 0, 1]));
        let query = Query { query: Some("q=1"), client, ..query(&headers, "GET", "a.test", "/") };
        for last in 1..=rows.len() {
            for reverse in [false, true] {
                let mut rows = rows[..last].to_vec();
                let best = rows[last - 1].0;
                if reverse {
                    rows.reverse();
                }
                let table = from_file(&rows);
                let found = table.find(&query).unwrap();
                assert_eq!(table.targets()[found.route].name.as_str(), best);
                // Nothing of it fits another request.
                let bare = Query { query: None, client: None, headers: &HeaderMap::new(), method: "PUT", ..query };
                assert_eq!(table.targets()[table.find(&bare).unwrap().route].name.as_str(), "any");
            }
        }
    }

    fn from_file(rows: &[(&str, &str)]) -> RouteTable {
        let mut text = String::from("[listeners.web]\nbind = \"127.0.0.1:1\"\n");
        for (name, one) in rows {
            text += &format!("[[routes]]\nname = \"{name}\"\nmatch = {{ {one} }}\nsplit = \"s\"\n");
        }
        text += "[splits.s.versions]\nv1 = { endpoints = [\"127.0.0.1:2\"] }\n";
        let loaded = crate::config::check_text("x.toml", &text, &|_| Some("/tmp".into()));
        RouteTable::new(&loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.text(false))))
    }

    mod properties {
        use proptest::prelude::*;

        use super::*;

        fn one() -> impl Strategy<Value = Match> {
            let host = prop::option::of(prop::sample::select(vec!["a.test", "b.a.test", "*.a.test", "*.test"]));
            let path =
                prop::option::of(prop::sample::select(vec!["=/", "=/x", "=/x/y", "/x", "/x/y", "", "^/x", "y$"]));
            let header = prop::option::of(prop::sample::select(vec!["1", "2"]));
            let methods = prop::sample::subsequence(vec!["GET".to_owned(), "PUT".to_owned()], 0..2);
            (host, path, header, methods).prop_map(|(host, path, header, methods)| Match {
                host: host.map(|h| match h.strip_prefix('*') {
                    Some(suffix) => HostMatch::Suffix(suffix.into()),
                    None => HostMatch::Exact(h.into()),
                }),
                path: path.map(|p| match (p.strip_prefix('='), p.contains(['^', '$'])) {
                    (Some(path), _) => PathMatch::Exact(path.into()),
                    (None, true) => PathMatch::Regex(Pattern(Regex::new(p).unwrap())),
                    (None, false) => PathMatch::Prefix(p.into()),
                }),
                headers: header
                    .map(|v| (http::HeaderName::from_static("h"), crate::config::ValueMatch::Exact(v.into())))
                    .into_iter()
                    .collect(),
                methods,
                ..Match::default()
            })
        }

        proptest! {
            /// The table and the plain matcher agree: a route is found exactly if one fits, and it is one that fits.
            #[test]
            fn the_table_finds_what_the_matcher_finds(
                all in prop::collection::vec(one(), 0..12),
                host in prop::sample::select(vec!["a.test", "b.a.test", "c.b.a.test", "test", ""]),
                path in prop::sample::select(vec!["/", "/x", "/x/", "/x/y", "/x/y/z", "/xy", "/y", "//x"]),
                value in prop::sample::select(vec!["1", "2", "3"]),
                method in prop::sample::select(vec!["GET", "PUT", "POST"]),
            ) {
                let mut table = RouteTable::default();
                all.iter().for_each(|one| add(&mut table, "r", Vec::new(), one));
                let field = (http::HeaderName::from_static("h"), http::HeaderValue::from_static(value));
                let headers: HeaderMap = [field].into_iter().collect();
                let query = query(&headers, method, host, path);
                let fitting: Vec<usize> = (0..all.len()).filter(|&i| matcher::fits(&all[i], &query)).collect();
                match table.find(&query) {
                    None => prop_assert!(fitting.is_empty()),
                    Some(found) => {
                        prop_assert!(fitting.contains(&found.route));
                        // Of equal matches the first.
                        let first = all.iter().position(|one| *one == all[found.route]);
                        prop_assert_eq!(first, Some(found.route));
                        if let Some(PathMatch::Prefix(prefix)) = &all[found.route].path {
                            prop_assert_eq!(found.prefix, prefix.len());
                        }
                    }
                }
            }
        }
    }
}
