//! The store from outside: orders in, snapshots, events and files out.

use std::sync::Arc;
use std::time::Duration;

use super::testing::*;
use super::*;
use crate::model::Revision;
use crate::pool::Registry;

const BOTH: [(&str, u32); 2] = [("v1", 90), ("v2", 10)];

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn reload(store: &Store, config: Arc<crate::config::Config>) -> Applied {
    apply(store, Change::Reload { config }).unwrap()
}

fn shop_of(store: &Store) -> Arc<SplitState> {
    store.snapshot().split("shop").unwrap().clone()
}

fn kinds(applied: &Applied) -> Vec<&str> {
    applied.events.iter().map(|e| e.kind.as_str()).collect()
}

#[test]
fn a_first_start_is_revision_1_and_a_second_start_is_none() {
    let dir = dir();
    let config = shop(dir.path(), &BOTH);
    for _ in 0..3 {
        let store = open(config.clone());
        let snapshot = store.snapshot();
        assert_eq!((snapshot.revision, snapshot.persisted), (Revision(1), true));
        assert_eq!(snapshot.splits[0].coin, Coin(vec![(0, w(90)), (1, w(10))]));
        assert_eq!((snapshot.splits[0].epoch, snapshot.splits[0].revision), (1, Revision(1)));
        let history = store.history(None, 10, None);
        assert_eq!((history.len(), history[0].by.0.as_str(), history[0].kind.as_str()), (1, "file", "reload"));
    }
}

fn w(n: u32) -> crate::model::Weight {
    crate::model::Weight::new(n).unwrap()
}

#[test]
fn weights_must_name_every_version_and_no_other() {
    let dir = dir();
    let store = open(shop(dir.path(), &BOTH));
    let refused = |pairs: &[(&str, u32)]| apply(&store, shift(pairs)).unwrap_err().to_string();
    assert_eq!(
        refused(&[("v1", 1)]),
        "split `shop` has v1, v2; no weight is given for v2: name every version, 0 for none"
    );
    assert_eq!(refused(&[("v1", 1), ("v9", 1)]), "split `shop` has v1, v2; not `v9`");
    assert_eq!(
        refused(&[("v1", 0), ("v2", 0)]),
        "all weights of split `shop` would be 0: at least one must be above 0"
    );
    let unknown = Change::Release { split: split_name("shpo") };
    assert_eq!(apply(&store, unknown).unwrap_err().to_string(), "there is no split `shpo`; known: shop");
    assert_eq!(store.snapshot().revision, Revision(1));
}

#[test]
fn a_shift_is_new_only_if_weights_or_hold_are() {
    let dir = dir();
    let store = open(shop(dir.path(), &BOTH));
    let as_in_file = done(&store, shift(&BOTH));
    assert!(as_in_file.snapshot.splits[0].override_.is_some(), "explicit, although the file says the same");
    assert_eq!(as_in_file.snapshot.splits[0].epoch, 1, "the coin is as it was");
    assert!(!apply(&store, shift(&[("v2", 10), ("v1", 90)])).unwrap().changed);
    let hold = Change::SetWeights { split: split_name("shop"), weights: weights(&BOTH), hold: true };
    assert!(done(&store, hold).snapshot.splits[0].is_held());
    let shifted = done(&store, shift(&[("v1", 50), ("v2", 50)]));
    assert_eq!((shifted.snapshot.splits[0].epoch, shifted.snapshot.revision), (2, Revision(4)));
    assert!(!shifted.snapshot.splits[0].is_held());
    done(&store, release());
    assert!(!apply(&store, release()).unwrap().changed);
    assert_eq!((in_force(&store).as_str(), store.snapshot().revision), ("v1 90, v2 10", Revision(5)));
}

