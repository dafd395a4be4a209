//! `kill -9` in the middle of rollouts: it goes on where it was, or is rolled back; it never advances twice, never
//! forgets a rollback; sums in the receipt stay right.
//!
//! The instants and kinds come from a seed that is told; `WEIR_SEED` plays one again.

mod witness;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use self::witness::{Witness, at_of, total};
use super::traffic::{Actor, Manner, Visitors, conf, ended};
use crate::support::{Admin, Instant, LIMIT, Weir, free_address, tell, times, wait_until};

/// Requests per second.
const RATE: u64 = 400;
const VISITORS: usize = 8;

/// How a rollout goes if nobody kills anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Good,
    Approved,
    Bad,
    Aborted,
    RolledBack,
}

const KINDS: [Kind; 5] = [Kind::Good, Kind::Bad, Kind::Aborted, Kind::Approved, Kind::RolledBack];

/// Figures over all kills.
#[derive(Debug, Default)]
struct Sums {
    killed_before_start: usize,
    killed_running: usize,
    killed_after_end: usize,
    finished: usize,
    back: usize,
    longest_unfiled: Duration,
    missing: u64,
    counted: u64,
}

#[test]
fn at_any_instant() {
    let seed = std::env::var("WEIR_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    tell(&format!("kills: WEIR_SEED={seed}"));
    let (mut random, mut sums) = (fastrand::Rng::with_seed(seed), Sums::default());
    for n in 0..times(6, 100) {
        let kind = KINDS[n % KINDS.len()];
        let steps: Vec<u64> = (0..3).map(|_| random.u64(300..1000)).collect();
        let at = Duration::from_micros(random.u64(0..(steps.iter().sum::<u64>() + 700) * 1000));
        let hand = Duration::from_millis(random.u64(0..steps.iter().sum::<u64>()));
        eprintln!("kill {n}: {kind:?}, steps {steps:?} ms, killed {at:?} after the start, a person after {hand:?}");
        one(kind, &steps, at, hand, &mut sums);
    }
    tell(&format!("kills: {sums:?}"));
}

fn one(kind: Kind, lengths: &[u64], at: Duration, hand: Duration, sums: &mut Sums) {
    let (v1, v2) = (Actor::new("v1", Manner::default()), Actor::new("v2", Manner::default()));
    if kind == Kind::Bad {
        v2.fail(1_000_000);
    }
    let steps: Vec<String> = lengths.iter().zip([10, 50, 100]).map(|(ms, weight)| step(kind, weight, *ms)).collect();
    let plan =
        format!("steps = [{}], on_inconclusive = \"advance\", analysis = {{ warm_up = \"0s\" }}", steps.join(", "));
    let address = free_address();
    let admin = free_address();
    let mut weir = Weir::start(&conf(&v1.origin, &v2.origin, &plan).bind(address).admin_bind(admin));
    let visitors = Visitors::come(&weir, VISITORS, RATE);
    visitors.wait_for(20);
    let witness = Witness::of([&v1, &v2].map(|actor| actor.origin.counter()));
    let person = Person::act(weir.admin, kind, hand);
    let watcher = Watcher::look(weir.admin);
    until(Instant::now() + at);
    weir.kill();
    let killed = SystemTime::now();
    let before = watcher.stop();
    let filed = before.id.as_ref().and_then(|id| on_disk(&weir, id));
    weir = weir.restart();
    let Some(id) = known(weir.admin, &person) else {
        assert!(before.id.is_none(), "{before:?} is forgotten");
        sums.killed_before_start += 1;
        drop(person);
        return;
    };
    let found = as_found(weir.admin, &id);
    assert_eq!(found["id"].as_str(), Some(&*id), "{found:#}");
    assert!(before.id.is_none() || before.id.as_ref() == Some(&id), "another one than {before:?}");
    goes_on(&weir, &id, &before, &person);
    if let Some(filed) = &filed {
        remembers(&weir, &id, filed, &found);
        let unfiled = killed.duration_since(at_of(&filed["at"])).unwrap_or_default();
        if filed["document"]["ended_at"].is_null() {
            sums.longest_unfiled = sums.longest_unfiled.max(unfiled);
        }
    }
    let receipt = never_up_again(weir.admin, &id, &before);
    drop(person);
    let state = receipt["state"].as_str().unwrap();
    let fits: &[&str] = match kind {
        Kind::Good | Kind::Approved => &["finished"],
        Kind::Bad => &["failed"],
        // Too late, at times.
        Kind::Aborted | Kind::RolledBack => &["aborted", "finished"],
    };
    assert!(fits.contains(&state), "{receipt:#}");
    history_rises(weir.admin, state, lengths);
    let all = weir.admin.json("/api/v1/rollouts");
    assert_eq!(all["rollouts"].as_array().unwrap().len(), 1, "{all:#}");
    let is_past = before.receipt["ended_at"].is_string();
    if is_past {
        assert_eq!(receipt, before.receipt, "what was closed stays as it was");
    }
    let missing = witness.agrees(&receipt, killed, is_past);
    sums.missing += missing;
    sums.counted += total(&receipt, "v1") + total(&receipt, "v2");
    *(if is_past { &mut sums.killed_after_end } else { &mut sums.killed_running }) += 1;
    *(if state == "finished" { &mut sums.finished } else { &mut sums.back }) += 1;
    assert_eq!(weir.admin.weights(), if state == "finished" { (0, 100) } else { (100, 0) });
}

fn step(kind: Kind, weight: u32, ms: u64) -> String {
    let approve = kind == Kind::Approved && weight == 50;
    format!("{{ weight = {weight}, for = \"{ms}ms\", approve = {approve} }}")
}

/// The instant is the input here, not a wait.
fn until(at: Instant) {
    while Instant::now() < at {
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn on_disk(weir: &Weir, id: &str) -> Option<Value> {
    let path = weir.dir().join(format!("state/rollouts/{id}.json"));
    Some(serde_json::from_slice(&fs::read(path).ok()?).expect("a file is replaced whole"))
}

/// The rollout's id; `None` if the kill came before it was begun.
fn known(admin: Admin, person: &Person) -> Option<String> {
    let all = admin.json("/api/v1/rollouts");
    let id = all["rollouts"][0]["id"].as_str().map(str::to_owned);
    assert!(id.is_some() || !person.has_started(), "it was told that it has begun");
    id
}

/// The rollout as the restarted process knows it; of one that was closed it has the receipt alone.
fn as_found(admin: Admin, id: &str) -> Value {
    let answer = admin.get("/api/v1/splits/shop/rollout");
    if answer.status() == 200 {
        return answer.json();
    }
    let receipt = admin.json(&format!("/api/v1/rollouts/{id}/receipt"));
    assert!(receipt["ended_at"].is_string(), "{}: {receipt:#}", answer.text());
    receipt
}

/// Weight of the new version in a million.
fn share(weights: &Value) -> u64 {
    let of = |name: &str| weights[name].as_u64().unwrap();
    1_000_000 * of("v2") / (of("v1") + of("v2"))
}

/// The same step, or back, or further (by time; `history_rises` sees to it that none was left out).
fn goes_on(weir: &Weir, id: &str, before: &Seen, person: &Person) {
    let must_be_back = before.is_back || person.is_back();
    let (was, now) = (before.share, share(&weir.admin.shop()["weights"]));
    if must_be_back {
        assert_eq!(now, 0, "a rollback is forgotten");
    }
    if now < was || must_be_back {
        assert_eq!(now, 0, "neither the step nor back: {was} before");
        // What is shown may be a quarter of a second old.
        wait_until("it has ended so", || {
            let state = as_found(weir.admin, id)["state"].clone();
            state == "failed" || state == "aborted"
        });
    }
    if before.is_finished {
        assert_eq!((now, as_found(weir.admin, id)["state"].as_str()), (1_000_000, Some("finished")));
    }
}

/// What was filed last is there, to the last request.
fn remembers(weir: &Weir, id: &str, filed: &Value, found: &Value) {
    let receipt = weir.admin.json(&format!("/api/v1/rollouts/{id}/receipt"));
    for version in ["v1", "v2"] {
        let (was, now) = (total(&filed["document"], version), total(&receipt, version));
        assert!(now >= was, "{version}: {was} requests were filed, {now} are left");
    }
    let requests = |judged: &Value| judged["requests"].as_u64();
    if let Some(now) = requests(&found["judged"]["canary"]) {
        let was = filed["judged"][0]["all"].as_u64().unwrap();
        assert!(now >= was, "{was} requests were judged, {now} are left");
    }
    let ended_at = &filed["document"]["ended_at"];
    let gaps = receipt["gaps"].as_array().cloned().unwrap_or_default();
    if ended_at.is_null() {
        assert_eq!((gaps.len(), &gaps[0]["from"]), (1, &filed["at"]), "{gaps:?}");
    } else {
        assert!(gaps.len() <= 1, "{gaps:?}");
    }
}

/// To the end; whoever is back stays back. The closed receipt.
fn never_up_again(admin: Admin, id: &str, before: &Seen) -> Value {
    let (mut last, mut is_back) = (before.share, before.is_back);
    let path = format!("/api/v1/rollouts/{id}/receipt");
    let until = Instant::now() + 3 * LIMIT;
    loop {
        let receipt = admin.json(&path);
        let now = share(&admin.shop()["weights"]);
        is_back |= now < last;
        assert!(!is_back || now == 0, "up again after a rollback: {receipt:#}");
        last = now;
        if receipt["ended_at"].is_string() {
            return ended(admin, id, LIMIT);
        }
        assert!(Instant::now() < until, "it does not end: {receipt:#}");
    }
}

/// Each step once at most, in order, none left out, none shorter than planned, and nothing after a rollback.
fn history_rises(admin: Admin, state: &str, steps: &[u64]) {
    let history = admin.json("/api/v1/history?split=shop&limit=1000");
    let (mut taken, mut backs): (Vec<(u64, SystemTime)>, _) = (Vec::new(), 0);
    for entry in history["history"].as_array().unwrap().iter().rev() {
        match entry["kind"].as_str().unwrap() {
            "weights" => {
                let now = at_of(&entry["at"]);
                if let Some((_, begun)) = taken.last() {
                    let planned = Duration::from_millis(steps[taken.len() - 1]);
                    assert!(now.duration_since(*begun).unwrap() + Duration::from_millis(2) >= planned, "{history:#}");
                }
                taken.push((share(&entry["to"]), now));
                assert!(backs == 0, "{history:#}");
            }
            "promote" => assert!(backs == 0 && share(&entry["to"]) == 1_000_000, "{history:#}"),
            "rollback" => backs += 1,
            _ => {}
        }
    }
    let taken: Vec<u64> = taken.iter().map(|(share, _)| *share).collect();
    assert!([100_000, 500_000, 1_000_000].starts_with(&taken), "{taken:?}: {history:#}");
    let revisions: Vec<u64> =
        history["history"].as_array().unwrap().iter().map(|e| e["revision"].as_u64().unwrap()).collect();
    assert!(revisions.windows(2).all(|w| w[0] == w[1] + 1), "{revisions:?}");
    // A person's rollback may come on top of what is back already.
    assert!(if state == "finished" { backs == 0 } else { backs <= 2 }, "{backs} rollbacks: {history:#}");
}

/// Starts it, agrees, aborts, rolls back; once more if nobody has answered.
struct Person {
    flags: Arc<[AtomicBool; 3]>,
    thread: Option<std::thread::JoinHandle<()>>,
}

const STARTED: usize = 0;
const BACK: usize = 1;
const STOP: usize = 2;

impl Person {
    fn act(admin: Admin, kind: Kind, hand: Duration) -> Self {
        let flags: Arc<[AtomicBool; 3]> = Arc::default();
        let theirs = flags.clone();
        let thread = Some(std::thread::spawn(move || {
            let (begun, is) = (Instant::now(), |flag: usize| theirs[flag].load(Ordering::SeqCst));
            let say = |path: &str| admin.try_ask("POST", &format!("/api/v1/splits/shop/{path}"), "", Some("{}"));
            // Asked once: whether it has begun when nobody answers is for the test to see.
            if let Ok(answer) = say("rollout") {
                assert_eq!(answer.status(), 200, "{}", answer.text());
                theirs[STARTED].store(true, Ordering::SeqCst);
            }
            while !is(STOP) && !is(BACK) {
                let word = match kind {
                    Kind::Approved => "rollout/promote",
                    Kind::Aborted if begun.elapsed() >= hand => "rollout/abort",
                    Kind::RolledBack if begun.elapsed() >= hand => "rollback",
                    _ => "",
                };
                std::thread::sleep(Duration::from_millis(5));
                if word.is_empty() || (kind == Kind::Approved && !asks_for_approval(admin)) {
                    continue;
                }
                let Ok(answer) = say(word) else { continue };
                match (word, answer.status()) {
                    ("rollout/promote", _) => {}
                    // After its end a rollback would be one of the new stable version.
                    (_, 200) => theirs[BACK].store(true, Ordering::SeqCst),
                    _ => return,
                }
            }
        }));
        Self { flags, thread }
    }

    fn has_started(&self) -> bool {
        self.flags[STARTED].load(Ordering::SeqCst)
    }

    fn is_back(&self) -> bool {
        self.flags[BACK].load(Ordering::SeqCst)
    }
}

fn asks_for_approval(admin: Admin) -> bool {
    let now = admin.try_ask("GET", "/api/v1/splits/shop/rollout", "", None);
    now.is_ok_and(|answer| answer.status() == 200 && answer.json()["state"] == "approval")
}

impl Drop for Person {
    fn drop(&mut self) {
        self.flags[STOP].store(true, Ordering::SeqCst);
        if let Some(Err(panic)) = self.thread.take().map(std::thread::JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The last that could be seen of it.
#[derive(Clone, Debug, Default)]
struct Seen {
    id: Option<String>,
    share: u64,
    is_back: bool,
    is_finished: bool,
    receipt: Value,
}

/// Looks until the process is gone.
struct Watcher(std::thread::JoinHandle<Seen>);

impl Watcher {
    fn look(admin: Admin) -> Self {
        Self(std::thread::spawn(move || {
            let mut seen = Seen::default();
            let get = |path: &str| admin.try_ask("GET", path, "", None).ok().filter(|answer| answer.status() == 200);
            while let Some(shop) = get("/api/v1/splits/shop") {
                let shop = shop.json();
                seen.share = share(&shop["weights"]);
                seen.is_back |= shop["state"] == "held";
                seen.is_finished |= shop["stable"] == "v2";
                let Some(all) = get("/api/v1/rollouts") else { break };
                seen.id = all.json()["rollouts"][0]["id"].as_str().map(str::to_owned).or(seen.id);
                let path = seen.id.as_ref().map(|id| format!("/api/v1/rollouts/{id}/receipt"));
                if let Some(receipt) = path.and_then(|path| get(&path)) {
                    seen.receipt = receipt.json();
                }
            }
            seen
        }))
    }

    fn stop(self) -> Seen {
        self.0.join().unwrap()
    }
}

#[test]
fn a_rollout_that_was_over_stays_over() {
    let (v1, v2) = (Actor::new("v1", Manner::default()), Actor::new("v2", Manner::default()));
    let plan = "steps = [{ weight = 50, for = \"100ms\" }], on_inconclusive = \"advance\"";
    let weir = Weir::start(&conf(&v1.origin, &v2.origin, plan));
    let id = super::traffic::start(weir.admin);
    let receipt = ended(weir.admin, &id, LIMIT);
    let weir = weir.kill_and_restart();
    wait_until("it is known", || weir.admin.json("/api/v1/rollouts")["rollouts"][0]["id"] == *id);
    assert_eq!(weir.admin.json(&format!("/api/v1/rollouts/{id}/receipt")), receipt);
    assert_eq!(weir.admin.weights(), (0, 100));
    assert_eq!(weir.admin.shop()["stable"], "v2");
}
