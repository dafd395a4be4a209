//! `weir simulate`: the file's rollout, or the default one, on its way to the room `simulate`.

use std::io::Write;
use std::path::Path;

use super::load::env;
use crate::cli::{Exit, Failure, SimulateOptions, Simulated};
use crate::config::{self, Rollout, Split, Version};
use crate::model::{SplitName, VersionName, Weight};
use crate::simulate::{BadSetup, Setup, Traffic, simulate as run};

/// # Errors
/// The file cannot be taken, has no such split, or there is nothing to simulate in it.
pub fn simulate(options: &SimulateOptions) -> Result<Simulated, Failure> {
    let split = match (&options.config, &options.split) {
        (None, None) => unnamed(),
        (file, name) => of_file(&config::find(file.as_deref(), &env), name.as_deref())?,
    };
    let setup = setup(split, options);
    let report = run(&setup).map_err(refused)?;
    Ok(Simulated { text: report.text(), json: report.json() })
}

fn setup(split: Split, options: &SimulateOptions) -> Setup {
    let mut rollout = split.rollout.clone().unwrap_or_default();
    if let Some(steps) = &options.steps {
        rollout = Rollout { steps: steps.clone(), strategy: config::Strategy::Canary, ..rollout };
    }
    if let Some(analysis) = &mut rollout.analysis {
        analysis.errors.margin = options.margin.unwrap_or(analysis.errors.margin);
        analysis.false_alarm = options.false_alarm.unwrap_or(analysis.false_alarm);
    }
    let traffic = Traffic {
        per_second: options.per_second,
        errors: options.errors,
        canary_errors: options.canary_errors,
        latency: options.latency,
        spread: options.spread,
        canary_slower: options.canary_slower,
    };
    Setup { split, rollout, traffic, runs: options.runs, seed: options.seed, history: options.history }
}

/// Two versions and nothing else.
fn unnamed() -> Split {
    let name = |text: &str| VersionName::new(text).expect("letters and a digit");
    let version = |text| Version::new(name(text), Weight::default(), Vec::new());
    let split = SplitName::new("default").expect("letters");
    Split::new(split, name("stable"), vec![version("stable"), version("canary")])
}

fn of_file(path: &Path, name: Option<&str>) -> Result<Split, Failure> {
    let config::Loaded { config, report, .. } = config::load(path, &env);
    let Some(config) = config else {
        let _ = writeln!(std::io::stderr().lock(), "{}", report.text(false).trim_end());
        let text = format!("{} has errors; nothing was simulated", path.display());
        return Err(Failure::new(Exit::ConfigInvalid, "invalid-config", text));
    };
    let names: Vec<&str> = config.splits.iter().map(|split| split.name.as_str()).collect();
    let known = format!("{} has {}", path.display(), names.join(", "));
    let found = match (name, config.splits.as_slice()) {
        (None, [only]) => Some(only),
        (None, _) => return Err(Failure::usage("say which split").note(format!("{known}: name one with --split NAME"))),
        (Some(name), splits) => splits.iter().find(|split| split.name.as_str() == name),
    };
    found.cloned().ok_or_else(|| {
        let text = format!("there is no split `{}`", name.unwrap_or_default());
        Failure::new(Exit::Failed, "unknown-split", text).note(known)
    })
}

fn refused(bad: BadSetup) -> Failure {
    let failure = match &bad {
        BadSetup::OutOfRange { .. } | BadSetup::Settings(_) => return Failure::usage(bad.to_string()),
        BadSetup::NoAnalysis(_) => Failure::new(Exit::Failed, "no-analysis", bad.to_string()),
        BadSetup::NoComparison(_) => Failure::new(Exit::Failed, "no-comparison", bad.to_string()),
        BadSetup::Plan(_) => Failure::new(Exit::Failed, "no-rollout", bad.to_string()),
    };
    failure.note("nothing was simulated; without a file `weir simulate` tries the default steps and analysis")
}
