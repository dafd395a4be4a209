//! The configuration loader: any text gives a report in every format, and what loads is written and loads as the same.

use weir::config::{Format, Loaded, check_text, effective};

/// Input: a TOML file.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let loaded = load(text);
    for (format, colour) in
        [(Format::Text, false), (Format::Text, true), (Format::Json, false), (Format::Github, false)]
    {
        let shown = loaded.report.render(format, colour);
        assert!(colour || shown.chars().all(|c| !c.is_control() || c == '\n'), "a control character in {shown:?}");
    }
    // Certificates are not read from here, and without them there is no configuration.
    let Some(config) = loaded.config else { return };
    assert!(!loaded.report.has_errors(), "loaded, with errors");
    let written = effective(&config);
    let again = load(&written);
    assert!(!again.report.has_errors(), "what was written does not load:\n{written}\n{}", again.report.text(false));
    let again = again.config.expect("no errors and no configuration");
    assert!(again == config, "another configuration was written:\n{written}\n{config:#?}\n{again:#?}");
}

fn load(text: &str) -> Loaded {
    let env = |name: &str| matches!(name, "A" | "HOME").then(|| "/a".to_owned());
    check_text("/etc/weir/weir.toml", text, &env)
}
