//! Unit vectors -> galleries on disk -> ranked hits -> metrics. Knows no pixels, no networks and no tensors.

#![cfg_attr(
    test,
    allow(
        clippy::float_cmp,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        clippy::too_many_lines,
        reason = "tests use small numbers, and compare what must be equal"
    )
)]

mod across;
mod agreement;
mod collection;
mod disk;
mod embedding;
mod error;
pub mod evaluation;
mod gallery;
mod kernels;
pub mod names;
mod partition;
mod quantise;
mod scan;
mod short;
mod statistics;
#[cfg(test)]
mod testing;

pub use across::{AskedImage, search_across};
pub use agreement::{Agreements, Estimate, Searches, Step, Table};
pub use collection::Collection;
pub use disk::{Disk, DiskFile, RealDisk};
pub use embedding::{MAX_WIDTH, UNIT_TOLERANCE, check_unit, normalize};
pub use error::{Error, Result};
pub use gallery::{
    Batch, ERASING, ErasedList, ErasedPatients, Erasure, Finding, Gallery, Hit, Key, LostRow,
    Maker, Numbers, Refusal, Repair, Report, RowId, Scanner, Setup, Trace, View, ViewId,
    ViewVectors, Writer, abandon_changes, collect, files_of, forget_lost, is_begun, is_gallery,
    repair, verify,
};
pub use scan::{
    Calibration, DEFAULT_HANDICAP, Filter, LeftOut, Level, Method, Plan, Queries, Recall, RowHit,
    SearchOptions, Views, best_of_groups, dot_product, no_column, no_value,
};
pub use statistics::Statistics;
