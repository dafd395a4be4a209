//! Which endpoint of a version gets a request: turns, weights, keys, and a slow start.

use std::collections::HashMap;

use serde_json::json;

use crate::support::{Conf, Origin, Weir, wait_until};

fn origins(names: &[&str]) -> Vec<Origin> {
    names.iter().map(|name| Origin::named(name)).collect()
}

fn addresses(origins: &[Origin]) -> Vec<std::net::SocketAddr> {
    origins.iter().map(|origin| origin.address).collect()
}

fn conf(origins: &[Origin], line: &str) -> Conf {
    Conf::shop(&[("v1", 1, &addresses(origins))]).split(line)
}

#[test]
fn turns_are_exact_by_weight() {
    let origins = origins(&["a", "b", "c"]);
    let conf = conf(&origins, "balance = \"round_robin\"").weigh(origins[0].address, 3).weigh(origins[2].address, 0);
    let weir = Weir::start(&conf);
    // One connection is one worker, which has its own turns.
    let mut client = weir.connect();
    for round in 1..=10 {
        (0..4).for_each(|_| assert_eq!(client.get("/").unwrap().status(), 200));
        let seen: Vec<_> = origins.iter().map(Origin::requests).collect();
        assert_eq!(seen, [3 * round, round, 0]);
    }
}

#[test]
fn least_requests_follows_weights_and_leaves_the_busy_alone() {
    let gate = crate::support::Gate::default();
    let origins = [Origin::gated("a", &gate), Origin::gated("b", &gate)];
    let conf = conf(&origins, "").weigh(origins[0].address, 4);
    let weir = Weir::start(&conf);
    let mut client = weir.connect();
    (0..500).for_each(|_| assert_eq!(client.get("/").unwrap().status(), 200));
    let light = origins[1].requests();
    assert!((50..150).contains(&light), "a fifth of 500, and it got {light}");
    let held: Vec<_> = (1..=20)
        .map(|n| {
            let mut client = weir.connect();
            client.send("GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
            wait_until("it is there", || gate.waiting() == n);
            client
        })
        .collect();
    let busy = origins[1].requests() - light;
    assert!((3..=5).contains(&busy), "of 20 in flight the small one has {busy}");
    gate.open();
    drop(held);
}

/// Which origin each of many users gets, each on a connection of its own, so over all workers.
fn homes(weir: &Weir) -> HashMap<usize, String> {
    let ask = |user: usize| {
        let head =
            format!("GET / HTTP/1.1\r\nHost: app.test\r\nx-user: user-{user}\r\nCookie: a=b; who=u{user}\r\n\r\n");
        let answer = weir.connect().ask(head).unwrap();
        assert_eq!(answer.status(), 200);
        (user, answer.text())
    };
    (0..60).map(ask).collect()
}

#[test]
fn a_key_stays_at_its_endpoint_and_moves_only_when_it_must() {
    for key in ["{ by = \"header\", name = \"x-user\" }", "{ by = \"cookie\", name = \"who\" }"] {
        let origins = origins(&["a", "b", "c", "d"]);
        let weir = Weir::start(&conf(&origins, &format!("balance = \"hash\"\nhash = {key}")));
        let before = homes(&weir);
        for name in ["a", "b", "c", "d"] {
            let count = before.values().filter(|home| *home == name).count();
            assert!((4..=28).contains(&count), "{key}: {name} has {count} of 60");
        }
        assert_eq!(homes(&weir), before, "{key}");
        let path = |verb: &str| format!("/api/v1/splits/shop/versions/v1/{verb}");
        let drained = json!({"endpoint": origins[1].address.to_string()});
        assert_eq!(weir.admin.post(&path("drain"), drained.clone()).status(), 200);
        let without = homes(&weir);
        for (user, home) in &before {
            if home == "b" {
                assert_ne!(without[user], "b", "{key}");
            } else {
                assert_eq!(without[user], *home, "{key}: {user} had no reason to move");
            }
        }
        assert_eq!(weir.admin.post(&path("undrain"), drained).status(), 200);
        assert_eq!(homes(&weir), before, "{key}");
    }
}

#[test]
fn one_client_address_is_one_key_and_no_key_is_spread() {
    let of = |line: &str| {
        let origins = origins(&["a", "b", "c"]);
        let weir = Weir::start(&conf(&origins, line));
        (0..60).for_each(|_| assert_eq!(weir.connect().get("/").unwrap().status(), 200));
        origins.iter().filter(|origin| origin.requests() > 0).count()
    };
    assert_eq!(of("balance = \"hash\""), 1);
    assert_eq!(of("balance = \"hash\"\nhash = { by = \"header\", name = \"x-user\" }"), 3);
}

#[test]
fn an_endpoint_that_is_added_starts_slowly() {
    let origins = origins(&["old", "new"]);
    let slow = "drain = { slow_start = \"10m\" }";
    let weir = Weir::start(&conf(&origins[..1], slow));
    assert_eq!(weir.connect().get("/").unwrap().text(), "old");
    weir.edit(&conf(&origins, slow));
    let mut client = weir.connect();
    wait_until("it takes part", || {
        client.get("/").unwrap();
        origins[1].requests() > 0
    });
    let (old, new) = (origins[0].requests(), origins[1].requests());
    (0..1000).for_each(|_| assert_eq!(client.get("/").unwrap().status(), 200));
    let (old, new) = (origins[0].requests() - old, origins[1].requests() - new);
    // A tenth of its weight beside a whole one: one in eleven.
    assert!((45..150).contains(&new), "{new} of {}", old + new);
    // Those that are there from the start share evenly.
    let weir = Weir::start(&conf(&origins, slow));
    let before = origins[1].requests();
    let mut client = weir.connect();
    (0..300).for_each(|_| assert_eq!(client.get("/").unwrap().status(), 200));
    assert!((100..200).contains(&(origins[1].requests() - before)));
}
