//! Commands as real processes: every way they end, what they print, and that nobody of them is left.

// A helper of a test fails it by panicking, as the test itself does; clippy knows only the latter.
#![allow(clippy::unwrap_used)]

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use super::command::{LIMIT, ask};
use super::testing::{check, question};
use super::{Answer, Finding, look};
use crate::config::CheckKind;
use crate::model::Instant;

const SHORT: Duration = Duration::from_millis(300);

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|w| (*w).to_owned()).collect()
}

/// A shell as the operator's program; the script's `$0` is `-`.
fn sh(script: &str, more: &[&str]) -> Vec<String> {
    [&["/bin/sh", "-c", script, "-"], more].concat().iter().map(|w| (*w).to_owned()).collect()
}

async fn answer(words: &[String], endpoints: &[&str]) -> Answer {
    ask(words, &question(endpoints), LIMIT).await.0
}

#[tokio::test]
async fn the_exit_decides_and_the_output_is_told() {
    for (script, expected) in [
        ("exit 0", Answer::Pass("exit 0".into())),
        ("echo all; echo well >&2", Answer::Pass("exit 0: all well".into())),
        ("exit 75", Answer::Wait("exit 75".into())),
        ("echo warming up; exit 75", Answer::Wait("exit 75: warming up".into())),
        ("exit 1", Answer::Fail("exit 1".into())),
        ("echo 'a\u{1b}[31mb' >&2; exit 255", Answer::Fail("exit 255: a[31mb".into())),
        ("no-such-program 2>/dev/null", Answer::Fail("exit 127".into())),
        ("kill -9 $$", Answer::Error("killed by signal 9".into())),
        ("read x; exit $?", Answer::Fail("exit 1".into())),
    ] {
        assert_eq!(answer(&sh(script, &[]), &[]).await, expected, "{script}");
    }
}

#[tokio::test]
async fn what_cannot_be_started_is_no_failure_of_the_version() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("smoke.sh");
    std::fs::write(&file, "exit 0").unwrap();
    for (program, expected) in [
        ("/nowhere/smoke", "\"/nowhere/smoke\" cannot be started: No such file or directory"),
        (file.to_str().unwrap(), "is it executable for weir's user?"),
        ("a\0b", "cannot be started: "),
    ] {
        let Answer::Error(why) = answer(&words(&[program]), &[]).await else { panic!("{program:?}") };
        assert!(why.contains(expected), "{why}");
    }
}

#[tokio::test]
async fn names_are_filled_in_without_a_shell_and_are_in_the_environment() {
    let script = r#"echo "$1 $2 $WEIR_SPLIT $WEIR_TO $WEIR_STABLE ${WEIR_ENDPOINT-unset} ${PATH:+path}""#;
    let found = answer(&sh(script, &["{to}<{stable}", "{split};$(id)"]), &["10.0.0.1:80"]).await;
    assert_eq!(found, Answer::Pass("exit 0: v2<v1 shop;$(id) shop v2 v1 unset path".into()));
    let found = answer(&sh("echo $1 $WEIR_ENDPOINT", &["http://{endpoint}/"]), &["10.0.0.1:80"]).await;
    assert_eq!(found, Answer::Pass("exit 0: http://10.0.0.1:80/ 10.0.0.1:80".into()).prefixed("10.0.0.1:80: "));
}

impl Answer {
    fn prefixed(self, with: &str) -> Self {
        let Self::Pass(text) = self else { panic!("{self:?}") };
        Self::Pass(format!("{with}{text}"))
    }
}

#[tokio::test]
async fn every_endpoint_is_asked_about_until_one_fails() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("echo $1 >> {}/asked; echo about $1; exit ${{1#*:}}", dir.path().display());
    let script = sh(&script, &["{endpoint}"]);
    for (endpoints, expected, asked) in [
        (&["a:0", "b:0"][..], Answer::Pass("exit 0 for each of 2 endpoints".into()), 2),
        (&["a:0", "b:75", "c:0"], Answer::Wait("b:75: exit 75: about b:75".into()), 3),
        (&["a:75", "b:1", "c:0"], Answer::Fail("b:1: exit 1: about b:1".into()), 2),
        (&[], Answer::Error("v2 has no endpoint to be asked about".into()), 0),
    ] {
        let _ = std::fs::remove_file(dir.path().join("asked"));
        assert_eq!(answer(&script, endpoints).await, expected);
        let found = std::fs::read_to_string(dir.path().join("asked")).unwrap_or_default();
        assert_eq!(found.lines().count(), asked, "{found}");
    }
    let script = sh("[ $1 = a ] && kill -9 $$; exit 1", &["{endpoint}"]);
    assert_eq!(answer(&script, &["a", "b"]).await, Answer::Fail("b: exit 1".into()), "a failure outweighs an error");
}

