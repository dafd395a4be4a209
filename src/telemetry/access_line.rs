//! One access line: what it says, as JSON for machines or as text for a terminal.
//!
//! Invariant: names and order of the JSON keys are a contract (surface.md section 10). What a request does not have
//! (a version, when no route matched) has no key. Query strings, cookies and authorisation are never in it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::json::{self, Object};
use super::stamp::Stamp;
use crate::model::Address;

/// One finished request.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// When it ended.
    pub ts: SystemTime,
    pub request_id: &'a str,
    pub trace_id: Option<&'a str>,
    /// `None`: over a Unix socket, where clients have no address; written `unix`.
    pub client: Option<IpAddr>,
    pub method: &'a str,
    pub host: &'a str,
    /// Without the query; if one is there all the same, it is left out.
    pub path: &'a str,
    /// `http/1.0`, `http/1.1`, `h2`.
    pub proto: &'a str,
    /// What the client got.
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// To the last byte.
    pub duration: Duration,
    /// To the first byte of the endpoint's answer.
    pub upstream: Option<Duration>,
    pub listener: &'a str,
    pub route: Option<&'a str>,
    pub split: Option<&'a str>,
    pub version: Option<&'a str>,
    pub endpoint: Option<&'a Address>,
    /// Attempts at endpoints, the first included.
    pub attempts: u32,
    /// `weight`, `rule:NAME`, `sticky`, `spill`, `rescue`.
    pub picked: Option<&'a str>,
    /// The word of `weir-error` when weir itself answered, or of what went wrong on the way.
    pub error: Option<&'static str>,
}

impl Line<'_> {
    /// Errors are never sampled out: answers of 5xx, and requests that something went wrong with.
    pub(super) fn is_error(&self) -> bool {
        self.status >= 500 || self.error.is_some()
    }

    fn plain_path(&self) -> &str {
        self.path.split_once('?').map_or(self.path, |(path, _)| path)
    }

    pub(super) fn write_json(&self, out: &mut Vec<u8>, stamp: &mut Stamp) {
        let mut object = Object::new(out);
        let ts = object.key("ts");
        ts.push(b'"');
        ts.extend_from_slice(stamp.of(self.ts));
        ts.push(b'"');
        object.str("event", "request");
        object.str("request_id", self.request_id);
        object.opt("trace_id", self.trace_id);
        match self.client {
            Some(ip) => object.display("client", ip),
            None => object.str("client", "unix"),
        }
        object.str("method", self.method);
        object.str("host", self.host);
        object.str("path", self.plain_path());
        object.str("proto", self.proto);
        object.number("status", u64::from(self.status));
        object.number("bytes_in", self.bytes_in);
        object.number("bytes_out", self.bytes_out);
        object.millis("duration_ms", self.duration);
        if let Some(upstream) = self.upstream {
            object.millis("upstream_ms", upstream);
        }
        object.str("listener", self.listener);
        object.opt("route", self.route);
        object.opt("split", self.split);
        object.opt("version", self.version);
        if let Some(endpoint) = self.endpoint {
            object.display("endpoint", endpoint);
        }
        object.number("attempts", u64::from(self.attempts));
        object.opt("picked", self.picked);
        object.opt("error", self.error);
        object.end();
    }

    /// `12:00:00.123 GET shop.example.com/cart 200 3.4ms 5120B shop/v2 10.0.1.11:9000 weight`
    pub(super) fn write_text(&self, out: &mut Vec<u8>, stamp: &mut Stamp) {
        out.extend_from_slice(stamp.time_of_day(self.ts));
        word(out, self.method);
        word(out, self.host);
        json::escape(out, self.plain_path());
        out.push(b' ');
        json::push_u64(out, u64::from(self.status));
        out.push(b' ');
        json::push_millis(out, self.duration);
        out.extend_from_slice(b"ms ");
        json::push_u64(out, self.bytes_out);
        out.push(b'B');
        if let (Some(split), Some(version)) = (self.split, self.version) {
            word(out, split);
            out.push(b'/');
            json::escape(out, version);
        }
        if let Some(endpoint) = self.endpoint {
            out.push(b' ');
            json::push_display(out, endpoint);
        }
        self.picked.into_iter().for_each(|picked| word(out, picked));
        if self.attempts > 1 {
            out.extend_from_slice(b" attempts=");
            json::push_u64(out, u64::from(self.attempts));
        }
        self.error.into_iter().for_each(|error| {
            out.extend_from_slice(b" error=");
            json::escape(out, error);
        });
        out.push(b'\n');
    }
}

