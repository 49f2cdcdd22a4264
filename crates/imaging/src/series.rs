//! Being written.
use crate::error::{Error, Result};
use crate::read::ReadOptions;
use crate::volume::Volume;
use std::path::Path;
pub(crate) fn read_folder(_path: &Path, _options: &ReadOptions) -> Result<Vec<Volume>> {
    Err(Error::unsupported("series", "", ""))
}
