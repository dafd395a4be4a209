//! When weir ends tunnels: each at its own moment before the deadline of its drain, so that their clients do not all come
//! back at once.
//!
//! A tunnel is told in the last quarter of its time, but not earlier than ten seconds before its end, with two seconds
//! (less if all of it is short) left to close. Why not at the deadline: a thousand clients that connect anew in the same
//! instant are a flood, and that deadline is a promise to whoever stops the endpoint. Invariants: all is over at the
//! deadline; one that was told is not told again; nobody is told once the drain was called off.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use super::client::Client;
use crate::model::{Instant, Kind};
use crate::pool::{Deadlines, Endpoint};

/// What a client and an endpoint have to close, at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// Over how long the tunnels of one endpoint are told, at most.
const SPREAD: Duration = Duration::from_secs(10);

/// Why a tunnel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its endpoint, version or listener goes.
    Drain,
    /// The process does.
    Shutdown,
}

impl Why {
    /// The code of the close frame (RFC 6455 section 7.4.1, and IANA's registry for the second).
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Drain => 1001,
            Self::Shutdown => 1012,
        }
    }
}

/// What a tunnel is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) why: Why,
    /// When it ends, closed or not.
    pub(super) over: Instant,
}

/// A drain as its tunnels see it.
#[derive(Clone, Copy, Debug)]
struct Limit {
    why: Why,
    begun: Instant,
    over: Instant,
}

impl Limit {
    /// When a tunnel is told; `chance` is its own, 0 to 1.
    fn told_at(&self, chance: f64) -> Instant {
        let (patience, window) = self.parts();
        self.over - patience - window.mul_f64(chance)
    }

    /// Of the whole time: to close in, and to be told in.
    fn parts(&self) -> (Duration, Duration) {
        let quarter = self.over.saturating_duration_since(self.begun) / 4;
        (quarter.min(PATIENCE), quarter.min(SPREAD))
    }

    /// All have as long to close, so that those that were told early do not linger.
    fn order(&self, now: Instant) -> Order {
        Order { why: self.why, over: self.over.min(now + self.parts().0) }
    }
}

/// The end of the process: when this worker began it, when it was asked for, and when all must be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    pub(super) since: Instant,
    pub(super) begun: Instant,
    pub(super) over: Instant,
}

/// A worker's tunnels.
#[derive(Debug, Default)]
pub(super) struct Tunnels(RefCell<Slab<Rc<Watched>>>);

#[derive(Debug)]
struct Watched {
    endpoint: Arc<Endpoint>,
    client: Rc<Client>,
    /// `drain.upgraded_timeout`.
    time: Duration,
    chance: f64,
    order: Cell<Option<Order>>,
    task: RefCell<Option<Waker>>,
}

/// What may end a tunnel, each if it goes away, or since when it does.
#[derive(Clone, Copy, Debug, Default)]
struct Going {
    endpoint: Option<Deadlines>,
    listener: Option<Instant>,
    process: Option<Closing>,
}

impl Going {
    /// The one that tells a tunnel first. `time`: what a drain gives tunnels.
    fn first(self, time: Duration, chance: f64) -> Option<Limit> {
        let after = |begun: Instant| Deadlines::new(begun, Duration::ZERO, time).of(Kind::Upgrade);
        let drain = |begun, over| Limit { why: Why::Drain, begun, over };
        let endpoint = self.endpoint.map(|d| drain(d.begun, d.upgrades));
        let listener = self.listener.map(|begun| drain(begun, after(begun)));
        // Told in the last part of what the delay has left, else those whose time falls into it would go all at once.
        let process = self.process.map(|c| Limit {
            why: Why::Shutdown,
            begun: c.since.max(c.begun),
            over: c.over.min(after(c.begun)),
        });
        [endpoint, listener, process].into_iter().flatten().min_by_key(|limit| limit.told_at(chance))
    }
}

impl Tunnels {
    /// One more; `time` is what a drain gives it, `chance` when in its last part it goes, 0 to 1.
    pub(super) fn enter(
        self: &Rc<Self>,
        (endpoint, client): (&Arc<Endpoint>, &Rc<Client>),
        time: Duration,
        chance: f64,
    ) -> Leaving {
        client.tunnels.set(client.tunnels.get() + 1);
        let watched = Rc::new(Watched {
            endpoint: endpoint.clone(),
            client: client.clone(),
            time,
            chance,
            order: Cell::new(None),
            task: RefCell::new(None),
        });
        let key = self.0.borrow_mut().insert(watched.clone());
        Leaving { all: self.clone(), key, watched }
    }

