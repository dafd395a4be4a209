//! The walk of the tree against the schema: unknown keys, missing keys, wrong types, ranges, units, and keys whose
//! function is not built yet.
//!
//! Invariant: what is left in the tree afterwards fits the raw types, up to what is missing.

use super::error::{Code, Diagnostic, Place, Report};
use super::path::Path;
use super::schema::Shape;
use super::suggest::{did_you_mean, is_near, list};
use super::tree::{Kind, Node};
use super::{durations, sizes};

/// Reports everything the schema can tell and takes it out of the tree.
pub fn check(root: &mut Node, report: &mut Report) {
    Walk { report, ahead: &[] }.value(root, Shape::root(), &Path::root());
}

/// The same, taking the named keys although they are not built yet: to plan with and to test what is to come.
pub fn check_ahead(root: &mut Node, report: &mut Report, ahead: &[&str]) {
    Walk { report, ahead }.value(root, Shape::root(), &Path::root());
}

struct Walk<'a> {
    report: &'a mut Report,
    ahead: &'a [&'a str],
}

impl Walk<'_> {
    fn problem(&mut self, code: Code, message: String, place: &Place, path: &Path) -> &mut Diagnostic {
        let at = self.report.diagnostics.len();
        self.report.push(Diagnostic::new(code, message).at(Some(place.clone())).key(path));
        &mut self.report.diagnostics[at]
    }

    /// False: it must go.
    fn value(&mut self, node: &mut Node, shape: Shape, path: &Path) -> bool {
        let choices = shape.choices();
        let fitting: Vec<Shape> = choices.iter().copied().filter(|s| fits(&node.kind, *s)).collect();
        let Some(first) = fitting.first().copied() else { return self.wrong_type(node, &choices, path) };
        match &mut node.kind {
            Kind::Table(_) => self.table(node, first, path),
            Kind::Array(items) => {
                let Some(shape) = first.items() else { return true };
                let mut sound = true;
                for (i, item) in items.iter_mut().enumerate() {
                    sound &= self.value(item, shape, &path.index(i));
                }
                sound
            }
            Kind::String(text) => {
                let text = text.clone();
                self.text(&text, &fitting, &node.place, path)
            }
            Kind::Integer(n) => {
                let n = *n;
                self.integer(n, first, &node.place, path)
            }
            Kind::Float(x) => {
                let x = *x;
                self.range(x, first, &node.place, path)
            }
            Kind::Boolean(_) | Kind::Datetime => true,
        }
    }

    fn table(&mut self, node: &mut Node, shape: Shape, path: &Path) -> bool {
        let place = node.key_place.clone().unwrap_or_else(|| node.place.clone());
        let Kind::Table(entries) = &mut node.kind else { return true };
        // A mistyped key is one problem, not two.
        let given = |key: &str| entries.iter().any(|(k, _)| k == key || shape.property(k).is_none() && is_near(k, key));
        let missing: Vec<_> = shape.required().into_iter().filter(|key| !node.flawed && !given(key)).collect();
        for key in missing {
            self.missing(key, &place, path);
        }
        let before = entries.len();
        entries.retain_mut(|(key, child)| {
            let child_path = path.key(key);
            match shape.property(key) {
                None if shape.keys().is_empty() => true,
                None => self.unknown_key(key, child, shape, path),
                Some(inner) if inner.is_not_yet() && !self.ahead.contains(&key.as_str()) => {
                    self.not_yet(key, child, &child_path)
                }
                Some(inner) => self.value(child, inner, &child_path),
            }
        });
        node.flawed |= entries.len() < before;
        true
    }

    fn missing(&mut self, key: &str, place: &Place, path: &Path) {
        let message = format!("{} has no `{key}`", path.words());
        let problem = self.problem(Code::MissingKey, message, place, &path.key(key));
        problem.label = Some(format!("`{key}` is missing here"));
        problem.help = Some(match key {
            "bind" => "add for example bind = \"127.0.0.1:8080\"".into(),
            "versions" => "add for example versions.v1 = { weight = 100, endpoints = [\"127.0.0.1:9001\"] }".into(),
            "address" => "add for example address = \"127.0.0.1:9001\"".into(),
            "certificates" => "add for example certificates = [{ cert = \"shop.pem\", key = \"shop.key\" }]".into(),
            "cert" => "add the PEM file of the certificate chain: cert = \"shop.pem\"".into(),
            "key" => "add the PEM file of the private key: key = \"shop.key\"".into(),
            "to" => "add for example to = \"https://shop.example.com{path}\"".into(),
            "code" => "add for example code = 200".into(),
            "per" => "add per = \"client_ip\", \"route\" or \"header:NAME\"".into(),
            "requests" => "add for example requests = 100".into(),
            "every" => "add for example every = \"1s\"".into(),
            "weight" => "add the percentage for the new version: weight = 5".into(),
            "for" => "add how long the step is watched: for = \"5m\"".into(),
            "name" => "add a name, for example name = \"smoke\"".into(),
            "url" => "add for example url = \"https://ci.example.com/gate\"".into(),
            "query" => "add the query that gives one number".into(),
            _ => format!("add `{key}`"),
        });
    }

    fn unknown_key(&mut self, key: &str, child: &Node, shape: Shape, path: &Path) -> bool {
        let wher =
            if path.steps().is_empty() { "at the top of the file".into() } else { format!("in {}", path.words()) };
        let place = child.key_place.as_ref().unwrap_or(&child.place).clone();
        let keys = shape.keys();
        // Searching the words is the dearest step; past the limit nobody would read it.
        let label = if self.report.is_full() { None } else { did_you_mean(key, keys.iter().copied()) };
        let problem = self.problem(Code::UnknownKey, format!("unknown key `{key}` {wher}"), &place, &path.key(key));
        problem.label = Some(label.unwrap_or_else(|| "not known here".into()));
        problem.help = Some(format!("keys allowed here: {}", keys.join(", ")));
        false
    }

    fn not_yet(&mut self, key: &str, child: &Node, path: &Path) -> bool {
        let place = child.key_place.as_ref().unwrap_or(&child.place).clone();
        let problem =
            self.problem(Code::NotYet, format!("`{path}` is not built yet in this version of weir"), &place, path);
        problem.label = Some("not built yet".into());
        problem.help = Some(format!("take `{key}` out; it is never silently ignored"));
        false
    }

    fn wrong_type(&mut self, node: &Node, choices: &[Shape], path: &Path) -> bool {
        let formats: Vec<_> = choices.iter().filter_map(|s| s.format()).collect();
        let key = path.last_key().to_owned();
        if matches!(node.kind, Kind::Integer(_) | Kind::Float(_))
            && let Some((code, what, units, example)) = unit_of(&formats)
        {
            let message = format!("`{path}` is a {what} and needs a unit: {units}");
            let problem = self.problem(code, message, &node.place, path);
            problem.label = Some("a bare number".into());
            problem.help = Some(match node.kind {
                Kind::Integer(n) if n >= 0 => format!("write \"{n}{example}\""),
                _ => format!("write a whole number with a unit, for example \"10{example}\""),
            });
            return false;
        }
        let expected = expected(choices);
        let message = format!("`{path}` must be {expected}, not {}", node.kind.words());
        let problem = self.problem(Code::WrongType, message, &node.place, path);
        problem.label = Some(format!("expected {expected}"));
        problem.help = remedy(&node.kind, choices, &key);
        false
    }

    fn text(&mut self, text: &str, choices: &[Shape], place: &Place, path: &Path) -> bool {
        let error = match choices.iter().find_map(|s| s.format()) {
            Some("weir-duration") => durations::parse(text).err().map(|e| (Code::BadDuration, e.to_string())),
            Some("weir-size") => sizes::parse(text).err().map(|e| (Code::BadSize, e.to_string())),
            _ => return self.word(text, choices, place, path),
        };
        let Some((code, why)) = error else { return true };
        let (what, remedy) = match code {
            Code::BadSize => ("size", "write a whole number and B, KiB, MiB or GiB, for example \"64KiB\""),
            _ => ("duration", "write for example \"250ms\", \"10s\" or \"1h30m\""),
        };
        let problem = self.problem(code, format!("`{path}` is not a {what}: {text:?}"), place, path);
        problem.label = Some(why);
        problem.help = Some(remedy.into());
        false
    }

    fn word(&mut self, text: &str, choices: &[Shape], place: &Place, path: &Path) -> bool {
        let words: Vec<&str> = choices.iter().flat_map(|s| s.words()).collect();
        let key = path.last_key().to_owned();
        if words.is_empty() {
            return true;
        }
        match choices.iter().find(|s| s.words().contains(&text)) {
            Some(choice) if choice.is_not_yet() => {
                let message = format!("`{path} = \"{text}\"` is not built yet in this version of weir");
                let built = choices.iter().filter(|s| !s.is_not_yet()).flat_map(|s| s.words());
                let remedy = format!("take `{key}` out, or use {}", list(built, "or"));
                let problem = self.problem(Code::NotYet, message, place, path);
                problem.label = Some("not built yet".into());
                problem.help = Some(remedy);
                false
            }
            Some(_) => true,
            None => {
                let problem = self.problem(Code::UnknownName, format!("`{path}` cannot be {text:?}"), place, path);
                problem.label = Some(did_you_mean(text, words.iter().copied()).unwrap_or("not known here".into()));
                problem.help = Some(format!("values allowed here: {}", words.join(", ")));
                false
            }
        }
    }

    fn integer(&mut self, n: i128, shape: Shape, place: &Place, path: &Path) -> bool {
        if i64::try_from(n).is_err() {
            return self.out_of_range(n.to_string(), shape, place, path);
        }
        self.range(n as f64, shape, place, path)
    }

    fn range(&mut self, x: f64, shape: Shape, place: &Place, path: &Path) -> bool {
        let above = shape.minimum().is_none_or(|min| x >= min);
        let below = shape.maximum().is_none_or(|max| x <= max);
        if above && below && !x.is_nan() { true } else { self.out_of_range(x.to_string(), shape, place, path) }
    }

    fn out_of_range(&mut self, found: String, shape: Shape, place: &Place, path: &Path) -> bool {
        let allowed = match (shape.minimum(), shape.maximum()) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("{min} or more"),
            (None, Some(max)) => format!("at most {max}"),
            (None, None) => "a smaller number".into(),
        };
        let key = path.last_key().to_owned();
        let wher = path.parent().words();
        let problem = self.problem(Code::OutOfRange, format!("`{key}` of {wher} is {found}"), place, path);
        problem.label = Some(format!("allowed: {allowed}"));
        problem.help = Some(format!("write a number in this range: {allowed}"));
        false
    }
}

