//! What a panic ends, and what it leaves: in a connection's task, and in a worker's own loop.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::{Command, Cut, DataPlane, Parts, run};
use crate::config::{Bind, check_text};
use crate::lifecycle::Vital;
use crate::model::{Instant, ListenerName, Shed};
use crate::net::socket::Peer;
use crate::pool::Registry;
use crate::proxy::client::{Order, Phase, Registered};
use crate::proxy::room::{Pressure, Room};
use crate::proxy::shortage::FRESH;
use crate::proxy::worker::{Shared, TICK, Worker};
use crate::state::{OpenOptions, Store};
use crate::telemetry::{AccessWriter, Cells, Format};

fn store() -> Store {
    let text = "listeners.web.bind = '127.0.0.1:0'\nroutes = [{ split = 's' }]\n\
                splits.s.versions.v.endpoints = ['127.0.0.1:1']\nadmin.state_dir = '/dev/null/none'\n";
    let config = check_text("weir.toml", text, &|_| None).config.unwrap();
    Store::open(Arc::new(config), Arc::new(Registry::default()), &OpenOptions::default()).unwrap()
}

fn access() -> crate::telemetry::AccessLog {
    AccessWriter::start(std::io::sink()).unwrap().log(Format::Json, 1.0, 1)
}

fn worker(store: &Store) -> Rc<Worker> {
    let (cells, pressure) = (Arc::new(Cells::new()), Arc::<Pressure>::default());
    let shared = Shared { snapshot: store.shared(), swapped: store.swapped(), cells, pressure };
    Worker::new(0, 1, shared, access())
}

fn client(worker: &Rc<Worker>) -> Registered {
    let address = ([127, 0, 0, 1], 0).into();
    let local = (ListenerName::new("web").unwrap(), Rc::new(Bind::Tcp(address)));
    Registered::new(worker, local, Peer::Ip(address)).unwrap()
}

#[tokio::test]
async fn what_a_connection_holds_comes_back_when_its_task_panics() {
    let store = store();
    let local = LocalSet::new();
    local
        .run_until(async {
            let worker = worker(&store);
            let pool = &store.snapshot().splits[0].versions[0].pool;
            let (_, claim) = pool.claim(0, &mut worker.rng.borrow_mut()).unwrap();
            let place = worker.pressure.clients.try_admit(1).unwrap();
            let (registered, theirs) = (client(&worker), worker.clone());
            let connection = tokio::task::spawn_local(async move {
                let _holds = (place, claim, registered);
                tokio::task::yield_now().await;
                let _borrowed = theirs.clients.borrow();
                panic!("of a connection");
            });
            let other = Rc::new(Cell::new(false));
            let another = other.clone();
            tokio::task::spawn_local(async move { another.set(true) });
            assert!(connection.await.unwrap_err().is_panic());
            assert!(other.get(), "the others go on");
            assert!(worker.clients.borrow().is_empty());
            assert_eq!(pool.endpoints()[0].counts().total(), 0);
            assert!(worker.pressure.clients.try_admit(1).is_some(), "its place is free");
        })
        .await;
}

#[tokio::test]
async fn a_worker_that_panics_is_heard_of() {
    let (store, cells) = (store(), Arc::new(Cells::new()));
    let access = vec![access(), access()];
    let plane = DataPlane::start(Parts { snapshot: store.shared(), swapped: store.swapped(), cells, access }).unwrap();
    plane.workers[1].send(Command::Panic).unwrap();
    assert_eq!(tokio::time::timeout(Duration::from_secs(15), plane.failed()).await.unwrap(), "worker");
    // The other one still ends in order, and nobody waits for the dead.
    let now = Instant::now();
    assert_eq!(plane.drain(now, now + Duration::from_secs(15)).await, Cut::default());
    plane.join();
}

#[tokio::test(start_paused = true)]
async fn only_idle_clients_give_way_and_the_oldest_first() {
    let store = store();
    let local = LocalSet::new();
    local
        .run_until(async {
            let worker = worker(&store);
            let (_commands, inbox) = mpsc::unbounded_channel();
            tokio::task::spawn_local(run(worker.clone(), Vital::default(), inbox));
            let shed = |registered: &Registered| registered.client.order() == Some(Order::Abort);
            let old = client(&worker);
            tokio::time::sleep(2 * TICK).await;
            let (newer, busy) = (client(&worker), client(&worker));
            busy.client.enter(Phase::Busy);
            assert_eq!(worker.make_room(None, Shed::Descriptors, 1), Room::None, "their requests may be on their way");
            tokio::time::sleep(FRESH + TICK).await;
            let fresh = client(&worker);
            let elsewhere = ListenerName::new("other").unwrap();
            assert_eq!(worker.make_room(Some(&elsewhere), Shed::ConnLimit, 1), Room::None);
            assert_eq!(worker.make_room(None, Shed::Descriptors, 1), Room::Made);
            assert_eq!((shed(&old), shed(&newer)), (true, false));
            assert_eq!(worker.make_room(None, Shed::Descriptors, 9), Room::Made);
            assert_eq!((shed(&newer), shed(&fresh), shed(&busy)), (true, false, false));
            assert_eq!(worker.make_room(None, Shed::Descriptors, 9), Room::None);

            let many: Vec<_> = (0..100).map(|_| client(&worker)).collect();
            tokio::time::sleep(FRESH + TICK).await;
            assert_eq!(worker.make_room(None, Shed::Descriptors, 1000), Room::Made);
            assert_eq!(worker.make_room(None, Shed::Descriptors, 1000), Room::Later, "bounded in each tick");
            let gone = || many.iter().filter(|c| shed(c)).count() + usize::from(shed(&fresh));
            let first = gone();
            assert!(first < 100, "{first}");
            tokio::time::sleep(2 * TICK).await;
            // What another worker asks for.
            worker.pressure.clients.crowded.notify_waiters();
            tokio::task::yield_now().await;
            assert!(gone() > first);
        })
        .await;
}
