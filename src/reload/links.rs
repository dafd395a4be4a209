//! The way from a path to its file through symbolic links, step by step.
//!
//! Why not just `canonicalize`: a Kubernetes ConfigMap changes by swapping a link in the middle (`..data`), so every
//! folder that holds a link of the way has to be watched, not only the last one.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Far above the 40 the kernel allows.
const MOST: usize = 256;

/// Every entry that decides where `path` leads, as `real folder/name`: each link on the way, then the file itself (or
/// the first entry that is missing). Their parent folders are real, so that no folder comes under two names.
pub(super) fn chain(path: &Path) -> Vec<PathBuf> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (mut real, mut rest, mut entries) = (PathBuf::from("/"), steps(&absolute), Vec::new());
    for _ in 0..MOST {
        let Some(step) = rest.pop_front() else { break };
        if step == ".." {
            real.pop();
            continue;
        }
        let entry = real.join(&step);
        let kind = fs::symlink_metadata(&entry).map(|m| m.file_type());
        let is_link = kind.as_ref().is_ok_and(fs::FileType::is_symlink);
        if is_link || rest.is_empty() || kind.is_err() {
            entries.push(entry.clone());
        }
        match fs::read_link(&entry) {
            Ok(target) if is_link => follow(&target, &mut real, &mut rest),
            _ if kind.is_err() => break,
            _ => real = entry,
        }
    }
    entries
}

fn follow(target: &Path, real: &mut PathBuf, rest: &mut VecDeque<OsString>) {
    if target.is_absolute() {
        *real = PathBuf::from("/");
    }
    for step in steps(target).into_iter().rev() {
        rest.push_front(step);
    }
}

fn steps(path: &Path) -> VecDeque<OsString> {
    let step = |c: Component<'_>| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_of_a_config_map_is_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("..one")).unwrap();
        fs::write(root.join("..one/weir.toml"), "").unwrap();
        symlink("..one", root.join("..data")).unwrap();
        symlink("..data/weir.toml", root.join("weir.toml")).unwrap();
        let way = chain(&root.join("weir.toml"));
        assert_eq!(way, [root.join("weir.toml"), root.join("..data"), root.join("..one/weir.toml")]);
    }

    #[test]
    fn a_folder_that_is_a_link_and_a_step_back_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/conf")).unwrap();
        symlink("real", root.join("etc")).unwrap();
        symlink(root.join("etc/conf/../weir.toml"), root.join("real/conf/link")).unwrap();
        fs::write(root.join("real/weir.toml"), "").unwrap();
        let way = chain(&root.join("etc/conf/link"));
        assert_eq!(way, ["etc", "real/conf/link", "etc", "real/weir.toml"].map(|e| root.join(e)));
    }

    #[test]
    fn what_is_missing_is_the_end_of_the_way_and_a_circle_ends() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        assert_eq!(chain(&root.join("no/weir.toml")), [root.join("no")]);
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        assert!(chain(&root.join("a")).len() <= MOST);
    }
}
