//! The report as people read it. Pure.

use super::figures::{count, grouped, percent, time};
use super::report::{Ends, Report, StepReport, Until};
use crate::config::OnRegressed;

const HEADS: [&str; 10] =
    ["STEP", "WEIGHT", "TIME", "CANARY REQUESTS", "NEEDED", "TAKES", "IN TIME", "PASSED", "TOOK", "LACKED"];

impl Report {
    /// A table of the steps, and what came of the runs.
    pub fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self.steps.iter().enumerate().map(|(i, step)| row(i, step)).collect();
        let thin: String = (1..).zip(&self.steps).filter_map(|(number, step)| self.thin(number, step)).collect();
        let notes = thin + self.about_latency();
        let gap = if notes.is_empty() { "" } else { "\n" };
        format!("{}\n{}{gap}{notes}\n{}", self.head(), table(&rows), self.ends())
    }

    /// NEEDED would mislead where it is not errors that hold a step up.
    fn about_latency(&self) -> &'static str {
        let is_late = self.steps.iter().any(|step| step.lacked.keys().any(|proof| *proof != "errors"));
        if is_late {
            "NEEDED is for the proof about errors; in some runs those about latency (p90, p99) took longer\n"
        } else {
            ""
        }
    }

    fn head(&self) -> String {
        let Self { split, requests_per_second, errors, latency_seconds, spread, runs, seed, history, .. } = self;
        let latency = format!("median {}, p99 {}", millis(*latency_seconds), millis(latency_seconds * spread));
        let canary = match (self.is_equal, percent(self.canary_errors), self.canary_slower) {
            (true, ..) => "the same".to_owned(),
            (false, errors, 1.0) => format!("fails {errors}, as fast"),
            (false, errors, slower) => format!("fails {errors}, {slower} times as long"),
        };
        format!(
            "{split}: {requests_per_second} requests/s; stable fails {}, {latency}; canary: {canary}\n{} runs, seed \
             {seed}, {} requests of history\n",
            percent(*errors),
            grouped((*runs).into()),
            grouped(*history),
        )
    }

    /// `step 1 needs 502 canary requests: 8m22s at 100/s and 1 %; its time is 2m`.
    fn thin(&self, number: usize, step: &StepReport) -> Option<String> {
        let (needed, takes) = (step.needed?, step.takes_seconds?);
        (takes > step.for_seconds).then(|| {
            let traffic = format!("{}/s and {}", self.requests_per_second, percent(step.weight / 100.0));
            let (takes, given) = (time(takes), time(step.for_seconds));
            format!(
                "step {number} needs {} canary requests: {takes} at {traffic}; its time is {given}\n",
                grouped(needed)
            )
        })
    }

    fn ends(&self) -> String {
        let Ends { finished, rolled_back, thin, waiting, .. } = self.ends;
        let mut text = self.end("finished", finished, "");
        let what = if self.on_regressed == OnRegressed::Pause { "paused as regressed" } else { "rolled back" };
        text += &self.end(what, rolled_back, &self.blame());
        if thin > 0 {
            text += &self.end("rolled back", thin, "evidence too thin (on_inconclusive = \"rollback\")");
        }
        let patience = format!("for evidence when max_wait ({}) was over", time(self.max_wait_seconds));
        text += &self.end("still waiting", waiting, if waiting > 0 { &patience } else { "" });
        text += &format!("\na rollout took {} on average\n", time(self.mean_seconds));
        text + &self.until_rollback.as_ref().map(until).unwrap_or_default()
    }

    fn end(&self, what: &str, runs: u32, more: &str) -> String {
        let share = percent(f64::from(runs) / f64::from(self.runs.max(1)));
        let line =
            format!("{what:<19} {:>7} of {}  {share:>8}   {more}", grouped(runs.into()), grouped(self.runs.into()));
        format!("{}\n", line.trim_end())
    }

    /// Which part of the evidence, and whether it was a false alarm.
    fn blame(&self) -> String {
        let Ends { by_errors, by_objective, by_latency, .. } = self.ends;
        let parts = [("errors", by_errors), ("objective", by_objective), ("latency", by_latency)];
        let parts: Vec<String> =
            parts.iter().filter(|(_, runs)| *runs > 0).map(|(part, runs)| format!("{part} {runs}")).collect();
        let bound = format!("promised are at most {} (false_alarm)", percent(self.false_alarm));
        let alarms = match (self.is_equal, self.is_allowed) {
            (true, _) => format!("false alarms, for the versions are equal; {bound}"),
            (false, true) => format!("false alarms, for the canary is no worse than allowed; {bound}"),
            (false, false) => String::new(),
        };
        let both = [parts.join(", "), alarms];
        both.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

fn until(until: &Until) -> String {
    let Until { mean_canary_requests, p90_canary_requests, mean_harmed, p90_harmed, mean_seconds } = *until;
    format!(
        "until a rollback: {} canary requests on average (90th percentile {}), {} failed ones among them ({}), {}\n",
        count(mean_canary_requests),
        count(p90_canary_requests),
        count(mean_harmed),
        count(p90_harmed),
        time(mean_seconds),
    )
}

fn row(i: usize, step: &StepReport) -> Vec<String> {
    let none = || "-".to_owned();
    let of_began = |runs: u32| match step.began {
        0 => none(),
        began => percent((f64::from(runs) / f64::from(began) * 1000.0).round() / 1000.0),
    };
    vec![
        (i + 1).to_string(),
        percent(step.weight / 100.0),
        time(step.for_seconds),
        grouped(step.canary_requests),
        step.needed.map_or_else(none, grouped),
        step.takes_seconds.map_or_else(none, time),
        of_began(step.in_time),
        of_began(step.passed),
        step.mean_seconds.map_or_else(none, time),
        // The most frequent one.
        step.lacked.iter().max_by_key(|(_, runs)| **runs).map_or_else(none, |(name, _)| (*name).to_owned()),
    ]
}

/// Numbers stand flush right, unlike the words in the tables of `cli`.
fn table(rows: &[Vec<String>]) -> String {
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).chain([HEADS[i].len()]).max().unwrap_or(0);
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().enumerate().map(|(i, cell)| format!("{cell:>width$}", width = width(i)));
        format!("{}\n", cells.collect::<Vec<_>>().join("  "))
    };
    let head = line(HEADS.to_vec());
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(head).chain(rows).collect()
}

/// `20ms`, `1.6s`, `0.5ms`.
fn millis(seconds: f64) -> String {
    if seconds < 1.0 { format!("{}ms", rounded(seconds * 1000.0)) } else { format!("{}s", rounded(seconds)) }
}

/// To three digits behind the point at most.
fn rounded(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}
