//! Reload after reload, of what concerns the running requests and of what does not: nobody notices, and no connection
//! ends.

use super::fence::Rule;
use super::origin::OriginProcess;
use super::stage::{Stage, conf};
use crate::support::{Conf, Connection, times, wait_until};

#[test]
fn one_after_the_other() {
    let [v1, v2] = ["v1", "v2"].map(|v| [0, 1].map(|n| OriginProcess::start(&format!("{v}-{n}"))));
    let file = |n: usize| varied(&v1, &v2, n);
    let stage = Stage::start(&file(0));
    let mix = stage.load();
    let mut probe = stage.weir.connect();
    for n in 1..=times(40, 1000) {
        stage.weir.edit(&file(n));
        // Most by order, which answers when the file is in force; some by the watcher alone.
        if n % 8 == 0 {
            wait_until(&format!("reload {n} is in force"), || is_in_force(&mut probe, n));
        } else {
            let answer = stage.weir.admin.ask("POST", "/api/v1/config/reload", "", None);
            assert_eq!(answer.status(), 200, "{}", answer.text());
            assert!(is_in_force(&mut probe, n), "reload {n} is not in force although it was confirmed");
        }
        mix.check();
    }
    mix.plan.fence.set(Rule::Anybody);
    mix.wait_for_more(2);
    let summary = mix.stop();
    summary.expect_connections_kept();
    assert_eq!(summary.total.by_endpoint.len(), 4, "{:?}", summary.total.by_endpoint);
    stage.weir.admin.wait_metric("weir_config_last_reload_successful", &[], 1.0);
    summary.tell("reloads");
}

/// The file of that number. What every request shows is a header field; what else changes goes round.
pub(super) fn varied(v1: &[OriginProcess], v2: &[OriginProcess], n: usize) -> Conf {
    let weights = [(90, 10), (50, 50), (10, 90)][n % 3];
    // An endpoint that comes and goes makes its pool a new one.
    let some_v2 = if n.is_multiple_of(4) { &v2[..1] } else { v2 };
    let conf = conf(&[("v1", weights.0, v1), ("v2", weights.1, some_v2)]);
    let conf = match n % 5 {
        0 => conf.tail(&format!("# nothing but a remark, {n}")),
        1 => conf.split("timeouts = { first_byte = \"20s\", idle = \"30s\" }"),
        2 => conf.web("timeouts = { header = \"9s\", idle = \"60s\" }\nlimits = { body_bytes = \"64MiB\" }"),
        3 => conf.split("pool = { idle_per_endpoint = 8 }\nexpose_version = true"),
        _ => conf.tail("[splits.unused.versions]\nv1 = { endpoints = [\"127.0.0.1:1\"] }"),
    };
    conf.routes(&format!(
        "[[routes]]\nname = \"rpc\"\nmatch = {{ path_prefix = \"/rpc.Echo\" }}\nsplit = \"rpc\"\n\
         [[routes]]\nname = \"shop\"\nsplit = \"shop\"\nresponse_headers = {{ set = {{ x-reload = \"{n}\" }} }}"
    ))
}

fn is_in_force(probe: &mut Connection, n: usize) -> bool {
    let answer = probe.get("/body?seed=1&length=10").unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.head.raw);
    answer.head.get("x-reload") == Some(&n.to_string())
}
