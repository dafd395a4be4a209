//! What a `match` asks of fields, cookies, parameters of the query and the client's address.
//!
//! A condition no request could fulfil is refused: it is always a mistake.

use indexmap::IndexMap;
use ipnet::IpNet;

use http::{HeaderName, HeaderValue};

use super::{Context, network};
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{OneOrMany, RawMatch, RawValueMatch, RawValueTest};
use crate::config::{Pattern, ValueMatch};

type Raw = Option<IndexMap<String, RawValueMatch>>;

pub fn headers(raw: &Raw, path: &Path, cx: &mut Context<'_>) -> Vec<(HeaderName, ValueMatch)> {
    let name = |text: &str| HeaderName::from_bytes(text.as_bytes()).map_err(|_| "not a field's name");
    let value = |text: &str| match () {
        () if text.trim_matches([' ', '\t']) != text => Err("a field's value neither begins nor ends with a blank"),
        () if HeaderValue::from_bytes(text.as_bytes()).is_err() => Err("no field's value has this character"),
        () => Ok(()),
    };
    conditions(raw, &path.key("header"), cx, name, value)
}

pub fn cookies(raw: &Raw, path: &Path, cx: &mut Context<'_>) -> Vec<(String, ValueMatch)> {
    let odd = |c: char| c.is_control() || c == ';';
    let name = |text: &str| match text.is_empty() || text.trim() != text || text.contains(odd) || text.contains('=') {
        true => Err("not a cookie's name"),
        false => Ok(text.to_owned()),
    };
    let value = |text: &str| match text.trim() != text || text.contains(odd) {
        true => Err("no cookie's value is this"),
        false => Ok(()),
    };
    conditions(raw, &path.key("cookie"), cx, name, value)
}

pub fn queries(raw: &Raw, path: &Path, cx: &mut Context<'_>) -> Vec<(String, ValueMatch)> {
    conditions(raw, &path.key("query"), cx, |text| Ok(text.to_owned()), |_| Ok(()))
}

/// Sorted by name, each name once.
fn conditions<N: AsRef<str> + PartialEq>(
    raw: &Raw,
    path: &Path,
    cx: &mut Context<'_>,
    read_name: impl Fn(&str) -> Result<N, &'static str>,
    check_value: impl Fn(&str) -> Result<(), &'static str>,
) -> Vec<(N, ValueMatch)> {
    let mut found: Vec<(N, ValueMatch)> = Vec::new();
    for (text, wanted) in raw.iter().flatten() {
        let path = path.key(text);
        let wanted = value(wanted, &path, cx, &check_value);
        match read_name(text) {
            Err(why) => {
                let place = cx.problem_at_key(Code::BadMatch, &path, format!("{text:?} cannot match: {why}"));
                place.label = Some(why.into());
                place.help = Some("write the name as it stands in a request".into());
            }
            Ok(name) if found.iter().any(|(other, _)| *other == name) => {
                let message = format!("`{path}` is there already in another writing");
                let problem = cx.problem_at_key(Code::DuplicateName, &path, message);
                problem.label = Some("the same name again".into());
                problem.help = Some("take one of them out; upper and lower case make no difference here".into());
            }
            Ok(name) => found.extend(wanted.map(|wanted| (name, wanted))),
        }
    }
    found.sort_by(|(a, _), (b, _)| a.as_ref().cmp(b.as_ref()));
    found
}

fn value(
    raw: &RawValueMatch,
    path: &Path,
    cx: &mut Context<'_>,
    check: impl Fn(&str) -> Result<(), &'static str>,
) -> Option<ValueMatch> {
    const ONE: &str = "write \"value\", { regex = \"...\" }, { present = true } or { present = false }";
    match raw {
        RawValueMatch::Exact(text) => match check(text) {
            Ok(()) => Some(ValueMatch::Exact(text.clone())),
            Err(why) => {
                cx.tell(Code::BadMatch, path, format!("`{path}` matches nothing: {why}"), why, ONE);
                None
            }
        },
        RawValueMatch::Test(RawValueTest { regex: Some(text), present: None }) => {
            pattern(text, &path.key("regex"), cx).map(ValueMatch::Regex)
        }
        RawValueMatch::Test(RawValueTest { regex: None, present: Some(true) }) => Some(ValueMatch::Present),
        RawValueMatch::Test(RawValueTest { regex: None, present: Some(false) }) => Some(ValueMatch::Absent),
        RawValueMatch::Test(test) => {
            if !cx.lacks_keys(path) {
                let (what, label) = match test.regex {
                    Some(_) => ("has two conditions", "`regex` and `present` cannot stand together"),
                    None => ("has no condition", "neither `regex` nor `present`"),
                };
                cx.tell(Code::BadMatch, path, format!("`{path}` {what}"), label, ONE);
            }
            None
        }
    }
}

/// Reports a text that does not compile, and gives nothing then.
pub fn pattern(text: &str, path: &Path, cx: &mut Context<'_>) -> Option<Pattern> {
    match regex::Regex::new(text) {
        Ok(regex) => Some(Pattern(regex)),
        Err(error) => {
            let text = error.to_string();
            let cause = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let help = "a TOML string in 'single quotes' needs no doubled backslashes";
            cx.tell(Code::BadRegex, path, format!("`{path}` is not a regular expression: {cause}"), &cause, help);
            None
        }
    }
}

pub fn client_ip(raw: &RawMatch, path: &Path, cx: &mut Context<'_>) -> Vec<IpNet> {
    let Some(networks) = &raw.client_ip else { return Vec::new() };
    let path = path.key("client_ip");
    if networks.as_slice().is_empty() {
        let help = "leave `client_ip` out to match every client";
        cx.tell(Code::BadMatch, &path, format!("`{path}` is an empty list: it matches nothing"), "no network", help);
    }
    let mut found = each(networks, &path, |text, path| network::network(text, path, cx));
    found.sort_unstable();
    found.dedup();
    found
}

fn each<T>(texts: &OneOrMany<String>, path: &Path, mut read: impl FnMut(&str, &Path) -> Option<T>) -> Vec<T> {
    let place = |i| if texts.is_list() { path.index(i) } else { path.clone() };
    texts.as_slice().iter().enumerate().filter_map(|(i, text)| read(text, &place(i))).collect()
}
