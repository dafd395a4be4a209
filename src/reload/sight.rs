//! What the watched files hold at one moment, by content, so that two moments can be compared.
//!
//! By content and not by time or size: a symlink swap, a bind mount, NFS and `cp -p` all fool those.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

/// As in faults.md 3.3: nothing larger is a configuration.
const MOST_BYTES: u64 = 8 << 20;

/// One moment. Two are equal if they hold the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    pub(super) seen: BTreeMap<PathBuf, Seen>,
    /// When each file was last written. Not what has changed, but whether somebody is at it: a file that is emptied and
    /// written again and again is found empty more than once.
    pub(super) written: Vec<Option<SystemTime>>,
}

impl PartialEq for Sight {
    fn eq(&self, other: &Self) -> bool {
        self.seen == other.seen
    }
}

impl Eq for Sight {}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Digest of the bytes, or of the names in a folder.
    Content([u8; 32]),
    /// Gone, unreadable, not a regular file, too large.
    Unusable(io::ErrorKind),
}

impl Sight {
    /// Reads everything. Blocking, but never for ever on a FIFO.
    pub(super) fn of(files: &[PathBuf], folders: &[PathBuf]) -> Self {
        let written = files.iter().map(|path| fs::metadata(path).and_then(|m| m.modified()).ok()).collect();
        let files = files.iter().map(|path| (path.clone(), Seen::new(digest_file(path))));
        let folders = folders.iter().map(|path| (path.clone(), Seen::new(digest_folder(path))));
        Self { seen: folders.chain(files).collect(), written }
    }

    /// The same as `before`, and not written to in between.
    pub(super) fn rests_since(&self, before: &Self) -> bool {
        self == before && self.written == before.written
    }

    /// Something that could be read in `before` cannot be read now.
    pub(super) fn has_lost(&self, before: &Self) -> bool {
        let usable = |(path, seen): (&PathBuf, &Seen)| matches!(seen, Seen::Content(_)).then(|| path.clone());
        before.seen.iter().filter_map(usable).any(|path| matches!(self.seen.get(&path), Some(Seen::Unusable(_))))
    }
}

impl Seen {
    fn new(digest: io::Result<[u8; 32]>) -> Self {
        digest.map_or_else(|e| Self::Unusable(e.kind()), Self::Content)
    }
}

fn digest_file(path: &Path) -> io::Result<[u8; 32]> {
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if read as u64 > MOST_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(Sha256::digest(&bytes).into()) }
}

fn digest_folder(path: &Path) -> io::Result<[u8; 32]> {
    let mut names = fs::read_dir(path)?.map(|e| Ok(e?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    let mut digest = Sha256::new();
    for name in names {
        digest.update(name.as_encoded_bytes());
        digest.update([0]);
    }
    Ok(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_content_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("weir.toml");
        let look = || Sight::of(std::slice::from_ref(&file), &[dir.path().to_owned()]);
        let missing = look();
        fs::write(&file, "a").unwrap();
        let first = look();
        assert_ne!(first, missing);
        fs::write(&file, "a").unwrap();
        assert_eq!(look(), first);
        fs::write(&file, "b").unwrap();
        assert_ne!(look(), first);
        fs::write(&file, "a").unwrap();
        fs::write(dir.path().join("other.toml"), "").unwrap();
        assert_ne!(look(), first, "a new file in a folder of includes");
    }

    #[test]
    fn what_is_no_configuration_file_is_unusable_and_blocks_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, large, good) = (dir.path().join("fifo"), dir.path().join("large"), dir.path().join("good"));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::File::create(&large).unwrap().set_len(1 << 30).unwrap();
        fs::write(&good, "").unwrap();
        assert!(digest_file(&good).is_ok());
        for bad in [&fifo, &large, &dir.path().to_owned(), &dir.path().join("gone")] {
            assert!(digest_file(bad).is_err(), "{bad:?}");
        }
        let files = [good.clone()];
        let before = Sight::of(&files, &[]);
        fs::remove_file(&good).unwrap();
        assert!(Sight::of(&files, &[]).has_lost(&before));
        assert!(!before.has_lost(&Sight::of(&files, &[])));
    }
}
