//! A split's rollout as `weir status` shows it: where it is, in the head line; what speaks for and against the new
//! version, as a table; what to do about it. Pure.
//!
//! Invariant: the lines are those of surface.md section 8; e-values are written as in the verdict's own reason.

use super::print::{Paint, shown};
use super::rollout_views::{Allowed, Check, Evidence, Rollout};
use super::table::{millis, none, share, table};
use super::views::{Split, Version};
use crate::analysis::{e_limit, e_value};

/// `   step 2/4 at 25%, 6m 12s left`; nothing once the rollout is over.
pub fn head(rollout: &Rollout) -> String {
    if rollout.is_over() { String::new() } else { format!("   {}", progress(rollout)) }
}

/// `step 2/4 at 25%, 6m 12s left`, `before step 1/4, waits for check smoke: ...`.
pub fn progress(rollout: &Rollout) -> String {
    let Rollout { step, steps, .. } = rollout;
    let place = match step.checked_sub(1) {
        None => format!("before step 1/{steps}"),
        Some(i) => {
            let weight = rollout.plan.get(i).map(|s| format!(" at {}", share(s.weight / 100.0)));
            format!("step {step}/{steps}{}", weight.unwrap_or_default())
        }
    };
    let why = rollout.waits_for.as_deref().filter(|why| !why.is_empty()).map(shown);
    match (rollout.state.as_str(), why, rollout.step_left_seconds) {
        ("paused", Some(why), _) => format!("{place}, paused: {why}"),
        ("paused", None, _) => format!("{place}, paused"),
        (_, Some(why), _) => format!("{place}, waits for {why}"),
        (_, None, Some(left)) => format!("{place}, {} left", span(left)),
        (_, None, None) => place,
    }
}

/// The table, the verdict and the way back; a line if it is over.
pub fn block(split: &Split, rollout: &Rollout, paint: Paint) -> String {
    if rollout.is_over() {
        return last(rollout);
    }
    let mut text = evidence(split, rollout);
    if let Some(verdict) = &rollout.verdict {
        let line = format!("{verdict}: {}", shown(rollout.reason.as_deref().unwrap_or_default()));
        let line = if verdict == "regressed" { paint.red(&line) } else { line };
        text += &format!("{line}{}\n", needed(rollout));
    }
    if let Some(next) = &rollout.next {
        text += &format!("next: {}\n", shown(next));
    }
    text + &way_back(split, rollout, paint)
}

fn last(rollout: &Rollout) -> String {
    let Rollout { to, state, .. } = rollout;
    let at = rollout.ended_at.as_deref().unwrap_or_default();
    let why = rollout.ending.as_deref().filter(|e| !e.is_empty()).map(|e| format!(": {}", shown(e)));
    format!("last rollout: to {to}, {state} {at}{}\n", why.unwrap_or_default())
}

/// What the step still takes, when the number of requests is what it waits for.
fn needed(rollout: &Rollout) -> String {
    let judged = rollout.judged.as_ref().map_or(0, |j| j.canary.requests);
    match rollout.needed.filter(|needed| *needed > judged && rollout.verdict.as_deref() == Some("inconclusive")) {
        Some(needed) => format!("; this step's proof takes about {needed} requests of {}", rollout.to),
        None => String::new(),
    }
}

fn way_back(split: &Split, rollout: &Rollout, paint: Paint) -> String {
    let Rollout { stable, rollback_detail, .. } = rollout;
    if rollout.rollback_ready {
        return format!("roll back with: weir rollback {}  (to {stable})\n", split.name);
    }
    let line = format!("! a rollback would be refused now: {}", shown(rollback_detail));
    format!("{}\n", paint.red(&line))
}

fn evidence(split: &Split, rollout: &Rollout) -> String {
    let mut rows = Vec::new();
    if let Some(judged) = &rollout.judged {
        let of = |t: &super::rollout_views::Tally| format!("{}/{}", t.errors, t.requests);
        let allowed = rollout.allowed.as_ref().map_or_else(none, errors_allowed);
        rows.push(row("errors", [of(&judged.stable), of(&judged.canary), allowed], rollout, ["errors", "errors"]));
        if let Some(row) = latency(split, rollout) {
            rows.push(row);
        }
    }
    rows.extend(rollout.checks.iter().map(check));
    if rows.is_empty() {
        return String::new();
    }
    let (stable, to) = (rollout.stable.to_uppercase(), rollout.to.to_uppercase());
    let heads =
        [("EVIDENCE", 10), (stable.as_str(), 10), (to.as_str(), 8), ("ALLOWED", 17), ("AGAINST", 11), ("FOR", 0)];
    table(&heads, &rows)
}

