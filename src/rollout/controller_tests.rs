//! The controller with a real store: what it does when the disk refuses, the process ends, others change the split.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::testing::*;
use super::*;
use crate::config::{
    Admin, Config, Dns, Level, Log, LogFormat, OnInconclusive, Rollout, Shutdown, Split, Step, Telemetry, Version,
};
use crate::model::{Actor, Source, SplitName, Weight};
use crate::state::{Applied, ApplyError, Change, OpenOptions, Store};
use crate::telemetry::{Cells, Flusher};

/// Two steps of a minute; nothing is judged.
fn plain() -> Rollout {
    let step = |weight| Step { weight, hold: MINUTE, approve: false };
    Rollout { analysis: None, steps: vec![step(10.0), step(50.0)], ..rollout() }
}

fn shop() -> SplitName {
    SplitName::new("shop").unwrap()
}

fn file(dir: &Path, weights: [u32; 2], rollout: &Rollout) -> Arc<Config> {
    let version = |(name, weight): (&str, u32)| {
        let port = 9000 + u16::from(name.as_bytes()[1]);
        Version::new(version(name), Weight::new(weight).unwrap(), vec![([127, 0, 0, 1], port).into()])
    };
    let versions = ["v1", "v2"].into_iter().zip(weights).map(version).collect();
    let mut split = Split::new(shop(), super::testing::version("v1"), versions);
    split.rollout = Some(rollout.clone());
    Arc::new(Config {
        workers: 1,
        watch: false,
        shutdown: Shutdown { delay: Duration::ZERO, timeout: SECOND },
        listeners: Vec::new(),
        routes: Vec::new(),
        splits: vec![split],
        dns: Dns::default(),
        admin: Admin { bind: ([127, 0, 0, 1], 9901).into(), hosts: Vec::new(), state_dir: dir.to_owned() },
        telemetry: Telemetry {
            bind: None,
            log: Log { level: Level::Info, format: LogFormat::Json, access: false, sample: 0.0 },
        },
        notify: Vec::new(),
    })
}

/// A process: it ends when dropped.
struct Process {
    controller: Controller,
    store: Arc<Store>,
    desk: Desk,
    told: crate::notices::Inbox,
}

async fn process(config: &Arc<Config>) -> Process {
    let store = Arc::new(Store::open(config.clone(), Arc::default(), &OpenOptions::default()).unwrap());
    let (desk, asked, board) = Desk::new();
    let (notices, told) = crate::notices::channel();
    let cells = Arc::new(Cells::new());
    let windows = Flusher::new(cells.clone(), crate::model::Instant::now()).windows();
    let ports = Ports { store: store.clone(), cells, windows, notices };
    let mut controller = Controller::new(ports, asked, board);
    controller.take_up().await;
    Process { controller, store, desk, told }
}

impl Process {
    /// What people are told next, beginnings apart.
    fn told(&mut self) -> Option<crate::notices::Notice> {
        std::iter::from_fn(|| self.told.try_next()).find(|notice| notice.event != "rollout-started")
    }

    async fn start(&mut self) -> Result<Arc<View>, DeskError> {
        let (answer, answered) = oneshot::channel();
        let start = Start {
            to: None,
            steps: None,
            by: Actor("token:ci".into()),
            source: Source::Api,
            reason: None,
            if_match: None,
            dry_run: false,
        };
        self.controller.ask(Ask::Start { split: shop(), start, answer }).await;
        answered.await.unwrap()
    }

    async fn say(&mut self, what: What) -> Result<Arc<View>, DeskError> {
        let (answer, answered) = oneshot::channel();
        let command = Command { what, by: Actor("token:ci".into()), source: Source::Api, reason: None };
        self.controller.ask(Ask::Command { split: shop(), command, dry_run: false, answer }).await;
        answered.await.unwrap()
    }

    /// Time passes, and is looked at.
    async fn pass(&mut self, time: Duration) {
        const LOOK: Duration = Duration::from_millis(100);
        for _ in 0..time.as_millis() / LOOK.as_millis() {
            tokio::time::advance(LOOK).await;
            self.controller.catch_up().await;
            self.controller.tick().await;
            self.settle().await;
        }
    }

