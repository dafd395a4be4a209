//! All names of a configuration asked for once, for `weir check`: nothing follows from it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::ask::Asker;
use super::rule::{Known, Terms};
use super::supervisor::wanted;
use crate::config::{Config, NameTarget};
use crate::model::Instant;

/// The names that have no address now, and why, in their order. Those that are not answered within `limit` are among
/// them, so that a machine without a network is not kept waiting.
pub async fn unresolved(config: &Config, limit: Duration) -> Vec<(NameTarget, String)> {
    let asker = Arc::new(Asker::new(&config.dns));
    let until = Instant::now() + limit;
    let mut asked = JoinSet::new();
    for (name, refresh) in wanted(config) {
        let (asker, terms) = (asker.clone(), Terms { refresh, refused: Some(config.admin.bind.into()) });
        asked.spawn(async move {
            let why = match tokio::time::timeout_at(until, asker.ask(&name)).await {
                Ok(answer) => {
                    let mut known = Known::default();
                    known.hear(answer, &terms, Instant::now(), &mut fastrand::Rng::new());
                    known.failure.map(|failure| failure.to_string())
                }
                Err(_) => Some("no answer in time".to_owned()),
            };
            why.map(|why| (name, why))
        });
    }
    let mut unresolved: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
    unresolved.sort();
    unresolved
}
