//! The PROXY protocol: any bytes are answered, an answer is never taken back, and it never speaks of bytes not there.

use weir::net::proxy_protocol::{Parsed, parse};

/// More than any header has.
const LONGEST: usize = 536;

/// Input: the first bytes of a connection.
pub fn check(data: &[u8]) {
    match parse(data) {
        Ok(Parsed::Incomplete) => {
            assert!(data.len() < LONGEST, "undecided after {} bytes", data.len());
            incomplete_before(data, data.len());
        }
        Ok(whole @ Parsed::Complete { len, .. }) => {
            assert!(0 < len && len <= data.len().min(LONGEST), "{len} of {} bytes", data.len());
            assert_eq!(parse(&data[..len]), Ok(whole), "what follows a header changes it");
            assert_eq!(parse(&[&data[..len], b"GET / HTTP/1.1\r\n"].concat()), Ok(whole));
            incomplete_before(data, len);
        }
        Err(_) => {
            let at = (0..data.len()).find(|n| parse(&data[..*n]).is_err()).unwrap_or(data.len());
            incomplete_before(data, at);
            assert!((at..data.len()).all(|n| parse(&data[..n]).is_err()), "a refusal is taken back");
            assert!(parse(&[data, b"\r\n"].concat()).is_err(), "a refusal is taken back");
        }
    }
}

fn incomplete_before(data: &[u8], end: usize) {
    for n in 0..end {
        assert_eq!(parse(&data[..n]), Ok(Parsed::Incomplete), "{n} bytes of {end}");
    }
}