fn row(name: &str, cells: [String; 3], rollout: &Rollout, [against, for_it]: [&str; 2]) -> Vec<String> {
    let mut row = vec![name.to_owned()];
    row.extend(cells);
    row.extend([found(rollout, against, "against"), found(rollout, for_it, "for")]);
    row
}

/// `0.42/1000`.
fn found(rollout: &Rollout, name: &str, direction: &str) -> String {
    let found = rollout.evidence.iter().find(|e| e.name == name && e.direction == direction);
    found.map_or_else(none, |e| format!("{}/{}", e_of(e), limit_of(e)))
}

/// The e-value of a test, as people read it.
pub fn e_of(evidence: &Evidence) -> String {
    evidence.log_e.map_or_else(none, e_value)
}

/// Its limit.
pub fn limit_of(evidence: &Evidence) -> String {
    evidence.limit.map_or_else(none, e_limit)
}

/// `1.1x + 0.1 point`.
fn errors_allowed(allowed: &Allowed) -> String {
    let max = allowed.max.map(|max| format!(", at most {}", share(max))).unwrap_or_default();
    format!("{}x + {} point{max}", allowed.ratio, plain(100.0 * allowed.margin))
}

fn latency(split: &Split, rollout: &Rollout) -> Option<Vec<String>> {
    rollout.evidence.iter().find(|e| e.name == "latency")?;
    let p99 = |name: &str| {
        let version = split.versions.iter().find(|v: &&Version| v.name == name);
        version.map_or_else(none, |v| millis(v.stats.p99_ms))
    };
    let allowed = rollout.allowed.as_ref().map_or_else(none, |a| {
        let max = a.max_p99_ms.map(|ms| format!(", p99 {}", millis(Some(ms)))).unwrap_or_default();
        format!("{}% slower{max}", plain(100.0 * a.slower))
    });
    Some(row("p99", [p99(&rollout.stable), p99(&rollout.to), allowed], rollout, ["latency", "p99"]))
}

fn check(check: &Check) -> Vec<String> {
    let bounds = match (check.min, check.max) {
        (None, None) => String::new(),
        (None, Some(max)) => format!("at most {max}"),
        (Some(min), None) => format!("at least {min}"),
        (Some(min), Some(max)) => format!("{min} to {max}"),
    };
    let verdict = check.verdict.as_deref().unwrap_or("not asked");
    // What a check that passes says is its value once more.
    let said = check.said.as_deref().filter(|_| verdict != "pass").map(shown).unwrap_or_default();
    let value = check.value.map(|v| v.to_string()).unwrap_or_default();
    vec![shown(&check.name), String::new(), value, bounds, verdict.to_owned(), said]
}

