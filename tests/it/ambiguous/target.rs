//! Targets: paths that mean another place, bytes that end them early, forms that name another host.

use super::oracle::Expect;
use super::{Case, case, hold, raw};
use Expect::{Either, Passes, Refused};

const BAD: &[u16] = &[400];
const LONG: &[u16] = &[400, 414, 431];

fn target(name: &'static str, target: &str, expect: Expect) -> Case {
    case(name, raw(&format!("GET {target} HTTP/1.1\r\nHost: app.test")), expect)
}

#[test]
fn bytes() {
    let long = format!("/{}", "x".repeat(200_000));
    hold(vec![
        target("fragment", "/case#evil", Either(BAD, "/case", "")),
        target("fragment in the query", "/case?a#evil", Either(BAD, "/case?a", "")),
        target("only a fragment", "#evil", Refused(BAD)),
        target("NUL", "/case\0", Refused(BAD)),
        target("control byte", "/ca\u{1}se", Refused(BAD)),
        target("DEL", "/ca\u{7f}se", Refused(BAD)),
        target("tab", "/ca\tse", Refused(BAD)),
        target("blank", "/ca se", Refused(BAD)),
        target("letter beyond ASCII", "/cas\u{e9}", Refused(BAD)),
        target("no-break space", "/case\u{a0}", Refused(BAD)),
        target("backslash", "/ca\\se", Refused(BAD)),
        target("backslash first", "\\case", Refused(BAD)),
        target("escaped backslash", "/a%5c..%5Ccase", Refused(BAD)),
        target("escaped NUL", "/case%00.html", Refused(BAD)),
        target("cut escape", "/case%2", Refused(BAD)),
        target("no escape", "/case%zz", Refused(BAD)),
        target("double percent", "/case%%41", Refused(BAD)),
        target("backslash in the query", "/case?a\\b", Either(BAD, "/case?a\\b", "")),
        target("NUL in the query", "/case?a\0b", Refused(BAD)),
        target("letter beyond ASCII in the query", "/case?\u{e9}", Refused(BAD)),
        target("200 KB", &long, Refused(LONG)),
    ]);
}

#[test]
fn paths() {
    hold(vec![
        target("dot segments", "/a/../case", Passes("/case", "")),
        target("escaped dots", "/a/%2e%2e/case", Passes("/case", "")),
        target("escaped dots, mixed case", "/a/%2E%2e/case", Passes("/case", "")),
        target("one dot escaped", "/a/.%2e/case", Passes("/case", "")),
        target("single dots", "/./%2e/case", Passes("/case", "")),
        target("above the root", "/../../case", Passes("/case", "")),
        target("dots at the end", "/case/x/..", Passes("/case/", "")),
        target("dots before the query", "/x/../case?a=/../b", Passes("/case?a=/../b", "")),
        target("escaped letter", "/%63ase", Passes("/case", "")),
        target("escaped twice", "/a/%252e%252e/case", Either(BAD, "/a/%252e%252e/case", "")),
        target("escaped slashes", "/a%2f..%2fcase", Either(BAD, "/a%2f..%2fcase", "")),
        target("escaped slash", "/a%2Fcase", Either(BAD, "/a%2Fcase", "")),
        target("dots with a parameter", "/a/..;/case", Either(BAD, "/a/..;/case", "")),
        target("semicolon", "/case;x=y", Passes("/case;x=y", "")),
        target("double slash", "/a//case", Passes("/a//case", "")),
        target("double slash first", "//evil-not-a-host/../case", Either(BAD, "//case", "")),
        target("double slash and dots", "/a//../case", Either(BAD, "/a/case", "")),
        target("dots behind a point", "/..a/...", Passes("/..a/...", "")),
        target("question mark twice", "/case?a?b", Passes("/case?a?b", "")),
        target("escaped question mark", "/case%3Fa", Passes("/case%3Fa", "")),
        target("escaped fragment sign", "/case%23a", Passes("/case%23a", "")),
        target("escaped CRLF", "/case%0d%0aX:%20y", Either(BAD, "/case%0d%0aX:%20y", "")),
    ]);
}

#[test]
fn forms() {
    let absolute =
        |name, uri: &str, host: &str, expect| case(name, raw(&format!("GET {uri} HTTP/1.1\r\nHost: {host}")), expect);
    hold(vec![
        target("no slash", "case", Refused(BAD)),
        target("only a query", "?case", Refused(BAD)),
        target("a star", "*", Refused(BAD)),
        case("OPTIONS star", raw("OPTIONS * HTTP/1.1\r\nHost: app.test"), Either(BAD, "*", "")),
        case("OPTIONS star and more", raw("OPTIONS *x HTTP/1.1\r\nHost: app.test"), Refused(BAD)),
        target("authority form", "app.test:80", Refused(BAD)),
        absolute("same host", "http://app.test/case", "app.test", Either(BAD, "/case", "")),
        absolute("another Host", "http://app.test/case", "evil.test", Either(BAD, "/case", "")),
        absolute("no path", "http://app.test", "app.test", Either(BAD, "/", "")),
        absolute("no path, but a query", "http://app.test?x", "app.test", Either(BAD, "/?x", "")),
        absolute("no path, but a fragment", "http://app.test#a/../b?x", "app.test", Either(BAD, "/", "")),
        absolute("dots", "http://app.test/a/../case", "app.test", Either(BAD, "/case", "")),
        absolute("user information", "http://evil@app.test/case", "app.test", Refused(BAD)),
        absolute("user information and password", "http://evil:x@app.test/case", "app.test", Refused(BAD)),
        absolute("at sign behind", "http://app.test@evil.test/case", "app.test", Refused(BAD)),
        absolute("backslash", "http://app.test\\@evil.test/case", "app.test", Refused(BAD)),
        absolute("fragment", "http://app.test/case#evil", "app.test", Either(BAD, "/case", "")),
        absolute("empty host", "http:///case", "app.test", Refused(BAD)),
        absolute("only a port", "http://:80/case", "app.test", Refused(BAD)),
        absolute("port", "http://app.test:8080/case", "app.test", Either(BAD, "/case", "")),
        absolute("no number", "http://app.test:x/case", "app.test", Refused(BAD)),
        absolute("port too large", "http://app.test:99999/case", "app.test", Either(BAD, "/case", "")),
        absolute("two ports", "http://app.test:80:80/case", "app.test", Refused(BAD)),
        absolute("upper case scheme", "HTTP://app.test/case", "app.test", Either(BAD, "/case", "")),
        absolute("https", "https://app.test/case", "app.test", Either(&[400, 421], "/case", "")),
        absolute("another scheme", "ftp://app.test/case", "app.test", Either(&[400, 421], "/case", "")),
        absolute("one slash", "http:/case", "app.test", Refused(BAD)),
        absolute("no slash after the scheme", "http:case", "app.test", Refused(BAD)),
        absolute("script", "javascript:alert(1)", "app.test", Refused(BAD)),
        absolute("bad Host beside it", "http://app.test/case", "a b", Either(BAD, "/case", "")),
        case("two Hosts beside it", raw("GET http://app.test/case HTTP/1.1\r\nHost: app.test\r\nHost: app.test"), {
            Refused(BAD)
        }),
        case("no Host beside it", raw("GET http://app.test/case HTTP/1.1"), Either(BAD, "/case", "")),
        case("HTTP/1.0", raw("GET http://app.test/case HTTP/1.0\r\nHost: evil.test"), Either(BAD, "/case", "")),
    ]);
}
