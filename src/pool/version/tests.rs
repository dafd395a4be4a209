//! A pool with hand-made endpoints: who is chosen, who is left out, who is ejected.

use std::time::Duration;

use super::*;
use crate::model::Address;
use crate::pool::{Deadlines, Health};

fn pool(n: u16) -> Pool {
    let endpoint = |i| Arc::new(Endpoint::new(Address::Tcp(([127, 0, 0, 1], 9000 + i).into())));
    Pool::new((0..n).map(endpoint), 2)
}

#[test]
fn an_endpoint_that_its_checks_do_not_call_able_gets_nothing() {
    let (pool, mut rng) = (pool(2), fastrand::Rng::with_seed(1));
    for (health, is_used) in
        [(Health::Checking, false), (Health::Down, false), (Health::Up, true), (Health::Unchecked, true)]
    {
        pool.endpoints()[0].set_health(health);
        let used = (0..50).any(|_| pool.claim(0, &mut rng).unwrap().0 == 0);
        assert_eq!(used, is_used, "{health:?}");
    }
    pool.endpoints().iter().for_each(|e| assert_ne!(e.set_health(Health::Down), Health::Down));
    assert_eq!(pool.claim(0, &mut rng).unwrap_err(), Unavailable::None);
}

#[test]
fn every_free_endpoint_is_found_before_giving_up() {
    let (pool, mut rng) = (pool(3), fastrand::Rng::with_seed(1));
    pool.endpoints()[1].drain(Deadlines::new(Instant::now(), Duration::from_secs(1), Duration::ZERO));
    let claims: Vec<_> = (0..4).map(|_| pool.claim(0, &mut rng).unwrap()).collect();
    assert!(claims.iter().all(|(i, _)| *i != 1));
    assert_eq!(pool.claim(0, &mut rng).unwrap_err(), Unavailable::Full);
    drop(claims);
    assert_eq!(pool.claim(0b101, &mut rng).unwrap_err(), Unavailable::None);
    assert_eq!(pool.claim(0b001, &mut rng).unwrap().0, 2);
}

#[test]
fn load_spreads_evenly() {
    let (pool, mut rng) = (Pool::new(pool(4).endpoints().to_vec(), 1000), fastrand::Rng::with_seed(7));
    let claims: Vec<_> = (0..400).map(|_| pool.claim(0, &mut rng).unwrap()).collect();
    for endpoint in pool.endpoints() {
        assert!((90..=110).contains(&endpoint.counts().requests), "{:?}", endpoint.counts());
    }
    drop(claims);
}

const RULE: Eject = Eject { errors: 3, duration: Duration::from_secs(10), max_percent: 50 };

/// `n` endpoints with these rules besides `max_in_flight`.
fn crowd(weights: &[u32], rules: Rules) -> Pool {
    let crowd = Arc::default();
    let endpoint = |i: u16| Arc::new(Endpoint::of(Address::Tcp(([127, 0, 0, 1], 9000 + i).into()), Arc::clone(&crowd)));
    let members = (0..).zip(weights).map(|(i, weight)| Member { endpoint: endpoint(i), weight: *weight, host: None });
    Pool::with_rules(members, Rules { max_in_flight: 1000, ..rules })
}

fn ejecting(n: usize, max_percent: u32) -> Pool {
    crowd(&vec![1; n], Rules { eject: Some(Eject { max_percent, ..RULE }), ..Rules::default() })
}

fn fail(pool: &Pool, i: usize, times: usize, is_stable: bool) {
    for _ in 0..times {
        let Ok(claim) = pool.endpoints()[i].claim(1000) else { panic!("endpoint {i} takes no claim") };
        pool.report(&claim, Outcome::Bad(Cause::Connect), is_stable);
    }
}

fn out(pool: &Pool) -> Vec<usize> {
    (0..pool.endpoints().len()).filter(|i| pool.endpoints()[*i].is_ejected()).collect()
}

#[tokio::test(start_paused = true)]
async fn consecutive_failures_eject_and_time_readmits() {
    let (pool, mut rng) = (ejecting(3, 50), fastrand::Rng::with_seed(1));
    fail(&pool, 1, 2, false);
    let claim = pool.endpoints()[1].claim(9).unwrap();
    pool.report(&claim, Outcome::Good, false);
    drop(claim);
    fail(&pool, 1, 2, false);
    assert!(out(&pool).is_empty());
    fail(&pool, 1, 1, false);
    assert_eq!(out(&pool), [1]);
    assert!((0..200).all(|_| pool.claim(0, &mut rng).unwrap().0 != 1));
    fail(&pool, 0, 9, false);
    assert_eq!(out(&pool), [1], "half of three is one");
    tokio::time::advance(Duration::from_millis(9_999)).await;
    assert_eq!(pool.endpoints()[1].state().as_str(), "ejected");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(pool.endpoints()[1].ejections().left, None);
    assert!((0..200).any(|_| pool.claim(0, &mut rng).unwrap().0 == 1));
    fail(&pool, 1, 3, false);
    let told = pool.endpoints()[1].ejections();
    assert_eq!((told.count, told.row, told.left, told.cause), (2, 2, Some(2 * RULE.duration), Some(Cause::Connect)));
}

