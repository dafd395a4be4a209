//! From a path to a `Config` or a report: read, parse, include, check, resolve.
//!
//! Why in this order: a syntax error makes everything behind it guesswork, so it stands alone; from there on every
//! step reports what it finds and hands on the sound rest, so that one run shows all problems.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::error::{Code, Diagnostic, Place, Report, Source};
use super::files::Reading;
use super::merge::merge;
use super::path::Path as KeyPath;
use super::tree::{Builder, Kind, Node};
use super::{Config, check, resolve};

/// The environment as the operator set it.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What came of loading.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// There is one exactly if the report has no error; but see `check_text`.
    pub config: Option<Config>,
    pub report: Report,
    /// Every file that was read or should have been, and the folder of every include pattern: what to watch.
    pub files: Vec<PathBuf>,
    /// Of all contents; equal to `read_digest` of the same files.
    pub digest: [u8; 32],
}

/// Loads a file and its includes.
pub fn load(path: &Path, env: Env<'_>) -> Loaded {
    let mut loader = Loader::new(path, env);
    let tree = loader.root(path);
    loader.finish(tree, path)
}

/// As `load`, taking the named keys although they are not built yet: for those who only plan with them.
// TODO: goes, for plain `load`, as soon as `rollout` is no longer refused.
pub fn load_ahead(path: &Path, env: Env<'_>, ahead: &[&str]) -> Loaded {
    let mut loader = Loader::new(path, env);
    let mut tree = loader.root(path);
    if let Some(tree) = &mut tree {
        loader.report.diagnostics.extend(emptiness(tree));
        check::check_ahead(tree, &mut loader.report, ahead);
    }
    loader.resolve(tree, path)
}

/// Checks a text that is not (yet) a file; `name` is what reports call it, and relative paths are relative to it.
///
/// Includes are refused: whoever may send a text must not read the machine's files through the diagnostics. For the same
/// reason certificates that it names are not looked at, and then there is no `Config` although nothing may be wrong.
pub fn check_text(name: &str, text: &str, env: Env<'_>) -> Loaded {
    let mut loader = Loader::new(Path::new(name), env);
    loader.reading.text(text);
    loader.may_read = false;
    let tree = loader.parse(name.to_owned(), text.to_owned());
    if let Some(tree) = &tree {
        loader.refuse_include(tree, "check the file itself with `weir check`, or paste the included texts in");
    }
    loader.finish(tree, Path::new(name))
}

/// As `check_text`, taking the named keys although they are not built yet.
#[cfg(test)]
pub fn check_text_ahead(name: &str, text: &str, env: Env<'_>, ahead: &[&str]) -> Loaded {
    let mut loader = Loader::new(Path::new(name), env);
    loader.may_read = false;
    let mut tree = loader.parse(name.to_owned(), text.to_owned());
    if let Some(tree) = &mut tree {
        check::check_ahead(tree, &mut loader.report, ahead);
    }
    loader.resolve(tree, Path::new(name))
}

/// Digest of the file and everything it names as they are now, for a watcher.
///
/// # Errors
/// When the file itself cannot be read; a missing include is part of the digest.
pub fn read_digest(path: &Path) -> io::Result<[u8; 32]> {
    let env = |name: &str| std::env::var(name).ok();
    let mut loader = Loader::new(path, &env);
    let tree = loader.root(path);
    let error = loader.root_error.take();
    let digest = loader.finish(tree, path).digest;
    error.map_or(Ok(digest), Err)
}

/// The `state_dir` that a file asks for, also of one that is otherwise broken: for `--last-good`.
pub fn state_dir(path: &Path, env: Env<'_>) -> PathBuf {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let (table, _) = toml::de::DeTable::parse_recoverable(&text);
    let admin = table.get_ref().get("admin").and_then(|v| v.get_ref().as_table());
    let written = admin.and_then(|admin| admin.get("state_dir")).and_then(|v| v.get_ref().as_str());
    resolve::state_dir(written, path.parent().unwrap_or(Path::new("")), env)
}

/// Which file is meant: `--config`, `$WEIR_CONFIG`, `./weir.toml` if it is there, else `/etc/weir/weir.toml`.
pub fn find(explicit: Option<&Path>, env: Env<'_>) -> PathBuf {
    if let Some(path) = explicit {
        return path.to_owned();
    }
    if let Some(path) = env("WEIR_CONFIG").filter(|p| !p.is_empty()) {
        return path.into();
    }
    let (here, system) = (PathBuf::from("weir.toml"), PathBuf::from("/etc/weir/weir.toml"));
    // With neither there, the error should name the one people expect to edit.
    if here.exists() || !system.exists() { here } else { system }
}