    /// Tells those whose time has come. Called by the tick.
    pub(super) fn look(&self, now: Instant, closing: Option<Closing>) {
        for (_, tunnel) in self.0.borrow().iter().filter(|(_, t)| t.order.get().is_none()) {
            let (endpoint, listener) = (tunnel.endpoint.deadlines(), tunnel.client.closing());
            let going = Going { endpoint, listener, process: closing };
            let Some(limit) = going.first(tunnel.time, tunnel.chance) else { continue };
            if limit.told_at(tunnel.chance) <= now {
                tunnel.order.set(Some(limit.order(now)));
                tunnel.task.borrow().iter().for_each(Waker::wake_by_ref);
            }
        }
    }
}

/// A tunnel's own end of the list.
#[derive(Debug)]
pub(super) struct Leaving {
    all: Rc<Tunnels>,
    key: usize,
    watched: Rc<Watched>,
}

impl Leaving {
    /// Ready once it is to end. Only the tunnel's own task calls this.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Order> {
        let mut task = self.watched.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        self.watched.order.get().map_or(Poll::Pending, Poll::Ready)
    }

    /// It was told.
    pub(super) fn is_told(&self) -> bool {
        self.watched.order.get().is_some()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let client = &self.watched.client;
        client.tunnels.set(client.tunnels.get().saturating_sub(1));
        self.all.0.borrow_mut().try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(begun: Instant, time: Duration) -> Limit {
        Limit { why: Why::Drain, begun, over: begun + time }
    }

    #[test]
    fn tunnels_are_told_over_a_while_and_all_in_time() {
        let now = Instant::now();
        for (seconds, first, last) in [(3600.0, 3588.0, 3598.0), (25.0, 16.75, 23.0), (4.0, 2.0, 3.0), (0.0, 0.0, 0.0)]
        {
            let limit = limit(now, Duration::from_secs_f64(seconds));
            let told = |chance| limit.told_at(chance).duration_since(now).as_secs_f64();
            assert!((told(1.0) - first).abs() < 1e-6 && (told(0.0) - last).abs() < 1e-6, "{seconds}");
            assert!(limit.order(now + Duration::from_secs_f64(last)).over <= limit.over);
        }
    }

    #[test]
    fn what_tells_first_wins() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let told = |going: Going| {
            going.first(3600 * second, 0.0).map(|limit| (limit.why, (limit.told_at(0.0) - now).as_secs()))
        };
        let process = Some(Closing { since: now, begun: now, over: now + 25 * second });
        let endpoint = Some(Deadlines::new(now, second, 100 * second));
        let none = Going::default();
        assert_eq!(told(none), None);
        assert_eq!(told(Going { listener: Some(now), ..none }), Some((Why::Drain, 3598)));
        assert_eq!(told(Going { endpoint, listener: Some(now), ..none }), Some((Why::Drain, 98)));
        assert_eq!(told(Going { endpoint, process, ..none }), Some((Why::Shutdown, 23)));
        let brief = Some(Deadlines::new(now, second, 8 * second));
        assert_eq!(told(Going { endpoint: brief, process, ..none }), Some((Why::Drain, 6)));
    }

    #[test]
    fn the_end_of_the_process_is_the_nearer_of_both_and_spreads_what_a_delay_has_left() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let closing = |delay: u32| Closing { since: now + delay * second, begun: now, over: now + 25 * second };
        let first = |delay, time| Going { process: Some(closing(delay)), ..Going::default() }.first(time, 1.0).unwrap();
        assert_eq!(first(0, 3600 * second).over, now + 25 * second);
        assert_eq!(first(0, 10 * second).over, now + 10 * second);
        assert!(first(21, 3600 * second).told_at(1.0) > now + 22 * second);
    }

    #[test]
    fn an_even_chance_spreads_them_evenly() {
        let (now, mut rng) = (Instant::now(), fastrand::Rng::with_seed(7));
        let limit = limit(now, Duration::from_secs(100));
        let told: Vec<f64> =
            (0..1000).map(|_| limit.told_at(rng.f64()).duration_since(now).as_secs_f64() - 88.0).collect();
        for tenth in 0..10 {
            let here = told.iter().filter(|at| (f64::from(tenth)..f64::from(tenth + 1)).contains(*at)).count();
            assert!((60..140).contains(&here), "{here} of 1000 in tenth {tenth}");
        }
    }
}
