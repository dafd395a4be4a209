//! Failures in a row take an endpoint out, for longer each time; time brings it back; somebody always stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::{After, Conf, Gate, Origin, Weir, wait_until};

const NO_RETRIES: &str = "retries = { attempts = 0 }";

/// Fails in this way for as long as its switch is on, then answers with its name.
fn failing(name: &'static str, how: &'static str) -> (Origin, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(true));
    let fails = switch.clone();
    let origin = Origin::scripted(move |exchange| {
        exchange.body()?;
        if !fails.load(Ordering::SeqCst) {
            return exchange.ok(name);
        }
        match how {
            "status" => exchange.answer("500 Internal Server Error", "", b"no"),
            "reset" => Ok(After::Reset),
            "cut" => {
                exchange.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal")?;
                Ok(After::Reset)
            }
            // Silent until the other side goes.
            _ => exchange.wire.head().map(|_| After::Close),
        }
    });
    (origin, switch)
}

/// The JSON of an endpoint of `v1` or `v2`.
fn endpoint(weir: &Weir, origin: &Origin) -> Value {
    let shop = weir.admin.shop();
    let versions = shop["versions"].as_array().unwrap().iter();
    let mut all = versions.flat_map(|v| v["endpoints"].as_array().unwrap().clone());
    all.find(|e| e["address"] == origin.address.to_string()).unwrap()
}

fn events(weir: &Weir, event: &str) -> Vec<Value> {
    let stderr = weir.stderr();
    let lines = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["event"] == event).collect()
}

fn ask(weir: &Weir, times: usize) -> Vec<u16> {
    let one = || weir.connect().get("/").map_or(0, |answer| answer.status());
    (0..times).map(|_| one()).collect()
}

#[test]
fn whatever_fails_in_a_row_is_out_and_comes_back() {
    for how in ["status", "reset", "cut", "timeout"] {
        let ((bad, switch), good) = (failing("bad", how), Origin::named("good"));
        let conf = Conf::shop(&[("v1", 1, &[bad.address, good.address])]).split(NO_RETRIES);
        let conf = conf.split("eject = { errors = 3, for = \"3s\" }").split("timeouts = { first_byte = \"150ms\" }");
        let weir = Weir::start(&conf);
        wait_until("it is out", || {
            ask(&weir, 1);
            endpoint(&weir, &bad)["state"] == "ejected"
        });
        assert_eq!(bad.requests(), 3, "{how}");
        let left = endpoint(&weir, &bad)["readmitted_in_seconds"].as_u64().unwrap();
        assert!((1..=3).contains(&left), "{how}: {left}");
        assert_eq!(ask(&weir, 20), [200; 20], "{how}: the other one carries on");
        let address = bad.address.to_string();
        weir.admin.wait_metric("weir_endpoint_up", &[("endpoint", &address)], 0.0);
        weir.admin.wait_metric("weir_ejections_total", &[("endpoint", &address)], 1.0);
        assert_eq!(bad.requests(), 3, "{how}");
        switch.store(false, Ordering::SeqCst);
        wait_until("it is back", || ask(&weir, 1) == [200] && bad.requests() > 3);
        weir.admin.wait_metric("weir_endpoint_up", &[("endpoint", &address)], 1.0);
        assert_eq!(endpoint(&weir, &bad)["state"], "up", "{how}");
        wait_until("both are told", || !events(&weir, "readmitted").is_empty());
        let (out, back) = (events(&weir, "ejected"), events(&weir, "readmitted"));
        assert_eq!((out.len(), back.len()), (1, 1), "{how}: {out:?}");
        let reason = if how == "cut" { "reset" } else { how };
        assert_eq!((&out[0]["reason"], &out[0]["endpoint"]), (&reason.into(), &address.into()), "{how}");
    }
}

