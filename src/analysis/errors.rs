//! Canary against concurrent stable (section 5): the claim is a line between the two rates, the evidence a mixture.

use serde::{Deserialize, Serialize};

use super::bets::{Bets, Direction, Line};
use super::counts::Tally;
use super::evidence::Evidence;
use super::plug_in::PlugIn;

/// A comparison whose assumed rate of stable comes from outside (the latency cuts bring their own).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Wager {
    direction: Direction,
    line: Line,
    evidence: Evidence,
    /// Kept until the rate or the weight changes.
    #[serde(skip)]
    bets: Option<Box<Bets>>,
}

impl Wager {
    pub(super) fn new(direction: Direction, line: Line) -> Self {
        Self { direction, line, evidence: Evidence::new(direction.log_weights().len()), bets: None }
    }

    /// One tick. With `w` 0 or 1 nothing is bet, but the requests are seen.
    pub(super) fn step(&mut self, q_s: f64, w: f64, canary: &Tally, stable: &Tally) {
        let bets = match self.bets.take().filter(|bets| bets.is_for(q_s, w)) {
            Some(bets) => bets,
            None => Box::new(Bets::new(self.direction, &self.line, q_s, w)),
        };
        let gains = bets.gains(canary, stable);
        self.evidence.step(self.direction.log_weights(), &gains, canary.all);
        self.bets = Some(bets);
    }

    /// A tick in which nothing is bet since too little is known of stable.
    pub(super) fn idle(&mut self, canary_all: f64) {
        self.evidence.idle(self.direction.log_weights(), canary_all);
    }

    pub(super) fn log_e(&self) -> f64 {
        self.evidence.log_e()
    }

    pub(super) fn line(&self) -> &Line {
        &self.line
    }

    pub(super) fn is_sound(&self) -> bool {
        self.evidence.is_sound(self.direction.log_weights().len())
            && self.line.ratio.is_finite()
            && self.line.ratio > 0.0
            && (0.0..=1.0).contains(&self.line.delta)
    }
}

/// The comparison of failure rates.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Comparison {
    wager: Wager,
    stable: PlugIn,
}

impl Comparison {
    pub(super) fn new(direction: Direction, line: Line, history: &Tally) -> Self {
        Self { wager: Wager::new(direction, line), stable: PlugIn::new(history) }
    }

    pub(super) fn step(&mut self, w: f64, canary: &Tally, stable: &Tally) {
        let q_s = self.stable.renew();
        self.wager.step(q_s, w, canary, stable);
        self.stable.learn(stable);
    }

    pub(super) fn log_e(&self) -> f64 {
        self.wager.log_e()
    }

    pub(super) fn line(&self) -> &Line {
        self.wager.line()
    }

    /// Stable's rate by all that is known.
    pub(super) fn stable_rate(&self) -> f64 {
        self.stable.now()
    }

    pub(super) fn is_sound(&self) -> bool {
        self.wager.is_sound() && self.stable.is_sound()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::testing::{close, direction, number, numbers, vectors, whole};

    #[test]
    fn comparisons_are_those_of_the_vectors() {
        for case in vectors()["comparison"]["cases"].as_array().unwrap() {
            let line = Line { ratio: number(&case["rho"]), delta: number(&case["delta"]) };
            let history = Tally::new(whole(&case["history_all"]), whole(&case["history_bad"]));
            let mut test = Comparison::new(direction(&case["direction"]), line, &history);
            let wanted = numbers(&case["log_e"]).into_iter().zip(numbers(&case["stable_rate_used"]));
            for (tick, (log_e, rate)) in case["ticks"].as_array().unwrap().iter().zip(wanted) {
                let canary = Tally::new(whole(&tick[1]), whole(&tick[2]));
                let stable = Tally::new(whole(&tick[3]), whole(&tick[4]));
                close(test.stable.clone().renew(), rate, &case["name"]);
                test.step(number(&tick[0]), &canary, &stable);
                close(test.log_e(), log_e, &case["name"]);
                // What a restart would read back is the same to the bit.
                test = serde_json::from_str(&serde_json::to_string(&test).unwrap()).unwrap();
                assert!(test.is_sound());
            }
        }
    }

    proptest! {
        #[test]
        fn no_counts_make_an_e_value_that_is_no_number(
            ticks in prop::collection::vec((0.0f64..=1.0, any::<(u64, u64, u64, u64)>(), 0u32..64), 1..20),
            ratio in 1.0f64..5.0, delta in 0.0f64..0.5, against: bool
        ) {
            let direction = if against { Direction::Against } else { Direction::For };
            let mut test = Comparison::new(direction, Line { ratio, delta }, &Tally::default());
            for (w, (a, b, c, d), shift) in ticks {
                let [a, b, c, d] = [a, b, c, d].map(|n| n >> shift);
                test.step(w, &Tally::new(a.max(b), a.min(b)), &Tally::new(c.max(d), c.min(d)));
                prop_assert!(test.log_e().is_finite() && test.is_sound(), "{test:?}");
            }
        }
    }
}