struct Loader<'a> {
    env: Env<'a>,
    report: Report,
    reading: Reading,
    /// Files that keys name may be opened.
    may_read: bool,
    root_error: Option<io::Error>,
}

impl<'a> Loader<'a> {
    fn new(path: &Path, env: Env<'a>) -> Self {
        let report = Report::about(path.display().to_string());
        Self { env, report, reading: Reading::default(), may_read: true, root_error: None }
    }

    fn root(&mut self, path: &Path) -> Option<Node> {
        let name = path.display().to_string();
        match self.reading.file(path) {
            Ok(bytes) => {
                let mut tree = self.parse_bytes(name, bytes)?;
                self.include(&mut tree, path.parent().unwrap_or(Path::new("")));
                Some(tree)
            }
            Err(error) => {
                let diagnostic = Diagnostic::new(Code::FileUnreadable, format!("{name} cannot be read: {error}"));
                self.report.push(diagnostic.help("name a file with --config FILE; `weir init` writes a first one"));
                self.root_error = Some(error);
                None
            }
        }
    }

    fn parse_bytes(&mut self, name: String, bytes: Vec<u8>) -> Option<Node> {
        match String::from_utf8(bytes) {
            Ok(text) => self.parse(name, text),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(&error.into_bytes()).into_owned();
                let place = Place { source: self.add_source(name, text), span: valid..valid + 1 };
                let diagnostic = Diagnostic::new(Code::Syntax, "this byte is not UTF-8").at(Some(place));
                self.report.push(diagnostic.label("here").help("save the file as UTF-8"));
                None
            }
        }
    }

    fn parse(&mut self, name: String, text: String) -> Option<Node> {
        let source = self.add_source(name, text);
        let text = self.report.sources[source].text.clone();
        match DeTable::parse(&text) {
            Ok(table) => Some(Builder { source, env: self.env, report: &mut self.report }.document(&table)),
            Err(error) => {
                let place = error.span().map(|span| Place { source, span });
                let diagnostic = Diagnostic::new(Code::Syntax, format!("invalid TOML: {}", error.message()));
                self.report.push(diagnostic.at(place).label("here").help(syntax_help(error.message())));
                None
            }
        }
    }

    /// The first takes the place that `Report::about` made for it.
    fn add_source(&mut self, name: String, text: String) -> usize {
        let source = Source { name, text: text.into() };
        match self.report.sources.as_mut_slice() {
            [first] if first.text.is_empty() && first.name == source.name => {
                *first = source;
                0
            }
            _ => {
                self.report.sources.push(source);
                self.report.sources.len() - 1
            }
        }
    }

    fn include(&mut self, root: &mut Node, folder: &Path) {
        let mut done = vec![self.reading.paths.first().and_then(|root| root.canonicalize().ok())];
        for (pattern, place, key) in include_patterns(root) {
            let files = match self.reading.expand(folder, &pattern) {
                Ok(files) => files,
                Err(error) => {
                    mark_incomplete(root);
                    self.unreadable(&pattern, &error, place, &key);
                    continue;
                }
            };
            for file in files {
                let identity = file.canonicalize().ok();
                if identity.is_some() && done.contains(&identity) {
                    continue;
                }
                done.push(identity);
                self.included(root, &file, &place, &key);
            }
        }
    }

    fn included(&mut self, root: &mut Node, file: &Path, place: &Place, key: &KeyPath) {
        let name = file.display().to_string();
        match self.reading.file(file) {
            Ok(bytes) => {
                let Some(tree) = self.parse_bytes(name, bytes) else {
                    mark_incomplete(root);
                    return;
                };
                self.refuse_include(&tree, "name the file in the `include` of the main file");
                merge(root, tree, &mut self.report);
            }
            Err(error) => {
                mark_incomplete(root);
                self.unreadable(&name, &error, place.clone(), key);
            }
        }
    }

    fn unreadable(&mut self, name: &str, error: &io::Error, place: Place, key: &KeyPath) {
        let diagnostic = Diagnostic::new(Code::FileUnreadable, format!("{name} cannot be read: {error}"));
        let diagnostic = diagnostic.at(Some(place)).key(key).label("included here");
        self.report.push(diagnostic.help("paths are relative to this file; `*` stands for any file name"));
    }

    fn refuse_include(&mut self, tree: &Node, help: &str) {
        let path = KeyPath::root().key("include");
        if tree.find(&path).is_some() {
            let diagnostic = Diagnostic::new(Code::UnknownKey, "`include` is not followed here");
            let diagnostic = diagnostic.at(tree.key_place_of(&path)).key(path).label("only the main file may include");
            self.report.push(diagnostic.help(help));
        }
    }

    fn finish(mut self, mut tree: Option<Node>, path: &Path) -> Loaded {
        if let Some(tree) = &mut tree {
            self.report.diagnostics.extend(emptiness(tree));
            check::check(tree, &mut self.report);
        }
        self.resolve(tree, path)
    }

    fn resolve(mut self, tree: Option<Node>, path: &Path) -> Loaded {
        let mut config = None;
        if let Some(tree) = tree {
            let folder = path.parent().unwrap_or(Path::new(""));
            let files = self.may_read.then_some(&mut self.reading);
            config = resolve::resolve(&tree, folder, self.env, files, &mut self.report);
            self.report.tree = Some(Arc::new(tree));
        }
        self.report.finish();
        let config = config.filter(|_| !self.report.has_errors());
        Loaded { config, files: self.reading.paths.clone(), digest: self.reading.digest(), report: self.report }
    }
}

