//! What the tests of this room share.

// A helper of a test fails it by panicking, as the test itself does; clippy knows only the latter.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::Question;
use crate::config::{Check, CheckAt, CheckKind};
use crate::model::{CheckName, SplitName, VersionName};

/// About `v2` of `shop`, in its second step.
pub(super) fn question(endpoints: &[&str]) -> Question {
    Question {
        split: SplitName::new("shop").unwrap(),
        to: VersionName::new("v2").unwrap(),
        stable: VersionName::new("v1").unwrap(),
        rollout: "01J0".into(),
        step: Some(1),
        weight_percent: 12.5,
        endpoints: endpoints.iter().map(|e| (*e).to_owned()).collect(),
    }
}

pub(super) fn check(ask: CheckKind) -> Check {
    Check {
        name: CheckName::new("smoke").unwrap(),
        at: CheckAt::Always,
        ask,
        every: Duration::from_secs(30),
        failures: 2,
    }
}
