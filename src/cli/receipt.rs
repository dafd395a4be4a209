//! A rollout's receipt as text for people: who and why, the steps, every request, what happened, the verdict. Pure.
//!
//! Invariant: every number of the receipt is printed; nothing is added up here that weir has not added up.

use std::time::Duration;

use super::evidence::{e_of, limit_of};
use super::print::{Paint, shown};
use super::rollout_views::{Counters, Entry, Receipt, Said, Sheet, Step, Summary, Total};
use super::table::{none, share, table};
use crate::config::durations;

/// The whole receipt.
pub fn receipt(receipt: &Receipt, paint: Paint) -> String {
    let mut parts = vec![head(receipt, paint)];
    for gap in &receipt.gaps {
        let line = format!("! weir was down: requests may be uncounted from {} to {}", gap.from, gap.until);
        parts[0] += &format!("{}\n", paint.red(&line));
    }
    parts.push(steps(receipt));
    parts.push(requests(receipt));
    parts.push(log(&receipt.log));
    parts.extend(receipt.verdict.as_ref().map(verdict));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn head(receipt: &Receipt, paint: Paint) -> String {
    let Receipt { id, split, to, stable, state, by, started_at, .. } = receipt;
    let state = if state == "finished" || receipt.ended_at.is_none() { state.clone() } else { paint.red(state) };
    let why = |text: Option<&str>| text.filter(|t| !t.is_empty()).map(shown);
    let reason = why(receipt.reason.as_deref()).map(|r| format!(", \"{r}\"")).unwrap_or_default();
    let mut text = format!("{}   {stable} -> {to}   {state}\n", paint.bold(split));
    text += &format!("rollout   {}\nstarted   {started_at} by {}{reason}\n", shown(id), shown(by));
    if let Some(ended_at) = &receipt.ended_at {
        let ending = why(receipt.ending.as_deref()).map(|e| format!(": {e}")).unwrap_or_default();
        text += &format!("ended     {ended_at}{ending}\n");
    }
    text
}

fn steps(receipt: &Receipt) -> String {
    const HEADS: [(&str, usize); 5] = [("STEP", 0), ("WEIGHT", 0), ("FOR", 0), ("APPROVAL", 0), ("BEGAN", 0)];
    let row = |(i, step): (usize, &Step)| {
        vec![
            (i + 1).to_string(),
            share(step.weight / 100.0),
            step.for_seconds.map_or_else(|| step.hold.clone(), seconds),
            if step.approve { "asked for" } else { "-" }.to_owned(),
            began(&receipt.log, i).unwrap_or_else(none),
        ]
    };
    let rows: Vec<_> = receipt.steps.iter().enumerate().map(row).collect();
    if rows.is_empty() { String::new() } else { table(&HEADS, &rows) }
}

fn seconds(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| none(), durations::format)
}

/// When a step came into force: its own entry, else the first in which it is.
fn began(log: &[Entry], step: usize) -> Option<String> {
    let mut of_step = log.iter().filter(|entry| entry.step == Some(step));
    let first = of_step.clone().next();
    of_step.find(|entry| entry.event == "step").or(first).map(|entry| entry.at.clone())
}

fn requests(receipt: &Receipt) -> String {
    const HEADS: [(&str, usize); 9] = [
        ("STEP", 0),
        ("VERSION", 0),
        ("REQUESTS", 0),
        ("RETRIED", 0),
        ("RESCUED", 0),
        ("SPILLED", 0),
        ("CUT", 0),
        ("BY STATUS", 0),
        ("FAILED ATTEMPTS", 0),
    ];
    let of_sheet = |sheet: &Sheet| {
        let step = sheet.step.map_or_else(none, |step| (step + 1).to_string());
        line(step, &sheet.version, sheet.counters.statuses.values().sum(), &sheet.counters)
    };
    let of_total = |total: &Total| line("all".into(), &total.version, total.requests, &total.counters);
    let mut rows: Vec<_> = receipt.sheets.iter().map(of_sheet).collect();
    rows.extend(receipt.totals.iter().map(of_total));
    if rows.is_empty() { String::new() } else { table(&HEADS, &rows) }
}

fn line(step: String, version: &str, requests: u64, counters: &Counters) -> Vec<String> {
    let Counters { statuses, causes, retried, rescued, spilled, cut } = counters;
    let status = |(status, n): (&u16, &u64)| match status {
        0 => format!("no answer: {n}"),
        status => format!("{status}: {n}"),
    };
    let listed = |parts: Vec<String>| if parts.is_empty() { none() } else { parts.join(", ") };
    let mut row = vec![step, shown(version)];
    row.extend([requests, *retried, *rescued, *spilled, *cut].map(|n| n.to_string()));
    row.push(listed(statuses.iter().map(status).collect()));
    row.push(listed(causes.iter().map(|(cause, n)| format!("{}: {n}", shown(cause))).collect()));
    row
}

fn log(log: &[Entry]) -> String {
    const HEADS: [(&str, usize); 4] = [("AT", 0), ("STEP", 0), ("EVENT", 0), ("WHAT", 0)];
    let row = |entry: &Entry| {
        let step = entry.step.map_or_else(none, |step| (step + 1).to_string());
        vec![entry.at.clone(), step, shown(&entry.event), shown(&entry.text)]
    };
    if log.is_empty() { String::new() } else { table(&HEADS, &log.iter().map(row).collect::<Vec<_>>()) }
}

fn verdict(said: &Said) -> String {
    const HEADS: [(&str, usize); 4] = [("EVIDENCE", 0), ("DIRECTION", 0), ("E-VALUE", 0), ("LIMIT", 0)];
    let rows = said.evidence.iter().map(|e| vec![shown(&e.name), shown(&e.direction), e_of(e), limit_of(e)]);
    let rows: Vec<_> = rows.collect();
    let text = format!("{}: {}\n", shown(&said.verdict), shown(&said.reason));
    if rows.is_empty() { text } else { text + &table(&HEADS, &rows) }
}

