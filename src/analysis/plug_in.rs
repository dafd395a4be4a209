//! Stable's failure rate as the bets assume it, learned from the past only (section 4). A wrong one costs speed, never
//! validity. It is renewed when the past has grown by a twentieth, so that the bets need not be built anew each tick.

use serde::{Deserialize, Serialize};

use super::counts::Tally;
use super::exact;

/// Above so many requests the past is halved, so that it follows what stable does.
pub(super) const MEMORY: f64 = 200_000.0;
const PRIOR: Tally = Tally { all: 50.0, bad: 0.5 };

/// A rate from counts, never 0 and never 1.
pub(super) fn assumed_rate(past: &Tally) -> f64 {
    ((past.bad + PRIOR.bad) / (past.all + PRIOR.all)).clamp(1e-6, 0.99)
}

/// Whether a past of `all` requests is to be read again when `last` were known the last time.
pub(super) fn is_due(all: f64, last: Option<f64>) -> bool {
    last.is_none_or(|last| all >= 1.05 * last + 10.0)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PlugIn {
    #[serde(with = "exact")]
    all: f64,
    #[serde(with = "exact")]
    bad: f64,
    /// `all` when the rate was last renewed.
    #[serde(with = "exact::option")]
    last: Option<f64>,
    #[serde(with = "exact")]
    rate: f64,
}

impl PlugIn {
    pub(super) fn new(history: &Tally) -> Self {
        let mut plug_in = Self { all: history.all, bad: history.bad, last: None, rate: 0.0 };
        plug_in.forget();
        plug_in.rate = plug_in.now();
        plug_in
    }

    /// The rate for the tick that begins, renewed if due.
    pub(super) fn renew(&mut self) -> f64 {
        if is_due(self.all, self.last) {
            self.last = Some(self.all);
            self.rate = self.now();
        }
        self.rate
    }

    /// The rate by all that is known.
    pub(super) fn now(&self) -> f64 {
        assumed_rate(&Tally { all: self.all, bad: self.bad })
    }

    /// The tick is over: its stable counts are the past of the next one.
    pub(super) fn learn(&mut self, stable: &Tally) {
        self.all += stable.all;
        self.bad += stable.bad;
        self.forget();
    }

    fn forget(&mut self) {
        while self.all > MEMORY {
            self.all /= 2.0;
            self.bad /= 2.0;
            self.last = self.last.map(|last| last / 2.0);
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        (0.0..=MEMORY).contains(&self.all)
            && (0.0..=self.all).contains(&self.bad)
            && self.last.is_none_or(|last| (0.0..=MEMORY).contains(&last))
            && (1e-6..=0.99).contains(&self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_renewed_after_a_twentieth_and_forgets() {
        let mut plug_in = PlugIn::new(&Tally::new(1000, 10));
        assert_eq!(plug_in.renew(), 0.01);
        plug_in.learn(&Tally::new(59, 59));
        assert_eq!(plug_in.renew(), 0.01);
        plug_in.learn(&Tally::new(1, 1));
        assert_eq!(plug_in.renew(), 70.5 / 1110.0);
        plug_in.learn(&Tally::new(10_000_000, 0));
        assert!(plug_in.is_sound() && plug_in.all <= MEMORY, "{plug_in:?}");
    }
}
