//! Content-Length and Transfer-Encoding: both, several, and neither quite.

use super::oracle::{Expect, SMUGGLED};
use super::{Case, case, hold, post};
use Expect::{Either, Passes, Refused};

const BAD: &[u16] = &[400];
/// A coding nobody knows is 501 (RFC 9112 section 6.1), a malformed one 400.
const CODING: &[u16] = &[400, 501];

const HELLO: &str = "5\r\nhello\r\n0\r\n\r\n";

/// A chunked `hello`, if this is a line of Transfer-Encoding.
fn coding(name: &'static str, line: &str, expect: Expect) -> Case {
    case(name, post(&format!("{line}\r\n"), HELLO), expect)
}

/// `hello`, if this is a line of Content-Length.
fn length(name: &'static str, line: &str, expect: Expect) -> Case {
    case(name, post(&format!("{line}\r\n"), "hello"), expect)
}

#[test]
fn both_framings() {
    let te = "Transfer-Encoding: chunked\r\n";
    let last = format!("0\r\n\r\n{SMUGGLED}");
    hold(vec![
        case("CL.TE", post(&format!("Content-Length: 47\r\n{te}"), &last), Either(BAD, "/case", "")),
        case("TE.CL", post(&format!("{te}Content-Length: 4\r\n"), &format!("2a\r\n{SMUGGLED}\r\n0\r\n\r\n")), {
            Either(BAD, "/case", SMUGGLED)
        }),
        case("CL.TE, CL short", post(&format!("Content-Length: 0\r\n{te}"), HELLO), Either(BAD, "/case", "hello")),
        case("CL.TE, CL exact", post(&format!("Content-Length: 15\r\n{te}"), HELLO), Either(BAD, "/case", "hello")),
        case("CL.TE, bad CL", post(&format!("Content-Length: x\r\n{te}"), HELLO), Refused(BAD)),
        case(
            "CL.TE, unknown coding",
            post("Content-Length: 5\r\nTransfer-Encoding: cow\r\n", "hello"),
            Refused(CODING),
        ),
        case("CL.TE, empty coding", post("Content-Length: 5\r\nTransfer-Encoding:\r\n", "hello"), {
            Either(CODING, "/case", "hello")
        }),
        case("CL.TE, identity", post("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", "hello"), {
            Either(CODING, "/case", "hello")
        }),
        case("CL and a twin of TE", post("Content-Length: 5\r\nTransfer_Encoding: chunked\r\n", "hello"), {
            Either(BAD, "/case", "hello")
        }),
        case("TE and a twin of CL", post(&format!("Content_Length: 0\r\n{te}"), HELLO), Either(BAD, "/case", "hello")),
        case(
            "CL.TE hidden by Connection",
            post(&format!("Connection: Transfer-Encoding\r\nContent-Length: 5\r\n{te}"), HELLO),
            Either(BAD, "/case", "hello"),
        ),
        case(
            "CL and Content-Encoding: chunked",
            post("Content-Length: 5\r\nContent-Encoding: chunked\r\n", "hello"),
            Passes("/case", "hello"),
        ),
    ]);
}

