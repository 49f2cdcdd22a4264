//! One training of a study, and the facts that are kept of it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use m3ret_pretrain::report::Entry;
use m3ret_pretrain::{Begin, Config, RunFacts, Watcher, train as pretrain};
use serde::{Deserialize, Serialize};

use super::{StudyPoint, StudyWatch};
use crate::watch::Stopped;
use crate::words::counted;

/// What is kept of a finished run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TrainingFacts {
    /// Hash of the settings and of the rows that were trained on.
    pub settings: String,
    pub size: String,
    pub fraction: f64,
    /// Number of parameters of the encoder.
    pub n_parameters: u64,
    /// Number of images that were trained on, repeated ones included.
    pub n_seen: u64,
    /// Number of different images that were trained on, at most.
    pub n_images: u64,
}

/// Trains a model; a run that was stopped resumes at its newest checkpoint.
pub(super) fn train(
    point: StudyPoint<'_>,
    config: &Config,
    settings: &str,
    watch: &dyn StudyWatch,
) -> anyhow::Result<TrainingFacts> {
    let mut watcher = watch.training(&point.size.name, point.fraction)?;
    let begin = if config.out.join("config.toml").is_file() {
        Begin::Resume
    } else {
        Begin::Fresh
    };
    let mut counter = ItemCounter {
        watcher: &mut *watcher,
        n_items: 0,
    };
    let outcome = pretrain(config, begin, &mut counter)?;
    let n_items = counter.n_items;
    let Some(model) = outcome.model else {
        return Err(Stopped {
            saved: format!(
                "stopped after {}; the same command resumes it",
                counted(outcome.next_step, "step", "steps")
            ),
        }
        .into());
    };
    Ok(TrainingFacts {
        settings: settings.to_owned(),
        size: point.size.name.clone(),
        fraction: point.fraction,
        n_parameters: n_parameters(&model)?,
        n_seen: outcome.next_step * config.train.batch as u64,
        n_images: n_items as u64,
    })
}

/// Passes every call on, and stores how many items are trained on.
struct ItemCounter<'a> {
    watcher: &'a mut dyn Watcher,
    n_items: usize,
}

impl Watcher for ItemCounter<'_> {
    fn begun(&mut self, facts: &RunFacts) {
        self.n_items = facts.n_items;
        self.watcher.begun(facts);
    }

    fn entry(&mut self, entry: &Entry) {
        self.watcher.entry(entry);
    }

    fn note(&mut self, sentence: &str) {
        self.watcher.note(sentence);
    }

    fn stop_asked(&mut self) -> bool {
        self.watcher.stop_asked()
    }

    fn now(&mut self) -> Duration {
        self.watcher.now()
    }
}

/// Counts the numbers of a finished model.
fn n_parameters(model: &Path) -> anyhow::Result<u64> {
    let path = model.join("model.safetensors");
    let doing = || format!("reading {}", path.display());
    let bytes = std::fs::read(&path).with_context(doing)?;
    let length = bytes
        .first_chunk()
        .map(|&length| u64::from_le_bytes(length));
    let header = length.and_then(|length| bytes.get(8..8 + usize::try_from(length).ok()?));
    let header: serde_json::Value =
        serde_json::from_slice(header.unwrap_or_default()).with_context(doing)?;
    let Some(tensors) = header.as_object() else {
        bail!("{}: found no safetensors header", path.display());
    };
    let sides = tensors
        .values()
        .filter_map(|tensor| tensor.get("shape")?.as_array());
    Ok(sides
        .map(|sides| {
            sides
                .iter()
                .filter_map(serde_json::Value::as_u64)
                .product::<u64>()
        })
        .sum())
}
