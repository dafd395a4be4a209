//! Calls about rollouts, answered by a real machine over the real store. Only what surrounds a machine is made here: a
//! task that serves the desk, does what is ordered at once, and lets no time pass.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::*;
use crate::config::{OnInconclusive, OnRegressed, Rollout, Strategy};
use crate::rollout::{
    Ask, Board, DeskError, Document, Effect, Entry, Event, Machine, Moment, Plan, Readiness, RolloutId, Start,
    StepView, View,
};

const ROLLOUT: &str = "/splits/shop/rollout";

/// Serves the desk of one split without a table `[rollout]`.
struct Controller {
    store: Arc<Store>,
    board: Arc<ArcSwap<Board>>,
    running: Option<(Machine, Start)>,
    begun: u32,
}

fn plan_of_the_file() -> Rollout {
    Rollout {
        to: None,
        strategy: Strategy::Canary,
        auto_start: false,
        steps: Strategy::Canary.steps(),
        on_regressed: OnRegressed::Rollback,
        on_inconclusive: OnInconclusive::Hold,
        max_wait: Duration::from_secs(3600),
        analysis: None,
        checks: Vec::new(),
    }
}

fn moment() -> Moment {
    Moment { monotonic: Duration::from_secs(1000), wall: Duration::from_secs(1_772_366_400) }
}

impl Controller {
    async fn serve(mut self, mut asks: mpsc::Receiver<Ask>) {
        while let Some(ask) = asks.recv().await {
            match ask {
                Ask::Park { answer } => drop(answer.send(())),
                Ask::Start { start, answer, .. } => drop(answer.send(self.start(start))),
                Ask::Command { command, dry_run, answer, .. } => drop(answer.send(self.command(command, dry_run))),
            }
        }
    }

    fn start(&mut self, start: Start) -> Result<Arc<View>, DeskError> {
        let snapshot = self.store.snapshot();
        let (split, now) = (&snapshot.config.splits[0], snapshot.split("shop").unwrap());
        if let Some((machine, _)) = self.running.as_ref().filter(|(machine, _)| !machine.state().is_end()) {
            return Err(DeskError::Running { split: split.name.clone(), to: machine.plan().to.clone() });
        }
        let own = (start.to.as_ref(), start.steps.as_deref());
        let plan = Plan::new(split, &plan_of_the_file(), (&now.stable, &now.weights), own)?;
        let id = RolloutId(format!("r{}", self.begun + 1));
        let (machine, effects) = Machine::start(id, plan, &now.weights, start.by.clone(), moment());
        if start.dry_run {
            return Ok(Arc::new(self.view(&machine, &start)));
        }
        self.begun += 1;
        self.go_on(machine, start, effects)
    }

    fn command(&mut self, command: crate::rollout::Command, dry_run: bool) -> Result<Arc<View>, DeskError> {
        let Some((machine, start)) = self.running.clone() else {
            return Err(DeskError::NoRollout(SplitName::new("shop").unwrap()));
        };
        if let Some(refusal) = machine.refusal(command.what) {
            return Err(DeskError::Refused(refusal));
        }
        let (machine, effects) = machine.step(Event::Command(command), moment());
        if dry_run {
            return Ok(Arc::new(self.view(&machine, &start)));
        }
        self.go_on(machine, start, effects)
    }

    /// Does what is ordered, reports it done, and puts the outcome on the board.
    fn go_on(&mut self, mut machine: Machine, start: Start, effects: Vec<Effect>) -> Result<Arc<View>, DeskError> {
        let mut todo = effects;
        while !todo.is_empty() {
            if let Effect::Do { seq, order } = todo.remove(0) {
                self.carry_out(order)?;
                let (next, effects) = machine.step(Event::Done { seq }, moment());
                machine = next;
                todo.extend(effects);
            }
        }
        let view = Arc::new(self.view(&machine, &start));
        let mut documents = self.board.load().documents.clone();
        documents.retain(|document| document.id != view.id);
        documents.insert(0, Arc::new(document(&view)));
        let views = BTreeMap::from([(view.split.clone(), view.clone())]);
        self.board.store(Arc::new(Board { views, documents }));
        self.running = Some((machine, start));
        Ok(view)
    }

