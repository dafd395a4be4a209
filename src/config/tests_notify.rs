//! `[[notify]]`: what is written, what comes of it, what is said about mistakes, and who gets to see the address.

use super::tests::{and, check};
use super::*;

fn notify(lines: &str) -> String {
    and(&format!("[[notify]]\n{lines}"))
}

/// What a text without problems says, which `effective` must be able to say again.
fn resolved(text: &str) -> Vec<Notify> {
    let loaded = check(text);
    let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.text(false)));
    assert!(loaded.report.diagnostics.is_empty(), "{}", loaded.report.text(false));
    assert_eq!(check(&effective(&config)).config.as_ref(), Some(&config), "{}", effective(&config));
    config.notify
}

#[test]
fn everything_is_told_as_json_unless_something_else_is_written() {
    let url = WebUrl::parse("https://hooks.example.com/T0/B0").unwrap();
    let all = Notify { url: url.clone(), format: NotifyFormat::Json, on: NotifyOn::ALL.to_vec() };
    let found = resolved(&notify("url = \"https://hooks.example.com/T0/B0\""));
    assert_eq!(found, std::slice::from_ref(&all));
    let lines = "url = \"https://hooks.example.com/T0/B0\"\nformat = \"slack\"\n\
                 on = [\"rolled-back\", \"config-rejected\", \"rolled-back\"]\n[[notify]]\n\
                 url = \"https://hooks.example.com/T0/B0\"";
    let some = Notify { url, format: NotifyFormat::Slack, on: vec![NotifyOn::RolledBack, NotifyOn::ConfigRejected] };
    assert_eq!(resolved(&notify(lines)), [some, all]);
    assert_eq!(resolved(tests::GOOD), []);
}

#[test]
fn every_word_of_the_file_is_known_and_said_again() {
    for on in NotifyOn::ALL {
        let found = resolved(&notify(&format!("url = \"http://h/\"\non = [\"{}\"]", on.as_str())));
        assert_eq!(found[0].on, [on]);
    }
}

#[test]
fn mistakes_are_named_with_place_and_remedy() {
    let url = "url = \"http://h/\"\n";
    for (lines, expected) in [
        (String::new(), "missing-key notify[0].url: `url` is missing here; add for example url = "),
        ("url = \"hooks\"".into(), "bad-address notify[0].url: not a URL of a web server: it starts with neither"),
        ("url = \"https://h:99999/\"".into(), "bad-address notify[0].url: not a port: 1 to 65535; write for example"),
        (format!("{url}on = []"), "out-of-range notify[0].on: nothing here; leave `on` out to tell of everything"),
        (
            format!("{url}on = [\"rolledback\"]"),
            "unknown-name notify[0].on[0]: did you mean `rolled-back`? values allowed here: rolled-back, check-failed",
        ),
        (format!("{url}format = \"slak\""), "unknown-name notify[0].format: did you mean `slack`?"),
        (
            format!("{url}events = []"),
            "unknown-key notify[0].events: not known here; keys allowed here: url, format, on",
        ),
    ] {
        let report = check(&notify(&lines)).report;
        let [one] = report.diagnostics.as_slice() else { panic!("{lines}\n{}", report.text(false)) };
        assert!(one.place.is_some(), "{lines}");
        let advice = one.advice().unwrap_or_default();
        let found = format!("{} {}: {advice}", one.code, one.key.as_deref().unwrap_or_default());
        assert!(found.starts_with(expected), "{lines}\n{found}\n{expected}");
    }
}

#[test]
fn a_secret_from_the_environment_is_in_no_message_and_not_shown() {
    let text = notify("url = \"${HOOK}\"");
    let env = |value: &'static str| move |name: &str| (name == "HOOK").then(|| value.to_owned());
    let refused = check_text("weir.toml", &text, &env("hooks.example.com/s3cret"));
    assert!(refused.config.is_none() && !refused.report.json().to_string().contains("s3cret"));
    let config = check_text("weir.toml", &text, &env("https://al:s3cret@hooks.example.com/s3cret")).config.unwrap();
    assert!(effective(&config).contains("s3cret"), "the copy on disk must be complete");
    let shown = effective_shown(&config);
    assert!(shown.contains("\"https://***@hooks.example.com/***\"") && !shown.contains("s3cret"), "{shown}");
    assert!(!format!("{config:?}").contains("s3cret"));
}