fn word(out: &mut Vec<u8>, text: &str) {
    out.push(b' ');
    json::escape(out, text);
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::UNIX_EPOCH;

    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

    use super::*;

    static ENDPOINT: Address = Address::Tcp(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 11), 9000)));

    pub(in crate::telemetry) fn line() -> Line<'static> {
        Line {
            ts: UNIX_EPOCH + Duration::from_millis(1_772_366_400_123),
            request_id: "01J",
            trace_id: Some("4bf9"),
            client: Some([203, 0, 113, 7].into()),
            method: "GET",
            host: "shop.example.com",
            path: "/cart?card=4111",
            proto: "h2",
            status: 200,
            bytes_in: 0,
            bytes_out: 5120,
            duration: Duration::from_micros(3400),
            upstream: Some(Duration::from_micros(3100)),
            listener: "secure",
            route: Some("shop"),
            split: Some("shop"),
            version: Some("v2"),
            endpoint: Some(&ENDPOINT),
            attempts: 1,
            picked: Some("weight"),
            error: None,
        }
    }

    fn refused() -> Line<'static> {
        Line {
            trace_id: None,
            path: "/\u{1b}\"",
            status: 404,
            upstream: None,
            route: None,
            split: None,
            version: None,
            endpoint: None,
            attempts: 0,
            picked: None,
            error: Some("no-route"),
            ..line()
        }
    }

    fn json(line: &Line<'_>) -> String {
        let mut out = Vec::new();
        line.write_json(&mut out, &mut Stamp::default());
        String::from_utf8(out).unwrap()
    }

    fn text(line: &Line<'_>) -> String {
        let mut out = Vec::new();
        line.write_text(&mut out, &mut Stamp::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_has_the_keys_and_order_of_the_contract_and_no_query() {
        let expected = concat!(
            r#"{"ts":"2026-03-01T12:00:00.123Z","event":"request","request_id":"01J","trace_id":"4bf9","#,
            r#""client":"203.0.113.7","method":"GET","host":"shop.example.com","path":"/cart","proto":"h2","#,
            r#""status":200,"bytes_in":0,"bytes_out":5120,"duration_ms":3.4,"upstream_ms":3.1,"listener":"secure","#,
            r#""route":"shop","split":"shop","version":"v2","endpoint":"10.0.1.11:9000","attempts":1,"#,
            r#""picked":"weight"}"#,
            "\n"
        );
        assert_eq!(json(&line()), expected);
    }

    #[test]
    fn what_a_request_lacks_has_no_key() {
        let value: serde_json::Value = serde_json::from_str(&json(&refused())).unwrap();
        assert_eq!(
            (&value["path"], &value["error"], &value["attempts"]),
            (&"/\u{1b}\"".into(), &"no-route".into(), &0.into())
        );
        for absent in ["trace_id", "upstream_ms", "route", "split", "version", "endpoint", "picked"] {
            assert!(value.get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn text_is_one_readable_line() {
        let expected = "12:00:00.123 GET shop.example.com/cart 200 3.4ms 5120B shop/v2 10.0.1.11:9000 weight\n";
        assert_eq!(text(&line()), expected);
        let expected = "12:00:00.123 GET shop.example.com/\\u001b\\\" 404 3.4ms 5120B error=no-route\n";
        assert_eq!(text(&refused()), expected);
        assert!(text(&Line { attempts: 2, ..line() }).ends_with(" weight attempts=2\n"));
    }
}