    /// Real time stands still for the disk.
    async fn settle(&mut self) {
        if let Some(filing) = self.controller.filing.take() {
            filing.await.unwrap();
        }
    }

    fn apply(&self, change: Change) -> Result<Applied, ApplyError> {
        self.store.apply(crate::state::Order {
            id: fastrand::u128(..),
            change,
            by: Actor("local:alice".into()),
            source: Source::Cli,
            reason: None,
            if_match: None,
            dry_run: false,
        })
    }

    fn roll_back(&self) -> Applied {
        let back = Change::Rollback { split: shop(), to: Some(version("v1")), to_revision: None, force: false };
        self.apply(back).unwrap()
    }

    fn weights(&self) -> String {
        self.store.snapshot().split("shop").unwrap().weights.to_string()
    }

    fn runs(&self) -> bool {
        let now = self.store.snapshot();
        now.split("shop").unwrap().rollout.as_ref().is_some_and(|mark| mark.running)
    }

    fn document(&self, id: &str) -> Arc<Document> {
        self.desk.receipt(id).unwrap()
    }

    fn events(&self, id: &str) -> Vec<String> {
        self.document(id).log.iter().map(|entry| entry.event.clone()).collect()
    }

    async fn kill(mut self) {
        self.settle().await;
    }
}

/// The disk refuses the state.
fn sicken(dir: &TempDir) {
    let temporary = dir.path().join("state.json.tmp");
    let _ = std::fs::remove_file(&temporary);
    std::fs::create_dir(temporary).unwrap();
}

fn heal(dir: &TempDir) {
    std::fs::remove_dir(dir.path().join("state.json.tmp")).unwrap();
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test(start_paused = true)]
async fn it_goes_from_step_to_step_and_leaves_nothing_behind() {
    let dir = dir();
    let mut weir = process(&file(dir.path(), [100, 0], &plain())).await;
    let id = weir.start().await.unwrap().id.clone();
    assert_eq!((weir.weights().as_str(), weir.runs()), ("v1 90, v2 10", true));
    weir.pass(MINUTE + SECOND).await;
    assert_eq!(weir.weights(), "v1 50, v2 50");
    weir.pass(MINUTE + 2 * SECOND).await;
    assert_eq!((weir.weights().as_str(), weir.runs()), ("v1 0, v2 100", false));
    let document = weir.document(&id);
    assert_eq!((document.state.as_str(), document.ended_at.is_some()), ("finished", true));
    assert!(weir.controller.own.is_empty() && weir.controller.runs.is_empty());
    assert_eq!(weir.told().unwrap().event, "rollout-finished");
}

/// What was ordered while the disk refused must not be done over a rollback that came meanwhile.
#[tokio::test(start_paused = true)]
async fn a_step_that_waited_for_the_disk_is_void_after_a_rollback() {
    let dir = dir();
    let mut weir = process(&file(dir.path(), [100, 0], &plain())).await;
    let id = weir.start().await.unwrap().id.clone();
    sicken(&dir);
    weir.pass(MINUTE + 5 * SECOND).await;
    assert_eq!(weir.weights(), "v1 90, v2 10", "the step waits for the disk");
    assert!(!weir.desk.view(&shop()).unwrap().persisted);
    let tries = weir.store.state_errors();
    assert!((1..=15).contains(&tries), "{tries} tries in five seconds");
    let applied = weir.roll_back();
    assert!(applied.changed && !applied.persisted, "a rollback does not wait");
    weir.pass(SECOND).await;
    heal(&dir);
    weir.pass(5 * SECOND).await;
    assert_eq!(weir.weights(), "v1 100, v2 0");
    assert!(weir.store.snapshot().split("shop").unwrap().is_held());
    assert_eq!((weir.document(&id).state.as_str(), weir.runs()), ("aborted", false));
    weir.kill().await;
    let weir = process(&file(dir.path(), [100, 0], &plain())).await;
    assert_eq!(weir.weights(), "v1 100, v2 0");
}

