//! The controller of rollouts with what it needs of the other rooms.

use super::start::World;
use crate::notices::Notices;
use crate::rollout::{Controller, Ports};

/// See the file's head. `World::desk` is served by it from then on; the second call gives nothing.
pub(super) fn controller(world: &mut World, notices: Notices) -> Option<Controller> {
    let (asked, board) = world.asked.take()?;
    let ports =
        Ports { store: world.store.clone(), cells: world.cells.clone(), windows: world.flusher.windows(), notices };
    Some(Controller::new(ports, asked, board))
}
