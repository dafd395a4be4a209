//! Names as endpoints: traffic follows the answer, and no answer takes anything away.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::support::{
    Authority, Conf, Load, NameServer, Origin, Reply, Weir, free_address, wait_for, wait_until, weir,
};

const NAME: &str = "shop.test";

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// `v1` at this name and port; it is asked for again each second.
fn conf(server: &NameServer, port: u16) -> Conf {
    Conf::at(&[&format!("{NAME}:{port}")]).version("v1", "dns_refresh = \"1s\"").tail(&server.section())
}

fn name_of(weir: &Weir) -> Value {
    weir.admin.shop()["versions"][0]["names"][0].clone()
}

fn wait_state(weir: &Weir, state: &str) -> Value {
    wait_for(&format!("the name is {state}"), || Some(name_of(weir)).filter(|name| name["state"] == state))
}

fn addresses(weir: &Weir) -> Vec<String> {
    let shop = weir.admin.shop();
    let endpoints = shop["versions"][0]["endpoints"].as_array().unwrap().iter();
    let up = endpoints.filter(|endpoint| endpoint["state"] == "up");
    up.map(|endpoint| endpoint["address"].as_str().unwrap().to_owned()).collect()
}

fn count_events(weir: &Weir, event: &str) -> usize {
    weir.stderr().lines().filter(|line| line.contains(&format!("\"{event}\""))).count()
}

#[test]
fn traffic_follows_growing_and_shrinking_answers() {
    let (port, origins) = Origin::on_one_port(&[ip(1), ip(2), ip(3)]);
    // The records live long; the configuration says how often to look all the same.
    let server = NameServer::with(NAME, &[ip(1)], 3600);
    let weir = Weir::start(&conf(&server, port));
    wait_state(&weir, "fresh");
    let before = weir.admin.shop();
    let load = Load::steady(weir.web());
    server.set(NAME, Reply::Addresses(vec![ip(3), ip(2), ip(1)], 3600));
    wait_until("the new addresses get requests", || origins[1].requests() > 10 && origins[2].requests() > 10);
    assert_eq!(addresses(&weir), [1, 2, 3].map(|last| format!("{}:{port}", ip(last))));

    server.set(NAME, Reply::Addresses(vec![ip(2)], 3600));
    wait_until("the old ones are left", || addresses(&weir) == [format!("{}:{port}", ip(2))]);
    wait_until("their connections are closed", || origins[0].open() + origins[2].open() == 0);
    let (first, third) = (origins[0].requests(), origins[2].requests());
    load.wait_for_more(50);
    assert_eq!((origins[0].requests(), origins[2].requests()), (first, third), "a removed address got a request");

    server.set(NAME, Reply::Addresses(vec![ip(1)], 3600));
    wait_until("all goes elsewhere", || addresses(&weir) == [format!("{}:{port}", ip(1))]);
    load.wait_for_more(50);
    load.stop().expect_no_failure();
    let after = weir.admin.shop();
    for key in ["revision", "weights", "source", "state"] {
        assert_eq!(before[key], after[key], "nobody ordered anything");
    }
    let history = weir.admin.json("/api/v1/history");
    assert_eq!(history["history"].as_array().unwrap().len(), 1, "{history}");
}

#[test]
fn it_is_asked_for_as_often_as_its_records_say() {
    let (port, origins) = Origin::on_one_port(&[ip(1), ip(2)]);
    let server = NameServer::with(NAME, &[ip(1)], 1);
    let conf = Conf::at(&[&format!("{NAME}:{port}")]).version("v1", "dns_refresh = \"1h\"");
    let weir = Weir::start(&conf.tail(&server.section()));
    wait_state(&weir, "fresh");
    server.set(NAME, Reply::Addresses(vec![ip(2)], 3600));
    wait_until("the change is seen", || addresses(&weir) == [format!("{}:{port}", ip(2))]);
    assert_eq!(weir.connect().get("/").unwrap().text(), "127.0.0.2");
    assert_eq!((origins[0].requests(), origins[1].requests()), (0, 1));
}

