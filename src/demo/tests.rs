//! The demo around a stand-in proxy that hands each connection to the versions of its file in turn.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use super::*;

/// What the file says: where to listen, and the endpoints of the versions.
fn read(file: &Path) -> (u16, Vec<SocketAddr>) {
    let table: toml::Table = std::fs::read_to_string(file).unwrap().parse().unwrap();
    let bind: SocketAddr = table["listeners"]["web"]["bind"].as_str().unwrap().parse().unwrap();
    let versions = table["splits"]["shop"]["versions"].as_table().unwrap().values();
    let endpoints = versions.map(|v| v["endpoints"][0].as_str().unwrap().parse().unwrap()).collect();
    (bind.port(), endpoints)
}

/// Another test may be trying whether the port is free at this very moment.
fn listen(port: u16) -> TcpListener {
    let deadline = crate::model::Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return listener,
            Err(e) => assert!(crate::model::Instant::now() < deadline, "port {port}: {e}"),
        }
        std::thread::yield_now();
    }
}

fn forward(listener: &TcpListener, endpoints: &[SocketAddr]) {
    for (client, endpoint) in listener.incoming().zip(endpoints.iter().cycle()) {
        let client = client.unwrap();
        let upstream = TcpStream::connect(endpoint).unwrap();
        for (mut from, mut to) in [(client.try_clone().unwrap(), upstream.try_clone().unwrap()), (upstream, client)] {
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
    }
}

/// A writer whose text can be read afterwards, and who goes away (which ends the demo) when a line of counts has
/// shown both versions.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        let written = self.0.lock().unwrap().write(bytes)?;
        let is_seen = line.contains(" s  ") && line.contains("v1") && line.contains("v2");
        if is_seen { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(written) }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn clients_are_answered_by_both_versions_and_nothing_is_left_behind() {
    let (note, notes) = mpsc::channel();
    let start = move |file: PathBuf| {
        let (port, endpoints) = read(&file);
        let listener = listen(port);
        std::thread::spawn(move || forward(&listener, &endpoints));
        note.send(file).unwrap();
        Ok(move || note.send("stopped".into()).unwrap())
    };
    let out = Shared::default();
    let totals = run(&Options { seconds: Some(60), signals: false }, out.clone(), start).unwrap();
    assert_eq!(totals.versions.keys().collect::<Vec<_>>(), ["v1", "v2"]);
    assert!(totals.versions.values().all(|t| t.requests > 0), "{totals}");
    assert_eq!((totals.by_proxy, totals.unanswered, totals.versions["v1"].errors), (0, 0, 0), "{totals}");
    let file = notes.recv().unwrap();
    assert_eq!(notes.recv().unwrap(), PathBuf::from("stopped"));
    assert!(!file.parent().unwrap().exists());
    let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains(&file.display().to_string()) && text.contains("in all"), "{text}");
}

#[test]
fn a_proxy_that_does_not_start_is_told_and_leaves_no_folder() {
    let (note, notes) = mpsc::channel();
    let start = move |file: PathBuf| {
        note.send(file).unwrap();
        Err::<fn(), _>("port taken".to_owned())
    };
    let error = run(&Options::default(), Shared::default(), start).unwrap_err();
    assert_eq!(error.to_string(), "port taken");
    assert!(!notes.recv().unwrap().exists());
}

/// A reader that is gone from the start.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let totals = run(&Options::default(), Closed, |_| Ok(|| ())).unwrap();
    assert_eq!(totals.requests(), 0);
}
