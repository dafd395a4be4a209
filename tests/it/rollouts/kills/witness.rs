//! What the origins have seen, by the time: the truth that a receipt is held against.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde_json::Value;

/// Requests that may be on their way at an instant, and those that come within the witness' own two looks.
const SLACK: u64 = 40;

type Counter = Box<dyn Fn() -> usize + Send>;
/// When, and what each version had seen by then.
type Look = (SystemTime, [usize; 2]);

/// See the file's head. It looks until it is dropped.
pub(super) struct Witness {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Look>>>,
}

impl Witness {
    pub(super) fn of(counters: [Counter; 2]) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let theirs = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !theirs.load(Ordering::SeqCst) {
                let counts = counters.each_ref().map(|counter| counter());
                seen.push((SystemTime::now(), counts));
                std::thread::sleep(Duration::from_millis(2));
            }
            seen
        });
        Self { stop, thread: Some(thread) }
    }

    /// Each version's sum is what its origin has seen between start and end, but for the gaps. What is missing.
    pub(super) fn agrees(mut self, receipt: &Value, killed: SystemTime, is_past: bool) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let seen = self.thread.take().unwrap().join().unwrap();
        // What it had seen by then at least, and at most: it may not have looked for a while itself.
        let least = |version: usize, at: SystemTime| {
            let place = seen.partition_point(|(when, _)| *when <= at);
            seen[place.saturating_sub(1)].1[version] as u64
        };
        let most = |version: usize, at: SystemTime| {
            let place = seen.partition_point(|(when, _)| *when < at).min(seen.len() - 1);
            seen[place].1[version] as u64
        };
        // Counting begins somewhere between these two.
        let (began, begun) = (at_of(&receipt["started_at"]), at_of(&receipt["log"][0]["at"]));
        // What its last coin, which stays in force, brings until it is closed is in it too.
        let (over, closed) = (ended(receipt), at_of(&receipt["ended_at"]));
        let gaps = receipt["gaps"].as_array().cloned().unwrap_or_default();
        for gap in &gaps {
            let (from, until) = (at_of(&gap["from"]), at_of(&gap["until"]));
            // Written in whole milliseconds.
            let killed = killed - Duration::from_millis(2);
            assert!(from <= killed + Duration::from_millis(4) && until >= killed, "{gap}, killed {killed:?}");
        }
        assert!(!is_past || gaps.is_empty(), "{gaps:?}");
        let mut missing = 0;
        for (n, version) in ["v1", "v2"].into_iter().enumerate() {
            let (at_least, at_most) =
                (least(n, over).saturating_sub(most(n, begun)), most(n, closed).saturating_sub(least(n, began)));
            let of_gap = |gap: &Value| most(n, at_of(&gap["until"])).saturating_sub(least(n, at_of(&gap["from"])));
            let lost: u64 = gaps.iter().map(of_gap).sum();
            let counted = total(receipt, version);
            assert!(counted <= at_most + SLACK, "{version}: {counted} counted of {at_most}: {receipt:#}");
            assert!(
                counted + lost + SLACK >= at_least,
                "{version}: {counted} counted of {at_least}, at most {lost} in gaps: {receipt:#}"
            );
            missing += at_least.saturating_sub(counted);
        }
        missing
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// When its last coin was taken back.
fn ended(receipt: &Value) -> SystemTime {
    let log = receipt["log"].as_array().unwrap();
    at_of(&log.iter().rfind(|entry| entry["event"] == "ended").unwrap_or_else(|| panic!("{receipt:#}"))["at"])
}

/// Requests of a version in a receipt.
pub(super) fn total(receipt: &Value, version: &str) -> u64 {
    let of = |total: &&Value| total["version"] == version;
    receipt["totals"].as_array().into_iter().flatten().find(of).map_or(0, |total| total["requests"].as_u64().unwrap())
}

/// RFC 3339 in UTC with milliseconds, which the standard library does not read.
pub(super) fn at_of(text: &Value) -> SystemTime {
    let text = text.as_str().unwrap_or_else(|| panic!("no time: {text}"));
    let (whole, ms) = text.strip_suffix('Z').and_then(|text| text.split_once('.')).unwrap_or_else(|| panic!("{text}"));
    let (date, time) = whole.split_once('T').unwrap();
    let seconds = time.split(':').fold(0, |sum, part| 60 * sum + part.parse::<u64>().unwrap());
    SystemTime::UNIX_EPOCH
        + Duration::from_secs(86_400 * days(date) + seconds)
        + Duration::from_millis(ms.parse().unwrap())
}

/// Since 1970.
fn days(date: &str) -> u64 {
    let [year, month, day] = [0, 1, 2].map(|n| date.split('-').nth(n).unwrap().parse::<u64>().unwrap());
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    years + lengths[..month as usize - 1].iter().sum::<u64>() + day - 1
}
