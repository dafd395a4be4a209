//! The one host of a request: missing, double, or written so that two readers see two.

use super::oracle::Expect;
use super::{Case, case, hold, raw};
use Expect::{Either, Passes, Refused};

const BAD: &[u16] = &[400];

fn host(name: &'static str, host: &str, expect: Expect) -> Case {
    case(name, raw(&format!("GET /case HTTP/1.1\r\nHost: {host}")), expect)
}

#[test]
fn how_many() {
    let fields = |name, fields: &str, expect| case(name, raw(&format!("GET /case HTTP/1.1{fields}")), expect);
    hold(vec![
        fields("none", "", Refused(BAD)),
        fields("none, but a twin", "\r\nH_ost: app.test", Refused(BAD)),
        fields("the same twice", "\r\nHost: app.test\r\nHost: app.test", Refused(BAD)),
        fields("two", "\r\nHost: app.test\r\nHost: evil.test", Refused(BAD)),
        fields("two, other order", "\r\nHost: evil.test\r\nHost: app.test", Refused(BAD)),
        fields("two, other case", "\r\nhost: app.test\r\nHOST: evil.test", Refused(BAD)),
        fields("second is empty", "\r\nHost: app.test\r\nHost:", Refused(BAD)),
        fields("second behind a blank", "\r\nHost: app.test\r\n Host: evil.test", Refused(BAD)),
        fields("blank before the colon", "\r\nHost : app.test", Refused(BAD)),
        fields("second with a blank before the colon", "\r\nHost: app.test\r\nHost : evil.test", Refused(BAD)),
        fields("X-Forwarded-Host", "\r\nHost: app.test\r\nX-Forwarded-Host: evil.test", Passes("/case", "")),
        fields("Forwarded", "\r\nHost: app.test\r\nForwarded: host=evil.test", Passes("/case", "")),
        case("HTTP/1.0 without", raw("GET /case HTTP/1.0"), Either(BAD, "/case", "")),
    ]);
}

#[test]
fn how_written() {
    hold(vec![
        host("plain", "app.test", Passes("/case", "")),
        host("upper case", "APP.Test", Passes("/case", "")),
        host("final dot", "app.test.", Passes("/case", "")),
        host("port", "app.test:8080", Passes("/case", "")),
        host("empty port", "app.test:", Either(BAD, "/case", "")),
        host("tabs around", "\tapp.test\t", Passes("/case", "")),
        host("address", "127.0.0.1", Passes("/case", "")),
        host("IPv6 with port", "[::1]:8080", Passes("/case", "")),
        host("empty", "", Either(BAD, "/case", "")),
        host("list", "app.test, evil.test", Refused(BAD)),
        host("two words", "app.test evil.test", Refused(BAD)),
        host("user information", "evil@app.test", Refused(BAD)),
        host("user and password", "evil:x@app.test", Refused(BAD)),
        host("two ports", "app.test:80:80", Refused(BAD)),
        host("port with a sign", "app.test:+80", Refused(BAD)),
        host("negative port", "app.test:-1", Refused(BAD)),
        host("port too large", "app.test:65536", Either(BAD, "/case", "")),
        host("port of six digits", "app.test:000080", Refused(BAD)),
        host("hexadecimal port", "app.test:0x50", Refused(BAD)),
        host("a word as port", "app.test:evil", Refused(BAD)),
        host("port and host", "app.test:80evil.test", Refused(BAD)),
        host("path", "app.test/evil", Refused(BAD)),
        host("query", "app.test?evil", Refused(BAD)),
        host("fragment", "app.test#evil", Refused(BAD)),
        host("backslash", "app.test\\evil", Refused(BAD)),
        host("URI", "http://app.test", Refused(BAD)),
        host("escape", "app%2Etest", Refused(BAD)),
        host("NUL", "app.test\0", Refused(BAD)),
        host("NUL and more", "app.test\0.evil.test", Refused(BAD)),
        host("letter beyond ASCII", "\u{e9}.test", Refused(BAD)),
        host("fullwidth dot", "app\u{ff0e}test", Refused(BAD)),
        host("quoted", "\"app.test\"", Refused(BAD)),
        host("open bracket", "[::1", Refused(BAD)),
        host("bracket and more", "[::1]evil", Refused(BAD)),
        host("empty brackets", "[]", Refused(BAD)),
        host("no address in brackets", "[evil]", Refused(BAD)),
        host("only a port", ":80", Refused(BAD)),
        host("only a dot", ".", Either(BAD, "/case", "")),
        host("two dots", "app..test", Either(BAD, "/case", "")),
        host("semicolon", "app.test;evil", Refused(BAD)),
        host("angle brackets", "<app.test>", Refused(BAD)),
    ]);
}
