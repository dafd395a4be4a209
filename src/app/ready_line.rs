//! The one line that says where a weir listens that has just started.

use super::Addresses;
use super::start::World;
use crate::model::Instant;

/// See the file's head. `begun`: when the start began.
pub(super) fn addresses(world: &World, begun: Instant) -> Addresses {
    let admin = world.admin.as_ref().and_then(|a| a.local_addr().ok()).unwrap_or(world.config.admin.bind);
    let listening = world.listeners.listening();
    let mut line = format!("weir {}", env!("CARGO_PKG_VERSION").trim_end_matches(".0"));
    for listener in &listening {
        let secure = world.config.listeners.iter().any(|l| l.name == listener.name && l.tls.is_some());
        // Of a Unix socket as curl has it: `--unix-socket`, not a URL.
        let scheme = match listener.address.tcp() {
            None => "",
            Some(_) if secure => "https://",
            Some(_) => "http://",
        };
        line += &format!("  {} {scheme}{}", listener.name, listener.address);
    }
    line += &format!("   dashboard http://{admin}");
    for split in &world.store.snapshot().splits {
        let share = |(name, _)| format!("{name} {} %", percent(split.weights.share(name)));
        line += &format!("   {}: {}", split.name, split.weights.iter().map(share).collect::<Vec<_>>().join(", "));
    }
    line += &format!("   ready in {} ms", begun.elapsed().as_millis());
    let listeners = listening.into_iter().map(|l| (l.name, l.address)).collect();
    Addresses { listeners, admin, ready_line: line }
}

/// `90`, `12.5`, `0.05`: as many digits as it needs, two at most.
fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