#[test]
fn no_bad_answer_takes_anything_away() {
    let (port, _origins) = Origin::on_one_port(&[ip(1), ip(2)]);
    let server = NameServer::with(NAME, &[ip(1), ip(2)], 1);
    let weir = Weir::start(&conf(&server, port));
    wait_state(&weir, "fresh");
    let load = Load::steady(weir.web());
    let both = addresses(&weir);
    assert_eq!(both.len(), 2);
    let bad = [
        (Reply::Empty, "it has no address"),
        (Reply::NxDomain, "NXDOMAIN"),
        (Reply::ServFail, "the name server says"),
        (Reply::Addresses(Vec::new(), 1), "it has no address"),
        (Reply::Silence, "no answer in time"),
    ];
    for (n, (reply, error)) in bad.into_iter().enumerate() {
        server.set(NAME, reply.clone());
        let name = wait_state(&weir, "stale");
        assert!(name["error"].as_str().unwrap().contains(error), "{reply:?}: {name}");
        assert_eq!(name["addresses"], 2);
        assert_eq!(addresses(&weir), both, "{reply:?}");
        wait_until("its age is told", || {
            weir.admin.metric("weir_dns_stale_seconds", &[("name", &format!("{NAME}:{port}"))]) > Some(0.0)
        });
        let told = weir.cli(&["status", "shop"]).expect_code(0);
        assert!(told.stdout.contains(&format!("! v1: {NAME}:{port} is not resolved")), "{told:?}");
        server.set(NAME, Reply::Addresses(vec![ip(1), ip(2)], 1));
        wait_state(&weir, "fresh");
        assert_eq!(count_events(&weir, "name-not-resolved"), n + 1, "told once: {}", weir.stderr());
    }
    load.stop().expect_no_failure();
    for result in ["answered", "empty", "failed", "timeout"] {
        wait_until(result, || weir.admin.count("weir_dns_lookups_total", &[("result", result)]) > 0.0);
    }
}

#[test]
fn a_name_that_is_not_there_yet_stops_nothing() {
    let (port, _origins) = Origin::on_one_port(&[ip(1)]);
    let server = NameServer::new();
    let weir = Weir::start(&conf(&server, port));
    let name = wait_state(&weir, "unresolved");
    assert_eq!((&name["addresses"], &name["age_seconds"]), (&json!(0), &Value::Null));
    assert_eq!(name["name"], format!("{NAME}:{port}"));
    let answer = weir.connect().get("/").unwrap();
    assert_eq!((answer.status(), answer.head.get("weir-error")), (503, Some("no-endpoint")));
    let told = weir.cli(&["status"]).expect_code(0);
    assert!(told.stdout.contains("NXDOMAIN") && told.stdout.contains("it has no address yet"), "{told:?}");
    wait_until("it is asked for again", || server.questions(NAME) > 2);
    assert_eq!(count_events(&weir, "name-not-resolved"), 1);
    server.set(NAME, Reply::Addresses(vec![ip(1)], 60));
    wait_until("it is there", || weir.connect().get("/").unwrap().status() == 200);
    wait_state(&weir, "fresh");
    assert_eq!(count_events(&weir, "name-resolved"), 1);
}

#[test]
fn check_tells_of_names_without_waiting_for_them() {
    let server = NameServer::with(NAME, &[ip(1)], 60);
    server.set("silent.test", Reply::Silence);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("weir.toml");
    let endpoints = [&format!("{NAME}:80"), "gone.test:80", "silent.test:80"];
    std::fs::write(&config, Conf::at(&endpoints).tail(&server.section()).text()).unwrap();
    let file = config.to_str().unwrap();
    let done = weir(&["check", file]).expect_code(0);
    for told in [
        "warning[name-not-resolved]: `gone.test:80` of version `v1` of split `shop`: it does not exist (NXDOMAIN)",
        "`silent.test:80` of version `v1` of split `shop`: no answer in time",
        "0 errors, 2 warnings",
    ] {
        assert!(done.stdout.contains(told), "{told}: {}", done.stdout);
    }
    assert!(!done.stdout.contains(&format!("`{NAME}:80`")), "{}", done.stdout);
    weir(&["check", "--strict", file]).expect_code(3);
}

