//! The admin API as a script uses it: one raw connection per call.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Answer, Connection};

/// Copies talk to the same weir.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    pub address: SocketAddr,
}

impl Admin {
    /// Any request; `fields` are whole header lines with CRLF; panics when there is no answer.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, fields: &str, body: Option<&str>) -> Answer {
        self.try_ask(method, path, fields, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    pub fn try_ask(
        &self,
        method: &str,
        path: &str,
        fields: &str,
        body: Option<&str>,
    ) -> Result<Answer, super::Failure> {
        let mut connection = Connection::open(self.address)?;
        let host = if fields.contains("Host:") { String::new() } else { format!("Host: {}\r\n", self.address) };
        let framing = match body {
            Some(body) if fields.contains("Content-Type:") => format!("Content-Length: {}\r\n", body.len()),
            Some(body) => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
            None => String::new(),
        };
        let head = format!("{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{framing}{fields}\r\n");
        connection.ask(head + body.unwrap_or_default())
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", None)
    }

    /// The JSON of a GET that must answer 200.
    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        answer.json()
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: Value) -> Answer {
        self.ask("POST", path, "", Some(&body.to_string()))
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: Value) -> Answer {
        self.ask("PUT", path, "", Some(&body.to_string()))
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, "", None)
    }

    /// The split `shop` as it is now.
    #[track_caller]
    pub fn shop(&self) -> Value {
        self.json("/api/v1/splits/shop")
    }

    /// Weights in force of `v1` and `v2`.
    #[track_caller]
    pub fn weights(&self) -> (u64, u64) {
        pair_of(&self.shop()["weights"])
    }

    /// Weights of the file of `v1` and `v2`.
    #[track_caller]
    pub fn file_weights(&self) -> (u64, u64) {
        pair_of(&self.shop()["file_weights"])
    }

    /// Shifts; must answer 200.
    #[track_caller]
    pub fn shift(&self, v1: u64, v2: u64) -> Value {
        let answer =
            self.put("/api/v1/splits/shop/weights", json!({"weights": {"v1": v1, "v2": v2}, "reason": "test"}));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()
    }

    /// Rolls back; must answer 200.
    #[track_caller]
    pub fn rollback(&self) -> Value {
        let answer = self.post("/api/v1/splits/shop/rollback", json!({"reason": "test"}));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()
    }

    /// Until a series (see `metric`) has that value; gauges are brought up to date once a second.
    #[track_caller]
    pub fn wait_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        super::wait_until(&format!("{name}{labels:?} is {value}"), || self.metric(name, labels) == Some(value));
    }

    /// `metric`, where a counter that nothing was counted in is not there at all.
    #[track_caller]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metric(name, labels).unwrap_or_default()
    }

    /// Until that many requests are on a version's books of `weir_requests_total`, with any outcome.
    #[track_caller]
    pub fn wait_requests(&self, version: &str, count: usize) {
        let on_books = || self.count("weir_requests_total", &[("version", version)]);
        super::wait_until(&format!("{count} requests of {version} on the books"), || on_books() == count as f64);
    }

    /// The value of one series of `/metrics`: all `labels` must be among its labels; `None` if there is none.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let answer = self.get("/metrics");
        assert_eq!(answer.status(), 200);
        let wanted: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let text = answer.text();
        let matching = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|r| r.starts_with(['{', ' '])) && wanted.iter().all(|w| line.contains(w))
        });
        let values: Vec<f64> = matching.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}

/// `{"v1": a, "v2": b}` as numbers.
#[track_caller]
pub fn pair_of(weights: &Value) -> (u64, u64) {
    let of = |name: &str| weights[name].as_u64().unwrap_or_else(|| panic!("no whole weight of {name} in {weights}"));
    (of("v1"), of("v2"))
}
