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
