//! The last good configuration on disk, for `--last-good` after a restart with a bad file.
//!
//! Off the path of a reload and with the last one winning: the copy may be a moment behind, but is never half-written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::reloader::Effective;
use crate::config::Config;

/// Where the copy lies.
pub fn last_good_path(state_dir: &Path) -> PathBuf {
    state_dir.join("last-good.toml")
}

/// Keeps a copy of each configuration that comes into force, the first one included.
pub(super) async fn keep(mut configs: watch::Receiver<Arc<Config>>, effective: Effective) {
    configs.mark_changed();
    while configs.changed().await.is_ok() {
        let config = configs.borrow_and_update().clone();
        let effective = effective.clone();
        let path = last_good_path(&config.admin.state_dir);
        let written =
            spawn_blocking(move || write(&last_good_path(&config.admin.state_dir), &effective(&config))).await;
        if let Err(error) = written.unwrap_or_else(|e| Err(io::Error::other(e))) {
            let path = path.display().to_string();
            tracing::warn!(event = "last-good-not-kept", path, %error, "`--last-good` would start an older one");
        }
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let temporary = path.with_extension("toml.new");
    // Values of `${NAME}` are filled in, so there may be secrets in it.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_copy_is_replaced_as_a_whole_and_is_for_our_eyes_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = last_good_path(dir.path());
        write(&path, "long text").unwrap();
        let first = fs::metadata(&path).unwrap();
        write(&path, "long text").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), first.ino(), "the same text is not written again");
        write(&path, "short").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
        assert!(write(Path::new("/proc/none/last-good.toml"), "").is_err());
    }
}