#[tokio::test]
async fn a_flood_is_read_and_its_beginning_kept() {
    let flood = sh("yes flood | head -c 3000000; echo the end >&2; exit 3", &[]);
    let Finding { answer, value, output } = look(&check(CheckKind::Command(flood)), &question(&[])).await;
    assert!(matches!(&answer, Answer::Fail(text) if text.starts_with("exit 3: flood flood")), "{answer:?}");
    assert_eq!(answer.text().chars().count(), "exit 3: ".len() + 300);
    let output = output.unwrap();
    assert_eq!((output.len(), output.trim_start_matches("flood\n"), value), (4096, "floo", None));
}

#[tokio::test]
async fn at_the_limit_the_command_is_killed_with_its_grandchildren() {
    let dir = tempfile::tempdir().unwrap();
    for script in
        ["(sleep 1000 & echo $! >> pids; wait) & echo $! >> pids; echo hanging; wait", "yes & echo $! >> pids; wait"]
    {
        let script = format!("cd {}; echo $$ > pids; {script}", dir.path().display());
        let (answer, output) = ask(&sh(&script, &[]), &question(&[]), SHORT).await;
        let Answer::Error(why) = answer else { panic!("{answer:?}") };
        assert!(why.starts_with("not done within 300ms; killed with its children"), "{why}");
        assert!(!output.unwrap().is_empty());
        gone(&pids(dir.path(), 2).await).await;
    }
}

#[tokio::test]
async fn the_limit_is_one_for_all_endpoints() {
    let (answer, _) = ask(&sh("[ $1 = a ] || sleep 1000", &["{endpoint}"]), &question(&["a", "b", "c"]), SHORT).await;
    let expected = "b: all 3 endpoints together were not done within 300ms (1 were); killed with its children";
    assert_eq!(answer, Answer::Error(expected.into()));
}

#[tokio::test]
async fn who_is_given_up_is_killed_with_its_grandchildren_and_reaped() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        format!("cd {}; (sleep 1000 & echo $! >> pids; wait) & echo $! $$ >> pids; wait", dir.path().display());
    let asked = tokio::spawn(async move { ask(&sh(&script, &[]), &question(&[]), LIMIT).await });
    let all = pids(dir.path(), 3).await;
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    gone(&all).await;
    // The leader is our child: only we can reap it.
    let leader = *all.last().unwrap();
    until("the leader is reaped", || !all.is_empty() && !Path::new(&format!("/proc/{leader}")).exists()).await;
}

#[tokio::test]
async fn what_is_left_behind_neither_delays_the_answer_nor_outlives_it() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("cd {}; sleep 1000 & echo $! > pids; echo done", dir.path().display());
    let began = Instant::now();
    assert_eq!(answer(&sh(&script, &[]), &[]).await, Answer::Pass("exit 0: done".into()));
    assert!(began.elapsed() < LIMIT / 2);
    gone(&pids(dir.path(), 1).await).await;
}

#[tokio::test]
async fn none_of_our_descriptors_is_inherited() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::net::UnixStream::pair().unwrap();
    let shown = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap().display().to_string();
    let ours = [listener.as_raw_fd(), near.as_raw_fd(), far.as_raw_fd()].map(shown);
    let (answer, output) = ask(&words(&["/bin/ls", "-l", "/proc/self/fd"]), &question(&[]), LIMIT).await;
    assert!(matches!(answer, Answer::Pass(_)), "{answer:?}");
    let output = output.unwrap();
    assert!(output.contains(" 0 -> /dev/null\n") && output.contains(" 2 -> pipe:"), "{output}");
    assert!(ours.iter().all(|ours| ours.starts_with("socket:") && !output.contains(ours)), "{ours:?} {output}");
}

/// The processes that a script has written down; waits for so many.
async fn pids(dir: &Path, count: usize) -> Vec<i32> {
    let read = || -> Vec<i32> {
        let text = std::fs::read_to_string(dir.join("pids")).unwrap_or_default();
        let whole = if text.ends_with('\n') { text.as_str() } else { "" };
        whole.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    };
    until("they have started", || read().len() >= count).await;
    read()
}

/// Dead, though perhaps not yet reaped by whoever has inherited them.
async fn gone(pids: &[i32]) {
    let is_gone = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    };
    until("they are gone", || pids.iter().all(is_gone)).await;
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let ends = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < ends, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
