//! Which route a request takes, and which version it gets. Pure: no clock, no sockets; chance is passed in.
//!
//! Invariants: host and path are compared in one normal form, and that form is what is forwarded; of all routes that
//! match, the most specific wins whatever the order in the file (surface.md section 4).

mod deck;
mod host;
mod path;
mod table;

pub use deck::{Deck, Shares};
pub use host::{BadHost, normal_host};
pub use path::{BadPath, normal_path};
pub use table::{Destination, Query, RouteTable, RouteTarget};
