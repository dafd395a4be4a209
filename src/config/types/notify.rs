//! `[[notify]]`: who is told what happens.

use crate::config::WebUrl;

/// Somebody who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    pub url: WebUrl,
    pub format: NotifyFormat,
    /// At least one, each once.
    pub on: Vec<NotifyOn>,
}

/// What is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyFormat {
    /// All that is known, as one JSON object.
    Json,
    /// A line of text, as Slack's incoming webhooks take it (and those of Mattermost and Rocket.Chat).
    Slack,
}

/// What people can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyOn {
    RolledBack,
    CheckFailed,
    RolloutFinished,
    ApprovalNeeded,
    ConfigRejected,
    RolloutStarted,
    RolloutPaused,
    RolloutSuperseded,
    /// Something could not be carried out and is tried again.
    RolloutStuck,
}

impl NotifyFormat {
    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Slack => "slack",
        }
    }
}

impl NotifyOn {
    /// The default of `on`.
    pub const ALL: [Self; 9] = [
        Self::RolledBack,
        Self::CheckFailed,
        Self::RolloutFinished,
        Self::ApprovalNeeded,
        Self::ConfigRejected,
        Self::RolloutStarted,
        Self::RolloutPaused,
        Self::RolloutSuperseded,
        Self::RolloutStuck,
    ];

    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RolledBack => "rolled-back",
            Self::CheckFailed => "check-failed",
            Self::RolloutFinished => "rollout-finished",
            Self::ApprovalNeeded => "approval-needed",
            Self::ConfigRejected => "config-rejected",
            Self::RolloutStarted => "rollout-started",
            Self::RolloutPaused => "rollout-paused",
            Self::RolloutSuperseded => "rollout-superseded",
            Self::RolloutStuck => "rollout-stuck",
        }
    }
}
