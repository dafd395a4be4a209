//! Listeners on Unix sockets: served as any other, taken over when left behind, given back, and nobody lost.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Conf, Connection, Failure, LIMIT, Origin, Weir, times, wait_for, wait_until};

/// `web` on TCP and `local` on a path in the folder of the weir.
fn with_path(origin: &Origin) -> Conf {
    Conf::one(origin.address).tail("[listeners.local]\nbind = \"unix:@DIR@/weir.sock\"")
}

fn path_of(weir: &Weir) -> PathBuf {
    weir.dir().join("weir.sock")
}

fn open(weir: &Weir) -> Connection {
    Connection::open_unix(&path_of(weir)).unwrap()
}

#[test]
fn requests_over_a_path_are_served() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&with_path(&origin));
    let mut client = open(&weir);
    for _ in 0..3 {
        assert_eq!(client.get("/").unwrap().text(), "v1");
    }
    assert_eq!(fs::metadata(path_of(&weir)).unwrap().permissions().mode() & 0o777, 0o660);
    // Clients there have no address (RFC 7239 section 6).
    assert!(origin.heads().iter().all(|head| head.get("x-forwarded-for") == Some("unknown")));
    let line: serde_json::Value = wait_for("its access line", || {
        let text = weir.stdout();
        text.lines().find(|line| line.contains("\"local\"")).and_then(|line| serde_json::from_str(line).ok())
    });
    assert_eq!((&line["client"], &line["listener"]), (&"unix".into(), &"local".into()), "{line}");
    let ready = weir.stderr();
    assert!(ready.contains(&format!("local unix:{}", path_of(&weir).display())), "{ready}");
}

#[test]
fn every_worker_accepts_from_it() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&with_path(&origin).workers(3));
    let mut clients: Vec<_> = (0..60).map(|_| open(&weir)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").unwrap().status(), 200);
    }
    weir.admin.wait_metric("weir_connections", &[("listener", "local")], 60.0);
}

#[test]
fn the_mode_is_the_one_asked_for_and_follows_the_file() {
    let origin = Origin::named("v1");
    let conf = with_path(&origin);
    let weir = Weir::start(&conf.clone().tail("socket_mode = \"0600\""));
    let metadata = || fs::metadata(path_of(&weir)).unwrap();
    let before = metadata();
    assert_eq!(before.mode() & 0o777, 0o600);
    weir.edit(&conf.clone().tail("socket_mode = \"0666\""));
    wait_until("the new mode", || metadata().mode() & 0o777 == 0o666);
    assert_eq!(metadata().ino(), before.ino(), "the same socket");
}

#[test]
fn a_path_left_over_by_kill_9_is_taken_over() {
    let origin = Origin::named("v1");
    let mut weir = Weir::start(&with_path(&origin));
    for _ in 0..3 {
        weir.kill();
        assert!(path_of(&weir).exists());
        weir = weir.restart();
        assert_eq!(open(&weir).get("/").unwrap().text(), "v1");
    }
}

#[test]
fn a_path_somebody_has_is_not_taken() {
    let origin = Origin::named("v1");
    let first = Weir::start(&with_path(&origin));
    let theirs = path_of(&first);
    let text =
        |path: &str| Conf::one(origin.address).tail(&format!("[listeners.local]\nbind = \"unix:{path}\"")).text();
    let done = Weir::start_refused(&text(theirs.to_str().unwrap())).expect_code(4);
    assert!(done.all().contains(&format!("in use by weir (process {})", first.pid())), "{}", done.all());
    assert_eq!(open(&first).get("/").unwrap().text(), "v1");

    let file = first.dir().join("precious");
    fs::write(&file, "precious").unwrap();
    let done = Weir::start_refused(&text(file.to_str().unwrap())).expect_code(4);
    assert!(done.all().contains("not a socket"), "{}", done.all());
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

    let done = Weir::start_refused(&text("@DIR@/none/weir.sock")).expect_code(4);
    assert!(done.all().contains("there is no folder"), "{}", done.all());
}

#[test]
fn a_reload_keeps_the_socket_or_gives_it_back() {
    let origin = Origin::named("v1");
    let conf = with_path(&origin);
    let weir = Weir::start(&conf);
    let path = path_of(&weir);
    let inode = fs::metadata(&path).unwrap().ino();
    let mut client = open(&weir);
    assert_eq!(client.get("/").unwrap().text(), "v1");
    weir.edit(&conf.clone().split("expose_version = true"));
    wait_until("the reload", || client.get("/").unwrap().head.has("weir-version"));
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);

    weir.edit(&Conf::one(origin.address));
    wait_until("the path is gone", || !path.exists());
    assert!(matches!(Connection::open_unix(&path), Err(Failure::Refused)));
    assert!(client.get("/").unwrap().head.closes(), "the old connection is told to go");
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");

    weir.edit(&conf);
    wait_until("it is back", || path.exists());
    assert_eq!(open(&weir).get("/").unwrap().text(), "v1");
}

/// Clients that connect anew for each request meet the accept queue.
#[test]
fn term_loses_nobody_and_removes_the_path() {
    let origin = Origin::named("v1");
    for _ in 0..times(3, 30) {
        let mut weir = Weir::start(&with_path(&origin));
        let path = path_of(&weir);
        let served = AtomicUsize::new(0);
        let client = || {
            loop {
                match Connection::open_unix(&path) {
                    Err(Failure::Refused) => return,
                    Err(failure) => panic!("{failure}"),
                    Ok(mut connection) => {
                        let answer = connection.ask("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
                        assert_eq!(answer.expect("an accepted request is answered").status(), 200);
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..16).map(|_| scope.spawn(client)).collect();
            wait_until("they are at it", || served.load(Ordering::Relaxed) > 200);
            weir.signal(Signal::TERM);
            assert_eq!(weir.wait_exit(Duration::from_secs(30)).code(), Some(0));
            clients.into_iter().for_each(|c| c.join().unwrap());
        });
        assert!(!path.exists());
    }
}

#[test]
fn a_path_that_is_somebody_elses_by_now_is_left_at_the_end() {
    let origin = Origin::named("v1");
    let mut weir = Weir::start(&with_path(&origin));
    let path = path_of(&weir);
    fs::remove_file(&path).unwrap();
    let _theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
    weir.signal(Signal::TERM);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
    assert!(path.exists());
}
