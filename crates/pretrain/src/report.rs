//! What a run says about itself: the log, event files, the report, the model card.

use serde::{Deserialize, Serialize};

/// One line of the log: what one optimiser step, or one look at the validation part, gave.
///
/// Numbers that do not exist are absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// The optimiser step, from 0.
    pub step: u64,
    /// Passes over the items so far.
    pub epoch: f64,
    /// The loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// SimDINO: the alignment A, in -1..=1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alignment: Option<f64>,
    /// SimDINO: the coding rate R.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coding_rate: Option<f64>,
    /// SimDINO: R of vectors that are all equal, for this batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coding_rate_collapsed: Option<f64>,
    /// SimDINO: the largest R, for this batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coding_rate_bound: Option<f64>,
    /// SimDINO: effective rank of the teacher's vectors of the batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_rank: Option<f64>,
    /// SimDINOv2's alignment of masked patches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_alignment: Option<f64>,
    /// Learning rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Weight decay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Momentum of the teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Norm of the whole gradient, before it is clipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// Items in the batch, m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<usize>,
    /// Items a second of wall time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items_per_second: Option<f64>,
    /// Share of the step's wall time that waited for images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<f64>,
    /// kNN on the validation part, by the student.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knn_student: Option<Knn>,
    /// kNN on the validation part, by the teacher (SimDINO).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knn_teacher: Option<Knn>,
}

/// Retrieval within the validation part, other patients only.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Knn {
    /// Share of the queries whose nearest neighbour is relevant.
    pub hit_at_1: f64,
    /// Mean share of relevant items among the nearest five.
    pub precision_at_5: f64,
    /// Queries with at least one relevant item.
    pub n_queries: usize,
    /// `hit_at_1` that a random ranking would reach.
    pub chance_hit_at_1: f64,
}
