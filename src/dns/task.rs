//! One name, asked again and again; what changes goes through the one write path.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use super::ask::Asker;
use super::rule::{Heard, LIMIT, Terms, Turn};
use super::status::{NameStatus, Statuses};
use crate::config::NameTarget;
use crate::model::{Actor, Instant, Source};
use crate::state::{Change, Order, Resolved, Store};

/// How a name is asked for; may change while it is.
#[derive(Clone, Debug)]
pub(super) struct How {
    pub terms: Terms,
    pub asker: Arc<Asker>,
}

/// Runs until the supervisor lets go of `how`.
pub(super) async fn follow(name: NameTarget, mut how: watch::Receiver<How>, statuses: Statuses, store: Arc<Store>) {
    let mut rng = fastrand::Rng::new();
    // What the pools were last told: nothing by us, though a task before us may have known more.
    let mut told: Arc<[Resolved]> = Arc::default();
    loop {
        let now = how.borrow_and_update().clone();
        let answer = now.asker.ask(&name).await;
        let asked = Instant::now();
        let heard = statuses.update(&name, |known| {
            let heard = known.hear(answer, &now.terms, asked, &mut rng);
            (heard, known.addresses.clone())
        });
        // Only a supervisor that has gone on without us forgets it.
        let Some((heard, addresses)) = heard else { return };
        tell(&name, &heard, statuses.of(&name));
        if addresses != told && apply(&name, &addresses, &store).await {
            told = addresses;
        }
        statuses.in_force(&name);
        if !rest(asked + heard.wait, asked, &now, &mut how).await {
            return;
        }
    }
}

/// Until it is time to ask again, or the way of asking has changed; false when nobody wants to know any more.
async fn rest(mut until: Instant, asked: Instant, before: &How, how: &mut watch::Receiver<How>) -> bool {
    loop {
        match timeout_at(until, how.changed()).await {
            Err(_) => return true,
            Ok(Err(_)) => return false,
            Ok(Ok(())) => {}
        }
        let now = how.borrow_and_update().clone();
        if !Arc::ptr_eq(&now.asker, &before.asker) || now.terms.refused != before.terms.refused {
            return true;
        }
        until = until.min(asked + now.terms.refresh);
    }
}

/// Puts addresses into the pools; false if it could not be. It may have to wait for whoever is writing to the disk.
async fn apply(name: &NameTarget, addresses: &Arc<[Resolved]>, store: &Arc<Store>) -> bool {
    let list = addresses.iter().map(|found| found.address.to_string()).collect::<Vec<_>>().join(" ");
    let order = Order {
        id: fastrand::u128(..),
        change: Change::Resolved { name: name.clone(), addresses: addresses.clone() },
        by: Actor("dns".to_owned()),
        source: Source::File,
        reason: None,
        if_match: None,
        dry_run: false,
    };
    let store = store.clone();
    let applied = spawn_blocking(move || store.apply(order).map_err(|error| error.to_string())).await;
    match applied.unwrap_or_else(|panicked| Err(panicked.to_string())) {
        Ok(applied) => {
            if applied.changed {
                tracing::info!(event = "name-changed", name = %name, addresses = list);
            }
            true
        }
        Err(error) => {
            tracing::error!(event = "name-changed", name = %name, error, "not put into force; tried with the next answer");
            false
        }
    }
}

fn tell(name: &NameTarget, heard: &Heard, status: Option<NameStatus>) {
    let (kept, reason) = status.map(|s| (s.addresses, s.error.unwrap_or_default())).unwrap_or_default();
    match heard.turn {
        Some(Turn::Lost) if kept > 0 => tracing::warn!(event = "name-not-resolved", name = %name, reason, kept,
            "its last good answer stays in force"),
        Some(Turn::Lost) => tracing::warn!(event = "name-not-resolved", name = %name, reason, kept,
            "it has no address yet; it is asked for again and again"),
        Some(Turn::Found) => tracing::info!(event = "name-resolved", name = %name, addresses = kept),
        None => {}
    }
    if heard.surplus > 0 && heard.changed {
        let surplus = heard.surplus;
        tracing::warn!(event = "name-too-large", name = %name, surplus, "only {LIMIT} of its addresses are used");
    }
}
