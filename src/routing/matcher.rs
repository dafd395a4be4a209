//! Whether a request is what a match asks for.
//!
//! The table has found host and path already and asks for the rest; rules of a split ask for all. Invariant: a match
//! without conditions on fields, cookies, parameters and address costs a look at four empty lists.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

use super::cookie::raw_cookie;
use super::parameter::parameter;
use super::table::Query;
use crate::config::{HostMatch, Match, PathMatch, ValueMatch};

/// Every part of a match: host, path and the rest.
pub fn fits(one: &Match, query: &Query<'_>) -> bool {
    let host = one.host.as_ref().is_none_or(|host| host_fits(host, query.host));
    let path = one.path.as_ref().is_none_or(|path| path_fits(path, query.path));
    host && path && rest_fits(one, query)
}

/// All but host and path.
pub(super) fn rest_fits(one: &Match, query: &Query<'_>) -> bool {
    (one.methods.is_empty() || one.methods.iter().any(|m| m == query.method))
        && one.headers.iter().all(|(name, wanted)| header_fits(query.headers, name, wanted))
        && one.cookies.iter().all(|(name, wanted)| value_fits(wanted, raw_cookie(query.headers, name)))
        && one.queries.iter().all(|(name, wanted)| {
            let value = query.query.and_then(|query| parameter(query, name));
            value_fits(wanted, value.as_deref())
        })
        && (one.client_ip.is_empty() || query.client.is_some_and(|client| client_fits(one, client)))
}

fn host_fits(wanted: &HostMatch, host: &str) -> bool {
    match wanted {
        HostMatch::Exact(name) => name == host,
        HostMatch::Suffix(suffix) => is_below(host, suffix),
    }
}

/// `.example.com` has `a.example.com` below it, not itself.
pub(super) fn is_below(host: &str, suffix: &str) -> bool {
    host.len() > suffix.len() && host.ends_with(suffix)
}

fn path_fits(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => exact == path,
        PathMatch::Prefix(prefix) => path.strip_prefix(prefix.as_str()).is_some_and(ends_segment),
        PathMatch::Regex(pattern) => pattern.0.is_match(path),
    }
}

