//! `weir rollout` against a scripted admin API: what is sent, how a wait goes and ends.

use super::*;

/// `SHOP` with a rollout in this state.
fn shop(id: &str, state: &str) -> String {
    format!("{},\"rollout\":{}}}", SHOP.trim_end_matches('}'), rollout(id, state, 1))
}

fn rollout(id: &str, state: &str, step: usize) -> String {
    let over = ["finished", "failed", "aborted", "superseded"].contains(&state);
    let (ended_at, ending) = if over { (r#""2026-03-01T12:07:31.000Z""#, r#""p99 up""#) } else { ("null", "null") };
    format!(
        r#"{{"id":"{id}","to":"v2","stable":"v1","state":"{state}","step":{step},"steps":2,"ended_at":{ended_at},
        "ending":{ending},"rollback_ready":true}}"#
    )
}

fn line(request: &str) -> &str {
    request.lines().next().unwrap()
}

#[test]
fn start_sends_what_was_said_and_nothing_else() {
    let shop = shop("r1", "running");
    let said = "rollout start shop --to v2 --steps 5:2m,100:10m:approve --reason go --dry-run";
    let (requests, result) = scripted(said, &[(200, &shop)]);
    result.unwrap();
    assert_eq!(line(&requests[0]), "POST /api/v1/splits/shop/rollout?dry_run=true HTTP/1.1");
    let steps = serde_json::json!([{"weight": 5.0, "for": "2m", "approve": false}, {"weight": 100.0, "for": "10m", "approve": true}]);
    assert_eq!(body(&requests[0]), serde_json::json!({"to": "v2", "steps": steps, "reason": "go"}));
    let (requests, _) = scripted("rollout start shop", &[(200, &shop)]);
    assert_eq!(body(&requests[0]), serde_json::json!({"reason": ""}));
}

#[test]
fn commands_ask_the_right_paths() {
    let shop = shop("r1", "running");
    for (said, path, wanted) in [
        ("pause shop --reason x", "pause", serde_json::json!({"reason": "x"})),
        ("resume shop", "resume", serde_json::json!({"reason": ""})),
        ("promote shop", "promote", serde_json::json!({"reason": "", "full": false})),
        ("promote shop --full", "promote", serde_json::json!({"reason": "", "full": true})),
        ("approve shop", "approve", serde_json::json!({"reason": ""})),
        ("abort shop", "abort", serde_json::json!({"reason": ""})),
    ] {
        let (requests, result) = scripted(&format!("rollout {said}"), &[(200, &shop)]);
        result.unwrap();
        assert_eq!(line(&requests[0]), format!("POST /api/v1/splits/shop/rollout/{path} HTTP/1.1"));
        assert_eq!(body(&requests[0]), wanted, "{said}");
    }
    let (status, refused) = problem(409, "rollout-refused");
    let failure = scripted("rollout approve shop", &[(status, &refused)]).1.unwrap_err();
    assert_eq!((failure.exit, failure.code.as_str()), (Exit::Refused, "rollout-refused"));
}

#[test]
fn a_look_asks_first_whether_there_is_one() {
    let (requests, result) = scripted("rollout status shop", &[(200, &rollout("r1", "running", 1)), (200, SHOP)]);
    result.unwrap();
    assert_eq!(
        requests.iter().map(|r| line(r)).collect::<Vec<_>>(),
        ["GET /api/v1/splits/shop/rollout HTTP/1.1", "GET /api/v1/splits/shop HTTP/1.1"]
    );
    let requests = scripted("rollout status shop -o json", &[(200, &rollout("r1", "running", 1))]).0;
    assert_eq!(requests.len(), 1);
    let (status, none) = problem(409, "no-rollout");
    assert_eq!(scripted("rollout status shop", &[(status, &none)]).1.unwrap_err().code, "no-rollout");
}

