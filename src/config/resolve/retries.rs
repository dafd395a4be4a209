//! Other attempts: which failures, which methods, how much of a body is kept.

use http::Method;

use super::Context;
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::RawRetries;
use crate::config::suggest::did_you_mean;
use crate::config::{Retries, RetryOn};

/// Bodies that are kept are memory that clients decide about: more than this would be an invitation.
const MAX_BODY: u64 = 16 << 20;

pub fn retries(raw: &RawRetries, path: &Path, cx: &mut Context<'_>) -> Retries {
    Retries {
        attempts: raw.attempts,
        on: on(&raw.on, &path.key("on"), cx),
        methods: methods(&raw.methods, &path.key("methods"), cx),
        budget: raw.budget,
        rescue: raw.rescue,
        body_bytes: body_bytes(raw.body_bytes.0, &path.key("body_bytes"), cx),
    }
}

fn on(words: &[String], path: &Path, cx: &mut Context<'_>) -> RetryOn {
    let mut on = RetryOn::default();
    for (i, word) in words.iter().enumerate() {
        match word.as_str() {
            "connect" => on.connect = true,
            "reset" => on.reset = true,
            "timeout" => on.timeout = true,
            text => on.statuses.extend(status(text, &path.index(i), cx)),
        }
    }
    on.statuses.sort_unstable();
    on.statuses.dedup();
    on
}

fn status(text: &str, path: &Path, cx: &mut Context<'_>) -> Option<u16> {
    let number = text.parse::<u16>().ok().filter(|_| text.len() == 3);
    if let Some(status) = number.filter(|n| (500..=599).contains(n)) {
        return Some(status);
    }
    let label = match number {
        Some(_) => Some("not a status from 500 to 599".into()),
        None => did_you_mean(text, ["connect", "reset", "timeout"]),
    };
    let problem = cx.problem(Code::UnknownName, path, format!("`{path}` cannot be {text:?}"));
    problem.label = Some(label.unwrap_or_else(|| "not known here".into()));
    problem.help = Some("values allowed here: connect, reset, timeout, and statuses from \"500\" to \"599\"".into());
    None
}

fn methods(texts: &[String], path: &Path, cx: &mut Context<'_>) -> Vec<Method> {
    let mut methods = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        match Method::from_bytes(text.to_ascii_uppercase().as_bytes()) {
            Ok(method) if methods.contains(&method) => {}
            Ok(method) => methods.push(method),
            Err(_) => {
                let problem = cx.problem(Code::UnknownName, &path.index(i), format!("{text:?} is not a method"));
                problem.label = Some("not a method".into());
                problem.help = Some("write for example \"GET\"".into());
            }
        }
    }
    methods
}

fn body_bytes(bytes: u64, path: &Path, cx: &mut Context<'_>) -> usize {
    if bytes > MAX_BODY {
        let message = format!("`{path}` is more than 16MiB");
        let problem = cx.problem(Code::OutOfRange, path, message);
        problem.label = Some("every request in flight may take this much memory".into());
        problem.help = Some("write at most \"16MiB\"; a larger body is sent once and not tried again".into());
    }
    bytes.min(MAX_BODY) as usize
}
