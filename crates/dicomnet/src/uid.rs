//! Unique identifiers, which name no patient but lead to one: they are never printed.

use std::fmt;

use crate::error::{Error, Result};

/// Longest UID (PS3.5, section 9.1).
const MAX_CHARACTERS: usize = 64;

/// A UID that is well formed: digits and points.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(String);

impl Uid {
    /// Checks a UID, which may be padded with zeros or spaces.
    ///
    /// # Errors
    /// `Malformed` if it is empty, too long, or holds anything but digits and points.
    pub fn new(text: &[u8]) -> Result<Self> {
        let padding = |byte: &u8| *byte == 0 || *byte == b' ';
        let n_padding = text.iter().rev().take_while(|byte| padding(byte)).count();
        let text = text.get(..text.len() - n_padding).unwrap_or_default();
        let is_fine = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
        let has_length = (1..=MAX_CHARACTERS).contains(&text.len());
        match std::str::from_utf8(text) {
            Ok(text) if has_length && text.bytes().all(|byte| is_fine(&byte)) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(Error::malformed(
                "UID",
                format!("{} bytes", text.len()),
                "1 to 64 digits and points",
            )),
        }
    }

    /// Returns the UID, for the PACS and for keyed hashes alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Uid(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_and_points_are_a_uid_and_none_is_printed() {
        assert_eq!(Uid::new(b"1.2.3\0").unwrap().expose(), "1.2.3");
        assert_eq!(Uid::new(b"1.2.3 ").unwrap().expose(), "1.2.3");
        let long = [b'1'; 65];
        for wrong in [&b""[..], b"\0", b"1.2/..", b"1.2%2f", b"a", b"1 2", &long] {
            assert!(Uid::new(wrong).is_err());
        }
        assert!(!format!("{:?}", Uid::new(b"1.2.3").unwrap()).contains('1'));
    }
}