    fn carry_out(&self, order: crate::rollout::Order) -> Result<(), DeskError> {
        let split = SplitName::new("shop").unwrap();
        let snapshot = self.store.snapshot();
        let versions: Vec<_> = snapshot.split("shop").unwrap().versions.iter().map(|v| v.name.clone()).collect();
        let (change, by, source, reason) = match order {
            crate::rollout::Order::Weights { share, by, reason } => {
                let weights = share.weights(&versions);
                (Change::SetWeights { split, weights, hold: false }, by, Source::Rollout, Some(reason))
            }
            crate::rollout::Order::Rollback { to, source, by, reason } => {
                let change = Change::Rollback { split, to: Some(to), to_revision: None, force: true };
                (change, by, source, Some(reason))
            }
            _ => return Ok(()),
        };
        self.store.apply(Order { id: 7, change, by, source, reason, if_match: None, dry_run: false })?;
        Ok(())
    }

    fn view(&self, machine: &Machine, start: &Start) -> View {
        let plan = machine.plan();
        let step = |i: usize| StepView {
            weight: plan.percent(i).unwrap(),
            hold: plan.steps[i].hold,
            approve: plan.steps[i].approve,
        };
        View {
            id: machine.id().0.clone(),
            split: plan.split.clone(),
            to: plan.to.clone(),
            stable: plan.stable.clone(),
            state: machine.state(),
            by: start.by.clone(),
            reason: start.reason.clone(),
            started_at: UNIX_EPOCH + moment().wall,
            step: machine.at_step(),
            steps: (0..plan.steps.len()).map(step).collect(),
            time_left: machine.time_left(),
            waits_for: machine.waits_for(),
            next: machine.next_step(),
            ending: machine.ending().map(str::to_owned),
            ended_at: machine.state().is_end().then(|| UNIX_EPOCH + moment().wall),
            commands: machine.commands(),
            judgment: None,
            checks: Vec::new(),
            rollback_ready: Readiness { is_ready: true, text: "v1: 1 of 1 endpoints up".into() },
            persisted: true,
        }
    }
}

fn document(view: &View) -> Document {
    let at = crate::model::rfc3339_ms(view.started_at);
    let log = vec![Entry { at: at.clone(), event: "started".into(), text: "from v1 to v2".into(), step: None }];
    Document {
        id: view.id.clone(),
        split: view.split.clone(),
        to: view.to.clone(),
        stable: view.stable.clone(),
        state: view.state.as_str().into(),
        by: view.by.clone(),
        reason: view.reason.clone(),
        started_at: at,
        ended_at: view.ended_at.map(crate::model::rfc3339_ms),
        ending: view.ending.clone(),
        steps: Vec::new(),
        log,
        sheets: Vec::new(),
        totals: Vec::new(),
        verdict: None,
        gaps: Vec::new(),
    }
}

/// A weir whose desk is served until the end of the test.
fn house() -> House {
    let (desk, asks, board) = Desk::new();
    let house = House::with(desk);
    let controller = Controller { store: house.ctx.store.clone(), board, running: None, begun: 0 };
    tokio::spawn(controller.serve(asks));
    house
}

impl House {
    /// Must be taken; the split as it then is.
    async fn ask(&self, path: &str, body: Value) -> Value {
        let by = [("weir-by", "local:alice"), ("weir-source", "cli")];
        let (status, split) = self.call("POST", path, &by, Some(body)).await;
        assert_eq!(status, 200, "{split}");
        split
    }
}

