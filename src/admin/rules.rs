//! What each rule of a split has sent to each version: the results of an A/B test.
//!
//! Invariant: every version that a rule may choose has a line, also without requests, in the order of the file.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::context::RuleStatsOf;
use super::dto::StatsDto;
use crate::config::Split;

/// A rule and one of the versions it may choose.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct RuleStatsDto {
    name: String,
    version: String,
    requests: u64,
    /// Requests per second.
    rps: f64,
    /// Errors per request, 0..1.
    error_rate: f64,
    /// Latency in milliseconds; null without requests.
    p50_ms: Option<f64>,
    p90_ms: Option<f64>,
    p95_ms: Option<f64>,
    p99_ms: Option<f64>,
}

pub(super) fn rules(split: &Split, stats: &RuleStatsOf, window: Duration) -> Vec<RuleStatsDto> {
    let versions = || split.versions.iter().enumerate();
    let chosen =
        split.rules.iter().flat_map(|rule| versions().filter(|(i, _)| rule.choice.has(*i)).map(move |v| (rule, v.1)));
    let one = |(rule, version): (&crate::config::Rule, &crate::config::Version)| {
        let StatsDto { requests, rps, error_rate, p50_ms, p90_ms, p95_ms, p99_ms, .. } =
            stats(&split.name, &rule.name, &version.name, window);
        let (name, version) = (rule.name.clone(), version.name.to_string());
        RuleStatsDto { name, version, requests, rps, error_rate, p50_ms, p90_ms, p95_ms, p99_ms }
    };
    chosen.map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Match, Rule, RuleChoice, Version};
    use crate::model::{SplitName, VersionName, Weight};

    #[test]
    fn every_choice_of_every_rule_has_a_line() {
        let name = |text| VersionName::new(text).unwrap();
        let version = |text| Version::new(name(text), Weight::new(1).unwrap(), Vec::new());
        let versions = ["v1", "v2", "v3"].map(version).to_vec();
        let mut split = Split::new(SplitName::new("shop").unwrap(), name("v1"), versions);
        let rule =
            |name: &str, choice| Rule { name: name.into(), matches: vec![Match::default()], choice, test: false };
        let weight = Weight::new(50).unwrap();
        split.rules = vec![
            rule("beta", RuleChoice::Weights(vec![(0, weight), (2, weight)])),
            rule("testers", RuleChoice::Version(1)),
        ];
        let stats = |_: &SplitName, rule: &str, version: &VersionName, window: Duration| {
            let requests = if (rule, version.as_str()) == ("beta", "v3") { window.as_secs() } else { 0 };
            StatsDto { requests, ..StatsDto::default() }
        };
        let found = rules(&split, &stats, Duration::from_secs(60));
        let found: Vec<_> = found.iter().map(|r| (r.name.as_str(), r.version.as_str(), r.requests)).collect();
        assert_eq!(found, [("beta", "v1", 0), ("beta", "v3", 60), ("testers", "v2", 0)]);
    }
}
