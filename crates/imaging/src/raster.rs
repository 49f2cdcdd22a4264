//! Being written.
use crate::error::{Error, Result};
use crate::read::ReadOptions;
use crate::volume::Volume;
pub(crate) fn is_raster(_head: &[u8]) -> bool {
    false
}
pub(crate) fn read(_bytes: &[u8], _options: &ReadOptions) -> Result<Vec<Volume>> {
    Err(Error::unsupported("raster", "", ""))
}
