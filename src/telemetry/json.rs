//! Writing of flat JSON objects and of safe text into a reused buffer.
//!
//! Not serde: keys come in a fixed order, most are optional, and the request path allocates nothing for a line.
//!
//! Invariant: whatever the values hold, the object is one line of valid JSON, and no control character reaches a
//! terminal or breaks a line.

use std::fmt::{self, Display, Write};
use std::time::Duration;

/// An object under construction; `end` closes it and the line.
#[derive(Debug)]
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    separator: u8,
}

impl<'a> Object<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, separator: b'{' }
    }

    /// `key` is written as it is: only plain words are keys.
    pub(super) fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.out.extend_from_slice(&[self.separator, b'"']);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.separator = b',';
        self.out
    }

    pub(super) fn str(&mut self, key: &str, value: &str) {
        let out = self.key(key);
        out.push(b'"');
        escape(out, value);
        out.push(b'"');
    }

    pub(super) fn opt(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.str(key, value);
        }
    }

    /// A string made of anything that can be displayed.
    pub(super) fn display(&mut self, key: &str, value: impl Display) {
        let out = self.key(key);
        out.push(b'"');
        push_display(out, value);
        out.push(b'"');
    }

    pub(super) fn number(&mut self, key: &str, value: u64) {
        push_u64(self.key(key), value);
    }

    pub(super) fn millis(&mut self, key: &str, value: Duration) {
        push_millis(self.key(key), value);
    }

    pub(super) fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }
}

/// Appends `text` with everything escaped that JSON or a terminal could take for more than text.
pub(super) fn escape(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut from = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        // U+0080 to U+009F are control characters of terminals too; in UTF-8 they are C2 and their own number.
        let is_c1 = (0x80..0xa0).contains(&byte) && i > 0 && bytes[i - 1] == 0xc2;
        if byte >= 0x20 && !matches!(byte, b'"' | b'\\' | 0x7f) && !is_c1 {
            continue;
        }
        out.extend_from_slice(&bytes[from..i - usize::from(is_c1)]);
        from = i + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]),
        }
    }
    out.extend_from_slice(&bytes[from..]);
}

fn hex(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble & 15)]
}

/// Appends a value's text, escaped.
pub(super) fn push_display(out: &mut Vec<u8>, value: impl Display) {
    // Only a `Display` that fails by itself can fail here; its text ends where it failed.
    let _ = write!(Escaped(out), "{value}");
}

struct Escaped<'a>(&'a mut Vec<u8>);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

/// Appends a whole number.
pub(super) fn push_u64(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends milliseconds with one to three places: `3.4`, `0.012`, `7.0`.
pub(super) fn push_millis(out: &mut Vec<u8>, value: Duration) {
    push_u64(out, value.as_secs().saturating_mul(1000).saturating_add(u64::from(value.subsec_millis())));
    let micros = (value.subsec_micros() % 1000) as u16;
    let digits = [(micros / 100) as u8, (micros / 10 % 10) as u8, (micros % 10) as u8].map(|digit| b'0' + digit);
    let places = if digits[2] != b'0' {
        3
    } else if digits[1] != b'0' {
        2
    } else {
        1
    };
    out.push(b'.');
    out.extend_from_slice(&digits[..places]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn durations_have_the_places_they_need() {
        let millis = |micros| written(|out| push_millis(out, Duration::from_micros(micros)));
        assert_eq!(millis(3400), "3.4");
        assert_eq!(millis(12), "0.012");
        assert_eq!(millis(7000), "7.0");
        assert_eq!(millis(61_000_050), "61000.05");
        assert_eq!(written(|out| push_u64(out, u64::MAX)), u64::MAX.to_string());
        assert_eq!(written(|out| push_u64(out, 0)), "0");
    }

    #[test]
    fn nothing_in_a_value_reaches_the_terminal_or_ends_the_line() {
        let text = written(|out| escape(out, "a\"\\\n\r\t\u{1b}[2J\u{7f}\u{9b}é\u{a0}"));
        assert_eq!(text, "a\\\"\\\\\\n\\u000d\\t\\u001b[2J\\u007f\\u009bé\u{a0}");
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text: String, n: u64) {
            let line = written(|out| {
                let mut object = Object::new(out);
                object.str("text", &text);
                object.display("shown", &text);
                object.opt("none", None);
                object.number("n", n);
                object.end();
            });
            let is_one_line = line.ends_with('\n') && !line.trim_end_matches('\n').contains(char::is_control);
            prop_assert!(is_one_line, "{:?}", line);
            let back: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(back, serde_json::json!({ "text": text, "shown": text, "n": n }));
        }
    }
}
