//! From a chosen version to an answer: claim an endpoint, send (`send`); again elsewhere as `retry` says.
//!
//! Invariants: a claim is counted before the choice is final; an endpoint sees a request a second time only if `retry`
//! allows it; every attempt that failed is on its version's books before the next one begins.

use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;

use super::choose::{Choice, Selector};
use super::deadlines::Deadlines;
use super::early::Early;
use super::error::ProxyError;
use super::exchange::Exchange;
use super::outgoing::Outgoing;
use super::retry::{self, Failure, Next, Stage, Standing};
use super::send::{Answer, at_endpoint, dial, discard};
use super::view::{VersionView, View};
use super::worker::Worker;
use crate::config::{HeaderEdits, OnUnavailable, Split};
use crate::model::Instant;
use crate::pool::{By, Claim, Pool, RetryPermit, Unavailable, WaitingGuard};

/// How often a request that waits for an endpoint tries one.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One request on its way.
pub(super) struct Trip<'a> {
    pub(super) worker: &'a Rc<Worker>,
    early: &'a Early,
    selector: Selector,
    view: Rc<View>,
    choice: Choice,
    /// The version whose endpoints are tried.
    at: usize,
    stage: Stage,
    /// Endpoints of `at` that failed (bit `i` = endpoint `i`).
    tried: u64,
    /// The endpoint of `at` that was asked last.
    asked: usize,
    /// Versions that could not be used.
    spent: u64,
    retried: u32,
    was_sent: bool,
    /// Of the first attempt, which is claimed together with the choice.
    claimed: Option<(usize, Claim)>,
    permit: Option<RetryPermit>,
    /// Waiting, and until when.
    held: Option<(WaitingGuard, Instant)>,
}

impl<'a> Trip<'a> {
    /// Chooses a version and claims one of its endpoints. A claim that is refused because everything drains means that
    /// the snapshot has just changed: it is read once more.
    pub(super) fn start(
        worker: &'a Rc<Worker>,
        early: &'a Early,
        view: &Rc<View>,
        route: usize,
        selector: Selector,
        exchange: &mut Exchange,
    ) -> Result<Self, ProxyError> {
        let mut view = view.clone();
        loop {
            let (choice, picked) = selector.choose(worker, &view, route).ok_or(ProxyError::NoEndpoint)?;
            let at = (choice.split, choice.version);
            let claimed = claim_with(worker, &view, &selector, at, 0, claim).ok();
            if claimed.is_none() {
                let now = worker.view();
                if !Rc::ptr_eq(&now, &view) && same_route(&now, &view, route) {
                    view = now;
                    continue;
                }
            }
            exchange.chosen(&view, choice, picked, selector.is_fresh(&view, choice.split));
            let (at, stage) = (choice.version, Stage::Own);
            let (tried, asked, spent, retried, was_sent, permit, held) = (0, 0, 0, 0, false, None, None);
            return Ok(Self {
                worker,
                early,
                selector,
                view,
                choice,
                at,
                stage,
                tried,
                asked,
                spent,
                retried,
                was_sent,
                claimed,
                permit,
                held,
            });
        }
    }

    /// `Set-Cookie`, if the client is to remember its bucket.
    pub(super) fn cookie(&self, is_secure: bool) -> Option<HeaderValue> {
        self.selector.cookie(&self.view, self.choice.split, is_secure)
    }

    /// Tries until there is an answer, or nothing more to try.
    pub(super) async fn go(&mut self, exchange: &mut Exchange, outgoing: &mut Outgoing) -> Result<Answer, ProxyError> {
        loop {
            let (failure, answer) = match self.attempt(exchange, outgoing).await {
                Ok(answer) => match self.failing_status(&answer) {
                    None => return Ok(answer),
                    Some(status) => (Failure::Status(status), Some(answer)),
                },
                Err(failure) => (failure, None),
            };
            let next = self.next(outgoing, failure);
            match (failure, answer) {
                (Failure::Status(_), Some(answer)) if next == Next::GiveUp => return Ok(answer),
                (_, Some(answer)) => {
                    exchange.answer_dropped(answer.head.status());
                    discard(answer);
                }
                // While it waits the same failure is told once.
                (Failure::Unsent(_), None) if self.held.is_some() => {}
                (Failure::Unsent(why) | Failure::Sent(why), None) => exchange.attempt_failed(why),
                (Failure::Status(_), None) => {}
            }
            self.was_sent |= !matches!(failure, Failure::Unsent(_));
            if !self.follow(next, exchange).await || !outgoing.make_ready(exchange, self.edits()) {
                // A request that has waited, or would have to, finds nobody.
                return Err(if next == Next::Hold { ProxyError::NoEndpoint } else { why(failure) });
            }
        }
    }

