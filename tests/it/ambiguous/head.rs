//! Request lines and field lines that are not quite: line ends, blanks, control bytes, versions, methods.

use super::oracle::Expect;
use super::{case, get, hold, post, raw};
use Expect::{Either, Passes, Refused};

const BAD: &[u16] = &[400];
const METHOD: &[u16] = &[400, 405, 501];
const VERSION: &[u16] = &[400, 505];

#[test]
fn line_ends() {
    hold(vec![
        case("all LF", b"GET /case HTTP/1.1\nHost: app.test\n\n".to_vec(), Either(BAD, "/case", "")),
        case("LF after the request line", raw("GET /case HTTP/1.1\nHost: app.test"), Either(BAD, "/case", "")),
        case("LF after a field", get("X: y\nZ: z\r\n"), Either(BAD, "/case", "")),
        case("LF as the empty line", b"GET /case HTTP/1.1\r\nHost: app.test\r\n\n".to_vec(), Either(BAD, "/case", "")),
        case("LF hides a Host", get("X: y\nHost: evil.test\r\n"), Refused(BAD)),
        case("CR after a field", get("X: y\rZ: z\r\n"), Refused(BAD)),
        case("CR CR LF", get("X: y\r\r\n"), Refused(BAD)),
        case("CR in the request line", raw("GET /case\rx HTTP/1.1\r\nHost: app.test"), Refused(BAD)),
        case("all CR, then a sound one", b"GET /smuggled HTTP/1.1\rHost: app.test\r\r".to_vec(), Refused(BAD)),
        case("empty line first", raw("\r\nGET /case HTTP/1.1\r\nHost: app.test"), Either(BAD, "/case", "")),
        case("blank line as the end", b"GET /case HTTP/1.1\r\nHost: app.test\r\n \r\n\r\n".to_vec(), Refused(BAD)),
    ]);
}

#[test]
fn fields() {
    hold(vec![
        case("folded", get("X: a\r\n b\r\n"), Refused(BAD)),
        case("folded with a tab", get("X: a\r\n\tb\r\n"), Refused(BAD)),
        case("first field is folded", raw("GET /case HTTP/1.1\r\n Host: evil.test\r\nHost: app.test"), Refused(BAD)),
        case("folded Host", raw("GET /case HTTP/1.1\r\nHost: app.test\r\n .evil.test"), Refused(BAD)),
        case("blank before the colon", get("X : y\r\n"), Refused(BAD)),
        case("tab before the colon", get("X\t: y\r\n"), Refused(BAD)),
        case("no name", get(": y\r\n"), Refused(BAD)),
        case("no name, hides what follows", get(":\r\nX-Forwarded-For: 6.6.6.6\r\n"), Refused(BAD)),
        case("no colon", get("nonsense\r\n"), Refused(BAD)),
        case("NUL in a value", get("X: a\0b\r\n"), Refused(BAD)),
        case("NUL in a name", get("X\0Y: b\r\n"), Refused(BAD)),
        case("control byte in a value", get("X: a\u{1}b\r\n"), Refused(BAD)),
        case("DEL in a value", get("X: a\u{7f}b\r\n"), Refused(BAD)),
        case("escape in a value", get("X: a\u{1b}[1mb\r\n"), Refused(BAD)),
        case("vertical tab in a name", get("X\u{b}: b\r\n"), Refused(BAD)),
        case("blank in a name", get("X Y: b\r\n"), Refused(BAD)),
        case("bracket in a name", get("X(Y): b\r\n"), Refused(BAD)),
        case("slash in a name", get("X/Y: b\r\n"), Refused(BAD)),
        case("at sign in a name", get("X@Y: b\r\n"), Refused(BAD)),
        case("quote in a name", get("\"X\": b\r\n"), Refused(BAD)),
        case("letter beyond ASCII in a name", get("X\u{e9}: b\r\n"), Refused(BAD)),
        case("letter beyond ASCII in a value", get("X: \u{e9}\r\n"), Either(BAD, "/case", "")),
        case("byte 0xff in a value", [&b"GET /case HTTP/1.1\r\nHost: app.test\r\nX: \xff\r\n\r\n"[..]].concat(), {
            Either(BAD, "/case", "")
        }),
        case("tabs around a value", get("X:\t y \t\r\n"), Passes("/case", "")),
        case("empty value", get("X:\r\n"), Passes("/case", "")),
        case("two hundred fields", get(&"X: y\r\n".repeat(200)), Either(&[400, 431], "/case", "")),
        case("twenty thousand fields", get(&"X: y\r\n".repeat(20_000)), Refused(&[431])),
        case("one of 200 KB", get(&format!("X: {}\r\n", "y".repeat(200_000))), Refused(&[431])),
        case("a name of 200 KB", get(&format!("{}: y\r\n", "x".repeat(200_000))), Refused(&[400, 431])),
    ]);
}