#[test]
fn as_many_as_may_be_are_out_and_never_stables_last() {
    for (n, percent, is_stable, may_go) in [
        (1, 100, true, 0),
        (1, 50, false, 1),
        (2, 100, true, 1),
        (2, 100, false, 2),
        (4, 50, true, 2),
        (10, 30, false, 3),
    ] {
        let pool = ejecting(n, percent);
        (0..n).for_each(|i| fail(&pool, i, 5, is_stable));
        assert_eq!(out(&pool).len(), may_go, "{percent} % of {n}, stable: {is_stable}");
    }
    // Who takes nothing anyway does not stand in.
    let pool = ejecting(3, 100);
    pool.endpoints()[0].set_health(Health::Down);
    pool.endpoints()[1].drain(Deadlines::new(Instant::now(), Duration::from_secs(1), Duration::ZERO));
    fail(&pool, 2, 5, true);
    assert!(out(&pool).is_empty());
}

#[test]
fn without_a_rule_nothing_is_ejected() {
    let pool = pool(2);
    fail(&pool, 0, 5000, false);
    assert!(out(&pool).is_empty());
}

#[test]
fn what_began_before_an_ejection_counts_no_more() {
    let pool = ejecting(2, 50);
    let old: Vec<_> = (0..6).map(|_| pool.endpoints()[0].claim(9).unwrap()).collect();
    old.iter().for_each(|claim| pool.report(claim, Outcome::Bad(Cause::Reset), true));
    assert_eq!(pool.endpoints()[0].ejections().count, 1);
}

#[test]
fn failures_reported_by_many_threads_leave_stable_one_endpoint() {
    for _ in 0..200 {
        let pool = ejecting(2, 100);
        std::thread::scope(|threads| {
            for i in 0..2 {
                let pool = &pool;
                threads.spawn(move || {
                    for _ in 0..4 {
                        if let Ok(claim) = pool.endpoints()[i].claim(1000) {
                            pool.report(&claim, Outcome::Bad(Cause::Status), true);
                        }
                    }
                });
            }
        });
        assert!(out(&pool).len() <= 1);
    }
}

fn share(pool: &Pool, key: impl Fn(u64) -> Option<u64>, count: u64) -> Vec<u64> {
    let (mut rng, turns) = (fastrand::Rng::with_seed(7), RefCell::default());
    let mut seen = vec![0; pool.endpoints().len()];
    for i in 0..count {
        let mut by = By { tried: 0, key: key(i), turns: &turns, rng: &mut rng };
        seen[pool.claim_by(&mut by).unwrap().0] += 1;
    }
    seen
}

/// The key of the nth request.
type Key = fn(u64) -> Option<u64>;

fn balances() -> [(Rules, Key); 4] {
    let with = |balance| Rules { balance, ..Rules::default() };
    let hash = Balance::Hash(crate::config::HashKey::ClientIp);
    [
        (with(Balance::LeastRequests), |_| None),
        (with(Balance::RoundRobin), |_| None),
        (with(hash.clone()), |i| Some(balance::mixed(i))),
        (with(hash), |_| None),
    ]
}

#[test]
fn every_balance_follows_the_weights_and_leaves_out_who_is_out() {
    for (rules, key) in balances() {
        let pool = crowd(&[4, 2, 1, 1, 0, 8], rules.clone());
        pool.endpoints()[5].set_health(Health::Down);
        assert!(
            pool.has_untried(0b0111) && !pool.has_untried(0b1111),
            "neither the weightless nor the one that is down"
        );
        let seen = share(&pool, key, 16_000);
        for (seen, wanted) in seen.iter().zip([8000, 4000, 2000, 2000, 0, 0u64]) {
            assert!(seen.abs_diff(wanted) <= wanted / 12, "{seen} for {wanted}: {rules:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_grows_in_slow_start() {
    for (rules, key) in balances() {
        let pool = crowd(&[1, 1, 1], Rules { slow_start: Duration::from_secs(10), ..rules.clone() });
        pool.endpoints()[2].admit();
        for (age, part) in [(0, 0.1), (5, 0.55), (5, 1.0)] {
            tokio::time::advance(Duration::from_secs(age)).await;
            let seen = share(&pool, key, 10_000)[2] as f64 / 10_000.0;
            let wanted = part / (2.0 + part);
            assert!((seen - wanted).abs() < 0.03, "{seen} for {wanted}: {rules:?}");
        }
    }
}

#[test]
fn the_busy_get_less_for_their_weight() {
    let pool = crowd(&[3, 1], Rules::default());
    let mut rng = fastrand::Rng::with_seed(5);
    let claims: Vec<_> = (0..400).map(|_| pool.claim(0, &mut rng).unwrap()).collect();
    assert!((290..=310).contains(&pool.endpoints()[0].counts().requests), "{:?}", pool.endpoints()[0].counts());
    drop(claims);
}

#[test]
fn a_full_endpoint_hands_its_keys_to_the_next() {
    let hash = Balance::Hash(crate::config::HashKey::ClientIp);
    let mut pool = crowd(&[1; 80], Rules { balance: hash, ..Rules::default() });
    pool.rules.max_in_flight = 1;
    let (mut rng, turns) = (fastrand::Rng::with_seed(5), RefCell::default());
    let mut claim = || pool.claim_by(&mut By { tried: 0, key: Some(7), turns: &turns, rng: &mut rng });
    let mut claims: Vec<_> = (0..80).map(|_| claim().unwrap()).collect();
    assert_eq!(claim().unwrap_err(), Unavailable::Full);
    let first = claims.remove(0);
    drop(claims);
    assert_ne!(claim().unwrap().0, first.0);
    let owner = first.0;
    drop(first);
    assert_eq!(claim().unwrap().0, owner);
}
