//! Which route a request takes, and which version it gets. Pure.

mod table;
pub use table::RouteTable;
