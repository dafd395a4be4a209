//! Holds the house's floor plan as data and compares it with the imports of every file under `src/`.
//!
//! Why a test: the one thing that keeps rooms free of cycles is a build that refuses them. Invariant: a room imports
//! from lower floors only, never up, never sideways; `super::super` and `std::time::Instant`, which would hide an
//! import or a clock, are not used; every file says in its head what it holds. A new row is a design decision.

// A helper of a test fails it by panicking, as the test itself does; clippy knows only the latter.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom: a room and its floor.
const FLOORS: &[(&str, u8)] = &[
    ("model", 0),
    ("config", 1),
    ("routing", 2),
    ("balance", 2),
    ("analysis", 2),
    ("rate", 2),
    ("telemetry", 3),
    ("pool", 3),
    ("net", 3),
    ("tls", 3),
    ("lifecycle", 3),
    ("state", 4),
    // They speak to servers outside, over `net` and `tls`.
    ("checks", 4),
    ("notices", 4),
    ("proxy", 5),
    ("health", 5),
    ("rollout", 5),
    ("reload", 5),
    ("dns", 5),
    ("upgrade", 5),
    ("admin", 6),
    ("fleet", 6),
    ("cli", 6),
    ("demo", 6),
    ("simulate", 6),
    ("app", 7),
    // Arguments and exit code only; it starts `app`.
    ("main", 8),
    // The crate page: only `pub mod` lines.
    ("lib", 9),
];

