//! How lines are written: for people or for machines.

use std::io::IsTerminal;

use crate::config::LogFormat;

/// The format of access lines and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl Format {
    /// What `format` means for a stream: `auto` is text on a terminal, else JSON.
    pub fn resolve(format: LogFormat, stream: &impl IsTerminal) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
            LogFormat::Auto if stream.is_terminal() => Self::Text,
            LogFormat::Auto => Self::Json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_json_unless_on_a_terminal() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Format::resolve(LogFormat::Auto, &file), Format::Json);
        assert_eq!(Format::resolve(LogFormat::Text, &file), Format::Text);
        assert_eq!(Format::resolve(LogFormat::Json, &std::io::stdout()), Format::Json);
    }
}
