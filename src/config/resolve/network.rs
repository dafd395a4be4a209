//! Networks: `10.0.0.0/8`, `2001:db8::/32`, or one address.
//!
//! Invariant: without host bits, and IPv4 is never written as mapped IPv6, so that equal networks are equal and a
//! client's canonical address can be compared as it is.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::Context;
use crate::config::error::Code;
use crate::config::path::Path;

/// The bits of `::ffff:0:0/96`.
const MAPPED: u8 = 96;

/// Reports a text that is none, and gives nothing then.
pub fn network(text: &str, path: &Path, cx: &mut Context<'_>) -> Option<IpNet> {
    let found = parse(text);
    if found.is_none() {
        let help = "write for example \"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.7\"";
        cx.tell(Code::BadAddress, path, format!("{text:?} is not a network"), "not a network", help);
    }
    found
}

/// A network, or an address as one of its own; `None` if the text is neither.
pub fn parse(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical().into());
    }
    let network = text.parse::<IpNet>().ok()?.trunc();
    let mapped = match network {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED => v6.addr().to_ipv4_mapped(),
        _ => None,
    };
    match mapped {
        Some(v4) => Ipv4Net::new(v4, network.prefix_len() - MAPPED).ok().map(IpNet::V4),
        None => Some(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writing_for_each_network() {
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("::1", "::1/128"),
            ("2001:DB8::1/32", "2001:db8::/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::/0", "::/0"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(parse(text).map(|n| n.to_string()).as_deref(), Some(network), "{text}");
        }
        for text in
            ["", "10.0.0/8", "10.0.0.0/33", "10.0.0.1:80", "[::1]", "localhost", "::/129", "10.0.0.0/-1", " ::1"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