#[tokio::test]
async fn a_rollout_from_its_start_to_its_abort() {
    let house = house();
    assert_eq!(house.refused("GET", ROLLOUT, None).await, (409, "no-rollout".into()));
    assert_eq!(house.get("/rollouts").await, (200, json!({"rollouts": []})));
    let split = house.ask(ROLLOUT, json!({"to": "v2", "reason": "release 42"})).await;
    assert_eq!((&split["state"], &split["weights"]), (&json!("rolling_out"), &json!({"v1": 99, "v2": 1})));
    assert_eq!(
        (&split["changed"], &split["persisted"], &split["source"]),
        (&json!(true), &json!(true), &json!("rollout"))
    );
    let rollout = &split["rollout"];
    assert_eq!((&rollout["id"], &rollout["to"], &rollout["state"]), (&json!("r1"), &json!("v2"), &json!("running")));
    assert_eq!((&rollout["step"], &rollout["steps"], &rollout["by"]), (&json!(1), &json!(5), &json!("local:alice")));
    assert_eq!((&rollout["started_because"], &rollout["step_left_seconds"]), (&json!("release 42"), &json!(300)));
    assert_eq!(house.get(ROLLOUT).await.1["plan"][1], json!({"weight": 5.0, "for": "5m", "approve": false}));
    assert_eq!(house.get("/splits/shop").await.1["rollout"]["id"], "r1");

    assert_eq!(house.refused("POST", ROLLOUT, None).await, (409, "rollout-running".into()));
    let split = house.ask(&format!("{ROLLOUT}/pause"), json!({"reason": "lunch"})).await;
    assert_eq!((&split["state"], &split["rollout"]["state"]), (&json!("paused"), &json!("paused")));
    assert_eq!(split["rollout"]["waits_for"], "by local:alice: lunch");
    let again = house.ask(&format!("{ROLLOUT}/pause"), json!({})).await;
    assert_eq!(again["changed"], false, "{again}");
    let split = house.ask(&format!("{ROLLOUT}/resume"), json!({})).await;
    assert_eq!((&split["state"], &split["rollout"]["step"]), (&json!("rolling_out"), &json!(1)));
    assert_eq!(house.refused("POST", &format!("{ROLLOUT}/approve"), None).await, (409, "rollout-refused".into()));
    let split = house.ask(&format!("{ROLLOUT}/promote"), json!({})).await;
    assert_eq!((&split["weights"], &split["rollout"]["step"]), (&json!({"v1": 95, "v2": 5}), &json!(2)));
    let split = house.ask(&format!("{ROLLOUT}/abort"), json!({"reason": "p99 up"})).await;
    assert_eq!((&split["state"], &split["weights"]), (&json!("held"), &json!({"v1": 100, "v2": 0})));
    let rollout = &split["rollout"];
    assert_eq!((&rollout["state"], &rollout["step_ends_at"]), (&json!("aborted"), &Value::Null));
    assert!(rollout["ending"].as_str().unwrap().contains("p99 up") && rollout["commands"] == json!([]), "{rollout}");
    assert_eq!(house.refused("POST", &format!("{ROLLOUT}/pause"), None).await, (409, "no-rollout".into()));
    assert_eq!(house.get(ROLLOUT).await.1["state"], "aborted", "the last one is still shown");
}

#[tokio::test]
async fn past_rollouts_are_listed_with_their_receipts() {
    let house = house();
    house.ask(ROLLOUT, json!({"reason": "one"})).await;
    house.ask(&format!("{ROLLOUT}/abort"), json!({})).await;
    house.ask(ROLLOUT, json!({"reason": "two"})).await;
    let (status, list) = house.get("/rollouts?split=shop").await;
    let line = |i: usize, key: &str| list["rollouts"][i][key].clone();
    assert_eq!(
        (status, line(0, "id"), line(0, "state"), line(0, "reason")),
        (200, json!("r2"), json!("running"), json!("two"))
    );
    assert_eq!((line(1, "id"), line(1, "state"), line(2, "id")), (json!("r1"), json!("aborted"), Value::Null));
    assert_eq!(house.get("/rollouts?limit=1").await.1["rollouts"].as_array().unwrap().len(), 1);
    let (status, receipt) = house.get("/rollouts/r1/receipt").await;
    assert_eq!((status, &receipt["id"], &receipt["log"][0]["event"]), (200, &json!("r1"), &json!("started")));
    assert_eq!(serde_json::from_value::<Document>(receipt).unwrap().state, "aborted");
    for (path, status, slug) in [
        ("/rollouts/r9/receipt", 404, "unknown-rollout"),
        ("/rollouts?split=nope", 404, "unknown-split"),
        ("/rollouts?limit=0", 400, "bad-request"),
        ("/rollouts?splt=shop", 400, "bad-request"),
        ("/splits/nope/rollout", 404, "unknown-split"),
    ] {
        assert_eq!(house.refused("GET", path, None).await, (status, slug.into()), "{path}");
    }
}

#[tokio::test]
async fn promote_is_consent_where_consent_is_asked_for() {
    let house = house();
    let steps = json!([{"weight": 10, "for": "1m", "approve": true}, {"weight": 100, "for": "1m"}]);
    let split = house.ask(ROLLOUT, json!({"steps": steps})).await;
    assert_eq!((&split["rollout"]["state"], &split["rollout"]["step"]), (&json!("approval"), &json!(0)));
    assert!(split["rollout"]["commands"].as_array().unwrap().contains(&json!("approve")), "{split}");
    let split = house.ask(&format!("{ROLLOUT}/promote"), json!({"reason": "looks good"})).await;
    assert_eq!(split["weights"], json!({"v1": 90, "v2": 10}));
    assert_eq!(split["override"]["reason"], "approved by local:alice: looks good", "{split}");
    let split = house.ask(&format!("{ROLLOUT}/promote"), json!({"full": true})).await;
    assert_eq!((&split["weights"], &split["rollout"]["step"]), (&json!({"v1": 0, "v2": 100}), &json!(2)));
}

