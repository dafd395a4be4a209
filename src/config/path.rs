//! Where in the configuration something is: `splits.shop.versions.v2.weight`, `routes[0].split`.
//!
//! Also says it in words ("version `v2` of split `shop`"), so that every message names things the same way.

use std::fmt;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// See the file's head. Empty: the whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Step>);

impl Path {
    pub fn root() -> Self {
        Self::default()
    }

    pub fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    pub fn index(&self, i: usize) -> Self {
        self.with(Step::Index(i))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// What it stands in; of the whole file, itself.
    pub fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }

    /// The last key, without an index behind it.
    pub fn last_key(&self) -> &str {
        let keys = self.0.iter().rev().filter_map(|s| if let Step::Key(k) = s { Some(k.as_str()) } else { None });
        keys.into_iter().next().unwrap_or("the file")
    }

    /// The table it names, in words.
    pub fn words(&self) -> String {
        use Step::{Index, Key};
        match self.0.as_slice() {
            [] => "the file".into(),
            [Key(group), Key(name)] if group == "listeners" => format!("listener `{name}`"),
            [Key(group), Key(name)] if group == "splits" => format!("split `{name}`"),
            [Key(group), Index(i)] if group == "routes" => format!("route {}", i + 1),
            [Key(splits), Key(split), Key(versions), Key(name)] if splits == "splits" && versions == "versions" => {
                format!("version `{name}` of split `{split}`")
            }
            [Key(only)] => format!("`{only}`"),
            [parent @ .., Key(last)] => format!("`{last}` of {}", Self(parent.to_vec()).words()),
            [parent @ .., Index(i)] => format!("entry {} of {}", i + 1, Self(parent.to_vec()).words()),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(n) => write!(f, "[{n}]")?,
                Step::Key(key) => {
                    f.write_str(if i == 0 { "" } else { "." })?;
                    write_key(f, key)?;
                }
            }
        }
        Ok(())
    }
}

fn write_key(f: &mut fmt::Formatter<'_>, key: &str) -> fmt::Result {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) { f.write_str(key) } else { write!(f, "{key:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_in_toml_and_in_words() {
        let shop = Path::root().key("splits").key("shop");
        let v2 = shop.key("versions").key("v2");
        assert_eq!(v2.key("wieght").to_string(), "splits.shop.versions.v2.wieght");
        assert_eq!(v2.words(), "version `v2` of split `shop`");
        assert_eq!(shop.key("timeouts").words(), "`timeouts` of split `shop`");
        let route = Path::root().key("routes").index(0);
        assert_eq!(route.key("match").index(1).key("host").to_string(), "routes[0].match[1].host");
        assert_eq!(route.key("match").index(1).words(), "entry 2 of `match` of route 1");
        assert_eq!(Path::root().key("splits").key("a b").to_string(), "splits.\"a b\"");
    }
}