#[test]
fn if_match_and_dry_run() {
    let dir = dir();
    let registry: Arc<Registry> = Arc::default();
    let store = open_with(shop(dir.path(), &BOTH), &registry);
    done(&store, shift(&[("v1", 1), ("v2", 1)]));
    let late = Order { if_match: Some(Revision(1)), ..order(release()) };
    assert_eq!(
        store.apply(late).unwrap_err().to_string(),
        "split `shop` is at revision 2, not 1: someone else was first"
    );
    let file = std::fs::read(dir.path().join("state.json")).unwrap();
    let other = shop(dir.path(), &[("v1", 1), ("v3", 9)]);
    for change in [release(), rollback(None), drain("v1", None), Change::Reload { config: other }] {
        let would = store.apply(Order { dry_run: true, ..order(change) }).unwrap();
        assert!(would.changed && !would.events.is_empty());
        assert_eq!((would.snapshot.revision, store.snapshot().revision), (Revision(3), Revision(2)));
        let all =
            store.snapshot().splits[0].versions.iter().flat_map(|v| v.pool.endpoints().to_vec()).collect::<Vec<_>>();
        assert!(all.iter().all(|e| !e.is_draining()));
    }
    let unknown =
        crate::pool::EndpointKey { split: split_name("shop"), version: name("v3"), address: endpoints("v3")[0].into() };
    assert!(registry.find(&unknown).is_none(), "a dry run registers nothing");
    assert_eq!(std::fs::read(dir.path().join("state.json")).unwrap(), file);
    assert_eq!(store.history(None, 10, None).len(), 2);
}

#[test]
fn a_rollback_goes_to_stable_closes_the_rest_and_holds() {
    let dir = dir();
    let config = shop(dir.path(), &[("v1", 80), ("v2", 20), ("v3", 0)]);
    let store = open(config.clone());
    let mut events = store.subscribe();
    let applied = done(&store, rollback(None));
    let split = shop_of(&store);
    assert_eq!(split.weights, weights(&[("v1", 100), ("v2", 0), ("v3", 0)]));
    assert_eq!(split.versions.iter().map(|v| v.closed).collect::<Vec<_>>(), [false, true, true]);
    assert!(split.is_held());
    assert_eq!(split.coin, Coin(vec![(0, w(100))]));
    assert_eq!(events.try_recv().unwrap(), applied.events[0]);
    assert_eq!((kinds(&applied), applied.events[0].from.clone()), (vec!["rollback"], Some(config.splits[0].weights())));
    for again in [rollback(None), rollback(Some("v1"))] {
        assert!(!apply(&store, again).unwrap().changed);
    }
    done(&store, rollback(Some("v3")));
    assert_eq!(in_force(&store), "v1 0, v2 0, v3 100");
    done(&store, shift(&[("v1", 1), ("v2", 1), ("v3", 1)]));
    assert!(shop_of(&store).versions.iter().all(|v| !v.closed), "an explicit command may always");
}

#[test]
fn where_a_rollback_goes_when_stable_has_everything() {
    let dir = dir();
    let store = open(shop(dir.path(), &[("v1", 100), ("v2", 0)]));
    let text = apply(&store, rollback(None)).unwrap_err().to_string();
    assert_eq!(text, "split `shop`: stable `v1` has everything already and no earlier stable is known; name a version");
    reload(&store, shop(dir.path(), &[("v1", 0), ("v2", 100)]));
    assert_eq!(
        (shop_of(&store).stable.clone(), shop_of(&store).previous_stable.clone()),
        (name("v2"), Some(name("v1")))
    );
    done(&store, rollback(None));
    assert_eq!(in_force(&store), "v1 100, v2 0");
    assert!(!apply(&store, rollback(None)).unwrap().changed, "a second press must not go on to the bad version");
}

#[test]
fn a_rollback_to_a_revision_restores_its_weights() {
    let dir = dir();
    let store = open(shop(dir.path(), &[("v1", 80), ("v2", 20), ("v3", 0)]));
    done(&store, shift(&[("v1", 60), ("v2", 40), ("v3", 0)]));
    done(&store, drain("v3", None));
    done(&store, shift(&[("v1", 0), ("v2", 0), ("v3", 1)]));
    done(&store, back_to(2));
    let split = shop_of(&store);
    assert_eq!(in_force(&store), "v1 60, v2 40, v3 0");
    assert!(split.is_held() && split.versions[2].closed && !split.versions[1].closed);
    assert!(!apply(&store, back_to(3)).unwrap().changed, "at the drain the weights were those of revision 2");
    assert_eq!(
        apply(&store, back_to(77)).unwrap_err().to_string(),
        "there is no revision 77 in the history of this split"
    );
    let both = Change::Rollback {
        split: split_name("shop"),
        to: Some(name("v1")),
        to_revision: Some(Revision(2)),
        force: false,
    };
    assert!(matches!(apply(&store, both), Err(ApplyError::BadWeights(_))));
    done(&store, release());
    reload(&store, shop(dir.path(), &[("v1", 80), ("v3", 0)]));
    assert_eq!(
        apply(&store, back_to(2)).unwrap_err().to_string(),
        "revision 2 gave weight to `v2`, which is no longer in the file"
    );
}

