//! Which of two evaluated models is better, task by task.

use std::path::PathBuf;

use m3ret_search::{Bootstrap, Metric};

use super::evaluation::comparison::{self, Comparison, Runs};
use super::evaluation::protocol::GROUP_METRICS;
use super::evaluation::runs::Run;
use crate::model_name::PIXELS;

/// Which evaluations are compared, and how.
#[derive(Debug, Clone)]
pub struct CompareOptions {
    /// The folder of the first model's evaluation.
    pub a: PathBuf,
    /// The folder of the second model's evaluation.
    pub b: PathBuf,
    /// The folder of the evaluation of `pixels`, which says which tasks thumbnails solve; `None` for the one of
    /// `a` and `b` that has this name, if one has.
    pub pixels: Option<PathBuf>,
    /// The metrics that are compared; none for those of groups.
    pub metrics: Vec<Metric>,
    pub bootstrap: Bootstrap,
}

/// Compares two models on every task that both have.
///
/// # Errors
/// If a folder holds no complete evaluation, or the two cannot be compared: see `comparison::compare`.
pub fn compare(options: &CompareOptions) -> anyhow::Result<Comparison> {
    let [a, b] = [&options.a, &options.b].map(|folder| Run::open(folder));
    let (a, b) = (a?, b?);
    let pixels = match &options.pixels {
        Some(folder) => Some(Run::open(folder)?),
        None => None,
    };
    let pixels = pixels
        .as_ref()
        .or_else(|| [&a, &b].into_iter().find(|run| run.name == PIXELS));
    let metrics: &[Metric] = if options.metrics.is_empty() {
        &GROUP_METRICS
    } else {
        &options.metrics
    };
    let runs = Runs {
        a: &a,
        b: &b,
        pixels,
    };
    comparison::compare(runs, metrics, options.bootstrap)
}