/// What to do about a syntax error; the texts are those of the crate `toml`.
fn syntax_help(message: &str) -> &'static str {
    const HELP: [(&str, &str); 6] = [
        ("duplicate key", "a key or table may be given only once: join the two, or rename one"),
        ("must be quoted", "write text in \"quotes\"; numbers, true and false without"),
        ("table, expected", "close the bracket: [name] for a table, [[name]] for an entry of a list"),
        ("string, expected", "close the string with the quote it began with"),
        ("expected newline", "begin a new line for each key; inside { } separate keys by commas"),
        ("no value", "write key = value"),
    ];
    let known = HELP.iter().find(|(part, _)| message.contains(part));
    known.map_or("see https://toml.io for the format; later problems show once this one is gone", |(_, help)| help)
}

/// Names may be in what could not be read, so that nothing may be called unknown.
fn mark_incomplete(root: &mut Node) {
    root.flawed = true;
    if let Kind::Table(entries) = &mut root.kind {
        entries.iter_mut().for_each(|(_, node)| node.flawed = true);
    }
}

/// What `include` asks for; whatever else stands there, the walk reports.
fn include_patterns(root: &Node) -> Vec<(String, Place, KeyPath)> {
    let path = KeyPath::root().key("include");
    let Some(Node { kind: Kind::Array(items), .. }) = root.find(&path) else { return Vec::new() };
    let text = |(i, item): (usize, &Node)| match &item.kind {
        Kind::String(pattern) => Some((pattern.clone(), item.place.clone(), path.index(i))),
        _ => None,
    };
    items.iter().enumerate().filter_map(text).collect()
}

/// An empty file is valid TOML, and a proxy that took it would drop every listener.
fn emptiness(root: &Node) -> Option<Diagnostic> {
    let Kind::Table(entries) = &root.kind else { return None };
    let is_empty = |name: &&str| match entries.iter().find(|(k, _)| k == name).map(|(_, n)| &n.kind) {
        None => !root.flawed,
        Some(Kind::Table(inner)) => inner.is_empty(),
        Some(Kind::Array(items)) => items.is_empty(),
        Some(_) => false,
    };
    let needed = |name: &&str| *name != "splits" || needs_splits(entries);
    let missing: Vec<&str> = ["listeners", "routes", "splits"].into_iter().filter(needed).filter(is_empty).collect();
    let message = match missing.as_slice() {
        [] => return None,
        _ if entries.is_empty() => "the configuration is empty".to_owned(),
        some => format!("the configuration has no {}", some.join(" and no ")),
    };
    let help =
        "it needs a [listeners.NAME], a [[routes]] and a [splits.NAME.versions]; `weir init` writes a first file";
    Some(Diagnostic::new(Code::EmptyConfig, message).help(help))
}

/// Unless every route answers by itself.
fn needs_splits(entries: &[(String, Node)]) -> bool {
    let Some(Kind::Array(routes)) = entries.iter().find(|(k, _)| k == "routes").map(|(_, n)| &n.kind) else {
        return true;
    };
    let answers = |route: &Node| match &route.kind {
        Kind::Table(keys) => keys.iter().any(|(k, _)| k == "redirect" || k == "respond"),
        _ => false,
    };
    routes.is_empty() || !routes.iter().all(answers)
}