#[test]
fn traffic_is_asked_for_once_the_names_are_answered() {
    let (port, _origins) = Origin::on_one_port(&[ip(1)]);
    let server = NameServer::with(NAME, &[ip(1)], 60);
    let weir = Weir::start(&conf(&server, port));
    wait_until("it is ready", || weir.admin.get("/readyz").status() == 200);
    assert_eq!(name_of(&weir)["state"], "fresh");
    assert_eq!(weir.connect().get("/").unwrap().text(), "127.0.0.1");

    server.set(NAME, Reply::Silence);
    let weir = Weir::start(&conf(&server, port));
    wait_until("it is ready all the same", || weir.admin.get("/readyz").status() == 200);
    assert_eq!(name_of(&weir)["state"], "resolving");
}

#[test]
fn a_reload_waits_for_no_name() {
    let (port, _origins) = Origin::on_one_port(&[ip(1)]);
    let server = NameServer::new();
    server.set(NAME, Reply::Silence);
    let other = Origin::named("other");
    let weir = Weir::start(&conf(&server, port));
    assert_eq!(name_of(&weir)["state"], "resolving", "ready although nobody has answered");
    weir.edit(&Conf::at(&[&format!("new.test:{port}"), &other.address.to_string()]).tail(&server.section()));
    server.set("new.test", Reply::Silence);
    weir.cli(&["reload"]).expect_code(0);
    assert_eq!(name_of(&weir)["name"], format!("new.test:{port}"));
    assert_eq!(name_of(&weir)["state"], "resolving", "reloaded although nobody has answered");
    assert_eq!(weir.connect().get("/").unwrap().text(), "other");
}

#[test]
fn the_last_good_answer_outlives_a_file_without_the_name() {
    let (port, _origins) = Origin::on_one_port(&[ip(1)]);
    let server = NameServer::with(NAME, &[ip(1)], 1);
    let other = Origin::named("other");
    let weir = Weir::start(&conf(&server, port));
    wait_state(&weir, "fresh");
    weir.edit(&Conf::one(other.address).tail(&server.section()));
    wait_until("the name is gone", || weir.connect().get("/").unwrap().text() == "other");
    server.set(NAME, Reply::Silence);
    let load = Load::steady(weir.web());
    weir.edit(&conf(&server, port));
    wait_until("the name is back", || weir.connect().get("/").unwrap().text() == "127.0.0.1");
    load.wait_for_more(20);
    load.stop().expect_no_failure();
    assert_eq!(name_of(&weir)["addresses"], 1);
}

#[test]
fn a_thousand_records_are_cut_in_the_same_way_each_time() {
    let origin = Origin::named("v1");
    let mut all: Vec<Ipv4Addr> = (0..1000_u32).map(|n| Ipv4Addr::from(0x7f01_0000 + n)).collect();
    let server = NameServer::with("large.test", &all, 1);
    let large = "v2 = { weight = 0, endpoints = [\"large.test:9\"], dns_refresh = \"1s\" }";
    let text = Conf::one(origin.address).tail(&server.section()).text();
    let weir = Weir::start_text(&text.replace("[admin]", &format!("{large}\n[admin]")));
    let found = || -> Vec<Value> {
        let shop = weir.admin.shop();
        shop["versions"][1]["endpoints"].as_array().unwrap().iter().map(|e| e["address"].clone()).collect()
    };
    wait_until("they are there", || found().len() == 256);
    assert!(server.over_tcp() > 0, "they do not fit a datagram");
    let first = found();
    assert_eq!((&first[0], &first[255]), (&json!("127.1.0.0:9"), &json!("127.1.0.255:9")));
    all.reverse();
    server.set("large.test", Reply::Addresses(all, 1));
    let asked = server.over_tcp();
    wait_until("it is asked for again", || server.over_tcp() > asked + 2);
    assert_eq!(found(), first);
    assert_eq!(count_events(&weir, "name-too-large"), 1);
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
}

