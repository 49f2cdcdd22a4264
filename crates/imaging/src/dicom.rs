//! Being written.
use crate::error::{Error, Result};
use crate::read::ReadOptions;
use crate::volume::Volume;
pub(crate) fn is_bare_data_set(_head: &[u8]) -> bool {
    false
}
pub(crate) fn read(_bytes: &[u8], _options: &ReadOptions) -> Result<Vec<Volume>> {
    Err(Error::unsupported("dicom", "", ""))
}
