//! What a request costs in each room it passes: route match, pick, claim and drop, snapshot load, cell record.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use weir::config::{Config, check_text};
use weir::model::{Instant, SplitName, VersionName};
use weir::pool::{Endpoint, Pool};
use weir::routing::{Deck, Query, RouteTable, Shares, normal_host, normal_path};
use weir::telemetry::{Cells, Counted, Finish};

/// 200 routes over 20 hosts, as a busy edge has them.
fn config() -> Config {
    let mut text = String::from("[listeners.web]\nbind = \"127.0.0.1:0\"\n");
    for i in 0..200 {
        let (host, path) = (i % 20, i / 20);
        text += &format!(
            "[[routes]]\nmatch = {{ host = \"h{host}.example.com\", path_prefix = \"/p{path}\" }}\nsplit = \"shop\"\n"
        );
    }
    text += "[splits.shop.versions]\nv1 = { weight = 90, endpoints = [\"127.0.0.1:1\"] }\n\
             v2 = { weight = 10, endpoints = [\"127.0.0.1:2\"] }\n";
    let loaded = check_text("bench.toml", &text, &|_| None);
    loaded.config.expect("the text above is valid")
}

fn route(c: &mut Criterion) {
    let (table, headers) = (RouteTable::new(&config()), http::HeaderMap::new());
    c.bench_function("route match, 200 routes", |b| {
        b.iter(|| {
            let host = normal_host(black_box("h7.example.com:8080")).unwrap_or_default();
            let path = normal_path(black_box("/p4/items/17")).unwrap_or_default();
            let query = Query {
                listener: Some(0),
                host: &host,
                path: &path,
                method: "GET",
                headers: &headers,
                query: None,
                client: None,
            };
            table.find(&query)
        });
    });
}

fn pick(c: &mut Criterion) {
    let config = config();
    let weights: Vec<_> = config.splits[0].versions.iter().map(|v| v.weight).enumerate().collect();
    let (shares, mut rng) = (Shares::new(&weights), fastrand::Rng::with_seed(1));
    let mut deck = Deck::new(&mut rng);
    c.bench_function("pick a version", |b| b.iter(|| shares.pick(deck.deal(&mut rng))));
}

fn claim(c: &mut Criterion) {
    let endpoints = (0..8).map(|i| Arc::new(Endpoint::new(SocketAddr::from(([127, 0, 0, 1], 9000 + i)))));
    let (pool, mut rng) = (Pool::new(endpoints, 1024), fastrand::Rng::with_seed(1));
    c.bench_function("claim and drop, 8 endpoints", |b| b.iter(|| pool.claim(0, &mut rng).map(|(i, _claim)| i)));
}

fn snapshot(c: &mut Criterion) {
    let shared = Arc::new(arc_swap::ArcSwap::from_pointee(config()));
    let mut cache = arc_swap::Cache::new(shared);
    c.bench_function("snapshot load", |b| b.iter(|| Arc::as_ptr(cache.load())));
}

fn record(c: &mut Criterion) {
    let (Ok(split), Ok(version)) = (SplitName::new("shop"), VersionName::new("v1")) else { return };
    let cell = Cells::new().version(0, &split, &version, 1);
    let latency = |n: u64| Duration::from_nanos(1_000_000 + n * 7919);
    let began = Instant::now();
    let finish_of = |latency| Finish {
        latency,
        first_byte: Some(latency),
        bad: false,
        bytes_in: 0,
        bytes_out: 1024,
        code: 200,
        began,
        age: latency,
        watched: Counted::No,
    };
    let mut n = 0;
    c.bench_function("cell record", |b| {
        b.iter_batched(
            || {
                n = (n + 1) % 100_000;
                finish_of(latency(n))
            },
            |finish| cell.finish(&finish),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(hot_path, route, pick, claim, snapshot, record);
criterion_main!(hot_path);
