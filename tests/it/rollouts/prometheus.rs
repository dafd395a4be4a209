//! A real Prometheus that scrapes weir and is asked by its checks.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::receiver::Receiver;
use super::traffic::{Actor, Manner, Visitors, conf, ended, start, wait_state};
use crate::support::{Admin, KillOnDrop, LIMIT, Weir, free_address, soak, tell, times, tool, wait_for, wait_until};

/// What a check of surface.md asks, of weir's own counts: failed requests of the new version per second.
const QUERY: &str = "sum(rate(weir_requests_total{split=\"shop\",version=\"{to}\",code=~\"5..\"}[5s])) or vector(0)";

/// Debian's, on an address known before it runs.
struct Prometheus {
    api: Admin,
    _process: KillOnDrop,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes that weir each second.
    fn start(binary: &std::path::Path, address: SocketAddr, weir: &Weir) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n  - job_name: weir\n    \
             static_configs: [{{ targets: [\"{}\"] }}]\n",
            weir.admin.address
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let mut command = Command::new(binary);
        command.current_dir(&dir).args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--log.level=error",
        ]);
        command.arg(format!("--web.listen-address={address}")).stdin(Stdio::null());
        let process = KillOnDrop(command.spawn().unwrap());
        let this = Self { api: Admin { address }, _process: process, _dir: dir };
        wait_until("prometheus has scraped weir", || this.value("weir_build_info") == Some(1.0));
        this
    }

    /// The number of the only series of that name.
    fn value(&self, name: &str) -> Option<f64> {
        let answer = self.api.try_ask("GET", &format!("/api/v1/query?query={name}"), "", None).ok()?;
        let answer: Value = (answer.status() == 200).then(|| answer.json())?;
        match answer["data"]["result"].as_array()?.as_slice() {
            [one] => one["value"][1].as_str()?.parse().ok(),
            _ => None,
        }
    }

    fn wait_for(&self, name: &str, fits: impl Fn(f64) -> bool) -> f64 {
        wait_for(&format!("prometheus has seen {name}"), || self.value(name).filter(|value| fits(*value)))
    }
}

/// Weir with that rollout, and a Prometheus, for its check `orders`; `None` where there is none.
fn stage(v1: &Actor, v2: &Actor, rollout: &str, others: &str) -> Option<(Weir, Prometheus)> {
    let binary = tool("prometheus")?;
    let address = free_address();
    let check = format!(
        "{{ name = \"orders\", every = \"1s\", max = 0.5, prometheus = {{ url = \"http://{address}\", query = '{QUERY}' }} }}"
    );
    let weir = Weir::start(&conf(&v1.origin, &v2.origin, &format!("{rollout}, checks = [{check}{others}]")));
    let prometheus = Prometheus::start(&binary, address, &weir);
    Some((weir, prometheus))
}

fn good() -> (Actor, Actor) {
    (Actor::new("v1", Manner::default()), Actor::new("v2", Manner::default()))
}

/// The rollout of surface.md section 3, but for its times. In the full form each step is left only when the evidence
/// is there, as by default; that takes some 200,000 requests.
fn plan(approve: bool) -> String {
    let second = times(1, 2);
    let step = |weight| format!("{{ weight = {weight}, for = \"{second}s\" }}");
    let fourth = format!("{{ weight = 50, for = \"{second}s\", approve = {approve} }}");
    let steps = [step(1), step(5), step(25), fourth, step(100)].join(", ");
    let then = if soak() { "hold" } else { "advance" };
    format!("steps = [{steps}], on_inconclusive = \"{then}\", analysis = {{ warm_up = \"0s\" }}")
}

/// All three kinds of checks, as there.
fn goes_through(approve: bool) {
    let ((v1, v2), ci) = (good(), Receiver::answering(|_| "200 OK"));
    let others = format!(
        ", {{ name = \"smoke\", at = \"step\", webhook = {{ url = \"{}\" }} }}, \
         {{ name = \"smoke-local\", at = \"start\", command = [\"test\", \"-n\", \"{{endpoint}}\"] }}",
        ci.url()
    );
    let Some((weir, prometheus)) = stage(&v1, &v2, &plan(approve), &others) else { return };
    let visitors = Visitors::come(&weir, 32, times(400, 4000) as u64);
    visitors.wait_for(100);
    let id = start(weir.admin);
    let minutes = Duration::from_secs(times(30, 300) as u64);
    if approve {
        crate::support::wait_for_within("it asks for approval", minutes, || {
            (super::traffic::rollout(weir.admin)["state"] == "approval").then_some(())
        });
        assert_eq!((weir.admin.weights(), ci.seen().len()), ((75, 25), 3));
        weir.cli(&["rollout", "promote", "shop"]).expect_code(0);
    }
    let receipt = ended(weir.admin, &id, minutes);
    assert_eq!(receipt["state"], "finished", "{receipt:#}");
    assert_eq!((weir.admin.weights(), ci.seen().len()), ((0, 100), 4), "asked once before each step");
    prometheus.wait_for("weir_check_pass%7Bcheck%3D%22orders%22%7D", |pass| pass == 1.0);
    prometheus.wait_for("weir_check_value", |value| value == 0.0);
    prometheus.wait_for("weir_rollout_running", |running| running == 0.0);
    let log = receipt["log"].as_array().unwrap();
    let said = |text: &str| log.iter().filter(|line| line["text"].as_str().unwrap().starts_with(text)).count();
    assert!(said("orders: pass: 0, at most 0.5") >= 5, "{log:#?}");
    assert_eq!((said("smoke: pass: 200"), said("smoke-local: pass: ")), (4, 1), "{log:#?}");
    let seconds = |key: &str| receipt[key].as_str().unwrap().to_owned();
    let requests = receipt["totals"].as_array().unwrap().iter().map(|total| total["requests"].as_u64().unwrap());
    tell(&format!(
        "prometheus | approve = {approve} | 5 steps, {} requests, {} to {}",
        requests.sum::<u64>(),
        seconds("started_at"),
        seconds("ended_at")
    ));
    assert_eq!(visitors.failed.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn a_good_version_goes_through_unattended() {
    goes_through(false);
}

#[test]
fn a_good_version_goes_through_with_approval() {
    goes_through(true);
}

#[test]
fn what_prometheus_finds_takes_a_bad_version_out() {
    let (v1, v2) = good();
    v2.fail(1_000_000);
    let plan = "steps = [{ weight = 25, for = \"5m\" }], analysis = false";
    let Some((weir, prometheus)) = stage(&v1, &v2, plan, "") else { return };
    let visitors = Visitors::come(&weir, 8, 400);
    visitors.wait_for(50);
    let id = start(weir.admin);
    let receipt = ended(weir.admin, &id, 3 * LIMIT);
    assert_eq!(receipt["state"], "failed", "{receipt:#}");
    let ending = receipt["ending"].as_str().unwrap();
    assert!(ending.starts_with("check:orders: orders failed: ") && ending.ends_with(", at most 0.5"), "{ending}");
    assert_eq!((weir.admin.weights(), &weir.admin.shop()["state"]), ((100, 0), &"held".into()));
    let last = weir.admin.json("/api/v1/history?split=shop&limit=1");
    assert!(last.to_string().contains("check:orders"), "{last:#}");
    prometheus.wait_for("weir_check_pass", |pass| pass == 0.0);
    let value = prometheus.wait_for("weir_check_value", |value| value > 0.5);
    prometheus.wait_for("weir_rollbacks_total%7Bsource%3D%22check%22%7D", |count| count == 1.0);
    tell(&format!("prometheus | rolled back at {value:.1} failures/s: {ending}"));
}

/// A query that finds nothing is no proof of anything.
#[test]
fn a_query_that_finds_nothing_holds() {
    let Some(binary) = tool("prometheus") else { return };
    let ((v1, v2), address) = (good(), free_address());
    let check = format!(
        "checks = [{{ name = \"orders\", every = \"1s\", max = 0.5, prometheus = {{ url = \"http://{address}\", \
         query = 'rate(no_such_metric{{version=\"{{to}}\"}}[5s])' }} }}]"
    );
    let plan = format!("steps = [{{ weight = 25, for = \"100ms\" }}], analysis = false, {check}");
    let weir = Weir::start(&conf(&v1.origin, &v2.origin, &plan));
    let _prometheus = Prometheus::start(&binary, address, &weir);
    let id = start(weir.admin);
    let now = wait_state(weir.admin, "waiting");
    assert_eq!(weir.admin.weights(), (75, 25));
    let why = || super::traffic::rollout(weir.admin)["waits_for"].as_str().unwrap_or_default().to_owned();
    wait_until(&format!("it says why: {now:#}"), || why().contains("the query finds nothing"));
    weir.admin.wait_metric("weir_check_pass", &[("check", "orders")], 0.0);
    assert_eq!(weir.admin.json(&format!("/api/v1/rollouts/{id}/receipt"))["state"], "waiting");
}

/// The page as Prometheus' own tool wants it, with everything a rollout adds.
#[test]
fn the_page_pleases_promtool() {
    let Some(promtool) = tool("promtool") else { return };
    let (v1, v2) = good();
    v2.fail(1_000_000);
    let check = "checks = [{ name = \"always\", every = \"1s\", command = [\"true\"] }]";
    let weir =
        Weir::start(&conf(&v1.origin, &v2.origin, &format!("steps = [{{ weight = 25, for = \"5m\" }}], {check}")));
    let visitors = Visitors::come(&weir, 8, 400);
    visitors.wait_for(50);
    let id = start(weir.admin);
    assert_eq!(ended(weir.admin, &id, 2 * LIMIT)["state"], "failed");
    weir.admin.wait_metric("weir_rollbacks_total", &[("source", "analysis")], 1.0);
    let page = weir.admin.get("/metrics").body;
    for name in ["weir_rollout_evidence", "weir_rollout_verdict", "weir_check_pass", "weir_requests_total"] {
        assert!(String::from_utf8_lossy(&page).contains(&format!("\n# TYPE {name} ")), "{name} is missing");
    }
    let file = weir.dir().join("page");
    std::fs::write(&file, page).unwrap();
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]).stdin(std::fs::File::open(file).unwrap());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
}
