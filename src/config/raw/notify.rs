//! `[[notify]]`: who is told what happens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who is told what happens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawNotify {
    /// Asked by POST; a secret, so better `${NAME}`.
    #[schemars(required)]
    pub url: Option<String>,
    /// `json`: all that is known; `slack`: a line of text.
    #[serde(default)]
    pub format: RawNotifyFormat,
    /// Of what; default: of everything.
    pub on: Option<Vec<RawNotifyOn>>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawNotifyFormat {
    Slack,
    #[default]
    Json,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawNotifyOn {
    RolledBack,
    CheckFailed,
    RolloutFinished,
    ApprovalNeeded,
    ConfigRejected,
    RolloutStarted,
    RolloutPaused,
    RolloutSuperseded,
    RolloutStuck,
}
