//! A report as text (for people), as JSON and as GitHub annotations (for machines).
//!
//! Invariant: the same diagnostics, in the same order, in every format; no control character of a file reaches a
//! terminal or a workflow log unescaped.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str};
use serde_json::{Value, json};

use super::error::{Diagnostic, Place, Report, Severity, Source};

/// `weir check --format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
    Github,
}

impl Report {
    /// In the format asked for; `colour` matters for text only. Ends with a newline unless empty.
    pub fn render(&self, format: Format, colour: bool) -> String {
        match format {
            Format::Text => self.text(colour),
            Format::Json => format!("{:#}\n", self.json()),
            Format::Github => self.github(),
        }
    }

    /// Every diagnostic with its source line and caret, then the summary line.
    pub fn text(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let shown: Vec<String> = self.diagnostics.iter().map(|d| renderer.render(&[self.group(d)]) + "\n").collect();
        format!("{}{}\n", shown.join("\n"), self.summary())
    }

    /// `weir.toml: 1 error, 0 warnings; the configuration was not loaded`.
    pub fn summary(&self) -> String {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let (errors, warnings) = (count(self.errors(), "error"), count(self.warnings(), "warning"));
        let outcome = if self.has_errors() { "the configuration was not loaded" } else { "the configuration is valid" };
        let rest = match self.omitted() {
            0 => String::new(),
            n => format!(" ({n} more of them not shown)"),
        };
        format!("{}: {errors}{rest}, {warnings}; {outcome}", normalize_untrusted_str(self.name()))
    }

    /// The array of surface.md section 5.
    pub fn json(&self) -> Value {
        self.diagnostics.iter().map(|d| self.json_one(d)).collect()
    }

    /// Workflow commands, one a line.
    pub fn github(&self) -> String {
        self.diagnostics.iter().map(|d| self.github_one(d) + "\n").collect()
    }

    fn source(&self, place: &Place) -> Option<&Source> {
        self.sources.get(place.source)
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.as_str());
        let mut group = Group::with_title(title);
        group = match diagnostic.place.as_ref().and_then(|p| Some((p, self.source(p)?))) {
            Some((place, source)) => self.with_snippets(group, diagnostic, place, source),
            None => group.element(Origin::path(self.name())),
        };
        match &diagnostic.help {
            Some(help) => group.element(Level::HELP.message(normalize_lines(help))),
            None => group,
        }
    }

    fn with_snippets<'a>(
        &'a self,
        group: Group<'a>,
        diagnostic: &'a Diagnostic,
        place: &'a Place,
        source: &'a Source,
    ) -> Group<'a> {
        let (span, label) = (within(source, place), diagnostic.label.as_deref());
        let related = diagnostic.related.as_ref().and_then(|(other, label)| {
            let other_source = self.source(other)?;
            Some((other.source == place.source, other_source, within(other_source, other), label.as_str()))
        });
        let (primary, context) = (AnnotationKind::Primary, AnnotationKind::Context);
        match related {
            None => group.element(snippet(source, &[(primary, span, label)])),
            Some((true, _, other, text)) => {
                group.element(snippet(source, &[(primary, span, label), (context, other, Some(text))]))
            }
            Some((false, second, other, text)) => group
                .element(snippet(source, &[(primary, span, label)]))
                .element(snippet(second, &[(context, other, Some(text))])),
        }
    }

    fn json_one(&self, d: &Diagnostic) -> Value {
        let source = d.place.as_ref().and_then(|p| Some((self.source(p)?, p)));
        let start = source.map(|(s, p)| s.position(p.span.start));
        let end = source.map(|(s, p)| s.position(p.span.end));
        json!({
            "code": d.code.as_str(),
            "severity": d.severity.as_str(),
            "message": d.message,
            "file": source.map_or(self.name(), |(s, _)| &s.name),
            "line": start.map(|p| p.line),
            "column": start.map(|p| p.column),
            "end_line": end.map(|p| p.line),
            "end_column": end.map(|p| p.column),
            "key": d.key,
            "help": d.advice(),
        })
    }

    fn github_one(&self, d: &Diagnostic) -> String {
        let mut properties = String::new();
        match d.place.as_ref().and_then(|p| Some((self.source(p)?, p))) {
            Some((source, place)) => {
                let (start, end) = (source.position(place.span.start), source.position(place.span.end));
                let file = escape_property(&source.name);
                properties.push_str(&format!("file={file},line={},endLine={},", start.line, end.line));
                properties.push_str(&format!("col={},", start.column));
                if start.line == end.line {
                    properties.push_str(&format!("endColumn={},", end.column));
                }
            }
            None => properties.push_str(&format!("file={},", escape_property(self.name()))),
        }
        let message = [Some(d.message.clone()), d.advice()].into_iter().flatten().collect::<Vec<_>>().join("; ");
        let (severity, title) = (d.severity.as_str(), escape_property(d.code.as_str()));
        format!("::{severity} {properties}title={title}::{}", escape_data(&message))
    }
}

/// Gives the renderer only the lines that are marked and those between: it goes through all that it is given.
fn snippet<'a>(
    source: &'a Source,
    marks: &[(AnnotationKind, Range<usize>, Option<&'a str>)],
) -> Snippet<'a, Annotation<'a>> {
    let text = &*source.text;
    let first = marks.iter().map(|(_, span, _)| span.start).min().unwrap_or(0);
    let last = marks.iter().map(|(_, span, _)| span.end).max().unwrap_or(0);
    let start = text[..first].rfind('\n').map_or(0, |i| i + 1);
    let end = text[last..].find('\n').map_or(text.len(), |i| last + i + 1);
    let line = text[..start].matches('\n').count() + 1;
    let shown = Snippet::source(&text[start..end]).line_start(line).path(source.name.as_str());
    shown.annotations(
        marks.iter().map(|(kind, span, label)| kind.span(span.start - start..span.end - start).label(*label)),
    )
}

/// A span as the renderer needs it: inside the text, on character boundaries.
fn within(source: &Source, place: &Place) -> Range<usize> {
    let text = &source.text;
    let boundary = |mut i: usize| {
        i = i.min(text.len());
        while !text.is_char_boundary(i) {
            i -= 1;
        }
        i
    };
    let start = boundary(place.span.start);
    start..boundary(place.span.end).max(start)
}

/// Messages may hold line breaks (a regex error does); everything else of a control nature is replaced.
fn normalize_lines(text: &str) -> String {
    text.lines().map(normalize_untrusted_str).collect::<Vec<_>>().join("\n")
}

fn escape_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn escape_property(text: &str) -> String {
    escape_data(text).replace(':', "%3A").replace(',', "%2C")
}
