//! Names of files: keyed hashes of UIDs, so that nothing of the network becomes a path and no name leads to a patient.

use std::fmt;

use crate::uid::Uid;

/// Number of hexadecimal digits of a name.
const N_DIGITS: usize = 32;

/// Makes names under one key: equal UIDs have equal names, and nobody without the key can test one.
#[derive(Clone)]
pub struct Names([u8; 32]);

impl Names {
    /// Derives the key of names from a secret of the caller.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(blake3::derive_key(
            "m3ret dicomnet 1 names of files",
            secret,
        ))
    }

    /// Returns the name of an instance.
    #[must_use]
    pub fn instance(&self, sop_instance: &Uid) -> String {
        self.name("instance", sop_instance)
    }

    /// Returns the name of a series.
    #[must_use]
    pub fn series(&self, series: &Uid) -> String {
        self.name("series", series)
    }

    /// Returns the name of a source, by what the caller calls it.
    #[must_use]
    pub fn source(&self, source: &str) -> String {
        self.hashed("source", source)
    }

    fn name(&self, kind: &str, uid: &Uid) -> String {
        self.hashed(kind, uid.expose())
    }

    fn hashed(&self, kind: &str, text: &str) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(kind.as_bytes()).update(b"\0");
        hasher.update(text.as_bytes());
        let digits = hasher.finalize().to_hex();
        digits.get(..N_DIGITS).unwrap_or_default().to_owned()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Names(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_depend_on_key_kind_and_uid_alone() {
        let uid = Uid::new(b"1.2.3").unwrap();
        let (one, other) = (Names::new(b"a"), Names::new(b"b"));
        assert_eq!(one.series(&uid), one.clone().series(&uid));
        assert_ne!(one.series(&uid), other.series(&uid));
        assert_ne!(one.series(&uid), one.instance(&uid));
        assert_eq!(one.series(&uid).len(), N_DIGITS);
        assert_eq!(format!("{one:?}"), "Names(..)");
    }
}
