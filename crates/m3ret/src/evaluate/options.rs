//! Options of an evaluation.

use std::path::{Path, PathBuf};

use m3ret_encoder::{Precision, RunOptions};
use m3ret_manifest::columns::PATIENT;
use m3ret_search::evaluation::Bootstrap;

use crate::options::{ColumnValue, Reading, n_cores};

/// The column in which a hit must differ from its query by default.
pub const DEFAULT_EXCLUDE: &str = PATIENT;
/// The default cutoffs of metrics, in hits.
pub const DEFAULT_CUTOFFS: [usize; 3] = [1, 5, 10];
/// The default precision of models: f32, so that every machine computes the same metrics.
pub const DEFAULT_PRECISION: Option<Precision> = Some(Precision::F32);

/// What is evaluated, how it is judged, and where the files are written.
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    /// The images, and what is known of them: CSV or Parquet.
    pub manifest: PathBuf,
    /// The folder that is written; each of several models has a folder in it.
    pub out: PathBuf,
    /// Whether files that no evaluation wrote may be replaced.
    pub is_forced: bool,
    /// Models that embed the images. If this and `embeddings` are empty, the default model is used.
    pub models: Vec<NamedModel>,
    /// Vectors that were made elsewhere.
    pub embeddings: Vec<NamedVectors>,
    /// Whether the vectors of `embeddings` are scaled to unit length; without it, other lengths are an error.
    pub normalizes: bool,
    /// Columns whose equal values are relevant to each other; columns joined by `+` must all be equal. If empty,
    /// those of `body_part` and `finding` that the manifest has.
    pub relevance: Vec<String>,
    /// Smallest Jaccard index, above 0 and at most 1, at which images with several labels are relevant; `None` if one
    /// shared label is enough.
    pub least_jaccard: Option<f32>,
    /// Columns in which a hit must differ from its query; if empty, only the query itself is excluded.
    pub exclude: Vec<String>,
    /// Cutoffs of metrics, in hits, in any order.
    pub cutoffs: Vec<usize>,
    /// Conditions that evaluated rows meet in every column; several values of one column are alternatives.
    pub filters: Vec<ColumnValue>,
    /// Whether each relevance column has another task, over all modalities together.
    pub is_pooled: bool,
    /// Whether patients of rows with `split = pretrain` may also be queries or in the gallery.
    pub allows_overlap: bool,
    /// Number of draws of the confidence intervals, and their seed; the seed also decides the order in which equal
    /// scores are shown.
    pub bootstrap: Bootstrap,
    /// Precision and number of threads of the models.
    pub run: RunOptions,
    /// How images are read.
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

/// A model and its name in the results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedModel {
    /// The name in results, and of the folder among several models.
    pub name: String,
    /// A model folder, its name, or a built-in model.
    pub place: String,
}

/// Vectors that were made elsewhere, and their name in the results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedVectors {
    /// The name in results, and of the folder among several models.
    pub name: String,
    /// `.npy`, `.safetensors` or `.parquet`, [rows, width].
    pub path: PathBuf,
}
