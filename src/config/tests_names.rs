//! Endpoints as they are written: addresses with weights, names, services, paths.

use std::path::Path;
use std::time::Duration;

use super::tests::{GOOD, check, problems, with};
use super::*;

const NAMES: &str = include_str!("../../config/names.toml");

#[test]
fn endpoints_have_weights() {
    let text = with("[\"127.0.0.1:9002\"]", "[\"127.0.0.1:9002\", { address = \"127.0.0.1:9003\", weight = 2 }]");
    let config = check(&text).config.unwrap();
    let found: Vec<_> = config.splits[0].versions[1].weighted_addresses().map(|(a, w)| (a.to_string(), w)).collect();
    assert_eq!(found, [("127.0.0.1:9002".to_owned(), 1), ("127.0.0.1:9003".to_owned(), 2)]);
    for (endpoints, problem) in [
        (
            "[{ address = \"127.0.0.1:9002\", weight = 1000001 }]",
            "out-of-range 7:73 splits.shop.versions.v2.endpoints[0].weight",
        ),
        ("[{ address = \"127.0.0.1:9002\", weight = 0 }]", "no-weight 7:33 splits.shop.versions.v2.endpoints"),
    ] {
        assert_eq!(problems(&with("[\"127.0.0.1:9002\"]", endpoints)), [problem]);
    }
}

#[test]
fn names_and_paths_are_endpoints_too() {
    let endpoints = "[\"Shop.internal:9000\", \"srv+_http._tcp.shop\", \"unix:/run/shop.sock\"]";
    let text = with("[\"127.0.0.1:9002\"]", &format!("{endpoints}, dns_refresh = \"5s\""))
        + "[dns]\nservers = [\"10.0.0.2\", \"[::1]:5353\"]\n";
    let config = check(&text).config.unwrap();
    let version = &config.splits[0].versions[1];
    assert_eq!(
        version.names().map(ToString::to_string).collect::<Vec<_>>(),
        ["shop.internal:9000", "srv+_http._tcp.shop"]
    );
    assert_eq!(version.addresses().map(ToString::to_string).collect::<Vec<_>>(), ["unix:/run/shop.sock"]);
    assert_eq!(version.dns_refresh, Duration::from_secs(5));
    assert_eq!(config.splits[0].versions[0].dns_refresh, Duration::from_secs(30));
    assert_eq!(config.dns.servers, ["10.0.0.2:53", "[::1]:5353"].map(|at| at.parse().unwrap()));
    assert_eq!(config.dns.hosts, Path::new("/etc/hosts"));
    let again = check(&effective(&config)).config.unwrap();
    assert_eq!(again, config);
}

#[test]
fn mistakes_about_names_are_told_with_their_place() {
    let endpoint = |text: &str| with("[\"127.0.0.1:9002\"]", text);
    for (text, problem) in [
        (endpoint("[\"a.test:80\", \"A.test:80\"]"), "duplicate-name 7:47 splits.shop.versions.v2.endpoints[1]"),
        (
            endpoint("[\"a_b.test:80\"], dns_refresh = \"10ms\""),
            "out-of-range 7:64 splits.shop.versions.v2.dns_refresh",
        ),
        (endpoint("[\"https://unix:/run/a\"]"), "bad-address 7:34 splits.shop.versions.v2.endpoints[0]"),
        (endpoint("[\"unix:/a\"], tls = {}"), "bad-address 7:46 splits.shop.versions.v2.tls"),
        (format!("{GOOD}[dns]\nservers = [\"dns.test\"]"), "bad-address 9:12 dns.servers[0]"),
    ] {
        assert_eq!(problems(&text), [problem], "{text}");
    }
}

#[test]
fn the_example_with_names_says_what_it_says() {
    let Loaded { config, report, .. } = check(NAMES);
    assert!(report.diagnostics.is_empty());
    let config = config.unwrap();
    let written = |version: usize| -> Vec<String> {
        config.splits[0].versions[version].endpoints.iter().map(|spec| spec.target.to_string()).collect()
    };
    assert_eq!(written(0), ["shop-v1.internal:9000", "10.0.0.12:9000"]);
    assert_eq!(
        (written(1), config.splits[0].versions[1].endpoints[0].weight),
        (vec!["shop-v2.internal:9443".into()], 2)
    );
    assert_eq!(
        (written(2), written(3)),
        (vec!["srv+_http._tcp.shop-v3.internal".into()], vec!["unix:/run/shop-v4.sock".into()])
    );
    assert_eq!(check(&effective(&config)).config.unwrap(), config);
}
