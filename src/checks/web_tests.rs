//! Prometheus and webhook checks against scripted servers on real sockets: every answer, good and bad.

// A helper of a test fails it by panicking, as the test itself does; clippy knows only the latter.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::testing::{check, question};
use super::{Answer, Finding, ask, look};
use crate::config::{CheckKind, WebUrl};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Head and body of a request.
type Asked = JoinHandle<(String, Vec<u8>)>;

async fn server(status: &str, body: &[u8]) -> (String, Asked) {
    let head =
        format!("HTTP/1.1 {status} x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: {}\r\n\r\n", body.len());
    raw([head.as_bytes(), body].concat()).await
}

/// Sends `answer` to the first request and closes.
async fn raw(answer: Vec<u8>) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let asked = request(&mut stream).await;
        // The other side may have had enough before all is written.
        let _ = stream.write_all(&answer).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
        asked
    });
    (place, asked)
}

async fn request(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (head, body)
}

fn prometheus(url: &str, query: &str) -> CheckKind {
    CheckKind::Prometheus { url: WebUrl::parse(url).unwrap(), query: query.into(), min: None, max: Some(0.5) }
}

fn webhook(url: &str) -> CheckKind {
    CheckKind::Webhook { url: WebUrl::parse(url).unwrap(), timeout: TIMEOUT }
}

fn success(kind: &str, result: &Value) -> Vec<u8> {
    json!({"status": "success", "data": {"resultType": kind, "result": result}}).to_string().into_bytes()
}

#[tokio::test]
async fn a_prometheus_is_asked_for_the_number_of_now() {
    let (place, asked) = server("200", &success("vector", &json!([{"metric": {}, "value": [1.5, "0.7"]}]))).await;
    let kind = prometheus(&format!("http://al:pw@{place}/prom/?tenant=a"), "rate(failed{v=\"{to}\"}[1m]) * {weight}");
    let found = look(&check(kind), &question(&[])).await;
    let answer = Answer::Fail("0.7, at most 0.5".into());
    assert_eq!(found, Finding { answer, value: Some(0.7), output: None });
    let (head, _) = asked.await.unwrap();
    let query = "query=rate%28failed%7Bv%3D%22v2%22%7D%5B1m%5D%29%20%2A%2012%2E5&timeout=10s";
    assert!(head.starts_with(&format!("GET /prom/api/v1/query?tenant=a&{query} HTTP/1.1\r\n")), "{head}");
    assert!(head.contains("authorization: Basic "), "{head}");
}

