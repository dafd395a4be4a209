//! Workers as small as can be, and clients that never let up while their listener is taken away.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::net::listen::{Accepted, Acceptor, accept_rest};
use crate::net::socket::Socket;

pub(super) fn name(text: &str) -> ListenerName {
    ListenerName::new(text).unwrap()
}

fn wanted(pairs: &[(&str, SocketAddr)]) -> Vec<(ListenerName, Bind)> {
    pairs.iter().map(|(n, a)| (name(n), Bind::Tcp(*a))).collect()
}

fn tcp(listening: &Listening) -> SocketAddr {
    listening.address.tcp().unwrap()
}

fn bind_tcp(address: SocketAddr) -> SocketAddr {
    bind(&Bind::Tcp(address), 1).unwrap().address.tcp().unwrap()
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// Answers each byte with the same byte.
async fn echo(mut stream: Socket) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut byte = [0];
    while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
}

async fn accept_from(listener: Acceptor, mut stop: mpsc::Receiver<Done>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => drop(tokio::spawn(echo(accepted.unwrap().0))),
            done = stop.recv() => {
                listener.accept_rest(|accepted| drop(tokio::spawn(echo(accepted.unwrap().0)))).unwrap();
                drop(done);
                return;
            }
        }
    }
}

async fn worker(mut commands: mpsc::UnboundedReceiver<ListenerCommand>) {
    let mut stops = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            ListenerCommand::Add { address, socket, .. } => {
                let (tx, rx) = mpsc::channel(1);
                stops.insert(address, tx);
                tokio::spawn(accept_from(Acceptor::new(socket).unwrap(), rx));
            }
            ListenerCommand::Rename { .. } => {}
            ListenerCommand::Remove { address, done } => stops.remove(&address).unwrap().send(done).await.unwrap(),
        }
    }
}

pub(super) fn start(workers: usize) -> Listeners {
    let senders: Vec<_> = (0..workers)
        .map(|_| {
            let (tx, rx) = mpsc::unbounded_channel();
            thread::spawn(move || {
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(worker(rx));
            });
            tx
        })
        .collect();
    Listeners::new(workers, Arc::new(move |worker, command| senders[worker].send(command).unwrap()))
}

#[derive(Debug, Default)]
struct Tally {
    served: AtomicUsize,
    lost: AtomicUsize,
    over: AtomicBool,
}

/// Connects again and again; a connection that came about must be answered.
fn storm(address: SocketAddr, tally: &Tally) {
    while !tally.over.load(Ordering::Relaxed) {
        match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            Ok(stream) => ask(stream, tally),
            Err(e) => assert!(matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::TimedOut), "{e}"),
        }
    }
}

fn ask(mut stream: TcpStream, tally: &Tally) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut byte = [7];
    let answered = stream.write_all(&byte).is_ok() && stream.read_exact(&mut byte).is_ok();
    let count = if answered { &tally.served } else { &tally.lost };
    count.fetch_add(1, Ordering::Relaxed);
}

#[tokio::test]
async fn nothing_is_lost_while_a_listener_stops_under_a_storm() {
    let listeners = start(2);
    for round in 0..8 {
        let stopping = listeners.commit(listeners.prepare(&wanted(&[("web", any_port())])).unwrap());
        assert!(stopping.is_empty());
        let address = tcp(&listeners.listening()[0]);
        let tally = Arc::new(Tally::default());
        let clients: Vec<_> = (0..6)
            .map(|_| {
                let tally = tally.clone();
                thread::spawn(move || storm(address, &tally))
            })
            .collect();
        until(|| tally.served.load(Ordering::Relaxed) > 300).await;
        let stopped = Stopping::finish_all(listeners.commit(listeners.prepare(&[]).unwrap())).await;
        assert_eq!(stopped, [Stopped { address: Bind::Tcp(address), half_open: 0, emptied: true }]);
        tally.over.store(true, Ordering::Relaxed);
        tokio::task::spawn_blocking(|| clients.into_iter().for_each(|c| c.join().unwrap())).await.unwrap();
        assert_eq!(tally.lost.load(Ordering::Relaxed), 0, "round {round}: {tally:?}");
        assert!(TcpStream::connect(address).is_err(), "still open");
    }
}

pub(super) async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the condition never came");
}

