//! Rollouts on real processes: a canary goes up, is held, is taken out, and every request of it is accounted for.

mod detection;
mod equal;
mod handed;
mod kills;
mod story;
mod traffic;
