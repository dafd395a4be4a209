//! The bytes of `state.json`: `{"sha256":"<hex>","format":1,"state":{...}}`, one line.
//!
//! Invariant of every format, now and later: the sum comes first and is over all bytes behind its comma. So a file
//! of a newer format can be told from a damaged one: only what was written whole is believed about its number.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::book::Book;

/// The format this program writes.
pub(super) const FORMAT: u64 = 1;

const HEAD: &[u8] = b"{\"sha256\":\"";
const SUM: usize = 64;
/// Files are filled up to whole pages, so that their length, which costs a journal entry, seldom changes.
const PAGE: usize = 4096;
const GAP: &[u8] = b"\",";

/// Why a file is not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("written in format {0}")]
    Newer(u64),
    #[error("{0}")]
    Damaged(String),
}

/// The whole file.
pub(super) fn encode(book: &Book) -> Result<Vec<u8>, serde_json::Error> {
    let mut rest = format!("\"format\":{FORMAT},\"state\":{}}}", serde_json::to_string(book)?);
    let bare = HEAD.len() + SUM + GAP.len() + rest.len() + 1;
    rest.extend(std::iter::repeat_n(' ', bare.next_multiple_of(PAGE) - bare));
    rest.push('\n');
    Ok([HEAD, hex(rest.as_bytes()).as_bytes(), GAP, rest.as_bytes()].concat())
}

/// What a file says.
///
/// # Errors
/// The file is damaged, or whole and of a newer format.
pub(super) fn decode(bytes: &[u8]) -> Result<Book, Unreadable> {
    let (sum, rest) = parts(bytes).ok_or_else(|| Unreadable::Damaged("it does not begin with its checksum".into()))?;
    if hex(rest).as_bytes() != sum {
        return Err(Unreadable::Damaged("its checksum is wrong".into()));
    }
    let text = [b"{", rest].concat();
    let damaged = |e: serde_json::Error| Unreadable::Damaged(e.to_string());
    #[derive(Deserialize)]
    struct Number {
        format: u64,
    }
    let Number { format } = serde_json::from_slice(&text).map_err(damaged)?;
    if format > FORMAT {
        return Err(Unreadable::Newer(format));
    }
    #[derive(Deserialize)]
    struct Envelope {
        state: Book,
    }
    serde_json::from_slice::<Envelope>(&text).map(|e| e.state).map_err(damaged)
}

fn parts(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sum, rest) = bytes.strip_prefix(HEAD)?.split_at_checked(SUM)?;
    rest.strip_prefix(GAP).map(|rest| (sum, rest))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A whole file of whatever content.
    pub(in crate::state) fn sealed(rest: &str) -> Vec<u8> {
        [HEAD, hex(rest.as_bytes()).as_bytes(), GAP, rest.as_bytes()].concat()
    }

    #[test]
    fn what_was_written_is_read_and_is_json() {
        let book = Book { epoch: 7, ..Book::default() };
        let bytes = encode(&book).unwrap();
        assert_eq!(decode(&bytes).unwrap(), book);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["state"]["epoch"], 7);
    }

    #[test]
    fn every_single_damage_is_noticed() {
        let bytes = encode(&Book::default()).unwrap();
        for i in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..i]), Err(Unreadable::Damaged(_))), "cut at {i}");
            let mut bad = bytes.clone();
            bad[i] ^= 1 << (i % 8);
            assert!(matches!(decode(&bad), Err(Unreadable::Damaged(_))), "bit {} of byte {i}", i % 8);
        }
        assert!(matches!(decode(&[bytes.as_slice(), b"x"].concat()), Err(Unreadable::Damaged(_))));
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        assert_eq!(decode(&sealed("\"format\":2,\"other\":[]}\n")), Err(Unreadable::Newer(2)));
        assert!(matches!(decode(&sealed("\"format\":1,\"other\":[]}\n")), Err(Unreadable::Damaged(_))));
        assert!(matches!(decode(&sealed("\"other\":[]}\n")), Err(Unreadable::Damaged(_))));
    }
}
