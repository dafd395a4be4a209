//! Who is told what happens.

use super::{Context, web};
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{RawNotify, RawNotifyFormat, RawNotifyOn};
use crate::config::{Notify, NotifyFormat, NotifyOn};

pub fn notify(raw: &[RawNotify], cx: &mut Context<'_>) -> Vec<Notify> {
    let path = Path::root().key("notify");
    raw.iter().enumerate().filter_map(|(i, raw)| one(raw, &path.index(i), cx)).collect()
}

fn one(raw: &RawNotify, path: &Path, cx: &mut Context<'_>) -> Option<Notify> {
    let on = on(raw.on.as_deref(), &path.key("on"), cx);
    let format = match raw.format {
        RawNotifyFormat::Slack => NotifyFormat::Slack,
        RawNotifyFormat::Json => NotifyFormat::Json,
    };
    Some(Notify { url: web::url(raw.url.as_ref()?, &path.key("url"), cx)?, format, on })
}

fn on(written: Option<&[RawNotifyOn]>, path: &Path, cx: &mut Context<'_>) -> Vec<NotifyOn> {
    let Some(written) = written else { return NotifyOn::ALL.to_vec() };
    // A wrong word has been taken out and told of.
    if written.is_empty() && !cx.is_flawed(path) {
        let help = "leave `on` out to tell of everything, or the whole entry to tell of nothing";
        cx.tell(Code::OutOfRange, path, format!("{} is told of nothing", path.parent().words()), "nothing here", help);
    }
    let mut on = Vec::new();
    for event in written.iter().map(|event| known(*event)) {
        if !on.contains(&event) {
            on.push(event);
        }
    }
    on
}

fn known(raw: RawNotifyOn) -> NotifyOn {
    match raw {
        RawNotifyOn::RolledBack => NotifyOn::RolledBack,
        RawNotifyOn::CheckFailed => NotifyOn::CheckFailed,
        RawNotifyOn::RolloutFinished => NotifyOn::RolloutFinished,
        RawNotifyOn::ApprovalNeeded => NotifyOn::ApprovalNeeded,
        RawNotifyOn::ConfigRejected => NotifyOn::ConfigRejected,
        RawNotifyOn::RolloutStarted => NotifyOn::RolloutStarted,
        RawNotifyOn::RolloutPaused => NotifyOn::RolloutPaused,
        RawNotifyOn::RolloutSuperseded => NotifyOn::RolloutSuperseded,
        RawNotifyOn::RolloutStuck => NotifyOn::RolloutStuck,
    }
}