    /// Prepares for the next attempt; false if there is to be none.
    async fn follow(&mut self, next: Next, exchange: &mut Exchange) -> bool {
        match next {
            Next::Retry { .. } => {
                self.retried += 1;
                exchange.retries(self.at);
            }
            Next::Hold => return self.hold(exchange).await,
            Next::Rescue => {
                let Some(stable) = self.stable() else { return false };
                (self.at, self.stage, self.tried) = (stable, Stage::Rescue, 0);
                exchange.goes_to_stable();
            }
            Next::Spill => return self.spill(exchange),
            Next::SpillIfGone => return self.is_gone(exchange).await && self.spill(exchange),
            Next::GiveUp => return false,
        }
        true
    }

    fn next(&mut self, outgoing: &Outgoing, failure: Failure) -> Next {
        let next = retry::next(&self.standing(outgoing, failure), failure);
        if next == (Next::Retry { within_budget: true }) && !self.take_permit() {
            return retry::next(&self.standing(outgoing, failure).without_budget(), failure);
        }
        next
    }

    fn spill(&mut self, exchange: &mut Exchange) -> bool {
        self.spent |= bit(self.at);
        let Some(other) = self.another_version() else { return false };
        (self.at, self.stage, self.tried) = (other, Stage::Spill, 0);
        exchange.spills();
        true
    }

    /// Whether the endpoint asked last takes no connection any more. Asked only where there is somebody to spill to.
    async fn is_gone(&self, exchange: &Exchange) -> bool {
        let left = self.spent | bit(self.at);
        let coin = &self.view.splits[self.choice.split].state.coin.0;
        if coin.iter().all(|(version, _)| left & bit(*version) != 0) {
            return false;
        }
        let upstream = &self.at().upstreams[self.asked];
        match Box::pin(dial(upstream, exchange, &self.split().timeouts)).await {
            Ok(lease) => lease.give_back(),
            Err(why) => return matches!(why, ProxyError::Connect | ProxyError::Tls),
        }
        false
    }

    /// Within the budget of retries in flight (amendments.md 1.4).
    fn take_permit(&mut self) -> bool {
        if self.permit.is_none() {
            let state = &self.view.splits[self.choice.split].state;
            self.permit = state.retry_budget.try_take(state.in_flight(), self.split().retries.budget);
        }
        self.permit.is_some()
    }

    /// Waits for a new snapshot or a moment, then tries whatever the choice is by then; false when waiting is over.
    async fn hold(&mut self, exchange: &mut Exchange) -> bool {
        let OnUnavailable::Hold(hold) = self.split().on_unavailable.clone() else { return false };
        if self.held.is_none() {
            let guard = self.view.splits[self.choice.split].state.holding.enter(hold.requests);
            let over = Deadlines::total(exchange, &self.split().timeouts);
            let until = Instant::now() + hold.timeout;
            self.held = guard.map(|guard| (guard, over.map_or(until, |over| until.min(over))));
        }
        let Some((_, until)) = &self.held else { return false };
        let swapped = self.worker.swapped.clone();
        let swapped = swapped.notified();
        let (until, again) = (*until, Instant::now() + LOOK_AGAIN);
        exchange.waits();
        if until <= Instant::now() {
            return false;
        }
        // A swap that came before `notified` is seen by the view below.
        if Rc::ptr_eq(&self.worker.view(), &self.view) {
            tokio::select! {
                () = swapped => {}
                () = tokio::time::sleep_until(until.min(again)) => {}
            }
        }
        self.choose_again(exchange);
        true
    }

    pub(super) fn choose_again(&mut self, exchange: &mut Exchange) {
        let now = self.worker.view();
        let route = self.choice.route;
        (self.tried, self.retried) = (0, 0);
        if Rc::ptr_eq(&now, &self.view) || !same_route(&now, &self.view, route) {
            return;
        }
        if let Some((choice, _)) = self.selector.choose(self.worker, &now, route) {
            exchange.moves(&now, choice.split);
            (self.at, self.choice, self.view) = (choice.version, choice, now);
        }
    }

    fn edits(&self) -> &HeaderEdits {
        &self.view.snapshot.config.routes[self.choice.route].request_headers
    }

    pub(super) fn split(&self) -> &Split {
        &self.view.snapshot.config.splits[self.choice.split]
    }

    /// The version whose endpoints are tried.
    pub(super) fn at(&self) -> &VersionView {
        &self.view.splits[self.choice.split].versions[self.at]
    }

    pub(super) fn claim(&self) -> Result<(usize, Claim), Unavailable> {
        self.claim_with(claim)
    }

    /// For one who waits in line.
    pub(super) fn claim_or_wait(&self) -> Result<(usize, Claim), Unavailable> {
        self.claim_with(|by, pool| pool.claim_or_wait(by))
    }

