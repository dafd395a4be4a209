//! Routes in full: what matches first, what is answered without a version, what is changed on the way, how much is let in.

use crate::support::{Answer, Conf, Connection, Origin, Weir, wait_until};

fn ask(client: &mut Connection, method: &str, host: &str, target: &str, fields: &str) -> Answer {
    client.ask(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).unwrap()
}

fn get(client: &mut Connection, target: &str) -> Answer {
    ask(client, "GET", "app.test", target, "")
}

/// A route that answers with its own name.
fn says(name: &str, matches: &str) -> String {
    format!("[[routes]]\nname = \"{name}\"\nmatch = {matches}\nrespond = {{ code = 200, body = \"{name}\" }}\n")
}

/// Its routes, and the split `shop` with one origin.
fn start(routes: &str) -> (Weir, Origin) {
    let origin = Origin::named("v1");
    let conf = Conf::one(origin.address).routes(routes).web("trusted_proxies = [\"127.0.0.1\"]");
    (Weir::start(&conf), origin)
}

#[test]
fn the_most_specific_match_wins_whatever_the_order() {
    let routes = [
        says("any", "{ path_prefix = \"/\" }"),
        says("wild", "{ host = \"*.example.com\" }"),
        says("deep-wild", "{ host = \"*.shop.example.com\" }"),
        says("exact-host", "{ host = \"a.shop.example.com\" }"),
        says("prefix", "{ path_prefix = \"/a\" }"),
        says("long-prefix", "{ path_prefix = \"/a/b\" }"),
        says("exact-path", "{ path = \"/a/b/c\" }"),
        says("regex", "{ path_regex = \"^/v[12]/cart$\" }"),
        says("method", "{ path_prefix = \"/a\", method = [\"PUT\", \"POST\"] }"),
        says("headers", "{ path_prefix = \"/h\", header = { x-a = \"1\", x-b = \"1\" } }"),
        says("header", "{ path_prefix = \"/h\", header = { x-a = \"1\" } }"),
        says("query", "{ path_prefix = \"/h\", query = { q = { regex = \"[0-9]+\" } } }"),
        says("either", "[{ path = \"/one\" }, { path = \"/two\", method = \"GET\" }]"),
        says("net", "{ path_prefix = \"/net\", client_ip = [\"192.0.2.0/24\", \"2001:db8::/32\"] }"),
    ];
    let (weir, _origin) = start(&routes.concat());
    let mut client = weir.connect();
    for (method, host, target, fields, wanted) in [
        ("GET", "x.test", "/", "", "any"),
        ("GET", "b.example.com", "/a/b/c", "", "wild"),
        ("GET", "B.Example.COM:8080", "/", "", "wild"),
        ("GET", "b.shop.example.com", "/", "", "deep-wild"),
        ("GET", "a.shop.example.com.", "/", "", "exact-host"),
        ("GET", "example.com", "/", "", "any"),
        ("GET", "x.test", "/a", "", "prefix"),
        ("GET", "x.test", "/a/x", "", "prefix"),
        ("GET", "x.test", "/ab", "", "any"),
        ("GET", "x.test", "/a/b", "", "long-prefix"),
        ("GET", "x.test", "/a/bc", "", "prefix"),
        ("GET", "x.test", "/a/b/c", "", "exact-path"),
        ("GET", "x.test", "/a/./x/../b/c?q=1", "", "exact-path"),
        ("GET", "x.test", "/a/b/c/", "", "long-prefix"),
        ("GET", "x.test", "/v2/cart", "", "regex"),
        ("GET", "x.test", "/v3/cart", "", "any"),
        ("POST", "x.test", "/a", "Content-Length: 0\r\n", "method"),
        ("POST", "x.test", "/a/b", "Content-Length: 0\r\n", "long-prefix"),
        ("GET", "x.test", "/h", "X-A: 1\r\nX-B: 1\r\n", "headers"),
        ("GET", "x.test", "/h", "X-A: 1\r\n", "header"),
        ("GET", "x.test", "/h?q=12", "", "query"),
        ("GET", "x.test", "/h?q=x", "", "any"),
        ("GET", "x.test", "/one", "", "either"),
        ("GET", "x.test", "/two", "", "either"),
        ("PUT", "x.test", "/two", "Content-Length: 0\r\n", "any"),
        ("GET", "x.test", "/net", "X-Forwarded-For: 192.0.2.9\r\n", "net"),
        ("GET", "x.test", "/net", "X-Forwarded-For: 2001:db8::9\r\n", "net"),
        ("GET", "x.test", "/net", "X-Forwarded-For: 192.0.3.9\r\n", "any"),
    ] {
        let answer = ask(&mut client, method, host, target, fields);
        assert_eq!(answer.text(), wanted, "{method} {host} {target} {fields}");
    }
}

