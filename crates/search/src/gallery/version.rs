//! Versions of the format: which are read, and which is written.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

/// The version of segments with one vector a row, and of galleries of such segments without refusals.
pub(super) const ONE_VECTOR: u32 = 2;
/// The version of segments with several vectors a row.
pub(super) const SEVERAL_VECTORS: u32 = 3;
/// From this version on, a catalog may name a file of refusals.
pub(super) const REFUSALS: u32 = 3;
/// From this version on, a catalog may name segments with several vectors a row, and a file of agreements.
pub(super) const GALLERY_OF_SEVERAL: u32 = 4;
/// From this version on, a catalog may name a list of erased patients: whoever does not know it would add them again.
pub(super) const ERASED: u32 = 5;
/// From this version on, a calibration may have plans for several recalls, and over short codes.
pub(super) const LEVELS: u32 = 6;
/// The oldest version that is read.
const OLDEST: u32 = 1;
/// From this version on, the values of a column stand in ascending order.
pub(super) const SORTED_VALUES: u32 = 2;
/// From this version on, a segment's description says how many vectors there are.
pub(super) const N_VECTORS: u32 = 2;

/// What has a version.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    Gallery,
    Segment,
}

impl Of {
    /// The newest version that is read.
    fn newest(self) -> u32 {
        match self {
            Self::Gallery => LEVELS,
            Self::Segment => SEVERAL_VECTORS,
        }
    }
}

/// Returns the version that a catalog has at least, by that of one of its segments.
pub(super) fn of_gallery(segment: u32) -> u32 {
    match segment {
        SEVERAL_VECTORS => GALLERY_OF_SEVERAL,
        version => version,
    }
}

/// The part of a catalog or a segment's description that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Checks that a description is of a version that is read, before anything else in it is looked at.
///
/// # Errors
/// `Unsupported` for another version; `Damaged` if the JSON names none.
pub(super) fn check(json: &[u8], of: Of, path: &Path) -> Result<()> {
    let Versioned { version } = serde_json::from_slice(json)
        .map_err(|error| Error::damaged(path, format!("its description: {error}")))?;
    let newest = of.newest();
    if (OLDEST..=newest).contains(&version) {
        return Ok(());
    }
    let of_what = match of {
        Of::Gallery => "galleries",
        Of::Segment => "segments",
    };
    Err(Error::Unsupported {
        path: path.to_owned(),
        found: format!("version {version} of the format of {of_what}"),
        wanted: format!(
            "this program reads versions {OLDEST} to {newest}; use a newer m3ret for a later one"
        ),
    })
}
