//! The secret of a gallery, with which identifiers are hashed.

use std::path::Path;

use super::KEY;
use crate::disk::read_regular;
use crate::error::{Error, Result};

/// The random key of a gallery: identifiers are stored only as hashes with it.
#[derive(Clone)]
pub struct Key(pub(super) [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Key(..)")
    }
}

impl Key {
    /// Draws a new key.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn new() -> std::io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    pub(super) fn read(folder: &Path, check: &str) -> Result<Self> {
        let key = Self::of_folder(folder)?;
        if key.check() != check {
            let found = "not the key that the gallery was made with";
            return Err(Error::damaged(&folder.join(KEY), found));
        }
        Ok(key)
    }

    /// Reads the key that lies in a folder, whichever it is.
    pub(super) fn of_folder(folder: &Path) -> Result<Self> {
        Self::of_file(&folder.join(KEY))
    }

    /// Reads a key from its file of 32 bytes.
    ///
    /// # Errors
    /// `Io`; `Damaged` if the file does not have 32 bytes.
    pub fn of_file(path: &Path) -> Result<Self> {
        let bytes = read_regular(path, size_of::<Self>() as u64 + 1);
        let bytes = bytes.map_err(Error::io("reading", path))?;
        let key = bytes.try_into().map(Self);
        key.map_err(|_| Error::damaged(path, "not 32 bytes"))
    }

    /// Returns what tells this key from another, and does not give it away.
    #[must_use]
    pub fn check(&self) -> String {
        blake3::derive_key("m3ret gallery key check v1", &self.0)[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Returns the hash under which an identifier of a kind (`patient_id`) is stored; empty for an empty identifier.
    #[must_use]
    pub fn pseudonym(&self, kind: &str, identifier: &str) -> String {
        if identifier.is_empty() {
            return String::new();
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(kind.len() as u64).to_le_bytes());
        hasher.update(kind.as_bytes());
        hasher.update(identifier.as_bytes());
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// Returns the keyed hash of bytes, apart from those of other purposes, as hexadecimal digits.
    #[must_use]
    pub fn keyed_digest(&self, purpose: &str, bytes: &[u8]) -> String {
        self.digest(purpose, bytes).to_hex().to_string()
    }

    /// Returns the keyed hash of bytes, apart from those of other purposes.
    pub(super) fn digest(&self, purpose: &str, bytes: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(purpose.len() as u64).to_le_bytes());
        hasher.update(purpose.as_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}
