//! The command line's shape: every command and option, as clap reads it.
//!
//! Invariant: an option is offered only where it does something; what later issues build exists as a hidden command
//! that says `not-yet`, so that a typo and a missing function are told apart.

mod rollout;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::durations;

use super::quantity::{per_second, rate};
use super::shares::Part;
use super::simulate::SimulateArgs;
pub use rollout::{
    PromoteArgs, RolloutArgs, RolloutCommand, SayArgs, StartArgs, StatusArgs as RolloutStatusArgs, StepArg,
};

/// A Layer-7 reverse proxy for shipping new versions without anybody noticing
#[derive(Clone, Debug, Parser)]
#[command(name = "weir", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 configuration invalid, 4 address in use or not \
    permitted, 5 admin not reachable, 6 refused, 7 not authorised, 8 --wait: rollout failed or rolled back, 9 --wait: \
    time over"
)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Configuration file [default: ./weir.toml, else /etc/weir/weir.toml]
    #[arg(short, long, global = true, value_name = "FILE", env = "WEIR_CONFIG", hide_env_values = true, value_parser = file())]
    pub config: Option<PathBuf>,
    /// Admin address of the running weir [default: `admin.bind` of the configuration file, else 127.0.0.1:9901]
    #[arg(long, global = true, value_name = "URL", env = "WEIR_ADMIN", hide_env_values = true)]
    pub admin: Option<String>,
    /// File that holds the admin token ($WEIR_TOKEN holds the token itself)
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Output format; json is the admin API's body unchanged
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Colour of the output
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
    /// How long to wait: for an answer [default: 10s], with --wait for the end [default: 5m; of a rollout: no limit]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Print nothing but errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say what is asked of the admin API, on stderr
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless $NO_COLOR is set
    Auto,
    Always,
    Never,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the proxy
    Run(RunArgs),
    /// Check a configuration file and report every problem in it
    Check(CheckArgs),
    /// Write a first weir.toml; never overwrites
    Init(InitArgs),
    /// Two toy versions, gentle load and the proxy in one process
    Demo(DemoArgs),
    /// Splits and versions: shares, rates, errors, latencies, endpoints
    ///
    /// With -q nothing is printed: exit code 0 if weir is ready, for container health checks.
    Status(StatusArgs),
    /// Set shares: the named versions get their percent, the others share the rest in their present ratio
    Shift(ShiftArgs),
    /// Send everything to the stable version at once, close the others, and hold that against the file
    Rollback(RollbackArgs),
    /// Drop the override or the held rollback: back to the file's weights
    Release(ReleaseArgs),
    /// Move a split to another version step by step, as far as the evidence lets it
    Rollout(RolloutArgs),
    /// No new requests for a version or one endpoint; what is in flight finishes
    Drain(DrainArgs),
    /// Take a drain back
    Undrain(UndrainArgs),
    /// Who changed what, when and why; newest first
    History(HistoryArgs),
    /// Read the configuration again; all or nothing
    Reload(ReloadArgs),
    /// Hand over to the binary as it is on disk now, without losing a request
    Upgrade,
    /// Try a rollout's steps and margins on made-up traffic, in virtual time
    ///
    /// The analysis, the steps and the coin are those of a real rollout; nothing runs and nothing is asked. Checks pass
    /// and approvals are given at once.
    Simulate(SimulateArgs),
    /// JSON schema of weir.toml, for editors
    Schema,
    /// Completions for a shell, to be put where it looks for them
    Completions { shell: clap_complete::Shell },
    /// The manual page, or with --dir a page for each command
    Man {
        /// Write weir.1 and one page per command into this folder
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
    #[command(hide = true)]
    Events(Later),
    #[command(hide = true)]
    Explain(Later),
    #[command(hide = true)]
    Diff(Later),
    #[command(hide = true)]
    Flags(Later),
    #[command(hide = true)]
    Token(Later),
    #[command(hide = true)]
    Import(Later),
}

#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// If the file is bad, start with the last good copy of it
    #[arg(long)]
    pub last_good: bool,
    /// Start although the saved state is of a newer format: it is set aside, not overwritten
    #[arg(long)]
    pub ignore_state: bool,
}

#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The file to check [default: the one `weir run` would use]
    pub file: Option<PathBuf>,
    /// How diagnostics are written
    #[arg(long, value_enum, default_value_t = CheckFormat::Text)]
    pub format: CheckFormat,
    /// Warnings are errors
    #[arg(long)]
    pub strict: bool,
    /// Requests per second of each split: warns of steps of a rollout too short for their proof at that traffic
    #[arg(long, value_name = "NUMBER", value_parser = per_second)]
    pub rps: Option<f64>,
    /// Share of stable's requests that fail, for the same
    #[arg(long, value_name = "RATE", default_value = "0.1%", value_parser = rate)]
    pub errors: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    Text,
    Json,
    /// Annotations of GitHub Actions
    Github,
}

#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Name of the split, e.g. shop
    pub split: String,
    /// A version, its address(es) and weight, e.g. v1=127.0.0.1:9001@90
    #[arg(required = true, value_name = "VERSION=ADDRESS[,ADDRESS][@WEIGHT]")]
    pub versions: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// End by itself after so many seconds [default: on Ctrl-C]
    #[arg(long)]
    pub seconds: Option<u64>,
}