fn ends_segment(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// Any field of the name fits, or all of them as one list (RFC 9110 section 5.3).
fn header_fits(headers: &HeaderMap, name: &HeaderName, wanted: &ValueMatch) -> bool {
    let mut values = headers.get_all(name).iter().map(|v| v.as_bytes());
    let first = values.next();
    if value_fits(wanted, first) {
        return true;
    }
    let (Some(first), Some(second)) = (first, values.next()) else { return false };
    let all: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
    all.iter().any(|value| value_fits(wanted, Some(value))) || value_fits(wanted, Some(&all.join(&b", "[..])))
}

fn value_fits(wanted: &ValueMatch, value: Option<&[u8]>) -> bool {
    match (wanted, value) {
        (ValueMatch::Absent, value) => value.is_none(),
        (_, None) => false,
        (ValueMatch::Present, Some(_)) => true,
        (ValueMatch::Exact(exact), Some(value)) => exact.as_bytes() == value,
        (ValueMatch::Regex(pattern), Some(value)) => std::str::from_utf8(value).is_ok_and(|v| pattern.0.is_match(v)),
    }
}

fn client_fits(one: &Match, client: IpAddr) -> bool {
    let client = client.to_canonical();
    one.client_ip.iter().any(|network| network.contains(&client))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use regex::Regex;

    use super::*;
    use crate::config::Pattern;

    fn exact(text: &str) -> ValueMatch {
        ValueMatch::Exact(text.into())
    }

    fn regex(text: &str) -> ValueMatch {
        ValueMatch::Regex(Pattern(Regex::new(text).unwrap()))
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let value = |v: &str| HeaderValue::from_bytes(v.as_bytes()).unwrap();
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), value(v))).collect()
    }

    fn query(headers: &HeaderMap) -> Query<'_> {
        Query { listener: None, host: "shop.test", path: "/cart/7", method: "GET", headers, query: None, client: None }
    }

    #[test]
    fn fields_one_by_one_or_as_a_list() {
        let headers = headers(&[("x-a", "1"), ("x-a", "2"), ("x-b", ""), ("x-c", "é")]);
        for (name, wanted, fits) in [
            ("x-a", exact("1"), true),
            ("x-a", exact("2"), true),
            ("x-a", exact("1, 2"), true),
            ("x-a", exact("2, 1"), false),
            ("x-a", exact("1,2"), false),
            ("x-a", regex("^1, 2$"), true),
            ("x-a", regex("^[12]$"), true),
            ("x-a", regex("^3"), false),
            ("x-a", ValueMatch::Present, true),
            ("x-a", ValueMatch::Absent, false),
            ("x-b", ValueMatch::Present, true),
            ("x-b", exact(""), true),
            ("x-b", regex("^$"), true),
            ("x-c", exact("é"), true),
            ("x-d", ValueMatch::Present, false),
            ("x-d", ValueMatch::Absent, true),
            ("x-d", regex(""), false),
            ("x-d", exact(""), false),
        ] {
            let one = Match { headers: vec![(HeaderName::from_static(name), wanted.clone())], ..Match::default() };
            assert_eq!(super::fits(&one, &query(&headers)), fits, "{name} {wanted:?}");
        }
    }

    #[test]
    fn cookies_and_parameters() {
        let headers = headers(&[("cookie", "plan=beta; x=1"), ("cookie", "y=2; plan=free")]);
        let query = Query { query: Some("preview&a=x+y&a=z"), ..query(&headers) };
        let none = Query { query: None, ..query };
        for (name, wanted, fits) in [
            ("plan", exact("beta"), true),
            ("plan", exact("free"), false),
            ("plan", regex("^(beta|staff)$"), true),
            ("y", ValueMatch::Present, true),
            ("Y", ValueMatch::Absent, true),
        ] {
            let one = Match { cookies: vec![(name.into(), wanted.clone())], ..Match::default() };
            assert_eq!(super::fits(&one, &query), fits, "{name} {wanted:?}");
        }
        for (name, wanted, fits) in [
            ("preview", ValueMatch::Present, true),
            ("preview", exact(""), true),
            ("a", exact("x y"), true),
            ("a", exact("z"), false),
            ("b", ValueMatch::Absent, true),
        ] {
            let one = Match { queries: vec![(name.into(), wanted.clone())], ..Match::default() };
            assert_eq!(super::fits(&one, &query), fits, "{name} {wanted:?}");
            assert_eq!(super::fits(&one, &none), wanted == ValueMatch::Absent, "{name} {wanted:?}, no query");
        }
    }

    #[test]
    fn clients_by_network() {
        let headers = HeaderMap::new();
        let one = Match { client_ip: ["10.0.0.0/8", "::1/128"].map(|n| n.parse().unwrap()).into(), ..Match::default() };
        for (client, fits) in [
            (Some("10.1.2.3"), true),
            (Some("::ffff:10.1.2.3"), true),
            (Some("::1"), true),
            (Some("11.0.0.1"), false),
            (Some("::2"), false),
            // A Unix socket's client has no address.
            (None, false),
        ] {
            let query = Query { client: client.map(|c| c.parse().unwrap()), ..query(&headers) };
            assert_eq!(super::fits(&one, &query), fits, "{client:?}");
        }
    }

    #[test]
    fn a_whole_match_tests_host_path_and_method_too() {
        let headers = headers(&[("x-a", "1")]);
        let whole = Match {
            host: Some(HostMatch::Exact("shop.test".into())),
            path: Some(PathMatch::Prefix("/cart".into())),
            methods: vec!["GET".into()],
            headers: vec![(HeaderName::from_static("x-a"), exact("1"))],
            ..Match::default()
        };
        let query = query(&headers);
        assert!(fits(&whole, &query) && fits(&Match::default(), &query));
        let suffix = |s: &str| Match { host: Some(HostMatch::Suffix(s.into())), ..Match::default() };
        assert!(fits(&suffix(".test"), &query) && !fits(&suffix(".shop.test"), &query));
        for other in [
            Query { host: "a.test", ..query },
            Query { path: "/cartoon", ..query },
            Query { method: "POST", ..query },
            Query { headers: &HeaderMap::new(), ..query },
        ] {
            assert!(!fits(&whole, &other), "{other:?}");
        }
        for (path, wanted, fits) in [
            ("/cart", PathMatch::Prefix("/cart".into()), true),
            ("/cart/", PathMatch::Prefix("/cart".into()), true),
            ("/x", PathMatch::Prefix(String::new()), true),
            ("/cart/7", PathMatch::Exact("/cart".into()), false),
            ("/v1/cart", PathMatch::Regex(Pattern(Regex::new("^/v[12]/").unwrap())), true),
        ] {
            let one = Match { path: Some(wanted), ..Match::default() };
            assert_eq!(super::fits(&one, &Query { path, ..query }), fits, "{path}");
        }
    }
}
