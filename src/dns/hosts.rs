//! Names that no server is asked for: the system's hosts file (hosts(5)).
//!
//! Read anew for each question: it is small, and whoever edits it means it to count. A file that is missing has no names.

use std::net::IpAddr;
use std::path::Path;

/// The addresses of a name; empty: ask somebody else.
pub(super) async fn look_up(file: &Path, name: &str) -> Vec<IpAddr> {
    match tokio::fs::read(file).await {
        Ok(bytes) => find(&String::from_utf8_lossy(&bytes), name),
        Err(_) => Vec::new(),
    }
}

fn find(text: &str, name: &str) -> Vec<IpAddr> {
    let bare = name.trim_end_matches('.');
    let of_line = |line: &str| {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(bare)).then_some(address)
    };
    text.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_other_programs_find_them() {
        let text =
            "127.0.0.1\tlocalhost\n# 10.0.0.9 shop\n10.0.0.1 Shop.test shop # the shop\nx shop\n::1 shop\n10.0.0.2\n";
        let found = |name| find(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("shop"), ["10.0.0.1", "::1"]);
        assert_eq!(found("shop.test."), ["10.0.0.1"]);
        assert_eq!(found("the"), [""; 0]);
        assert_eq!(found(""), [""; 0]);
    }

    #[tokio::test]
    async fn a_missing_file_has_no_names() {
        assert!(look_up(Path::new("/nowhere/hosts"), "shop").await.is_empty());
    }
}