    fn claim_with(
        &self,
        how: impl FnOnce(&mut By<'_>, &Pool) -> Result<(usize, Claim), Unavailable>,
    ) -> Result<(usize, Claim), Unavailable> {
        claim_with(self.worker, &self.view, &self.selector, (self.choice.split, self.at), self.tried, how)
    }

    fn standing<'s>(&'s self, outgoing: &'s Outgoing, failure: Failure) -> Standing<'s> {
        let split = self.split();
        let pool = &self.at().pool;
        Standing {
            retries: &split.retries,
            on_unavailable: &split.on_unavailable,
            method: outgoing.method(),
            is_replayable: outgoing.is_replayable(),
            was_sent: self.was_sent || !matches!(failure, Failure::Unsent(_)),
            retried: self.retried,
            has_untried: pool.has_untried(self.tried),
            stage: self.stage,
            is_stable: self.stable() == Some(self.at),
        }
    }

    fn stable(&self) -> Option<usize> {
        let state = &self.view.splits[self.choice.split].state;
        state.versions.iter().position(|v| v.name == state.stable)
    }

    /// By weight among the open versions that were not tried.
    fn another_version(&self) -> Option<usize> {
        let state = &self.view.splits[self.choice.split].state;
        // What is being tried does not have to carry what stable cannot.
        if state.is_rolling_out() && self.stable() == Some(self.at) {
            return None;
        }
        let coin = &state.coin.0;
        let left = || coin.iter().filter(|(version, _)| self.spent & bit(*version) == 0);
        let total: u64 = left().map(|(_, weight)| u64::from(weight.value())).sum();
        let mut at = if total == 0 { return None } else { self.worker.rng.borrow_mut().u64(0..total) };
        left()
            .find(|(_, weight)| {
                let here = at < u64::from(weight.value());
                at = at.saturating_sub(u64::from(weight.value()));
                here
            })
            .map(|(version, _)| *version)
    }

    fn failing_status(&self, answer: &Answer) -> Option<u16> {
        let status = answer.head.status();
        (status.is_server_error() && self.split().retries.on.statuses.contains(&status.as_u16()))
            .then(|| status.as_u16())
    }

    async fn attempt(&mut self, exchange: &mut Exchange, outgoing: &mut Outgoing) -> Result<Answer, Failure> {
        let claimed = match self.claimed.take() {
            Some(claimed) => Ok(claimed),
            None => match self.claim() {
                Ok(claimed) => Ok(claimed),
                Err(Unavailable::None) => Err(ProxyError::NoEndpoint),
                Err(Unavailable::Full) if self.was_sent || self.at().pool.rules().queue == 0 => {
                    Err(ProxyError::Overloaded)
                }
                Err(Unavailable::Full) => Box::pin(self.queue(exchange)).await,
            },
        };
        let (endpoint, claim) = claimed.map_err(Failure::Unsent)?;
        exchange.attempt(claim, self.at);
        self.tried |= bit(endpoint);
        self.asked = endpoint;
        let version = &self.view.splits[self.choice.split].versions[self.at];
        let host = version.hosts.get(endpoint);
        outgoing.name_host(host);
        let is_tunnel = outgoing.handshake.is_some();
        let upstream = if is_tunnel { &version.tunnels[endpoint] } else { &version.upstreams[endpoint] };
        let plan = (host, &self.split().timeouts, self.edits());
        at_endpoint(upstream, plan, self.early, exchange, outgoing).await
    }
}

fn why(failure: Failure) -> ProxyError {
    match failure {
        Failure::Unsent(why) | Failure::Sent(why) => why,
        Failure::Status(_) => ProxyError::NoEndpoint,
    }
}

/// Bits of more than 64 endpoints cannot be told apart: those may be tried again.
fn bit(index: usize) -> u64 {
    1u64.checked_shl(index as u32).unwrap_or(0)
}

/// One who comes while others wait waits behind them.
fn claim(by: &mut By<'_>, pool: &Pool) -> Result<(usize, Claim), Unavailable> {
    if pool.has_line() { Err(Unavailable::Full) } else { pool.claim_by(by) }
}

fn claim_with(
    worker: &Worker,
    view: &View,
    selector: &Selector,
    (split, version): (usize, usize),
    tried: u64,
    how: impl FnOnce(&mut By<'_>, &Pool) -> Result<(usize, Claim), Unavailable>,
) -> Result<(usize, Claim), Unavailable> {
    let at = &view.splits[split].versions[version];
    let mut by = By { tried, key: selector.key(), turns: &at.turns, rng: &mut worker.rng.borrow_mut() };
    how(&mut by, &at.pool)
}

/// Whether a route's index means the same in both views.
fn same_route(now: &View, before: &View, route: usize) -> bool {
    let name = |v: &View| v.snapshot.routes.targets().get(route).map(|t| t.name.clone());
    name(now).is_some() && name(now) == name(before)
}
