//! Reads the file and what it includes.
//!
//! Invariant: opening never blocks and never reads without bound, whatever stands at a path (a FIFO, a directory, a
//! device, a file of a gigabyte); nothing is read twice; the digest covers every byte that a load would see.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

/// Larger files are refused before they are parsed.
const MAX_BYTES: u64 = 8 << 20;

/// Collects which files were read, and the digest of what was in them. No `Debug`: it holds private keys.
#[derive(Default)]
pub struct Reading {
    /// Every file, and the folder of every pattern.
    pub paths: Vec<PathBuf>,
    hash: Sha256,
    shared: HashMap<PathBuf, Result<Arc<[u8]>, Arc<io::Error>>>,
}

impl Reading {
    /// The bytes of one file, noted in paths and digest.
    pub fn file(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let bytes = read_file(path);
        self.note(path, bytes.as_deref().ok());
        bytes
    }

    /// The bytes of a file that several keys may name; the same ones for each of them.
    pub fn shared(&mut self, path: &Path) -> Result<Arc<[u8]>, Arc<io::Error>> {
        if let Some(known) = self.shared.get(path) {
            return known.clone();
        }
        let bytes = self.file(path).map(Arc::from).map_err(Arc::new);
        self.shared.insert(path.to_owned(), bytes.clone());
        bytes
    }

    /// A text that came from elsewhere.
    pub fn text(&mut self, text: &str) {
        self.note(Path::new(""), Some(text.as_bytes()));
    }

    fn note(&mut self, path: &Path, bytes: Option<&[u8]>) {
        use std::os::unix::ffi::OsStrExt;
        if !path.as_os_str().is_empty() && !self.paths.iter().any(|p| p == path) {
            self.paths.push(path.to_owned());
        }
        let name = path.as_os_str().as_bytes();
        // Lengths first, so that bytes cannot move from one file to the next unnoticed; no file is not an empty file.
        let length = bytes.map_or(u64::MAX, |b| b.len() as u64);
        self.hash.update((name.len() as u64).to_le_bytes());
        self.hash.update(length.to_le_bytes());
        self.hash.update(name);
        self.hash.update(bytes.unwrap_or_default());
    }

    /// Files a pattern stands for, sorted; a name without `*` stands for itself, whether it exists or not.
    pub fn expand(&mut self, folder: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let full = folder.join(pattern);
        let name = full.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = full.parent().unwrap_or(Path::new("")).to_owned();
        if parent.to_string_lossy().contains('*') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "`*` is allowed in the file name only"));
        }
        if !name.contains('*') {
            return Ok(vec![full]);
        }
        let listed = if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.clone() };
        if !self.paths.contains(&listed) {
            self.paths.push(listed.clone());
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(listed)? {
            let file_name = entry?.file_name();
            if matches(&name, &file_name.to_string_lossy()) {
                found.push(parent.join(file_name));
            }
        }
        found.sort();
        Ok(found)
    }

    pub fn digest(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }
}

/// The bytes of a regular file.
///
/// # Errors
/// Whatever the system says; also when it is not a regular file or too large.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a folder" } else { "not a regular file" };
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}")));
    }
    read_bounded(file)
}

fn read_bounded(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 8 MiB"));
    }
    Ok(bytes)
}

/// Whether a file name fits a pattern of literals and `*`; hidden files only if the pattern names the dot.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything_but_a_leading_dot() {
        for (pattern, name, fits) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", false),
            ("*.toml", ".a.toml", false),
            (".*", ".a", true),
            ("*.toml", "a.toml~", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("*", "x", true),
            ("same", "same", true),
            ("same", "sam", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(read_file(&fifo).unwrap_err().to_string(), "it is not a regular file");
        assert_eq!(read_file(folder.path()).unwrap_err().to_string(), "it is a folder");
        let dangling = folder.path().join("dangling");
        std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
        assert_eq!(read_file(&dangling).unwrap_err().kind(), io::ErrorKind::NotFound);
        let large = folder.path().join("large");
        File::create(&large).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(read_file(&large).unwrap_err().to_string(), "it is larger than 8 MiB");
    }
}
