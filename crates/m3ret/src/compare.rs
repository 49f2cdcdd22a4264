//! Compares two evaluated models, task by task.

use std::path::PathBuf;

use m3ret_search::evaluation::{Bootstrap, Metric};

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
    /// The folder of the evaluation of `pixels`, which says which tasks thumbnails solve; `None` for `a` or `b`, if
    /// one of them is the evaluation of `pixels`.
    pub pixels: Option<PathBuf>,
    /// The metrics that are compared; if empty, those that means of groups have.
    pub metrics: Vec<Metric>,
    /// Number of draws of the confidence intervals, and their seed.
    pub bootstrap: Bootstrap,
}

/// Compares two models on every task that both have, then on the means of groups.
///
/// # Errors
/// If a folder holds no complete evaluation or follows a newer protocol; if the evaluations follow different
/// protocols, have no task in common, or differ in images, labels or exclusions; if one of them lacks a metric.
pub fn compare(options: &CompareOptions) -> crate::Result<Comparison> {
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
    Ok(comparison::compare(runs, metrics, options.bootstrap)?)
}
