//! Paths as text and back without loss: ids, cells and reports are text, and names of files are bytes.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Begins the text of a path that is not UTF-8.
const MARK: &str = "bytes:";

/// Returns a path as text.
///
/// A path that is UTF-8 is its own text. Of any other, the text is `bytes:` and the path with each byte
/// that is not UTF-8, and each `%`, as `%` and two hexadecimal digits: `bytes:caf%E9.png`. So two paths
/// never have one text.
#[must_use]
pub fn text_of(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.starts_with(MARK) => text.to_owned(),
        _ => escaped(path.as_os_str().as_encoded_bytes()),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = MARK.to_owned();
    for chunk in bytes.utf8_chunks() {
        text += &chunk.valid().replace('%', "%25");
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Returns the path that `text_of` made a text of. A text that it cannot have made is a path by itself.
#[must_use]
pub fn path_of(text: &str) -> PathBuf {
    let path = text.strip_prefix(MARK).and_then(bytes_of).and_then(as_path);
    path.unwrap_or_else(|| PathBuf::from(text))
}

fn bytes_of(escaped: &str) -> Option<Vec<u8>> {
    let mut parts = escaped.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2)?;
        // A sign is no digit, though parsing allows one.
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
        bytes.extend(&part.as_bytes()[2..]);
    }
    Some(bytes)
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "not every system takes any bytes")]
fn as_path(bytes: Vec<u8>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(not(unix))]
fn as_path(bytes: Vec<u8>) -> Option<PathBuf> {
    let text = String::from_utf8(bytes).ok()?;
    Some(PathBuf::from(OsString::from(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        for (bytes, text) in [
            (&b"caf\xe9.png"[..], "bytes:caf%E9.png"),
            (b"a/100%\xff", "bytes:a/100%25%FF"),
            (b"100%25.png", "100%25.png"),
            ("\u{fc}.png".as_bytes(), "\u{fc}.png"),
            (b"bytes:a", "bytes:bytes:a"),
        ] {
            let path = as_path(bytes.to_vec()).unwrap();
            assert_eq!(text_of(&path), text);
            assert_eq!(path_of(text), path);
        }
        for text in ["bytes:%", "bytes:%G0", "bytes:a%4", "bytes:%+1", "a%E9"] {
            assert_eq!(path_of(text), Path::new(text), "{text}");
        }
    }

    #[cfg(unix)]
    proptest! {
        #[test]
        fn every_path_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let path = as_path(bytes).unwrap();
            prop_assert_eq!(path_of(&text_of(&path)), path);
        }
    }
}
