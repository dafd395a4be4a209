//! The two messages of `grpc.health.v1.Health/Check`, by hand: each has one field, and a generator of code for them
//! would be the largest part of this room.
//!
//! Invariant: bytes from an endpoint never panic; what cannot be read is no answer.

use bytes::{BufMut, Bytes, BytesMut};

/// `:path` of the call.
pub(super) const PATH: &str = "/grpc.health.v1.Health/Check";

/// A longer answer is none: one field of one byte, and room for fields to come.
pub(super) const LONGEST: usize = 4096;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// `HealthCheckResponse.ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Serving(u64);

impl Serving {
    pub(super) fn is_serving(self) -> bool {
        self.0 == 1
    }

    pub(super) fn as_str(self) -> &'static str {
        match self.0 {
            0 => "UNKNOWN",
            1 => "SERVING",
            2 => "NOT_SERVING",
            3 => "SERVICE_UNKNOWN",
            _ => "a status that is not known",
        }
    }
}

/// `HealthCheckRequest` in its frame: not compressed, length, message.
pub(super) fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8((1 << 3) | BYTES as u8);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    // Longer than any text of a file may be.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

/// The status in the first message of an answer's body; `None` if it is none.
pub(super) fn answer(body: &[u8]) -> Option<Serving> {
    let (head, rest) = body.split_at_checked(5)?;
    let [0, length @ ..] = head else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let mut message = rest.get(..usize::try_from(length).ok()?)?;
    // What is not said is 0 (proto3).
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (1, VARINT) => status = take_varint(&mut message)?,
            (_, VARINT) => drop(take_varint(&mut message)?),
            (_, FIXED64) => message = message.get(8..)?,
            (_, FIXED32) => message = message.get(4..)?,
            (_, BYTES) => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(Serving(status))
}

fn put_varint(out: &mut BytesMut, mut n: u64) {
    while n >= 0x80 {
        out.put_u8((n as u8) | 0x80);
        n >>= 7;
    }
    out.put_u8(n as u8);
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("shop")[..], b"\0\0\0\0\x06\x0a\x04shop");
        let long = request(&"s".repeat(300));
        assert_eq!(&long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        for (body, status) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], Some("SERVING")),
            (b"\0\0\0\0\x02\x08\x02", Some("NOT_SERVING")),
            (b"\0\0\0\0\x00", Some("UNKNOWN")),
            (b"\0\0\0\0\x02\x08\x03", Some("SERVICE_UNKNOWN")),
            // Fields to come, before and behind, and bytes behind the message.
            (b"\0\0\0\0\x0e\x12\x02ab\x08\x01\x18\x96\x01\x25abcd#", Some("SERVING")),
            (b"\0\0\0\0\x02\x08", None),
            (b"\x01\0\0\0\x02\x08\x01", None),
            (b"\0\0\0\0\x01\x08", None),
            (b"\0\xff\xff\xff\xff\x08\x01", None),
            (b"", None),
        ] {
            assert_eq!(answer(body).map(Serving::as_str), status, "{body:?}");
        }
        assert!(answer(b"\0\0\0\0\x02\x08\x01").is_some_and(Serving::is_serving));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = answer(&body);
        }

        #[test]
        fn numbers_read_back(n in any::<u64>()) {
            let mut bytes = BytesMut::new();
            put_varint(&mut bytes, n);
            prop_assert_eq!(take_varint(&mut &bytes[..]), Some(n));
        }
    }
}
