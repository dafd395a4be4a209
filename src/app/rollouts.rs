//! The tasks that run rollouts and tell people.

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::start::World;
use crate::model::rfc3339_ms;
use crate::notices::{self, Notice, Notices};
use crate::reload::{ReloadOutcome, ReloadResult, ReloadStatus};
use crate::rollout::{Controller, Ports};

/// See the file's head. What an earlier process has left is taken up; `World::desk` is served from then on; a second call would serve nobody.
pub(super) async fn spawn(world: &mut World, tasks: &mut JoinSet<()>) {
    let (notices, inbox) = notices::channel();
    let store = world.store.clone();
    tasks.spawn(notices::run(inbox, move || store.snapshot().config.notify.clone()));
    tasks.spawn(tell_rejections(world.reloads.status(), notices.clone()));
    let Some((asked, board)) = world.asked.take() else { return };
    let ports =
        Ports { store: world.store.clone(), cells: world.cells.clone(), windows: world.flusher.windows(), notices };
    let mut controller = Controller::new(ports, asked, board);
    controller.take_up().await;
    tasks.spawn(controller.run());
}

/// People are told of a file that was not taken.
async fn tell_rejections(mut status: watch::Receiver<ReloadStatus>, notices: Notices) {
    while status.changed().await.is_ok() {
        let last = status.borrow_and_update().last.clone();
        let Some(ReloadOutcome { result: ReloadResult::Rejected { report, .. }, at, .. }) = last else { continue };
        let (event, key) = ("config-rejected".to_owned(), format!("config-rejected/{}", rfc3339_ms(at)));
        notices.send(Notice { event, split: None, text: report, rollout: None, key, at });
    }
}
