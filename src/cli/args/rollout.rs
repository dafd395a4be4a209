//! `weir rollout ...`: its commands and options.
//!
//! Invariant: `--wait` is offered where there is an end to wait for, so not by what pauses, ends or only shows.

use clap::{Args, Subcommand};

use super::ChangeArgs;
use crate::config::durations;

#[derive(Args, Clone, Debug)]
#[command(arg_required_else_help = true)]
pub struct RolloutArgs {
    #[command(subcommand)]
    pub command: RolloutCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub enum RolloutCommand {
    /// Begin to move a split to another version, step by step, as far as the evidence lets it
    Start(StartArgs),
    /// Where the rollout is, and what speaks for and against the new version
    Status(StatusArgs),
    /// Stay at the present step; the analysis goes on watching
    Pause(SayArgs),
    /// Go on after a pause
    Resume(SayAndWaitArgs),
    /// To the next step now, whatever the evidence; where consent is asked for, it is that
    Promote(PromoteArgs),
    /// Agree to the step that asks for it
    Approve(SayAndWaitArgs),
    /// Roll back and end the rollout
    Abort(SayArgs),
    /// Every request, step, check and verdict of a rollout
    Receipt {
        /// Name of the split (its newest rollout), or id of a rollout
        #[arg(value_name = "SPLIT|ID")]
        of: String,
    },
    /// Rollouts that are remembered, newest first
    List {
        /// Only of this split
        split: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
}

/// Whether to stay until the end.
#[derive(Args, Clone, Copy, Debug)]
pub struct WaitArgs {
    /// Follow it to its end: exit code 0 if it finished, 8 if it did not, 9 after --timeout
    #[arg(long)]
    pub wait: bool,
}

#[derive(Args, Clone, Debug)]
pub struct StartArgs {
    /// Name of the split, e.g. shop
    pub split: String,
    /// To this version [default: the file's, else the one version that is not stable]
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// Instead of the file's steps: percent and time each, e.g. 1:2m,25:10m:approve,100:10m
    #[arg(long, value_name = "PERCENT:TIME[:approve],...", value_delimiter = ',', value_parser = StepArg::parse)]
    pub steps: Vec<StepArg>,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Follow it to its end: exit code 0 if it finished, 8 if it did not, 9 after --timeout
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
}

#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Name of the split, e.g. shop
    pub split: String,
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[derive(Args, Clone, Debug)]
pub struct SayArgs {
    /// Name of the split, e.g. shop
    pub split: String,
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Args, Clone, Debug)]
pub struct SayAndWaitArgs {
    #[command(flatten)]
    pub say: SayArgs,
    /// Follow it to its end: exit code 0 if it finished, 8 if it did not, 9 after --timeout
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
}

#[derive(Args, Clone, Debug)]
pub struct PromoteArgs {
    #[command(flatten)]
    pub say: SayAndWaitArgs,
    /// To the last step at once
    #[arg(long)]
    pub full: bool,
}

impl RolloutCommand {
    /// It lasts as long as the rollout.
    pub fn waits(&self) -> bool {
        match self {
            Self::Start(args) => args.wait,
            Self::Status(args) => args.wait.wait,
            Self::Resume(args) | Self::Approve(args) => args.wait,
            Self::Promote(args) => args.say.wait,
            Self::Pause(_) | Self::Abort(_) | Self::Receipt { .. } | Self::List { .. } => false,
        }
    }
}

/// `25:10m:approve`.
#[derive(Clone, Debug, PartialEq)]
pub struct StepArg {
    /// Percent.
    pub weight: f64,
    /// As the API takes it.
    pub hold: String,
    pub approve: bool,
}

impl StepArg {
    fn parse(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "write PERCENT:TIME or PERCENT:TIME:approve, e.g. 25:10m:approve";
        let mut parts = text.trim().split(':');
        let (Some(weight), Some(hold), approve, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(SHAPE.to_owned());
        };
        let percent = weight.trim_end_matches('%').parse::<f64>().ok().filter(|w| (0.0..=100.0).contains(w));
        let weight = percent.ok_or_else(|| format!("`{weight}` is no percentage from 0 to 100; {SHAPE}"))?;
        let time = durations::parse(hold).map_err(|why| format!("`{hold}` is not a duration: {why}; {SHAPE}"))?;
        let approve = match approve {
            None => false,
            Some("approve") => true,
            Some(other) => return Err(format!("`{other}` is not `approve`; {SHAPE}")),
        };
        Ok(Self { weight, hold: durations::format(time), approve })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn parse(line: &str) -> Result<RolloutCommand, clap::Error> {
        Cli::try_parse_from(format!("weir rollout {line}").split_whitespace()).map(|cli| match cli.command {
            Command::Rollout(args) => args.command,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn steps_are_percent_time_and_consent() {
        let RolloutCommand::Start(args) =
            parse("start shop --to v2 --steps 1:2m,5.5:90s,25:10m:approve,100:1h30m").unwrap()
        else {
            panic!("not start");
        };
        let step = |weight, hold: &str, approve| StepArg { weight, hold: hold.into(), approve };
        let wanted =
            [step(1.0, "2m", false), step(5.5, "1m30s", false), step(25.0, "10m", true), step(100.0, "1h30m", false)];
        assert_eq!((args.steps.as_slice(), args.to.as_deref(), args.wait), (&wanted[..], Some("v2"), false));
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        for line in [
            "",
            "start",
            "frobnicate shop",
            "start shop --steps 1",
            "start shop --steps 1:2",
            "start shop --steps 101:2m",
            "start shop --steps NaN:2m",
            "start shop --steps x:2m",
            "start shop --steps 1:2m:yes",
            "start shop --steps 1:2m:approve:approve",
            "start shop --steps 1:2m,",
            "start shop --wait --dry-run",
            "pause shop --wait",
            "abort shop --wait",
            "pause shop --full",
            "receipt",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn only_what_has_an_end_waits() {
        for (line, waits) in [
            ("start shop --wait", true),
            ("start shop", false),
            ("status shop --wait", true),
            ("resume shop --wait --reason x", true),
            ("approve shop --wait", true),
            ("promote shop --full --wait", true),
            ("promote shop", false),
            ("pause shop", false),
            ("abort shop --dry-run", false),
            ("receipt 01J", false),
            ("list", false),
        ] {
            assert_eq!(parse(line).expect(line).waits(), waits, "{line}");
        }
    }
}
