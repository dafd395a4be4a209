//! `kill -9` at any instant: the state found again is the last acknowledged one (or the one in flight), never a mix.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::{Admin, Conf, Instant, Origin, Weir, tell, times};

/// Weights are (k, 1000 - k): a mix of two of them does not sum to 1000.
const SUM: u64 = 1000;

/// Shifts as fast as it goes until the process dies; gives the last acknowledged k and the one asked for last.
fn shift_until_killed(admin: Admin, from: u64, acknowledged: &AtomicU64) -> (u64, u64) {
    let mut last = from;
    for k in (0..SUM).cycle().skip(from as usize + 1) {
        let body = json!({"weights": {"v1": k, "v2": SUM - k}}).to_string();
        match admin.try_ask("PUT", "/api/v1/splits/shop/weights", "", Some(&body)) {
            Ok(answer) if answer.status() == 200 => {
                assert_eq!(answer.json()["persisted"], true);
                last = k;
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            Ok(answer) => panic!("{}", answer.text()),
            Err(_) => return (last, k),
        }
    }
    unreachable!("the cycle is endless")
}

#[test]
fn weights_are_the_last_acknowledged_after_kill_9() {
    let origin = Origin::named("v1");
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let conf = Conf::two((0, origin.address), (SUM as u32, origin.address));
    let mut weir = Weir::start(&conf);
    let mut k = 0;
    let mut acknowledged_in_all = 0;
    for n in 0..times(10, 200) {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (admin, theirs) = (weir.admin, acknowledged.clone());
        let shifting = std::thread::spawn(move || shift_until_killed(admin, k, &theirs));
        kill_at_a_random_instant(&mut weir, &mut random);
        let (last, asked) = shifting.join().unwrap();
        acknowledged_in_all += acknowledged.load(Ordering::SeqCst);
        weir = weir.restart();
        let (v1, v2) = weir.admin.weights();
        assert_eq!(v1 + v2, SUM, "kill {n} (seed {seed}): a mix of two states");
        assert!(v1 == last || v1 == asked, "kill {n} (seed {seed}): acknowledged {last}, asked {asked}, found {v1}");
        k = v1;
    }
    assert!(acknowledged_in_all > 0, "every kill came before any change");
    tell(&format!("{} kills over {acknowledged_in_all} acknowledged changes", times(10, 200)));
}

/// The instant is the input here, not a wait: anywhere within the first changes.
fn kill_at_a_random_instant(weir: &mut Weir, random: &mut fastrand::Rng) {
    let at = Instant::now() + Duration::from_micros(random.u64(0..150_000));
    while Instant::now() < at {
        std::thread::yield_now();
    }
    weir.kill();
}

/// How many sticky buckets v1 and v2 own, by the state file.
fn owned(weir: &Weir) -> (u64, u64) {
    let file: serde_json::Value = serde_json::from_slice(&fs::read(weir.state_file()).unwrap()).unwrap();
    let owners = &file["state"]["splits"]["shop"]["owners"];
    let runs = owners["runs"].as_array().unwrap();
    let of = |name: &str| {
        let is = |run: &&serde_json::Value| owners["versions"][run[0].as_u64().unwrap() as usize] == name;
        runs.iter().filter(is).map(|run| run[1].as_u64().unwrap()).sum()
    };
    (of("v1"), of("v2"))
}

#[test]
fn owners_of_sticky_buckets_fit_the_weights_after_kill_9() {
    let origin = Origin::named("v1");
    let mut random = fastrand::Rng::new();
    let conf = Conf::two((500, origin.address), (500, origin.address)).split("sticky = { by = \"client_ip\" }");
    let mut weir = Weir::start(&conf);
    let mut k = 500;
    for _ in 0..times(5, 50) {
        let admin = weir.admin;
        let shifting = std::thread::spawn(move || shift_until_killed(admin, k, &AtomicU64::new(0)));
        kill_at_a_random_instant(&mut weir, &mut random);
        shifting.join().unwrap();
        weir = weir.restart();
        let (v1, v2) = weir.admin.weights();
        assert_eq!(owned(&weir), (v1 * 10, v2 * 10), "10,000 buckets over a sum of {SUM}");
        k = v1;
    }
}

#[test]
fn revisions_go_on_without_a_gap_after_kill_9() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::two((1, origin.address), (1, origin.address)));
    let before = weir.admin.shift(3, 1)["revision"].as_u64().unwrap();
    let weir = weir.kill_and_restart();
    assert!(weir.admin.shop()["revision"].as_u64().unwrap() >= before);
    let after = weir.admin.shift(4, 1)["revision"].as_u64().unwrap();
    assert!(after > before, "{after} after {before}");
    let history = weir.admin.json("/api/v1/history").to_string();
    assert!(history.contains(&format!("\"revision\":{before}")), "{history}");
}

#[test]
fn a_corrupt_state_file_is_set_aside_and_told() {
    let origin = Origin::named("v1");
    let mut weir = Weir::start(&Conf::two((90, origin.address), (10, origin.address)));
    weir.admin.shift(70, 30);
    weir.kill();
    fs::write(weir.state_file(), "{\"this is\": no state").unwrap();
    let weir = weir.restart();
    let weights = weir.admin.weights();
    assert!(weights == (70, 30) || weights == (90, 10), "the previous generation or the file: {weights:?}");
    assert!(weir.stderr().contains("state.json"), "told loudly");
    weir.admin.shift(60, 40);
    assert_eq!(weir.kill_and_restart().admin.weights(), (60, 40), "and it writes again");
}

#[test]
fn every_torn_prefix_of_the_state_file_starts() {
    let origin = Origin::named("v1");
    let mut weir = Weir::start(&Conf::two((90, origin.address), (10, origin.address)));
    weir.admin.shift(70, 30);
    weir.admin.shift(65, 35);
    weir.kill();
    let whole = fs::read(weir.state_file()).unwrap();
    for part in 0..times(4, 20) {
        fs::write(weir.state_file(), &whole[..whole.len() * part / times(4, 20)]).unwrap();
        weir = weir.restart();
        let weights = weir.admin.weights();
        assert!([(65, 35), (70, 30), (90, 10)].contains(&weights), "{weights:?} from a torn file");
        weir.kill();
    }
}

#[test]
fn a_state_of_a_newer_weir_is_not_overwritten() {
    let origin = Origin::named("v1");
    let conf = Conf::two((90, origin.address), (10, origin.address));
    let mut weir = Weir::start(&conf);
    weir.admin.shift(70, 30);
    weir.kill();
    let newer = sealed("\"format\":9999,\"whatever\":[]}\n");
    fs::write(weir.state_file(), &newer).unwrap();
    let config = weir.config().to_str().unwrap().to_owned();
    let done = crate::support::weir(&["run", "--config", &config]).expect_code(3);
    assert!(done.stderr.contains("newer"), "{}", done.stderr);
    assert_eq!(fs::read_to_string(weir.state_file()).unwrap(), newer);
}

/// The one thing every format keeps: the sum comes first and covers all behind its comma.
fn sealed(rest: &str) -> String {
    use sha2::Digest;
    let sum: String = sha2::Sha256::digest(rest).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{\"sha256\":\"{sum}\",{rest}")
}

#[test]
fn two_weirs_never_share_a_state_dir() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address));
    let done = crate::support::weir(&["run", "--config", weir.config().to_str().unwrap()]);
    assert!(matches!(done.code, Some(code) if code != 0), "{done:?}");
    assert!(done.stderr.contains("in use"), "{}", done.stderr);
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
}
