//! A version's check, with everything it inherits filled in.

use http::uri::Authority;
use http::{HeaderName, HeaderValue};
use toml::Value;

use super::{table, text, time};
use crate::config::{HealthCheck, HealthKind};

pub fn check(check: &HealthCheck) -> Value {
    let (kind, mut entries) = match &check.kind {
        HealthKind::Tcp => ("tcp", Vec::new()),
        HealthKind::Http(http) => {
            let mut entries = asked(http.host.as_ref(), &http.headers);
            entries.push(("path", text(http.path.as_str())));
            entries.push(("method", text(http.method.as_str())));
            entries.push(("expect", text(&http.expect.to_string())));
            ("http", entries)
        }
        HealthKind::Grpc(grpc) => {
            let mut entries = asked(grpc.host.as_ref(), &grpc.headers);
            entries.push(("service", text(&grpc.service)));
            ("grpc", entries)
        }
    };
    entries.extend([
        ("kind", text(kind)),
        ("interval", time(check.interval)),
        ("timeout", time(check.timeout)),
        ("healthy_after", Value::Integer(check.healthy_after.into())),
        ("unhealthy_after", Value::Integer(check.unhealthy_after.into())),
    ]);
    table(entries)
}

fn asked(host: Option<&Authority>, headers: &[(HeaderName, HeaderValue)]) -> Vec<(&'static str, Value)> {
    let mut entries = Vec::new();
    entries.extend(host.map(|host| ("host", text(host.as_str()))));
    if !headers.is_empty() {
        // They were written as text.
        let field = |(name, value): &(HeaderName, HeaderValue)| {
            (name.to_string(), text(&String::from_utf8_lossy(value.as_bytes())))
        };
        entries.push(("headers", Value::Table(headers.iter().map(field).collect())));
    }
    entries
}
