//! Shares, moves and what users see of them, over any changes.

use super::*;
use proptest::prelude::*;

fn weights(all: &[u32]) -> Vec<(usize, Weight)> {
    all.iter().map(|&w| Weight::new(w).unwrap()).enumerate().filter(|(_, w)| !w.is_zero()).collect()
}

/// Percent for version 1, the rest for version 0.
fn canary(percent: u32) -> Vec<(usize, Weight)> {
    weights(&[100 - percent, percent])
}

fn count(owners: &Owners, version: usize) -> u64 {
    all().filter(|&b| owners.owner(b) == version).count() as u64
}

fn all() -> impl Iterator<Item = Bucket> {
    (0..BUCKETS).map(|n| Bucket::new(n).unwrap())
}

/// How many buckets have another owner.
fn moves(a: &Owners, b: &Owners) -> u64 {
    all().filter(|&x| a.owner(x) != b.owner(x)).count() as u64
}

#[test]
fn shares_are_those_of_the_largest_remainder() {
    let counts = |raw: &[u32]| {
        let owners = Owners::new(&weights(raw)).unwrap();
        (0..raw.len()).map(|v| count(&owners, v)).collect::<Vec<_>>()
    };
    assert_eq!(counts(&[90, 10]), [9000, 1000]);
    assert_eq!(counts(&[1, 1, 1]), [3334, 3333, 3333], "of equals the first");
    assert_eq!(counts(&[1, 2]), [3333, 6667]);
    assert_eq!(counts(&[0, 5, 0]), [0, 10_000, 0]);
    assert_eq!(counts(&[1_000_000, 1]), [10_000, 0], "less than half a bucket is none");
    assert_eq!(counts(&[19_999, 1]), [10_000, 0]);
    assert_eq!(counts(&[9999, 1]), [9999, 1]);
}

#[test]
fn without_weight_there_is_no_owner_and_nothing_moves() {
    assert_eq!(Owners::new(&[]), None);
    assert_eq!(Owners::new(&[(0, Weight::default())]), None);
    let owners = Owners::new(&canary(25)).unwrap();
    assert_eq!(owners.moved(&[]), owners);
}

#[test]
fn up_by_steps_and_back_each_user_moves_once_each_way() {
    let mut owners = Owners::new(&canary(0)).unwrap();
    for pair in [0, 1, 5, 25, 50, 100].windows(2) {
        let next = owners.moved(&canary(pair[1]));
        assert_eq!(count(&next, 1), u64::from(pair[1]) * 100);
        assert!(all().all(|b| owners.owner(b) == 0 || next.owner(b) == 1), "somebody fell back at {}", pair[1]);
        owners = next;
    }
    for percent in [50, 25, 5, 1, 0] {
        let next = owners.moved(&canary(percent));
        assert_eq!(count(&next, 1), u64::from(percent) * 100);
        assert!(all().all(|b| owners.owner(b) == 1 || next.owner(b) == 0), "stable lost somebody at {percent}");
        owners = next;
    }
}

#[test]
fn a_rollback_moves_everybody_at_once_and_the_way_up_is_minimal_again() {
    let at_25 = Owners::new(&canary(25)).unwrap();
    let back = at_25.moved(&weights(&[100, 0]));
    assert!(all().all(|b| back.owner(b) == 0));
    assert_eq!(moves(&at_25, &back), 2500);
    let again = back.moved(&canary(5));
    assert_eq!((count(&again, 1), moves(&back, &again)), (500, 500));
    assert!(all().all(|b| again.owner(b) == 0 || at_25.owner(b) == 1), "those who had seen it first");
}

#[test]
fn versions_come_and_leave_with_only_their_own_buckets() {
    let two = Owners::new(&weights(&[50, 50])).unwrap();
    let three = two.moved(&weights(&[50, 50, 100]));
    assert_eq!((count(&three, 2), moves(&two, &three)), (5000, 5000));
    let left = three.moved(&weights(&[50, 0, 100]));
    assert_eq!(moves(&three, &left), 2500);
    // Version 1 has left the file: its buckets are nobody's, and version 2 has become version 1.
    let renumber = |v: Option<usize>| [Some(0), None, Some(1)][v.unwrap()];
    let stored = Owners::from_runs(three.runs().map(|(v, n)| (renumber(v), n))).unwrap();
    let left = stored.moved(&weights(&[50, 100]));
    assert_eq!((count(&left, 0), count(&left, 1), moves(&stored, &left)), (3333, 6667, 2500));
}