#[tokio::test(start_paused = true)]
async fn a_step_goes_on_when_the_disk_heals_and_an_abort_does_not_wait() {
    let dir = dir();
    let mut weir = process(&file(dir.path(), [100, 0], &plain())).await;
    sicken(&dir);
    assert!(matches!(weir.start().await, Err(DeskError::NotPersisted)));
    assert!(weir.controller.runs.is_empty() && weir.desk.documents().is_empty() && !weir.runs());
    heal(&dir);
    weir.start().await.unwrap();
    sicken(&dir);
    weir.pass(MINUTE + SECOND).await;
    heal(&dir);
    weir.pass(2 * SECOND).await;
    assert_eq!(weir.weights(), "v1 50, v2 50");
    sicken(&dir);
    let view = weir.say(What::Abort).await.unwrap();
    assert_eq!((weir.weights().as_str(), view.persisted), ("v1 100, v2 0", false));
    assert_eq!(weir.told(), None, "told once it is written down");
    heal(&dir);
    weir.pass(2 * SECOND).await;
    assert_eq!(weir.told().unwrap().event, "rolled-back");
    assert!(weir.controller.runs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn in_memory_all_works_and_says_so() {
    let dir = dir();
    let blocked = dir.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let mut weir = process(&file(&blocked.join("state"), [100, 0], &plain())).await;
    let view = weir.start().await.unwrap();
    assert!(!view.persisted);
    weir.pass(2 * MINUTE + 5 * SECOND).await;
    assert_eq!(weir.document(&view.id).state, "finished");
}

#[tokio::test(start_paused = true)]
async fn the_steps_clock_and_the_gap_survive_a_kill() {
    let dir = dir();
    let config = file(dir.path(), [100, 0], &plain());
    let mut weir = process(&config).await;
    let id = weir.start().await.unwrap().id.clone();
    weir.pass(40 * SECOND).await;
    weir.kill().await;
    let mut weir = process(&config).await;
    let view = weir.desk.view(&shop()).unwrap();
    let left = view.time_left.unwrap();
    assert!((18 * SECOND..=22 * SECOND).contains(&left), "{left:?} of the minute are left");
    assert_eq!((view.id.as_str(), view.step, view.by.0.as_str()), (id.as_str(), Some(0), "token:ci"));
    let gaps = &weir.document(&id).gaps;
    assert!(gaps.len() == 1 && gaps[0].from <= gaps[0].until, "{gaps:?}");
    weir.pass(left + SECOND).await;
    assert_eq!(weir.weights(), "v1 50, v2 50");
    let steps = weir.events(&id).iter().filter(|event| *event == "step").count();
    assert_eq!(steps, 2, "none twice: {:?}", weir.events(&id));
}

/// Whatever happened to the split between the last that was noted and the start is heard before anything is done.
#[tokio::test(start_paused = true)]
async fn what_happened_while_nobody_looked_ends_it() {
    for (is_file, state, weights) in [(true, "superseded", "v1 70, v2 30"), (false, "aborted", "v1 100, v2 0")] {
        for minutes in [0, 1] {
            let dir = dir();
            let config = file(dir.path(), [100, 0], &plain());
            let mut weir = process(&config).await;
            let id = weir.start().await.unwrap().id.clone();
            weir.pass(MINUTE * minutes + SECOND).await;
            if !is_file {
                // Killed before the controller has heard of it.
                weir.roll_back();
            }
            weir.kill().await;
            let config = if is_file { file(dir.path(), [70, 30], &plain()) } else { config };
            let mut weir = process(&config).await;
            assert!(!weir.runs(), "others may shift at once");
            weir.pass(2 * SECOND).await;
            assert_eq!((weir.document(&id).state.as_str(), weir.weights().as_str()), (state, weights));
            weir.pass(2 * MINUTE).await;
            assert_eq!(weir.weights(), weights, "it stays so");
        }
    }
}

/// Killed between an order and the word that it is done: the file wins over what would be done again.
#[tokio::test(start_paused = true)]
async fn weights_on_their_way_are_not_set_over_a_changed_file() {
    let dir = dir();
    let config = file(dir.path(), [100, 0], &plain());
    let mut weir = process(&config).await;
    let id = weir.start().await.unwrap().id.clone();
    weir.pass(SECOND).await;
    // The next step's weights are noted, and the process ends before they are set.
    let run = weir.controller.runs.get_mut(&shop()).unwrap();
    let effects = run.step(command(What::Promote { full: false }), weir.controller.clock.now());
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Do { .. })));
    assert!(weir.controller.note(&shop()).await);
    weir.kill().await;
    let again = process(&config).await;
    assert_eq!(again.weights(), "v1 50, v2 50", "without another file they are set");
    drop(again);

    let weir = process(&file(dir.path(), [70, 30], &plain())).await;
    assert_eq!((weir.weights().as_str(), weir.runs()), ("v1 70, v2 30", false));
    assert_eq!(weir.document(&id).state, "superseded");
}

