//! A client's bytes read independently of weir: the requests in them up to the first whose end two readers could see in
//! two places.
//!
//! Tolerant only where RFC 9112 lets a recipient be: LF as a line end and empty lines before a request (section 2.2),
//! the same Content-Length several times (6.3), chunk extensions (7.1.1), HTTP/1.0.

use crate::strict::{Framing, field};

/// A request as the client meant it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// Without framing; as far as it goes if `is_whole` is false.
    pub body: Vec<u8>,
    pub is_whole: bool,
}

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub requests: Vec<Request>,
    /// What follows them has no one reading.
    pub is_ambiguous: bool,
}

/// How far a body has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    Partial(Vec<u8>),
    Whole { len: usize, data: Vec<u8>, trailers: Vec<(String, String)> },
}

/// Reads all of it.
pub fn read(mut bytes: &[u8]) -> Reading {
    let mut reading = Reading::default();
    loop {
        while let Some(rest) = bytes.strip_prefix(b"\r\n").or_else(|| bytes.strip_prefix(b"\n")) {
            bytes = rest;
        }
        if bytes.is_empty() {
            return reading;
        }
        let Some((lines, len)) = head_lines(bytes) else { return reading };
        let Ok((mut request, framing)) = head(&lines) else {
            reading.is_ambiguous = true;
            return reading;
        };
        bytes = &bytes[len..];
        match body(framing, bytes, true) {
            Ok(Body::Whole { len, data, .. }) => {
                (request.body, request.is_whole) = (data, true);
                bytes = &bytes[len..];
                reading.requests.push(request);
            }
            Ok(Body::Partial(data)) => {
                request.body = data;
                reading.requests.push(request);
                return reading;
            }
            Err(_) => {
                // The head is sound, and may have gone on; its body may not have been completed by anybody.
                request.body = partial(framing, bytes);
                reading.requests.push(request);
                return reading;
            }
        }
    }
}

/// The lines up to the empty one, and how many bytes they are; `None` if that is not there.
fn head_lines(bytes: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let (mut lines, mut at) = (Vec::new(), 0);
    loop {
        let end = at + bytes[at..].iter().position(|b| *b == b'\n')?;
        let line = bytes[at..end].strip_suffix(b"\r").unwrap_or(&bytes[at..end]);
        at = end + 1;
        if line.is_empty() {
            return Some((lines, at));
        }
        lines.push(line);
    }
}

fn head(lines: &[&[u8]]) -> Result<(Request, Framing), String> {
    let (first, rest) = lines.split_first().ok_or("no line")?;
    let text = std::str::from_utf8(first).map_err(|e| e.to_string())?;
    let words: Vec<&str> = text.split(' ').collect();
    let &[method, target, version @ ("HTTP/1.1" | "HTTP/1.0")] = words.as_slice() else { return Err("line".into()) };
    let fields: Vec<(String, String)> = rest.iter().map(|line| field(line)).collect::<Result<_, _>>()?;
    let all = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
    let framing = match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
        ([], []) => Framing::None,
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") && version == "HTTP/1.1" => Framing::Chunked,
        ([length, others @ ..], []) if is_number(length) && others.iter().all(|other| other == length) => {
            Framing::Length(length.parse().map_err(|_| "length")?)
        }
        _ => return Err("framing".into()),
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    Ok((Request { method, target, body: Vec::new(), is_whole: false }, framing))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The body at the beginning of `bytes`. `extensions`: of chunks, are passed over.
///
/// # Errors
/// Chunks that two readers could end in two places.
pub fn body(framing: Framing, bytes: &[u8], extensions: bool) -> Result<Body, String> {
    match framing {
        Framing::None => Ok(Body::Whole { len: 0, data: Vec::new(), trailers: Vec::new() }),
        Framing::Length(len) if bytes.len() < len => Ok(Body::Partial(bytes.to_vec())),
        Framing::Length(len) => Ok(Body::Whole { len, data: bytes[..len].to_vec(), trailers: Vec::new() }),
        Framing::Chunked => chunks(bytes, extensions, &mut Vec::new()),
    }
}

/// What there is of a body that goes wrong somewhere.
fn partial(framing: Framing, bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    if framing == Framing::Chunked {
        let _ = chunks(bytes, true, &mut data);
    }
    data
}

fn chunks(bytes: &[u8], extensions: bool, data: &mut Vec<u8>) -> Result<Body, String> {
    let mut at = 0;
    loop {
        let Some(line) = line(bytes, &mut at) else { return Ok(Body::Partial(data.clone())) };
        let digits = if extensions { line.split(|b| *b == b';').next().unwrap_or(line) } else { line };
        let digits = if extensions { digits.trim_ascii_end() } else { digits };
        let size = size(digits).filter(|_| !line.contains(&b'\r') && !line.contains(&b'\n'));
        let size = size.ok_or_else(|| format!("chunk size {:?}", String::from_utf8_lossy(line)))?;
        if size == 0 {
            break;
        }
        let rest = &bytes[at..];
        data.extend_from_slice(&rest[..size.min(rest.len())]);
        match rest.get(size..) {
            Some([b'\r', b'\n', ..]) => at += size + 2,
            None | Some([] | [b'\r']) => return Ok(Body::Partial(data.clone())),
            Some(_) => return Err("no CRLF after a chunk".to_owned()),
        }
    }
    let mut trailers = Vec::new();
    loop {
        match line(bytes, &mut at) {
            None => return Ok(Body::Partial(data.clone())),
            Some([]) => return Ok(Body::Whole { len: at, data: data.clone(), trailers }),
            Some(text) => trailers.push(field(text)?),
        }
    }
}

/// Up to the next CRLF, without it.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = &bytes[*at..];
    let end = rest.windows(2).position(|w| w == b"\r\n")?;
    *at += end + 2;
    Some(&rest[..end])
}

fn size(digits: &[u8]) -> Option<usize> {
    let is_size = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let significant = digits.iter().skip_while(|b| **b == b'0').count();
    let text = std::str::from_utf8(digits).ok().filter(|_| is_size && significant <= 15)?;
    usize::from_str_radix(text, 16).ok()
}
