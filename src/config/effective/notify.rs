//! `[[notify]]` with every default filled in; and what of those outside is not for everybody's eyes.

use toml::Value;

use super::{table, text, texts};
use crate::config::{CheckKind, Config, Notify};

pub fn notify(n: &Notify) -> Value {
    let on: Vec<&str> = n.on.iter().map(|on| on.as_str()).collect();
    table([("url", text(&n.url.whole())), ("format", text(n.format.as_str())), ("on", texts(&on))])
}

/// The same configuration with the secrets of addresses masked: all but the server of those who are told, user and
/// password of those who are asked.
pub fn masked(config: &Config) -> Config {
    let mut config = config.clone();
    config.notify.iter_mut().for_each(|notify| notify.url = notify.url.server_alone());
    let rollouts = config.splits.iter_mut().filter_map(|split| split.rollout.as_mut());
    for check in rollouts.flat_map(|rollout| &mut rollout.checks) {
        match &mut check.ask {
            CheckKind::Prometheus { url, .. } | CheckKind::Webhook { url, .. } => *url = url.without_user(),
            CheckKind::Command(_) => {}
        }
    }
    config
}
