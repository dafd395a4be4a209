//! What a start makes of damaged, torn and missing files: the old state or the new one, never a mix, never a panic.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::testing::*;
use super::*;
use crate::model::Revision;

const FILE: [(&str, u32); 2] = [("v1", 90), ("v2", 10)];

/// Two generations: before (revision 2, `v1 1, v2 1`) and after (revision 3, `v1 100, v2 0`, `v2` drained, held).
fn two_generations(dir: &Path) {
    let store = open(shop(dir, &FILE));
    done(&store, drain("v2", None));
    done(&store, shift(&[("v1", 1), ("v2", 1)]));
    done(&store, rollback(None));
}

fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap().map(|f| f.unwrap()) {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Weights, whether held, whether `v2` drains.
fn seen(store: &Store) -> (String, bool, bool) {
    let split = store.snapshot().split("shop").unwrap().clone();
    (split.weights.to_string(), split.is_held(), split.versions[1].draining)
}

fn old() -> (String, bool, bool) {
    ("v1 1, v2 1".into(), false, true)
}

fn new() -> (String, bool, bool) {
    ("v1 100, v2 0".into(), true, true)
}

/// Opens a copy of `origin` with `state.json` replaced.
fn open_with_state(origin: &Path, state: &[u8]) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    copy(origin, dir.path());
    fs::write(dir.path().join("state.json"), state).unwrap();
    let store = open(shop(dir.path(), &FILE));
    (dir, store)
}

#[test]
fn a_state_torn_or_damaged_at_any_byte_gives_the_generation_before() {
    let origin = tempfile::tempdir().unwrap();
    two_generations(origin.path());
    let whole = fs::read(origin.path().join("state.json")).unwrap();
    assert_eq!(seen(&open_with_state(origin.path(), &whole).1), new());
    let padding = whole.iter().rposition(|b| *b == b'}').unwrap() + 1;
    for i in (0..padding).chain([padding + 1, whole.len() - 2, whole.len() - 1]) {
        let mut flipped = whole.clone();
        flipped[i] ^= 1 << (i % 8);
        let (dir, store) = open_with_state(origin.path(), if i % 2 == 0 { &whole[..i] } else { &flipped });
        assert_eq!((seen(&store), store.snapshot().revision), (old(), Revision(4)), "byte {i}");
        let aside = fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
        assert_eq!(aside.filter(|n| n.starts_with("state.json.corrupt-")).count(), 1);
    }
}

#[test]
fn a_crash_between_the_renames_loses_nothing() {
    let origin = tempfile::tempdir().unwrap();
    two_generations(origin.path());
    fs::rename(origin.path().join("state.json"), origin.path().join("state.json.prev")).unwrap();
    fs::write(origin.path().join("state.json.tmp"), "half").unwrap();
    let store = open(shop(origin.path(), &FILE));
    assert_eq!(seen(&store), new());
    assert_eq!(done(&store, release()).snapshot.revision, Revision(5));
}

#[test]
fn with_both_generations_damaged_the_file_counts_and_revisions_go_on() {
    let dir = tempfile::tempdir().unwrap();
    two_generations(dir.path());
    for name in ["state.json", "state.json.prev"] {
        fs::write(dir.path().join(name), "{}").unwrap();
    }
    let store = open(shop(dir.path(), &FILE));
    assert_eq!(seen(&store), ("v1 90, v2 10".into(), false, false));
    assert_eq!(store.snapshot().revision, Revision(5), "no revision is given twice");
    drop(store);
    assert_eq!(open(shop(dir.path(), &FILE)).snapshot().revision, Revision(5));
}

#[test]
fn a_recovered_state_is_written_at_once_and_keeps_a_generation() {
    let dir = tempfile::tempdir().unwrap();
    two_generations(dir.path());
    fs::write(dir.path().join("state.json"), "").unwrap();
    drop(open(shop(dir.path(), &FILE)));
    for name in ["state.json", "state.json.prev"] {
        assert!(super::format::decode(&fs::read(dir.path().join(name)).unwrap()).is_ok(), "{name}");
    }
}

