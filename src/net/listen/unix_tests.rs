//! Paths that are free, left over, taken, raced for or forbidden.

use std::io::Write;
use std::sync::Barrier;
use std::thread;

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> UnixBind {
        UnixBind { path: self.0.path().join("weir.sock"), mode: 0o660 }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn reaches(listener: &UnixListener, path: &Path) -> bool {
    let _client = UnixStream::connect(path).unwrap();
    listener.accept().is_ok()
}

#[test]
fn a_path_is_had_with_its_mode_and_given_back() {
    let folder = Folder::new();
    for mode in [0o600, 0o666] {
        let unix = UnixBind { mode, ..folder.socket() };
        let (listener, file) = bind(&unix).unwrap();
        assert_eq!(fs::metadata(&unix.path).unwrap().mode() & 0o777, mode, "whatever the umask");
        assert!(reaches(&listener, &unix.path));
        assert_eq!(folder.names(), ["weir.sock"]);
        drop(file);
        assert!(folder.names().is_empty());
    }
}

#[test]
fn a_path_left_over_is_taken_over() {
    let folder = Folder::new();
    let unix = folder.socket();
    drop(UnixListener::bind(&unix.path).unwrap());
    assert_eq!(folder.names(), ["weir.sock"]);
    let (listener, _file) = bind(&unix).unwrap();
    assert!(reaches(&listener, &unix.path));
    assert_eq!(folder.names(), ["weir.sock"]);
}

#[tokio::test]
async fn a_path_on_which_somebody_listens_is_left_to_him() {
    let folder = Folder::new();
    let unix = folder.socket();
    let theirs = UnixListener::bind(&unix.path).unwrap();
    let error = bind(&unix).unwrap_err();
    let me = format!("(process {})", std::process::id());
    assert!(matches!(&error, BindError::InUse { holder: Some(h), .. } if h.contains(&me)), "{error}");
    assert_eq!(folder.names(), ["weir.sock"]);
    // The first in the queue is our own look.
    assert!(reaches(&theirs, &unix.path));
}

#[test]
fn a_socket_of_another_type_is_somebodys_too() {
    let folder = Folder::new();
    let unix = folder.socket();
    let _theirs = std::os::unix::net::UnixDatagram::bind(&unix.path).unwrap();
    assert!(matches!(bind(&unix).unwrap_err(), BindError::InUse { .. }));
}

#[test]
fn what_is_not_a_socket_is_never_removed() {
    let folder = Folder::new();
    let unix = folder.socket();
    fs::File::create(&unix.path).unwrap().write_all(b"precious").unwrap();
    let error = bind(&unix).unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert!(error.remedy().contains("remove that file"));
    assert_eq!(fs::read(&unix.path).unwrap(), b"precious");
    assert_eq!(folder.names(), ["weir.sock"]);
}

#[test]
fn a_missing_folder_and_a_long_path_are_said() {
    let folder = Folder::new();
    let at = |path: PathBuf| UnixBind { path, mode: 0o660 };
    let error = bind(&at(folder.0.path().join("none/weir.sock"))).unwrap_err();
    assert!(matches!(&error, BindError::NoFolder { folder, .. } if folder.ends_with("none")), "{error}");
    assert!(error.remedy().contains("RuntimeDirectory"));
    let error = bind(&at(folder.0.path().join("n".repeat(120)))).unwrap_err();
    assert!(matches!(error, BindError::TooLong { .. }), "{error}");
    fs::write(folder.0.path().join("file"), "").unwrap();
    let error = bind(&at(folder.0.path().join("file/weir.sock"))).unwrap_err();
    assert!(matches!(error, BindError::NoFolder { .. }), "{error}");
}

/// Root may write everywhere, and then there is nothing to see.
#[test]
fn a_folder_that_is_closed_to_us_is_said() {
    let folder = Folder::new();
    fs::set_permissions(folder.0.path(), Permissions::from_mode(0o500)).unwrap();
    if fs::write(folder.0.path().join("probe"), "").is_ok() {
        return;
    }
    let error = bind(&folder.socket()).unwrap_err();
    assert!(matches!(error, BindError::NotPermitted { .. }), "{error}");
    assert!(error.remedy().contains("write to the folder"));
}

/// Of several that find the same left-over path, or none, at the same time, one gets it, and everybody reaches that one.
#[test]
fn of_many_that_start_together_one_gets_in() {
    for round in 0..50 {
        let folder = Folder::new();
        let unix = folder.socket();
        if round % 2 == 0 {
            drop(UnixListener::bind(&unix.path).unwrap());
        }
        let barrier = Barrier::new(2);
        let start = || {
            barrier.wait();
            bind(&unix)
        };
        let results = thread::scope(|scope| [scope.spawn(start), scope.spawn(start)].map(|t| t.join().unwrap()));
        let mut winners: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
        assert_eq!(winners.len(), 1, "round {round}");
        let (listener, _file) = winners.pop().unwrap();
        let client = UnixStream::connect(&unix.path).unwrap();
        client.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_ok());
        assert_eq!(folder.names(), ["weir.sock"], "round {round}");
    }
}

#[test]
fn a_path_that_has_become_somebody_elses_is_not_removed() {
    let folder = Folder::new();
    let unix = folder.socket();
    let (_listener, file) = bind(&unix).unwrap();
    fs::remove_file(&unix.path).unwrap();
    let (listener, _theirs) = bind(&unix).unwrap();
    drop(file);
    assert!(reaches(&listener, &unix.path));
}
