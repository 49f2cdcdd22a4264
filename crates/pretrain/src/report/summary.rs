//! What a report of a run shows, as plain values.

use m3ret_encoder::ModelConfig;
use m3ret_imaging::Input;

use super::history::History;
use crate::config::Config;
use crate::dataset::Facts;
use crate::train::RunFacts;

/// What a report shows at a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Summary<'a> {
    /// The run's name, e.g. that of its folder.
    pub title: &'a str,
    /// The settings, resolved.
    pub config: &'a Config,
    /// What the finished model's `config.json` says.
    pub model: &'a ModelConfig,
    /// What was known before the first step.
    pub facts: &'a RunFacts,
    /// What the manifests hold.
    pub items: &'a Facts,
    /// Synthetic objects in all batches.
    pub n_synthetic_seen: u64,
    /// The next step: how many are done.
    pub next_step: u64,
    /// The log.
    pub history: &'a History,
    /// MAE: what was hidden and what the network filled in.
    pub pictures: &'a [Picture],
    /// What a person should know, e.g. refused images by code and count.
    pub notes: &'a [String],
}

/// One object, as it was and as it became.
#[derive(Debug, Clone)]
pub struct Picture {
    /// What it is, e.g. `Volume (CT)`; never a path or an identifier.
    pub title: String,
    /// Names and pixels `[3, D, H, W]` in 0..=1, e.g. original, masked, reconstruction. An image has D = 1.
    pub rows: Vec<(String, Input)>,
}
