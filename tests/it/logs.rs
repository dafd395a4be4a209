//! Access lines on stdout, events on stderr; JSON when nobody looks on a terminal.

use serde_json::Value;

use crate::support::{Conf, Origin, Weir, free_address, wait_for, wait_until};

#[track_caller]
fn access_lines(weir: &Weir, count: usize) -> Vec<Value> {
    wait_for(&format!("{count} access lines"), || {
        let text = weir.stdout();
        let whole = &text[..text.rfind('\n').map_or(0, |n| n + 1)];
        let lines: Vec<Value> =
            whole.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("not JSON ({e}): {l}"))).collect();
        (lines.len() >= count).then_some(lines)
    })
}

fn is_rfc3339_ms(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    shape == "9999-99-99T99:99:99.999Z"
}

#[test]
fn an_access_line_has_the_promised_keys() {
    let origin = Origin::scripted(|exchange| {
        exchange.body()?;
        exchange.answer("200 OK", "", &[b'x'; 5120])
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let request = "POST /cart?card=4111 HTTP/1.1\r\nHost: app.test\r\nCookie: secret=1\r\nAuthorization: Bearer hush\r\n\
                   Content-Length: 3\r\n\r\nabc";
    weir.connect().ask(request).unwrap();
    let line = &access_lines(&weir, 1)[0];
    let is = |key: &str, value: Value| assert_eq!(line[key], value, "{key} of {line}");
    is("event", "request".into());
    is("client", "127.0.0.1".into());
    is("method", "POST".into());
    is("host", "app.test".into());
    is("path", "/cart".into());
    is("status", 200.into());
    is("bytes_in", 3.into());
    is("bytes_out", 5120.into());
    is("listener", "web".into());
    is("route", "route-1".into());
    is("split", "shop".into());
    is("version", "v1".into());
    is("endpoint", origin.address.to_string().into());
    is("attempts", 1.into());
    is("picked", "weight".into());
    assert!(is_rfc3339_ms(&line["ts"]), "{line}");
    assert_eq!(line["request_id"].as_str(), origin.only_head().get("x-request-id"), "{line}");
    assert!(line["proto"].is_string(), "{line}");
    let (total, upstream) = (line["duration_ms"].as_f64().unwrap(), line["upstream_ms"].as_f64().unwrap());
    assert!(total >= upstream && upstream >= 0.0, "{line}");
    let text = weir.stdout() + &weir.stderr();
    assert!(!["4111", "secret", "hush"].iter().any(|s| text.contains(s)), "nothing private is logged");
}

#[test]
fn every_request_has_one_line_errors_too() {
    let origin = Origin::named("v1");
    let conf = Conf::two((1, origin.address), (0, free_address()))
        .routes("[[routes]]\nname = \"main\"\nmatch = { path_prefix = \"/in\" }\nsplit = \"shop\"");
    let weir = Weir::start(&conf);
    let mut client = weir.connect();
    for _ in 0..20 {
        client.get("/in").unwrap();
    }
    client.get("/out").unwrap();
    weir.admin.shift(0, 1);
    client.get("/in").unwrap();
    let lines = access_lines(&weir, 22);
    assert_eq!(lines.len(), 22);
    let statuses: Vec<u64> = lines.iter().map(|l| l["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 20, "{statuses:?}");
    assert!(statuses.contains(&404) && statuses.contains(&502), "{statuses:?}");
    let ids: std::collections::BTreeSet<String> = lines.iter().map(|l| l["request_id"].to_string()).collect();
    assert_eq!(ids.len(), 22);
    assert!(lines.iter().any(|l| l["status"] == 502 && l["version"] == "v2" && l["route"] == "main"), "{lines:?}");
}

#[test]
fn access_lines_can_be_switched_off_and_sampled_but_errors_stay() {
    let origin = Origin::named("v1");
    let conf = Conf::one(origin.address).routes("[[routes]]\nmatch = { path_prefix = \"/in\" }\nsplit = \"shop\"");
    let quiet = Weir::start(&conf.clone().tail("[telemetry]\nlog = { access = false }"));
    let sampled = Weir::start(&conf.tail("[telemetry]\nlog = { sample = 0.0 }"));
    for weir in [&quiet, &sampled] {
        let mut client = weir.connect();
        for _ in 0..20 {
            client.get("/in").unwrap();
        }
        client.get("/out").unwrap();
        drop(client);
    }
    let lines = access_lines(&sampled, 1);
    assert_eq!((lines.len(), lines[0]["status"].as_u64()), (1, Some(404)), "{lines:?}");
    assert!(!quiet.stdout().contains("\"event\":\"request\""));
}

#[test]
fn changes_are_told_on_stderr() {
    let origin = Origin::named("v1");
    let conf = Conf::two((90, origin.address), (10, origin.address));
    let weir = Weir::start(&conf);
    weir.admin.shift(80, 20);
    weir.admin.rollback();
    weir.edit_text("nonsense = [");
    let events = || -> Vec<Value> {
        let text = weir.stderr();
        let whole = &text[..text.rfind('\n').map_or(0, |n| n + 1)];
        let json = whole.lines().filter(|l| l.starts_with('{'));
        json.map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("not JSON ({e}): {l}"))).collect()
    };
    wait_until("all three are told", || {
        let all = events().iter().map(Value::to_string).collect::<String>();
        all.contains("rollback") && all.contains("rejected") && all.contains("80")
    });
    let events = events();
    for event in &events {
        assert!(is_rfc3339_ms(&event["ts"]) && event["event"].is_string() && event["level"].is_string(), "{event}");
    }
    let changes: Vec<&Value> = events.iter().filter(|e| e["split"] == "shop" && !e["to"].is_null()).collect();
    assert!(changes.len() >= 2, "{events:?}");
    assert!(changes.iter().all(|e| e["by"].is_string()), "{changes:?}");
    assert!(changes.iter().all(|e| e["kind"] == "reload" || !e["from"].is_null()), "{changes:?}");
    assert!(changes.iter().any(|e| e["reason"] == "test"), "{changes:?}");
}

#[test]
fn text_when_asked_for() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address).tail("[telemetry]\nlog = { format = \"text\" }"));
    weir.connect().get("/some/path").unwrap();
    let line = wait_for("an access line", || weir.stdout().lines().next().map(str::to_owned));
    assert!(!line.starts_with('{') && line.contains("/some/path") && line.contains("200"), "{line}");
}
