//! `weir rollout`: start, commands, a look, receipts; and with `--wait` the whole way to the end.
//!
//! Invariants: what is printed comes from the answers, never from what was asked for; a wait ends with the end of the
//! very rollout it began with, also if another one has taken its place.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::args::{ChangeArgs, PromoteArgs, RolloutCommand, RolloutStatusArgs, SayArgs, StartArgs};
use super::client::{Answer, Call, Client, segment};
use super::evidence;
use super::exit::{Exit, Failure};
use super::print::Printer;
use super::rollout_views::{Receipt, Rollout, Rollouts};
use super::views::Split;
use super::{receipt, render};
use crate::model::Instant;

/// How often a wait looks.
const LOOK: Duration = Duration::from_secs(1);
/// A weir that is restarted comes back within; after that a wait gives up.
const OUTAGE: Duration = Duration::from_secs(60);

/// Carries out a command; `limit` is how long it may wait.
pub async fn rollout(
    client: &Client,
    printer: Printer,
    command: &RolloutCommand,
    limit: Option<Duration>,
) -> Result<(), Failure> {
    let wait = Wait { client, printer, end: limit.map(|limit| Instant::now() + limit), limit };
    let said = match command {
        RolloutCommand::Start(args) => start(client, args).await?,
        RolloutCommand::Status(args) => return status(&wait, args).await,
        RolloutCommand::Pause(args) => say(client, args, "pause", json!({})).await?,
        RolloutCommand::Resume(args) => say(client, &args.say, "resume", json!({})).await?,
        RolloutCommand::Promote(args) => promote(client, args).await?,
        RolloutCommand::Approve(args) => say(client, &args.say, "approve", json!({})).await?,
        RolloutCommand::Abort(args) => say(client, args, "abort", json!({})).await?,
        RolloutCommand::Receipt { of } => return show_receipt(client, printer, of).await,
        RolloutCommand::List { split, limit } => return list(client, printer, split.as_deref(), *limit).await,
    };
    if !command.waits() {
        return changed(printer, &said);
    }
    let split: Split = said.json()?;
    let id = split.rollout.map(|rollout| rollout.id).unwrap_or_default();
    wait.follow(&split.name, Some(id)).await
}

async fn start(client: &Client, args: &StartArgs) -> Result<Answer, Failure> {
    let mut body = json!({"reason": args.change.reason});
    if let Some(to) = &args.to {
        body["to"] = json!(to);
    }
    if !args.steps.is_empty() {
        let step = |s: &super::args::StepArg| json!({"weight": s.weight, "for": s.hold, "approve": s.approve});
        body["steps"] = args.steps.iter().map(step).collect();
    }
    post(client, rollout_path(&args.split), &args.change, body).await
}

async fn promote(client: &Client, args: &PromoteArgs) -> Result<Answer, Failure> {
    say(client, &args.say.say, "promote", json!({"full": args.full})).await
}

async fn say(client: &Client, args: &SayArgs, action: &str, mut body: Value) -> Result<Answer, Failure> {
    body["reason"] = json!(args.change.reason);
    post(client, format!("{}/{action}", rollout_path(&args.split)), &args.change, body).await
}

async fn post(client: &Client, path: String, change: &ChangeArgs, body: Value) -> Result<Answer, Failure> {
    let path = if change.dry_run { path + "?dry_run=true" } else { path };
    client.call(Call::new(Method::POST, path).body(body)).await
}

fn rollout_path(split: &str) -> String {
    format!("/api/v1/splits/{}/rollout", segment(split))
}

/// `shop  to v2, running, step 1/4 at 5%, 4m 59s left     revision 18, 3 ms, saved`.
fn changed(printer: Printer, answer: &Answer) -> Result<(), Failure> {
    if printer.json {
        printer.body(&answer.body);
        return Ok(());
    }
    let split: Split = answer.json()?;
    let line = split.rollout.as_ref().map(|rollout| line(&split.name, rollout)).unwrap_or_default();
    printer.data(&format!("{line:<45}  {}\n", render::outcome(&split, answer.took)));
    Ok(())
}

fn line(split: &str, rollout: &Rollout) -> String {
    let Rollout { to, state, .. } = rollout;
    let ending = rollout.ending.as_deref().filter(|_| rollout.is_over()).map(super::print::shown);
    let rest = if rollout.is_over() { ending.unwrap_or_default() } else { evidence::progress(rollout) };
    let rest = if rest.is_empty() { rest } else { format!(", {rest}") };
    format!("{split}  to {to}, {state}{rest}")
}

async fn status(wait: &Wait<'_>, args: &RolloutStatusArgs) -> Result<(), Failure> {
    if args.wait.wait {
        return wait.follow(&args.split, None).await;
    }
    // Asked for also where it is not printed: whether there is one at all is its answer.
    let answer = wait.client.call(Call::get(rollout_path(&args.split))).await?;
    if wait.printer.json {
        wait.printer.body(&answer.body);
        return Ok(());
    }
    let answer = wait.client.call(Call::get(format!("/api/v1/splits/{}", segment(&args.split)))).await?;
    wait.printer.data(&render::split(&answer.json()?, wait.printer.paint()));
    Ok(())
}

