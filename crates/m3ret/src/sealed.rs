//! Identifiers that only who has a key file can read: the gallery holds them sealed, and a copy of it gives nothing away.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};

use crate::error::{bail, ensure};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of a nonce; 16 of them are given by the caller.
const NONCE_BYTES: usize = 24;

/// The key of a gallery's identifiers, which lies outside of the gallery.
#[derive(Clone)]
pub struct SealKey(XChaCha20Poly1305);

impl fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealKey(..)")
    }
}

impl SealKey {
    /// Opens a key file, or makes one that only this user can read.
    ///
    /// # Errors
    /// `Io` if it cannot be read or made; `Caller` if others can read it, or it holds no key.
    pub fn open_or_create(path: &Path) -> crate::Result<Self> {
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path) {
            Ok(mut file) => {
                let mut key = [0; KEY_BYTES];
                let made = getrandom::fill(&mut key).map_err(std::io::Error::other);
                let written = made.and_then(|()| {
                    file.write_all(hexadecimal(&key).as_bytes())?;
                    file.sync_all()
                });
                if written.is_err() {
                    // Half a key would be in the way of the next try.
                    let _ = std::fs::remove_file(path);
                }
                written.with_context(|| format!("making the key file {}", path.display()))?;
                Ok(Self(XChaCha20Poly1305::new(&Key::from(key))))
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Self::open(path),
            Err(error) => {
                let error = anyhow::Error::new(error);
                Err(error
                    .context(format!("making the key file {}", path.display()))
                    .into())
            }
        }
    }

    /// Opens a key file.
    ///
    /// # Errors
    /// As `open_or_create`.
    pub fn open(path: &Path) -> crate::Result<Self> {
        let doing = || format!("reading the key file {}", path.display());
        let file = m3ret_files::open_regular(path).with_context(doing)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = file.metadata().with_context(doing)?.permissions().mode();
            ensure!(
                mode & 0o077 == 0,
                "{}: others can read this key (mode {:03o}); take that away with chmod 600",
                path.display(),
                mode & 0o777
            );
        }
        let mut text = String::new();
        let read = file.take(1024).read_to_string(&mut text);
        read.with_context(doing)?;
        let Some(key) = bytes_of(text.trim()).and_then(|key| <[u8; KEY_BYTES]>::try_from(key).ok())
        else {
            bail!(
                "{}: found something else, wanted a key of 64 hexadecimal digits, as m3ret makes it",
                path.display()
            );
        };
        Ok(Self(XChaCha20Poly1305::new(&Key::from(key))))
    }

    /// Seals study and series under a nonce of 32 hexadecimal digits, which is another for other UIDs.
    ///
    /// # Errors
    /// `Caller` if the nonce is none.
    pub(crate) fn seal(&self, uids: [&str; 2], nonce: &str) -> crate::Result<String> {
        let half = bytes_of(nonce).unwrap_or_default();
        ensure!(
            half.len() == 16,
            "a nonce of 32 hexadecimal digits is wanted"
        );
        let nonce = nonce_of(&half);
        let sealed = self.0.encrypt(&nonce, uids.join("\n").as_bytes());
        let Ok(sealed) = sealed else {
            bail!("the identifiers cannot be sealed");
        };
        Ok(hexadecimal(&half) + &hexadecimal(&sealed))
    }

    /// Opens what was sealed: `StudyInstanceUID` and `SeriesInstanceUID`.
    ///
    /// # Errors
    /// `Caller` if it was sealed under another key, or changed since.
    pub fn unseal(&self, sealed: &str) -> crate::Result<[String; 2]> {
        let bytes = bytes_of(sealed).unwrap_or_default();
        let opened = bytes.split_at_checked(16).and_then(|(half, sealed)| {
            let text = self.0.decrypt(&nonce_of(half), sealed).ok()?;
            let text = String::from_utf8(text).ok()?;
            let (study, series) = text.split_once('\n')?;
            Some([study.to_owned(), series.to_owned()])
        });
        let Some(uids) = opened else {
            bail!("the identifiers were sealed with another key, or changed since");
        };
        Ok(uids)
    }
}

fn nonce_of(half: &[u8]) -> XNonce {
    let mut nonce = [0; NONCE_BYTES];
    for (byte, given) in nonce.iter_mut().zip(half) {
        *byte = *given;
    }
    XNonce::from(nonce)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [_, _] if pair.iter().all(u8::is_ascii_hexdigit) => {
            u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()
        }
        _ => None,
    };
    digits.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_opened_with_the_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let key = SealKey::open_or_create(&folder.path().join("a.key")).unwrap();
        let other = SealKey::open_or_create(&folder.path().join("b.key")).unwrap();
        let nonce = "00112233445566778899aabbccddeeff";
        let sealed = key.seal(["1.2", "1.2.3"], nonce).unwrap();
        assert!(!sealed.contains("1.2"));
        assert_eq!(sealed, key.seal(["1.2", "1.2.3"], nonce).unwrap());
        let again = SealKey::open_or_create(&folder.path().join("a.key")).unwrap();
        assert_eq!(again.unseal(&sealed).unwrap(), ["1.2", "1.2.3"]);
        assert!(other.unseal(&sealed).is_err());
        let last = if sealed.ends_with('0') { "1" } else { "0" };
        let changed = sealed[..sealed.len() - 1].to_owned() + last;
        assert!(key.unseal(&changed).is_err() && key.unseal("zz").is_err());
        assert!(key.seal(["1", "2"], "short").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        SealKey::open_or_create(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(SealKey::open_or_create(&path).is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "junk").unwrap();
        assert!(SealKey::open(&path).is_err());
    }
}
