//! The split is exact: shares to within one in a deck, by connection and in the sum.

use crate::support::{Conf, Load, Plan, Weir, pair, wait_until};

const DECK: usize = 128;

/// One connection is one worker, so its sequence is that worker's deck.
#[test]
fn every_deck_of_a_worker_is_exact() {
    let (v1, v2) = pair();
    let weir = Weir::start(&Conf::two((90, v1.address), (10, v2.address)));
    let mut client = weir.connect();
    let to_v2: Vec<bool> = (0..DECK * 20).map(|_| client.get("/").unwrap().text() == "v2").collect();
    let exact = |phase: usize| {
        let decks: Vec<usize> = to_v2[phase..].chunks_exact(DECK).map(|d| d.iter().filter(|v2| **v2).count()).collect();
        decks.iter().all(|n| (12..=13).contains(n))
    };
    assert!((0..DECK).any(exact), "10 % of 128 is 12.8: no phase has 12 or 13 in every deck");
    let gaps: Vec<usize> = to_v2.split(|v2| *v2).map(<[bool]>::len).collect();
    assert!(gaps.iter().max() > gaps[1..gaps.len() - 1].iter().min(), "dealt at equal distances: foreseeable");
}

#[test]
fn ninety_to_ten_over_ten_thousand_requests() {
    let (v1, v2) = pair();
    let workers = 2;
    let weir = Weir::start(&Conf::two((90, v1.address), (10, v2.address)).workers(workers));
    let load = Load::start(&Plan { address: weir.web(), connections: 8, pace: None, until_refused: false });
    let before = crate::support::Instant::now();
    wait_until("10,000 requests", || load.since(before, |_| true) >= 10_000 || load.has_failed());
    let report = load.stop();
    report.expect_no_failure();
    let total = report.served.len() as f64;
    let seen = report.by_version()["v2"] as f64;
    let off = (seen - total / 10.0).abs();
    assert!(off <= (DECK * workers) as f64, "{seen} of {total}: off by {off}");
    // What weir says of itself is what the clients saw.
    let admin = weir.admin;
    let counted = |version| admin.metric("weir_requests_total", &[("split", "shop"), ("version", version)]);
    wait_until("the metrics have all", || {
        counted("v1").unwrap_or_default() + counted("v2").unwrap_or_default() == total && counted("v2") == Some(seen)
    });
}

#[test]
fn weight_zero_gets_nothing_and_equal_weights_get_equal_shares() {
    let origins = ["v1", "v2", "v3"].map(crate::support::Origin::named);
    let conf = Conf::shop(&[
        ("v1", 1, &[origins[0].address]),
        ("v2", 1, &[origins[1].address]),
        ("v3", 0, &[origins[2].address]),
    ]);
    let weir = Weir::start(&conf);
    let mut client = weir.connect();
    for _ in 0..DECK * 4 {
        assert_eq!(client.get("/").unwrap().status(), 200);
    }
    assert_eq!(origins[2].requests(), 0);
    assert!(origins[0].requests().abs_diff(origins[1].requests()) <= DECK, "{}", origins[0].requests());
}

#[test]
fn endpoints_of_a_version_share_its_load() {
    let origins = ["a", "b", "c"].map(crate::support::Origin::named);
    let addresses = [origins[0].address, origins[1].address, origins[2].address];
    let weir = Weir::start(&Conf::shop(&[("v1", 1, &addresses)]));
    let mut client = weir.connect();
    for _ in 0..300 {
        assert_eq!(client.get("/").unwrap().status(), 200);
    }
    let counts = origins.each_ref().map(crate::support::Origin::requests);
    assert!(counts.iter().all(|n| *n >= 30), "{counts:?}");
}
