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

mod bootstrap;
mod collection;
mod columns;
mod compare;
mod disk;
mod embedding;
mod error;
mod evaluate;
mod gallery;
#[cfg(test)]
mod golden;
mod kernels;
mod metrics;
pub mod names;
mod partition;
mod quantise;
mod resolution;
mod scan;
mod statistics;
mod strata;
mod tasks;
#[cfg(test)]
mod testing;

pub use bootstrap::{Bootstrap, Clusters, Interval, MIN_PATIENTS, percentiles};
pub use collection::Collection;
pub use columns::{Column, Columns, LABEL_SEPARATOR};
pub use compare::{Difference, Pair as ComparedPair, Verdict};
pub use disk::{Disk, DiskFile, RealDisk};
pub use embedding::{MAX_WIDTH, UNIT_TOLERANCE, check_unit, normalize};
pub use error::{Error, Result};
pub use evaluate::{
    Answer, COLLAPSED_RANGE, Embeddings, Evaluation, LeftOutQueries, MIXED_K, Measures, Mixed,
    MixedAnswer, RankedItem, RelevanceRule, evaluate, mixed, relevant_items,
};
pub use gallery::{
    Batch, Finding, Gallery, Maker, Numbers, Repair, Report, RowId, Setup, Writer, is_gallery,
    repair, verify,
};
pub use metrics::{Block, KNN_K, KNN_TEMPERATURE, MAX_TIED_VOTE_K, Metric, Ranking, Vote};
pub use resolution::{CORRELATION, Resolution};
pub use scan::{Calibration, Filter, Hit, LeftOut, Method, Plan, Queries, SearchOptions};
pub use statistics::{Pair, Statistics};
pub use strata::{Strata, Stratum};
pub use tasks::{Scope, Task, Tasks, derive};