#[test]
fn a_dead_target_is_refused_unless_forced() {
    let dir = dir();
    let store = open(shop(dir.path(), &BOTH));
    done(&store, drain("v1", Some(endpoints("v1")[0])));
    done(&store, drain("v1", Some(endpoints("v1")[1])));
    assert_eq!(
        apply(&store, rollback(Some("v1"))).unwrap_err().to_string(),
        "version `v1` takes no requests: it is drained; undrain it, choose another target, or force it"
    );
    let force = Change::Rollback { split: split_name("shop"), to: Some(name("v1")), to_revision: None, force: true };
    assert_eq!(done(&store, force).snapshot.splits[0].coin, Coin::default());
}

#[test]
fn drains_of_versions_and_endpoints_survive_reload_and_restart() {
    let dir = dir();
    let config = shop(dir.path(), &[("v1", 50), ("v2", 50)]);
    let draining = |store: &Store, version: usize| -> Vec<bool> {
        shop_of(store).versions[version].pool.endpoints().iter().map(|e| e.is_draining()).collect()
    };
    {
        let store = open(config.clone());
        let before = tokio::time::Instant::now();
        done(&store, drain("v1", Some(endpoints("v1")[1])));
        let applied = done(&store, drain("v2", None));
        assert_eq!(applied.events[0].target.as_deref(), Some("v2"));
        assert_eq!(applied.snapshot.splits[0].coin, Coin(vec![(0, w(50))]));
        let left = applied.snapshot.splits[0].versions[1].pool.endpoints()[0].deadlines().unwrap().requests - before;
        assert!((30..35).contains(&left.as_secs()), "{left:?}");
        assert!(!apply(&store, drain("v2", None)).unwrap().changed);
    }
    let store = open(config);
    assert_eq!((draining(&store, 0), draining(&store, 1)), (vec![false, true], vec![true, true]));
    assert!(shop_of(&store).versions[1].draining && !shop_of(&store).versions[0].draining);
    let alone = apply(&store, undrain("v2", Some(endpoints("v2")[0]))).unwrap_err().to_string();
    let address = endpoints("v2")[0];
    assert_eq!(alone, format!("`{address}` drains because all of `v2` does; undrain `v2` instead"));
    done(&store, undrain("v2", None));
    done(&store, undrain("v1", Some(endpoints("v1")[1])));
    assert_eq!((draining(&store, 0), draining(&store, 1)), (vec![false; 2], vec![false; 2]));
    let unknown = apply(&store, drain("v1", Some(endpoints("v2")[0]))).unwrap_err().to_string();
    let known = endpoints("v1");
    assert_eq!(unknown, format!("version `v1` has no endpoint `{address}`; it has {}, {}", known[0], known[1]));
}

#[test]
fn an_endpoint_that_comes_back_drains_if_its_version_does_and_not_if_only_it_did() {
    let dir = dir();
    let whole = shop(dir.path(), &BOTH);
    let store = open(whole.clone());
    let mut less = split("shop", &BOTH);
    less.versions.iter_mut().for_each(|v| v.endpoints.truncate(1));
    done(&store, drain("v1", Some(endpoints("v1")[1])));
    done(&store, drain("v2", None));
    let old: Vec<_> = (0..2).map(|v| shop_of(&store).versions[v].pool.endpoints()[1].clone()).collect();
    reload(&store, config(dir.path(), vec![less]));
    assert!(old.iter().all(|e| e.is_draining()));
    reload(&store, whole);
    assert!(!old[0].is_draining(), "its drain left the file with it");
    assert!(old[1].is_draining(), "its version still drains");
    assert!(Arc::ptr_eq(&shop_of(&store).versions[1].pool.endpoints()[1], &old[1]));
}

