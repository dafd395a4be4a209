//! A version's endpoints, and the choice of one for a request.
//!
//! Invariants: who drains, is not able, is ejected or has weight 0 takes nothing new; every endpoint with a free place is
//! found before a request is refused; stable's last available endpoint is never ejected.

use std::cell::RefCell;
use std::sync::Arc;

use super::crowd::Place;
use super::ejection::most_out;
use super::endpoint::{Claim, Endpoint};
use super::in_flight::Refused;
use super::rules::Rules;
use crate::balance::{self, Turns};
use crate::config::{Balance, Eject};
use crate::model::{Cause, Instant};

/// Candidates drawn for one choice, while they turn out to be in slow start. After that the last one is taken.
const DRAWS: usize = 8;
/// What a full weight is for turns and hashes, so that slow start can be told in whole numbers.
const WHOLE: f64 = 1000.0;

/// Why no endpoint of a version could be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The version has no endpoint, or all are tried or not available.
    None,
    /// At least one would do but for `max_in_flight`.
    Full,
}

/// How an attempt at an endpoint went, as far as that is the endpoint's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Good,
    Bad(Cause),
}

/// What a choice goes by.
#[derive(Debug)]
pub struct By<'a> {
    /// Left out (bit `i` = endpoint `i`; only the first 64 endpoints can be told apart, the rest may be tried again).
    pub tried: u64,
    /// Of the request, hashed.
    pub key: Option<u64>,
    pub turns: &'a RefCell<Turns>,
    pub rng: &'a mut fastrand::Rng,
}

/// An endpoint as one version has it. The endpoint itself outlives reloads, what the file says about it does not.
#[derive(Clone, Debug)]
pub struct Member {
    pub endpoint: Arc<Endpoint>,
    /// Relative share among the version's endpoints, 0 to 1,000,000.
    pub weight: u32,
    /// The name that led to it, if one did: what a certificate is asked of.
    pub host: Option<Arc<str>>,
}

impl From<Arc<Endpoint>> for Member {
    fn from(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint, weight: 1, host: None }
    }
}

/// The endpoints of one version.
#[derive(Debug)]
pub struct Pool {
    endpoints: Vec<Arc<Endpoint>>,
    /// In the order of `endpoints`.
    weights: Vec<u32>,
    /// In the order of `endpoints`.
    hosts: Vec<Option<Arc<str>>>,
    /// Sums of the weights up to each; empty if all are the same.
    sums: Vec<u64>,
    /// Hashes of the addresses.
    names: Vec<u64>,
    rules: Rules,
}

impl Pool {
    /// `max_in_flight` is per endpoint; nothing is ever ejected.
    pub fn new(members: impl IntoIterator<Item = impl Into<Member>>, max_in_flight: u32) -> Self {
        Self::with_rules(members, Rules { max_in_flight, ..Rules::default() })
    }

    pub fn with_rules(members: impl IntoIterator<Item = impl Into<Member>>, rules: Rules) -> Self {
        let members = members.into_iter().map(|member| member.into());
        let (endpoints, weights, hosts): (Vec<Arc<Endpoint>>, Vec<u32>, Vec<_>) =
            members.map(|m| (m.endpoint, m.weight, m.host)).collect();
        let is_even = weights.iter().all(|w| *w > 0 && *w == weights[0]);
        let mut sum = 0;
        let sums = weights.iter().map(|w| {
            sum += u64::from(*w);
            sum
        });
        let sums = if is_even { Vec::new() } else { sums.collect() };
        let names = endpoints.iter().map(|e| balance::hash_of(e.address().to_string().as_bytes())).collect();
        Self { endpoints, weights, hosts, sums, names, rules }
    }

    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The weight of each endpoint, in the order of `endpoints`.
    pub fn weights(&self) -> &[u32] {
        &self.weights
    }