#[test]
fn redirects_keep_path_and_query() {
    let route = |path: &str, to: &str, code: u16| {
        format!("[[routes]]\nmatch = {{ path_prefix = \"{path}\" }}\nredirect = {{ to = \"{to}\", code = {code} }}\n")
    };
    let routes = [
        route("/a", "https://shop.example.com{path}", 308),
        route("/b", "https://shop.example.com/new", 301),
        route("/c", "/here?x=1", 302),
        route("/d", "/moved{path}", 307),
    ];
    let (weir, origin) = start(&routes.concat());
    let mut client = weir.connect();
    for (target, code, to) in [
        ("/a/x%20y?q=1&r=%2F", 308, "https://shop.example.com/a/x%20y?q=1&r=%2F"),
        ("/a/../a/b", 308, "https://shop.example.com/a/b"),
        ("/b?q=1", 301, "https://shop.example.com/new?q=1"),
        ("/c?q=1", 302, "/here?x=1"),
        ("/d/e?f", 307, "/moved/d/e?f"),
    ] {
        let answer = get(&mut client, target);
        assert_eq!((answer.status(), answer.head.get("location")), (code, Some(to)), "{target}");
        assert!(!answer.head.has("weir-error") && answer.head.has("date"));
    }
    let post = client.ask("POST /d HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    assert_eq!(post.status(), 307);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_fixed_answer_is_complete_to_every_method() {
    let routes = "[[routes]]\nname = \"robots\"\nmatch = { path = \"/robots.txt\" }\n\
                  respond = { code = 200, body = \"User-agent: *\\n\" }\n\
                  [[routes]]\nmatch = { path = \"/gone\" }\nrespond = { code = 410 }\n";
    let (weir, origin) = start(routes);
    let mut client = weir.connect();
    let answer = get(&mut client, "/robots.txt");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "User-agent: *"));
    let head = ask(&mut client, "HEAD", "app.test", "/robots.txt", "");
    assert_eq!((head.status(), head.head.content_length()), (200, Some(14)));
    let post = client.ask("POST /gone HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    assert_eq!((post.status(), post.head.content_length()), (410, Some(0)));
    // The upload was read or the connection is over: what follows is never taken for part of it.
    assert!(post.head.closes() || get(&mut client, "/robots.txt").status() == 200);
    assert_eq!(get(&mut weir.connect(), "/nothing").head.get("weir-error"), Some("no-route"));
    assert_eq!(origin.requests(), 0);
    let line = weir.line_of("/gone");
    assert_eq!((&line["status"], &line["route"]), (&410.into(), &"route-2".into()));
    assert!(line.get("split").is_none() && line.get("picked").is_none(), "{line}");
}

#[test]
fn prefixes_are_cut_off_by_segment() {
    let routes = "[[routes]]\nmatch = { path_prefix = \"/api\" }\nsplit = \"shop\"\nstrip_prefix = true\n";
    let (weir, origin) = start(routes);
    let mut client = weir.connect();
    for target in ["/api", "/api/", "/api/x?y=1", "/api?y=1", "/api//x", "/api/a%2Fb", "/x/../api/z"] {
        assert_eq!(get(&mut client, target).status(), 200, "{target}");
    }
    assert_eq!(get(&mut client, "/apix").status(), 404);
    let seen: Vec<String> = origin.heads().iter().map(|h| h.target().to_owned()).collect();
    assert_eq!(seen, ["/", "/", "/x?y=1", "/?y=1", "//x", "/a%2Fb", "/z"]);
}

#[test]
fn headers_are_changed_both_ways() {
    let routes = "[[routes]]\nsplit = \"shop\"\n\
                  request_headers = { set = { x-env = \"prod\", host = \"inner.test\" }, remove = [\"x-debug\"] }\n\
                  response_headers = { set = { x-frame-options = \"DENY\" }, remove = [\"server\"] }\n";
    let origin = Origin::scripted(|exchange| {
        exchange.answer("200 OK", "Server: secret\r\nX-Frame-Options: ALLOW\r\nX-Kept: 1\r\n", b"v1")
    });
    let weir = Weir::start(&Conf::one(origin.address).routes(routes));
    let answer =
        ask(&mut weir.connect(), "GET", "app.test", "/", "X-Env: a\r\nX-Env: b\r\nX-Debug: 1\r\nX-Other: 1\r\n");
    let head = origin.only_head();
    assert_eq!((head.all("x-env"), head.has("x-debug"), head.get("x-other")), (vec!["prod"], false, Some("1")));
    assert_eq!(answer.head.all("x-frame-options"), ["DENY"]);
    assert_eq!((answer.head.has("server"), answer.head.get("x-kept")), (false, Some("1")));
    assert_eq!((head.all("host"), head.get("x-forwarded-host")), (vec!["inner.test"], Some("app.test")));
}

