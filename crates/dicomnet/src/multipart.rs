//! Splits a body of a kind such as `multipart/form-data` or `multipart/related` while it arrives.
//!
//! What a part holds is passed on as it comes, and headers are bounded, so memory does not grow with the body.

/// What is wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The header of the request names no boundary, or one that is none.
    NoBoundary,
    /// The header of a part is longer than allowed.
    LongHeader,
    /// A part has no name.
    NoName,
    /// What follows a boundary is neither a part nor the end.
    Broken,
    /// The body ends within a part.
    Cut,
}

/// What comes next in a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A part with these headers begins.
    Begin(Vec<u8>),
    /// More bytes of the part.
    Bytes(Vec<u8>),
    /// The part is complete.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first boundary.
    Preamble,
    /// After a boundary.
    Boundary,
    Headers,
    Body,
    Done,
}

/// Longest boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;
/// Longest header of a part.
pub const MAX_HEADER_BYTES: usize = 8 << 10;

/// Splits a body into parts.
#[derive(Debug)]
pub struct Splitter {
    /// A line break, two hyphens and the boundary.
    delimiter: Vec<u8>,
    buffer: Vec<u8>,
    state: State,
}

impl Splitter {
    /// Begins with the header `Content-Type` of the request or answer.
    ///
    /// # Errors
    /// `NoBoundary`.
    pub fn new(content_type: &[u8]) -> Result<Self, Fault> {
        let boundary = parameter(content_type, b"boundary").ok_or(Fault::NoBoundary)?;
        let is_fine = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        if !(1..=MAX_BOUNDARY).contains(&boundary.len()) || !boundary.iter().all(is_fine) {
            return Err(Fault::NoBoundary);
        }
        Ok(Self {
            delimiter: [b"\r\n--", boundary.as_slice()].concat(),
            // The first boundary may stand at the very beginning.
            buffer: b"\r\n".to_vec(),
            state: State::Preamble,
        })
    }

    /// Takes more bytes; returns what they hold.
    ///
    /// # Errors
    /// `LongHeader`, `Broken`.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, Fault> {
        let mut events = Vec::new();
        if self.state == State::Done {
            // What follows the last boundary is not read.
            return Ok(events);
        }
        self.buffer.extend_from_slice(bytes);
        while self.step(&mut events)? {}
        Ok(events)
    }

    /// Checks that the last boundary has come.
    ///
    /// # Errors
    /// `Cut`.
    pub fn finish(&self) -> Result<(), Fault> {
        match self.state {
            State::Done => Ok(()),
            _ => Err(Fault::Cut),
        }
    }

    /// Goes one state on; `false` if that needs more bytes.
    fn step(&mut self, events: &mut Vec<Event>) -> Result<bool, Fault> {
        match self.state {
            State::Preamble | State::Body => Ok(self.until_delimiter(events)),
            State::Boundary => {
                let Some(&[one, other]) = self.buffer.get(..2).and_then(|two| two.first_chunk())
                else {
                    return Ok(false);
                };
                self.state = match [one, other] {
                    [b'-', b'-'] => State::Done,
                    [b'\r', b'\n'] => State::Headers,
                    _ => return Err(Fault::Broken),
                };
                // The line break stays: it ends headers that are empty, too.
                Ok(self.state == State::Headers)
            }
            State::Headers => {
                let end = find(&self.buffer, b"\r\n\r\n");
                // The end may have come but for its last byte.
                let n_bytes = end.unwrap_or(self.buffer.len().saturating_sub(3));
                if n_bytes > MAX_HEADER_BYTES {
                    return Err(Fault::LongHeader);
                }
                let Some(end) = end else { return Ok(false) };
                let headers = self.buffer.get(..end).unwrap_or_default();
                events.push(Event::Begin(headers.to_vec()));
                self.buffer.drain(..end + 4);
                self.state = State::Body;
                Ok(true)
            }
            State::Done => Ok(false),
        }
    }

    /// Passes bytes on until a delimiter.
    fn until_delimiter(&mut self, events: &mut Vec<Event>) -> bool {
        let found = find(&self.buffer, &self.delimiter);
        // The beginning of a delimiter may be the end of what has come.
        let n_held = self.delimiter.len() - 1;
        let n_sure = found.unwrap_or(self.buffer.len().saturating_sub(n_held));
        let is_body = self.state == State::Body;
        let sure: Vec<u8> = self.buffer.drain(..n_sure).collect();
        if is_body && !sure.is_empty() {
            events.push(Event::Bytes(sure));
        }
        if found.is_none() {
            return false;
        }
        if is_body {
            events.push(Event::End);
        }
        self.buffer.drain(..self.delimiter.len());
        self.state = State::Boundary;
        true
    }
}

