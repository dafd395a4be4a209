//! Which of the fields that decide something a head has, from one look over its names.
//!
//! Why: a lookup in the map hashes a name, and a request needs a dozen of them for fields that are nearly never there.
//! Invariant: says "no" only of a field that is not there, as long as the head is as it was looked at. Pure.

use http::header::{self, HeaderMap, HeaderName};

/// A field that is asked for by name.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
pub(super) enum Field {
    Connection = 1,
    ContentType = 1 << 1,
    Date = 1 << 2,
    Expect = 1 << 3,
    Host = 1 << 4,
    Te = 1 << 5,
    TransferEncoding = 1 << 6,
    Upgrade = 1 << 7,
    XRequestId = 1 << 8,
}

/// See the file's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields(u16);

impl Fields {
    /// Of a head.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |seen, name| seen | bit(name)))
    }

    /// There is at least one of that name.
    pub(super) fn has(self, field: Field) -> bool {
        self.0 & field as u16 != 0
    }
}

/// Standard names compare as one byte.
fn bit(name: &HeaderName) -> u16 {
    let field = match name {
        name if name == header::CONNECTION => Field::Connection,
        name if name == header::CONTENT_TYPE => Field::ContentType,
        name if name == header::DATE => Field::Date,
        name if name == header::EXPECT => Field::Expect,
        name if name == header::HOST => Field::Host,
        name if name == header::TE => Field::Te,
        name if name == header::TRANSFER_ENCODING => Field::TransferEncoding,
        name if name == header::UPGRADE => Field::Upgrade,
        name if name.as_str() == "x-request-id" => Field::XRequestId,
        _ => return 0,
    };
    field as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(Field, &str); 9] = [
        (Field::Connection, "connection"),
        (Field::ContentType, "content-type"),
        (Field::Date, "date"),
        (Field::Expect, "expect"),
        (Field::Host, "host"),
        (Field::Te, "te"),
        (Field::TransferEncoding, "transfer-encoding"),
        (Field::Upgrade, "upgrade"),
        (Field::XRequestId, "x-request-id"),
    ];

    #[test]
    fn each_field_is_found_and_no_other() {
        for (field, name) in ALL {
            let name: HeaderName = name.parse().unwrap();
            let headers = HeaderMap::from_iter([(name, "1".parse().unwrap()), (header::ACCEPT, "1".parse().unwrap())]);
            let fields = Fields::of(&headers);
            assert!(fields.has(field), "{field:?}");
            assert_eq!(ALL.iter().filter(|(other, _)| fields.has(*other)).count(), 1, "{field:?}");
        }
        assert_eq!(Fields::of(&HeaderMap::new()), Fields::default());
    }
}
