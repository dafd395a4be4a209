//! The file as a tree in which every key and value knows its place.
//!
//! Why not serde alone: it stops at the first problem. The tree is walked against the schema (`check.rs`), what is
//! wrong is taken out and reported, and only the sound rest becomes the raw types. Invariant: the walk never moves an
//! element of a list, so a path found in the raw types finds its place in the tree.

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::env;
use super::error::{Code, Diagnostic, Place, Report};
use super::path::{Path, Step};

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Of the value.
    pub place: Place,
    /// Of the key it belongs to, if it has one.
    pub key_place: Option<Place>,
    pub kind: Kind,
    /// Something in it was wrong and has been taken out: what is missing here is not the operator's omission.
    pub flawed: bool,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub enum Kind {
    String(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(Vec<Node>),
    /// In file order.
    Table(Vec<(String, Node)>),
}

impl Kind {
    /// With its article, for messages.
    pub fn words(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime => "a date",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Turns parsed TOML into nodes, filling in `${NAME}` on the way.
pub struct Builder<'a> {
    pub source: usize,
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub report: &'a mut Report,
}

impl Builder<'_> {
    /// The whole document.
    pub fn document(&mut self, table: &Spanned<DeTable<'_>>) -> Node {
        let kind = self.table(table.get_ref(), &Path::root());
        self.node(table.span(), kind)
    }

    fn place(&self, span: std::ops::Range<usize>) -> Place {
        Place { source: self.source, span }
    }

    fn node(&self, span: std::ops::Range<usize>, (kind, flawed): (Kind, bool)) -> Node {
        Node { place: self.place(span), key_place: None, kind, flawed }
    }

    fn table(&mut self, table: &DeTable<'_>, path: &Path) -> (Kind, bool) {
        let mut entries = Vec::with_capacity(table.len());
        let mut flawed = false;
        for (key, value) in table {
            let name: &str = key.get_ref();
            match self.value(value, &path.key(name)) {
                Some(mut node) => {
                    node.key_place = Some(self.place(key.span()));
                    entries.push((name.to_owned(), node));
                }
                None => flawed = true,
            }
        }
        (Kind::Table(entries), flawed)
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, path: &Path) -> Option<Node> {
        let kind = match value.get_ref() {
            DeValue::String(text) => Kind::String(self.text(text, value.span(), path)?),
            DeValue::Integer(n) => Kind::Integer(i128::from_str_radix(n.as_str(), n.radix()).unwrap_or(i128::MAX)),
            DeValue::Float(x) => Kind::Float(x.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(b) => Kind::Boolean(*b),
            DeValue::Datetime(_) => Kind::Datetime,
            DeValue::Array(items) => {
                // All are visited, so that every problem in the list is reported.
                let nodes: Vec<_> = items.iter().enumerate().map(|(i, v)| self.value(v, &path.index(i))).collect();
                Kind::Array(nodes.into_iter().collect::<Option<_>>()?)
            }
            DeValue::Table(table) => {
                let inner = self.table(table, path);
                return Some(self.node(value.span(), inner));
            }
        };
        Some(self.node(value.span(), (kind, false)))
    }

    fn text(&mut self, text: &str, span: std::ops::Range<usize>, path: &Path) -> Option<String> {
        match env::fill_in(text, self.env) {
            Ok(text) => Some(text),
            Err(error) => {
                let diagnostic = Diagnostic::new(Code::EnvUnset, error.to_string()).at(Some(self.place(span)));
                self.report.push(diagnostic.key(path).label("in this string").help(error.help()));
                None
            }
        }
    }
}

impl Node {
    /// The node at a path.
    pub fn find(&self, path: &Path) -> Option<&Self> {
        path.steps().iter().try_fold(self, |node, step| node.step(step))
    }

    fn step(&self, step: &Step) -> Option<&Self> {
        match (step, &self.kind) {
            (Step::Key(key), Kind::Table(entries)) => entries.iter().find(|(k, _)| k == key).map(|(_, n)| n),
            (Step::Index(i), Kind::Array(items)) => items.get(*i),
            // Rooms that name places by keys alone write an entry's number.
            (Step::Key(number), Kind::Array(items)) => items.get(number.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// Place of the value at a path; of the nearest thing above it that is in the file, if it is not (a default).
    pub fn place_of(&self, path: &Path) -> Option<Place> {
        self.nearest(path).map(|n| n.place.clone())
    }

    /// The same, of the key.
    pub fn key_place_of(&self, path: &Path) -> Option<Place> {
        self.nearest(path).map(|n| n.key_place.clone().unwrap_or_else(|| n.place.clone()))
    }

    fn nearest(&self, path: &Path) -> Option<&Self> {
        let mut node = self;
        for (depth, step) in path.steps().iter().enumerate() {
            match node.step(step) {
                Some(next) => node = next,
                // The document as a whole is no place to point at.
                None if depth == 0 => return None,
                None => break,
            }
        }
        Some(node)
    }

    /// Whether something was taken out here or anywhere below.
    pub fn is_flawed(&self) -> bool {
        self.flawed
            || match &self.kind {
                Kind::Array(items) => items.iter().any(Self::is_flawed),
                Kind::Table(entries) => entries.iter().any(|(_, n)| n.is_flawed()),
                _ => false,
            }
    }

    /// Without places, for serde.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::String(text) => text.as_str().into(),
            Kind::Integer(n) => i64::try_from(*n).map_or(Value::Null, Value::from),
            Kind::Float(x) => serde_json::Number::from_f64(*x).map_or(Value::Null, Value::Number),
            Kind::Boolean(b) => (*b).into(),
            Kind::Datetime => Value::Null,
            Kind::Array(items) => items.iter().map(Self::to_json).collect(),
            Kind::Table(entries) => {
                Value::Object(entries.iter().map(|(k, n)| (k.clone(), n.to_json())).collect::<Map<_, _>>())
            }
        }
    }
}
