//! What a scenario plays on: a weir with a cleartext and a TLS listener before two splits of the same processes, `shop`
//! (HTTP/1.1) and `rpc` (HTTP/2: calls and half of the WebSockets, so that all four ways of those are gone).
//!
//! Retries are off, so that none can hide a failure.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::{Value, json};

use super::mix::Mix;
use super::origin::OriginProcess;
use super::plan::{HOST, Plan};
use crate::support::{Authority, Conf, Weir, tell, wait_until, weir};

/// A version: its name, its weight, its processes.
pub type Version<'a> = (&'a str, u32, &'a [OriginProcess]);

pub const SPLITS: [&str; 2] = ["shop", "rpc"];

/// A weir and who signed its certificate.
pub struct Stage {
    pub weir: Weir,
    authority: Authority,
    /// One scenario at a time: two together only starve each other.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Stage {
    #[track_caller]
    pub fn start(conf: &Conf) -> Self {
        // One that has failed leaves the stage as well.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let authority = Authority::new();
        let weir = Weir::start_with(conf, &[("app", &authority.sign(HOST))], &[]);
        Self { weir, authority, _turn: turn }
    }

    pub fn plan(&self) -> Plan {
        let mut plan = Plan::new(self.weir.web(), self.weir.listener("secure"), &self.authority);
        plan.long_sockets = closes_websockets();
        plan
    }

    /// The load; every client has had an answer.
    #[track_caller]
    pub fn load(&self) -> Mix {
        Mix::start(self.plan())
    }

    /// Until the configuration with that endpoint is in force.
    #[track_caller]
    pub fn wait_up(&self, version: &str, origin: &OriginProcess) {
        for (split, address) in SPLITS.iter().zip([origin.http1, origin.http2]) {
            let address = address.to_string();
            wait_until(&format!("{address} of {split} is up"), || {
                let split = self.weir.admin.json(&format!("/api/v1/splits/{split}"));
                let versions = split["versions"].as_array().unwrap();
                let endpoints =
                    versions.iter().filter(|v| v["name"] == version).flat_map(|v| v["endpoints"].as_array());
                endpoints.flatten().any(|e| e["address"] == address && e["state"] == "up")
            });
        }
    }

    /// Weights of `v1` and `v2` in both splits, in force when this returns.
    #[track_caller]
    pub fn put_weights(&self, v1: u32, v2: u32) {
        for split in SPLITS {
            let body = json!({"weights": {"v1": v1, "v2": v2}, "reason": "mixed"});
            let answer = self.weir.admin.put(&format!("/api/v1/splits/{split}/weights"), body);
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
    }
}

/// The file for these versions. Every process is an endpoint of both splits.
pub fn conf(versions: &[Version<'_>]) -> Conf {
    conf_at(SocketAddr::from(([127, 0, 0, 1], 0)), versions)
}

/// `conf`, with the address of listener `secure`.
pub fn conf_at(secure: SocketAddr, versions: &[Version<'_>]) -> Conf {
    let addresses = |of: fn(&OriginProcess) -> SocketAddr| -> Vec<_> {
        versions.iter().map(|(name, weight, all)| (*name, *weight, all.iter().map(of).collect::<Vec<_>>())).collect()
    };
    let shop = addresses(|o| o.http1);
    let shop: Vec<_> = shop.iter().map(|(name, weight, all)| (*name, *weight, all.as_slice())).collect();
    let mut rpc = "[splits.rpc.versions]\n".to_owned();
    for (name, weight, all) in addresses(|o| o.http2) {
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        rpc += &format!("{name} = {{ weight = {weight}, endpoints = {all:?}, protocol = \"http2\" }}\n");
    }
    let tunnels = if closes_websockets() { ", upgraded_timeout = \"1s\"" } else { "" };
    Conf::shop(&shop)
        .routes(
            "[[routes]]\nname = \"rpc\"\nmatch = { path_prefix = \"/rpc.Echo\" }\nsplit = \"rpc\"\n\
             [[routes]]\nname = \"shop\"\nsplit = \"shop\"",
        )
        .tail(&format!(
            "[defaults]\ndrain = {{ timeout = \"20s\"{tunnels} }}\nretries = {{ attempts = 0 }}\n\
             [listeners.secure]\nbind = \"{secure}\"\n\
             tls = {{ certificates = [{{ cert = \"app.pem\", key = \"app.key\" }}] }}\n\
             [telemetry]\nlog = {{ sample = 0.01 }}\n{rpc}"
        ))
}

/// Whether this weir closes WebSockets by itself when their time is over. Without it no client can be told from one
/// that was cut, so WebSockets then stay for a moment only and end by themselves.
pub fn closes_websockets() -> bool {
    static CLOSES: OnceLock<bool> = OnceLock::new();
    *CLOSES.get_or_init(|| {
        let text = Conf::one("127.0.0.1:1".parse().unwrap()).split("drain = { upgraded_timeout = \"1s\" }").text();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("weir.toml");
        std::fs::write(&file, text.replace("@DIR@", dir.path().to_str().unwrap())).unwrap();
        let done = weir(&["check", file.to_str().unwrap()]);
        let refused = done.all().contains("not-yet");
        assert_eq!(done.code == Some(0), !refused, "{done:?}");
        if refused {
            tell("SKIPPED long-lived WebSockets under mixed load: `drain.upgraded_timeout` is not-yet");
        }
        !refused
    })
}

/// What the wait call says of an endpoint, once it says that nothing is in flight; several calls, each bounded.
#[track_caller]
pub fn wait_for_zero(stage: &Stage, split: &str, version: &str, endpoint: SocketAddr) -> Value {
    let path = format!("/api/v1/splits/{split}/versions/{version}/drain?endpoint={endpoint}&wait=10s");
    for _ in 0..3 {
        let answer = stage.weir.admin.get(&path);
        match answer.status() {
            200 => return answer.json(),
            202 => {}
            status => panic!("{path}: {status} {}", answer.text()),
        }
    }
    panic!("{path}: not zero in 30 s: {}", stage.weir.admin.get(&path).text())
}