#[test]
fn each_time_in_a_row_is_longer() {
    let ((bad, _switch), good) = (failing("bad", "reset"), Origin::named("good"));
    let conf = Conf::shop(&[("v1", 1, &[bad.address, good.address])]);
    let weir = Weir::start(&conf.split("eject = { errors = 2, for = \"200ms\" }"));
    let third = || events(&weir, "ejected").iter().any(|event| event["in_a_row"].as_u64() >= Some(3));
    wait_until("the third time", || {
        assert_eq!(ask(&weir, 5), [200; 5], "retries hide it from clients, not from its books");
        third()
    });
    // Without forgiveness: six failures, and a request for each look after its return.
    assert!(bad.requests() >= 6, "{}", bad.requests());
}

#[test]
fn a_good_answer_in_between_forgives() {
    let turn = AtomicBool::new(false);
    let flaky = Origin::scripted(move |exchange| {
        exchange.body()?;
        if turn.fetch_xor(true, Ordering::SeqCst) {
            return exchange.ok("good");
        }
        exchange.answer("500 Internal Server Error", "", b"no")
    });
    let other = Origin::named("other");
    let conf = Conf::shop(&[("v1", 1, &[flaky.address, other.address])]).split(NO_RETRIES);
    let weir = Weir::start(&conf.split("eject = { errors = 2 }"));
    let mut client = weir.connect();
    wait_until("it has failed often", || {
        client.get("/").unwrap();
        flaky.requests() >= 40
    });
    assert_eq!(endpoint(&weir, &flaky)["state"], "up");
}

#[test]
fn no_more_than_its_part_of_a_version_is_out() {
    let bad: Vec<_> = (0..4).map(|_| failing("bad", "status").0).collect();
    let addresses: Vec<_> = bad.iter().map(|origin| origin.address).collect();
    let weir = Weir::start(&Conf::shop(&[("v1", 1, &addresses)]).split("eject = { errors = 2, for = \"60s\" }"));
    let out = || bad.iter().filter(|origin| endpoint(&weir, origin)["state"] == "ejected").count();
    wait_until("half of them are out", || {
        ask(&weir, 1);
        out() == 2
    });
    assert_eq!(ask(&weir, 40), [500; 40], "who stays is still asked");
    assert_eq!(out(), 2);
}

#[test]
fn stables_last_stays_and_a_canarys_does_not() {
    let ((stable, _on), (canary, _also)) = (failing("v1", "status"), failing("v2", "status"));
    let eject = "eject = { errors = 3, for = \"60s\", max_percent = 100 }";
    let weir =
        Weir::start(&Conf::two((50, stable.address), (50, canary.address)).split(eject).split("stable = \"v1\""));
    wait_until("the canary is out", || {
        ask(&weir, 1);
        endpoint(&weir, &canary)["state"] == "ejected"
    });
    let before = (stable.requests(), canary.requests());
    assert_eq!(ask(&weir, 50), [500; 50], "stable is asked although it fails");
    assert_eq!((stable.requests(), canary.requests()), (before.0 + 50, before.1));
    assert_eq!(endpoint(&weir, &stable)["state"], "up");
    let shop = weir.admin.shop();
    assert_eq!(
        (&shop["versions"][0]["unavailable"], &shop["versions"][1]["unavailable"]),
        (&Value::Null, &true.into())
    );
    wait_until("it is told", || !events(&weir, "version-unavailable").is_empty());
    ask(&weir, 5);
    let told = events(&weir, "version-unavailable");
    assert_eq!((told.len(), &told[0]["version"], &told[0]["on_unavailable"]), (1, &"v2".into(), &"spill".into()));
}

#[test]
fn a_client_that_goes_away_is_not_held_against_the_endpoint() {
    let (gate, other) = (Gate::default(), Origin::named("other"));
    let slow = Origin::gated("slow", &gate);
    let conf = Conf::shop(&[("v1", 1, &[slow.address, other.address])]);
    let weir = Weir::start(&conf.split("eject = { errors = 2 }"));
    wait_until("many have gone", || {
        let mut client = weir.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
        let seen = slow.requests();
        drop(client);
        seen >= 10
    });
    gate.open();
    wait_until("all have ended", || weir.admin.count("weir_requests_in_flight", &[("version", "v1")]) == 0.0);
    assert_eq!(endpoint(&weir, &slow)["state"], "up");
}
