//! The controller of rollouts with what it needs of the other rooms.

use std::sync::Arc;

use super::start::World;
use crate::notices::Notices;
use crate::rollout::{Controller, Ports};

/// See the file's head. `World::desk` is served by it from then on; the second call gives nothing.
pub(super) fn controller(world: &mut World, notices: Notices) -> Option<Controller> {
    let (asked, board) = world.asked.take()?;
    let (history, rate) = (world.flusher.windows(), world.flusher.windows());
    let ports = Ports {
        store: world.store.clone(),
        cells: world.cells.clone(),
        history: Arc::new(move |split, version| history.history(split, version)),
        per_second: Arc::new(move |split| rate.rate(split)),
        notices,
    };
    Some(Controller::new(ports, asked, board))
}
