//! `config`'s loads as `reload` and `admin` need them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::config::{self, Code, Diagnostic, Format, Report, Severity};
use crate::reload::{Explain, LoadedConfig, Loader, Problem};

/// Reads the process's environment.
pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Loads one file, again and again.
pub(super) fn loader(path: PathBuf) -> Loader {
    Arc::new(move || loaded(&path, config::load(&path, &env)))
}

/// One load, in the words of `reload`.
pub(super) fn loaded(path: &Path, loaded: config::Loaded) -> LoadedConfig {
    let config::Loaded { config, report, files, digest } = loaded;
    let (files, folders) = files.into_iter().partition(|f| f == path || !f.is_dir());
    let config = config.map(Arc::new).ok_or_else(|| report.text(false));
    LoadedConfig {
        config,
        diagnostics: report.json(),
        warnings: warnings(&report),
        files,
        folders,
        digest,
        explain: Some(explain(report)),
    }
}

fn warnings(report: &Report) -> Vec<String> {
    let only = |d: &Diagnostic| report.with(vec![d.clone()]).render(Format::Text, false);
    report.diagnostics.iter().filter(|d| d.severity == Severity::Warning).map(only).collect()
}

fn explain(report: Report) -> Explain {
    Arc::new(move |problems| {
        let own = report.with(problems.iter().map(|p| diagnostic(&report, p)).collect());
        crate::reload::Report { text: own.text(false), diagnostics: own.json() }
    })
}

fn diagnostic(report: &Report, problem: &Problem) -> Diagnostic {
    let code = Code::ALL.iter().copied().find(|c| c.as_str() == problem.code).unwrap_or(Code::FileUnreadable);
    let mut diagnostic = Diagnostic::new(code, &problem.message)
        .at(report.locate(&problem.key.split('.').collect::<Vec<_>>()))
        .key(&problem.key)
        .help(&problem.help);
    diagnostic.severity = if problem.is_warning { Severity::Warning } else { Severity::Error };
    diagnostic
}

/// The diagnostics of a text that is not in force, for the API.
pub(super) fn check(name: &str, text: &str) -> Value {
    config::check_text(name, text, &env).report.json()
}
