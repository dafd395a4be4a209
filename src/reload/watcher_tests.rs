//! Real files, changed in every way operators and their tools do it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::config;

/// Above all that is promised, so that a busy machine does not fail the test.
const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    dir: TempDir,
    loads: UnboundedReceiver<LoadedConfig>,
    count: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Scene {
    /// Watches `weir.toml` in a folder that `lay` has laid out.
    async fn start(lay: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path());
        let (count, main) = (Arc::new(AtomicUsize::new(0)), dir.path().join("weir.toml"));
        let counted = count.clone();
        let load: Loader = Arc::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            load(&main)
        });
        let (handle, loads) = ReloadHandle::fake(running(true));
        let started = load();
        let task = tokio::spawn(async move { watch(load, &started, handle).await });
        let mut scene = Self { dir, loads, count, task };
        scene.next().await.expect("the first load");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The text of the next load that is handed on (`Err`: the loader could not read it).
    async fn next(&mut self) -> Result<String, String> {
        let loaded = timeout(PATIENCE, self.loads.recv()).await.expect("no load came").unwrap();
        loaded.config.map(|_| loaded.warnings[0].clone())
    }

    /// Waits for the load that gives this text, whatever comes before; how many loads it took.
    async fn until(&mut self, text: &str) -> usize {
        for n in 1.. {
            if self.next().await.as_deref() == Ok(text) {
                return n;
            }
        }
        unreachable!()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads `weir.toml` and, if it says `include`, all of `conf.d`; the text goes where a test finds it.
fn load(main: &Path) -> LoadedConfig {
    let folder = main.parent().unwrap().join("conf.d");
    let mut files = vec![main.to_owned()];
    let mut folders = Vec::new();
    let mut text = fs::read_to_string(main).map_err(|e| e.to_string());
    if let Ok(text) = &mut text
        && text.contains("include")
    {
        let mut more: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        more.sort();
        more.iter().for_each(|f| text.push_str(&fs::read_to_string(f).unwrap_or_default()));
        files.extend(more);
        folders.push(folder);
    }
    if text.as_ref().is_ok_and(|text| text.is_empty() || text.ends_with("torn")) {
        text = Err("half a file".to_owned());
    }
    let digest = Sha256::digest(text.clone().unwrap_or_default()).into();
    let warnings = vec![text.clone().unwrap_or_default()];
    let config = text.map(|_| running(true));
    LoadedConfig { config, diagnostics: json!([]), warnings, files, folders, digest, explain: None }
}

fn running(watch: bool) -> Arc<config::Config> {
    let level = config::Level::Info;
    Arc::new(config::Config {
        workers: 1,
        watch,
        shutdown: config::Shutdown { delay: Duration::ZERO, timeout: Duration::from_secs(25) },
        listeners: Vec::new(),
        routes: Vec::new(),
        splits: Vec::new(),
        dns: config::Dns::default(),
        admin: config::Admin { bind: ([127, 0, 0, 1], 0).into(), hosts: Vec::new(), state_dir: "/nonexistent".into() },
        telemetry: config::Telemetry {
            bind: None,
            log: config::Log { level, format: config::LogFormat::Json, access: false, sample: 1.0 },
        },
        notify: Vec::new(),
    })
}

fn plain(text: &'static str) -> impl FnOnce(&Path) {
    move |dir| fs::write(dir.join("weir.toml"), text).unwrap()
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, path).unwrap();
}

