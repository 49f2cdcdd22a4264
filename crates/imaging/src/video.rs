//! Being written.
use crate::error::{Error, Result};
use crate::read::ReadOptions;
use crate::volume::Volume;
use std::path::Path;
pub(crate) fn is_video(_head: &[u8]) -> bool {
    false
}
pub(crate) fn read_file(_path: &Path, _options: &ReadOptions) -> Result<Volume> {
    Err(Error::unsupported("video", "", ""))
}
pub(crate) fn read_bytes(_bytes: &[u8], _options: &ReadOptions) -> Result<Volume> {
    Err(Error::unsupported("video", "", ""))
}

/// Which of `n_stored` frames stand for `n_wanted` equal spans of time: the one at each centre.
pub(crate) fn uniform_frames(n_stored: usize, n_wanted: usize) -> Vec<usize> {
    (0..n_wanted)
        .map(|i| ((2 * i + 1) * n_stored / (2 * n_wanted)).min(n_stored - 1))
        .collect()
}
