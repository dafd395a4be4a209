//! Listeners come, go and move by reload; the others do not notice.

use crate::support::{Conf, Connection, Load, Origin, Weir, free_address, wait_until};

#[test]
fn added_rebound_and_removed_without_touching_the_others() {
    let origin = Origin::named("v1");
    let conf = Conf::one(origin.address);
    let weir = Weir::start(&conf);
    let load = Load::steady(weir.web());
    let mut client = weir.connect();
    assert_eq!(client.get("/").unwrap().text(), "v1");
    let [first, second] = [free_address(), free_address()];
    let with = |address| conf.clone().tail(&format!("[listeners.extra]\nbind = \"{address}\""));
    let serves = |address| Connection::open(address).and_then(|mut c| c.get("/")).is_ok_and(|a| a.text() == "v1");

    weir.edit(&with(first));
    wait_until("the new listener serves", || serves(first));
    assert_eq!(client.get("/").unwrap().text(), "v1", "the old connection lives");

    let mut on_extra = Connection::open(first).unwrap();
    assert_eq!(on_extra.get("/").unwrap().text(), "v1");
    weir.edit(&with(second));
    wait_until("it serves at its new address", || serves(second));
    wait_until("and no more at the old", || Connection::open(first).is_err());
    assert_eq!(client.get("/").unwrap().text(), "v1");

    weir.edit(&conf);
    wait_until("it is gone", || Connection::open(second).is_err());
    assert_eq!(client.get("/").unwrap().text(), "v1");
    assert!(weir.connect().get("/").is_ok());
    load.stop().expect_no_failure();
}

#[test]
fn a_removed_listener_loses_no_request() {
    let origin = Origin::named("v1");
    let extra = free_address();
    let conf = Conf::one(origin.address);
    let weir = Weir::start(&conf.clone().tail(&format!("[listeners.extra]\nbind = \"{extra}\"")));
    let pace = Some(std::time::Duration::from_millis(2));
    let load = Load::start(&crate::support::Plan { address: extra, connections: 8, pace, until_refused: true });
    load.wait_for_more(50);
    weir.edit(&conf);
    wait_until("its clients are refused at last", || load.is_over());
    load.stop().expect_no_failure();
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
}

#[test]
fn routes_may_belong_to_listeners() {
    let [one, two] = ["one", "two"].map(Origin::named);
    let extra = free_address();
    let routes =
        "[[routes]]\nlisteners = [\"web\"]\nsplit = \"shop\"\n[[routes]]\nlisteners = [\"extra\"]\nsplit = \"other\"";
    let tail = format!(
        "[listeners.extra]\nbind = \"{extra}\"\n[splits.other.versions]\nv1 = {{ endpoints = [\"{}\"] }}",
        two.address
    );
    let weir = Weir::start(&Conf::one(one.address).routes(routes).tail(&tail));
    assert_eq!(weir.connect().get("/").unwrap().text(), "one");
    assert_eq!(Connection::open(extra).unwrap().get("/").unwrap().text(), "two");
}

#[test]
fn a_listener_may_have_several_addresses() {
    let origin = Origin::named("v1");
    let [first, second] = [free_address(), free_address()];
    let text = Conf::one(origin.address).text().replacen(
        "bind = \"127.0.0.1:0\"",
        &format!("bind = [\"{first}\", \"{second}\"]"),
        1,
    );
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let config = dir.path().join("weir.toml");
    std::fs::write(&config, text.replace("@DIR@", dir.path().to_str().unwrap())).unwrap();
    let _weir = Weir::start_in(dir, config, 0);
    for address in [first, second] {
        assert_eq!(Connection::open(address).unwrap().get("/").unwrap().text(), "v1");
    }
}

#[test]
fn the_telemetry_listener_serves_only_metrics_and_probes() {
    let origin = Origin::named("v1");
    let address = free_address();
    let weir = Weir::start(&Conf::one(origin.address).tail(&format!("[telemetry]\nbind = \"{address}\"")));
    let telemetry = crate::support::Admin { address };
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(telemetry.get(path).status(), 200, "{path}");
    }
    assert_eq!(telemetry.get("/api/v1/status").status(), 404);
    assert_eq!(weir.admin.get("/metrics").status(), 200);
}