fn fits(kind: &Kind, shape: Shape) -> bool {
    let types = shape.types();
    let has = |name| types.contains(&name);
    types.is_empty()
        || match kind {
            Kind::String(_) => has("string"),
            Kind::Integer(_) => has("integer") || has("number"),
            Kind::Float(_) => has("number"),
            Kind::Boolean(_) => has("boolean"),
            Kind::Datetime => false,
            Kind::Array(_) => has("array"),
            Kind::Table(_) => has("object"),
        }
}

fn unit_of(formats: &[&str]) -> Option<(Code, &'static str, &'static str, &'static str)> {
    if formats.contains(&"weir-duration") {
        return Some((Code::BadDuration, "duration", "ms, s, m, h or d", "s"));
    }
    formats.contains(&"weir-size").then_some((Code::BadSize, "size", "B, KiB, MiB or GiB", "KiB"))
}

fn expected(choices: &[Shape]) -> String {
    let mut words = Vec::new();
    for name in choices.iter().flat_map(|s| s.types()) {
        let word = match name {
            "string" => "a string",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            _ => "a table",
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(" or ")
}

/// What to write instead, where the mistake is a usual one.
fn remedy(kind: &Kind, choices: &[Shape], key: &str) -> Option<String> {
    let wants = |name| choices.iter().any(|s| s.types().contains(&name));
    match kind {
        Kind::Table(_) if wants("array") => Some(format!("write it with two brackets: [[{key}]]")),
        Kind::Array(_) if wants("object") => Some(format!("write it with a name: [{key}.NAME]")),
        Kind::String(text) if wants("array") => Some(format!("write {key} = [{text:?}]")),
        Kind::String(text) if wants("integer") && text.parse::<i64>().is_ok() => {
            Some(format!("write it without quotes: {key} = {text}"))
        }
        Kind::String(text) if wants("boolean") && ["true", "false"].contains(&text.as_str()) => {
            Some(format!("write it without quotes: {key} = {text}"))
        }
        Kind::Integer(n) if wants("string") => Some(format!("write it in quotes: {key} = \"{n}\"")),
        Kind::Float(x) if wants("integer") => Some(format!("write a whole number, for example {key} = {}", x.round())),
        _ => None,
    }
}
