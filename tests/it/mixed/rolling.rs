//! A rolling deployment: six endpoints are replaced one by one, and each process is killed at the very moment the wait
//! call says that nothing is in flight.

use super::fence::Rule;
use super::mix::Mix;
use super::origin::OriginProcess;
use super::stage::{SPLITS, Stage, conf, wait_for_zero};
use crate::support::{Conf, times, wait_until};
use serde_json::json;

const ENDPOINTS: usize = 6;

#[test]
fn six_endpoints_one_by_one() {
    let mut all: Vec<OriginProcess> = (0..ENDPOINTS).map(|n| OriginProcess::start(&format!("v1-{n}"))).collect();
    let stage = Stage::start(&file(&all));
    let mix = stage.load();
    let replaced = ENDPOINTS * times(1, 5);
    for n in 0..replaced {
        all.push(OriginProcess::start(&format!("v1-{}", ENDPOINTS + n)));
        stage.weir.edit(&file(&all));
        let new = &all[ENDPOINTS];
        stage.wait_up("v1", new);
        mix.wait_for_endpoint(&new.name);
        let old = all.remove(0);
        if n % 2 == 0 {
            by_file(&stage, &all, &old);
        } else {
            by_api(&stage, &old);
        }
        leave(&stage, &mix, old);
        // Drained by the API it is in the file still, refused by nobody because nobody asks it.
        stage.weir.edit(&file(&all));
        mix.plan.fence.set(Rule::Anybody);
    }
    let summary = mix.stop();
    summary.expect_connections_kept();
    assert_eq!(summary.total.by_endpoint.len(), ENDPOINTS + replaced, "{:?}", summary.total.by_endpoint);
    summary.expect_closed_with(1001);
    summary.tell("six endpoints one by one");
}

fn file(all: &[OriginProcess]) -> Conf {
    conf(&[("v1", 1, all)])
}

/// Out of the file.
fn by_file(stage: &Stage, left: &[OriginProcess], old: &OriginProcess) {
    stage.weir.edit(&file(left));
    for (split, address) in SPLITS.iter().zip([old.http1, old.http2]) {
        let path = format!("/api/v1/splits/{split}/versions/v1/drain?endpoint={address}");
        wait_until("the file without it is in force", || matches!(stage.weir.admin.get(&path).status(), 200 | 202));
    }
}

/// As a deployment script does it.
fn by_api(stage: &Stage, old: &OriginProcess) {
    for (split, address) in SPLITS.iter().zip([old.http1, old.http2]) {
        let path = format!("/api/v1/splits/{split}/versions/v1/drain");
        let answer = stage.weir.admin.post(&path, json!({"endpoint": address.to_string()}));
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
}

/// Waits until it has nothing left, and kills it at once.
pub(super) fn leave(stage: &Stage, mix: &Mix, old: OriginProcess) {
    mix.plan.fence.set(Rule::Not(old.name.clone()));
    for (split, address) in SPLITS.iter().zip([old.http1, old.http2]) {
        let zero = wait_for_zero(stage, split, "v1", address);
        assert_eq!((&zero["drained"], &zero["in_flight"]["total"]), (&json!(true), &json!(0)), "{zero}");
    }
    old.kill();
    mix.wait_for_more(1);
}
