//! The samples of surface.md section 8, from hand-made answers of the API.

use serde_json::json;

use super::*;

const PLAIN: Paint = Paint(false);

fn of<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_str(&value.to_string()).unwrap()
}

fn weights(text: &str) -> Weights {
    serde_json::from_str(text).unwrap()
}

fn shop() -> serde_json::Value {
    json!({
        "name": "shop", "revision": 17, "state": "shifted", "stable": "v1", "rollback_to": "v1", "source": "api",
        "weights": {"v1": 75, "v2": 25}, "file_weights": {"v1": 90, "v2": 10}, "changed": true, "persisted": true,
        "override": {"hold": false, "by": "token:ci", "at": "2026-03-01T12:00:00.000Z", "reason": "release 42"},
        "versions": [
            {"name": "v1", "weight": 75, "share": 0.75, "observed_share": 0.7504, "state": "open",
             "endpoints": [{"address": "10.0.0.11:9000", "state": "up", "in_flight": 5},
                           {"address": "10.0.0.12:9000", "state": "up", "in_flight": 7}],
             "stats": {"window_seconds": 60, "requests": 18564, "rps": 309.4, "error_rate": 0.0002, "p50_ms": 2.9,
                       "p90_ms": 7.0, "p95_ms": 8.8, "p99_ms": 18.0, "in_flight": 12}},
            {"name": "v2", "weight": 25, "share": 0.25, "observed_share": 0.2496, "state": "open",
             "endpoints": [{"address": "10.0.1.11:9000", "state": "up", "in_flight": 3},
                           {"address": "10.0.1.12:9000", "state": "up", "in_flight": 4}],
             "stats": {"window_seconds": 60, "requests": 6186, "rps": 103.1, "error_rate": 0.0003, "p50_ms": 3.0,
                       "p90_ms": 7.9, "p95_ms": 9.8, "p99_ms": 21.0, "in_flight": 7}}
        ]
    })
}

#[test]
fn a_shifted_split() {
    let expected = "\
shop   shifted   file: v1 90, v2 10 (override by token:ci, \"release 42\")
VERSION     SHARE  SEEN    RPS     5XX    P50    P95    P99    IN-FLIGHT  ENDPOINTS
v1 stable   75%    75.0%   309.4   0.02%  2.9ms  8.8ms  18ms   12         2/2 up
v2          25%    25.0%   103.1   0.03%  3.0ms  9.8ms  21ms   7          2/2 up
";
    assert_eq!(split(&of(shop()), PLAIN), expected);
}

#[test]
fn names_that_are_not_resolved_are_told_below_the_table() {
    let mut shop = shop();
    shop["versions"][0]["names"] = json!([{"name": "a.test:80", "state": "fresh", "addresses": 2, "age_seconds": 3}]);
    shop["versions"][1]["names"] = json!([
        {"name": "b.test:80", "state": "stale", "addresses": 2, "age_seconds": 75, "error": "no answer in time"},
        {"name": "srv+c.test", "state": "unresolved", "addresses": 0, "error": "it does not exist (NXDOMAIN)"},
        {"name": "d.test:80", "state": "resolving", "addresses": 0}
    ]);
    let text = split(&of(shop), PLAIN);
    let told: Vec<&str> = text.lines().skip(4).collect();
    assert_eq!(
        told,
        [
            "! v2: b.test:80 is not resolved: no answer in time; its answer of 75 s ago is in force",
            "! v2: srv+c.test is not resolved: it does not exist (NXDOMAIN); it has no address yet",
            "! v2: d.test:80 is not resolved: no answer yet; it has no address yet",
        ]
    );
}

