//! The tries of one notice at one target: five, with growing pauses.
//!
//! Why so few: whoever reads it after ten minutes has seen the dashboard. Invariant: it ends, after less than four minutes
//! however the target behaves (five tries of ten seconds, four pauses of a minute at most).

use std::time::Duration;

use super::letter::Posted;

/// Before the second try, the third, and so on.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20), Duration::from_secs(60)];

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    /// At which try, from 1.
    Yes(usize),
    /// What the last try said.
    No(String),
}

/// Tries until it is taken, refused for good, or all tries are used up. `chance` gives 0..1. Cancel safe.
pub(super) async fn deliver<F: Future<Output = Posted>>(
    mut post: impl FnMut() -> F,
    mut chance: impl FnMut() -> f64,
) -> Delivered {
    let mut last = String::new();
    for number in 0..=PAUSES.len() {
        match post().await {
            Posted::Taken => return Delivered::Yes(number + 1),
            Posted::Refused(why) => return Delivered::No(why),
            Posted::NotNow(why, wanted) => {
                let Some(pause) = PAUSES.get(number) else { return Delivered::No(why) };
                last = why;
                // Shorter by up to half, so that several weirs do not come back together; but as long as was asked for.
                let pause = pause.mul_f64(1.0 - chance().clamp(0.0, 1.0) / 2.0).max(wanted);
                tokio::time::sleep(pause).await;
            }
        }
    }
    Delivered::No(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Instant;

    fn away() -> Posted {
        Posted::NotNow("away".into(), Duration::ZERO)
    }

    /// The moments of the tries, in seconds from the first, and how it ended.
    async fn tried(answers: &[Posted], chance: f64) -> (Vec<f64>, Delivered) {
        let (began, mut moments) = (Instant::now(), Vec::new());
        let post = || {
            moments.push(began.elapsed().as_secs_f64().round());
            std::future::ready(answers.get(moments.len() - 1).cloned().unwrap_or_else(away))
        };
        let delivered = deliver(post, || chance).await;
        (moments, delivered)
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_the_tries_end() {
        let no = Delivered::No("away".into());
        assert_eq!(tried(&[], 0.0).await, (vec![0.0, 1.0, 6.0, 26.0, 86.0], no.clone()));
        assert_eq!(tried(&[], 1.0).await, (vec![0.0, 1.0, 3.0, 13.0, 43.0], no), "half as long at least");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_over_when_it_is_taken_or_refused() {
        assert_eq!(tried(&[Posted::Taken], 0.0).await, (vec![0.0], Delivered::Yes(1)));
        assert_eq!(tried(&[away(), Posted::Taken], 0.0).await, (vec![0.0, 1.0], Delivered::Yes(2)));
        let refused = Posted::Refused("status 404".into());
        assert_eq!(tried(&[away(), refused], 0.0).await, (vec![0.0, 1.0], Delivered::No("status 404".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_is_left_alone_as_long_as_it_asks() {
        let busy = Posted::NotNow("status 429".into(), Duration::from_secs(30));
        assert_eq!(tried(&[busy, Posted::Taken], 0.0).await, (vec![0.0, 30.0], Delivered::Yes(2)));
    }
}
