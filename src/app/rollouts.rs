//! The controller of rollouts with what it needs of the other rooms.

use std::sync::Arc;

use super::start::World;
use crate::rollout::{Answer, Controller, Ports};

/// See the file's head. `World::desk` is served by it from then on.
pub(super) fn controller(world: &mut World) -> Option<Controller> {
    let (asked, board) = world.asked.take()?;
    let (history, rate) = (world.flusher.windows(), world.flusher.windows());
    let ports = Ports {
        store: world.store.clone(),
        cells: world.cells.clone(),
        history: Arc::new(move |split, version| history.history(split, version)),
        per_second: Arc::new(move |split| rate.rate(split)),
        ask: Arc::new(|_, _| Box::pin(async { Answer::Error("checks are not built yet".into()) })),
        tell: Arc::new(|_| ()),
    };
    Some(Controller::new(ports, asked, board))
}
