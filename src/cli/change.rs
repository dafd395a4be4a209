//! The commands that change: shift, rollback, release, drain, undrain.
//!
//! Invariant: what is printed comes from the answer to the change, never from what was asked for.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::args::{ChangeArgs, DrainArgs, ReleaseArgs, RollbackArgs, ShiftArgs, Target, UndrainArgs};
use super::client::{Answer, Call, Client, segment};
use super::exit::{Exit, Failure};
use super::print::Printer;
use super::render;
use super::shares::{self, SharesError};
use super::views::{Counts, Drain, Split};
use crate::model::{Instant, Weights};

/// How often a shift is computed anew when somebody else was first.
const TRIES: u32 = 4;
/// `--wait` without `--timeout`.
const DEFAULT_WAIT: Duration = Duration::from_secs(300);
/// One blocking call lasts no longer, so that a lost connection is noticed and the counts are shown as they go.
const WAIT_SLICE: Duration = Duration::from_secs(1);

/// `weir shift`.
pub async fn shift(client: &Client, printer: Printer, args: &ShiftArgs) -> Result<(), Failure> {
    shares::check(&args.parts).map_err(not_shares)?;
    let path = split_path(&args.split);
    let mut tries = 1;
    loop {
        let now = client.call(Call::get(&path)).await?;
        let split: Split = now.json()?;
        let weights = shares::shift(&args.split, &split.weights, &args.parts).map_err(not_shares)?;
        let body = json!({"weights": weights, "hold": false, "reason": args.change.reason});
        let etag = now.etag.or_else(|| Some(format!("\"{}\"", split.revision)));
        let put = Call::new(Method::PUT, with_dry_run(format!("{path}/weights"), args.change.dry_run));
        match client.call(put.body(body).if_match(etag)).await {
            Err(failure) if failure.code == "revision-changed" && tries < TRIES => tries += 1,
            Err(failure) => return Err(failure),
            Ok(answer) => return changed(printer, Some(&split.weights), &answer),
        }
    }
}

fn not_shares(e: SharesError) -> Failure {
    let text = e.to_string();
    match e {
        SharesError::UnknownVersion { .. } => Failure::new(Exit::Refused, "unknown-version", text),
        _ => Failure::usage(text),
    }
}

/// `weir rollback`.
pub async fn rollback(client: &Client, printer: Printer, args: &RollbackArgs) -> Result<(), Failure> {
    let mut body = json!({"force": args.force, "reason": args.change.reason});
    if let Some(to) = &args.to {
        body["to"] = json!(to);
    }
    if let Some(revision) = args.to_revision {
        body["to_revision"] = json!(revision);
    }
    let path = split_path(&args.split);
    let before = weights_now(client, &path).await;
    let post = Call::new(Method::POST, with_dry_run(format!("{path}/rollback"), args.change.dry_run));
    changed(printer, before.as_ref(), &client.call(post.body(body)).await?)
}

/// `weir release`.
pub async fn release(client: &Client, printer: Printer, args: &ReleaseArgs) -> Result<(), Failure> {
    let path = split_path(&args.split);
    let before = weights_now(client, &path).await;
    let delete = Call::new(Method::DELETE, with_dry_run(format!("{path}/override"), args.change.dry_run));
    let body = json!({"reason": args.change.reason});
    changed(printer, before.as_ref(), &client.call(delete.body(body)).await?)
}

/// For the line's left side only: if it cannot be had, the change goes ahead and tells why it fails, if it does.
async fn weights_now(client: &Client, path: &str) -> Option<Weights> {
    client.call(Call::get(path)).await.ok()?.json::<Split>().ok().map(|s| s.weights)
}

fn changed(printer: Printer, before: Option<&Weights>, answer: &Answer) -> Result<(), Failure> {
    if printer.json {
        printer.body(&answer.body);
    } else {
        printer.data(&render::change(before, &answer.json()?, answer.took));
    }
    Ok(())
}

