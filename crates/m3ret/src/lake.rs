//! Lakes: galleries on an object store, for archives that one machine does not hold (docs/scale.md).
//!
//! `Archive::open` takes the address of a lake as it takes a gallery. A program without the feature `lake` refuses one.

use std::path::Path;

use m3ret_search::Collection;

#[cfg(feature = "lake")]
mod commit;
#[cfg(feature = "lake")]
mod upkeep;

#[cfg(feature = "lake")]
pub use commit::{CommitOptions, Committed, commit};
#[cfg(feature = "lake")]
pub use m3ret_lake::{Added, Checked, Finding, Level, MaintainOptions, Maintained, Plans};
#[cfg(feature = "lake")]
pub use upkeep::{create, export, import, maintain, verify};

/// Returns whether a place is an address on an object store, or a local folder with the layout of a lake.
#[must_use]
pub fn is_lake(place: &Path) -> bool {
    let is_far = place.to_str().is_some_and(|text| text.starts_with("s3://"));
    is_far || place.join("meta.json").is_file() && place.join("vectors.lance").is_dir()
}

/// Opens the version of a lake that counts.
#[cfg(feature = "lake")]
pub(crate) fn open(place: &Path) -> crate::Result<Box<dyn Collection>> {
    Ok(Box::new(m3ret_lake::Lake::open(place)?))
}

#[cfg(not(feature = "lake"))]
pub(crate) fn open(place: &Path) -> crate::Result<Box<dyn Collection>> {
    Err(not_built(place))
}

/// Returns a number that changes whenever the lake should be opened again.
#[cfg(feature = "lake")]
pub(crate) fn generation(place: &Path) -> crate::Result<u64> {
    Ok(m3ret_lake::Lake::newest_generation(place)?)
}

#[cfg(not(feature = "lake"))]
pub(crate) fn generation(place: &Path) -> crate::Result<u64> {
    Err(not_built(place))
}

/// Refuses the first lake of some places.
#[cfg(not(feature = "lake"))]
pub(crate) fn refused(places: &[std::path::PathBuf]) -> crate::Error {
    let lake = places.iter().find(|place| is_lake(place));
    not_built(lake.map_or(Path::new("lake"), |place| place))
}

#[cfg(not(feature = "lake"))]
fn not_built(place: &Path) -> crate::Error {
    anyhow::anyhow!(
        "{}: this m3ret was built without lakes; `cargo build --release -p m3ret-cli --features lake` builds it with them",
        place.display()
    )
    .into()
}
