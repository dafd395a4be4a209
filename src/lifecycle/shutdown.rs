//! How the process goes down: not ready but accepting, then draining, then ended, by one pure rule over time.
//!
//! Why the delay: load balancers and Kubernetes go on sending for a while after readiness has turned; whoever stops
//! accepting at once refuses those. Invariant: the phase only moves forward, and is `Ended` by `timeout` after the
//! signal at the latest, the delay included.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::Shutdown;
use crate::model::Instant;

const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Where the process is on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not on its way.
    Running,
    /// Not ready any more, but still accepting.
    Delay,
    /// Accepting stops, what is in flight finishes; what is left at the deadline is cut.
    Draining { deadline: Instant },
    /// Cut whatever is left.
    Ended,
}

impl Phase {
    /// Where it stands in the order of phases.
    fn rank(self) -> u8 {
        match self {
            Self::Running => 0,
            Self::Delay => 1,
            Self::Draining { .. } => 2,
            Self::Ended => 3,
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything was finished.
    Drained,
    /// The timeout came first: what was left was cut.
    TimedOut,
    /// A second request to end: at once.
    Forced,
}

/// The phase at `now`. `signalled`: when the process was asked to end, if it was. `idle`: nothing is open or in flight
/// any more; counts only once draining has begun, since before that the next client may come at any moment.
pub fn next_phase(config: &Shutdown, signalled: Option<Instant>, now: Instant, idle: bool) -> Phase {
    let Some(signalled) = signalled else { return Phase::Running };
    let deadline = after(signalled, config.timeout);
    if now >= deadline {
        Phase::Ended
    } else if now < after(signalled, config.delay) {
        Phase::Delay
    } else if idle {
        Phase::Ended
    } else {
        Phase::Draining { deadline }
    }
}

/// Goes through the phases from now on, that is, from the moment of the signal. `drained` is first polled when
/// draining begins: it closes the listeners and ends when nothing is open or in flight. `again` ends when the process
/// is asked to end once more. Every phase is published before anything waits in it.
pub async fn drive(
    config: &Shutdown,
    drained: impl Future<Output = ()>,
    again: impl Future<Output = ()>,
    phases: &watch::Sender<Phase>,
) -> Ending {
    let signalled = Instant::now();
    let (mut drained, mut again, mut idle) = (pin!(drained), pin!(again), false);
    loop {
        let phase = next_phase(config, Some(signalled), Instant::now(), idle);
        publish(phases, phase);
        let until = match phase {
            Phase::Running | Phase::Ended => return if idle { Ending::Drained } else { Ending::TimedOut },
            Phase::Delay => after(signalled, config.delay.min(config.timeout)),
            Phase::Draining { deadline } => deadline,
        };
        tokio::select! {
            biased;
            () = &mut again => {
                publish(phases, Phase::Ended);
                return Ending::Forced;
            }
            () = &mut drained, if matches!(phase, Phase::Draining { .. }) => idle = true,
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// Whoever waits for a change hears of each phase once, and never of one that lies behind.
fn publish(phases: &watch::Sender<Phase>, phase: Phase) {
    phases.send_if_modified(|current| {
        let forward = phase.rank() > current.rank();
        if forward {
            *current = phase;
        }
        forward
    });
}

/// An absurdly long time is as good as thirty years.
fn after(start: Instant, wait: Duration) -> Instant {
    start.checked_add(wait).unwrap_or(start + FAR)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn config(delay: u64, timeout: u64) -> Shutdown {
        Shutdown { delay: secs(delay), timeout: secs(timeout) }
    }

    #[test]
    fn the_rule_over_time() {
        let (config, t) = (config(5, 25), Instant::now());
        let at = |n, idle| next_phase(&config, Some(t), t + secs(n), idle);
        assert_eq!(next_phase(&config, None, t, true), Phase::Running);
        assert_eq!((at(0, true), at(4, true)), (Phase::Delay, Phase::Delay), "idle does not shorten the delay");
        assert_eq!(at(5, false), Phase::Draining { deadline: t + secs(25) });
        assert_eq!(at(24, false), Phase::Draining { deadline: t + secs(25) });
        assert_eq!((at(5, true), at(25, false)), (Phase::Ended, Phase::Ended));
    }

    #[test]
    fn the_timeout_counts_from_the_signal_whatever_the_delay() {
        let t = Instant::now();
        assert_eq!(next_phase(&config(60, 25), Some(t), t + secs(24), false), Phase::Delay);
        assert_eq!(next_phase(&config(60, 25), Some(t), t + secs(25), false), Phase::Ended);
        assert_eq!(next_phase(&config(0, 0), Some(t), t, false), Phase::Ended);
        let endless = Shutdown { delay: Duration::ZERO, timeout: Duration::MAX };
        assert!(matches!(next_phase(&endless, Some(t), t + secs(9), false), Phase::Draining { .. }));
    }

    /// Runs `drive` and notes each phase with the second it came at.
    async fn run(
        config: Shutdown,
        drained: impl Future<Output = ()>,
        again: impl Future<Output = ()>,
    ) -> (Ending, Vec<(u64, u8)>) {
        let start = Instant::now();
        let (phases, mut seen) = watch::channel(Phase::Running);
        let notes = tokio::spawn(async move {
            let mut notes = Vec::new();
            while seen.changed().await.is_ok() {
                let rank = seen.borrow_and_update().rank();
                notes.push((start.elapsed().as_secs(), rank));
            }
            notes
        });
        let ending = drive(&config, drained, again, &phases).await;
        drop(phases);
        (ending, notes.await.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn waits_out_the_delay_then_ends_with_the_last_request() {
        let begun = Instant::now();
        let drained = async move {
            assert_eq!(begun.elapsed(), secs(5), "begins to drain after the delay");
            tokio::time::sleep(secs(3)).await;
        };
        let (ending, phases) = run(config(5, 25), drained, pending()).await;
        assert_eq!((ending, phases), (Ending::Drained, vec![(0, 1), (5, 2), (8, 3)]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_finish_is_cut_at_the_timeout() {
        let (ending, phases) = run(config(5, 25), pending(), pending()).await;
        assert_eq!((ending, phases), (Ending::TimedOut, vec![(0, 1), (5, 2), (25, 3)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_at_once_in_every_phase() {
        for second in [2, 7] {
            let (ending, phases) = run(config(5, 25), pending(), tokio::time::sleep(secs(second))).await;
            assert_eq!((ending, *phases.last().unwrap()), (Ending::Forced, (second, 3)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_delay_or_work_it_is_over_at_once() {
        let (ending, phases) = run(config(0, 25), ready(()), pending()).await;
        assert_eq!((ending, phases.last()), (Ending::Drained, Some(&(0, 3))));
    }
}
