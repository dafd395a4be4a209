//! `weir simulate`: a rollout on made-up traffic, to choose its steps and margins before production.
//!
//! The engine, the feed, the machine and the deck are those of the product; what is made up is who asks, how it ends and
//! how long it takes. Time is virtual: slices of 10 ms, bins of 100 ms, a look of the machine each second.
//! Owns: the traffic, the repetition of a rollout, the figures over all runs. Refuses: clocks, sockets, the operating
//! system's chance.
//! Invariants: the same setup gives the same report to the last bit, on any number of threads; a canary's request counts
//! as harmed exactly if it failed and began before the weights were taken back.

mod figures;
mod report;
mod run;
mod setup;
mod text;
mod traffic;

#[cfg(test)]
mod tests;

pub use report::{Ends, Report, StepReport, Until};
pub use setup::{BadSetup, Setup, Traffic};

use run::Run;

/// Runs the rollout as often as asked, on all processors.
///
/// # Errors
/// There is nothing to simulate, or a number is out of range.
pub fn simulate(setup: &Setup) -> Result<Report, BadSetup> {
    let prepared = setup::Prepared::new(setup)?;
    let mut rng = fastrand::Rng::with_seed(setup.seed);
    let seeds: Vec<u64> = (0..setup.runs).map(|_| rng.u64(..)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(seeds.len().max(1));
    let runs: Vec<Run> = std::thread::scope(|scope| {
        let share = |chunk: &'_ [u64]| chunk.iter().map(|&seed| run::run(&prepared, seed)).collect::<Vec<_>>();
        let chunks = seeds.chunks(seeds.len().div_ceil(threads).max(1));
        let workers: Vec<_> = chunks.map(|chunk| scope.spawn(move || share(chunk))).collect();
        workers.into_iter().flat_map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    Ok(Report::of(&prepared, &runs))
}