#[tokio::test]
async fn conditions_dry_runs_and_keys_hold_for_rollouts_too() {
    let house = house();
    let before = house.get("/splits/shop").await.1;
    let (_, headers, _) = send(&house.router, request("GET", "/api/v1/splits/shop", &[HOST], "")).await;
    let etag = headers["etag"].to_str().unwrap().to_owned();
    let (status, dry) = house.call("POST", &format!("{ROLLOUT}?dry_run=true"), &[], None).await;
    assert_eq!((status, &dry["dry_run"], &dry["rollout"]["step"]), (200, &json!(true), &json!(1)), "{dry}");
    assert_eq!(house.get("/splits/shop").await.1, before);
    assert_eq!(house.call("POST", ROLLOUT, &[("if-match", &etag)], None).await.0, 200);
    for path in [ROLLOUT.to_owned(), format!("{ROLLOUT}/promote")] {
        let (status, problem) = house.call("POST", &path, &[("if-match", &etag)], None).await;
        assert_eq!((status, slug(&problem)), (412, "revision-changed".into()), "{path}");
    }
    let promote = format!("{ROLLOUT}/promote");
    let (status, dry) = house.call("POST", &format!("{promote}?dry_run=true"), &[], None).await;
    assert_eq!((status, &dry["rollout"]["step"], &dry["changed"]), (200, &json!(2), &json!(true)), "{dry}");
    let key = [("idempotency-key", "step-2")];
    let (_, first) = house.call("POST", &promote, &key, None).await;
    let (status, again) = house.call("POST", &promote, &key, None).await;
    assert_eq!((status, &again["rollout"]["step"]), (200, &json!(2)));
    assert_eq!(first, again);
    assert_eq!(house.get(ROLLOUT).await.1["step"], 2, "the repeat must not lead a step up");
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_begins_nothing() {
    let house = house();
    for (path, body, status, wanted) in [
        ("", r#"{"to":"v9"}"#, 422, "unknown-version"),
        ("", r#"{"to":"v1"}"#, 422, "bad-rollout"),
        ("", r#"{"steps":[]}"#, 422, "bad-rollout"),
        ("", r#"{"steps":[{"weight":5,"for":"1m"},{"weight":4,"for":"1m"}]}"#, 422, "bad-rollout"),
        ("", r#"{"steps":[{"weight":500,"for":"1m"}]}"#, 422, "bad-rollout"),
        ("", r#"{"steps":[{"weight":5,"for":"5"}]}"#, 422, "bad-rollout"),
        ("", r#"{"steps":[{"weight":5}]}"#, 400, "bad-json"),
        ("", r#"{"steps":[{"weight":"5","for":"1m"}]}"#, 400, "bad-json"),
        ("", r#"{"too":"v2"}"#, 400, "bad-json"),
        ("?dryrun=true", "{}", 400, "bad-request"),
        ("/pause", r#"{"full":true}"#, 400, "bad-request"),
        ("/pause", r#"{"ful":true}"#, 400, "bad-json"),
        ("/frobnicate", "{}", 404, "not-found"),
        ("/pause", "{}", 409, "no-rollout"),
    ] {
        let headers = [HOST, ("content-type", "application/json")];
        let full = format!("/api/v1{ROLLOUT}{path}");
        let (got, _, text) = send(&house.router, request("POST", &full, &headers, body)).await;
        assert_eq!(
            (got, slug(&serde_json::from_str(&text).unwrap()).as_str()),
            (status, wanted),
            "{path} {body}: {text}"
        );
    }
    assert_eq!(house.refused("POST", "/splits/nope/rollout", None).await, (404, "unknown-split".into()));
    assert_eq!(house.refused("GET", ROLLOUT, None).await, (409, "no-rollout".into()));
}

#[tokio::test]
async fn a_desk_that_nobody_serves_any_more_says_so() {
    let house = House::new();
    assert_eq!(house.refused("POST", ROLLOUT, None).await, (503, "shutting-down".into()));
    assert_eq!(house.refused("POST", &format!("{ROLLOUT}/pause"), None).await, (503, "shutting-down".into()));
    house.down.store(true, Ordering::SeqCst);
    assert_eq!(house.refused("POST", ROLLOUT, None).await, (503, "shutting-down".into()));
}
