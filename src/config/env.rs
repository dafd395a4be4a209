//! `${NAME}` and `${NAME:-default}` in strings; `$${` is a literal `${`.
//!
//! As in a shell, `:-` also takes the default when the variable is set but empty. What a variable holds is not looked
//! into again, so it cannot name further variables.

/// Why a string cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEnv {
    #[error("environment variable `{0}` is not set")]
    Unset(String),
    #[error("`${{` without a `}}` behind it")]
    Unclosed,
    #[error("`{0}` is not the name of an environment variable")]
    BadName(String),
}

impl BadEnv {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Unset(name) => format!("set {name}, or give a default: ${{{name}:-default}}"),
            Self::Unclosed => "write `${NAME}`, or `$${` for a literal `${`".into(),
            Self::BadName(_) => "names have letters, digits and `_`; write `$${` for a literal `${`".into(),
        }
    }
}

/// The text with every variable filled in.
///
/// # Errors
/// `BadEnv` for the first variable that cannot be.
pub fn fill_in(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, BadEnv> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or(BadEnv::Unclosed)?;
        out.push_str(&value(&inner[..end], env)?);
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn value(inner: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, BadEnv> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(BadEnv::BadName(name.to_owned()));
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(BadEnv::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<String, BadEnv> {
        fill_in(text, &|name| match name {
            "A" => Some("one".into()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}".into()),
            _ => None,
        })
    }

    #[test]
    fn variables_are_filled_in_once() {
        for (text, filled) in [
            ("", ""),
            ("plain $5", "plain $5"),
            ("${A}", "one"),
            ("x${A}y${A}z", "xoneyonez"),
            ("${B:-two}", "two"),
            ("${A:-two}", "one"),
            ("${EMPTY:-two}", "two"),
            ("${EMPTY}", ""),
            ("${B:-}", ""),
            ("${NESTED}", "${A}"),
            ("$${A}", "${A}"),
            ("a$${A}${A}", "a${A}one"),
        ] {
            assert_eq!(fill(text).as_deref(), Ok(filled), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_named() {
        assert_eq!(fill("${B}"), Err(BadEnv::Unset("B".into())));
        assert_eq!(fill("a ${A"), Err(BadEnv::Unclosed));
        assert_eq!(fill("${a-b}"), Err(BadEnv::BadName("a-b".into())));
        assert_eq!(fill("${}"), Err(BadEnv::BadName(String::new())));
    }
}
