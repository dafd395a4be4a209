//! `weir simulate`: its options, and what it prints of what the room `simulate` finds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::address;
use super::args::{Common, duration};
use super::exit::{Exit, Failure};
use super::print::Printer;
use super::quantity::{Steps, factor, per_second, rate};
use crate::config::Step;

#[derive(Args, Clone, Debug)]
pub struct SimulateArgs {
    /// The file with the split's rollout; without it, and without --split: the default steps and analysis
    pub file: Option<PathBuf>,
    /// The split whose `rollout` is tried [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Instead of the file's steps, e.g. 1:2m,5:5m,25:10m,50:10m,100:10m (a time left out is 5m)
    #[arg(long, visible_alias = "step-weights", value_name = "PERCENT[:TIME],...", value_parser = Steps::parse)]
    pub steps: Option<Steps>,
    /// Requests per second over the whole split
    #[arg(long, value_name = "NUMBER", default_value = "100", value_parser = per_second)]
    pub rps: f64,
    /// Share of stable's requests that fail
    #[arg(long, value_name = "RATE", default_value = "0.1%", value_parser = rate)]
    pub errors: f64,
    /// Share of the canary's requests that fail [default: as --errors]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub canary_errors: Option<f64>,
    /// Stable's median latency
    #[arg(long, value_name = "DURATION", default_value = "20ms", value_parser = duration)]
    pub latency: Duration,
    /// 99th percentile of the latencies over their median, of both versions
    #[arg(long, value_name = "FACTOR", default_value = "8", value_parser = factor)]
    pub spread: f64,
    /// The canary's latencies over stable's
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = factor)]
    pub canary_slower: f64,
    /// Instead of the file's `errors.margin`
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub margin: Option<f64>,
    /// Instead of the file's `false_alarm`
    #[arg(long, value_name = "CHANCE", value_parser = rate)]
    pub false_alarm: Option<f64>,
    /// How many of stable's requests are known before the rollout
    #[arg(long, value_name = "REQUESTS", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(..=200_000))]
    pub history: u64,
    /// How many rollouts
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub runs: u32,
    /// The same seed gives the same figures
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Not built yet: a rollout's receipt instead of made-up traffic
    #[arg(long, value_name = "FILE", hide = true)]
    pub recorded: Option<PathBuf>,
}

/// What `weir simulate` was told.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulateOptions {
    /// As named by the argument, `--config` or `$WEIR_CONFIG`. `None` with a split: it is looked for in `CONFIG_PLACES`;
    /// without one: no file is read.
    pub config: Option<PathBuf>,
    pub split: Option<String>,
    pub steps: Option<Vec<Step>>,
    /// Over the whole split.
    pub per_second: f64,
    pub errors: f64,
    pub canary_errors: f64,
    pub latency: Duration,
    pub spread: f64,
    pub canary_slower: f64,
    pub margin: Option<f64>,
    pub false_alarm: Option<f64>,
    pub history: u64,
    pub runs: u32,
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulated {
    /// For people.
    pub text: String,
    pub json: String,
}

pub fn simulate(
    common: &Common,
    printer: Printer,
    args: SimulateArgs,
    hook: fn(&SimulateOptions) -> Result<Simulated, Failure>,
) -> Result<(), Failure> {
    if args.recorded.is_some() {
        let text = "`weir simulate --recorded` is not built yet";
        return Err(Failure::new(Exit::Failed, "not-yet", text).note("without it the traffic is made up; see --help"));
    }
    let Simulated { text, json } = hook(&options(common, args))?;
    if printer.json {
        printer.body(json.as_bytes())
    } else {
        printer.data(&text)
    };
    Ok(())
}

fn options(common: &Common, args: SimulateArgs) -> SimulateOptions {
    SimulateOptions {
        config: args.file.or_else(|| address::explicit(common).map(Path::to_owned)),
        split: args.split,
        steps: args.steps.map(|Steps(steps)| steps),
        per_second: args.rps,
        errors: args.errors,
        canary_errors: args.canary_errors.unwrap_or(args.errors),
        latency: args.latency,
        spread: args.spread,
        canary_slower: args.canary_slower,
        margin: args.margin,
        false_alarm: args.false_alarm,
        history: args.history,
        runs: args.runs,
        seed: args.seed,
    }
}