/// At most four decimals, none that say nothing.
fn plain(x: f64) -> String {
    let text = format!("{x:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `6m 12s`, `1h 30m`, `45s`.
pub fn span(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m {s}s"),
        (h, m, _) => format!("{h}h {m}m"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PLAIN: Paint = Paint(false);

    fn of<T: serde::de::DeserializeOwned>(value: &Value) -> T {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    fn rollout() -> Value {
        let evidence = |name: &str, direction: &str, e: f64, limit: f64| json!({"name": name, "direction": direction, "log_e": e.ln(), "limit": limit.ln()});
        json!({
            "id": "01J", "to": "v2", "stable": "v1", "state": "running", "step": 2, "steps": 4, "step_left_seconds": 372,
            "plan": [{"weight": 5, "for": "5m"}, {"weight": 25, "for": "10m"}, {"weight": 50}, {"weight": 100}],
            "verdict": "inconclusive",
            "reason": "canary 2/880 vs stable 15/16400; against it: e-value 0.42 of 1000; for it (errors): 3.10 of 20",
            "judged": {"canary": {"requests": 880, "errors": 2}, "stable": {"requests": 16400, "errors": 15}},
            "evidence": [evidence("errors", "against", 0.42, 1000.0), evidence("latency", "against", 0.2, 1000.0),
                evidence("split", "against", 0.5, 1e6), evidence("errors", "for", 3.1, 20.0),
                evidence("p90", "for", 11.0, 20.0), evidence("p99", "for", 8.4, 20.0)],
            "allowed": {"ratio": 1.1, "margin": 0.001, "max": null, "slower": 0.19, "max_p99_ms": null},
            "needed": 1120, "checks": [{"name": "orders", "verdict": "pass", "value": 0.1, "max": 0.5}],
            "rollback_ready": true, "rollback_detail": "v1: 2 of 2 endpoints up", "next": "50 % for v2",
        })
    }

    fn split() -> Split {
        of(&json!({"name": "shop", "stable": "v1", "versions": [
            {"name": "v1", "stats": {"requests": 1, "p99_ms": 18.0}}, {"name": "v2", "stats": {"requests": 1, "p99_ms": 21.0}}]}))
    }

    #[test]
    fn the_block_of_the_sample() {
        let rollout: Rollout = of(&rollout());
        assert_eq!(head(&rollout), "   step 2/4 at 25%, 6m 12s left");
        let expected = "\
EVIDENCE    V1          V2        ALLOWED            AGAINST      FOR
errors      15/16400    2/880     1.1x + 0.1 point   0.42/1000    3.10/20
p99         18ms        21ms      19% slower         0.20/1000    8.40/20
orders                  0.1       at most 0.5        pass
inconclusive: canary 2/880 vs stable 15/16400; against it: e-value 0.42 of 1000; for it (errors): 3.10 of 20; \
this step's proof takes about 1120 requests of v2
next: 50 % for v2
roll back with: weir rollback shop  (to v1)
";
        assert_eq!(block(&split(), &rollout, PLAIN), expected);
    }

    #[test]
    fn where_a_rollout_is() {
        for (change, expected) in [
            (
                json!({"step": 0, "waits_for": "check smoke: has not answered yet", "state": "waiting"}),
                "before step 1/4, waits for check smoke: has not answered yet",
            ),
            (
                json!({"state": "approval", "waits_for": "somebody's consent", "step_left_seconds": null}),
                "step 2/4 at 25%, waits for somebody's consent",
            ),
            (
                json!({"state": "paused", "waits_for": "by token:ci: lunch"}),
                "step 2/4 at 25%, paused: by token:ci: lunch",
            ),
            (json!({"step_left_seconds": null}), "step 2/4 at 25%"),
            (json!({"step": 9}), "step 9/4, 6m 12s left"),
        ] {
            let mut value = rollout();
            value.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            assert_eq!(progress(&of(&value)), expected);
        }
        assert_eq!(
            [0, 59, 60, 372, 3600, 5400, 90_000].map(span),
            ["0s", "59s", "1m 0s", "6m 12s", "1h 0m", "1h 30m", "25h 0m"]
        );
    }

    #[test]
    fn without_analysis_there_are_the_checks_and_without_them_no_table() {
        let mut value = rollout();
        for key in ["judged", "allowed", "verdict", "reason", "needed"] {
            value[key] = Value::Null;
        }
        value["evidence"] = json!([]);
        value["checks"] = json!([{"name": "gate", "verdict": "error", "said": "connection refused"}, {"name": "smoke", "min": 1, "max": 2}]);
        let expected = "\
EVIDENCE    V1          V2        ALLOWED            AGAINST      FOR
gate                                                 error        connection refused
smoke                             1 to 2             not asked
next: 50 % for v2
";
        let text = block(&split(), &of(&value), PLAIN);
        assert!(text.starts_with(expected), "{text}");
        value["checks"] = json!([]);
        value["rollback_ready"] = json!(false);
        let text = block(&split(), &of(&value), PLAIN);
        assert_eq!(text, "next: 50 % for v2\n! a rollback would be refused now: v1: 2 of 2 endpoints up\n");
    }

    #[test]
    fn one_that_is_over_is_a_line() {
        let mut value = rollout();
        value["state"] = json!("failed");
        value["ended_at"] = json!("2026-03-01T12:00:00.000Z");
        value["ending"] = json!("errors: canary 3/6\u{1b}[31m");
        let rollout: Rollout = of(&value);
        assert_eq!(head(&rollout), "");
        let expected = "last rollout: to v2, failed 2026-03-01T12:00:00.000Z: errors: canary 3/6\u{fffd}[31m\n";
        assert_eq!(block(&split(), &rollout, PLAIN), expected);
    }

    #[test]
    fn what_the_file_allows_in_words() {
        let allowed = Allowed { ratio: 1.0, margin: 0.0, max: Some(0.01), ..Allowed::default() };
        assert_eq!(errors_allowed(&allowed), "1x + 0 point, at most 1%");
        let mut value = rollout();
        value["allowed"]["max_p99_ms"] = json!(500.0);
        assert!(block(&split(), &of(&value), PLAIN).contains("19% slower, p99 500ms"));
    }
}
