//! Tasks that serve one stream after another, shared by a worker's connections.
//!
//! Why not a task per stream: what a request needs while it waits is some four thousand bytes, which a new task allocates,
//! copies several times on its way in and out, and frees.
//! Invariants: a stream never waits for a runner, there is one more if none is idle; few stay when they are not needed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::stream::{self, Stream};
use crate::proxy::worker::Worker;

/// Idle runners kept; half a megabyte.
const KEPT: usize = 128;

/// A worker's idle runners.
#[derive(Default)]
pub(in crate::proxy) struct Runners(RefCell<Vec<Rc<Runner>>>);

#[derive(Default)]
struct Runner {
    next: Cell<Option<Stream>>,
    waker: Cell<Option<Waker>>,
}

impl Runners {
    /// Has the stream served, from the next turn on.
    pub(super) fn serve(&self, worker: &Rc<Worker>, stream: Stream) {
        let idle = self.0.borrow_mut().pop();
        let is_new = idle.is_none();
        let runner = idle.unwrap_or_default();
        runner.next.set(Some(stream));
        if is_new {
            tokio::task::spawn_local(run(worker.clone(), runner));
        } else if let Some(waker) = runner.waker.take() {
            waker.wake();
        }
    }

    /// False if enough are kept already.
    fn keep(&self, runner: &Rc<Runner>) -> bool {
        let mut idle = self.0.borrow_mut();
        let is_kept = idle.len() < KEPT;
        if is_kept {
            idle.push(runner.clone());
        }
        is_kept
    }
}

async fn run(worker: Rc<Worker>, runner: Rc<Runner>) {
    loop {
        let stream = std::future::poll_fn(|cx| runner.poll_next(cx)).await;
        stream::serve(stream).await;
        if !worker.runners.keep(&runner) {
            return;
        }
    }
}

impl Runner {
    fn poll_next(&self, cx: &Context<'_>) -> Poll<Stream> {
        match self.next.take() {
            Some(stream) => Poll::Ready(stream),
            None => {
                self.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_enough_are_kept() {
        let (runners, runner) = (Runners::default(), Rc::default());
        assert!((0..KEPT).all(|_| runners.keep(&runner)));
        assert!(!runners.keep(&runner));
    }
}