async fn show_receipt(client: &Client, printer: Printer, of: &str) -> Result<(), Failure> {
    let path = |id: &str| format!("/api/v1/rollouts/{}/receipt", segment(id));
    let answer = match client.call(Call::get(path(of))).await {
        Err(failure) if failure.code == "unknown-rollout" => {
            let newest = newest(client, of).await?;
            client.call(Call::get(path(&newest))).await?
        }
        other => other?,
    };
    if printer.json {
        printer.body(&answer.body);
    } else {
        printer.data(&receipt::receipt(&answer.json()?, printer.paint()));
    }
    Ok(())
}

/// The id of a split's newest rollout.
async fn newest(client: &Client, split: &str) -> Result<String, Failure> {
    let unknown = |text: String| {
        Failure::new(Exit::Failed, "unknown-rollout", text).note("`weir rollout list` shows those that are remembered")
    };
    let path = format!("/api/v1/rollouts?split={}&limit=1", segment(split));
    let answer = match client.call(Call::get(path)).await {
        Err(failure) if failure.code == "unknown-split" => {
            return Err(unknown(format!("there is neither a rollout nor a split `{split}`")));
        }
        other => other?,
    };
    let rollouts: Rollouts = answer.json()?;
    let newest = rollouts.rollouts.into_iter().next().map(|rollout| rollout.id);
    newest.ok_or_else(|| unknown(format!("split `{split}` has not been rolled out yet")))
}

async fn list(client: &Client, printer: Printer, split: Option<&str>, limit: u32) -> Result<(), Failure> {
    let of_split = split.map(|split| format!("&split={}", segment(split))).unwrap_or_default();
    let answer = client.call(Call::get(format!("/api/v1/rollouts?limit={limit}{of_split}"))).await?;
    if printer.json {
        printer.body(&answer.body);
        return Ok(());
    }
    let Rollouts { rollouts } = answer.json()?;
    if rollouts.is_empty() {
        printer.info("no rollouts yet\n");
    } else {
        printer.data(&receipt::list(&rollouts));
    }
    Ok(())
}

/// What a wait needs.
struct Wait<'a> {
    client: &'a Client,
    printer: Printer,
    end: Option<Instant>,
    /// For the message at the end.
    limit: Option<Duration>,
}

/// The rollout as a look has found it, and the answer that says so.
struct Seen {
    rollout: Rollout,
    body: Answer,
}

impl Wait<'_> {
    /// Until the end; tells on stderr whenever state or step have changed.
    async fn follow(&self, split: &str, mut id: Option<String>) -> Result<(), Failure> {
        let mut told = None;
        let mut silent_since = None;
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            match self.look(split, id.as_deref()).await {
                Ok(seen) if seen.rollout.is_over() => return self.over(split, &seen),
                Ok(Seen { rollout, .. }) => {
                    silent_since = None;
                    self.tell(split, &rollout, &mut told);
                    id = Some(rollout.id);
                }
                // A restart of weir is no end of a rollout.
                Err(failure) if failure.exit == Exit::Unreachable => {
                    let since = *silent_since.get_or_insert_with(|| {
                        self.printer.failure(&failure);
                        Instant::now()
                    });
                    if since.elapsed() >= OUTAGE {
                        return Err(failure);
                    }
                }
                Err(failure) => return Err(failure),
            }
            if self.end.is_some_and(|end| Instant::now() >= end) {
                return Err(self.too_late(split, told.as_ref()));
            }
        }
    }

    /// The split's rollout; if another one has taken its place, what its receipt says.
    async fn look(&self, split: &str, id: Option<&str>) -> Result<Seen, Failure> {
        let body = self.client.call(Call::get(rollout_path(split))).await?;
        let rollout: Rollout = body.json()?;
        let Some(id) = id.filter(|id| *id != rollout.id) else { return Ok(Seen { rollout, body }) };
        let body = self.client.call(Call::get(format!("/api/v1/rollouts/{}/receipt", segment(id)))).await?;
        let Receipt { to, state, ending, ended_at, .. } = body.json()?;
        let rollout = Rollout { id: id.to_owned(), to, state, ending, ended_at, ..Rollout::default() };
        Ok(Seen { rollout, body })
    }

    fn tell(&self, split: &str, rollout: &Rollout, told: &mut Option<(String, usize)>) {
        let now = (rollout.state.clone(), rollout.step);
        if told.as_ref() != Some(&now) {
            self.printer.info(&format!("{}\n", line(split, rollout)));
            *told = Some(now);
        }
    }

    fn over(&self, split: &str, Seen { rollout, body }: &Seen) -> Result<(), Failure> {
        let Rollout { id, to, state, ending, .. } = rollout;
        let ending = ending.as_deref().filter(|e| !e.is_empty()).map(|e| format!(": {e}")).unwrap_or_default();
        let text = format!("{split}  rollout to {to} {state}{ending}");
        if self.printer.json {
            self.printer.body(&body.body);
        }
        if state != "finished" {
            return Err(Failure::new(Exit::RolledBack, &format!("rollout-{state}"), text)
                .note(format!("`weir rollout receipt {id}` tells everything")));
        }
        if !self.printer.json {
            self.printer.data(&format!("{}\n", super::print::shown(&text)));
        }
        Ok(())
    }

    fn too_late(&self, split: &str, told: Option<&(String, usize)>) -> Failure {
        let place = told.map(|(state, step)| format!("is {state} at step {step}")).unwrap_or("is unknown".into());
        let limit = self.limit.unwrap_or_default();
        let text = format!("the rollout of {split} {place} after {limit:?}; it goes on");
        Failure::new(Exit::WaitTimeout, "wait-timeout", text)
    }
}
