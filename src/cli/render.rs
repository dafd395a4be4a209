//! What the commands print, as text from the API's answers. Pure.
//!
//! Invariant: the lines are those of surface.md section 8; the tests at the bottom hold its samples.

use std::time::Duration;

use super::evidence;
use super::print::{Paint, shown};
use super::table::{millis, none, rate, seen, share, table};
use super::views::{
    Diagnostic, Endpoint, Entry, Name, Override, Predecessor, Reload, RuleStats, Split, Status, Version,
};
use crate::model::Weights;

/// All splits, one block each, after what needs attention.
pub fn status(status: &Status, paint: Paint) -> String {
    let mut text = String::new();
    if status.config.result == "rejected" {
        let message = status.config.message.as_deref().unwrap_or("see the log");
        let line = format!("! the configuration was rejected at {}: {}", status.config.at, shown(message));
        text += &format!("{}\n", paint.red(&line));
    }
    if status.persisted == Some(false) {
        text += &format!("{}\n", paint.red("! changes are not saved to disk; a restart forgets them"));
    }
    if let Some(Predecessor { pid, connections, in_flight: c }) = &status.predecessor {
        let kinds = format!("{} requests, {} streams, {} upgrades", c.requests, c.streams, c.upgrades);
        text += &format!("process {pid} has handed over and finishes {connections} connections ({kinds} in flight)\n");
    }
    if status.splits.is_empty() {
        text += "no splits\n";
    }
    let blocks: Vec<String> = status.splits.iter().map(|s| split(s, paint)).collect();
    text + &blocks.join("\n")
}

/// One split: its state, then a line per version.
pub fn split(split: &Split, paint: Paint) -> String {
    const HEADS: [(&str, usize); 10] = [
        ("VERSION", 10),
        ("SHARE", 5),
        ("SEEN", 6),
        ("RPS", 6),
        ("5XX", 5),
        ("P50", 5),
        ("P95", 5),
        ("P99", 5),
        ("IN-FLIGHT", 9),
        ("ENDPOINTS", 0),
    ];
    let state = match split.state.as_str() {
        "steady" => split.state.clone(),
        "held" => paint.red(&split.state),
        _ => paint.yellow(&split.state),
    };
    let rows: Vec<_> = split.versions.iter().map(|v| version(v, v.name == split.stable)).collect();
    let names = split.versions.iter().flat_map(|v| v.names.iter().filter_map(|name| unknown(v, name)));
    let names: String = names.map(|line| format!("{}\n", paint.yellow(&line))).collect();
    let ill: String = split.versions.iter().flat_map(|v| v.endpoints.iter().filter_map(|e| ill(v, e))).collect();
    let ill = if ill.is_empty() { ill } else { paint.red(ill.trim_end()) + "\n" };
    let (head, block) = match &split.rollout {
        Some(rollout) => (evidence::head(rollout), evidence::block(split, rollout, paint)),
        None => Default::default(),
    };
    let (name, origin, table) = (paint.bold(&split.name), origin(split), table(&HEADS, &rows));
    let rules = rules(&split.rules);
    format!("{name}   {state}{head}{origin}\n{table}{rules}{block}{names}{ill}")
}

/// The results of each rule, by version: what an A/B test is for.
fn rules(rules: &[RuleStats]) -> String {
    const HEADS: [(&str, usize); 8] =
        [("RULE", 10), ("VERSION", 0), ("REQUESTS", 0), ("RPS", 6), ("5XX", 5), ("P50", 5), ("P95", 5), ("P99", 5)];
    let row = |RuleStats { name, version, stats }: &RuleStats| {
        vec![
            shown(name),
            version.clone(),
            stats.requests.to_string(),
            stats.rps.map_or_else(none, |r| format!("{r:.1}")),
            if stats.requests == 0 { none() } else { rate(stats.error_rate) },
            millis(stats.p50_ms),
            millis(stats.p95_ms),
            millis(stats.p99_ms),
        ]
    };
    if rules.is_empty() { String::new() } else { table(&HEADS, &rules.iter().map(row).collect::<Vec<_>>()) }
}

