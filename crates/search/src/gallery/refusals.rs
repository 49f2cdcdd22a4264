//! Images that have no row because they were refused, so that they are not read again before they change.

use serde::{Deserialize, Serialize};

/// An image that was refused, and in which state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Changes with the path, the sizes and the times of the files, as `m3ret:key` of a row does.
    pub key: String,
    /// Newest ctime of the files in nanoseconds, as `m3ret:changed` of a row.
    pub changed: String,
    /// What else decided: the program's version, and the limits it read with.
    pub reader: String,
    /// The path as the gallery would store it.
    pub path: String,
    /// The absolute path.
    pub file: String,
    /// Which image of the file this is; `None` if the file holds one image.
    pub part: Option<String>,
    /// The reason code.
    pub reason: String,
    /// Why it was refused, as a sentence.
    pub message: String,
    /// Hash of all values; empty if they could not be read.
    pub pixels: String,
}

/// Most refusals that a gallery keeps: images beyond them are read again each time.
const MAX_REFUSALS: usize = 250_000;
/// Most bytes of all texts of refusals: two copies with their names and escapes fit what a reader takes.
const MAX_TEXT_BYTES: usize = 16 << 20;

impl Refusal {
    fn n_bytes(&self) -> usize {
        let texts = [
            &self.key,
            &self.changed,
            &self.reader,
            &self.path,
            &self.file,
            &self.reason,
            &self.message,
            &self.pixels,
        ];
        let part = self.part.as_ref().map_or(0, String::len);
        texts.iter().map(|text| text.len()).sum::<usize>() + part
    }
}

/// Returns the refusals that a gallery keeps: all of them, unless they are far too many.
pub(super) fn kept(refusals: &[Refusal]) -> &[Refusal] {
    let mut n_bytes = 0;
    let fits = refusals.iter().take(MAX_REFUSALS).take_while(|refusal| {
        n_bytes += refusal.n_bytes();
        n_bytes <= MAX_TEXT_BYTES
    });
    &refusals[..fits.count()]
}