#[tokio::test]
async fn what_waits_in_the_queue_when_the_door_shuts_is_served() {
    let (tx, mut commands) = mpsc::unbounded_channel();
    let listeners = Listeners::new(1, Arc::new(move |_, command| tx.send(command).unwrap()));
    listeners.commit(listeners.prepare(&wanted(&[("web", any_port())])).unwrap());
    let address = tcp(&listeners.listening()[0]);
    let Some(ListenerCommand::Add { socket, .. }) = commands.recv().await else { panic!("no socket") };
    let mut clients: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    let stopping = listeners.close().pop().unwrap();
    let late = TcpStream::connect_timeout(&address, Duration::from_millis(50));
    assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut, "no new connection begins");
    let closing = tokio::spawn(stopping.finish());
    let Some(ListenerCommand::Remove { done, .. }) = commands.recv().await else { panic!("not removed") };
    let mut streams = Vec::new();
    let take = |accepted| match accepted {
        Accepted::Tcp(stream, _) => streams.push(stream),
        Accepted::Unix(_) => panic!("not TCP"),
    };
    assert_eq!(accept_rest(&socket, take).unwrap(), 50);
    drop(socket);
    drop(done);
    assert!(closing.await.unwrap().emptied);
    streams.iter_mut().for_each(|s| s.write_all(&[1]).unwrap());
    clients.iter_mut().for_each(|c| c.read_exact(&mut [0]).unwrap());
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_answer_is_not_waited_for_for_ever() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let theirs = kept.clone();
    let listeners = Listeners::new(1, Arc::new(move |_, command| theirs.lock().unwrap().push(command)));
    listeners.commit(listeners.prepare(&wanted(&[("web", any_port())])).unwrap());
    let stopped = Stopping::finish_all(listeners.close()).await;
    assert!(!stopped[0].emptied);
    let late = listeners.prepare(&wanted(&[("web", any_port())])).unwrap();
    assert!(listeners.commit(late).is_empty() && listeners.listening().is_empty(), "closed for good");
}

#[tokio::test]
async fn an_address_that_stays_keeps_its_socket() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let theirs = seen.clone();
    let note = move |worker: usize, command| {
        theirs.lock().unwrap().push(match command {
            ListenerCommand::Add { name, .. } => format!("{worker} add {name}"),
            ListenerCommand::Rename { name, .. } => format!("{worker} rename {name}"),
            ListenerCommand::Remove { .. } => format!("{worker} remove"),
        });
    };
    let listeners = Listeners::new(2, Arc::new(note));
    let fixed = bind_tcp(any_port());
    listeners.commit(listeners.prepare(&wanted(&[("a", fixed), ("b", any_port()), ("c", any_port())])).unwrap());
    let before = listeners.listening();
    assert_ne!(before[1].address, before[2].address);
    let stopping = listeners.commit(listeners.prepare(&wanted(&[("c", any_port()), ("z", fixed)])).unwrap());
    Stopping::finish_all(stopping).await;
    let after = listeners.listening();
    assert_eq!((tcp(&after[0]), tcp(&after[1])), (tcp(&before[2]), fixed));
    let seen = seen.lock().unwrap();
    assert_eq!(seen[6..], ["0 rename z", "1 rename z", "0 remove", "1 remove"]);
}

#[tokio::test]
async fn one_address_that_cannot_be_had_stops_the_whole_set() {
    let theirs = std::net::TcpListener::bind(any_port()).unwrap();
    let listeners = start(1);
    let both = wanted(&[("good", any_port()), ("bad", theirs.local_addr().unwrap())]);
    let refused = listeners.prepare(&both).unwrap_err();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].name, name("bad"));
    assert!(matches!(refused[0].error, BindError::InUse { .. }));
    assert!(listeners.listening().is_empty());
}

#[tokio::test]
async fn an_address_that_is_being_stopped_can_be_had_again() {
    let listeners = start(2);
    let fixed = bind_tcp(any_port());
    let web = wanted(&[("web", fixed)]);
    for _ in 0..5 {
        listeners.ready_for(&web).await;
        listeners.commit(listeners.prepare(&web).unwrap());
        let stopping = listeners.commit(listeners.prepare(&[]).unwrap());
        tokio::spawn(Stopping::finish_all(stopping));
    }
    listeners.ready_for(&web).await;
    listeners.commit(listeners.prepare(&web).unwrap());
    let tally = Tally::default();
    ask(TcpStream::connect(fixed).unwrap(), &tally);
    assert_eq!(tally.served.into_inner(), 1);
}
