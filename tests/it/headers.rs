//! Header duties: hop-by-hop out both ways, `Via`, forwarding fields set and never believed, request ids.

use crate::support::{After, Conf, Head, Origin, Weir};

/// What the origin sees of a request with these fields.
fn seen_with(fields: &str) -> Head {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address));
    let answer = weir.connect().ask(format!("GET / HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n")).unwrap();
    assert_eq!(answer.status(), 200);
    origin.only_head()
}

#[test]
fn hop_by_hop_fields_of_requests_are_removed() {
    let head = seen_with(
        "Connection: keep-alive, X-Listed\r\nX-Listed: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         TE: trailers, gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nProxy-Authorization: Basic eDp5\r\nX-Kept: 1\r\n",
    );
    for gone in ["x-listed", "keep-alive", "proxy-connection", "upgrade", "http2-settings"] {
        assert!(!head.has(gone), "{gone} in {}", head.raw);
    }
    assert!(head.all("te").iter().all(|v| *v == "trailers"), "{}", head.raw);
    assert!(!head.all("connection").iter().any(|v| v.to_lowercase().contains("x-listed")), "{}", head.raw);
    assert_eq!(head.get("x-kept"), Some("1"));
}

#[test]
fn hop_by_hop_fields_of_answers_are_removed() {
    let origin = Origin::scripted(|exchange| {
        let fields =
            "Connection: X-Listed\r\nX-Listed: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nX-Kept: 1\r\n";
        exchange.answer("200 OK", fields, b"ok")
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    let head = client.get("/").unwrap().head;
    for gone in ["x-listed", "keep-alive", "proxy-connection"] {
        assert!(!head.has(gone), "{gone} in {}", head.raw);
    }
    assert_eq!(head.get("x-kept"), Some("1"));
    assert!(!head.closes());
}

#[test]
fn connection_cannot_remove_what_we_set_or_need() {
    let head = seen_with("Connection: X-Forwarded-For, Host, X-Forwarded-Proto, Via, X-Request-Id\r\n");
    assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.get("x-forwarded-proto"), Some("http"));
    assert_eq!(head.get("host"), Some("app.test"));
    assert!(head.has("via") && head.has("x-request-id"), "{}", head.raw);
}

#[test]
fn forwarding_fields_are_set() {
    let head = seen_with("");
    assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.get("x-forwarded-proto"), Some("http"));
    assert_eq!(head.get("x-forwarded-host"), Some("app.test"));
    assert!(head.get("via").unwrap().contains("1.1 "), "{}", head.raw);
}

#[test]
fn forged_forwarding_fields_are_not_believed() {
    let head = seen_with(
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\n\
         X-Forwarded-Port: 443\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n",
    );
    assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(head.all("x-forwarded-host"), ["app.test"]);
    assert!(!head.raw.contains("6.6.6.6") && !head.raw.contains("evil"), "{}", head.raw);
    assert!(!head.has("forwarded") && !head.has("x-forwarded-port"), "{}", head.raw);
}

#[test]
fn via_is_appended() {
    let head = seen_with("Via: 1.0 first\r\n");
    let via = head.all("via").join(", ");
    assert!(via.starts_with("1.0 first, 1.1 "), "{via}");
}

#[test]
fn request_ids_are_made_and_differ() {
    let ids: Vec<String> = [seen_with(""), seen_with("")].map(|h| h.get("x-request-id").unwrap().to_owned()).to_vec();
    assert!(ids[0].len() >= 16 && ids[0] != ids[1], "{ids:?}");
}

#[test]
fn short_plain_request_ids_are_kept_and_others_are_not() {
    assert_eq!(seen_with("X-Request-Id: abc-123\r\n").get("x-request-id"), Some("abc-123"));
    let long = "x".repeat(1000);
    assert_ne!(seen_with(&format!("X-Request-Id: {long}\r\n")).get("x-request-id"), Some(long.as_str()));
    let odd = seen_with("X-Request-Id: a b\"<script>\r\n");
    assert!(!odd.get("x-request-id").unwrap().contains('<'));
}

#[test]
fn repeated_fields_keep_their_values_and_order() {
    let origin = Origin::scripted(|exchange| {
        exchange.wire.send("HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n")?;
        Ok(After::Keep)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let request = "GET / HTTP/1.1\r\nHost: app.test\r\nX-Many: 1\r\nX-Many: 2\r\nCookie: s=t\r\n\r\n";
    let answer = weir.connect().ask(request).unwrap();
    assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2"]);
    let seen = origin.only_head();
    assert_eq!((seen.all("x-many"), seen.all("cookie")), (vec!["1", "2"], vec!["s=t"]));
}

#[test]
fn the_version_is_shown_only_when_asked_for() {
    let origin = Origin::named("v1");
    let conf = Conf::one(origin.address);
    let weir = Weir::start(&conf);
    assert!(!weir.connect().get("/").unwrap().head.has("weir-version"));
    let weir = Weir::start(&conf.split("expose_version = true"));
    assert_eq!(weir.connect().get("/").unwrap().head.get("weir-version"), Some("v1"));
}