/// `weir drain`, and with `--wait` until nothing is in flight.
pub async fn drain(client: &Client, printer: Printer, args: &DrainArgs, wait: Option<Duration>) -> Result<(), Failure> {
    let start = Instant::now();
    let answer = client.call(drain_call(&args.target, "drain", &args.change)).await?;
    if !args.wait {
        return drained(printer, &args.target, "draining", &answer);
    }
    let limit = wait.unwrap_or(DEFAULT_WAIT);
    let last = wait_drained(client, printer, &args.target, start + limit).await?;
    let state: Drain = last.json()?;
    if printer.json {
        printer.body(&last.body);
    }
    if state.drained {
        if !printer.json {
            let took = render::elapsed(start.elapsed());
            printer.data(&format!("{}  drained, nothing in flight after {took}\n", args.target));
        }
        return Ok(());
    }
    let counts = state.in_flight;
    let kinds = kinds(&counts);
    let text = format!("{} has {} in flight after {limit:?} ({kinds}); it keeps draining", args.target, counts.total);
    Err(Failure::new(Exit::WaitTimeout, "wait-timeout", text))
}

fn kinds(counts: &Counts) -> String {
    format!("{} requests, {} streams, {} upgrades", counts.requests, counts.streams, counts.upgrades)
}

/// The last answer of the wait call: drained, or the time is over. Tells what is left whenever that has changed.
async fn wait_drained(client: &Client, printer: Printer, target: &Target, end: Instant) -> Result<Answer, Failure> {
    let mut told = None;
    loop {
        // The first call does not wait, so that it is seen at once what there is to wait for.
        let longest = if told.is_none() { Duration::ZERO } else { WAIT_SLICE };
        let slice = end.saturating_duration_since(Instant::now()).min(longest);
        let mut path = format!("{}/drain?wait={}ms", version_path(target), slice.as_millis());
        target.endpoint.iter().for_each(|e| path += &format!("&endpoint={}", segment(e)));
        let answer = client.call(Call::get(path).longer(slice)).await?;
        let state = answer.json::<Drain>()?;
        if state.drained || Instant::now() >= end {
            return Ok(answer);
        }
        if told.replace(state.in_flight) != Some(state.in_flight) {
            printer.info(&format!("{target}  {} in flight: {}\n", state.in_flight.total, kinds(&state.in_flight)));
        }
    }
}

/// `weir undrain`.
pub async fn undrain(client: &Client, printer: Printer, args: &UndrainArgs) -> Result<(), Failure> {
    let answer = client.call(drain_call(&args.target, "undrain", &args.change)).await?;
    drained(printer, &args.target, "takes requests again", &answer)
}

fn drain_call(target: &Target, verb: &str, change: &ChangeArgs) -> Call {
    let mut body = json!({"reason": change.reason});
    if let Some(endpoint) = &target.endpoint {
        body["endpoint"] = json!(endpoint);
    }
    Call::new(Method::POST, with_dry_run(format!("{}/{verb}", version_path(target)), change.dry_run)).body(body)
}

fn drained(printer: Printer, target: &Target, what: &str, answer: &Answer) -> Result<(), Failure> {
    if printer.json {
        printer.body(&answer.body);
        return Ok(());
    }
    let split: Split = answer.json()?;
    let in_flight = in_flight(&split, target);
    let left = format!("{target}  {what}, {in_flight} in flight");
    printer.data(&format!("{left:<45}  {}\n", render::outcome(&split, answer.took)));
    Ok(())
}

fn in_flight(split: &Split, target: &Target) -> u64 {
    let endpoints = split.versions.iter().filter(|v| v.name == target.version).flat_map(|v| &v.endpoints);
    let meant = |address: &str| target.endpoint.as_deref().is_none_or(|e| e == address);
    endpoints.filter(|e| meant(&e.address)).map(|e| e.in_flight).sum()
}

fn split_path(split: &str) -> String {
    format!("/api/v1/splits/{}", segment(split))
}

fn version_path(target: &Target) -> String {
    format!("{}/versions/{}", split_path(&target.split), segment(&target.version))
}

fn with_dry_run(path: String, dry_run: bool) -> String {
    if dry_run { path + "?dry_run=true" } else { path }
}
