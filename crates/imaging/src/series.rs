//! Being written.
use std::path::Path;
use crate::error::{Error, Result};
use crate::read::ReadOptions;
use crate::volume::Volume;
pub(crate) fn read_folder(_path: &Path, _options: &ReadOptions) -> Result<Vec<Volume>> { Err(Error::unsupported("series", "", "")) }
