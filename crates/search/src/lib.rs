//! Unit vectors -> galleries on disk -> ranked hits. Knows no pixels, no networks and no tensors.

mod disk;
mod embedding;
mod error;
mod gallery;
mod kernels;
mod partition;
mod quantise;
mod scan;
mod statistics;
#[cfg(test)]
mod testing;

pub use disk::{Disk, DiskFile, RealDisk};
pub use embedding::{MAX_WIDTH, UNIT_TOLERANCE, check_unit, normalize};
pub use error::{Error, Result};
pub use gallery::{
    Batch, Finding, Gallery, Maker, Numbers, Repair, Report, RowId, Setup, Writer, repair, verify,
};
pub use scan::{Calibration, Filter, Hit, LeftOut, Method, Queries, SearchOptions};
pub use statistics::{Pair, Statistics};
