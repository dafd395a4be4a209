//! Names given by the operator. One type per thing, so that a version can never be passed where a split is meant.
//!
//! Invariant: 1 to 63 characters out of `a-z A-Z 0-9 _ - .`, starting with a letter or digit, so that a name is
//! safe in a URL path, a metric label, a file name and a log line without escaping.

use std::fmt;
use std::sync::Arc;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to 63 letters, digits, `_`, `-` or `.` and starts with a letter or digit")]
pub struct BadName;

fn check(text: &str) -> Result<(), BadName> {
    let first = text.bytes().next().ok_or(BadName)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if text.len() <= 63 && first.is_ascii_alphanumeric() && text.bytes().all(plain) { Ok(()) } else { Err(BadName) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a text.
            ///
            /// # Errors
            /// `BadName` when the text breaks the rule in the file's head.
            pub fn new(text: &str) -> Result<Self, BadName> {
                check(text).map(|()| Self(text.into()))
            }

            /// The text as the operator wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// A bound address with its protocol.
    ListenerName
);
name!(
    /// A match that leads to a split.
    RouteName
);
name!(
    /// One application whose traffic is divided among versions.
    SplitName
);
name!(
    /// One release of an application.
    VersionName
);
name!(
    /// A rollout's question to somebody outside.
    CheckName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_urls_labels_and_files() {
        for good in ["v1", "2024-11", "shop.eu", "A_b", &"x".repeat(63)] {
            assert_eq!(VersionName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-v", ".v", "a/b", "a b", "é", "a\"b", &"x".repeat(64)] {
            assert!(VersionName::new(bad).is_err(), "{bad:?}");
        }
    }
}