/// Tokens come back slowly enough that none does in a test.
fn limited(per: &str) -> String {
    format!(
        "[[routes]]\nname = \"limited\"\nsplit = \"shop\"\n\
         rate_limit = {{ per = \"{per}\", requests = 1, every = \"1h\", burst = 3 }}\n"
    )
}

#[track_caller]
fn assert_limited(answer: &Answer) {
    assert_eq!((answer.status(), answer.head.get("weir-error")), (429, Some("rate-limited")), "{}", answer.head.raw);
    let after: u64 = answer.head.get("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&after), "{after}");
}

#[test]
fn a_route_lets_in_so_many_and_says_when_to_come_back() {
    let (weir, origin) = start(&limited("route"));
    let mut client = weir.connect();
    for _ in 0..3 {
        assert_eq!(get(&mut client, "/").status(), 200);
    }
    for _ in 0..4 {
        assert_limited(&get(&mut client, "/"));
    }
    assert_limited(&get(&mut weir.connect(), "/"));
    assert_eq!(origin.requests(), 3);
    let refused = [("listener", "web"), ("reason", "rate-limited")];
    wait_until("they are counted", || weir.admin.count("weir_refused_requests_total", &refused) == 5.0);
    assert_eq!(weir.admin.count("weir_requests_total", &[]), 3.0, "no version is to blame");
    // Tokens are not given out again by a reload.
    let conf = Conf::one(origin.address).routes(&limited("route")).web("trusted_proxies = [\"127.0.0.1\"]");
    weir.edit(&conf.clone().split("expose_version = true"));
    let is_in_force = || weir.admin.get("/api/v1/config").text().contains("expose_version = true");
    wait_until("the new file is in force", is_in_force);
    assert_limited(&get(&mut client, "/"));
    // A new limit starts anew.
    weir.edit(&Conf::one(origin.address).routes(&limited("route").replace("burst = 3", "burst = 4")));
    wait_until("the new limit is in force", || get(&mut weir.connect(), "/").status() == 200);
}

#[test]
fn each_client_and_each_value_has_its_own() {
    let (weir, _origin) = start(&limited("client_ip"));
    let mut client = weir.connect();
    let mut from = |ip: &str| ask(&mut client, "GET", "app.test", "/", &format!("X-Forwarded-For: {ip}\r\n")).status();
    for ip in ["192.0.2.1", "192.0.2.2", "2001:db8:1::1", "2001:db8:2::1"] {
        assert_eq!([from(ip), from(ip), from(ip), from(ip)], [200, 200, 200, 429], "{ip}");
    }
    assert_eq!(from("203.0.113.1, 192.0.2.1"), 429, "the nearest that is not trusted counts, not what it claims");
    let (weir, _origin) = start(&limited("header:x-key"));
    let mut client = weir.connect();
    let mut with = |key: &str| ask(&mut client, "GET", "app.test", "/", key).status();
    for key in ["X-Key: a\r\n", "X-Key: b\r\n", ""] {
        assert_eq!([with(key), with(key), with(key), with(key)], [200, 200, 200, 429], "{key}");
    }
}

/// Clients nobody vouches for cannot take another's bucket, nor as many as they like.
#[test]
fn a_forged_address_changes_no_bucket() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address).routes(&limited("client_ip")));
    let mut client = weir.connect();
    let mut from =
        |n: u8| ask(&mut client, "GET", "app.test", "/", &format!("X-Forwarded-For: 192.0.2.{n}\r\n")).status();
    assert_eq!([from(1), from(2), from(3), from(4)], [200, 200, 200, 429]);
}

#[test]
fn everything_is_sent_to_https() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address).web("redirect_https = 8443"));
    let mut client = weir.connect();
    for (host, target, to) in [
        ("app.test", "/a?b=c", "https://app.test:8443/a?b=c"),
        ("APP.test:8080", "/", "https://app.test:8443/"),
        ("[::1]:8080", "/x/../y", "https://[::1]:8443/y"),
    ] {
        let answer = ask(&mut client, "GET", host, target, "");
        assert_eq!((answer.status(), answer.head.get("location")), (308, Some(to)));
    }
    let weir = Weir::start(&Conf::one(origin.address).web("redirect_https = 443"));
    let answer = get(&mut weir.connect(), "/");
    assert_eq!(answer.head.get("location"), Some("https://app.test/"), "the usual port is not said");
    assert_eq!(origin.requests(), 0);
}
