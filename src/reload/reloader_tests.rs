//! The whole path with a real store, real sockets and real files; only the TOML is replaced by a smaller language.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::config;
use crate::model::{RouteName, SplitName, VersionName, Weight};
use crate::net::listen::{ListenerCommand, ListeningSocket};
use crate::pool::Registry;
use crate::reload::{last_good_path, watch};
use crate::state::OpenOptions;

const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    dir: TempDir,
    load: Loader,
    store: Arc<Store>,
    listeners: Arc<Listeners>,
    reloads: ReloadHandle,
    task: tokio::task::JoinHandle<()>,
}

impl Scene {
    fn start(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("weir.txt"), text).unwrap();
        let root = dir.path().to_owned();
        let load: Loader = Arc::new(move || load(&root));
        let started = load();
        let running = started.config.unwrap();
        let store = Store::open(running.clone(), Arc::new(Registry::default()), &OpenOptions::default()).unwrap();
        let (store, listeners) = (Arc::new(store), Arc::new(Listeners::new(2, workers())));
        assert!(listeners.commit(listeners.prepare(&wanted(&running)).unwrap()).is_empty());
        let effective: Effective = Arc::new(|config| format!("# {}\n", config.splits[0].weights()));
        let begun = (running, started.digest);
        let (reloads, reloader) = Reloader::new(load.clone(), begun, store.clone(), listeners.clone(), effective);
        let task = tokio::spawn(reloader.run());
        Self { dir, load, store, listeners, reloads, task }
    }

    fn edit(&self, text: &str) {
        fs::write(self.dir.path().join("weir.txt"), text).unwrap();
    }

    async fn reload(&self, text: &str) -> ReloadOutcome {
        self.edit(text);
        self.reloads.reload(Actor("local:alice".to_owned()), Source::Api).await.unwrap()
    }

    fn weights(&self) -> String {
        self.store.snapshot().splits[0].weights.to_string()
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.listening().iter().map(|l| l.address.tcp().unwrap()).collect()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

/// Workers that keep their sockets until they are told to drop them.
fn workers() -> crate::net::listen::Sink {
    let sockets: [Mutex<Vec<(Bind, ListeningSocket)>>; 2] = Default::default();
    Arc::new(move |worker, command| {
        let mut mine = sockets[worker].lock().unwrap();
        match command {
            ListenerCommand::Add { address, socket, .. } => mine.push((address, socket)),
            ListenerCommand::Rename { .. } => {}
            ListenerCommand::Remove { address, .. } => mine.retain(|(a, _)| *a != address),
        }
    })
}

/// Lines of `key value...`: `weights`, `listen NAME ADDRESS`, `workers`, `admin`, `state`, `bad` (an error).
fn load(root: &Path) -> LoadedConfig {
    let main = root.join("weir.txt");
    let text = fs::read_to_string(&main);
    let digest = Sha256::digest(text.as_deref().unwrap_or_default()).into();
    let config = text.map_err(|e| format!("error[file-unreadable]: {e}\n")).and_then(|text| parse(&text, root));
    let diagnostics = config.as_ref().map_or_else(|e| json!([{ "code": "syntax", "message": e }]), |_| json!([]));
    let (warnings, folders) = (Vec::new(), Vec::new());
    LoadedConfig { config, diagnostics, warnings, files: vec![main], folders, digest, explain: None }
}

fn parse(text: &str, root: &Path) -> Result<Arc<Config>, String> {
    let mut config = base(root);
    for line in text.lines() {
        match *line.split_whitespace().collect::<Vec<_>>() {
            ["weights", v1, v2] => config.splits[0].versions = vec![version("v1", v1), version("v2", v2)],
            ["listen", name, address] => config.listeners.push(listener(name, address)),
            ["workers", n] => config.workers = n.parse().unwrap(),
            ["admin", address] => config.admin.bind = address.parse().unwrap(),
            ["state", dir] => config.admin.state_dir = dir.into(),
            _ => return Err(format!("error[syntax]: what is {line:?}?\n")),
        }
    }
    if config.splits[0].versions.is_empty() { Err("error[empty-config]: empty\n".into()) } else { Ok(Arc::new(config)) }
}

fn version(name: &str, weight: &str) -> config::Version {
    let endpoints = vec![([127, 0, 0, 1], 9).into()];
    let weight = Weight::new(weight.parse().unwrap()).unwrap();
    config::Version::new(VersionName::new(name).unwrap(), weight, endpoints)
}

fn listener(name: &str, address: &str) -> config::Listener {
    config::Listener::new(ListenerName::new(name).unwrap(), address.parse().unwrap())
}

fn base(root: &Path) -> Config {
    let split = SplitName::new("shop").unwrap();
    let log = config::Log { level: config::Level::Info, format: config::LogFormat::Json, access: false, sample: 1.0 };
    let route = config::Route::new(RouteName::new("all").unwrap(), split.clone());
    Config {
        workers: 2,
        watch: true,
        shutdown: config::Shutdown { delay: Duration::ZERO, timeout: Duration::from_secs(25) },
        listeners: Vec::new(),
        routes: vec![route],
        splits: vec![config::Split::new(split, VersionName::new("v1").unwrap(), Vec::new())],
        dns: crate::config::Dns::default(),
        admin: config::Admin { bind: ([127, 0, 0, 1], 9901).into(), hosts: vec![], state_dir: root.join("state") },
        telemetry: config::Telemetry { bind: None, log },
        notify: Vec::new(),
    }
}

#[tokio::test]
async fn a_good_file_comes_into_force_and_is_kept() {
    let scene = Scene::start("weights 90 10\nlisten web 127.0.0.1:0");
    let (before, address) = (scene.store.snapshot().revision, scene.addresses());
    let kept = || fs::read_to_string(last_good_path(&scene.dir.path().join("state")));
    scene.until("the first copy", |_| kept().is_ok_and(|t| t == "# v1 90, v2 10\n")).await;
    let outcome = scene.reload("weights 50 50\nlisten web 127.0.0.1:0").await;
    let ReloadResult::Applied { revision, changed, persisted, ref held, ref warnings, .. } = outcome.result else {
        panic!("{outcome:?}")
    };
    assert_eq!((revision.0, changed, persisted), (before.0 + 1, true, true));
    assert!(held.is_empty() && warnings.is_empty());
    assert_eq!(scene.weights(), "v1 50, v2 50");
    assert_eq!(scene.addresses(), address, "the socket stays");
    scene.until("the second copy", |_| kept().is_ok_and(|t| t == "# v1 50, v2 50\n")).await;
    let status = scene.reloads.status().borrow().clone();
    assert_eq!((status.applied, status.rejected, status.is_stale()), (1, 0, false));
    assert_eq!(*status.running, *scene.store.snapshot().config);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_until_it_is_mended() {
    let scene = Scene::start("weights 90 10\nlisten web 127.0.0.1:0");
    let (before, address) = (scene.store.snapshot(), scene.addresses());
    for bad in ["weights 50 50\nwieghts 1 1", ""] {
        let ReloadResult::Rejected { report, diagnostics } = scene.reload(bad).await.result else { panic!("{bad}") };
        assert!(report.starts_with("error[") && diagnostics[0]["code"] == "syntax", "{report}");
        assert!(Arc::ptr_eq(&scene.store.snapshot(), &before));
        assert_eq!(scene.addresses(), address);
        assert!(scene.reloads.status().borrow().is_stale());
    }
    let mended = scene.reload("weights 90 10\nlisten web 127.0.0.1:0").await;
    assert!(matches!(mended.result, ReloadResult::Unchanged), "{mended:?}");
    let status = scene.reloads.status().borrow().clone();
    assert_eq!((status.rejected, status.unchanged, status.is_stale()), (2, 1, false));
}

#[tokio::test]
async fn what_needs_a_restart_stays_and_is_told() {
    let scene = Scene::start("weights 90 10");
    let outcome = scene.reload("weights 80 20\nworkers 7\nadmin 127.0.0.1:1\nstate /elsewhere").await;
    let ReloadResult::Applied { warnings, diagnostics, .. } = outcome.result else { panic!("{outcome:?}") };
    assert_eq!(warnings.len(), 3);
    assert!(warnings[0].starts_with("warning[restart-needed]: `workers` is 7 in the file, but 2"), "{}", warnings[0]);
    let keys: Vec<_> = diagnostics.as_array().unwrap().iter().map(|d| d["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["workers", "admin.bind", "admin.state_dir"]);
    let config = scene.store.snapshot().config.clone();
    assert_eq!((config.workers, config.admin.bind.port()), (2, 9901));
    assert_eq!(config.admin.state_dir, scene.dir.path().join("state"));
    assert_eq!(scene.weights(), "v1 80, v2 20", "the rest is in force");
}

#[tokio::test]
async fn an_address_in_use_rejects_the_whole_file() {
    let scene = Scene::start("weights 90 10\nlisten web 127.0.0.1:0");
    let (before, address) = (scene.store.snapshot(), scene.addresses());
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let text = format!("weights 50 50\nlisten free {theirs}\nlisten busy {taken}");
    let ReloadResult::Rejected { report, diagnostics } = scene.reload(&text).await.result else { panic!("applied") };
    assert!(report.contains(&format!("error[address-in-use]: listener `busy`: {taken} is in use by ")), "{report}");
    assert!(report.contains(&format!("(process {})", std::process::id())), "{report}");
    assert_eq!(diagnostics[0]["key"], "listeners.busy.bind");
    assert!(Arc::ptr_eq(&scene.store.snapshot(), &before));
    assert_eq!(scene.addresses(), address);
    assert_eq!(TcpStream::connect(theirs).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "given back");
    drop(holder);
    assert!(matches!(scene.reload(&text).await.result, ReloadResult::Applied { .. }), "free now: the same file goes");
}

#[tokio::test]
async fn listeners_come_and_go_without_touching_the_others() {
    let scene = Scene::start("weights 90 10\nlisten web 127.0.0.1:0\nlisten old 127.0.0.1:0");
    let [web, old] = scene.addresses()[..] else { panic!() };
    scene.reload("weights 90 10\nlisten new 127.0.0.1:0\nlisten web 127.0.0.1:0").await;
    let [new, same] = scene.addresses()[..] else { panic!() };
    assert_eq!(same, web);
    for open in [web, new] {
        TcpStream::connect(open).unwrap();
    }
    let closed = |_: &Scene| {
        let answer = TcpStream::connect_timeout(&old, Duration::from_millis(20));
        answer.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
    };
    scene.until("the old address is closed", closed).await;
}

#[tokio::test]
async fn weights_behind_a_held_rollback_are_told() {
    let scene = Scene::start("weights 90 10");
    let change = Change::Rollback { split: SplitName::new("shop").unwrap(), to: None, to_revision: None, force: true };
    let (by, source) = (Actor("token:ci".to_owned()), Source::Api);
    scene.store.apply(Order { id: 1, change, by, source, reason: None, if_match: None, dry_run: false }).unwrap();
    let ReloadResult::Applied { held, .. } = scene.reload("weights 50 50").await.result else { panic!("rejected") };
    assert_eq!(held, [SplitName::new("shop").unwrap()]);
    assert_eq!(scene.weights(), "v1 100, v2 0");
}

#[tokio::test]
async fn every_edit_of_many_is_in_force_at_once() {
    let scene = Scene::start("weights 90 10\nlisten web 127.0.0.1:0");
    let (load, reloads, started) = (scene.load.clone(), scene.reloads.clone(), (scene.load)());
    let watcher = tokio::spawn(async move { watch(load, &started, reloads).await });
    let mut times = Vec::new();
    for i in 1..=40 {
        let text = format!("weights {i} {}\nlisten web 127.0.0.1:0", 100 - i);
        let begun = Instant::now();
        if i % 2 == 0 {
            fs::write(scene.dir.path().join("new"), text).unwrap();
            fs::rename(scene.dir.path().join("new"), scene.dir.path().join("weir.txt")).unwrap();
        } else {
            scene.edit(&text);
        }
        let weights = format!("v1 {i}, v2 {}", 100 - i);
        scene.until("the edit is in force", |scene| scene.weights() == weights).await;
        times.push(begun.elapsed());
    }
    times.sort();
    assert!(times[times.len() / 2] < Duration::from_millis(500), "median {:?}", times[times.len() / 2]);
    assert_eq!(scene.reloads.status().borrow().rejected, 0);
    watcher.abort();
}

#[tokio::test]
async fn a_thousand_reloads_leave_nothing_behind() {
    let scene = Scene::start("weights 90 10\nlisten web 127.0.0.1:0");
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    scene.reload("weights 1 1\nlisten web 127.0.0.1:0").await;
    let before = (descriptors(), tasks());
    for i in 0..1000 {
        let extra = if i % 2 == 0 { "\nlisten extra 127.0.0.1:0" } else { "" };
        let outcome = scene.reload(&format!("weights 90 {i}\nlisten web 127.0.0.1:0{extra}")).await;
        assert!(matches!(outcome.result, ReloadResult::Applied { .. }), "{outcome:?}");
    }
    assert_eq!(scene.reloads.status().borrow().applied, 1001);
    scene.until("all tasks have ended", |_| tasks() <= before.1).await;
    // Other tests of this process open and close files too, but not hundreds.
    let now = descriptors();
    assert!(now < before.0 + 200, "{} descriptors, now {now}", before.0);
}

#[tokio::test]
async fn the_task_ends_with_its_last_handle() {
    let scene = Scene::start("weights 90 10");
    drop(scene.reloads);
    tokio::time::timeout(PATIENCE, scene.task).await.expect("still running").unwrap();
}

#[tokio::test]
async fn events_tell_what_happened() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let theirs = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Lines(theirs.clone())).finish();
    // With a single dispatcher tracing asks the thread that comes by first, another test's, whether anybody listens.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let scene = Scene::start("weights 90 10");
    scene.reload("weights 50 50").await;
    scene.reload("rubbish").await;
    let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    let line = |event: &str| text.lines().find(|l| l.contains(event)).unwrap_or_else(|| panic!("no {event} in {text}"));
    assert!(line("\"reloaded\"").contains("by=\"local:alice\""), "{text}");
    assert!(line("config-rejected").contains("ERROR") && text.contains("what is \"rubbish\"?"), "{text}");
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