/// What is wrong with a name, if anything.
fn unknown(version: &Version, name: &Name) -> Option<String> {
    let error = name.error.as_deref().unwrap_or("no answer yet");
    let kept = match (name.state.as_str(), name.age_seconds) {
        ("stale", Some(age)) => format!("; its answer of {age} s ago is in force"),
        ("stale", None) => "; what it had is in force".to_owned(),
        ("unresolved" | "resolving", _) => "; it has no address yet".to_owned(),
        _ => return None,
    };
    Some(format!("! {}: {} is not resolved: {}{kept}", version.name, shown(&name.name), shown(error)))
}

/// `! v1  10.0.0.12:9000  down: status 503, not 200-399`, for an endpoint that is not up and says why.
fn ill(version: &Version, endpoint: &Endpoint) -> Option<String> {
    let reason = endpoint.reason.as_deref().filter(|r| !r.is_empty())?;
    Some(format!("! {}  {}  {}: {}\n", version.name, endpoint.address, endpoint.state, shown(reason)))
}

/// Why the weights are as they are.
fn origin(split: &Split) -> String {
    match &split.override_ {
        None => String::new(),
        Some(Override { hold: true, by, reason }) => format!(
            "   file wants {} (held by {by}{}; back to the file: weir release {})",
            slashed(&split.file_weights),
            why(reason.as_deref()),
            split.name
        ),
        Some(Override { by, reason, .. }) => {
            format!("   file: {} (override by {by}{})", split.file_weights, why(reason.as_deref()))
        }
    }
}

fn why(reason: Option<&str>) -> String {
    reason.filter(|r| !r.is_empty()).map_or_else(String::new, |r| format!(", \"{}\"", shown(r)))
}

fn slashed(weights: &Weights) -> String {
    weights.iter().map(|(_, w)| w.value().to_string()).collect::<Vec<_>>().join("/")
}

fn version(version: &Version, stable: bool) -> Vec<String> {
    let mut name = version.name.clone();
    if stable {
        name += " stable";
    }
    if !matches!(version.state.as_str(), "open" | "") {
        name += &format!(" {}", version.state);
    }
    let stats = &version.stats;
    vec![
        name,
        share(version.share),
        seen(version.observed_share),
        stats.rps.map_or_else(none, |r| format!("{r:.1}")),
        if stats.requests == 0 { none() } else { rate(stats.error_rate) },
        millis(stats.p50_ms),
        millis(stats.p95_ms),
        millis(stats.p99_ms),
        stats.in_flight.to_string(),
        endpoints(version),
    ]
}

/// `2/2 up`, `1/3 up, 1 draining, 1 down`.
fn endpoints(version: &Version) -> String {
    let count = |state: &str| version.endpoints.iter().filter(|e| e.state == state).count();
    let mut text = format!("{}/{} up", count("up"), version.endpoints.len());
    for state in ["draining", "down", "ejected", "checking"] {
        match count(state) {
            0 => {}
            n => text += &format!(", {n} {state}"),
        }
    }
    text
}

/// `shop  v1 90% -> 75%   v2 10% -> 25%            revision 17, 3 ms, saved`
pub fn change(before: Option<&Weights>, after: &Split, took: Duration) -> String {
    let moves = moves(before, &after.weights);
    format!("{:<45}  {}\n", format!("{}  {}", after.name, moves.trim_end()), outcome(after, took))
}

/// Every version, its share before and after; padded so that changes printed one below the other align.
fn moves(before: Option<&Weights>, after: &Weights) -> String {
    let cell = |(v, _): (&crate::model::VersionName, _)| {
        let to = share(after.share(v));
        let from = before.filter(|b| b.weight(v).is_some()).map(|b| share(b.share(v)));
        let text = from.filter(|from| *from != to).map_or_else(|| to.clone(), |from| format!("{from} -> {to}"));
        format!("{v} {text:<width$}", width = "75% -> 100%".len())
    };
    after.iter().map(cell).collect::<Vec<_>>().join("  ")
}

