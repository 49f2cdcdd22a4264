//! What a run says about itself: the log, event files, the report, the model card.
//!
//! `log` keeps every entry, `events` gives them to `TensorBoard`, `history` thins them out for people, and
//! `card` writes the model card. `Summary` is what a report of the run shows; whoever watches the run draws it.

pub(crate) mod card;
pub(crate) mod events;
pub(crate) mod history;
pub(crate) mod log;
mod summary;
pub mod words;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::card::{method_name, times};
pub use self::history::{Bin, History, KnnHistory, Series};
pub use self::summary::{Picture, Summary};
use crate::config::Config;
use crate::error::{Error, Result};

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
    /// Synthetic objects among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<usize>,
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

impl Entry {
    /// Returns every number that exists and is finite, by name: the field's, or `knn_teacher/hit_at_1` and the like.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let own = [
            ("epoch", Some(self.epoch)),
            ("loss", self.loss),
            ("alignment", self.alignment),
            ("coding_rate", self.coding_rate),
            ("coding_rate_collapsed", self.coding_rate_collapsed),
            ("coding_rate_bound", self.coding_rate_bound),
            ("effective_rank", self.effective_rank),
            ("patch_alignment", self.patch_alignment),
            ("lr", self.lr),
            ("weight_decay", self.weight_decay),
            ("momentum", self.momentum),
            ("gradient_norm", self.gradient_norm),
            ("items", self.items.map(words::as_f64)),
            ("synthetic", self.synthetic.map(words::as_f64)),
            ("items_per_second", self.items_per_second),
            ("waiting", self.waiting),
        ];
        let [student, teacher] = [self.knn_student, self.knn_teacher];
        let knn = [
            ("knn_student/hit_at_1", student.map(|knn| knn.hit_at_1)),
            (
                "knn_student/precision_at_5",
                student.map(|knn| knn.precision_at_5),
            ),
            (
                "knn_student/chance_hit_at_1",
                student.map(|knn| knn.chance_hit_at_1),
            ),
            ("knn_teacher/hit_at_1", teacher.map(|knn| knn.hit_at_1)),
            (
                "knn_teacher/precision_at_5",
                teacher.map(|knn| knn.precision_at_5),
            ),
            (
                "knn_teacher/chance_hit_at_1",
                teacher.map(|knn| knn.chance_hit_at_1),
            ),
        ];
        own.into_iter()
            .chain(knn)
            .filter_map(|(name, value)| Some((name, value.filter(|value| value.is_finite())?)))
    }
}

impl Knn {
    fn is_finite(&self) -> bool {
        [self.hit_at_1, self.precision_at_5, self.chance_hit_at_1]
            .iter()
            .all(|value| value.is_finite())
    }
}

/// Returns the settings of a run as TOML that may be passed on: of paths, only the last part is left.
///
/// # Errors
/// `Toml` if a number is too large for TOML.
pub fn settings_text(config: &Config) -> Result<String> {
    let mut shown = config.clone();
    shown.out = last_part(&config.out).into();
    shown.manifests = config
        .manifests
        .iter()
        .map(|path| last_part(path).into())
        .collect();
    shown.init = config.init.as_deref().map(|path| last_part(path).into());
    shown.salt.teachers = config
        .salt
        .teachers
        .iter()
        .map(|path| last_part(path).into())
        .collect();
    shown.images.cache = config
        .images
        .cache
        .as_deref()
        .map(|path| last_part(path).into());
    toml::to_string(&shown).map_err(|error| Error::Toml {
        path: config.out.clone(),
        message: format!("the settings cannot be written: {error}"),
    })
}

/// Returns the last part of a path, for people.
pub fn last_part(path: &Path) -> String {
    // A run's own model lies in its folder `model`: the run has the name.
    let named = match (path.file_name(), path.parent().and_then(Path::file_name)) {
        (Some(name), Some(run)) if name == "model" => Some(run),
        (name, _) => name,
    };
    named.map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}
