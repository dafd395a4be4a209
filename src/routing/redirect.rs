//! stub
pub fn location(to: &str, path: &str, query: Option<&str>) -> String {
    let mut text = to.replace("{path}", path);
    if let Some(query) = query {
        text = text + "?" + query;
    }
    text
}
