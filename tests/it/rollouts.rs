//! Rollouts on real processes: a canary goes up, is held, is taken out, and every request of it is accounted for.

mod blue_green;
mod checks;
mod detection;
mod equal;
mod handed;
mod kills;
mod prometheus;
mod receiver;
mod story;
mod traffic;
