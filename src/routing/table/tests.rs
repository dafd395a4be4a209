//! The table by its order of precedence, and against the plain matcher.

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
        let path = prop::option::of(prop::sample::select(vec!["=/", "=/x", "=/x/y", "/x", "/x/y", "", "^/x", "y$"]));
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