#[test]
fn a_reload_touches_only_what_differs() {
    let dir = dir();
    let other = || split("blog", &[("a", 1)]);
    let store = open(config(dir.path(), vec![split("shop", &BOTH), other()]));
    let first = store.snapshot();
    let same = reload(&store, config(dir.path(), vec![split("shop", &BOTH), other()]));
    assert!(!same.changed && Arc::ptr_eq(&same.snapshot, &first));

    let moved = reload(&store, config(dir.path(), vec![other(), split("shop", &[("v1", 50), ("v2", 50)])]));
    assert_eq!((moved.snapshot.revision, kinds(&moved)), (Revision(2), vec!["reload"]));
    assert!(Arc::ptr_eq(&moved.snapshot.splits[0], &first.splits[1]), "blog is as it was");
    assert!(Arc::ptr_eq(&moved.snapshot.splits[1].versions[0].pool, &first.splits[0].versions[0].pool));
    assert_eq!(moved.snapshot.splits[1].epoch, 3);

    let mut full = split("shop", &[("v1", 50), ("v2", 50)]);
    full.pool.max_in_flight = 3;
    let limited = reload(&store, config(dir.path(), vec![other(), full.clone()]));
    let now = &limited.snapshot.splits[1];
    assert_eq!((now.epoch, now.revision, now.versions[0].pool.max_in_flight()), (3, Revision(3), 3));
    assert!(Arc::ptr_eq(&now.versions[0].pool.endpoints()[0], &first.splits[0].versions[0].pool.endpoints()[0]));

    let mut quiet = (*config(dir.path(), vec![other(), full])).clone();
    quiet.watch = true;
    let quiet = reload(&store, Arc::new(quiet));
    assert_eq!((quiet.changed, quiet.events.len(), quiet.events[0].split.clone()), (true, 1, None));
    assert!(Arc::ptr_eq(&quiet.snapshot.splits[1], now));
}

#[test]
fn what_leaves_the_file_drains_for_as_long_as_the_old_file_said() {
    let dir = dir();
    let mut brief = split("blog", &[("a", 1)]);
    (brief.drain.timeout, brief.drain.upgraded_timeout) = (Duration::from_secs(3), Duration::from_secs(7));
    let store = open(config(dir.path(), vec![split("shop", &BOTH), brief]));
    let first = store.snapshot();
    let epoch = first.splits[1].epoch;
    let applied = reload(&store, shop(dir.path(), &[("v1", 90)]));
    assert_eq!(applied.events.len(), 2);
    let left = |e: &crate::pool::Endpoint| e.deadlines().unwrap().requests - crate::model::Instant::now();
    assert!((28..=30).contains(&left(&first.splits[0].versions[1].pool.endpoints()[0]).as_secs()));
    assert!((1..=3).contains(&left(&first.splits[1].versions[0].pool.endpoints()[0]).as_secs()));
    let upgrades = first.splits[1].versions[0].pool.endpoints()[0].deadlines().unwrap().upgrades;
    assert!((5..=7).contains(&(upgrades - crate::model::Instant::now()).as_secs()));
    assert!(!first.splits[0].versions[0].pool.endpoints()[0].is_draining());
    let back = reload(&store, config(dir.path(), vec![split("shop", &[("v1", 90)]), split("blog", &[("a", 1)])]));
    assert!(back.snapshot.splits[1].epoch > epoch + 1, "an epoch is never given twice");
    assert!(!first.splits[1].versions[0].pool.endpoints()[0].is_draining());
}

#[test]
fn a_refused_reload_changes_nothing() {
    let dir = dir();
    let store = open(shop(dir.path(), &BOTH));
    done(&store, rollback(None));
    let before = store.snapshot();
    let config = config(dir.path(), vec![split("new", &[("x", 1)]), split("shop", &[("v2", 1)])]);
    let error = apply(&store, Change::Reload { config: config.clone() }).unwrap_err();
    assert!(matches!(error, ApplyError::HeldConflict(_)));
    let without = super::testing::config(dir.path(), vec![split("new", &[("x", 1)])]);
    let error = apply(&store, Change::Reload { config: without }).unwrap_err().to_string();
    assert!(error.contains("no longer has `shop`; put `shop` back"), "{error}");
    assert!(Arc::ptr_eq(&before, &store.snapshot()));
    assert!(before.splits[0].versions[0].pool.endpoints().iter().all(|e| !e.is_draining()));
    drop(store);
    let error = Store::open(config, Arc::default(), &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.starts_with("split `shop` is held at v1 100, v2 0 (by local:alice, 20"), "{error}");
    assert!(error.contains("no longer has `v1`; put `v1` back into the file, or release the hold first"), "{error}");
}