#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Only this split
    pub split: Option<String>,
    /// Again every second
    #[arg(short, long)]
    pub watch: bool,
}

/// Why, and whether for real.
#[derive(Args, Clone, Debug)]
pub struct ChangeArgs {
    /// Why; kept in the history
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Say what would happen, do nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Args, Clone, Debug)]
pub struct ShiftArgs {
    /// Name of the split, e.g. shop
    pub split: String,
    /// A version and its percent of the whole, e.g. v2=25 or v2=0.5
    #[arg(required = true, value_name = "VERSION=PERCENT", value_parser = Part::parse)]
    pub parts: Vec<Part>,
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Args, Clone, Debug)]
pub struct RollbackArgs {
    /// Name of the split, e.g. shop
    pub split: String,
    /// To this version [default: the split's stable one]
    #[arg(long, value_name = "VERSION", conflicts_with = "to_revision")]
    pub to: Option<String>,
    /// To the weights of this revision (see `weir history`)
    #[arg(long, value_name = "REVISION")]
    pub to_revision: Option<u64>,
    /// Even if the target has no healthy endpoint
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Args, Clone, Debug)]
pub struct ReleaseArgs {
    /// Name of the split, e.g. shop
    pub split: String,
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Args, Clone, Debug)]
pub struct DrainArgs {
    /// e.g. shop/v1 or shop/v1/10.0.0.11:9000
    #[arg(value_name = "SPLIT/VERSION[/ENDPOINT]", value_parser = Target::parse)]
    pub target: Target,
    /// Return when nothing is in flight any more (exit code 9 after --timeout)
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Args, Clone, Debug)]
pub struct UndrainArgs {
    /// e.g. shop/v1 or shop/v1/10.0.0.11:9000
    #[arg(value_name = "SPLIT/VERSION[/ENDPOINT]", value_parser = Target::parse)]
    pub target: Target,
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Args, Clone, Debug)]
pub struct HistoryArgs {
    /// Only this split
    pub split: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    pub limit: u32,
    /// Only revisions below this one
    #[arg(long, value_name = "REVISION")]
    pub before: Option<u64>,
}

#[derive(Args, Clone, Debug)]
pub struct ReloadArgs {
    /// Say what would happen, do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Whatever is said to a command that is not built yet.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<String>,
}

/// What is drained: a version or one of its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub split: String,
    pub version: String,
    pub endpoint: Option<String>,
}

impl Target {
    fn parse(text: &str) -> Result<Self, String> {
        // An endpoint may hold slashes itself (`unix:/run/shop.sock`), so it is all that follows the second one.
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(split), Some(version), endpoint)
                if !split.is_empty() && !version.is_empty() && endpoint.as_deref() != Some("") =>
            {
                Ok(Self { split, version, endpoint })
            }
            _ => Err("write SPLIT/VERSION or SPLIT/VERSION/ENDPOINT, e.g. shop/v1/10.0.0.11:9000".to_owned()),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.split, self.version)?;
        self.endpoint.iter().try_for_each(|e| write!(f, "/{e}"))
    }
}

/// An empty `$WEIR_CONFIG` is as good as none, where clap's own parser of paths would refuse every command.
fn file() -> impl TypedValueParser<Value = PathBuf> {
    clap::builder::OsStringValueParser::new().map(PathBuf::from)
}

/// `250ms`, `10s`, `1h30m`; a bare number is an error, as in the file.
pub fn duration(text: &str) -> Result<Duration, String> {
    match durations::parse(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("`{text}` is not a duration; write it as in 250ms, 10s or 1h30m")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn clap_finds_no_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn common_options_stand_before_or_after_the_command() {
        for line in ["weir --admin http://a:1 -o json status shop -w", "weir status shop -w --admin http://a:1 -o json"]
        {
            let cli = parse(line).unwrap();
            assert_eq!((cli.common.admin.as_deref(), cli.common.output), (Some("http://a:1"), Output::Json));
            let Command::Status(status) = cli.command else { panic!("not status") };
            assert_eq!((status.split.as_deref(), status.watch), (Some("shop"), true));
        }
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        for line in [
            "weir nonsense",
            "weir shift shop",
            "weir shift shop v2",
            "weir shift shop v2=x",
            "weir shift shop v2=101",
            "weir drain shop",
            "weir drain shop/",
            "weir drain shop/v1/",
            "weir drain shop/v1 --wait --timeout 10",
            "weir rollback shop --to v1 --to-revision 3",
            "weir status -q -v",
            "weir init shop",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn commands_of_later_issues_take_whatever_is_said() {
        for line in ["weir explain https://x/ -H x-canary:1", "weir events --all", "weir diff"] {
            parse(line).expect(line);
        }
    }

    #[test]
    fn an_empty_file_name_is_none() {
        let cli = Cli::try_parse_from(["weir", "-c", "", "check"]).unwrap();
        assert_eq!(crate::cli::address::explicit(&cli.common), None);
    }

    #[test]
    fn targets_keep_slashes_of_an_endpoint() {
        let target = Target::parse("shop/v1/unix:/run/shop.sock").unwrap();
        assert_eq!(target.endpoint.as_deref(), Some("unix:/run/shop.sock"));
        assert_eq!(target.to_string(), "shop/v1/unix:/run/shop.sock");
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)), "every unit the file knows");
        for bad in ["", "10", "s", "10 s", "-1s", "0s", "99999999999s", "1s2", "1y", "1é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