#[test]
fn rooms_import_only_from_lower_floors() {
    let mut faults = Vec::new();
    for file in sources() {
        let text = fs::read_to_string(&file.path).unwrap();
        faults.extend(faults_of(&file.room, &text).into_iter().map(|fault| format!("{}{fault}", file.shown)));
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn every_room_has_a_row() {
    let rooms: Vec<String> = sources().into_iter().map(|file| file.room).collect();
    assert!(rooms.len() > 20, "the sources were not found");
    let missing: Vec<&String> = rooms.iter().filter(|room| floor(room).is_none()).collect();
    assert!(missing.is_empty(), "rooms without a row in FLOORS: {missing:?}");
}

struct Source {
    path: PathBuf,
    /// As in a message: `src/pool/endpoint.rs`.
    shown: String,
    room: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(root, &path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let inside = path.strip_prefix(root).unwrap();
            let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
            let (shown, room) = (format!("src/{}", inside.display()), first.trim_end_matches(".rs").to_owned());
            found.push(Source { path, shown, room });
        }
    }
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// All faults of a file, each as `:line: what`.
fn faults_of(room: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.trim_start().starts_with("//!") {
        faults
            .push(":1: does not open with `//!`: say what it holds, why, and the rule that keeps it right".to_owned());
    }
    let tokens = tokens(&code_only(text));
    for (line, target) in imports(&tokens) {
        faults.extend(import_fault(room, &target).map(|fault| format!(":{line}: {fault}")));
    }
    let words: Vec<&str> = tokens.iter().map(|t| t.word.as_str()).collect();
    for (path, why) in [
        (&["super", "::", "super"][..], "`super::super` hides which room is meant; write `crate::room`"),
        (&["std", "::", "time", "::", "Instant"], "use `crate::model::Instant`, so that tests can pause time"),
    ] {
        let hits = words.windows(path.len()).enumerate().filter(|(_, window)| window == &path);
        faults.extend(hits.map(|(i, _)| format!(":{}: {why}", tokens[i].line)));
    }
    faults.extend(grouped_instants(&tokens).map(|line| format!(":{line}: use `crate::model::Instant`")));
    faults
}

fn import_fault(room: &str, target: &str) -> Option<String> {
    let (Some(own), Some(theirs)) = (floor(room), floor(target)) else {
        // Not a room: an item of the crate root, of which there is none to be used (or `every_room_has_a_row` fails).
        return (target != room && floor(target).is_none())
            .then(|| format!("`crate::{target}` is no room with a row in FLOORS"));
    };
    let way = match theirs.cmp(&own) {
        _ if target == room => return None,
        std::cmp::Ordering::Less => return None,
        std::cmp::Ordering::Equal => "sideways",
        std::cmp::Ordering::Greater => "upward",
    };
    Some(format!("`{room}` (floor {own}) imports {way} from `{target}` (floor {theirs})"))
}

#[derive(Clone, Debug, PartialEq)]
struct Token {
    word: String,
    line: usize,
}

/// Names and `::`, `{`, `}`, `,`, `;`; other characters only end a name.
fn tokens(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (i, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let name_end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = match c {
                _ if name_end > 0 => name_end,
                ':' if rest.starts_with("::") => 2,
                _ => c.len_utf8(),
            };
            let word = &rest[..length];
            if !word.trim().is_empty() {
                tokens.push(Token { word: word.to_owned(), line: i + 1 });
            }
            rest = &rest[length..];
        }
    }
    tokens
}

/// The rooms named after `crate::` (and `weir::`, as the binary says), also those of `crate::{a::X, b}`.
fn imports(tokens: &[Token]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (i, pair) in tokens.windows(2).enumerate() {
        let is_path_start = i == 0 || tokens[i - 1].word != "::";
        let is_root = pair[0].word == "crate" || pair[0].word == "weir";
        if is_root && is_path_start && pair[1].word == "::" {
            found.extend(heads(&tokens[i + 2..]));
        }
    }
    found
}

/// The first names of what follows `::`: one, or one per entry of a group.
fn heads(after: &[Token]) -> Vec<(usize, String)> {
    let Some(first) = after.first() else { return Vec::new() };
    if first.word != "{" {
        return vec![(first.line, first.word.clone())];
    }
    let (mut depth, mut is_head, mut found) = (0, false, Vec::new());
    for token in after {
        match token.word.as_str() {
            "{" => {
                depth += 1;
                is_head = depth == 1;
            }
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," => is_head = depth == 1,
            name if is_head => {
                found.push((token.line, name.to_owned()));
                is_head = false;
            }
            _ => {}
        }
    }
    found
}

/// Lines of `std::time::{..., Instant}`.
fn grouped_instants(tokens: &[Token]) -> impl Iterator<Item = usize> {
    let starts = tokens.windows(5).enumerate().filter(|(_, window)| {
        let words = [&window[0].word, &window[1].word, &window[2].word, &window[3].word, &window[4].word];
        words.map(String::as_str) == ["std", "::", "time", "::", "{"]
    });
    starts.flat_map(|(i, _)| heads(&tokens[i + 4..])).filter(|(_, name)| name == "Instant").map(|(line, _)| line)
}

/// The text with comments, strings and character literals blanked, lines kept.
fn code_only(text: &str) -> String {
    let (mut code, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(c) = rest.chars().next() {
        let skip = comment(rest).or_else(|| raw_string(rest, &code)).or_else(|| quoted(rest));
        let length = skip.unwrap_or(c.len_utf8());
        match skip {
            Some(length) => code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => code.push(c),
        }
        rest = &rest[length..];
    }
    code
}

/// Length of the comment that starts here. Block comments nest.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.strip_prefix("/*")?;
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
    Some(text.len())
}

/// Length of the raw string (`r"..."`, `br#"..."#`) that starts here, unless the `r` ends a longer name.
fn raw_string(text: &str, before: &str) -> Option<usize> {
    if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let after_r = text.strip_prefix("br").or_else(|| text.strip_prefix("cr")).or_else(|| text.strip_prefix('r'))?;
    let hashes = after_r.len() - after_r.trim_start_matches('#').len();
    let body = after_r[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let inside = body.find(&end).map_or(body.len(), |i| i + end.len());
    Some(text.len() - body.len() + inside)
}

/// Length of the string or character literal that starts here; a lifetime is neither.
fn quoted(text: &str) -> Option<usize> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    if quote == '\'' {
        let mut inner = text[1..].chars();
        let (first, second) = (inner.next()?, inner.next()?);
        if first != '\\' {
            return (second == '\'').then_some(2 + first.len_utf8());
        }
    }
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(i + 1),
            _ => {}
        }
    }
    Some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(room: &str, body: &str) -> Vec<String> {
        faults_of(room, &format!("//! Head.\n{body}"))
    }

    #[test]
    fn upward_and_sideways_are_found_with_their_line() {
        assert_eq!(
            faults("pool", "\nuse crate::state::Store;"),
            [":3: `pool` (floor 3) imports upward from `state` (floor 4)"]
        );
        assert_eq!(
            faults("pool", "fn f() { crate::net::dial() }"),
            [":2: `pool` (floor 3) imports sideways from `net` (floor 3)"]
        );
        assert!(faults("pool", "use crate::model::Instant; use crate::balance; use crate::pool::Endpoint;").is_empty());
        assert_eq!(faults("model", "use crate::{model::X, config::{Config, app}, self};").len(), 2);
        assert_eq!(faults("app", "use crate::lib;").len(), 1);
        assert!(faults("main", "use weir::cli;").is_empty());
        assert_eq!(faults("cli", "use weir::app;").len(), 1);
        assert_eq!(faults("cli", "use crate::pol::X;"), [":2: `crate::pol` is no room with a row in FLOORS"]);
    }

    #[test]
    fn groups_over_several_lines_are_read() {
        let body = "use crate::{\n    model::{Instant, Kind},\n    proxy::Proxy,\n};";
        assert_eq!(faults("state", body), [":4: `state` (floor 4) imports upward from `proxy` (floor 5)"]);
    }

    #[test]
    fn comments_and_literals_say_nothing() {
        for body in [
            "// use crate::app;",
            "/* use crate::app; /* nested */ use crate::app; */",
            "const A: &str = \"crate::app \\\" crate::app\";",
            "const A: &str = r#\"crate::app \" crate::app\"#;",
            "const A: char = '\"'; const B: &str = \"crate::app\";",
            "const A: char = '\\''; const B: &str = \"crate::app\";",
            "fn f<'a>(x: &'a str) {} // 'crate::app'",
        ] {
            assert!(faults("model", body).is_empty(), "{body}");
        }
        assert_eq!(faults("model", "fn f<'a>(x: &'a str, y: &'a str) { crate::app::f() }").len(), 1);
        assert_eq!(faults("model", "const A: &str = \"x\"; use crate::app;").len(), 1);
    }

    #[test]
    fn hidden_imports_and_clocks_are_found() {
        assert_eq!(faults("model", "use super::super::app;").len(), 1);
        assert_eq!(faults("model", "use std::time::Instant;").len(), 1);
        assert_eq!(faults("model", "use std::time::{Duration, Instant};").len(), 1);
        assert!(faults("model", "use std::time::{Duration, SystemTime};").is_empty());
        assert_eq!(faults_of("model", "use std::fmt;").len(), 1);
    }
}
