//! Why accepting failed, and why a connection was closed for the sake of others: the words of metrics and logs.
//!
//! Invariant: the text of each is a contract with dashboards and alerts (faults.md 3.1 and 3.5).

/// Why accepting failed or had to wait (`weir_accept_errors_total{listener,reason}`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcceptFault {
    /// No file descriptor is left, for this process or on the whole system, or only those kept for other purposes.
    Descriptors,
    /// The kernel has no memory for another connection.
    Memory,
    /// Anything else.
    Other,
}

impl AcceptFault {
    /// All, in the order of their index.
    pub const ALL: [Self; 3] = [Self::Descriptors, Self::Memory, Self::Other];

    /// The label used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::Other => "other",
        }
    }
}

/// Why a connection was closed for the sake of others (`weir_shed_connections_total{listener,reason}`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shed {
    /// It was idle, and the listener had `limits.connections` of them.
    ConnLimit,
    /// It was idle, and descriptors were short.
    Descriptors,
    /// It was new, and there was no room for it.
    Rejected,
}

impl Shed {
    /// All, in the order of their index.
    pub const ALL: [Self; 3] = [Self::ConnLimit, Self::Descriptors, Self::Rejected];

    /// The label used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnLimit => "conn-limit",
            Self::Descriptors => "descriptors",
            Self::Rejected => "rejected",
        }
    }
}