#[test]
fn ten_thousand_users_see_their_shares_and_nobody_comes_back() {
    let mut rng = fastrand::Rng::with_seed(17);
    let users: Vec<Bucket> = (0..10_000).map(|_| Bucket::random(&mut rng)).collect();
    let mut owners = Owners::new(&canary(0)).unwrap();
    let mut has_left = vec![false; users.len()];
    for percent in [1, 5, 25, 50, 100] {
        owners = owners.moved(&canary(percent));
        let on = users.iter().filter(|&&b| owners.owner(b) == 1).count() as f64;
        let p = f64::from(percent) / 100.0;
        let deviation = (10_000.0 * p * (1.0 - p)).sqrt();
        assert!((on - 10_000.0 * p).abs() <= 4.0 * deviation, "{on} users at {percent} %");
        for (user, left) in users.iter().zip(&mut has_left) {
            assert!(!*left || owners.owner(*user) == 1, "somebody came back at {percent} %");
            *left |= owners.owner(*user) == 1;
        }
    }
    assert!(has_left.iter().all(|left| *left));
    let back = owners.moved(&canary(0));
    assert!(users.iter().all(|&b| back.owner(b) == 0));
}

#[test]
fn runs_that_are_not_all_buckets_are_refused() {
    assert_eq!(Owners::from_runs([(Some(0), 9999)]), None);
    assert_eq!(Owners::from_runs([(Some(0), 9999), (Some(1), 2)]), None);
    assert_eq!(Owners::from_runs([(Some(0), u16::MAX), (Some(1), u16::MAX)]), None);
    let owners = Owners::from_runs([(Some(1), 9999), (None, 1)]).unwrap();
    assert_eq!(owners.runs().collect::<Vec<_>>(), [(Some(1), 9999), (None, 1)]);
    assert!(all().all(|b| owners.moved(&canary(100)).owner(b) == 1));
}

/// Weights of up to six versions, some of weight 0, at least one above.
fn some_weights() -> impl Strategy<Value = Vec<u32>> {
    let weight = prop_oneof![Just(0u32), 1..=100u32, 1..=Weight::MAX];
    prop::collection::vec(weight, 1..6).prop_filter("somebody has weight", |all| all.iter().any(|w| *w > 0))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changes_keep_shares_exact_and_moves_minimal(steps in prop::collection::vec(some_weights(), 1..8)) {
        let mut owners = Owners::new(&weights(&steps[0])).unwrap();
        for raw in &steps {
            let next = owners.moved(&weights(raw));
            let total: u64 = raw.iter().map(|w| u64::from(*w)).sum();
            let fresh = Owners::new(&weights(raw)).unwrap();
            let (mut must, mut least) = (0, 0);
            for v in 0..6 {
                let (was, is) = (count(&owners, v), count(&next, v));
                let due = u64::from(raw.get(v).copied().unwrap_or(0)) * u64::from(BUCKETS);
                prop_assert!((is * total).abs_diff(due) < total, "version {v}: {is} of {due}/{total}");
                prop_assert_eq!(is, count(&fresh, v), "the share follows from the weights alone");
                must += was.saturating_sub(is);
                least += is;
                let stayed = all().filter(|&b| owners.owner(b) == v && next.owner(b) == v).count() as u64;
                prop_assert_eq!(stayed, was.min(is), "version {} keeps all it can", v);
            }
            prop_assert_eq!(least, u64::from(BUCKETS));
            prop_assert_eq!(moves(&owners, &next), must);
            prop_assert_eq!(&next, &owners.moved(&weights(raw)), "deterministic");
            prop_assert_eq!(&next, &next.moved(&weights(raw)), "at rest");
            prop_assert_eq!(Owners::from_runs(next.runs()), Some(next.clone()));
            owners = next;
        }
    }

    #[test]
    fn a_rising_canary_never_loses_anybody(mut parts in prop::collection::vec(0..=Weight::MAX, 1..8)) {
        parts.sort_unstable();
        let mut owners = Owners::new(&weights(&[1])).unwrap();
        for part in parts {
            let next = owners.moved(&weights(&[Weight::MAX - part, part]));
            prop_assert!(all().all(|b| owners.owner(b) == 0 || next.owner(b) == 1));
            owners = next;
        }
    }
}
