//! Which route a request takes, and which version it gets. Pure: no clock, no sockets; chance is passed in.
//!
//! Invariants: host and path are compared in one normal form, and that form is what is forwarded; of all routes that
//! match, the most specific wins whatever the order in the file (surface.md section 4).

mod deck;
mod host;
mod owners;
mod path;
mod sticky;
mod table;

pub use deck::{Deck, Shares};
pub use host::{BadHost, normal_host};
pub use owners::Owners;
pub use path::{BadPath, normal_path};
pub use sticky::{BUCKETS, Bucket, bucket_of, bucket_of_ip, parse_cookie, pick_by_bucket, set_cookie};
pub use table::{Destination, Query, RouteTable, RouteTarget};