#[test]
fn the_hosts_file_needs_no_server() {
    let (port, _origins) = Origin::on_one_port(&[ip(1), ip(2)]);
    let server = NameServer::new();
    server.set(NAME, Reply::Silence);
    let hosts = |ip: Ipv4Addr| format!("127.0.0.1 localhost\n{ip} SHOP.test other.test # the shop\n");
    let weir = Weir::start_with(&conf(&server, port), &[], &[("hosts", &hosts(ip(1)))]);
    wait_until("it answers", || weir.connect().get("/").unwrap().text() == "127.0.0.1");
    crate::support::replace(weir.dir(), "hosts", &hosts(ip(2)));
    wait_until("the edit is followed", || weir.connect().get("/").unwrap().text() == "127.0.0.2");
    assert_eq!(server.questions(NAME), 0);

    let local = Weir::start(&Conf::at(&[&format!("localhost:{port}")]).tail(&server.section()));
    assert_eq!(local.connect().get("/").unwrap().text(), "127.0.0.1");
    assert_eq!(server.questions("localhost"), 0);
}

#[test]
fn services_bring_ports_and_the_lowest_priority_counts() {
    let origins = [Origin::named("a"), Origin::named("b"), Origin::named("spare")];
    let ports = origins.each_ref().map(|origin| origin.address.port());
    let server = NameServer::with("host.test", &[ip(1)], 1);
    let all = |lowest: u16| {
        let [a, b, spare] = ports;
        let host = "host.test";
        vec![(lowest, 10, a, host), (lowest, 30, b, host), (20, 0, spare, host), (lowest, 0, 9, "none.test")]
    };
    server.set("_http._tcp.shop.test", Reply::Services(all(10), 1));
    let conf = Conf::at(&["srv+_http._tcp.shop.test"]).version("v1", "dns_refresh = \"1s\", host = \"endpoint\"");
    let weir = Weir::start(&conf.tail(&server.section()));
    let mut wanted: Vec<String> = ports[..2].iter().map(|port| format!("127.0.0.1:{port}")).collect();
    wanted.sort();
    wait_until("the services are there", || {
        let mut found = addresses(&weir);
        found.sort();
        found == wanted
    });
    let mut client = weir.connect();
    assert!((0..50).all(|_| ["a", "b"].contains(&client.get("/").unwrap().text().as_str())));
    let host = format!("host.test:{}", ports[0]);
    assert!(origins[0].heads().iter().all(|head| head.get("host") == Some(&host)), "{:?}", origins[0].heads());
    server.set("_http._tcp.shop.test", Reply::Services(all(30), 1));
    wait_until("the spare one serves", || weir.connect().get("/").unwrap().text() == "spare");
}

#[test]
fn tls_asks_for_the_name() {
    let authority = Authority::new();
    let origin = Origin::secure(authority.server(&authority.sign(NAME), false), |exchange| exchange.ok("v1"));
    let (server, port) = (NameServer::with(NAME, &[ip(1)], 60), origin.address.port());
    let conf = Conf::at(&[&format!("https://{NAME}:{port}")])
        .version("v1", "tls = { ca = \"ca.pem\" }, host = \"endpoint\"")
        .tail(&server.section());
    let weir = Weir::start_with(&conf, &[], &[("ca.pem", &authority.pem)]);
    wait_state(&weir, "fresh");
    let answer = weir.connect().get("/").unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "v1"), "{:?}", answer.head);
    assert_eq!(origin.only_head().get("host"), Some(format!("{NAME}:{port}").as_str()));

    server.set("other.test", Reply::Addresses(vec![ip(1)], 60));
    let conf = Conf::at(&[&format!("https://other.test:{port}")]).version("v1", "tls = { ca = \"ca.pem\" }");
    let weir = Weir::start_with(&conf.tail(&server.section()), &[], &[("ca.pem", &authority.pem)]);
    wait_state(&weir, "fresh");
    let answer = weir.connect().get("/").unwrap();
    assert_eq!((answer.status(), answer.head.get("weir-error")), (502, Some("upstream-tls")));
}

