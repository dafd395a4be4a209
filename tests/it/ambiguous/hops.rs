//! Fields of one connection, fields that only a proxy may set, upgrades, and expectations.

use super::oracle::{Expect, SMUGGLED};
use super::{case, get, hold, post};
use Expect::{Either, Passes, Refused};

const BAD: &[u16] = &[400];
/// An expectation nobody knows (RFC 9110 section 10.1.1).
const EXPECTATION: &[u16] = &[400, 417];

#[test]
fn connection_lists() {
    let listed =
        |name, list: &str, more: &str| case(name, get(&format!("Connection: {list}\r\n{more}")), Passes("/case", ""));
    hold(vec![
        listed("X-Forwarded-For", "X-Forwarded-For", "X-Forwarded-For: 6.6.6.6\r\n"),
        listed("all of ours", "x-forwarded-for, x-forwarded-host, x-forwarded-proto, via, x-request-id", ""),
        listed("Host", "Host", ""),
        listed("Host and close", "close, Host", ""),
        listed("a secret", "X-Secret", "X-Secret: evil\r\n"),
        listed("a secret on the second line", "keep-alive\r\nConnection: X-Secret", "X-Secret: evil\r\n"),
        listed("a secret, case and blanks", "  ,x-SECRET ,", "X-Secret: evil\r\n"),
        listed("both", "keep-alive, close", ""),
        listed("empty", "", ""),
        listed("no token", "\"X Y\", @", ""),
        listed("itself", "Connection", ""),
        listed("Keep-Alive", "Keep-Alive", "Keep-Alive: timeout=5\r\n"),
        listed("Proxy-Connection", "close", "Proxy-Connection: keep-alive\r\n"),
        listed("TE", "TE", "TE: gzip, trailers\r\n"),
        listed("Proxy-Authorization", "keep-alive", "Proxy-Authorization: Basic eDp5\r\n"),
        case("Content-Length", post("Connection: Content-Length\r\nContent-Length: 42\r\n", SMUGGLED), {
            Passes("/case", SMUGGLED)
        }),
        case(
            "Transfer-Encoding",
            post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            Passes("/case", "hello"),
        ),
        case("Expect", post("Connection: Expect\r\nExpect: 100-continue\r\nContent-Length: 5\r\n", "hello"), {
            Passes("/case", "hello")
        }),
    ]);
}

#[test]
fn forged_fields() {
    let forged = |name, fields: &str| case(name, get(fields), Either(BAD, "/case", ""));
    hold(vec![
        forged("X-Forwarded-For", "X-Forwarded-For: 6.6.6.6\r\n"),
        forged("X-Forwarded-For twice", "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 6.6.6.6, 127.0.0.1\r\n"),
        forged("X-Forwarded-Proto", "X-Forwarded-Proto: evil\r\n"),
        forged("X-Forwarded-Prefix", "X-Forwarded-Prefix: /evil\r\n"),
        forged("X-Forwarded-Port", "X-Forwarded-Port: evil\r\n"),
        forged("X-Forwarded-anything", "X-Forwarded-Client-Cert: evil\r\n"),
        forged("X-Real-IP", "X-Real-IP: 6.6.6.6\r\n"),
        forged("Forwarded", "Forwarded: for=6.6.6.6;proto=evil\r\n"),
        forged("X_Forwarded_For", "X_Forwarded_For: 6.6.6.6\r\n"),
        forged("X-Forwarded_For", "X-Forwarded_For: 6.6.6.6\r\n"),
        forged("X_Real_IP", "X_Real_IP: 6.6.6.6\r\n"),
        forged("X_Request_Id", "X_Request_Id: evil\r\n"),
        forged("Host_", "Host_: evil.test\r\n"),
        forged("Connection_", "Connection_: evil\r\n"),
        forged("X-Forwarded-For with a dot", "X-Forwarded-For: 6.6.6.6\r\nX.Forwarded.For: 127.0.0.1\r\n"),
        case("Transfer_Encoding", post("Transfer_Encoding: chunked\r\nContent-Length: 42\r\n", SMUGGLED), {
            Either(BAD, "/case", SMUGGLED)
        }),
    ]);
}

#[test]
fn upgrades() {
    let upgrade = |name, fields: &str| case(name, get(fields), Either(&[400, 426, 501], "/case", ""));
    let settings = "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    let h2c = format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n{settings}");
    hold(vec![
        upgrade("h2c", &h2c),
        upgrade(
            "h2c without the settings in Connection",
            &format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{settings}"),
        ),
        upgrade("h2c without settings", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        upgrade("H2C", &h2c.replace("h2c", "H2C")),
        upgrade("h2c among others", &h2c.replace("h2c", "websocket, h2c")),
        upgrade("h2c on two lines", &h2c.replace("Upgrade: h2c", "Upgrade: websocket\r\nUpgrade: h2c")),
        upgrade("h2c without Connection", &format!("Upgrade: h2c\r\n{settings}")),
        upgrade("only the settings", &format!("Connection: HTTP2-Settings\r\n{settings}")),
        upgrade("unknown", "Connection: Upgrade\r\nUpgrade: cow/1\r\n"),
        upgrade("unknown without Connection", "Upgrade: cow/1\r\n"),
        upgrade("TLS", "Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n"),
        upgrade("WebSocket without a key", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        upgrade("WebSocket of another version", {
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 7\r\nSec-WebSocket-Key: x\r\n"
        }),
        // The origin answers 200: the bytes behind are requests still, never a tunnel's.
        upgrade("WebSocket that is declined", {
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        }),
        case("h2c with a body", post(&format!("{h2c}Content-Length: 42\r\n"), SMUGGLED), {
            Either(BAD, "/case", SMUGGLED)
        }),
        case(
            "WebSocket with a body",
            post("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 42\r\n", SMUGGLED),
            Either(BAD, "/case", SMUGGLED),
        ),
    ]);
}

#[test]
fn expectations() {
    let five = |name, expectation: &str, expect| {
        case(name, post(&format!("Expect: {expectation}\r\nContent-Length: 42\r\n"), SMUGGLED), expect)
    };
    hold(vec![
        five("100-continue", "100-continue", Passes("/case", SMUGGLED)),
        five("upper case", "100-CONTINUE", Either(EXPECTATION, "/case", SMUGGLED)),
        five("unknown", "cow", Either(EXPECTATION, "/case", SMUGGLED)),
        five("a word before", "y 100-continue", Either(EXPECTATION, "/case", SMUGGLED)),
        five("list", "100-continue, cow", Either(EXPECTATION, "/case", SMUGGLED)),
        five("twice", "100-continue\r\nExpect: 100-continue", Either(EXPECTATION, "/case", SMUGGLED)),
        five("empty", "", Either(EXPECTATION, "/case", SMUGGLED)),
        five("folded", "\r\n 100-continue", Refused(BAD)),
        case("without a body", get("Expect: 100-continue\r\n"), Either(EXPECTATION, "/case", "")),
        case("with an empty body", post("Expect: 100-continue\r\nContent-Length: 0\r\n", ""), {
            Either(EXPECTATION, "/case", "")
        }),
        case(
            "chunked",
            post("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", &format!("2a\r\n{SMUGGLED}\r\n0\r\n\r\n")),
            Passes("/case", SMUGGLED),
        ),
        case(
            "HTTP/1.0",
            format!(
                "POST /case HTTP/1.0\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 42\r\n\r\n{SMUGGLED}"
            )
            .into_bytes(),
            Either(EXPECTATION, "/case", SMUGGLED),
        ),
    ]);
}
