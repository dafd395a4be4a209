//! From the raw types to `Config`: names resolve, texts become addresses and patterns, defaults are filled in.
//!
//! Every section goes on after a problem, leaving out what is wrong; `Config` is thrown away by the caller if the
//! report has an error. So a function here may return something incomplete, if it has reported why.

mod actions;
mod address;
mod certificates;
mod conditions;
mod edits;
mod endpoints;
mod health;
mod listeners;
mod matches;
mod network;
mod notify;
mod process;
pub use process::state_dir;
mod rate_limits;
mod redirects;
mod retries;
mod rollout;
mod rollout_checks;
mod routes;
mod rules;
mod splits;
mod sticky;
mod trust;
mod upstream;
mod web;

use std::path::Path as FsPath;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::Config;
use super::error::{Code, Diagnostic, Place, Report};
use super::files::Reading;
use super::load::Env;
use super::path::Path;
use super::raw::RawConfig;
use super::suggest::{did_you_mean, list};
use super::tree::Node;

/// Resolves a tree that has been checked against the schema. Files that it names are read through `files`; without,
/// they are not looked at, and if there are any there is no `Config`.
pub fn resolve(
    tree: &Node,
    folder: &FsPath,
    env: Env<'_>,
    files: Option<&mut Reading>,
    report: &mut Report,
) -> Option<Config> {
    let mut value = tree.to_json();
    inherit_defaults(&mut value);
    health::inherit(&mut value);
    let raw: RawConfig = match serde_json::from_value(value) {
        Ok(raw) => raw,
        Err(error) => {
            // With an error reported something had to be taken out, and serde may miss it; else it must be told.
            if !report.has_errors() {
                report.push(Diagnostic::new(Code::WrongType, format!("the configuration cannot be read: {error}")));
            }
            return None;
        }
    };
    let mut cx = Context { tree, report, files, unread: false, now: SystemTime::now() };
    let admin = process::admin(&raw.admin, folder, env, &mut cx);
    let telemetry = process::telemetry(&raw.telemetry, &mut cx);
    let listeners = listeners::listeners(&raw, &mut cx);
    let splits = splits::splits(&raw, admin.as_ref().map(|a| a.bind), &mut cx);
    let routes = routes::routes(&raw, &mut cx);
    listeners::unique_addresses(&listeners, &raw, admin.as_ref(), telemetry.as_ref(), &mut cx);
    let notify = notify::notify(&raw.notify, &mut cx);
    if cx.unread {
        return None;
    }
    Some(Config {
        workers: process::workers(raw.workers),
        watch: raw.watch,
        shutdown: process::shutdown(&raw.shutdown, &mut cx),
        listeners,
        routes,
        splits,
        dns: process::dns(&raw.dns, folder, &mut cx),
        admin: admin?,
        telemetry: telemetry?,
        notify,
    })
}

/// Where problems go, and where their places and files come from.
struct Context<'a> {
    tree: &'a Node,
    report: &'a mut Report,
    files: Option<&'a mut Reading>,
    /// A file that is needed was not read, because none may be.
    unread: bool,
    /// What certificates are compared with.
    now: SystemTime,
}

impl Context<'_> {
    /// A problem with the value at a path.
    fn problem(&mut self, code: Code, path: &Path, message: impl Into<String>) -> &mut Diagnostic {
        let place = self.tree.place_of(path);
        self.push(code, path, message.into(), place)
    }

    /// A problem with the key, or with what it stands for as a whole.
    fn problem_at_key(&mut self, code: Code, path: &Path, message: impl Into<String>) -> &mut Diagnostic {
        let place = self.tree.key_place_of(path);
        self.push(code, path, message.into(), place)
    }

    /// A problem with the value at a path, what stands at its caret, and what to do.
    fn tell(&mut self, code: Code, path: &Path, message: String, label: &str, help: &str) -> &mut Diagnostic {
        let problem = self.problem(code, path, message);
        (problem.label, problem.help) = (Some(label.into()), Some(help.into()));
        problem
    }

    fn push(&mut self, code: Code, path: &Path, message: String, place: Option<Place>) -> &mut Diagnostic {
        let at = self.report.diagnostics.len();
        self.report.push(Diagnostic::new(code, message).at(place).key(path));
        &mut self.report.diagnostics[at]
    }

    /// Something at or below the path was wrong and has been taken out.
    fn is_flawed(&self, path: &Path) -> bool {
        self.tree.find(path).is_none_or(Node::is_flawed)
    }

    /// The same, of the table alone.
    fn lacks_keys(&self, path: &Path) -> bool {
        self.tree.find(path).is_none_or(|n| n.flawed)
    }

    /// Reports a name that none of the known things has.
    fn unknown_name<'k>(&mut self, message: String, name: &str, known: impl Iterator<Item = &'k String>, path: &Path) {
        let known: Vec<&str> = known.map(String::as_str).collect();
        let label = did_you_mean(name, known.iter().copied()).unwrap_or_else(|| "not known".into());
        let problem = self.problem(Code::UnknownName, path, message);
        problem.label = Some(label);
        problem.help = Some(format!("known are: {}", list(known, "and")));
    }

    /// Checks a name; reports and gives nothing if it is none.
    fn name<T, E: std::fmt::Display>(&mut self, name: Result<T, E>, text: &str, path: &Path) -> Option<T> {
        match name {
            Ok(name) => Some(name),
            Err(error) => {
                let problem =
                    self.problem_at_key(Code::OutOfRange, path, format!("{text:?} cannot be a name: {error}"));
                problem.label = Some("not a name".into());
                problem.help = Some("use letters, digits, `_`, `-` and `.`, for example `v1` or `shop-eu`".into());
                None
            }
        }
    }
}

/// Gives every split the tables of `[defaults]`, key by key, under what it says itself.
fn inherit_defaults(root: &mut Value) {
    let Some(Value::Object(defaults)) = root.get("defaults").cloned() else { return };
    let Some(Value::Object(splits)) = root.get_mut("splits") else { return };
    for split in splits.values_mut().filter_map(Value::as_object_mut) {
        for (key, inherited) in &defaults {
            let own = split.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
            if key == "sticky" && kind_of_sticky(own) != kind_of_sticky(inherited) && own.get("by").is_some() {
                // A cookie's name and life mean nothing for another kind of stickiness.
                continue;
            }
            if let (Value::Object(own), Value::Object(inherited)) = (own, inherited) {
                if key == "health" {
                    health::merge(own, inherited);
                    continue;
                }
                for (k, v) in inherited {
                    own.entry(k.clone()).or_insert_with(|| v.clone());
                }
            }
        }
    }
}

fn kind_of_sticky(table: &Value) -> &str {
    table.get("by").and_then(Value::as_str).unwrap_or("cookie")
}