#[test]
fn no_name_leads_to_the_admin_api() {
    let admin = free_address();
    let server = NameServer::with(NAME, &[ip(1)], 1);
    let weir = Weir::start(&conf(&server, admin.port()).admin_bind(admin));
    let name = wait_state(&weir, "unresolved");
    assert!(name["error"].as_str().unwrap().contains("admin address"), "{name}");
    assert_eq!(weir.connect().get("/api/v1/status").unwrap().status(), 503);
}

#[test]
fn a_name_that_several_versions_have_is_asked_for_once() {
    let (port, _origins) = Origin::on_one_port(&[ip(1)]);
    let server = NameServer::with(NAME, &[ip(1)], 3600);
    let version = |name| format!("{name} = {{ weight = 1, endpoints = [\"{NAME}:{port}\"], dns_refresh = \"1h\" }}");
    let more = format!("{}\n[splits.other.versions]\n{}\n[admin]", version("v2"), version("v1"));
    let text = conf(&server, port).text().replace("dns_refresh = \"1s\"", "dns_refresh = \"1h\"");
    let weir = Weir::start_text(&text.replace("[admin]", &more));
    wait_state(&weir, "fresh");
    let status = weir.admin.json("/api/v1/splits");
    for version in
        [&status["splits"][0]["versions"][0], &status["splits"][0]["versions"][1], &status["splits"][1]["versions"][0]]
    {
        assert_eq!(
            (&version["names"][0]["state"], version["endpoints"].as_array().unwrap().len()),
            (&json!("fresh"), 1)
        );
    }
    assert_eq!(server.questions(NAME), 1);
}

#[test]
fn a_drained_address_stays_drained_whatever_the_answers() {
    let (port, origins) = Origin::on_one_port(&[ip(1), ip(2)]);
    let server = NameServer::with(NAME, &[ip(1), ip(2)], 1);
    let weir = Weir::start(&conf(&server, port));
    wait_state(&weir, "fresh");
    let drained = format!("{}:{port}", ip(1));
    weir.cli(&["drain", &format!("shop/v1/{drained}")]).expect_code(0);
    let only_second = |weir: &Weir| {
        let mut client = weir.connect();
        (0..50).all(|_| client.get("/").unwrap().text() == "127.0.0.2")
    };
    assert!(only_second(&weir));
    server.set(NAME, Reply::Addresses(vec![ip(2)], 1));
    wait_until("it leaves", || weir.admin.shop()["versions"][0]["endpoints"].as_array().unwrap().len() == 1);
    server.set(NAME, Reply::Addresses(vec![ip(1), ip(2)], 1));
    wait_until("it is back", || weir.admin.shop()["versions"][0]["endpoints"].as_array().unwrap().len() == 2);
    assert!(only_second(&weir));
    let weir = weir.kill_and_restart();
    wait_state(&weir, "fresh");
    assert!(only_second(&weir), "an acknowledged drain is not forgotten");
    weir.cli(&["undrain", &format!("shop/v1/{drained}")]).expect_code(0);
    assert!(!only_second(&weir));
    assert!(origins[0].requests() > 0);
    let unknown = weir.admin.post("/api/v1/splits/shop/versions/v1/drain", json!({"endpoint": "127.0.0.9:1"}));
    assert_eq!(unknown.status(), 404, "{}", unknown.text());
    assert!(unknown.text().contains(&drained), "{}", unknown.text());
}