/// Returns where bytes first come; `wanted` begins with a byte that does not come in it again, so this takes linear
/// time.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = wanted.first()?;
    let mut from = 0;
    while let Some(rest) = bytes.get(from..) {
        let at = from + rest.iter().position(|byte| byte == first)?;
        if bytes.get(at..)?.starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// Returns the name that the header `Content-Disposition` of a part states.
///
/// # Errors
/// `NoName`.
pub fn part_name(headers: &[u8]) -> Result<Vec<u8>, Fault> {
    let field = field(headers, b"content-disposition:");
    field
        .and_then(|field| parameter(field, b"name"))
        .ok_or(Fault::NoName)
}

/// Returns the kind of media that the header `Content-Type` of a part states, in lower case and without parameters.
#[must_use]
pub fn part_kind(headers: &[u8]) -> Option<Vec<u8>> {
    let field = field(headers, b"content-type:")?;
    let kind = field.split(|&byte| byte == b';').next()?;
    Some(kind.trim_ascii().to_ascii_lowercase())
}

/// Returns the value of a header; `name` is in lower case and ends with a colon.
fn field<'a>(headers: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut lines = headers.split(|&byte| byte == b'\n');
    lines.find_map(|line| {
        let (begin, value) = line.split_at_checked(name.len())?;
        begin.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// Returns a parameter of a header: what follows `; NAME=`, with or without quotes.
fn parameter(header: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut rest = header.get(header.iter().position(|&byte| byte == b';')? + 1..)?;
    loop {
        let equals = rest.iter().position(|&byte| byte == b'=')?;
        let key = rest.get(..equals)?.trim_ascii();
        rest = rest.get(equals + 1..)?;
        let value;
        (value, rest) = match rest.split_first() {
            Some((b'"', quoted)) => quoted_value(quoted)?,
            _ => {
                let end = rest.iter().position(|&byte| byte == b';');
                let end = end.unwrap_or(rest.len());
                (rest.get(..end)?.trim_ascii().to_vec(), rest.get(end..)?)
            }
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = rest.get(rest.iter().position(|&byte| byte == b';')? + 1..)?;
    }
}

/// Returns what stands before the closing quote, and what follows it.
fn quoted_value(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => return Some((value, bytes.get(at + 1..)?)),
            // Browsers write a quote as %22 and a backslash as it is; others escape.
            b'\\' if bytes.get(at + 1) == Some(&b'"') => {
                value.push(b'"');
                at += 2;
            }
            byte => {
                value.push(*byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &[u8] = b"multipart/form-data; boundary=\"x y\"";

    /// Returns names and contents of the parts of a form that comes in pieces.
    fn split(kind: &[u8], body: &[u8], n_bytes: usize) -> Result<Vec<(String, Vec<u8>)>, Fault> {
        let mut splitter = Splitter::new(kind)?;
        let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
        let mut n_ended = 0;
        for piece in body.chunks(n_bytes) {
            for event in splitter.push(piece)? {
                match event {
                    Event::Begin(headers) => {
                        let name = part_name(&headers)?;
                        parts.push((String::from_utf8_lossy(&name).into_owned(), Vec::new()));
                    }
                    Event::Bytes(bytes) => parts.last_mut().unwrap().1.extend(bytes),
                    Event::End => n_ended += 1,
                }
            }
        }
        splitter.finish()?;
        assert_eq!(n_ended, parts.len());
        Ok(parts)
    }

    fn part(headers: &str, body: &[u8]) -> Vec<u8> {
        [b"\r\n--x y\r\n", headers.as_bytes(), b"\r\n\r\n", body].concat()
    }

    #[test]
    fn parts_come_out_however_a_body_is_cut_into_pieces() {
        let tricky = b"\r\n--x \r\n--x\r\r\n--x  y--\r\n-";
        let body = [
            b"preamble".to_vec(),
            part("Content-Disposition: form-data; name=\"file\"; filename=\"../a;name=b\"", tricky),
            part("content-type: x\r\nCONTENT-DISPOSITION: form-data; filename=\"\0\\\"\"; name=options", b""),
            b"\r\n--x y--\r\nepilogue".to_vec(),
        ]
        .concat();
        let wanted = vec![
            ("file".to_owned(), tricky.to_vec()),
            ("options".to_owned(), Vec::new()),
        ];
        for n_bytes in [1, 2, 3, 5, 7, 11, 64, 1000] {
            assert_eq!(split(KIND, &body, n_bytes), Ok(wanted.clone()), "{n_bytes}");
        }
        assert_eq!(split(KIND, &body[10..], 3).unwrap().len(), 2, "no preamble");
        assert_eq!(split(KIND, b"--x y--", 2), Ok(Vec::new()));
        let end = body.len() - b"\r\nepilogue".len();
        for n_bytes in 0..end {
            assert_eq!(
                split(KIND, &body[..n_bytes], 16),
                Err(Fault::Cut),
                "{n_bytes}"
            );
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for kind in [
            &b"multipart/form-data"[..],
            b"multipart/form-data; boundary=",
            b"multipart/form-data; boundary=\"x",
            b"multipart/form-data; boundary=a\x01b",
            &[b"multipart/form-data; boundary=", [b'x'; 71].as_slice()].concat(),
        ] {
            assert_eq!(split(kind, b"", 1), Err(Fault::NoBoundary));
        }
        let without = [part("Content-Type: x", b""), b"\r\n--x y--".to_vec()].concat();
        assert_eq!(split(KIND, &without, 9), Err(Fault::NoName));
        let empty = b"--x y\r\n\r\nbody\r\n--x y--";
        assert_eq!(split(KIND, empty, 9), Err(Fault::NoName));
        assert_eq!(split(KIND, b"--x yz\r\n", 9), Err(Fault::Broken));
        let long = part(&format!("a: {}", "x".repeat(MAX_HEADER_BYTES)), b"");
        assert_eq!(split(KIND, &long, 100), Err(Fault::LongHeader));
    }
}