#[tokio::test]
async fn every_way_to_write_a_file_is_noticed_at_once() {
    let mut scene = Scene::start(plain("0")).await;
    let file = scene.path("weir.toml");
    for i in 0..30 {
        let (text, begun) = (format!("edit {i}"), Instant::now());
        match i % 3 {
            0 => replace(&file, &text),
            1 => fs::write(&file, &text).unwrap(),
            _ => {
                fs::remove_file(&file).unwrap();
                fs::write(&file, &text).unwrap();
            }
        }
        assert_eq!(scene.next().await.as_deref(), Ok(&*text));
        assert!(begun.elapsed() < COMPARE, "found only by comparison: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_config_map_swap_is_noticed_again_and_again() {
    let version = |dir: &Path, n: usize| {
        let folder = dir.join(format!("..v{n}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("weir.toml"), format!("version {n}")).unwrap();
        symlink(format!("..v{n}"), dir.join("..tmp")).unwrap();
        fs::rename(dir.join("..tmp"), dir.join("..data")).unwrap();
    };
    let mut scene = Scene::start(|dir| {
        version(dir, 0);
        symlink("..data/weir.toml", dir.join("weir.toml")).unwrap();
    })
    .await;
    for n in 1..20 {
        let begun = Instant::now();
        version(scene.dir.path(), n);
        fs::remove_dir_all(scene.path(&format!("..v{}", n - 1))).unwrap();
        assert_eq!(scene.next().await, Ok(format!("version {n}")));
        assert!(begun.elapsed() < COMPARE, "found only by comparison");
    }
}

#[tokio::test]
async fn a_file_written_in_pieces_is_taken_whole() {
    let mut scene = Scene::start(plain("0")).await;
    let mut file = File::create(scene.path("weir.toml")).unwrap();
    for piece in ["one ", "two ", "three"] {
        file.write_all(piece.as_bytes()).unwrap();
        sleep(Duration::from_millis(40)).await;
    }
    assert_eq!(scene.next().await.as_deref(), Ok("one two three"));
}

#[tokio::test]
async fn a_storm_is_taken_in_few_loads_and_the_last_wins() {
    let mut scene = Scene::start(plain("0")).await;
    let (file, begun) = (scene.path("weir.toml"), Instant::now());
    let before = scene.count.load(Ordering::SeqCst);
    for i in 0..=300 {
        fs::write(&file, format!("storm {i}")).unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    let handed_on = scene.until("storm 300").await;
    let (seconds, loads) = (begun.elapsed().as_secs() as usize, scene.count.load(Ordering::SeqCst) - before);
    assert!(handed_on >= 2, "a file that never rests is taken all the same");
    assert!(loads <= 2 * seconds + 4, "{loads} loads in {seconds} s");
}

#[tokio::test]
async fn half_a_file_of_a_writer_that_never_rests_is_not_told_as_an_error() {
    let mut scene = Scene::start(plain("0")).await;
    let (file, begun) = (scene.path("weir.toml"), Instant::now());
    let rest = Arc::new(AtomicUsize::new(0));
    let longest_rest = rest.clone();
    let writer = tokio::spawn(async move {
        for i in 0.. {
            let mut file = File::create(&file).unwrap();
            file.write_all(format!("{i} torn").as_bytes()).unwrap();
            let torn_at = Instant::now();
            sleep(Duration::from_millis(7)).await;
            file.write_all(b" end").unwrap();
            longest_rest.fetch_max(torn_at.elapsed().as_millis() as usize, Ordering::SeqCst);
            sleep(Duration::from_millis(7)).await;
        }
    });
    for _ in 0..3 {
        let next = scene.next().await;
        let whole = next.as_ref().is_ok_and(|text| text.ends_with("end"));
        // On a busy machine the writer itself may be held up for so long that its half file does rest; it says so with
        // its next step.
        let rested = async {
            while (rest.load(Ordering::SeqCst) as u128) + 20 < AGREE.as_millis() {
                sleep(Duration::from_millis(7)).await;
            }
        };
        assert!(
            whole || timeout(PATIENCE, rested).await.is_ok(),
            "{next:?} told after {:?} although it rested for {rest:?} ms at most",
            begun.elapsed()
        );
    }
    writer.abort();
    assert!(begun.elapsed() > Duration::from_secs(2), "a load each second at most");
}

#[tokio::test]
async fn the_same_content_is_no_change() {
    let mut scene = Scene::start(plain("same")).await;
    let file = scene.path("weir.toml");
    let before = scene.count.load(Ordering::SeqCst);
    for _ in 0..5 {
        replace(&file, "same");
        fs::write(&file, "same").unwrap();
        sleep(Duration::from_millis(30)).await;
    }
    replace(&file, "other");
    assert_eq!(scene.next().await.as_deref(), Ok("other"), "and nothing before it");
    assert_eq!(scene.count.load(Ordering::SeqCst) - before, 1);
}

#[tokio::test]
async fn a_file_that_goes_is_told_once_and_comes_back() {
    let mut scene = Scene::start(plain("here")).await;
    let file = scene.path("weir.toml");
    fs::remove_file(&file).unwrap();
    assert!(scene.next().await.is_err());
    let more = timeout(COMPARE + Duration::from_millis(500), scene.loads.recv()).await;
    assert!(more.is_err(), "told twice");
    fs::write(&file, "here").unwrap();
    assert_eq!(scene.next().await.as_deref(), Ok("here"));
}

#[tokio::test]
async fn included_files_count_also_new_ones_and_those_that_leave() {
    let mut scene = Scene::start(|dir| {
        fs::create_dir(dir.join("conf.d")).unwrap();
        fs::write(dir.join("weir.toml"), "include ").unwrap();
    })
    .await;
    fs::write(scene.path("conf.d/a.toml"), "a1 ").unwrap();
    assert_eq!(scene.next().await.as_deref(), Ok("include a1 "));
    fs::write(scene.path("conf.d/b.toml"), "b1 ").unwrap();
    assert_eq!(scene.next().await.as_deref(), Ok("include a1 b1 "));
    OpenOptions::new().append(true).open(scene.path("conf.d/a.toml")).unwrap().write_all(b"a2 ").unwrap();
    assert_eq!(scene.next().await.as_deref(), Ok("include a1 a2 b1 "));
    fs::remove_file(scene.path("conf.d/a.toml")).unwrap();
    assert_eq!(scene.next().await.as_deref(), Ok("include b1 "));
}

#[tokio::test]
async fn a_change_that_gives_no_notice_is_found_by_comparison() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weir.toml");
    fs::write(&file, "0").unwrap();
    let theirs = file.clone();
    let load: Loader = Arc::new(move || load(&theirs));
    let watched = Watched { eyes: Eyes::blind(), load, files: vec![file.clone()], folders: Vec::new() };
    let (handle, mut loads) = ReloadHandle::fake(running(true));
    let task = tokio::spawn(async move { keep_watch(watched, &Notify::new(), &handle).await });
    for text in ["0", "1", "2"] {
        fs::write(&file, text).unwrap();
        let loaded = timeout(PATIENCE, loads.recv()).await.expect("not found").unwrap();
        assert_eq!(loaded.warnings, [text]);
    }
    task.abort();
}

#[tokio::test]
async fn nothing_is_watched_while_the_configuration_says_so() {
    let (handle, mut loads) = ReloadHandle::fake(running(false));
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("weir.toml");
    fs::write(&main, "0").unwrap();
    let (started, theirs) = (load(&main), main.clone());
    let task = tokio::spawn(async move { watch(Arc::new(move || load(&theirs)), &started, handle).await });
    fs::write(&main, "1").unwrap();
    assert!(timeout(Duration::from_millis(500), loads.recv()).await.is_err());
    task.abort();
}
