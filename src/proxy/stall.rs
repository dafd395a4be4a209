//! Waiting for somebody who may never move again, without a timer for each: the worker's tick looks.
//!
//! A wait costs nothing until it has to wait for the first time. Invariant: a stall is over only if nothing has moved for
//! its limit, to the tick; whoever waits is woken then.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use super::clock::Clock;
use crate::model::Instant;

/// All that wait on one worker.
#[derive(Debug)]
pub(super) struct Stalls {
    clock: Rc<Clock>,
    waiting: RefCell<Slab<Rc<Watch>>>,
}

#[derive(Debug)]
struct Watch {
    limit: Duration,
    since: Cell<Option<Instant>>,
    is_over: Cell<bool>,
    waker: RefCell<Waker>,
}

/// One wait of many steps.
#[derive(Debug)]
pub(super) struct Stall {
    all: Rc<Stalls>,
    limit: Option<Duration>,
    entry: Option<(usize, Rc<Watch>)>,
}

impl Stalls {
    pub(super) fn new(clock: Rc<Clock>) -> Rc<Self> {
        Rc::new(Self { clock, waiting: RefCell::default() })
    }

    /// Wakes what has waited for too long. Called by the tick.
    pub(super) fn look(&self) {
        let now = self.clock.now();
        for (_, watch) in self.waiting.borrow().iter() {
            let over = watch.since.get().is_some_and(|since| now.duration_since(since) >= watch.limit);
            if over && !watch.is_over.replace(true) {
                watch.waker.borrow().wake_by_ref();
            }
        }
    }
}

impl Stall {
    /// `None` = waits for ever.
    pub(super) fn new(all: &Rc<Stalls>, limit: Option<Duration>) -> Self {
        Self { all: all.clone(), limit, entry: None }
    }

    /// Called when nothing has moved: ready once that has been so for the limit.
    pub(super) fn poll_over(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Some(limit) = self.limit else { return Poll::Pending };
        let now = self.all.clock.now();
        let (_, watch) = self.entry.get_or_insert_with(|| {
            let watch = Rc::new(Watch {
                limit,
                since: Cell::new(None),
                is_over: Cell::new(false),
                waker: RefCell::new(cx.waker().clone()),
            });
            (self.all.waiting.borrow_mut().insert(watch.clone()), watch)
        });
        if watch.is_over.get() {
            return Poll::Ready(());
        }
        if watch.since.get().is_none() {
            watch.since.set(Some(now));
        }
        watch.waker.borrow_mut().clone_from(cx.waker());
        Poll::Pending
    }

    /// Something has moved.
    pub(super) fn progress(&self) {
        if let Some((_, watch)) = &self.entry {
            watch.since.set(None);
        }
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        if let Some((key, _)) = self.entry.take() {
            self.all.waiting.borrow_mut().try_remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn tick(stalls: &Stalls, by: Duration) {
        tokio::time::advance(by).await;
        stalls.clock.tick();
        stalls.look();
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_standstill_of_the_whole_limit_is_over() {
        let stalls = Stalls::new(Rc::new(Clock::new()));
        let mut stall = Stall::new(&stalls, Some(Duration::from_secs(3)));
        let cx = Context::from_waker(Waker::noop());
        assert!(stall.poll_over(&cx).is_pending());
        tick(&stalls, Duration::from_secs(2)).await;
        stall.progress();
        assert!(stall.poll_over(&cx).is_pending());
        tick(&stalls, Duration::from_secs(2)).await;
        assert!(stall.poll_over(&cx).is_pending());
        tick(&stalls, Duration::from_secs(1)).await;
        assert!(stall.poll_over(&cx).is_ready());
        drop(stall);
        assert!(stalls.waiting.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_is_kept() {
        let stalls = Stalls::new(Rc::new(Clock::new()));
        let mut stall = Stall::new(&stalls, None);
        assert!(stall.poll_over(&Context::from_waker(Waker::noop())).is_pending());
        assert!(stalls.waiting.borrow().is_empty());
    }
}
