//! Tools of the system a test may need.

use std::io::Write;
use std::path::PathBuf;

/// Past the test harness' capture, so that it is seen when all passes.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "weir tests: {text}");
}

/// Where the tool is; loudly `None` when missing, a failure with `WEIR_REQUIRE_TOOLS=1`.
#[track_caller]
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        let required = std::env::var_os("WEIR_REQUIRE_TOOLS").is_some_and(|v| v == "1");
        assert!(!required, "`{name}` is not installed, and WEIR_REQUIRE_TOOLS=1");
        tell(&format!("SKIPPED a part that needs `{name}`: not installed"));
    }
    found
}
