//! Diagnostics: one problem each, with code, place, cause and remedy; and the report that collects them.
//!
//! Invariant: codes are a contract (surface.md section 5). Everything that can be found in one run is in a report, up
//! to `LIMIT` problems; the rest is counted, so that a large file of garbage cannot keep weir busy printing.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::path::Path;
use super::tree::Node;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $severity:ident;)*) => {
        /// What kind of problem it is. Warnings become errors under `--strict`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As printed.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Unless `--strict`.
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }
        }
    };
}

codes! {
    Syntax = "syntax", Error;
    UnknownKey = "unknown-key", Error;
    WrongType = "wrong-type", Error;
    MissingKey = "missing-key", Error;
    OutOfRange = "out-of-range", Error;
    BadDuration = "bad-duration", Error;
    BadSize = "bad-size", Error;
    BadAddress = "bad-address", Error;
    BadRegex = "bad-regex", Error;
    BadMatch = "bad-match", Error;
    UnknownName = "unknown-name", Error;
    DuplicateName = "duplicate-name", Error;
    NoWeight = "no-weight", Error;
    EnvUnset = "env-unset", Error;
    FileUnreadable = "file-unreadable", Error;
    BadCertificate = "bad-certificate", Error;
    UnsafeAdmin = "unsafe-admin", Error;
    EmptyConfig = "empty-config", Error;
    HeldConflict = "held-conflict", Error;
    AddressInUse = "address-in-use", Error;
    NotYet = "not-yet", Error;
    WeightsNot100 = "weights-not-100", Warning;
    UnreachableRoute = "unreachable-route", Warning;
    UnusedSplit = "unused-split", Warning;
    NameNotResolved = "name-not-resolved", Warning;
    NoHealthCheck = "no-health-check", Warning;
    RestartNeeded = "restart-needed", Warning;
    DeprecatedKey = "deprecated-key", Warning;
    CertificateExpiring = "certificate-expiring", Warning;
    NoComparison = "no-comparison", Warning;
    /// A step of a rollout ends before its proof can be had.
    ThinStep = "thin-step", Warning;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that was read, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub text: Arc<str>,
}

/// Bytes of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into `Report::sources`.
    pub source: usize,
    pub span: Range<usize>,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub code: Code,
    pub severity: Severity,
    /// One line: what is wrong, with the names involved.
    pub message: String,
    pub place: Option<Place>,
    /// Full path of the key, `splits.shop.versions.v2.wieght`.
    pub key: Option<String>,
    /// Stands at the caret.
    pub label: Option<String>,
    /// Another place that belongs to it, with its label.
    pub related: Option<(Place, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A problem of the file as a whole; the rest is added with the methods below.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            message: message.into(),
            place: None,
            key: None,
            label: None,
            related: None,
            help: None,
        }
    }

    pub fn at(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }

    pub fn key(mut self, key: impl fmt::Display) -> Self {
        self.key = Some(key.to_string()).filter(|k| !k.is_empty());
        self
    }

    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub fn related(mut self, place: Option<Place>, label: impl Into<String>) -> Self {
        self.related = place.map(|p| (p, label.into()));
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Label and help in one line, for formats without a caret.
    pub fn advice(&self) -> Option<String> {
        match (&self.label, &self.help) {
            (Some(label), Some(help)) if label.ends_with('?') => Some(format!("{label} {help}")),
            (Some(label), Some(help)) => Some(format!("{label}; {help}")),
            (one, other) => one.clone().or_else(|| other.clone()),
        }
    }
}

/// Line and column, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Source {
    /// Where a byte is; past the end counts as the end.
    pub fn position(&self, byte: usize) -> Position {
        let mut end = byte.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Position { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// More problems than this are only counted; nobody reads them, and each costs a search through its file.
const LIMIT: usize = 200;

/// Everything found in one run, with the texts it was found in. Renderings are in `render.rs`.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The first is the file that was asked for.
    pub sources: Vec<Source>,
    pub diagnostics: Vec<Diagnostic>,
    /// Errors beyond `LIMIT`.
    omitted: usize,
    /// What was loaded, for places of problems that show only later.
    pub(super) tree: Option<Arc<Node>>,
}

impl Report {
    /// A report about a file (or a listener, an address: whatever `name` is) without a text.
    pub fn about(name: impl Into<String>) -> Self {
        Self { sources: vec![Source { name: name.into(), text: "".into() }], ..Self::default() }
    }

    /// A report about the same texts with these problems only.
    pub fn with(&self, diagnostics: Vec<Diagnostic>) -> Self {
        Self { diagnostics, omitted: 0, ..self.clone() }
    }

    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Place of the value at a key of what was loaded, `["listeners", "web", "bind"]`; of what it stands in, if the
    /// key is not in the file. An entry of a list goes by its number, from `"0"`. For problems that only other rooms
    /// can find.
    pub fn locate(&self, keys: &[&str]) -> Option<Place> {
        self.tree.as_ref()?.place_of(&keys.iter().fold(Path::root(), |path, key| path.key(key)))
    }

    pub fn errors(&self) -> usize {
        self.shown_errors() + self.omitted
    }

    pub fn warnings(&self) -> usize {
        self.diagnostics.len() - self.shown_errors()
    }

    fn shown_errors(&self) -> usize {
        self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// Problems that are counted but not in `diagnostics`.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// More will not be shown.
    pub(super) fn is_full(&self) -> bool {
        self.diagnostics.len() > LIMIT
    }

    /// Orders by place and keeps the first `LIMIT`; warnings go before errors do.
    pub(super) fn finish(&mut self) {
        self.sort();
        if self.diagnostics.len() > LIMIT {
            self.diagnostics.retain(|d| d.severity == Severity::Error);
        }
        self.omitted += self.diagnostics.len().saturating_sub(LIMIT);
        self.diagnostics.truncate(LIMIT);
    }

    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// Turns every warning into an error (`--strict`).
    pub fn strict(&mut self) {
        for diagnostic in &mut self.diagnostics {
            diagnostic.severity = Severity::Error;
        }
    }

    /// Name of the file that was asked for.
    pub fn name(&self) -> &str {
        self.sources.first().map_or("weir.toml", |s| &s.name)
    }

    /// Where a diagnostic is, for a one-line mention: `weir.toml:7:8`, or the name alone.
    pub fn location(&self, diagnostic: &Diagnostic) -> String {
        match diagnostic.place.as_ref().and_then(|p| Some((self.sources.get(p.source)?, p))) {
            Some((source, place)) => {
                let at = source.position(place.span.start);
                format!("{}:{}:{}", source.name, at.line, at.column)
            }
            None => self.name().to_owned(),
        }
    }

    /// In the order of the files and their lines; problems without a place come last.
    fn sort(&mut self) {
        self.diagnostics.sort_by_key(|d| d.place.as_ref().map_or((usize::MAX, 0), |p| (p.source, p.span.start)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let source = Source { name: "x".into(), text: "äb\nc".into() };
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position(2), Position { line: 1, column: 2 });
        assert_eq!(source.position(1), Position { line: 1, column: 1 }, "inside a character");
        assert_eq!(source.position(99), Position { line: 2, column: 2 });
    }
}
