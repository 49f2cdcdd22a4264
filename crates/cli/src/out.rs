//! The two output streams: the only module that touches them.
//!
//! Names, cells and headers are untrusted. Whatever a verb writes, no character reaches a terminal that acts on it or
//! cannot be seen, but line breaks, tabs and our own colours.

use std::io::{self, IsTerminal as _, StdoutLock, Write};

use m3ret::words::{acts_on_a_terminal, printable_lines};

/// Returns standard output, for this thread alone until it is dropped.
pub(crate) fn stdout() -> Stdout {
    Printable {
        out: io::stdout().lock(),
        held: Vec::new(),
    }
}

/// Returns whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Returns whether standard error is a terminal.
pub(crate) fn has_terminal_for_notes() -> bool {
    io::stderr().is_terminal()
}

/// Says something on standard error. Nothing can be done if that is gone.
pub(crate) fn tell(sentence: &str) {
    let _ = writeln!(io::stderr(), "m3ret: {}", printable_lines(sentence));
}

/// Ends the line on standard error.
pub(crate) fn end_line_of_notes() {
    let _ = writeln!(io::stderr());
}

/// Standard output as verbs write it.
pub(crate) type Stdout = Printable<StdoutLock<'static>>;

/// A stream of text that passes nothing on which acts on a terminal.
#[derive(Debug)]
pub(crate) struct Printable<W: Write> {
    out: W,
    /// The beginning of a character or a colour whose end is still to come.
    held: Vec<u8>,
}

impl<W: Write> Write for Printable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
        if self.held.is_empty() && bytes.iter().all(is_plain) {
            self.out.write_all(bytes)?;
        } else {
            self.held.extend(bytes);
            self.pass()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Drop for Printable<W> {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            let rest = escaped_bytes(&self.held);
            // As of any stream that is dropped, an error has no place to go.
            let _ = self.out.write_all(rest.as_bytes());
        }
    }
}

impl<W: Write> Printable<W> {
    /// Writes what is held, but for a last character or colour that is not complete.
    fn pass(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        let mut text = String::with_capacity(held.len());
        let mut rest = held.as_slice();
        while !rest.is_empty() {
            let (valid, invalid) = match std::str::from_utf8(rest) {
                Ok(valid) => (valid, None),
                Err(error) => {
                    let valid = rest.get(..error.valid_up_to()).unwrap_or_default();
                    let valid = std::str::from_utf8(valid).unwrap_or_default();
                    (valid, Some(error.error_len()))
                }
            };
            let n_kept = escape(valid, &mut text, invalid.is_none());
            rest = rest.get(valid.len() - n_kept..).unwrap_or_default();
            match invalid {
                Some(Some(n_bytes)) => {
                    let (broken, others) = rest.split_at(n_bytes.min(rest.len()));
                    text += &escaped_bytes(broken);
                    rest = others;
                }
                // The end of the last character, or of a colour, is still to come.
                Some(None) | None => {
                    self.held = rest.to_vec();
                    break;
                }
            }
        }
        self.out.write_all(text.as_bytes())
    }
}

/// Appends text with its characters escaped; returns how many bytes at its end may begin a colour, if there `may_be_more`.
fn escape(valid: &str, text: &mut String, may_be_more: bool) -> usize {
    let mut at = 0;
    while let Some(rest) = valid.get(at..)
        && let Some(character) = rest.chars().next()
    {
        at += character.len_utf8();
        match character {
            '\x1b' => match colour(rest) {
                Colour::Whole(n_bytes) => {
                    text.push_str(rest.get(..n_bytes).unwrap_or_default());
                    at += n_bytes - 1;
                }
                Colour::Begun if may_be_more => return rest.len(),
                Colour::Begun | Colour::None => text.extend(character.escape_default()),
            },
            '\n' | '\t' => text.push(character),
            _ if acts_on_a_terminal(character) => text.extend(character.escape_default()),
            _ => text.push(character),
        }
    }
    0
}

enum Colour {
    /// A colour of this many bytes.
    Whole(usize),
    /// The text ends before the colour does.
    Begun,
    None,
}

/// Longest sequence that sets a colour.
const MAX_COLOUR_BYTES: usize = 12;

/// Tells whether a text begins with a colour: escape, `[`, digits and semicolons, `m`.
fn colour(text: &str) -> Colour {
    let bytes = text.as_bytes();
    if bytes.get(1).is_some_and(|&byte| byte != b'[') {
        return Colour::None;
    }
    let parameters = bytes.iter().skip(2).take(MAX_COLOUR_BYTES);
    let n_bytes = parameters
        .take_while(|byte| byte.is_ascii_digit() || **byte == b';')
        .count();
    match bytes.get(2 + n_bytes) {
        Some(b'm') => Colour::Whole(3 + n_bytes),
        None => Colour::Begun,
        Some(_) => Colour::None,
    }
}

fn escaped_bytes(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes pieces and returns what comes out.
    fn written(pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut printable = Printable {
            out: &mut out,
            held: Vec::new(),
        };
        for piece in pieces {
            printable.write_all(piece).unwrap();
        }
        drop(printable);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_that_acts_on_a_terminal_comes_out() {
        let text =
            "a\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m\u{9b}\u{202e}x\u{2069}\r\n\t\u{fc}\x7f";
        let wanted = "a\\u{1b}]0;owned\\u{7}\\u{1b}[2J\x1b[31mred\x1b[0m\\u{9b}\\u{202e}x\\u{2069}\\r\n\t\u{fc}\\u{7f}";
        assert_eq!(written(&[text.as_bytes()]), wanted);
        // However it is cut into pieces.
        for n_bytes in 1..7 {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(n_bytes).collect();
            assert_eq!(written(&pieces), wanted, "{n_bytes}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        assert_eq!(written(&[b"a\xff\xfeb"]), "a\\xff\\xfeb");
        assert_eq!(written(&[b"end \xe2\x80"]), "end \\xe2\\x80");
        assert_eq!(written(&[b"end \x1b[1"]), "end \\x1b\\x5b\\x31");
    }
}
