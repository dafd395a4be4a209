//! What a load of the configuration gives, as this room needs it; the application builds it from `config`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::Config;

/// Reads and resolves the configuration as it is on disk now. Blocking; must not block on a FIFO or a huge file.
pub type Loader = Arc<dyn Fn() -> LoadedConfig + Send + Sync>;

/// Renders problems found after the load with the place in the files that load has read.
pub type Explain = Arc<dyn Fn(&[Problem]) -> Report + Send + Sync>;

/// One load.
#[derive(Clone)]
pub struct LoadedConfig {
    /// The configuration, or the rendered report of why there is none.
    pub config: Result<Arc<Config>, String>,
    /// The array of surface.md section 5: errors and warnings.
    pub diagnostics: Value,
    /// Rendered, one per warning.
    pub warnings: Vec<String>,
    /// Every file read or tried, the main one first; after an error too.
    pub files: Vec<PathBuf>,
    /// Folders in which a new file would be included.
    pub folders: Vec<PathBuf>,
    /// Over the contents of `files`: equal digests mean that there is nothing new.
    pub digest: [u8; 32],
    /// Without it such problems are rendered without their place.
    pub explain: Option<Explain>,
}

impl LoadedConfig {
    /// A load that did not even come to reading.
    pub(super) fn failed(report: String) -> Self {
        Self {
            diagnostics: json!([{ "code": "file-unreadable", "severity": "error", "message": report }]),
            config: Err(report),
            warnings: Vec::new(),
            files: Vec::new(),
            folders: Vec::new(),
            digest: [0; 32],
            explain: None,
        }
    }

    /// The problems as text and JSON, with their places if this load knows them.
    pub fn explain(&self, problems: &[Problem]) -> Report {
        match &self.explain {
            Some(explain) => explain(problems),
            None => self.explain_plainly(problems),
        }
    }

    fn explain_plainly(&self, problems: &[Problem]) -> Report {
        let file = self.files.first().map(|f| f.display().to_string()).unwrap_or_default();
        let mut text: String = problems.iter().map(|p| p.to_string() + "\n").collect();
        let errors = problems.iter().filter(|p| !p.is_warning).count();
        if errors > 0 {
            let plural = if errors == 1 { "" } else { "s" };
            text += &format!("{file}: {errors} error{plural}; the configuration was not loaded\n");
        }
        let object = |p: &Problem| {
            let (severity, message, help) = (p.severity(), &p.message, &p.help);
            json!({ "code": p.code, "severity": severity, "message": message, "file": file, "key": p.key, "help": help })
        };
        Report { text, diagnostics: problems.iter().map(object).collect() }
    }
}

impl fmt::Debug for LoadedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedConfig").field("config", &self.config).field("files", &self.files).finish_non_exhaustive()
    }
}

/// Something wrong with a configuration that only shows when it is put into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `address-in-use`, `restart-needed`.
    pub code: &'static str,
    pub is_warning: bool,
    /// As in `listeners.web.bind`.
    pub key: String,
    pub message: String,
    pub help: String,
}

impl Problem {
    /// `error` or `warning`.
    pub fn severity(&self) -> &'static str {
        if self.is_warning { "warning" } else { "error" }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}\n  = help: {}", self.severity(), self.code, self.message, self.help)
    }
}

/// Problems for people and for programs.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub text: String,
    /// An array as in surface.md section 5.
    pub diagnostics: Value,
}
