//! Blue-green: everything to the other version at once and back, again and again; when the call has answered, no new
//! request reaches the version that was left.

use super::fence::Rule;
use super::origin::OriginProcess;
use super::stage::{Stage, conf};
use crate::support::times;

#[test]
fn there_and_back() {
    let [blue, green] = ["v1", "v2"].map(|v| [0, 1].map(|n| OriginProcess::start(&format!("{v}-{n}"))));
    let stage = Stage::start(&conf(&[("v1", 100, &blue), ("v2", 0, &green)]));
    let mix = stage.load();
    for _ in 0..times(5, 50) {
        for (weights, version) in [((0, 100), "v2-"), ((100, 0), "v1-")] {
            mix.plan.fence.set(Rule::Anybody);
            stage.put_weights(weights.0, weights.1);
            mix.plan.fence.set(Rule::Only(version.to_owned()));
            mix.wait_for_more(1);
        }
    }
    let summary = mix.stop();
    summary.expect_connections_kept();
    assert_eq!(summary.total.by_endpoint.len(), 4, "{:?}", summary.total.by_endpoint);
    summary.tell("blue-green there and back");
}