/// `revision 17, 3 ms, saved`, and what stands in the way of files.
pub fn outcome(after: &Split, took: Duration) -> String {
    if after.dry_run == Some(true) {
        let what = if after.changed == Some(false) { "nothing would change" } else { "nothing was done" };
        return format!("dry run: {what}");
    }
    let mut text = format!("revision {}, {}, ", after.revision, elapsed(took));
    text += match (after.changed, after.persisted) {
        (Some(false), true) => "unchanged",
        (Some(false), false) => "unchanged, not saved",
        (_, true) => "saved",
        (_, false) => "not saved",
    };
    if after.override_.as_ref().is_some_and(|o| o.hold) {
        text += &format!(", HELD: file changes wait for `weir release {}`", after.name);
    }
    text
}

pub fn elapsed(took: Duration) -> String {
    match took.as_secs_f64() * 1000.0 {
        ms if ms < 1.0 => "under 1 ms".to_owned(),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// Newest first, a line per change.
pub fn history(entries: &[Entry]) -> String {
    const HEADS: [(&str, usize); 7] =
        [("REVISION", 0), ("AT", 0), ("BY", 0), ("WHAT", 0), ("SPLIT", 0), ("CHANGE", 0), ("REASON", 0)];
    let rows: Vec<_> = entries.iter().map(entry).collect();
    table(&HEADS, &rows)
}

fn entry(entry: &Entry) -> Vec<String> {
    let what = match (&entry.target, &entry.to) {
        (Some(target), _) => target.clone(),
        (None, Some(to)) => shares(entry.from.as_ref(), to),
        (None, None) => none(),
    };
    let or_none = |text: Option<&str>| text.filter(|t| !t.is_empty()).map_or_else(none, shown);
    vec![
        entry.revision.to_string(),
        entry.at.clone(),
        shown(&entry.by),
        entry.kind.clone(),
        or_none(entry.split.as_deref()),
        what,
        or_none(entry.reason.as_deref()),
    ]
}

/// As `moves`, unpadded; a table aligns it.
fn shares(from: Option<&Weights>, to: &Weights) -> String {
    moves(from, to).split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(", ")
}

/// What a reload did.
pub fn reload(reload: &Reload, took: Duration) -> String {
    let mut text = match (reload.dry_run, reload.result.as_str()) {
        (true, result) => format!("configuration is good, dry run: nothing was done (would be: {result})\n"),
        (false, result) => format!(
            "configuration {result}, revision {}, {}, {}\n",
            reload.revision,
            elapsed(took),
            if reload.persisted { "saved" } else { "not saved" }
        ),
    };
    for split in &reload.held {
        text += &format!("{split}  HELD: the file's weights wait for `weir release {split}`\n");
    }
    for split in &reload.superseded {
        text += &format!("{split}  the file changed its weights: the override is dropped\n");
    }
    text
}

/// Problems of a configuration that the running weir refused; `weir check` shows them with the lines themselves.
pub fn diagnostics(list: &[Diagnostic]) -> String {
    list.iter().map(diagnostic).collect()
}

fn diagnostic(d: &Diagnostic) -> String {
    let mut text = format!("{}[{}]: {}\n", d.severity, d.code, shown(&d.message));
    if let Some(file) = &d.file {
        let place = [d.line, d.column].into_iter().flatten().map(|n| format!(":{n}")).collect::<String>();
        text += &format!("  --> {file}{place}\n");
    }
    if let Some(help) = d.help.as_deref().filter(|h| !h.is_empty()) {
        text += &format!("  = help: {}\n", shown(help));
    }
    text
}

#[cfg(test)]
mod tests;