#[test]
fn rules_have_their_own_lines() {
    let mut shop = shop();
    shop["rules"] = json!([
        {"name": "beta", "version": "v1", "requests": 600, "rps": 10.0, "error_rate": 0.005, "p50_ms": 3.0,
         "p90_ms": 7.9, "p95_ms": 9.8, "p99_ms": 21.0},
        {"name": "beta", "version": "v2", "requests": 0, "rps": 0.0, "error_rate": 0.0, "p50_ms": null, "p90_ms": null,
         "p95_ms": null, "p99_ms": null}]);
    let text = split(&of(shop), PLAIN);
    let expected = "\
RULE        VERSION  REQUESTS  RPS     5XX    P50    P95    P99
beta        v1       600       10.0    0.50%  3.0ms  9.8ms  21ms
beta        v2       0         0.0     -      -      -      -
";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_rollout_stands_in_the_head_and_below() {
    let mut shop = shop();
    shop["state"] = json!("rolling_out");
    shop["rollout"] = json!({"id": "r1", "to": "v2", "stable": "v1", "state": "running", "step": 2, "steps": 4,
        "step_left_seconds": 372, "plan": [{"weight": 5}, {"weight": 25}], "rollback_ready": true});
    let text = split(&of(shop), PLAIN);
    let head = "shop   rolling_out   step 2/4 at 25%, 6m 12s left   file: v1 90, v2 10 (override by token:ci, \"release 42\")\n";
    assert!(text.starts_with(head) && text.ends_with("\nroll back with: weir rollback shop  (to v1)\n"), "{text}");
}

#[test]
fn who_is_not_up_is_told_with_the_reason() {
    let mut shop = shop();
    let endpoint = |address: &str, state: &str, reason: serde_json::Value| json!({"address": address, "state": state, "in_flight": 0, "last_check": "2026-03-01T12:00:00.000Z", "reason": reason});
    shop["versions"][1]["endpoints"] = json!([
        endpoint("10.0.1.11:9000", "down", json!("status 503, not 200-399")),
        endpoint("10.0.1.12:9000", "checking", json!(null)),
    ]);
    let text = split(&of(shop), PLAIN);
    assert!(text.contains("0/2 up, 1 down, 1 checking\n"), "{text}");
    assert!(text.ends_with("\n! v2  10.0.1.11:9000  down: status 503, not 200-399\n"), "{text}");
}

#[test]
fn a_held_split_without_traffic() {
    let mut shop = shop();
    shop["state"] = json!("held");
    shop["override"] = json!({"hold": true, "by": "local:alice", "at": "", "reason": "p99 \u{1b}[31mup"});
    for (i, state) in [(0, "draining"), (1, "closed")] {
        let version = &mut shop["versions"][i];
        version["state"] = json!(state);
        version["observed_share"] = json!(null);
        version["share"] = json!(1 - i);
        version["endpoints"][0]["state"] = json!("draining");
        version["stats"] = json!({"window_seconds": 60, "requests": 0, "rps": 0.0, "error_rate": 0.0, "p50_ms": null,
            "p90_ms": null, "p95_ms": null, "p99_ms": null, "in_flight": 0});
    }
    let expected = "\
shop   held   file wants 90/10 (held by local:alice, \"p99 \u{fffd}[31mup\"; back to the file: weir release shop)
VERSION             SHARE  SEEN    RPS     5XX    P50    P95    P99    IN-FLIGHT  ENDPOINTS
v1 stable draining  100%   -       0.0     -      -      -      -      0          1/2 up, 1 draining
v2 closed           0%     -       0.0     -      -      -      -      0          1/2 up, 1 draining
";
    assert_eq!(split(&of(shop), PLAIN), expected);
}

#[test]
fn all_splits_after_what_needs_attention() {
    let small = |name: &str| json!({"name": name, "state": "steady", "stable": "v1", "versions": []});
    let value = json!({"persisted": false, "splits": [small("a"), small("b")],
        "config": {"result": "rejected", "at": "2026-03-01T12:04:10.000Z", "message": "weir.toml:7:8 unknown key `wieght`"}});
    let heads = "VERSION     SHARE  SEEN    RPS     5XX    P50    P95    P99    IN-FLIGHT  ENDPOINTS";
    let expected = format!(
        "! the configuration was rejected at 2026-03-01T12:04:10.000Z: weir.toml:7:8 unknown key `wieght`\n\
        ! changes are not saved to disk; a restart forgets them\n\
        a   steady\n{heads}\n\nb   steady\n{heads}\n"
    );
    assert_eq!(status(&of(value), PLAIN), expected);
    assert_eq!(status(&Status::default(), PLAIN), "no splits\n");
}

