//! Which steps of the file's rollouts are too short for what is to be proved in them (analysis.md section 9).
//!
//! A file says nothing about traffic. So a step is judged by the traffic the operator states, else only if it would need
//! more than `PLENTY`. Invariant: a warning is given by `rollout::thin_steps` alone, so it agrees with what `weir
//! simulate` counts.

use std::fmt::Write;
use std::time::Duration;

use crate::config::{Code, Config, Diagnostic, OnInconclusive, Report, Rollout, Split, Sticky, durations};
use crate::rollout::{ThinStep, settings, thin_steps};

/// Requests per second over a split. What needs more is worth a word although nobody has said how many there are.
const PLENTY: f64 = 1000.0;

/// `per_second` of each split, if known; `errors` is stable's rate of failures.
pub(super) fn warn_of_steps(config: &Config, report: &mut Report, per_second: Option<f64>, errors: f64) {
    for split in &config.splits {
        let Some(rollout) = &split.rollout else { continue };
        let Some(analysis) = rollout.analysis.as_ref().filter(|_| is_compared(split)) else { continue };
        for thin in thin_steps(&rollout.steps, &settings(analysis), errors, per_second.unwrap_or(PLENTY)) {
            let warning = warning(split, rollout, &thin, per_second, errors);
            let number = thin.step.to_string();
            let place = report.locate(&["splits", split.name.as_str(), "rollout", "steps", &number]);
            report.push(warning.at(place).key(format!("splits.{}.rollout.steps[{number}]", split.name)));
        }
    }
}

/// Without a comparison nothing is proved, so nothing can be too short for it.
fn is_compared(split: &Split) -> bool {
    split.sticky.as_ref().is_none_or(Sticky::allows_comparison)
}

fn warning(split: &Split, rollout: &Rollout, thin: &ThinStep, per_second: Option<f64>, errors: f64) -> Diagnostic {
    let step = &rollout.steps[thin.step];
    let name = format!("step {} ({} % for {})", thin.step + 1, step.weight, durations::format(step.hold));
    let what = match (per_second, thin.needed, thin.least_per_second) {
        (_, None, _) => "cannot be proved with any number of requests".to_owned(),
        (Some(per_second), Some(needed), _) => format!(
            "needs {needed} canary requests for its proof and has {} by its end at {per_second} requests per second",
            thin.expected
        ),
        (None, Some(_), Some(least)) => format!("can be proved only above {} requests per second", least.ceil()),
        (None, Some(_), None) => "ends at once and proves nothing".to_owned(),
    };
    let then = match rollout.on_inconclusive {
        OnInconclusive::Hold => "\"hold\"` waits",
        OnInconclusive::Advance => "\"advance\"` goes on",
        OnInconclusive::Rollback => "\"rollback\"` goes back",
    };
    let below = if per_second.is_none() && thin.least_per_second.is_some() { "below it " } else { "" };
    let label = format!("{below}the step ends inconclusive and `on_inconclusive = {then}");
    Diagnostic::new(Code::ThinStep, format!("{name} of split `{}` {what}", split.name))
        .label(label)
        .help(remedy(thin, per_second, errors))
}

fn remedy(thin: &ThinStep, per_second: Option<f64>, errors: f64) -> String {
    let mut text = String::new();
    if let Some(takes) = thin.takes {
        let (takes, at) = (durations::format(whole_seconds(takes)), per_second.unwrap_or(PLENTY));
        let _ = write!(text, "lengthen it to {takes} for {at} requests per second, ");
    }
    let percent = (errors * 1e6).round() / 1e4;
    let _ = write!(text, "see `weir simulate` for others (stable is taken to fail {percent} % of its requests)");
    text
}

/// Rounded up: a little longer proves it too.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is warned of in a rollout with these lines.
    fn warnings(lines: &str, per_second: Option<f64>) -> Vec<Diagnostic> {
        let text = format!(
            "[listeners.web]\nbind = \"127.0.0.1:8080\"\n[[routes]]\nsplit = \"shop\"\n[splits.shop.versions]\n\
             v1 = {{ weight = 100, endpoints = [\"127.0.0.1:9001\"] }}\nv2 = {{ endpoints = [\"127.0.0.1:9002\"] }}\n\
             [splits.shop.rollout]\n{lines}\n"
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("weir.toml");
        std::fs::write(&file, &text).unwrap();
        let loaded = crate::config::load(&file, &|_| None);
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.text(false)));
        let mut report = loaded.report;
        warn_of_steps(&config, &mut report, per_second, 0.001);
        assert!(!report.has_errors(), "it is a warning");
        for diagnostic in &report.diagnostics {
            let place = diagnostic.place.as_ref().unwrap();
            assert!(text[place.span.clone()].starts_with("{ weight"), "{:?}", &text[place.span.clone()]);
        }
        report.diagnostics
    }

    #[test]
    fn without_traffic_only_hopeless_steps_are_told() {
        assert_eq!(warnings("steps = [{ weight = 1, for = \"5m\" }, { weight = 5, for = \"5m\" }]", None), []);
        let found = warnings("steps = [{ weight = 1, for = \"10s\" }, { weight = 50, for = \"10m\" }]", None);
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((one.code.as_str(), one.key.as_deref()), ("thin-step", Some("splits.shop.rollout.steps[0]")));
        let least = "step 1 (1 % for 10s) of split `shop` can be proved only above ";
        assert!(one.message.starts_with(least) && one.message.ends_with(" requests per second"), "{}", one.message);
        let number: f64 = one.message[least.len()..].split(' ').next().unwrap().parse().unwrap();
        // 13,929 canary requests in ten seconds at 1 %: the page says so.
        assert_eq!(number, 139_290.0);
        assert_eq!(
            one.label.as_deref(),
            Some("below it the step ends inconclusive and `on_inconclusive = \"hold\"` waits")
        );
        let help = one.help.as_deref().unwrap();
        assert!(help.starts_with("lengthen it to ") && help.contains(" for 1000 requests per second"), "{help}");
        assert!(help.contains("`weir simulate`") && help.contains("0.1 %"), "{help}");
    }

    #[test]
    fn the_traffic_stated_decides() {
        let steps = "steps = [{ weight = 1, for = \"2m\" }, { weight = 100, for = \"1m\" }]";
        assert_eq!(warnings(steps, Some(20_000.0)), []);
        let found = warnings(&format!("{steps}\non_inconclusive = \"advance\""), Some(100.0));
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert!(
            one.message.contains(" canary requests for its proof and has 120 by its end at 100 requests per second")
        );
        let label = "the step ends inconclusive and `on_inconclusive = \"advance\"` goes on";
        assert_eq!(one.label.as_deref(), Some(label));
    }

    #[test]
    fn where_nothing_is_compared_nothing_is_too_short() {
        let short = "steps = [{ weight = 1, for = \"1s\" }]";
        assert_eq!(warnings(short, Some(1.0)).len(), 1);
        assert_eq!(warnings(&format!("{short}\nanalysis = false"), Some(1.0)), []);
    }
}
