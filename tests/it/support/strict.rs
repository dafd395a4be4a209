//! Request heads by the letter of RFC 9112 and nothing besides: a head that some reader could take for another one
//! is an error here.

/// A request's head with exactly one reading.
#[derive(Clone, Debug)]
pub struct Head {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
}

/// How its body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
}

impl Head {
    /// From the bytes up to and with the empty line.
    pub fn parse(raw: &[u8]) -> Result<Self, String> {
        let bytes = raw.strip_suffix(b"\r\n\r\n").ok_or("no empty line")?;
        let mut lines = lines(bytes).into_iter();
        let first = lines.next().unwrap_or_default();
        let text = std::str::from_utf8(first).map_err(|_| "request line is not ASCII")?;
        let words: Vec<&str> = text.split(' ').collect();
        let &[method, target, "HTTP/1.1"] = words.as_slice() else { return Err(format!("request line {text:?}")) };
        if method.is_empty() || !method.bytes().all(is_token) {
            return Err(format!("method {method:?}"));
        }
        if target.is_empty() || !target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("target {target:?}"));
        }
        let fields = lines.map(field).collect::<Result<_, _>>()?;
        Ok(Self { method: method.to_owned(), target: target.to_owned(), fields })
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }

    /// # Errors
    /// When two readers could disagree about the body.
    pub fn framing(&self) -> Result<Framing, String> {
        match (self.all("content-length").as_slice(), self.all("transfer-encoding").as_slice()) {
            ([], []) => Ok(Framing::None),
            ([], ["chunked"]) => Ok(Framing::Chunked),
            ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
                length.parse().map(Framing::Length).map_err(|e| format!("Content-Length {length}: {e}"))
            }
            (lengths, codings) => Err(format!("Content-Length {lengths:?}, Transfer-Encoding {codings:?}")),
        }
    }
}

/// One field line without its CRLF: name in lower case, and value.
pub fn field(line: &[u8]) -> Result<(String, String), String> {
    let shown = || format!("field {:?}", String::from_utf8_lossy(line));
    let at = line.iter().position(|b| *b == b':').ok_or_else(shown)?;
    let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
    let plain = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) || !value.iter().all(plain) {
        return Err(shown());
    }
    let text = |bytes: &[u8]| bytes.iter().map(|b| char::from(*b)).collect::<String>();
    Ok((text(name).to_ascii_lowercase(), text(value)))
}

/// Split at CRLF only; a bare CR or LF stays inside and is refused by what reads the line.
fn lines(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(at) = bytes.windows(2).position(|w| w == b"\r\n") {
        lines.push(&bytes[..at]);
        bytes = &bytes[at + 2..];
    }
    lines.push(bytes);
    lines
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}
