//! `weigh_by = "endpoints"`: a version's share follows the number of its endpoints that are available.

use serde_json::json;

use crate::support::{Conf, Load, Origin, Plan, Weir, free_address, wait_until};

const BY_ENDPOINTS: &str = "weigh_by = \"endpoints\"";

fn history(weir: &Weir) -> usize {
    weir.admin.json("/api/v1/history?split=shop").to_string().matches("\"revision\":").count()
}

fn wait_weights(weir: &Weir, wanted: (u64, u64)) {
    wait_until(&format!("the weights are {wanted:?}"), || weir.admin.weights() == wanted);
}

#[test]
fn instances_replaced_one_by_one_move_the_share_and_lose_nothing() {
    let old: Vec<_> = (0..3).map(|_| Origin::named("v1")).collect();
    let new: Vec<_> = (0..3).map(|_| Origin::named("v2")).collect();
    let conf = |replaced: usize| {
        let old: Vec<_> = old[replaced..].iter().map(|o| o.address).collect();
        let new: Vec<_> = new[..replaced].iter().map(|o| o.address).collect();
        let weight = |endpoints: &[_]| u32::from(!endpoints.is_empty());
        let conf = Conf::shop(&[("v1", weight(&old), &old), ("v2", weight(&new), &new)]);
        conf.split(BY_ENDPOINTS).split("stable = \"v1\"")
    };
    let weir = Weir::start(&conf(0));
    assert_eq!(weir.admin.weights(), (3, 0));
    let load = Load::start(&Plan { address: weir.web(), connections: 4, pace: None, until_refused: false });
    for replaced in 1..=3 {
        weir.edit(&conf(replaced));
        let replaced = replaced as u64;
        wait_weights(&weir, (3 - replaced, replaced));
        if replaced < 3 {
            // An instance answers by its part, whichever version it is of.
            let before = new[0].requests();
            wait_until("requests go there", || new[0].requests() >= before + 200);
        }
    }
    let report = load.stop();
    report.expect_no_failure();
    let seen = report.by_version();
    assert!(seen["v1"] > 0 && seen["v2"] > 0, "{seen:?}");
}

#[test]
fn what_is_drained_or_ejected_takes_its_weight_along() {
    let (v1, v2) = ([Origin::named("v1"), Origin::named("v1")], [Origin::named("v2"), Origin::named("v2")]);
    let dead = free_address();
    let conf =
        Conf::shop(&[("v1", 2, &[v1[0].address, v1[1].address, dead]), ("v2", 1, &[v2[0].address, v2[1].address])]);
    let weir = Weir::start(&conf.split(BY_ENDPOINTS).split("eject = { errors = 3, for = \"60s\" }"));
    assert_eq!((weir.admin.weights(), weir.admin.file_weights()), ((6, 2), (2, 1)));
    let before = history(&weir);
    wait_until("the dead one is out", || {
        weir.connect().get("/").unwrap();
        weir.admin.weights() == (4, 2)
    });
    let shop = weir.admin.shop();
    assert_eq!((shop["state"].as_str(), shop["source"].as_str()), (Some("steady"), Some("file")));
    assert_eq!(history(&weir), before, "nobody has ordered anything");
    let path = |verb: &str| format!("/api/v1/splits/shop/versions/v2/{verb}");
    let endpoint = json!({"endpoint": v2[0].address.to_string()});
    assert_eq!(weir.admin.post(&path("drain"), endpoint.clone()).status(), 200);
    assert_eq!(weir.admin.weights(), (4, 1), "an order is in force with its answer");
    assert_eq!(weir.admin.post(&path("undrain"), endpoint).status(), 200);
    wait_weights(&weir, (4, 2));
}

#[test]
fn an_override_suspends_it_and_release_brings_it_back() {
    let (v1, v2) = ([Origin::named("v1"), Origin::named("v1")], Origin::named("v2"));
    let conf = Conf::shop(&[("v1", 1, &[v1[0].address, v1[1].address]), ("v2", 1, &[v2.address])]);
    let weir = Weir::start(&conf.split(BY_ENDPOINTS));
    assert_eq!(weir.admin.weights(), (2, 1));
    weir.admin.shift(30, 70);
    let endpoint = json!({"endpoint": v1[0].address.to_string()});
    assert_eq!(weir.admin.post("/api/v1/splits/shop/versions/v1/drain", endpoint).status(), 200);
    assert_eq!(weir.admin.weights(), (30, 70));
    weir.admin.rollback();
    assert_eq!(weir.admin.weights(), (100, 0));
    assert_eq!(weir.admin.delete("/api/v1/splits/shop/override").status(), 200);
    assert_eq!(weir.admin.weights(), (1, 1));
}
