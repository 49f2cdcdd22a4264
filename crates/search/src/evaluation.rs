//! What the rankings of a table's images are worth: tasks, exact rankings, metrics, intervals, comparisons.
//!
//! The room needs no gallery on disk: images are rows of `Columns`, and vectors are rows of `Embeddings`.
//! Of the rest of the crate it uses `kernels` for exact dot products (`dots_f32` and `dot`), `embedding` for
//! what a unit vector is, `names` for the columns that tasks follow from, and `error`. Nothing outside the
//! room uses the room.

mod bootstrap;
mod columns;
mod compare;
#[cfg(test)]
mod golden;
mod metrics;
mod ranking;
mod resolution;
mod strata;
mod tasks;

pub use bootstrap::{Bootstrap, Clusters, Interval, MIN_PATIENTS, percentiles};
pub use columns::{Column, Columns, LABEL_SEPARATOR};
pub use compare::{Difference, DifferenceVerdict, QueryPair};
pub use metrics::{Block, KNN_K, KNN_TEMPERATURE, MAX_TIED_VOTE_K, Metric, Ranking, Vote};
pub use ranking::{
    Answer, COLLAPSED_RANGE, Embeddings, Evaluation, LeftOutQueries, MIXED_K, Measures, Mixed,
    MixedAnswer, RankedItem, RankedViews, RelevanceRule, evaluate, mixed, relevant_items,
};
pub use resolution::{CORRELATION, Resolution};
pub use strata::{Strata, Stratum};
pub use tasks::{Scope, Task, Tasks, derive};
