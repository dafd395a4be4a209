//! The command line: arguments in, calls of the admin API or of the rest of the program, text and an exit code out.
//!
//! Owns: the shape of every command, what is printed, the exit codes (surface.md section 8). Refuses: knowing how the
//! proxy is run or a file is checked; `main` hands those over as `Hooks`.
//! Invariants: data goes to stdout and all else to stderr; `-o json` prints the API's body unchanged; nothing that a
//! file, an answer or an argument says can panic.

mod address;
mod args;
mod change;
mod client;
mod evidence;
mod exit;
mod init;
mod look;
mod print;
mod quantity;
mod receipt;
mod render;
mod rollout;
mod rollout_views;
mod shares;
mod simulate;
mod table;
mod views;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory;

pub use address::CONFIG_PLACES;
pub use args::{CheckFormat, Cli, Command, Common};
use client::Client;
pub use exit::{Exit, Failure};
use print::Printer;
pub use simulate::{SimulateOptions, Simulated};

/// What `weir run` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// As named by `--config` or `$WEIR_CONFIG`; else it is looked for in `CONFIG_PLACES`.
    pub config: Option<PathBuf>,
    /// If the file is bad, start with the last good copy of it.
    pub last_good: bool,
    /// Start although the saved state is of a newer format.
    pub ignore_state: bool,
    /// Diagnostics on stderr may be coloured.
    pub color: bool,
}

/// What `weir check` was told.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckOptions {
    /// As named by the argument, `--config` or `$WEIR_CONFIG`; else it is looked for in `CONFIG_PLACES`.
    pub config: Option<PathBuf>,
    pub format: CheckFormat,
    /// Warnings are errors.
    pub strict: bool,
    /// Requests per second of each split, if known.
    pub per_second: Option<f64>,
    /// Share of stable's requests that fail.
    pub errors: f64,
    /// Only the exit code.
    pub quiet: bool,
    /// Diagnostics may be coloured.
    pub color: bool,
}

/// What `weir demo` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoOptions {
    /// End by itself after so many seconds.
    pub seconds: Option<u64>,
}

/// What rooms of other floors do for the command line.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    pub run: fn(RunOptions) -> ExitCode,
    pub check: fn(&CheckOptions) -> ExitCode,
    /// The JSON schema of the file.
    pub schema: fn() -> String,
    pub demo: fn(DemoOptions) -> ExitCode,
    pub simulate: fn(&SimulateOptions) -> Result<Simulated, Failure>,
}

/// Carries out a command.
pub fn main_with(cli: Cli, hooks: Hooks) -> ExitCode {
    let printer = Printer::new(&cli.common);
    let common = &cli.common;
    match cli.command {
        Command::Run(args) => (hooks.run)(RunOptions {
            config: address::explicit(common).map(Path::to_owned),
            last_good: args.last_good,
            ignore_state: args.ignore_state,
            color: printer.colors_errors(),
        }),
        Command::Check(args) => (hooks.check)(&CheckOptions {
            config: args.file.or_else(|| address::explicit(common).map(Path::to_owned)),
            format: args.format,
            strict: args.strict,
            per_second: args.rps,
            errors: args.errors,
            quiet: common.quiet,
            color: printer.paint().0,
        }),
        Command::Demo(args) => (hooks.demo)(DemoOptions { seconds: args.seconds }),
        command => local_or_remote(command, common, printer, hooks).unwrap_or_else(|failure| {
            printer.failure(&failure);
            failure.exit.into()
        }),
    }
}

/// The commands that need nothing running, then those that ask the admin API.
fn local_or_remote(command: Command, common: &Common, printer: Printer, hooks: Hooks) -> Result<ExitCode, Failure> {
    match command {
        Command::Init(args) => init::init(common, printer, &args)?,
        Command::Schema => drop(printer.data(&with_end((hooks.schema)()))),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "weir", &mut text);
            printer.data(&String::from_utf8_lossy(&text));
        }
        Command::Man { dir } => man(printer, dir.as_deref())?,
        Command::Simulate(args) => simulate::simulate(common, printer, args, hooks.simulate)?,
        command => {
            if let Some(name) = later(&command) {
                return Err(not_yet(name));
            }
            // With --wait the time is that of the whole wait, not of one call.
            let waits = match &command {
                Command::Drain(args) => args.wait,
                Command::Rollout(args) => args.command.waits(),
                _ => false,
            };
            let client = Client::new(common, common.timeout.filter(|_| !waits))?;
            return runtime()?.block_on(remote(command, common, printer, &client));
        }
    }
    Ok(Exit::Done.into())
}

async fn remote(command: Command, common: &Common, printer: Printer, client: &Client) -> Result<ExitCode, Failure> {
    match command {
        Command::Status(args) if common.quiet && !args.watch => return Ok(look::is_ready(client).await.into()),
        Command::Status(args) => look::status(client, printer, &args).await?,
        Command::History(args) => look::history(client, printer, &args).await?,
        Command::Reload(args) => look::reload(client, printer, &args).await?,
        Command::Upgrade => look::upgrade(client, printer).await?,
        Command::Shift(args) => change::shift(client, printer, &args).await?,
        Command::Rollback(args) => change::rollback(client, printer, &args).await?,
        Command::Release(args) => change::release(client, printer, &args).await?,
        Command::Rollout(args) => rollout::rollout(client, printer, &args.command, common.timeout).await?,
        Command::Drain(args) => change::drain(client, printer, &args, common.timeout).await?,
        Command::Undrain(args) => change::undrain(client, printer, &args).await?,
        // Every other command was taken before; said as such rather than by a panic should one be forgotten.
        other => return Err(not_yet(&format!("{other:?}").to_lowercase())),
    }
    Ok(Exit::Done.into())
}

/// The name of a command that a later issue builds.
fn later(command: &Command) -> Option<&'static str> {
    Some(match command {
        Command::Events(_) => "events",
        Command::Explain(_) => "explain",
        Command::Diff(_) => "diff",
        Command::Flags(_) => "flags",
        Command::Token(_) => "token",
        Command::Import(_) => "import",
        _ => return None,
    })
}

fn not_yet(name: &str) -> Failure {
    Failure::new(Exit::Failed, "not-yet", format!("`weir {name}` is not built yet"))
        .note("`weir --help` lists what is; the README's status table says what is to come")
}

fn man(printer: Printer, dir: Option<&Path>) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, "file-unwritable", format!("manual page: {e}"));
    if let Some(dir) = dir {
        return clap_mangen::generate_to(Cli::command(), dir).map_err(failed);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(failed)?;
    printer.data(&String::from_utf8_lossy(&page));
    Ok(())
}

fn with_end(text: String) -> String {
    if text.ends_with('\n') { text } else { text + "\n" }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|e| Failure::new(Exit::Failed, "no-runtime", format!("this system refuses what a client needs: {e}")))
}

#[cfg(test)]
mod tests;
