//! Being written.
use crate::error::{Error, Result};
use crate::read::{ReadOptions, Siblings};
use crate::volume::Volume;
pub(crate) fn is_metaimage(_head: &[u8]) -> bool {
    false
}
pub(crate) fn read(
    _bytes: &[u8],
    _siblings: Siblings<'_>,
    _options: &ReadOptions,
) -> Result<Vec<Volume>> {
    Err(Error::unsupported("metaimage", "", ""))
}
