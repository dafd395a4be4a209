//! Words shared by every room: names, addresses, weights, revisions, causes of failure. No behaviour beyond checked constructors.
//!
//! Invariant: a value of one of these types is valid by construction, so no other room checks it again.

mod address;
mod cause;
mod name;
mod shortage;
mod time;
mod weight;

pub use address::{Address, BadAddress};
pub use cause::{Cause, Refusal};
pub use name::{BadName, CheckName, ListenerName, RouteName, SplitName, VersionName};
pub use shortage::{AcceptFault, Shed};
pub use time::rfc3339_ms;
pub use tokio::time::Instant;
pub use weight::{BadWeight, Revision, Weight, Weights};

/// What an in-flight piece of work is, for the counts a drain shows while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An ordinary exchange: ends with the response body.
    Request,
    /// A response that streams for long (SSE, gRPC streams).
    Stream,
    /// A tunnel after `101` or `CONNECT` (WebSocket).
    Upgrade,
}

impl Kind {
    /// All kinds, in the order of their index.
    pub const ALL: [Self; 3] = [Self::Request, Self::Stream, Self::Upgrade];

    /// The label used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Stream => "stream",
            Self::Upgrade => "upgrade",
        }
    }
}

/// Who asked for a change, as shown in history, events and views: `file`, `token:ci`, `local:alice`, `analysis:errors`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Actor(pub String);

/// Which way a change came in. Decides whether it may stand above the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The configuration file (start or reload).
    File,
    /// The admin API, called directly.
    Api,
    /// The command line.
    Cli,
    /// The page.
    Dashboard,
    /// The rollout controller's next step.
    Rollout,
    /// The analysis' verdict.
    Analysis,
    /// A failed check.
    Check,
}

impl Source {
    /// The label used in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
            Self::Cli => "cli",
            Self::Dashboard => "dashboard",
            Self::Rollout => "rollout",
            Self::Analysis => "analysis",
            Self::Check => "check",
        }
    }
}
