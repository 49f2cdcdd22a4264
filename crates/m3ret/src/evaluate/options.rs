//! What is evaluated, and how.

use std::path::{Path, PathBuf};

use m3ret_encoder::{Precision, RunOptions};
use m3ret_manifest::columns::PATIENT;
use m3ret_search::Bootstrap;

use crate::options::{ColumnValue, Reading, n_cores};

/// The column in which a hit must differ from its query, unless others are named.
pub const DEFAULT_EXCLUDE: &str = PATIENT;
/// Cutoffs of metrics, unless others are named.
pub const DEFAULT_CUTOFFS: [usize; 3] = [1, 5, 10];
/// The numbers that networks compute with: f32, so that every machine gets the same metrics.
pub const DEFAULT_PRECISION: Option<Precision> = Some(Precision::F32);

/// What is evaluated, how it is judged, and where the files are written.
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    /// The images, and what is known of them: CSV or Parquet.
    pub manifest: PathBuf,
    /// The folder that is written. Several models have a folder each in it.
    pub out: PathBuf,
    /// Files that no evaluation wrote may be replaced.
    pub is_forced: bool,
    /// Models that embed the images. Without any, and without `embeddings`, the default model is used.
    pub models: Vec<NamedModel>,
    /// Vectors that were made elsewhere.
    pub embeddings: Vec<NamedVectors>,
    /// Vectors of `embeddings` get unit length.
    pub normalizes: bool,
    /// Columns whose equal values are relevant to each other; columns joined by `+` must all be equal. Empty for
    /// those of `body_part` and `finding` that the manifest has.
    pub relevance: Vec<String>,
    /// The Jaccard index, above 0 and at most 1, from which on images with several labels are relevant; `None` if
    /// one shared label is enough.
    pub least_jaccard: Option<f32>,
    /// Columns in which a hit must differ from its query. Empty if only the query itself is excluded.
    pub exclude: Vec<String>,
    /// Cutoffs of metrics, in hits, in any order.
    pub cutoffs: Vec<usize>,
    /// Only rows that pass are evaluated. Several values of one column are alternatives.
    pub filters: Vec<ColumnValue>,
    /// One task more for each column, over all modalities together.
    pub is_pooled: bool,
    /// Patients of rows with split = pretrain may also be queries or in the gallery.
    pub allows_overlap: bool,
    /// Draws of the confidence intervals. The seed also decides in which order equal scores are shown.
    pub bootstrap: Bootstrap,
    /// How models are run.
    pub run: RunOptions,
    pub reading: Reading,
}

impl EvaluateOptions {
    /// Returns the options that evaluate one model with all defaults.
    ///
    /// `model` is a folder, the name of one, or a built-in model; it is also the model's name in the results.
    pub fn of_model(manifest: &Path, model: &str, out: &Path) -> Self {
        Self {
            manifest: manifest.to_owned(),
            out: out.to_owned(),
            is_forced: false,
            models: vec![NamedModel {
                name: model.to_owned(),
                place: model.to_owned(),
            }],
            embeddings: Vec::new(),
            normalizes: false,
            relevance: Vec::new(),
            least_jaccard: None,
            exclude: vec![DEFAULT_EXCLUDE.to_owned()],
            cutoffs: DEFAULT_CUTOFFS.to_vec(),
            filters: Vec::new(),
            is_pooled: false,
            allows_overlap: false,
            bootstrap: Bootstrap::default(),
            run: RunOptions {
                precision: DEFAULT_PRECISION,
                n_threads: Some(n_cores()),
            },
            reading: Reading::default(),
        }
    }

    /// Returns the cutoffs in rising order, each once.
    pub(super) fn sorted_cutoffs(&self) -> Vec<usize> {
        let mut cutoffs = self.cutoffs.clone();
        cutoffs.sort_unstable();
        cutoffs.dedup();
        cutoffs
    }
}

/// A model, and what to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedModel {
    /// What results, and the folder among several, are called by.
    pub name: String,
    /// A folder, the name of one, or a built-in model.
    pub place: String,
}

/// Vectors that were made elsewhere, and what to call them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedVectors {
    pub name: String,
    /// `.npy`, `.safetensors` or `.parquet`, [rows, width].
    pub path: PathBuf,
}
