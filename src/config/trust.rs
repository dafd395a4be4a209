//! Whether a peer is believed. Pure.
//!
//! Invariant: an IPv4 address is the same peer however it came, by itself or inside an IPv6 address (RFC 4291 2.5.5.2).

use std::net::IpAddr;

use super::types::Trusted;

impl Trusted {
    /// Whether this peer is in the list; `None` is a peer on a Unix socket.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        match peer.map(|ip| ip.to_canonical()) {
            None => self.unix,
            Some(ip) => self.networks.iter().any(|network| holds(network, ip)),
        }
    }
}

/// `::ffff:10.0.0.0/104` in a file means 10.0.0.0/8.
fn holds(network: &ipnet::IpNet, ip: IpAddr) -> bool {
    if network.contains(&ip) {
        return true;
    }
    match (network, ip) {
        (ipnet::IpNet::V6(six), IpAddr::V4(ip)) => six.prefix_len() >= 96 && six.contains(&ip.to_ipv6_mapped()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(networks: &[&str], unix: bool) -> Trusted {
        Trusted { networks: networks.iter().map(|n| n.parse().unwrap()).collect(), unix }
    }

    #[test]
    fn peers_are_found_in_their_networks() {
        let four = trusted(&["10.0.0.0/8", "192.0.2.7/32"], false);
        let six = trusted(&["2001:db8::/32", "::ffff:10.0.0.0/104"], true);
        let all_six = trusted(&["::/0"], false);
        let cases = [
            (&four, "10.1.2.3", true),
            (&four, "::ffff:10.1.2.3", true),
            (&four, "192.0.2.7", true),
            (&four, "192.0.2.8", false),
            (&four, "2001:db8::1", false),
            (&six, "2001:db8::1", true),
            (&six, "10.1.2.3", true),
            (&six, "::ffff:10.1.2.3", true),
            (&six, "11.1.2.3", false),
            // All of IPv6 is not all of IPv4.
            (&all_six, "10.1.2.3", false),
            (&all_six, "2001:db8::1", true),
        ];
        for (list, peer, expected) in cases {
            assert_eq!(list.trusts(Some(peer.parse().unwrap())), expected, "{peer} in {list:?}");
        }
    }

    #[test]
    fn unix_peers_are_trusted_by_word_only() {
        assert!(trusted(&[], true).trusts(None));
        assert!(!trusted(&["0.0.0.0/0", "::/0"], false).trusts(None));
        assert!(!Trusted::default().trusts(Some([127, 0, 0, 1].into())));
    }
}
