//! Chunk sizes, extensions, terminators and trailers that two readers could end in two places.

use super::oracle::{Expect, SMUGGLED};
use super::{Case, case, hold, post};
use Expect::{Broken, BrokenOr, Passes};

fn chunked(name: &'static str, body: &str, expect: Expect) -> Case {
    case(name, post("Transfer-Encoding: chunked\r\n", body), expect)
}

/// `hello` with this size line, its end included.
fn size(name: &'static str, line: &str, expect: Expect) -> Case {
    chunked(name, &format!("{line}hello\r\n0\r\n\r\n"), expect)
}

#[test]
fn sizes() {
    const HELLO: Expect = BrokenOr("/case", "hello");
    hold(vec![
        size("plain", "5\r\n", Passes("/case", "hello")),
        size("0x", "0x5\r\n", Broken),
        size("plus", "+5\r\n", Broken),
        size("minus", "-5\r\n", Broken),
        size("empty", "\r\n", Broken),
        size("letter", "g\r\n", Broken),
        size("letter behind", "5g\r\n", Broken),
        size("underscore", "0_5\r\n", Broken),
        size("fraction", "5.0\r\n", Broken),
        size("fullwidth digit", "\u{ff15}\r\n", Broken),
        size("NUL", "5\0\r\n", Broken),
        size("blank before", " 5\r\n", Broken),
        size("two numbers", "5 5\r\n", Broken),
        size("17 digits that wrap to 5", "10000000000000005\r\n", Broken),
        size("33 digits that wrap to 5", "100000000000000000000000000000005\r\n", Broken),
        size("nine digits that wrap 32 bits", "100000005x\r\n", Broken),
        size("leading zeros", "0000005\r\n", BrokenOr("/case", "hello")),
        size("twenty leading zeros", "000000000000000000005\r\n", BrokenOr("/case", "hello")),
        size("blank behind", "5 \r\n", BrokenOr("/case", "hello")),
        size("tab behind", "5\t\r\n", BrokenOr("/case", "hello")),
        size("vertical tab behind", "5\u{b}\r\n", Broken),
        chunked("upper case hexadecimal", &format!("2A\r\n{SMUGGLED}\r\n0\r\n\r\n"), Passes("/case", SMUGGLED)),
        chunked("last chunk of many zeros", "5\r\nhello\r\n0000\r\n\r\n", HELLO),
        chunked("a request as data", &format!("2a\r\n{SMUGGLED}\r\n0\r\n\r\n"), Passes("/case", SMUGGLED)),
    ]);
}

#[test]
fn line_ends() {
    hold(vec![
        size("LF", "5\n", Broken),
        size("CR", "5\r", Broken),
        size("CR CR LF", "5\r\r\n", Broken),
        size("LF CR", "5\n\r", Broken),
        chunked("LF after the data", "5\r\nhello\n0\r\n\r\n", Broken),
        chunked("CR after the data", "5\r\nhello\r0\r\n\r\n", Broken),
        chunked("nothing after the data", "5\r\nhello0\r\n\r\n", Broken),
        chunked("two other bytes after the data", "5\r\nhelloXX0\r\n\r\n", Broken),
        chunked("more data than the size", "5\r\nhello hello\r\n0\r\n\r\n", Broken),
        chunked("less data than the size", "6\r\nhello\r\n0\r\n\r\n", Broken),
        chunked("LF after the last size", "5\r\nhello\r\n0\n\r\n", Broken),
        chunked("all LF", "5\nhello\n0\n\n", Broken),
        chunked(
            "two bytes that are no CRLF hide a size",
            &format!("2\r\nxxxx\r\n2a\r\n{SMUGGLED}\r\n0\r\n\r\n"),
            Broken,
        ),
        // The first byte of the innocent request is then where the CRLF should be.
        chunked("the last CRLF is missing", "5\r\nhello\r\n0\r\n", Broken),
        chunked("LF as the last line", "5\r\nhello\r\n0\r\n\n", Broken),
    ]);
}

#[test]
fn extensions() {
    let long = format!("5;x={}\r\n", "y".repeat(100_000));
    let many = "1;xxxxxxxx=yyyyyyyy\r\nz\r\n".repeat(20_000) + "0\r\n\r\n";
    hold(vec![
        size("name", "5;x\r\n", BrokenOr("/case", "hello")),
        size("value", "5;x=y\r\n", BrokenOr("/case", "hello")),
        size("quoted value", "5;x=\"y;z\"\r\n", BrokenOr("/case", "hello")),
        size("empty", "5;\r\n", BrokenOr("/case", "hello")),
        size("blank before", "5 ;x\r\n", BrokenOr("/case", "hello")),
        size("open quote", "5;x=\"\r\n", BrokenOr("/case", "hello")),
        size("LF inside", "5;x\ny\r\n", Broken),
        size("CR inside", "5;x\ry\r\n", Broken),
        size("NUL inside", "5;x\0y\r\n", BrokenOr("/case", "hello")),
        size("LF as end", "5;x\n", Broken),
        // What reads LF as the end of the size line sees `xx` and a chunk of 0x4c bytes; others an extension.
        chunked("TERM.EXT", &format!("2;\nxx\r\n2a\r\n0\r\n\r\n{SMUGGLED}"), Broken),
        chunked("EXT.TERM", &format!("2a;\n0\r\n\r\n{SMUGGLED}"), Broken),
        chunked("LF in a quoted value", "5;x=\"\n\"\r\nhello\r\n0\r\n\r\n", Broken),
        chunked("in the last chunk", "5\r\nhello\r\n0;x=y\r\n\r\n", BrokenOr("/case", "hello")),
        chunked("LF in that of the last chunk", "5\r\nhello\r\n0;\n\r\n\r\n", Broken),
        size("100 KB", &long, Broken),
        chunked("a little in each of 20,000", &many, Broken),
    ]);
}

#[test]
fn trailers() {
    const HELLO: Expect = BrokenOr("/case", "hello");
    let after = |name, trailer: &str| chunked(name, &format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"), HELLO);
    let announced = |name, field: &str, value: &str| {
        let body = format!("5\r\nhello\r\n0\r\n{field}: {value}\r\n\r\n");
        case(name, post(&format!("Transfer-Encoding: chunked\r\nTrailer: {field}\r\nTE: trailers\r\n"), &body), HELLO)
    };
    let long = format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "y".repeat(200_000));
    let many = format!("5\r\nhello\r\n0\r\n{}\r\n", "X: y\r\n".repeat(20_000));
    hold(vec![
        after("not announced", "X-Sum: 1"),
        announced("announced", "X-Sum", "1"),
        announced("Content-Length", "Content-Length", "42"),
        announced("Transfer-Encoding", "Transfer-Encoding", "chunked"),
        announced("Host", "Host", "evil.test"),
        announced("X-Forwarded-For", "X-Forwarded-For", "6.6.6.6"),
        announced("X_Forwarded_For", "X_Forwarded_For", "6.6.6.6"),
        announced("Connection", "Connection", "close"),
        announced("Authorization", "Authorization", "Basic eDp5"),
        after("a request line", "GET /smuggled HTTP/1.1\r\nHost: app.test"),
        chunked("LF as a line end", "5\r\nhello\r\n0\r\nX: y\n\r\n", BrokenOr("/case", "hello")),
        chunked("CR inside", "5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n", Broken),
        chunked("NUL inside", "5\r\nhello\r\n0\r\nX: a\0b\r\n\r\n", Broken),
        chunked("folded", "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n", BrokenOr("/case", "hello")),
        chunked("200 KB", &long, Broken),
        chunked("20,000 lines", &many, Broken),
    ]);
}
