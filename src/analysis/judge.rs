//! From the tests to a verdict and its reason (section 9).

use super::bets::Direction;
use super::engine::{Against, Engine};
use super::interval::{RateInterval, needed_requests, rate_interval};
use super::math::log_sum;
use super::reason::{self, Measure, Sums};
use super::verdict::{Judgment, Part, Shown, Verdict};

/// Weights of errors, objective and latency in the total.
const WEIGHTS: [f64; 3] = [0.6, 0.1, 0.3];
/// Of the proofs for the canary: a total above this forbids `Healthy`.
const DOUBT: f64 = std::f64::consts::LN_10;
/// The level of the rate intervals, which are only shown.
const SHOWN: f64 = 0.05;

struct Finding {
    verdict: Verdict,
    reason: String,
    blamed: Option<Part>,
}

impl Engine {
    /// What is to be said by all that was fed so far. Changes nothing.
    pub fn judge(&self) -> Judgment {
        let Finding { verdict, reason, blamed } = self.find();
        let proof = self.for_it.proof();
        let (ratio, delta) = (proof.line().ratio, proof.line().delta);
        Judgment {
            verdict,
            reason,
            blamed,
            log_e: self.against.log_e(),
            evidence: self.shown(),
            needed: needed_requests(proof.stable_rate(), ratio, delta, self.settings.false_healthy)
                .map(|needed| needed.max(self.for_it.slow_calls_need().unwrap_or_default())),
            is_split_wrong: self.against.share.has_fired(),
        }
    }

    /// Where the failure rates of canary and stable may lie, at 95 %; for display.
    pub fn rates(&self) -> [RateInterval; 2] {
        let Sums { canary, stable } = &self.sums;
        [canary, stable].map(|tally| rate_interval(tally.bad as u64, tally.all as u64, SHOWN))
    }

    fn find(&self) -> Finding {
        if let Some(latched) = &self.latched {
            let (reason, blamed) = (latched.reason.clone(), Some(latched.blamed));
            return Finding { verdict: Verdict::Regressed, reason, blamed };
        }
        let total = Measure { log_e: self.against.log_e(), alpha: self.settings.false_alarm };
        let limit = -self.settings.false_alarm.ln();
        let is_broken = total.log_e >= limit;
        if self.against.relative() >= limit {
            return self.regressed(self.against.heavier(&[Part::Errors, Part::Latency]), total);
        }
        if is_broken && self.stands_out() {
            return self.regressed(self.against.heavier(&[Part::Errors, Part::Objective, Part::Latency]), total);
        }
        let (weakest, log_e) = self.weakest_proof();
        let proof = Measure { log_e, alpha: self.settings.false_healthy };
        let is_proved = log_e >= -self.settings.false_healthy.ln() && total.log_e < DOUBT;
        let all = self.sums.canary.all + self.sums.stable.all;
        let (verdict, reason) = match () {
            () if is_broken => (Verdict::Inconclusive, self.held()),
            () if self.against.share.has_fired() => (Verdict::Inconclusive, reason::split(self.sums.canary.all, all)),
            () if is_proved => {
                let line = self.for_it.proof().line();
                let allowed = reason::allowance(line.ratio, line.delta);
                (Verdict::Healthy, reason::healthy(&self.sums, &allowed, weakest, proof))
            }
            () => (Verdict::Inconclusive, reason::undecided(&self.sums, total, weakest, proof)),
        };
        Finding { verdict, reason, blamed: None }
    }

    /// Whether a broken objective may be blamed on the canary: stable does not break it too, and the comparison says
    /// so as well, or there is none.
    fn stands_out(&self) -> bool {
        let Against { share, errors, objective, max_p99, latency } = &self.against;
        let is_shared = objective.is_shared() || max_p99.as_ref().is_some_and(|slow| slow.objective.is_shared());
        // With a bound on latencies, either comparison may set the canary apart: their mean, so the chance stays beta.
        let apart = match (max_p99, latency) {
            (Some(_), Some(latency)) => {
                let [errors_share, _, latency_share] = WEIGHTS.map(|weight| weight / (WEIGHTS[0] + WEIGHTS[2]));
                log_sum([errors_share.ln() + errors.log_e(), latency_share.ln() + latency.log_e()].into_iter())
            }
            _ => errors.log_e(),
        };
        !is_shared && (apart >= -self.settings.beta.ln() || self.w >= 1.0 || share.has_fired())
    }

