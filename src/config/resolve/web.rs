//! Addresses of those outside who are asked or told.

use super::Context;
use crate::config::WebUrl;
use crate::config::error::Code;
use crate::config::path::Path;

/// The text is not repeated in what is said about it: it may be a secret that came from the environment.
pub fn url(text: &str, path: &Path, cx: &mut Context<'_>) -> Option<WebUrl> {
    match WebUrl::parse(text) {
        Ok(url) => Some(url),
        Err(why) => {
            let message = format!("`{path}` is not the address of a web server");
            let help = "write for example \"https://ci.example.com/gate\"";
            cx.tell(Code::BadAddress, path, message, &why.to_string(), help);
            None
        }
    }
}