/// `weir rollout list`, newest first.
pub fn list(rollouts: &[Summary]) -> String {
    const HEADS: [(&str, usize); 8] =
        [("STARTED", 0), ("SPLIT", 0), ("FROM", 0), ("TO", 0), ("STATE", 0), ("REQUESTS", 0), ("BY", 0), ("ID", 0)];
    let row = |s: &Summary| {
        let Summary { id, split, to, stable, state, by, started_at, requests, .. } = s;
        let texts = [started_at, split, stable, to, state].map(|text| shown(text));
        let mut row = texts.to_vec();
        row.extend([requests.to_string(), shown(by), shown(id)]);
        row
    };
    table(&HEADS, &rollouts.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rollout::Document;

    /// As weir writes it: read by the type that writes, and by ours.
    fn document() -> Value {
        let counters = |statuses: Value, causes: Value, retried: u64| json!({"statuses": statuses, "causes": causes, "retried": retried, "rescued": 0, "spilled": 1, "cut": 2});
        let value = json!({
            "id": "01JABC", "split": "shop", "to": "v2", "stable": "v1", "state": "failed", "by": "token:ci",
            "reason": "release 42", "started_at": "2026-03-01T12:00:00.000Z", "ended_at": "2026-03-01T12:07:31.000Z",
            "ending": "rolled back: errors",
            "steps": [{"weight": 1.0, "for_seconds": 120.0, "approve": false}, {"weight": 25.0, "for_seconds": 600.0, "approve": true}],
            "log": [
                {"at": "2026-03-01T12:00:00.000Z", "event": "started", "text": "from v1 to v2"},
                {"at": "2026-03-01T12:00:01.000Z", "event": "step", "text": "1 % for v2", "step": 0},
                {"at": "2026-03-01T12:01:00.000Z", "event": "check", "text": "orders: pass: 0.1, at most 0.5", "step": 0}],
            "sheets": [
                {"step": null, "version": "v1", "counters": counters(json!({"200": 3}), json!({}), 0)},
                {"step": 0, "version": "v2", "counters": counters(json!({"0": 1, "200": 878, "503": 2}), json!({"connect": 1, "status": 2}), 3)}],
            "totals": [{"version": "v2", "requests": 881, "counters": counters(json!({"200": 878}), json!({}), 3)}],
            "verdict": {"verdict": "regressed", "reason": "errors: canary 3/6", "evidence": [
                {"name": "errors", "direction": "against", "log_e": 1270f64.ln(), "limit": 1000f64.ln()},
                {"name": "errors", "direction": "for", "log_e": 0.001f64.ln(), "limit": 20f64.ln()}]},
            "gaps": [{"from": "2026-03-01T12:02:00.000Z", "until": "2026-03-01T12:02:09.000Z"}],
        });
        serde_json::from_value::<Document>(value.clone()).unwrap();
        value
    }

    #[test]
    fn everything_of_a_receipt_is_printed() {
        let read: Receipt = serde_json::from_value(document()).unwrap();
        let expected = "\
shop   v1 -> v2   failed
rollout   01JABC
started   2026-03-01T12:00:00.000Z by token:ci, \"release 42\"
ended     2026-03-01T12:07:31.000Z: rolled back: errors
! weir was down: requests may be uncounted from 2026-03-01T12:02:00.000Z to 2026-03-01T12:02:09.000Z

STEP  WEIGHT  FOR  APPROVAL   BEGAN
1     1%      2m   -          2026-03-01T12:00:01.000Z
2     25%     10m  asked for  -

STEP  VERSION  REQUESTS  RETRIED  RESCUED  SPILLED  CUT  BY STATUS                       FAILED ATTEMPTS
-     v1       3         0        0        1        2    200: 3                          -
1     v2       881       3        0        1        2    no answer: 1, 200: 878, 503: 2  connect: 1, status: 2
all   v2       881       3        0        1        2    200: 878                        -

AT                        STEP  EVENT    WHAT
2026-03-01T12:00:00.000Z  -     started  from v1 to v2
2026-03-01T12:00:01.000Z  1     step     1 % for v2
2026-03-01T12:01:00.000Z  1     check    orders: pass: 0.1, at most 0.5

regressed: errors: canary 3/6
EVIDENCE  DIRECTION  E-VALUE  LIMIT
errors    against    1270     1000
errors    for        <0.01    20
";
        assert_eq!(receipt(&read, Paint(false)), expected);
    }

    #[test]
    fn one_that_has_just_begun_is_short_and_an_old_one_is_understood() {
        let read: Receipt = serde_json::from_value(json!({"split": "shop", "stable": "v1", "to": "v2",
            "state": "running", "id": "r1", "by": "file", "started_at": "now", "news": [1]}))
        .unwrap();
        assert_eq!(receipt(&read, Paint(false)), "shop   v1 -> v2   running\nrollout   r1\nstarted   now by file\n");
    }

    #[test]
    fn a_list_has_a_line_for_each() {
        let summary = Summary {
            id: "01J".into(),
            split: "shop".into(),
            to: "v2".into(),
            stable: "v1".into(),
            state: "finished".into(),
            by: "token:ci".into(),
            started_at: "2026-03-01T12:00:00.000Z".into(),
            requests: 17_280,
            ..Summary::default()
        };
        let expected = "\
STARTED                   SPLIT  FROM  TO  STATE     REQUESTS  BY        ID
2026-03-01T12:00:00.000Z  shop   v1    v2  finished  17280     token:ci  01J
";
        assert_eq!(list(&[summary]), expected);
    }
}
