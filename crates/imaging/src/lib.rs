//! Bytes -> `Volume` -> model input: reads every medical image file and prepares it for the
//! encoder. Knows no tensor library and no network.
//!
//! ```no_run
//! use m3ret_imaging::{ReadOptions, read_path};
//! let volumes = read_path("chest.dcm".as_ref(), &ReadOptions::default())?;
//! for volume in volumes {
//!     println!("{:?} {:?} mm", volume.shape(), volume.spacing);
//! }
//! # Ok::<(), m3ret_imaging::Error>(())
//! ```

#![warn(clippy::indexing_slicing)]

pub mod archive;
mod crop;
mod dicom;
mod dicomdir;
mod division;
mod error;
mod flat;
mod foreign;
mod geometry;
mod guess;
mod identifiers;
mod inflate;
mod intensity;
mod jpeg2000;
mod limits;
mod memory;
mod metaimage;
mod mgh;
mod nifti;
mod npy;
mod nrrd;
mod payload;
mod png;
mod prepare;
pub mod projection;
mod raster;
mod read;
mod reason;
mod resample;
mod samples;
mod series;
mod slices;
mod stack;
mod store;
mod thumbnail;
mod timeline;
mod video;
mod views;
mod volume;
mod zip;

pub use crop::{Region, crop};
pub use error::{Error, Result};
pub use flat::{FLAT_VIEWS, flat_views, has_flat_views};
pub use geometry::{Affine, canonicalise};
pub use identifiers::{Identifier, Identifiers};
pub use limits::Limits;
pub use nifti::encode_nifti;
pub use npy::write_npy;
pub use png::{Pixels, encode_jpeg, encode_png};
pub use prepare::{
    Filter, Input, InputConfig, Scaled, prepare, scaled, scaled_planes, scaled_sides, square_sides,
};
pub use read::{
    DEFAULT_VIDEO_FRAMES, Format, ReadOptions, SNIFF_BYTES, Siblings, Visit, read_bytes, read_file,
    read_head, read_path, read_whole, sniff, visit_file,
};
pub use reason::{Code, Reason, Severity};
pub use resample::resample;
pub use slices::{MAX_SLICE_VIEWS, SLICE_VIEW, has_axial_slices, has_slice_views, slice_views};
pub use thumbnail::{Cut, HU_LEVELS, Picture, Sheet, Strip, has_three_planes, strip, thumbnail};
pub use views::{ViewConfig, view};
pub use volume::{Kind, Padding, Volume};