#[test]
fn two_stores_never_share_a_directory() {
    let dir = dir();
    let config = shop(dir.path(), &BOTH);
    let store = open(config.clone());
    let second = Store::open(config.clone(), Arc::default(), &OpenOptions::default());
    let Err(OpenError::Locked { holder, .. }) = second else { panic!("{second:?}") };
    assert_eq!(holder, Some(std::process::id()));
    drop(store);
    open(config);
}

#[test]
fn without_a_usable_directory_all_works_in_memory() {
    let dir = dir();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let store = open(shop(&file.join("state"), &BOTH));
    assert!(!store.snapshot().persisted);
    let applied = apply(&store, shift(&[("v1", 1), ("v2", 1)])).unwrap();
    assert!(applied.changed && !applied.persisted);
    let applied = apply(&store, rollback(None)).unwrap();
    assert!(applied.changed && !applied.persisted);
    assert!(!store.retry_persist());
    assert_eq!((in_force(&store).as_str(), store.state_errors()), ("v1 100, v2 0", 0));
}

#[test]
fn a_sick_disk_refuses_what_can_wait_and_lets_a_rollback_through() {
    let dir = dir();
    let config = shop(dir.path(), &BOTH);
    let store = open(config.clone());
    let obstacle = dir.path().join("state.json.tmp");
    std::fs::create_dir(&obstacle).unwrap();
    let pool = shop_of(&store).versions[1].pool.clone();
    for change in [shift(&[("v1", 1), ("v2", 1)]), drain("v2", None)] {
        let refused = apply(&store, change).unwrap_err();
        assert!(refused.to_string().contains("state.json: ") && refused.to_string().ends_with("nothing was changed"));
    }
    assert!(!pool.endpoints()[0].is_draining());
    assert_eq!((store.snapshot().revision, store.snapshot().persisted), (Revision(1), false));
    let mut events = store.subscribe();
    let applied = apply(&store, rollback(None)).unwrap();
    assert!(applied.changed && !applied.persisted && !applied.snapshot.persisted);
    assert_eq!((events.try_recv().unwrap().kind.as_str(), in_force(&store).as_str()), ("rollback", "v1 100, v2 0"));
    assert!(!store.retry_persist());
    assert_eq!(store.state_errors(), 4);
    std::fs::remove_dir(&obstacle).unwrap();
    assert!(store.retry_persist() && store.snapshot().persisted);
    drop(store);
    let store = open(config);
    assert_eq!((in_force(&store).as_str(), store.snapshot().revision), ("v1 100, v2 0", Revision(2)));
    assert_eq!(store.history(None, 9, None).len(), 2);
}

#[test]
fn a_newer_format_is_never_overwritten() {
    let dir = dir();
    let config = shop(dir.path(), &BOTH);
    let store = open(config.clone());
    done(&store, shift(&[("v1", 1), ("v2", 1)]));
    drop(store);
    let newer = super::format::tests::sealed("\"format\":9,\"what\":1}\n");
    std::fs::write(dir.path().join("state.json"), &newer).unwrap();
    let error = Store::open(config.clone(), Arc::default(), &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("(format 9, this one knows 1)"), "{error}");
    assert_eq!(std::fs::read(dir.path().join("state.json")).unwrap(), newer);
    let store = Store::open(config, Arc::default(), &OpenOptions { ignore_state: true, handed: None }).unwrap();
    assert_eq!((in_force(&store).as_str(), store.snapshot().revision), ("v1 90, v2 10", Revision(3)));
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
    let aside = names.iter().find(|p| p.to_string_lossy().contains("state.json.newer-")).unwrap();
    assert_eq!(std::fs::read(aside).unwrap(), newer);
}