#[test]
fn colour_is_added_and_changes_no_word() {
    let painted = split(&of(shop()), Paint(true));
    assert!(painted.starts_with("\x1b[1mshop\x1b[0m   \x1b[33mshifted\x1b[0m"), "{painted}");
}

#[test]
fn a_shift_and_a_rollback_align() {
    let before = weights(r#"{"v1":90,"v2":10}"#);
    let took = Duration::from_millis(3);
    let expected = "shop  v1 90% -> 75%   v2 10% -> 25%            revision 17, 3 ms, saved\n";
    assert_eq!(change(Some(&before), &of(shop()), took), expected);

    let mut after: Split = of(shop());
    let before = std::mem::replace(&mut after.weights, weights(r#"{"v1":100,"v2":0}"#));
    after.revision = 18;
    after.override_ = Some(Override { hold: true, ..Override::default() });
    let expected = "shop  v1 75% -> 100%  v2 25% -> 0%             revision 18, 3 ms, saved, \
        HELD: file changes wait for `weir release shop`\n";
    assert_eq!(change(Some(&before), &after, took), expected);
}

#[test]
fn a_change_says_if_it_is_not_saved_unchanged_or_a_dry_run() {
    let mut after: Split = of(shop());
    let took = Duration::from_micros(300);
    after.persisted = false;
    assert_eq!(outcome(&after, took), "revision 17, under 1 ms, not saved");
    after.changed = Some(false);
    assert_eq!(outcome(&after, took), "revision 17, under 1 ms, unchanged, not saved");
    after.dry_run = Some(true);
    assert_eq!(outcome(&after, took), "dry run: nothing would change");
    let same = after.weights.clone();
    let line = change(Some(&same), &after, took);
    assert_eq!(line, format!("{:<45}  dry run: nothing would change\n", "shop  v1 75%          v2 25%"));
}

#[test]
fn history_is_a_table() {
    let entries: Vec<Entry> = of(json!([
        {"revision": 18, "at": "2026-03-01T12:00:03.000Z", "kind": "rollback", "split": "shop", "by": "local:alice",
         "from": {"v1": 75, "v2": 25}, "to": {"v1": 100, "v2": 0}, "target": null, "reason": "p99 up", "id": "0"},
        {"revision": 17, "at": "2026-03-01T11:50:00.000Z", "kind": "drain", "split": "shop", "by": "token:ci",
         "from": null, "to": null, "target": "v1/10.0.0.11:9000", "reason": null, "id": "0"},
        {"revision": 16, "at": "2026-03-01T11:40:00.000Z", "kind": "reload", "split": null, "by": "file", "id": "0"}
    ]));
    let expected = "\
REVISION  AT                        BY           WHAT      SPLIT  CHANGE                        REASON
18        2026-03-01T12:00:03.000Z  local:alice  rollback  shop   v1 75% -> 100%, v2 25% -> 0%  p99 up
17        2026-03-01T11:50:00.000Z  token:ci     drain     shop   v1/10.0.0.11:9000             -
16        2026-03-01T11:40:00.000Z  file         reload    -      -                             -
";
    assert_eq!(history(&entries), expected);
}

#[test]
fn reloads_say_what_stands_in_the_way() {
    let value = json!({"result": "applied", "revision": 19, "changed": true, "persisted": true, "dry_run": false,
        "held": ["shop"], "superseded": ["cart"], "warnings": []});
    let expected = "configuration applied, revision 19, 12 ms, saved\n\
        shop  HELD: the file's weights wait for `weir release shop`\n\
        cart  the file changed its weights: the override is dropped\n";
    assert_eq!(reload(&of(value), Duration::from_millis(12)), expected);
}

#[test]
fn diagnostics_have_code_place_and_remedy() {
    let list: Vec<Diagnostic> = of(
        json!([{"code": "unknown-key", "severity": "error", "message": "unknown key `wieght`",
        "file": "weir.toml", "line": 7, "column": 8, "end_line": 7, "end_column": 14, "key": "splits.shop.versions.v2.wieght",
        "help": "did you mean `weight`?"}]),
    );
    let expected = "error[unknown-key]: unknown key `wieght`\n  --> weir.toml:7:8\n  = help: did you mean `weight`?\n";
    assert_eq!(diagnostics(&list), expected);
}
