//! What happened: counts per version and worker, what is made of them (metrics, sliding windows), access lines and
//! events.
//!
//! The request path touches only its own worker's cells and its own access buffer: no lock, no label lookup, no
//! shared cache line. Everything else happens once a second on the control thread (`Flusher::flush`), or on the
//! thread that writes access lines.
//!
//! Invariant: a count is never lost and never counted twice, whatever is reloaded: cells are cumulative, the one
//! collector takes differences, and a cell is dropped only after its last holder is gone and its last count is taken.

mod access_line;
mod access_log;
mod bins;
mod buckets;
mod cells;
pub mod events;
mod exposition;
mod flush;
mod format;
mod gauges;
mod json;
pub mod panics;
mod process;
mod registry;
mod rollouts;
mod series;
mod stamp;
mod watch;
mod windows;

pub use access_line::Line;
pub use access_log::{AccessLog, AccessWriter};
pub use buckets::{BUCKETS, bucket_end, bucket_index};
pub use cells::{CodeCell, Counted, Finish, ListenerCell, VersionCell};
pub use exposition::Scrape;
pub use flush::Flusher;
pub use format::Format;
pub use gauges::{CertificateGauge, EndpointGauges, Gauges, NameGauge, Reloads, SplitGauges, VersionGauges};
pub use registry::{Cells, RULE_EPOCHS};
pub use rollouts::{CheckGauge, RolloutGauges};
pub use watch::{Came, Counter, Totals, Watch};
pub use windows::{Stats, Windows};