#[test]
fn a_wait_ends_as_the_rollout_does() {
    for (state, exit) in [
        ("finished", None),
        ("failed", Some("rollout-failed")),
        ("aborted", Some("rollout-aborted")),
        ("superseded", Some("rollout-superseded")),
    ] {
        let answers = [shop("r1", "running"), rollout("r1", "waiting", 1), rollout("r1", state, 2)];
        let answers: Vec<_> = answers.iter().map(|body| (200, body.as_str())).collect();
        let (requests, result) = scripted("rollout start shop --wait", &answers);
        assert_eq!(line(&requests[2]), "GET /api/v1/splits/shop/rollout HTTP/1.1");
        match (result, exit) {
            (Ok(()), None) => {}
            (Err(failure), Some(code)) => {
                assert_eq!((failure.exit, failure.code.as_str()), (Exit::RolledBack, code));
                assert!(failure.text.contains(state) && failure.text.contains("p99 up"), "{failure:?}");
            }
            other => panic!("{state}: {other:?}"),
        }
    }
}

#[test]
fn a_wait_is_for_its_own_rollout() {
    let receipt = r#"{"id":"r1","to":"v2","state":"superseded","ending":"v3 came","ended_at":"x"}"#;
    let answers = [(200, shop("r1", "running")), (200, rollout("r2", "running", 1)), (200, receipt.to_owned())];
    let answers: Vec<_> = answers.iter().map(|(status, body)| (*status, body.as_str())).collect();
    let (requests, result) = scripted("rollout promote shop --wait", &answers);
    assert_eq!(line(&requests[2]), "GET /api/v1/rollouts/r1/receipt HTTP/1.1");
    let failure = result.unwrap_err();
    assert_eq!(failure.exit, Exit::RolledBack);
    assert!(failure.text.ends_with("rollout to v2 superseded: v3 came"), "{failure:?}");
    assert!(failure.notes[0].contains("weir rollout receipt r1"), "{failure:?}");
}

#[test]
fn a_wait_ends_with_its_time() {
    let paused = rollout("r1", "paused", 1);
    let failure = scripted("rollout status shop --wait --timeout 1ms", &[(200, &paused)]).1.unwrap_err();
    assert_eq!((failure.exit, failure.code.as_str()), (Exit::WaitTimeout, "wait-timeout"));
    assert!(failure.text.contains("is paused at step 1 after 1ms"), "{failure:?}");
}

#[test]
fn a_receipt_is_asked_for_by_id_or_by_split() {
    let receipt = r#"{"id":"r7","split":"shop"}"#;
    let requests = scripted("rollout receipt r7", &[(200, receipt)]).0;
    assert_eq!(line(&requests[0]), "GET /api/v1/rollouts/r7/receipt HTTP/1.1");
    let (status, unknown) = problem(404, "unknown-rollout");
    let list = r#"{"rollouts":[{"id":"r7"}]}"#;
    let (requests, result) = scripted("rollout receipt shop", &[(status, &unknown), (200, list), (200, receipt)]);
    result.unwrap();
    assert_eq!(line(&requests[1]), "GET /api/v1/rollouts?split=shop&limit=1 HTTP/1.1");
    assert_eq!(line(&requests[2]), "GET /api/v1/rollouts/r7/receipt HTTP/1.1");
    let empty = r#"{"rollouts":[]}"#;
    let failure = scripted("rollout receipt shop", &[(status, &unknown), (200, empty)]).1.unwrap_err();
    assert_eq!(failure.text, "split `shop` has not been rolled out yet");
    let (_, no_split) = problem(404, "unknown-split");
    let failure = scripted("rollout receipt x", &[(status, &unknown), (404, &no_split)]).1.unwrap_err();
    assert_eq!(failure.text, "there is neither a rollout nor a split `x`");
}

#[test]
fn a_list_is_of_all_or_of_one_split() {
    for (said, path) in [("list", "limit=50"), ("list shop --limit 3", "limit=3&split=shop")] {
        let (requests, result) = scripted(&format!("rollout {said}"), &[(200, r#"{"rollouts":[]}"#)]);
        result.unwrap();
        assert_eq!(line(&requests[0]), format!("GET /api/v1/rollouts?{path} HTTP/1.1"));
    }
}
