//! Puts an included file into the main one: named things side by side, lists one behind the other.
//!
//! Invariant: nothing overrides anything; a name that is already there is reported with both places.

use super::error::{Code, Diagnostic, Report};
use super::path::Path;
use super::tree::{Kind, Node};

/// Sections that hold named things.
const NAMED: [&str; 3] = ["listeners", "splits", "flags"];

/// Moves everything of `other` into `root`.
pub fn merge(root: &mut Node, other: Node, report: &mut Report) {
    root.flawed |= other.flawed;
    let (Kind::Table(mine), Kind::Table(theirs)) = (&mut root.kind, other.kind) else { return };
    for (key, node) in theirs.into_iter().filter(|(key, _)| key != "include") {
        let Some(at) = mine.iter().position(|(k, _)| *k == key) else {
            mine.push((key, node));
            continue;
        };
        let path = Path::root().key(&key);
        merge_section(&mut mine[at].1, node, &path, NAMED.contains(&key.as_str()), report);
    }
}

fn merge_section(mine: &mut Node, theirs: Node, path: &Path, named: bool, report: &mut Report) {
    mine.flawed |= theirs.flawed;
    let twice = Diagnostic::new(Code::DuplicateName, format!("`{path}` is given twice"))
        .at(theirs.key_place.clone())
        .key(path)
        .label("here again")
        .related(mine.key_place.clone(), "first given here")
        .help("keep one of them");
    match (&mut mine.kind, theirs.kind) {
        (Kind::Array(items), Kind::Array(more)) => items.extend(more),
        (Kind::Table(entries), Kind::Table(more)) if named => merge_named(entries, more, path, report),
        _ => report.push(twice),
    }
}

fn merge_named(entries: &mut Vec<(String, Node)>, more: Vec<(String, Node)>, path: &Path, report: &mut Report) {
    for (name, node) in more {
        match entries.iter().find(|(known, _)| *known == name) {
            None => entries.push((name, node)),
            Some((_, first)) => {
                let path = path.key(&name);
                let twice = Diagnostic::new(Code::DuplicateName, format!("there are two of {}", path.words()));
                let twice = twice.at(node.key_place.clone()).key(path).label("the same name again");
                report.push(twice.related(first.key_place.clone(), "first given here").help("rename one of them"));
            }
        }
    }
}
