//! `state_dir`: its lock, and `state.json` with the generation before it.
//!
//! A write is: temporary file, sync, exchange with `state.json`, the old one becomes `state.json.prev`, sync of the
//! directory. The generation before that becomes the next temporary file and is overwritten in place: its blocks are
//! there already, so the first sync has nothing to tell the file system's journal, which saves a third of the time.
//!
//! Invariants: at every instant `state.json` or `state.json.prev` is whole; two syncs per write; nothing that could
//! not be read is ever overwritten, it is set aside first.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use super::OpenError;
use super::book::Book;
use super::format::{FORMAT, Unreadable, decode};
use crate::model::rfc3339_ms;

const STATE: &str = "state.json";
const PREVIOUS: &str = "state.json.prev";
const TEMPORARY: &str = "state.json.tmp";

/// A locked, writable state directory. The lock ends with it.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    handle: File,
    lock: File,
}

/// Why there is no `Disk`.
#[derive(Debug)]
pub(super) enum NoDisk {
    Locked { holder: Option<u32> },
    Unusable(io::Error),
}

impl From<io::Error> for NoDisk {
    fn from(error: io::Error) -> Self {
        Self::Unusable(error)
    }
}

impl Disk {
    /// Makes the directory if need be and locks it, or takes the lock of a process before us, if it is of this directory.
    pub fn open(dir: &Path, handed: Option<&OwnedFd>) -> Result<Self, NoDisk> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("lock"))?;
        // A lock belongs to what was opened, not to who opened it: with the handle it is ours as well.
        if let Some(handed) = handed.and_then(|handed| same_file(handed, &lock)) {
            return Ok(Self { dir: dir.to_owned(), handle: File::open(dir)?, lock: handed });
        }
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(NoDisk::Locked { holder: holder(&mut lock) }),
            Err(errno) => return Err(NoDisk::Unusable(errno.into())),
        }
        let disk = Self { dir: dir.to_owned(), handle: File::open(dir)?, lock };
        disk.sign();
        Ok(disk)
    }

    /// Says who holds the lock. Only for the message of whoever comes second; the lock holds without it.
    pub fn sign(&self) {
        let mut lock = &self.lock;
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| write!(lock, "{}", std::process::id()));
    }

    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    pub fn path(&self) -> PathBuf {
        self.dir.join(STATE)
    }

    /// Makes `bytes` the state; when it returns they are on disk.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.dir.join(TEMPORARY);
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)?;
        // Syncs the length too where it has changed; it rarely has, see `format::encode`.
        file.sync_data()?;
        self.turn(&temporary)?;
        self.handle.sync_all()
    }

    /// The temporary file becomes the state, the state the generation before, and that one the next temporary file.
    fn turn(&self, temporary: &Path) -> io::Result<()> {
        let (state, previous) = (self.dir.join(STATE), self.dir.join(PREVIOUS));
        match exchange_or_move(temporary, &state)? {
            Turned::Moved => Ok(()),
            Turned::Exchanged => exchange_or_move(temporary, &previous).map(drop),
            // Between these two only `.prev` is there, and reading knows that.
            Turned::Unable => fs::rename(&state, &previous).and_then(|()| fs::rename(temporary, &state)),
        }
    }
}

enum Turned {
    Exchanged,
    /// There was nothing to exchange with.
    Moved,
    /// Not every file system can exchange.
    Unable,
}

fn exchange_or_move(from: &Path, to: &Path) -> io::Result<Turned> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(Turned::Exchanged),
        Err(Errno::NOENT) => fs::rename(from, to).map(|()| Turned::Moved),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(Turned::Unable),
        Err(errno) => Err(errno.into()),
    }
}

fn same_file(handed: &OwnedFd, lock: &File) -> Option<File> {
    let handed = File::from(handed.try_clone().ok()?);
    let (mine, theirs) = (lock.metadata().ok()?, handed.metadata().ok()?);
    ((mine.dev(), mine.ino()) == (theirs.dev(), theirs.ino())).then_some(handed)
}

fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// What was found at start.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub book: Option<Book>,
    /// It came from the generation before, or something was set aside: `state.json` must be written anew.
    pub stale: bool,
}

/// Reads the state, or the generation before if it is damaged or missing.
///
/// # Errors
/// `OpenError::Newer` unless `ignore_newer`.
pub(super) fn read(dir: &Path, ignore_newer: bool) -> Result<Found, OpenError> {
    let first = read_one(dir, STATE, ignore_newer)?;
    if let One::Book(book) = first {
        return Ok(Found { book: Some(*book), stale: false });
    }
    let second = read_one(dir, PREVIOUS, ignore_newer)?;
    match (first, second) {
        (One::Missing, One::Missing) => Ok(Found::default()),
        // Whoever says "ignore" means the state, not only its newest generation.
        (One::Ignored, second) => {
            if matches!(second, One::Book(_)) {
                set_aside(dir, PREVIOUS, "ignored");
            }
            Ok(Found { book: None, stale: true })
        }
        (_, One::Book(book)) => {
            let path = dir.join(PREVIOUS);
            tracing::error!(event = "state_recovered", path = %path.display(), revision = book.revision.0,
                "the state is taken from the generation before");
            Ok(Found { book: Some(*book), stale: true })
        }
        _ => {
            tracing::error!(event = "state_lost", path = %dir.join(STATE).display(),
                "no readable state is left: overrides, holds and drains are gone, the file's weights are in force");
            Ok(Found { book: None, stale: true })
        }
    }
}

enum One {
    Book(Box<Book>),
    Missing,
    Damaged,
    Ignored,
}

fn read_one(dir: &Path, name: &str, ignore_newer: bool) -> Result<One, OpenError> {
    let path = dir.join(name);
    let why = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(One::Missing),
        Err(error) => error.to_string(),
        Ok(bytes) => match decode(&bytes) {
            Ok(book) => return Ok(One::Book(Box::new(book))),
            Err(Unreadable::Newer(_)) if ignore_newer => {
                set_aside(dir, name, "newer");
                return Ok(One::Ignored);
            }
            Err(Unreadable::Newer(found)) => return Err(OpenError::Newer { path, found, known: FORMAT }),
            Err(Unreadable::Damaged(why)) => why,
        },
    };
    tracing::error!(event = "state_damaged", path = %path.display(), reason = why, "a state file cannot be read");
    set_aside(dir, name, "corrupt");
    Ok(One::Damaged)
}

fn set_aside(dir: &Path, name: &str, as_what: &str) {
    let time = rfc3339_ms(SystemTime::now()).replace(':', "-");
    let (from, to) = (dir.join(name), dir.join(format!("{name}.{as_what}-{time}")));
    match fs::rename(&from, &to) {
        Ok(()) => tracing::warn!(event = "state_set_aside", path = %to.display(), "a state file was set aside"),
        Err(error) => tracing::error!(event = "state_set_aside", path = %from.display(), %error,
            "a state file could not be set aside"),
    }
}