#[test]
fn transfer_encodings() {
    hold(vec![
        coding("plain", "Transfer-Encoding: chunked", Passes("/case", "hello")),
        coding("upper case", "Transfer-Encoding: CHUNKED", Either(CODING, "/case", "hello")),
        coding("mixed case", "TrAnSfEr-EnCoDiNg: cHuNkEd", Either(CODING, "/case", "hello")),
        coding("tab before", "Transfer-Encoding:\tchunked", Either(CODING, "/case", "hello")),
        coding("tab behind", "Transfer-Encoding: chunked\t", Either(CODING, "/case", "hello")),
        coding("no blank", "Transfer-Encoding:chunked", Either(CODING, "/case", "hello")),
        coding("chunked twice", "Transfer-Encoding: chunked, chunked", Refused(CODING)),
        coding("chunked on two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Refused(CODING)),
        coding("cow, chunked", "Transfer-Encoding: cow, chunked", Refused(CODING)),
        coding("chunked, cow", "Transfer-Encoding: chunked, cow", Refused(CODING)),
        coding("gzip, chunked", "Transfer-Encoding: gzip, chunked", Refused(CODING)),
        coding("identity, chunked", "Transfer-Encoding: identity, chunked", Refused(CODING)),
        coding("chunked, identity", "Transfer-Encoding: chunked, identity", Refused(CODING)),
        coding("chunked, then identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Refused(CODING)),
        coding("identity, then chunked", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", Refused(CODING)),
        coding("identity", "Transfer-Encoding: identity", Refused(CODING)),
        coding("empty element first", "Transfer-Encoding: ,chunked", Either(CODING, "/case", "hello")),
        coding("empty element last", "Transfer-Encoding: chunked,", Either(CODING, "/case", "hello")),
        coding("empty", "Transfer-Encoding:", Refused(CODING)),
        coding("xchunked", "Transfer-Encoding: xchunked", Refused(CODING)),
        coding("chunkedx", "Transfer-Encoding: chunkedx", Refused(CODING)),
        coding("chunked and a word", "Transfer-Encoding: chunked cow", Refused(CODING)),
        coding("with a parameter", "Transfer-Encoding: chunked;q=1", Refused(CODING)),
        coding("quoted", "Transfer-Encoding: \"chunked\"", Refused(CODING)),
        coding("in single quotes", "Transfer-Encoding: 'chunked'", Refused(CODING)),
        coding("vertical tab", "Transfer-Encoding: \u{b}chunked", Refused(CODING)),
        coding("form feed behind", "Transfer-Encoding: chunked\u{c}", Refused(CODING)),
        coding("no-break space", "Transfer-Encoding: \u{a0}chunked", Refused(CODING)),
        coding("Kelvin sign", "Transfer-Encoding: chun\u{212a}ed", Refused(CODING)),
        coding("NUL inside", "Transfer-Encoding: chu\0nked", Refused(CODING)),
        coding("NUL behind", "Transfer-Encoding: chunked\0", Refused(CODING)),
        coding("blank before the colon", "Transfer-Encoding : chunked", Refused(BAD)),
        coding("tab before the colon", "Transfer-Encoding\t: chunked", Refused(BAD)),
        coding("folded", "Transfer-Encoding:\r\n chunked", Refused(CODING)),
        coding("behind a bare LF", "X: y\nTransfer-Encoding: chunked", Either(BAD, "/case", "hello")),
        coding("behind a bare CR", "X: y\rTransfer-Encoding: chunked", Refused(BAD)),
        coding("name with a blank in front", " Transfer-Encoding: chunked", Refused(BAD)),
        coding("name with a control byte", "Transfer-Encoding\u{b}: chunked", Refused(BAD)),
        case(
            "HTTP/1.0",
            format!("POST /case HTTP/1.0\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n{HELLO}").into_bytes(),
            Refused(CODING),
        ),
        case(
            "HTTP/1.0 with keep-alive",
            format!(
                "POST /case HTTP/1.0\r\nHost: app.test\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\
                 Transfer-Encoding: chunked\r\n\r\n{HELLO}"
            )
            .into_bytes(),
            Refused(CODING),
        ),
    ]);
}

#[test]
fn content_lengths() {
    hold(vec![
        length("plain", "Content-Length: 5", Passes("/case", "hello")),
        length("plus sign", "Content-Length: +5", Refused(BAD)),
        length("minus sign", "Content-Length: -5", Refused(BAD)),
        length("minus zero", "Content-Length: -0", Refused(BAD)),
        length("hexadecimal", "Content-Length: 0x5", Refused(BAD)),
        length("two numbers", "Content-Length: 5 5", Refused(BAD)),
        length("list of the same", "Content-Length: 5, 5", Either(BAD, "/case", "hello")),
        length("list of two", "Content-Length: 5, 6", Refused(BAD)),
        length("list with an empty element", "Content-Length: ,5", Either(BAD, "/case", "hello")),
        length("same twice", "Content-Length: 5\r\nContent-Length: 5", Either(BAD, "/case", "hello")),
        length("two lines", "Content-Length: 5\r\nContent-Length: 6", Refused(BAD)),
        length("two lines, other case", "content-length: 5\r\nCONTENT-LENGTH: 0", Refused(BAD)),
        length("second is empty", "Content-Length: 5\r\nContent-Length:", Refused(BAD)),
        length("empty", "Content-Length:", Refused(BAD)),
        length("blank", "Content-Length:  ", Refused(BAD)),
        length("semicolon", "Content-Length: 5;", Refused(BAD)),
        length("fraction", "Content-Length: 5.0", Refused(BAD)),
        length("exponent", "Content-Length: 5e0", Refused(BAD)),
        length("underscore", "Content-Length: 0_5", Refused(BAD)),
        length("quoted", "Content-Length: \"5\"", Refused(BAD)),
        length("word", "Content-Length: five", Refused(BAD)),
        length("Arabic digit", "Content-Length: \u{665}", Refused(BAD)),
        length("leading zeros", "Content-Length: 00005", Either(BAD, "/case", "hello")),
        length("overflow of 64 bits", "Content-Length: 18446744073709551616", Refused(BAD)),
        length("5 after an overflow of 64 bits", "Content-Length: 18446744073709551621", Refused(BAD)),
        length("5 after an overflow of 32 bits, long", "Content-Length: 00000000000000000000004294967301x", Refused(BAD)),
        length("forty digits", "Content-Length: 9999999999999999999999999999999999999999", Refused(BAD)),
        length("vertical tab", "Content-Length: \u{b}5", Refused(BAD)),
        length("NUL", "Content-Length: 5\0", Refused(BAD)),
        length("blank before the colon", "Content-Length : 5", Refused(BAD)),
        length("folded", "Content-Length:\r\n 5", Refused(BAD)),
        length("folded behind", "Content-Length: 5\r\n 0", Refused(BAD)),
        length("twin beside it", "Content-Length: 5\r\nContent_Length: 0", Either(BAD, "/case", "hello")),
        case("twin alone", post(&format!("Content_Length: {}\r\n", SMUGGLED.len()), ""), Either(BAD, "/case", "")),
        case("a body that looks like a request", post("Content-Length: 42\r\n", SMUGGLED), Passes("/case", SMUGGLED)),
        case("bytes behind a body", post("Content-Length: 5\r\n", "hello!"), Passes("/case", "hello")),
        case(
            "GET with a body",
            format!("GET /case HTTP/1.1\r\nHost: app.test\r\nContent-Length: 42\r\n\r\n{SMUGGLED}").into_bytes(),
            Either(BAD, "/case", SMUGGLED),
        ),
        case(
            "HEAD with a body",
            format!("HEAD /case HTTP/1.1\r\nHost: app.test\r\nContent-Length: 42\r\n\r\n{SMUGGLED}").into_bytes(),
            Either(BAD, "/case", SMUGGLED),
        ),
        case(
            "GET with a chunked body",
            format!(
                "GET /case HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n2a\r\n{SMUGGLED}\r\n0\r\n\r\n"
            )
            .into_bytes(),
            Either(BAD, "/case", SMUGGLED),
        ),
        case(
            "GET with bytes behind it",
            b"GET /case HTTP/1.1\r\nHost: app.test\r\n\r\n\x01\x02\r\n".to_vec(),
            Passes("/case", ""),
        ),
        case(
            "OPTIONS with a body",
            b"OPTIONS /case HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
            Passes("/case", "hello"),
        ),
        case(
            "HTTP/1.0, body without a length",
            b"POST /case HTTP/1.0\r\nHost: app.test\r\n\r\nhello".to_vec(),
            Either(&[400, 411], "/case", ""),
        ),
        case(
            "HTTP/1.0 with a length",
            b"POST /case HTTP/1.0\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
            Passes("/case", "hello"),
        ),
        case("CL longer than sent, then closed", post("Content-Length: 5\r\nConnection: close\r\n", "hello"), {
            Passes("/case", "hello")
        }),
        // hyper takes it for a head that is too large, and says so; what matters is that it is refused.
        case("largest CL", post("Content-Length: 18446744073709551615\r\n", "hello"), Refused(&[400, 413, 431])),
    ]);
}