#[tokio::test(start_paused = true)]
async fn its_own_rollback_is_its_own_also_after_a_kill() {
    let dir = dir();
    let config = file(dir.path(), [100, 0], &plain());
    let mut weir = process(&config).await;
    let id = weir.start().await.unwrap().id.clone();
    let back = Change::Rollback { split: shop(), to: Some(version("v1")), to_revision: None, force: false };
    let order = crate::state::Order {
        id: 1,
        change: back,
        by: Actor("analysis:errors".into()),
        source: Source::Analysis,
        reason: Some("canary 9/10".into()),
        if_match: None,
        dry_run: false,
    };
    weir.store.apply(order).unwrap();
    weir.kill().await;
    let mut weir = process(&config).await;
    weir.pass(2 * SECOND).await;
    let document = weir.document(&id);
    assert_eq!(document.ending.as_deref(), Some("analysis:errors: canary 9/10"));
    assert_eq!((document.state.as_str(), weir.told().unwrap().event.as_str()), ("failed", "rolled-back"));
    assert_eq!(weir.store.history(Some(&shop()), 9, None).iter().filter(|e| e.kind == "rollback").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn drains_neither_stop_it_nor_alarm_anybody() {
    let dir = dir();
    let mut weir = process(&file(dir.path(), [100, 0], &plain())).await;
    let id = weir.start().await.unwrap().id.clone();
    weir.pass(MINUTE - SECOND).await;
    for n in 0..20 {
        let (split, version) = (shop(), version("v2"));
        let change = match n % 2 {
            0 => Change::Drain { split, version, endpoint: None },
            _ => Change::Undrain { split, version, endpoint: None },
        };
        weir.apply(change).unwrap();
        // Not heard of before the step is due, at times.
        tokio::time::advance(Duration::from_millis(200)).await;
        weir.controller.tick().await;
    }
    weir.pass(SECOND).await;
    assert_eq!(weir.weights(), "v1 50, v2 50");
    assert!(!weir.events(&id).contains(&"stuck".to_owned()), "{:?}", weir.events(&id));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_of_what_is_rolled_back_ends_a_rollout_that_waits() {
    let dir = dir();
    let mut asks = plain();
    asks.steps[0].approve = true;
    let mut weir = process(&file(dir.path(), [100, 0], &asks)).await;
    weir.roll_back();
    let id = weir.start().await.unwrap().id.clone();
    weir.pass(SECOND).await;
    assert_eq!(weir.desk.view(&shop()).unwrap().state, State::Approval);
    weir.roll_back();
    weir.pass(SECOND).await;
    assert_eq!(weir.document(&id).state, "aborted");
    assert!(matches!(weir.say(What::Approve).await, Err(DeskError::NoRollout(_))));
}

#[tokio::test(start_paused = true)]
async fn the_next_one_need_not_wait_for_the_last_ones_receipt() {
    let dir = dir();
    let mut weir = process(&file(dir.path(), [100, 0], &plain())).await;
    let first = weir.start().await.unwrap().id.clone();
    weir.say(What::Abort).await.unwrap();
    let second = weir.start().await.unwrap().id.clone();
    assert_ne!(first, second);
    assert_eq!(weir.weights(), "v1 90, v2 10");
    assert!(weir.document(&first).ended_at.is_some());
    weir.pass(SECOND).await;
    assert_eq!(weir.desk.view(&shop()).unwrap().state, State::Running, "the first one's rollback is none of its");
}

#[tokio::test(start_paused = true)]
async fn a_split_that_leaves_and_comes_back_has_no_rollout() {
    let dir = dir();
    let config = file(dir.path(), [100, 0], &plain());
    let mut asks = plain();
    asks.steps[0].approve = true;
    // Before its first step there is no override whose end would be told.
    for (config, weights) in [(config, "v1 100, v2 0"), (file(dir.path(), [100, 0], &asks), "v1 100, v2 0")] {
        let mut weir = process(&config).await;
        let id = weir.start().await.unwrap().id.clone();
        let without = Arc::new(Config { splits: Vec::new(), ..config.as_ref().clone() });
        weir.apply(Change::Reload { config: without }).unwrap();
        weir.apply(Change::Reload { config: config.clone() }).unwrap();
        weir.pass(SECOND).await;
        assert_eq!((weir.document(&id).state.as_str(), weir.weights().as_str()), ("superseded", weights));
        assert!(weir.controller.runs.is_empty() && !weir.runs());
        weir.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_that_fails_has_changed_nothing() {
    let dir = dir();
    let mut weir = process(&file(dir.path(), [100, 0], &plain())).await;
    let id = weir.start().await.unwrap().id.clone();
    weir.pass(MINUTE - SECOND).await;
    let (frozen, _handed) = weir.store.freeze().unwrap();
    weir.controller.park().await;
    assert!(matches!(weir.say(What::Abort).await, Err(DeskError::Store(ApplyError::Frozen))));
    assert!(matches!(weir.start().await, Err(DeskError::Store(ApplyError::Frozen))));
    weir.pass(MINUTE).await;
    assert_eq!(weir.weights(), "v1 90, v2 10");
    drop(frozen);
    weir.pass(5 * SECOND).await;
    assert_eq!(weir.weights(), "v1 50, v2 50");
    assert!(!weir.events(&id).contains(&"stuck".to_owned()), "{:?}", weir.events(&id));
}

#[tokio::test(start_paused = true)]
async fn a_receipt_is_closed_on_disk_at_last() {
    let dir = dir();
    let config = file(dir.path(), [100, 0], &plain());
    let mut weir = process(&config).await;
    let id = weir.start().await.unwrap().id.clone();
    let (folder, aside) = (dir.path().join("rollouts"), dir.path().join("aside"));
    std::fs::rename(&folder, &aside).unwrap();
    weir.say(What::Abort).await.unwrap();
    weir.pass(3 * SECOND).await;
    assert!(weir.document(&id).ended_at.is_none(), "not closed before it is on disk");
    std::fs::rename(&aside, &folder).unwrap();
    weir.pass(2 * SECOND).await;
    assert!(weir.document(&id).ended_at.is_some() && weir.controller.runs.is_empty());
    weir.kill().await;
    let weir = process(&config).await;
    let documents = weir.desk.documents();
    assert_eq!((documents.len(), documents[0].state.as_str(), documents[0].ended_at.is_some()), (1, "aborted", true));
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_taken_up_has_an_end_too() {
    let dir = dir();
    let config = file(dir.path(), [100, 0], &plain());
    let mut weir = process(&config).await;
    let id = weir.start().await.unwrap().id.clone();
    weir.pass(2 * SECOND).await;
    weir.kill().await;
    let without = Arc::new(Config { splits: Vec::new(), ..config.as_ref().clone() });
    drop(process(&without).await);
    let weir = process(&without).await;
    let document = weir.document(&id);
    assert_eq!((document.state.as_str(), document.ended_at.is_some()), ("superseded", true));
}

/// Killed in its first second: who, when and how it is judged are known.
#[tokio::test(start_paused = true)]
async fn what_it_is_judged_by_is_on_disk_from_the_start() {
    let dir = dir();
    let mut judged = Rollout { on_inconclusive: OnInconclusive::Advance, ..plain() };
    judged.analysis = rollout().analysis;
    let config = file(dir.path(), [100, 0], &judged);
    let mut weir = process(&config).await;
    let id = weir.start().await.unwrap().id.clone();
    weir.kill().await;
    let mut weir = process(&config).await;
    let document = weir.document(&id);
    assert_eq!((document.by.0.as_str(), document.gaps.len()), ("token:ci", 1));
    assert!(document.verdict.is_some());
    weir.pass(MINUTE + 2 * SECOND).await;
    assert_eq!(weir.weights(), "v1 50, v2 50");
}

/// The control thread's stack holds a few of them, unoptimized too.
#[test]
fn a_run_is_small() {
    assert!(size_of::<super::run::Run>() < 4096, "{} bytes", size_of::<super::run::Run>());
}
