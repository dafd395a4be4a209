//! Which route a request takes, and which version it gets. Pure: no clock, no sockets; chance is passed in.
//!
//! Invariants: host and path are compared in one normal form, and that form is what is forwarded; of all routes that
//! match, the most specific wins whatever the order in the file (surface.md section 4).

mod cookie;
mod deck;
mod host;
mod matcher;
mod owners;
mod parameter;
mod path;
mod redirect;
mod sticky;
mod table;

pub use cookie::{cookie, cookies};
pub use deck::{Deck, Shares};
pub use host::{BadHost, normal_host};
pub use matcher::fits;
pub use owners::Owners;
pub use parameter::parameter;
pub use path::{BadPath, normal_path, strip_prefix};
pub use redirect::location;
pub use sticky::{BUCKETS, Bucket, bucket_of, bucket_of_ip, parse_cookie, pick_by_bucket, set_cookie};
pub use table::{Destination, Found, Query, RouteTable, RouteTarget};