    /// The name that led to each endpoint, in the order of `endpoints`.
    pub fn hosts(&self) -> &[Option<Arc<str>>] {
        &self.hosts
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Requests in flight allowed per endpoint.
    pub fn max_in_flight(&self) -> u32 {
        self.rules.max_in_flight
    }

    /// The weights of the endpoints that are available, added up.
    pub fn available(&self) -> u64 {
        let weighted = self.endpoints.iter().zip(&self.weights);
        weighted.filter(|(e, _)| e.is_available()).map(|(_, w)| u64::from(*w)).sum()
    }

    /// Takes the next request: see `claim_by`. By `least_requests`, whatever the rules say.
    ///
    /// # Errors
    /// Those of `claim_by`.
    pub fn claim(&self, tried: u64, rng: &mut fastrand::Rng) -> Result<(usize, Claim), Unavailable> {
        let first = self.least(tried, rng);
        self.claim_from(first, tried)
    }

    /// Chooses an endpoint as the rules say and counts the request in; falls back to the others in order. Returns the
    /// endpoint's index in `endpoints` and the guard.
    ///
    /// # Errors
    /// `Unavailable` when every endpoint is tried, not available or full.
    pub fn claim_by(&self, by: &mut By<'_>) -> Result<(usize, Claim), Unavailable> {
        let first = match (&self.rules.balance, by.key) {
            (Balance::RoundRobin, _) => self.next(by),
            (Balance::Hash(_), Some(key)) => return self.claim_highest(key, by.tried),
            (Balance::Hash(_) | Balance::LeastRequests, _) => self.least(by.tried, by.rng),
        };
        self.claim_from(first, by.tried)
    }

    /// `first`, else those behind it, around.
    fn claim_from(&self, first: Option<usize>, tried: u64) -> Result<(usize, Claim), Unavailable> {
        let Some(first) = first else { return Err(Unavailable::None) };
        match self.endpoints[first].claim(self.rules.max_in_flight) {
            Ok(claim) => Ok((first, claim)),
            Err(why) => self.claim_behind(first, tried, why),
        }
    }

    #[cold]
    fn claim_behind(&self, first: usize, tried: u64, why: Refused) -> Result<(usize, Claim), Unavailable> {
        let mut is_full = why == Refused::Full;
        for i in (first + 1..self.endpoints.len()).chain(0..first).filter(|&i| self.takes(i, tried)) {
            match self.endpoints[i].claim(self.rules.max_in_flight) {
                Ok(claim) => return Ok((i, claim)),
                Err(why) => is_full |= why == Refused::Full,
            }
        }
        Err(if is_full { Unavailable::Full } else { Unavailable::None })
    }

    /// The one with the highest score for the key, else the next highest.
    fn claim_highest(&self, key: u64, mut tried: u64) -> Result<(usize, Claim), Unavailable> {
        let mut is_full = false;
        while let Some(i) = balance::highest(&self.names, key, |i| self.weight_now(i, tried)) {
            match self.endpoints[i].claim(self.rules.max_in_flight) {
                Ok(claim) => return Ok((i, claim)),
                Err(why) if bit(i) == 0 => return self.claim_behind(i, tried, why),
                Err(why) => is_full |= why == Refused::Full,
            }
            tried |= bit(i);
        }
        Err(if is_full { Unavailable::Full } else { Unavailable::None })
    }

    /// Whose turn it is on this worker.
    fn next(&self, by: &mut By<'_>) -> Option<usize> {
        by.turns.borrow_mut().next(self.endpoints.len(), |i| self.weight_now(i, by.tried), by.rng)
    }

    /// The less busy of two random ones; if neither takes requests, one of those who do.
    fn least(&self, tried: u64, rng: &mut fastrand::Rng) -> Option<usize> {
        let n = self.endpoints.len();
        if n <= 1 {
            return (n == 1 && self.takes(0, tried)).then_some(0);
        }
        let first = self.draw(rng);
        let second = self.draw_other(first, rng);
        match (self.takes(first, tried), self.takes(second, tried)) {
            (true, true) => {
                let busy = |i: usize| (i, self.endpoints[i].counts().total(), self.weights[i]);
                Some(balance::less_busy(busy(first), busy(second)))
            }
            (true, false) => Some(first),
            (false, true) => Some(second),
            (false, false) => balance::by_weight(n, |i| self.weight_now(i, tried), rng),
        }
    }

    /// Any one, by what weight each has now.
    fn draw(&self, rng: &mut fastrand::Rng) -> usize {
        let mut drawn = self.draw_any(rng);
        if !self.rules.slow_start.is_zero() {
            for _ in 1..DRAWS {
                let part = self.part(drawn);
                if part >= 1.0 || rng.f64() < part {
                    break;
                }
                drawn = self.draw_any(rng);
            }
        }
        drawn
    }

    /// Another one of at least two.
    fn draw_other(&self, first: usize, rng: &mut fastrand::Rng) -> usize {
        let n = self.endpoints.len();
        if !self.sums.is_empty() || !self.rules.slow_start.is_zero() {
            for _ in 0..DRAWS {
                let drawn = self.draw(rng);
                if drawn != first {
                    return drawn;
                }
            }
        }
        (first + 1 + rng.usize(..n - 1)) % n
    }

    fn draw_any(&self, rng: &mut fastrand::Rng) -> usize {
        match self.sums.last() {
            None | Some(0) => rng.usize(..self.endpoints.len()),
            Some(total) => {
                let at = rng.u64(..total);
                self.sums.partition_point(|sum| *sum <= at)
            }
        }
    }

    /// Somebody could take a request that has been at those (see `By::tried`), full or not.
    pub fn has_untried(&self, tried: u64) -> bool {
        (0..self.endpoints.len()).any(|i| self.takes(i, tried))
    }

    /// May take a new request that has not been there.
    fn takes(&self, i: usize, tried: u64) -> bool {
        tried & bit(i) == 0 && self.weights[i] > 0 && self.endpoints[i].is_available()
    }

    /// Its weight in thousandths, slow start included; 0 if it takes nothing.
    fn weight_now(&self, i: usize, tried: u64) -> u64 {
        if !self.takes(i, tried) {
            return 0;
        }
        let part = if self.rules.slow_start.is_zero() { 1.0 } else { self.part(i) };
        (f64::from(self.weights[i]) * part * WHOLE) as u64
    }

    fn part(&self, i: usize) -> f64 {
        self.endpoints[i].observed.part(self.rules.slow_start, Instant::now)
    }

    /// A request of this version waits already for a place.
    pub fn has_line(&self) -> bool {
        self.rules.queue > 0 && self.endpoints.first().is_some_and(|e| e.crowd().has_line())
    }

    /// A place in line, for a request that found all endpoints full; `None` if the line is full, or there is none.
    pub fn line_up(&self) -> Option<Place> {
        self.endpoints.first()?.crowd().line_up(self.rules.queue)
    }

    /// The same as `claim_by` for who waits in line: where there is no place, the next one given up wakes the line.
    ///
    /// # Errors
    /// Those of `claim_by`.
    pub fn claim_or_wait(&self, by: &mut By<'_>) -> Result<(usize, Claim), Unavailable> {
        self.claim_by(by).or_else(|why| if why == Unavailable::Full { self.mark(by.tried) } else { Err(why) })
    }

    fn mark(&self, tried: u64) -> Result<(usize, Claim), Unavailable> {
        for i in (0..self.endpoints.len()).filter(|&i| self.takes(i, tried)) {
            if let Ok(claim) = self.endpoints[i].claim_or_wait(self.rules.max_in_flight) {
                return Ok((i, claim));
            }
        }
        Err(Unavailable::Full)
    }

    /// What came of an attempt. Consecutive failures eject the endpoint, by the rules; decided here and now, by atomics
    /// alone. `is_stable`: the version is the split's stable one.
    pub fn report(&self, claim: &Claim, outcome: Outcome, is_stable: bool) {
        let Some(rule) = &self.rules.eject else { return };
        let observed = &claim.endpoint().observed;
        match outcome {
            Outcome::Good => observed.succeeded(claim.generation),
            Outcome::Bad(cause) => {
                if observed.failed(rule, claim.generation) {
                    self.eject(rule, claim, cause, is_stable);
                }
            }
        }
    }

    /// Whoever finds another ejection in this version at work leaves it to the next failure.
    #[cold]
    fn eject(&self, rule: &Eject, claim: &Claim, cause: Cause, is_stable: bool) {
        let endpoint = claim.endpoint();
        endpoint.crowd().eject_alone(|| {
            if self.may_lose(endpoint, rule, is_stable) {
                endpoint.observed.eject(rule, claim.generation, cause, Instant::now());
            }
        });
    }

    fn may_lose(&self, endpoint: &Arc<Endpoint>, rule: &Eject, is_stable: bool) -> bool {
        let weighted = self.endpoints.iter().zip(&self.weights).filter(|(_, w)| **w > 0).map(|(e, _)| e);
        let (mut all, mut out, mut others) = (0, 0, 0);
        for other in weighted {
            all += 1;
            out += usize::from(other.is_ejected());
            others += usize::from(!Arc::ptr_eq(other, endpoint) && other.is_available());
        }
        out < most_out(all, rule.max_percent) && (others > 0 || !is_stable)
    }
}

/// Of more than 64 endpoints the rest cannot be told apart.
fn bit(i: usize) -> u64 {
    1u64.checked_shl(i as u32).unwrap_or(0)
}

#[cfg(test)]
mod tests;