#[test]
fn threads_get_revisions_without_gaps_and_if_match_has_one_winner() {
    let dir = dir();
    let store = open(shop(dir.path(), &BOTH));
    let mut events = store.subscribe();
    let try_to_win = |n: u32| {
        let order = Order { if_match: Some(Revision(1)), ..order(shift(&[("v1", n), ("v2", 1)])) };
        usize::from(store.apply(order).is_ok())
    };
    let winners: usize = std::thread::scope(|s| {
        let threads: Vec<_> = (2..10).map(|n| s.spawn(move || try_to_win(n))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!((winners, store.snapshot().revision), (1, Revision(2)));
    std::thread::scope(|s| {
        for thread in 0..4 {
            let store = &store;
            s.spawn(move || {
                (0..10).for_each(|n| drop(done(store, shift(&[("v1", 100 + thread * 10 + n), ("v2", 1)]))))
            });
        }
    });
    let seen: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).map(|e| e.revision.0).collect();
    assert_eq!(seen, (2..=42).collect::<Vec<_>>());
    let history: Vec<_> = store.history(None, 100, Some(42)).iter().map(|e| e.revision.0).collect();
    assert_eq!(history, (1..=41).rev().collect::<Vec<_>>());
}

#[test]
fn the_table_of_precedence_holds_over_restarts() {
    let dir = dir();
    let config = |pairs: &[(&str, u32)]| shop(dir.path(), pairs);
    let restart = |pairs: &[(&str, u32)]| {
        let store = open(config(pairs));
        let newest = store.history(None, 1, None).remove(0);
        (in_force(&store), newest.kind, newest.revision.0)
    };
    let (file, other) = ([("v1", 90), ("v2", 10), ("v3", 0)], [("v1", 10), ("v2", 90), ("v3", 0)]);
    drop(done(&open(config(&file)), shift(&[("v1", 40), ("v2", 40), ("v3", 20)])));
    assert_eq!(restart(&file), ("v1 40, v2 40, v3 20".into(), "weights".into(), 2));
    assert_eq!(restart(&file[..2]), ("v1 50, v2 50".into(), "reload".into(), 3));
    assert_eq!(restart(&other), ("v1 10, v2 90, v3 0".into(), "superseded".into(), 4));
    drop(done(&open(config(&other)), rollback(Some("v1"))));
    assert_eq!(restart(&other), ("v1 100, v2 0, v3 0".into(), "rollback".into(), 5));
    assert_eq!(restart(&file), ("v1 100, v2 0, v3 0".into(), "held".into(), 6));
    assert_eq!(restart(&file), ("v1 100, v2 0, v3 0".into(), "held".into(), 6));
    drop(done(&open(config(&file)), release()));
    assert_eq!(restart(&file), ("v1 90, v2 10, v3 0".into(), "release".into(), 7));
}

#[test]
fn a_directory_that_can_only_be_read_still_gives_back_a_held_rollback() {
    let dir = dir();
    let config = shop(dir.path(), &BOTH);
    drop(done(&open(config.clone()), rollback(None)));
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    std::fs::create_dir(dir.path().join("lock")).unwrap();
    let store = open(config);
    assert_eq!((in_force(&store).as_str(), store.snapshot().persisted), ("v1 100, v2 0", false));
    assert!(shop_of(&store).is_held());
    assert_eq!(store.history(None, 9, None).len(), 2);
}

#[test]
fn every_change_is_one_log_line() {
    #[derive(Clone, Default)]
    struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (dir, lines) = (dir(), Lines::default());
    let store = open(shop(dir.path(), &BOTH));
    let sink = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(move || sink.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        store.apply(Order { reason: Some("bad".into()), ..order(rollback(None)) }).unwrap();
        reload(&store, shop(dir.path(), &[("v1", 1), ("v2", 1)]));
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let parts = ["event=\"changed\"", "kind=\"rollback\"", "split=shop", "by=\"local:alice\"", "from=v1 90, v2 10"];
    assert!(
        parts.iter().chain(&["to=v1 100, v2 0", "revision=2", "reason=\"bad\""]).all(|p| lines[0].contains(p)),
        "{text}"
    );
    assert!(lines[1].contains("event=\"held\"") && lines[1].contains("the file wants v1 1, v2 1"), "{text}");
    assert_eq!(lines.len(), 2);
}

/// A split whose weights follow its endpoints: two of each version.
fn by_endpoints(dir: &std::path::Path) -> Arc<crate::config::Config> {
    let shop = split("shop", &[("v1", 3), ("v2", 1), ("v3", 0)]);
    config(dir, vec![crate::config::Split { weigh_by: crate::config::WeighBy::Endpoints, ..shop }])
}

fn available(pairs: &[(&str, u64)]) -> Change {
    let available = pairs.iter().map(|(v, n)| (name(v), *n)).collect();
    Change::Available { split: split_name("shop"), available }
}

#[test]
fn weights_follow_available_endpoints_without_a_revision() {
    let dir = dir();
    let store = open(by_endpoints(dir.path()));
    assert_eq!(in_force(&store), "v1 6, v2 2, v3 0");
    let (before, history) = (shop_of(&store), store.history(None, 50, None).len());
    let applied = apply(&store, available(&[("v1", 1), ("v2", 2), ("v3", 2)])).unwrap();
    assert!(applied.changed && applied.events.is_empty());
    let now = shop_of(&store);
    assert_eq!((in_force(&store).as_str(), now.revision), ("v1 3, v2 2, v3 0", before.revision));
    assert!(now.epoch > before.epoch, "another coin is another epoch");
    assert_eq!(now.coin, Coin(vec![(0, w(3)), (1, w(2))]));
    assert_eq!(store.history(None, 50, None).len(), history);
    let again = apply(&store, available(&[("v1", 1), ("v2", 2), ("v3", 2)])).unwrap();
    assert!(!again.changed && Arc::ptr_eq(&again.snapshot.splits[0], &now));
    // More than the file gives is not believed; a version that nobody names has all it is given.
    apply(&store, available(&[("v1", 9)])).unwrap();
    assert_eq!(in_force(&store), "v1 6, v2 2, v3 0");
    // With nobody left the weights are as if all were there: `on_unavailable` decides.
    apply(&store, available(&[("v1", 0), ("v2", 0), ("v3", 0)])).unwrap();
    assert_eq!(in_force(&store), "v1 6, v2 2, v3 0");
    assert!(!apply(&open(shop(&dir.path().join("other"), &BOTH)), available(&[("v1", 0)])).unwrap().changed);
}

#[test]
fn an_override_stands_above_the_number_of_endpoints() {
    let dir = dir();
    let store = open(by_endpoints(dir.path()));
    done(&store, shift(&[("v1", 1), ("v2", 1), ("v3", 1)]));
    let epoch = shop_of(&store).epoch;
    apply(&store, available(&[("v1", 1), ("v2", 0), ("v3", 2)])).unwrap();
    assert_eq!((in_force(&store).as_str(), shop_of(&store).epoch), ("v1 1, v2 1, v3 1", epoch));
    done(&store, release());
    assert_eq!(in_force(&store), "v1 3, v2 0, v3 0");
    apply(&store, available(&[("v1", 2), ("v2", 2), ("v3", 2)])).unwrap();
    done(&store, drain("v1", Some(endpoints("v1")[0])));
    assert_eq!(in_force(&store), "v1 3, v2 2, v3 0", "a drain does not wait to be told");
    assert_eq!(shop_of(&store).file_weights, weights(&[("v1", 3), ("v2", 1), ("v3", 0)]));
}

#[test]
fn a_start_with_weights_by_endpoints_is_no_change() {
    let dir = dir();
    let first = open(by_endpoints(dir.path())).snapshot().revision;
    assert_eq!(open(by_endpoints(dir.path())).snapshot().revision, first);
}

#[test]
fn an_endpoint_added_later_starts_slowly_and_the_first_ones_do_not() {
    let (dir, registry) = (dir(), Arc::<Registry>::default());
    let slow = |mut config: crate::config::Config, count: usize| {
        config.splits[0].drain.slow_start = Duration::from_secs(3600);
        config.splits[0].versions[0].endpoints.truncate(count);
        Arc::new(config)
    };
    let file = || (*shop(dir.path(), &BOTH)).clone();
    let store = open_with(slow(file(), 1), &registry);
    reload(&store, slow(file(), 2));
    let pool = store.snapshot().splits[0].versions[0].pool.clone();
    let mut rng = fastrand::Rng::with_seed(4);
    let new = (0..1000).filter(|_| pool.claim(0, &mut rng).unwrap().0 == 1).count();
    assert!((45..150).contains(&new), "one in eleven, not {new} of 1000");
    let pool = store.snapshot().splits[0].versions[1].pool.clone();
    let second = (0..1000).filter(|_| pool.claim(0, &mut rng).unwrap().0 == 1).count();
    assert!((400..600).contains(&second), "{second}");
}