#[tokio::test]
async fn only_one_finite_number_is_compared() {
    let vector = |value: &str| success("vector", &json!([{"metric": {"a": "b"}, "value": [1.5, value]}]));
    let number = json!({"metric": {}, "value": [1, "0"]});
    let empty = "the query finds nothing; if that means 0, write `(...) or vector(0)`";
    let partial = json!({"status": "success", "warnings": ["a store is down"],
        "data": {"resultType": "scalar", "result": [1, "0"]}});
    for (body, expected) in [
        (vector("0.5"), Ok("0.5, at most 0.5")),
        (vector("-3"), Ok("-3, at most 0.5")),
        (vector("1e-3"), Ok("0.001, at most 0.5")),
        (success("scalar", &json!([1.5, "0.25"])), Ok("0.25, at most 0.5")),
        (partial.to_string().into_bytes(), Ok("0, at most 0.5 (warning: a store is down)")),
        (vector("NaN"), Err("the query gives NaN, which can be compared with nothing")),
        (vector("+Inf"), Err("the query gives inf, which can be compared with nothing")),
        (vector("-Inf"), Err("the query gives -inf, which can be compared with nothing")),
        (vector("nought"), Err("the answer has no number")),
        (success("vector", &json!([])), Err(empty)),
        (
            success("vector", &json!([number, number])),
            Err("the query gives 2 series, not one; write for example `sum(...)`"),
        ),
        (success("vector", &json!([{"metric": {}, "histogram": [1, {}]}])), Err("the query gives a histogram")),
        (success("vector", &json!([{"metric": {}}])), Err("the answer has no number")),
        (success("vector", &json!([{"metric": {}, "value": [1, 0.1]}])), Err("the answer has no number")),
        (success("matrix", &json!([])), Err("the query gives a matrix, not one number now")),
        (success("string", &json!([1, "0"])), Err("the query gives a string, not one number now")),
        (b"{\"status\":\"success\"}".to_vec(), Err("the answer has no data")),
        (
            b"{\"status\":\"error\",\"errorType\":\"timeout\",\"error\":\"too slow\"}".to_vec(),
            Err("status 200: timeout: too slow"),
        ),
        (b"<html>login</html>".to_vec(), Err("status 200: the answer is not that of a Prometheus")),
        (Vec::new(), Err("status 200: the answer is not that of a Prometheus")),
        (vec![b'['; 100_000], Err("status 200: the answer is not that of a Prometheus")),
        (vec![b' '; 1024 * 1024 + 1], Err("status 200: the answer is longer than 1 MiB; ask for one number")),
    ] {
        let (place, _asked) = server("200", &body).await;
        let found = ask(&check(prometheus(&format!("http://{place}"), "up")), &question(&[])).await;
        let expected = match expected {
            Ok(text) => Answer::Pass(text.into()),
            Err(text) => Answer::Error(format!("http://{place}: {text}")),
        };
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn whatever_else_a_prometheus_says_is_an_error() {
    let number = success("scalar", &json!([1, "0"]));
    let bad = json!({"status": "error", "errorType": "bad_data", "error": "1:1: parse error:\n unexpected end"});
    for (status, body, expected) in [
        ("400", bad.to_string().into_bytes(), "status 400: bad_data: 1:1: parse error: unexpected end"),
        ("500", number.clone(), "status 500: no success:"),
        ("401", b"Unauthorized\n".to_vec(), "status 401: Unauthorized"),
        ("502", Vec::new(), "status 502"),
        ("302", number, "status 302: redirects are not followed; write the address that it leads to"),
    ] {
        let (place, _asked) = server(status, &body).await;
        let found = ask(&check(prometheus(&format!("http://al:pw@{place}"), "up")), &question(&[])).await;
        let Answer::Error(text) = found else { panic!("{found:?}") };
        assert!(text.starts_with(&format!("http://{place}: {expected}")), "{text}\n{expected}");
    }
    let (place, _asked) = raw(b"garbage\r\n\r\n".to_vec()).await;
    let found = ask(&check(prometheus(&format!("http://{place}"), "up")), &question(&[])).await;
    assert_eq!(found, Answer::Error(format!("http://{place}: the answer is not valid HTTP")));
}

#[tokio::test]
async fn a_webhook_is_told_what_it_is_asked_about() {
    let (place, asked) = server("200", b"").await;
    let found = ask(&check(webhook(&format!("http://{place}/gate?t=1"))), &question(&[])).await;
    assert_eq!(found, Answer::Pass("200".into()));
    let (head, body) = asked.await.unwrap();
    assert!(head.starts_with("POST /gate?t=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    let expected = json!({"check": "smoke", "split": "shop", "to": "v2", "stable": "v1", "rollout": "01J0", "step": 2,
        "weight": 12.5});
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);

    let (place, asked) = server("200", b"").await;
    let mut before = question(&[]);
    (before.step, before.weight_percent) = (None, 0.0);
    ask(&check(webhook(&format!("http://{place}"))), &before).await;
    let body: Value = serde_json::from_slice(&asked.await.unwrap().1).unwrap();
    assert_eq!((&body["step"], &body["weight"]), (&Value::Null, &json!(0.0)));
}

#[tokio::test]
async fn the_status_of_a_webhook_decides_and_its_words_are_told() {
    let long = "x".repeat(400_000);
    let cut = format!("200: {}", "x".repeat(300));
    let hint = "; 200 means pass, 202 wait, 4xx fail";
    let redirect = "redirects are not followed; write the address that it leads to";
    for (status, body, expected) in [
        ("200", "all\n well\u{7}", Answer::Pass("200: all well".into())),
        ("200", &long, Answer::Pass(cut)),
        ("202", "still testing", Answer::Wait("202: still testing".into())),
        ("400", "3 of 10 failed", Answer::Fail("400: 3 of 10 failed".into())),
        ("422", "", Answer::Fail("422".into())),
        ("499", "", Answer::Fail("499".into())),
        ("201", "", Answer::Error(format!("status 201{hint}"))),
        ("204", "", Answer::Error(format!("status 204{hint}"))),
        ("500", "oops", Answer::Error(format!("status 500: oops{hint}"))),
        ("301", "", Answer::Error(format!("status 301: {redirect}"))),
        ("307", "moved", Answer::Error(format!("status 307: {redirect}"))),
    ] {
        let (place, _asked) = server(status, if status == "204" { b"" } else { body.as_bytes() }).await;
        let found = ask(&check(webhook(&format!("http://{place}/s3cret"))), &question(&[])).await;
        let expected = match expected {
            Answer::Error(why) => Answer::Error(format!("http://{place}: {why}")),
            other => other,
        };
        assert_eq!(found, expected, "{status}");
    }
}

#[tokio::test]
async fn who_says_nothing_or_never_ends_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = silent.local_addr().unwrap();
    let short = |place: &str| CheckKind::Webhook {
        url: WebUrl::parse(&format!("http://{place}")).unwrap(),
        timeout: Duration::from_millis(200),
    };
    let found = ask(&check(short(&place.to_string())), &question(&[])).await;
    assert_eq!(found, Answer::Error(format!("http://{place}: no answer within 200ms")));

    let endless = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = endless.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = endless.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.map(drop).unwrap_or_default();
    });
    let found = ask(&check(short(&place.to_string())), &question(&[])).await;
    assert_eq!(found, Answer::Error(format!("http://{place}: no answer within 200ms")), "200 alone is not yet a pass");
    server.await.unwrap();
}
