//! `weir check`: what is wrong with a file, and which of its names nobody answers for.
//!
//! Invariant: nothing is bound and nothing is changed; without a network it takes `PATIENCE` longer, no more.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use super::load::env;
use super::thin;
use crate::cli::{CheckFormat, CheckOptions, Exit};
use crate::config::{self, Code, Config, Diagnostic, Report};
use crate::dns;

/// How long names are asked for, all together.
const PATIENCE: Duration = Duration::from_secs(2);

/// Prints the report to stdout.
pub fn check(options: &CheckOptions) -> ExitCode {
    let config::Loaded { config, mut report, .. } = config::load(&config::find(options.config.as_deref(), &env), &env);
    if let Some(config) = config.as_ref().filter(|c| versions(c).any(|(_, v)| v.names().next().is_some())) {
        warn_of_names(config, &mut report);
    }
    if let Some(config) = &config {
        thin::warn_of_steps(config, &mut report, options.per_second, options.errors);
    }
    if options.strict {
        report.strict();
    }
    if !options.quiet {
        let format = match options.format {
            CheckFormat::Text => config::Format::Text,
            CheckFormat::Json => config::Format::Json,
            CheckFormat::Github => config::Format::Github,
        };
        let _ = writeln!(std::io::stdout().lock(), "{}", report.render(format, options.color).trim_end());
    }
    if report.has_errors() { Exit::ConfigInvalid.into() } else { Exit::Done.into() }
}

fn versions(config: &Config) -> impl Iterator<Item = (&config::Split, &config::Version)> {
    config.splits.iter().flat_map(|split| split.versions.iter().map(move |version| (split, version)))
}

fn warn_of_names(config: &Config, report: &mut Report) {
    // Without a runtime nothing is known about them, which is no fault of the file.
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let unresolved = runtime.block_on(dns::unresolved(config, PATIENCE));
    // What still waits for a server is left behind.
    runtime.shutdown_background();
    for (split, version) in versions(config) {
        for (name, why) in unresolved.iter().filter(|(name, _)| version.names().any(|known| known == name)) {
            let keys = ["splits", split.name.as_str(), "versions", version.name.as_str(), "endpoints"];
            let message = format!("`{name}` of version `{}` of split `{}`: {why}", version.name, split.name);
            let help = "nothing is stopped by it: the version has no endpoint there until the name is answered for";
            let warning = Diagnostic::new(Code::NameNotResolved, message);
            report.push(warning.at(report.locate(&keys)).key(keys.join(".")).help(help));
        }
    }
}