#[test]
fn request_lines() {
    let line = |text: &str| raw(&format!("{text}\r\nHost: app.test"));
    hold(vec![
        case("two blanks before the target", line("GET  /case HTTP/1.1"), Refused(BAD)),
        case("two blanks before the version", line("GET /case  HTTP/1.1"), Refused(BAD)),
        case("tabs", line("GET\t/case\tHTTP/1.1"), Refused(BAD)),
        case("blank in front", line(" GET /case HTTP/1.1"), Refused(BAD)),
        case("blank behind", line("GET /case HTTP/1.1 "), Refused(VERSION)),
        case("two targets", line("GET /case /smuggled HTTP/1.1"), Refused(BAD)),
        case("version twice", line("GET /case HTTP/1.1 HTTP/1.1"), Refused(VERSION)),
        case("no version", line("GET /case"), Refused(VERSION)),
        case("HTTP/0.9", b"GET /case\r\n".to_vec(), Refused(VERSION)),
        case("HTTP/0.9 with a version", line("GET /case HTTP/0.9"), Refused(VERSION)),
        case("HTTP/1.2", line("GET /case HTTP/1.2"), Either(VERSION, "/case", "")),
        case("HTTP/1.10", line("GET /case HTTP/1.10"), Refused(VERSION)),
        case("HTTP/01.1", line("GET /case HTTP/01.1"), Refused(VERSION)),
        case("HTTP/1,1", line("GET /case HTTP/1,1"), Refused(VERSION)),
        case("HTTP/1", line("GET /case HTTP/1"), Refused(VERSION)),
        case("lower case", line("GET /case http/1.1"), Refused(VERSION)),
        case("letters behind", line("GET /case HTTP/1.1x"), Refused(VERSION)),
        case("ICAP", line("GET /case ICAP/1.1"), Refused(VERSION)),
        case("HTTP/2.0", line("GET /case HTTP/2.0"), Refused(&[505])),
        case("HTTP/3.0", line("GET /case HTTP/3.0"), Refused(&[505])),
        case("HTTP/2", line("GET /case HTTP/2"), Refused(VERSION)),
    ]);
}

#[test]
fn methods() {
    let method = |text: &str| raw(&format!("{text} /case HTTP/1.1\r\nHost: app.test"));
    let long = "M".repeat(10_000);
    hold(vec![
        case("lower case", method("get"), Either(METHOD, "/case", "")),
        case("unknown", method("BREW"), Either(METHOD, "/case", "")),
        case("all kinds of token bytes", method("A!#$%&'*+-.^_`|~9"), Either(METHOD, "/case", "")),
        case("empty", method(""), Refused(BAD)),
        case("bracket", method("G{T"), Refused(BAD)),
        case("colon", method("GET:"), Refused(BAD)),
        case("slash", method("GET/"), Refused(BAD)),
        case("NUL", method("GE\0T"), Refused(BAD)),
        case("letter beyond ASCII", method("G\u{c9}T"), Refused(BAD)),
        case("quoted", method("\"GET\""), Refused(BAD)),
        case("10 KB", method(&long), Either(&[400, 414, 431, 501], "/case", "")),
        case("TRACE", method("TRACE"), Either(METHOD, "/case", "")),
        case("CONNECT", raw("CONNECT app.test:443 HTTP/1.1\r\nHost: app.test:443"), Refused(METHOD)),
        case("CONNECT to a path", raw("CONNECT /case HTTP/1.1\r\nHost: app.test"), Refused(METHOD)),
        case("override", post("X-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n", ""), Passes("/case", "")),
    ]);
}