    fn regressed(&self, blamed: Part, total: Measure) -> Finding {
        let reason = match (blamed, &self.against.latency) {
            (Part::Objective, _) => match self.broken_p99() {
                Some((slow, max)) => reason::max_p99(slow, &max, total),
                None => reason::objective(&self.sums, &reason::percent(self.against.objective.bound()), total),
            },
            (Part::Latency, Some(latency)) => reason::latency(latency.loudest(), latency.shift(), total),
            _ => {
                let line = self.against.errors.line();
                reason::errors(&self.sums, &reason::allowance(line.ratio, line.delta), total)
            }
        };
        Finding { verdict: Verdict::Regressed, reason, blamed: Some(blamed) }
    }

    fn held(&self) -> String {
        match self.broken_p99() {
            Some((slow, max)) => reason::max_p99_held(slow, &max),
            None => reason::nothing_sets_apart(&self.sums, &reason::percent(self.against.objective.bound())),
        }
    }

    /// The objective on latencies, if it says more than the one on errors.
    fn broken_p99(&self) -> Option<(&Sums, String)> {
        let slow = self.against.max_p99.as_ref()?;
        let max = self.settings.latency.as_ref()?.max_p99?;
        let is_louder = slow.objective.log_e() > self.against.objective.log_e();
        is_louder.then(|| (&slow.sums, format!("{max:?}")))
    }

    /// The proof that is furthest from its limit: all must be won.
    fn weakest_proof(&self) -> (&'static str, f64) {
        let latency = self.for_it.slow_calls();
        let proofs = std::iter::once(("errors", self.for_it.proof().log_e())).chain(latency);
        proofs.reduce(|a, b| if b.1 < a.1 { b } else { a }).unwrap_or(("errors", 0.0))
    }

    fn shown(&self) -> Vec<Shown> {
        let Against { share, errors, max_p99, latency, .. } = &self.against;
        let [errors_weight, objective_weight, latency_weight] = self.against.weights();
        let limit = -self.settings.false_alarm.ln();
        let against = |name, weight, log_e| Shown { name, direction: Direction::Against, weight, log_e, limit };
        let mut shown = vec![
            against("errors", errors_weight, errors.log_e()),
            against("objective", objective_weight, self.against.objective_log_e()),
        ];
        shown.extend(latency.as_ref().map(|latency| against("latency", latency_weight, latency.log_e())));
        shown.extend(max_p99.as_ref().map(|slow| against("max_p99", 0.0, slow.objective.log_e())));
        shown.push(Shown { limit: share.limit(), ..against("split", 0.0, share.log_e()) });
        let limit = -self.settings.false_healthy.ln();
        let for_it = |name, log_e| Shown { name, direction: Direction::For, weight: 0.0, log_e, limit };
        shown.push(for_it("errors", self.for_it.proof().log_e()));
        shown.extend(self.for_it.slow_calls().into_iter().map(|(name, log_e)| for_it(name, log_e)));
        shown.push(for_it("objective", self.for_it.objective.log_e()));
        shown
    }
}

impl Against {
    /// Weights of errors, objective and latency; they sum to 1.
    fn weights(&self) -> [f64; 3] {
        let [errors, objective, latency] = WEIGHTS;
        if self.latency.is_some() {
            return WEIGHTS;
        }
        [errors / (1.0 - latency), objective / (1.0 - latency), 0.0]
    }

    /// Logarithm of the mean e-value of the objectives there are.
    fn objective_log_e(&self) -> f64 {
        let own = self.objective.log_e();
        match &self.max_p99 {
            Some(slow) => log_sum([own, slow.objective.log_e()].into_iter()) - std::f64::consts::LN_2,
            None => own,
        }
    }

    fn mean(&self, objective: f64) -> f64 {
        let latency = self.latency.as_ref().map_or(0.0, |latency| latency.log_e());
        let log_es = [self.errors.log_e(), objective, latency];
        log_sum(log_es.into_iter().zip(self.weights()).map(|(log_e, weight)| log_e + weight.ln()))
    }

    pub(super) fn log_e(&self) -> f64 {
        self.mean(self.objective_log_e())
    }

    /// The total of what compares the versions: the objective is taken to know nothing.
    fn relative(&self) -> f64 {
        self.mean(0.0)
    }

    /// The part that adds most to the total, the first of equals.
    fn heavier(&self, parts: &[Part]) -> Part {
        let [errors, objective, latency] = self.weights().map(f64::ln);
        let says = |part: &Part| match part {
            Part::Errors => errors + self.errors.log_e(),
            Part::Objective => objective + self.objective_log_e(),
            Part::Latency => latency + self.latency.as_ref().map_or(0.0, |latency| latency.log_e()),
        };
        let heavier = |a: Part, b: Part| if says(&b) > says(&a) { b } else { a };
        parts.iter().copied().reduce(heavier).unwrap_or(Part::Errors)
    }
}
