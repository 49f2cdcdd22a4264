//! Manifests to views: which images, in which order, read ahead of the network.

mod cache;
mod items;
mod loader;
mod permutation;
mod reading;
mod sampler;
mod settings;
mod student;
mod synthetic;
#[cfg(test)]
mod tests;

pub use items::Items;
pub use loader::Loader;
pub use reading::advice;
pub use sampler::Sampler;
pub use student::{Along, ViewRelation};

use m3ret_imaging::Input;

/// The views of one item, as one optimiser step sees them.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The item's place in `Items`; synthetic objects are numbered from `Items::len` on.
    pub item: usize,
    /// `[3, D, side, side]` each: SimDINO the two large views, then the small ones; MAE one; SALT that of the
    /// teachers and, where it differs, that of the student.
    pub views: Vec<Input>,
    /// SALT: where the last view lies in the first.
    pub relation: ViewRelation,
}

/// What one optimiser step is made of, in the order that the sampler drew.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The optimiser step, from 0.
    pub step: u64,
    /// The items that could be read.
    pub samples: Vec<Sample>,
    /// Items that could not be read, with the reason's code.
    pub refused: Vec<(usize, &'static str)>,
}

/// What the manifests hold, for the log and the model card. Counts rows; holds no patient identifier.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Items that are trained on.
    pub n_train: usize,
    /// Items of the validation part.
    pub n_validation: usize,
    /// Rows left out because their modality is MR or PET.
    pub n_mr_left_out: usize,
    /// Items whose modality is MR or PET, where that is allowed.
    pub n_mr: usize,
    /// Items whose row names no modality, or none that is known.
    pub n_unknown_modality: usize,
    /// What a user should know of the manifests.
    pub notes: Vec<String>,
    /// What is trained on, by source, modality and licence, in the order of those names.
    pub parts: Vec<Part>,
}

/// The items of one source, modality and licence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Column `source`; empty where unknown.
    pub source: String,
    /// Column `modality`; empty where unknown.
    pub modality: String,
    /// Column `license`; empty where unknown.
    pub license: String,
    /// Items.
    pub n_items: usize,
}
