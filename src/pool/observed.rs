//! What is observed of an endpoint, apart from what the operator wants (house.md section 6): two axes that never mix, so
//! that a check that passes cannot undo a drain.
//!
//! Invariant: one writer for each value, its checker for `health`; requests only read.

use std::sync::atomic::{AtomicU8, Ordering};

/// What the active checks say of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Health {
    /// Nobody checks it: it is taken for able.
    #[default]
    Unchecked,
    /// Checked, but with no answer yet that decides: takes no request.
    Checking,
    Up,
    Down,
}

impl Health {
    /// Takes requests, as far as the checks go.
    pub fn is_able(self) -> bool {
        matches!(self, Self::Unchecked | Self::Up)
    }

    fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Checking,
            2 => Self::Up,
            3 => Self::Down,
            _ => Self::Unchecked,
        }
    }
}

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Observed {
    health: AtomicU8,
}

impl Observed {
    pub(super) fn health(&self) -> Health {
        Health::of(self.health.load(Ordering::Acquire))
    }

    /// Returns what it was.
    pub(super) fn set_health(&self, health: Health) -> Health {
        Health::of(self.health.swap(health as u8, Ordering::AcqRel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_kept_and_told_back() {
        let observed = Observed::default();
        let mut before = Health::Unchecked;
        for health in [Health::Checking, Health::Up, Health::Down, Health::Unchecked] {
            assert_eq!(observed.set_health(health), before);
            assert_eq!(observed.health(), health);
            before = health;
        }
    }
}
