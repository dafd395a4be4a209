//! Listeners on Unix paths: nothing lost while they stop, nothing noticed while they stay.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::tests::{name, start, until};
use super::*;
use crate::net::listen::accept_rest;

fn wanted(pairs: &[(&str, &Path)]) -> Vec<(ListenerName, Bind)> {
    wanted_with(pairs, 0o660)
}

fn wanted_with(pairs: &[(&str, &Path)], mode: u32) -> Vec<(ListenerName, Bind)> {
    let bind = |path: &Path| Bind::Unix(UnixBind { path: path.to_owned(), mode });
    pairs.iter().map(|(n, path)| (name(n), bind(path))).collect()
}

fn served(mut stream: UnixStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&[7]).is_ok() && stream.read_exact(&mut [0]).is_ok()
}

#[derive(Debug, Default)]
struct Tally {
    served: AtomicUsize,
    lost: AtomicUsize,
    over: AtomicBool,
}

/// Connects again and again; a connection that came about must be answered.
fn storm(path: &Path, tally: &Tally) {
    while !tally.over.load(Ordering::Relaxed) {
        match UnixStream::connect(path) {
            Ok(stream) => {
                let count = if served(stream) { &tally.served } else { &tally.lost };
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(e) => assert!(matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound), "{e}"),
        }
    }
}

#[tokio::test]
async fn nothing_is_lost_while_a_path_is_given_up_under_a_storm() {
    let folder = tempfile::tempdir().unwrap();
    let listeners = start(2);
    for round in 0..20 {
        let path: PathBuf = folder.path().join(format!("{round}.sock"));
        assert!(listeners.commit(listeners.prepare(&wanted(&[("web", &path)])).unwrap()).is_empty());
        let tally = Arc::new(Tally::default());
        let client = || {
            let (path, tally) = (path.clone(), tally.clone());
            thread::spawn(move || storm(&path, &tally))
        };
        let clients: Vec<_> = std::iter::repeat_with(client).take(6).collect();
        until(|| tally.served.load(Ordering::Relaxed) > 300).await;
        let stopping = listeners.commit(listeners.prepare(&[]).unwrap());
        assert!(!path.exists(), "nobody finds it any more");
        let stopped = Stopping::finish_all(stopping).await;
        assert!(stopped[0].emptied && stopped[0].half_open == 0, "{stopped:?}");
        tally.over.store(true, Ordering::Relaxed);
        tokio::task::spawn_blocking(|| clients.into_iter().for_each(|c| c.join().unwrap())).await.unwrap();
        assert_eq!(tally.lost.load(Ordering::Relaxed), 0, "round {round}: {tally:?}");
    }
}

#[tokio::test]
async fn what_waits_in_the_queue_is_given_out_and_nothing_joins_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.sock");
    let (tx, mut commands) = mpsc::unbounded_channel();
    let listeners = Listeners::new(1, Arc::new(move |_, command| tx.send(command).unwrap()));
    listeners.commit(listeners.prepare(&wanted(&[("web", &path)])).unwrap());
    let Some(ListenerCommand::Add { socket, .. }) = commands.recv().await else { panic!("no socket") };
    let clients: Vec<_> = (0..50).map(|_| UnixStream::connect(&path).unwrap()).collect();
    // As a client that has found the path just before it went.
    let link = folder.path().join("link.sock");
    std::fs::hard_link(&path, &link).unwrap();
    let _stopping = listeners.close();
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(UnixStream::connect(&link).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(accept_rest(&socket, |_| ()).unwrap(), clients.len());
}

#[tokio::test]
async fn a_path_that_stays_keeps_its_socket_and_may_get_another_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.sock");
    let listeners = start(2);
    listeners.commit(listeners.prepare(&wanted(&[("web", &path)])).unwrap());
    let before = std::fs::metadata(&path).unwrap();
    let stopping = listeners.commit(listeners.prepare(&wanted_with(&[("front", &path)], 0o600)).unwrap());
    assert!(stopping.is_empty());
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!((before.ino(), after.mode() & 0o777), (after.ino(), 0o600));
    assert_eq!(listeners.listening()[0].name, name("front"));
    assert!(served(UnixStream::connect(&path).unwrap()));
    Stopping::finish_all(listeners.close()).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_set_that_does_not_come_into_force_leaves_no_path() {
    let folder = tempfile::tempdir().unwrap();
    let [path, missing] = ["weir.sock", "none/weir.sock"].map(|name| folder.path().join(name));
    let listeners = start(1);
    let refused = listeners.prepare(&wanted(&[("good", &path), ("bad", &missing)])).unwrap_err();
    assert!(matches!(refused[..], [Refused { error: BindError::NoFolder { .. }, .. }]), "{refused:?}");
    assert!(!path.exists());
    drop(listeners.prepare(&wanted(&[("good", &path)])).unwrap());
    assert!(!path.exists());
}

#[tokio::test]
async fn a_path_can_be_had_again_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.sock");
    let listeners = start(2);
    let web = wanted(&[("web", &path)]);
    for _ in 0..5 {
        listeners.ready_for(&web).await;
        listeners.commit(listeners.prepare(&web).unwrap());
        assert!(served(UnixStream::connect(&path).unwrap()));
        tokio::spawn(Stopping::finish_all(listeners.commit(listeners.prepare(&[]).unwrap())));
    }
}