fn whole_lines(path: &Path) -> usize {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|l| serde_json::from_str::<HistoryEntry>(l).is_ok()).count()
}

#[test]
fn history_lost_in_a_crash_is_appended_again() {
    let dir = tempfile::tempdir().unwrap();
    two_generations(dir.path());
    let path = dir.path().join("history.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let kinds = |store: &Store| store.history(None, 9, None).into_iter().map(|e| e.kind).collect::<Vec<_>>();
    for cut in (0..=text.len()).rev() {
        fs::write(&path, &text[..cut]).unwrap();
        let store = open(shop(dir.path(), &FILE));
        assert_eq!(kinds(&store), ["rollback", "weights", "drain", "reload"], "cut at {cut}");
        assert_eq!(whole_lines(&path), 4, "cut at {cut}");
    }
    fs::write(&path, b"\xff\xfe\n{\"a\":1}\n").unwrap();
    assert_eq!(kinds(&open(shop(dir.path(), &FILE))).len(), 4);
    fs::write(&path, text.trim_end()).unwrap();
    done(&open(shop(dir.path(), &FILE)), release());
    assert_eq!(whole_lines(&path), 5, "nothing is glued to a line without an end");
}

#[test]
fn a_long_history_is_made_shorter_and_memory_keeps_a_thousand() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(shop(dir.path(), &FILE)));
    let path = dir.path().join("history.jsonl");
    let first: HistoryEntry = serde_json::from_str(fs::read_to_string(&path).unwrap().trim()).unwrap();
    let entry = |n| serde_json::to_string(&HistoryEntry { revision: Revision(n), ..first.clone() }).unwrap();
    fs::write(&path, (1..=10_001).map(|n| entry(n) + "\n").collect::<String>()).unwrap();
    let store = open(shop(dir.path(), &FILE));
    assert_eq!(store.history(None, usize::MAX, None).len(), 1000);
    assert_eq!(store.history(None, 2, Some(10_000))[0].revision, Revision(9999));
    assert!(store.retry_persist());
    let lines: Vec<_> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    assert_eq!((lines.len(), &lines[4999]), (5000, &entry(10_001)));
}

#[test]
fn a_directory_in_the_place_of_the_state_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("state.json")).unwrap();
    let store = open(shop(dir.path(), &FILE));
    assert!(store.snapshot().persisted);
    assert!(dir.path().join("state.json").is_file());
}

/// Says in the child which directory it is to change until it is killed.
const CHILD: &str = "WEIR_STATE_TEST_CHILD";

/// Shifts forever, each time so that the weight of `v1` is the revision, and says what was acknowledged.
fn change_until_killed(dir: &Path) {
    let store = open(shop(dir, &FILE));
    loop {
        let next = u32::try_from(store.snapshot().revision.0).unwrap() + 1;
        assert_eq!(done(&store, shift(&[("v1", next), ("v2", 1)])).snapshot.revision, Revision(next.into()));
        println!("ack {next}");
    }
}

#[test]
fn what_was_acknowledged_before_kill_9_is_found_again() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return change_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "state::damage_tests::what_was_acknowledged_before_kill_9_is_found_again";
    for _ in 0..20 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(CHILD, dir.path()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut acks = lines.filter_map(|l| l.split_once("ack ").and_then(|(_, n)| n.parse::<u64>().ok()));
        acks.nth(fastrand::usize(..20)).unwrap();
        child.kill().unwrap();
        let last = acks.last();
        child.wait().unwrap();
        let store = open(shop(dir.path(), &FILE));
        let now = store.snapshot().revision.0;
        assert!(last.is_none_or(|last| now == last || now == last + 1), "acknowledged {last:?}, found {now}");
        assert_eq!(seen(&store).0, format!("v1 {now}, v2 1"), "a mix");
        let revisions: Vec<_> = store.history(None, usize::MAX, None).iter().rev().map(|e| e.revision.0).collect();
        assert_eq!(revisions, (1..=now).collect::<Vec<_>>());
    }
}
