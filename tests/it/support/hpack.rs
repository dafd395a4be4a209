//! As much of HPACK (RFC 7541) as a raw client needs: it writes literals that no library would, and reads answers.
//!
//! Reading knows the static table's statuses and Huffman strings, and no dynamic table: the client's settings forbid
//! the server one, which is a rule of the protocol and so tested on the way.

use super::Failure;

/// A header block of literals without indexing and without Huffman: any bytes at all as name and value.
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        literal(&mut out, 0x00, name.as_ref(), value.as_ref());
    }
    out
}

/// One literal with incremental indexing: it becomes entry 62 of the server's table.
pub fn indexed_literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    literal(&mut out, 0x40, name, value);
    out
}

fn literal(out: &mut Vec<u8>, kind: u8, name: &[u8], value: &[u8]) {
    out.push(kind);
    for text in [name, value] {
        integer(out, 7, text.len());
        out.extend_from_slice(text);
    }
}

/// With `bits` of prefix, all flag bits 0.
fn integer(out: &mut Vec<u8>, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        out.push(value as u8);
        return;
    }
    out.push(most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The fields of an answer's block. Names from the static table other than `:status` are shown as `#index`.
pub fn fields(block: &[u8]) -> Result<Vec<(String, String)>, Failure> {
    let mut reader = Reader(block);
    let mut fields = Vec::new();
    while let Some(&first) = reader.0.first() {
        match first {
            0x80.. => fields.push(static_field(reader.integer(7)?)?),
            0x20..=0x3f => drop(reader.integer(5)?),
            _ => {
                let index = reader.integer(if first >= 0x40 { 6 } else { 4 })?;
                let name = if index == 0 { reader.text()? } else { static_name(index) };
                fields.push((name, reader.text()?));
            }
        }
    }
    Ok(fields)
}

fn static_field(index: usize) -> Result<(String, String), Failure> {
    const STATUSES: [&str; 7] = ["200", "204", "206", "304", "400", "404", "500"];
    match index {
        8..=14 => Ok((":status".to_owned(), STATUSES[index - 8].to_owned())),
        1..=61 => Ok((static_name(index), String::new())),
        _ => Err(Failure::Malformed(format!("dynamic index {index} although the table's size is 0"))),
    }
}

fn static_name(index: usize) -> String {
    if (8..=14).contains(&index) { ":status".to_owned() } else { format!("#{index}") }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Failure> {
        let (first, rest) = self.0.split_first().ok_or_else(cut)?;
        self.0 = rest;
        Ok(*first)
    }

    fn integer(&mut self, bits: u32) -> Result<usize, Failure> {
        let most = (1usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Ok(value);
        }
        for shift in (0..28).step_by(7) {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Failure::Malformed("HPACK integer too long".to_owned()))
    }

    fn text(&mut self) -> Result<String, Failure> {
        let is_huffman = self.0.first().is_some_and(|b| b & 0x80 != 0);
        let length = self.integer(7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(cut)?;
        self.0 = rest;
        let bytes = if is_huffman { unpack(text)? } else { text.to_vec() };
        Ok(bytes.into_iter().map(char::from).collect())
    }
}

fn cut() -> Failure {
    Failure::Malformed("header block ends inside a field".to_owned())
}

/// RFC 7541 appendix B. The code is canonical, so the lengths say it all: codes of one length are consecutive in the
/// order of their symbols.
fn unpack(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    let (mut code, mut length) = (0u32, 0u8);
    for bit in bytes.iter().flat_map(|b| (0..8).rev().map(move |i| b >> i & 1)) {
        (code, length) = (code << 1 | u32::from(bit), length + 1);
        if let Some(symbol) = symbol(code, length) {
            out.push(symbol);
            (code, length) = (0, 0);
        } else if length >= 30 {
            return Err(Failure::Malformed("no Huffman code".to_owned()));
        }
    }
    Ok(out)
}

fn symbol(code: u32, length: u8) -> Option<u8> {
    let mut first = 0u32;
    for shorter in 1..length {
        first = (first + LENGTHS.iter().filter(|l| **l == shorter).count() as u32) << 1;
    }
    let place = code.checked_sub(first)? as usize;
    (0..=255u8).zip(LENGTHS).filter(|(_, l)| *l == length).map(|(symbol, _)| symbol).nth(place)
}

#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5,
    6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22,
    23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22,
    22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26,
    26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27,
    27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27,
    27, 27, 27, 27, 26,
];

/// The examples of RFC 7541 C.4.1 and C.6.1.
#[test]
fn the_examples_of_the_rfc_are_read() {
    let host = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
    assert_eq!(unpack(&host).unwrap(), b"www.example.com");
    let status = [0x48, 0x82, 0x64, 0x02, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b];
    let expected = [(":status".to_owned(), "302".to_owned()), ("#24".to_owned(), "private".to_owned())];
    assert_eq!(fields(&status).unwrap(), expected);
}

#[test]
fn what_is_written_can_be_read() {
    let long = "x".repeat(5000);
    let written = [("weir-error", "bad-request"), ("x", long.as_str()), ("", "")];
    let read = fields(&block(&written)).unwrap();
    assert!(read.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(written));
}
