//! The one training loop.

use std::path::PathBuf;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::report::Entry;

/// Whether a run begins or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// A new run; its folder must not hold one.
    Fresh,
    /// The run in the folder goes on after its newest checkpoint.
    Resume,
}

/// Who is told what happens, and may end the run.
pub trait Watcher {
    /// Called once, before the first step.
    fn begun(&mut self, facts: &RunFacts);
    /// Called with every entry of the log.
    fn entry(&mut self, entry: &Entry);
    /// Called with what a person should know, e.g. refused images.
    fn note(&mut self, sentence: &str);
    /// Asked after each step; `true` saves a checkpoint and ends the run.
    fn stop_asked(&mut self) -> bool;
}

/// What is known before the first step.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFacts {
    /// Steps of the whole run.
    pub n_steps: u64,
    /// The step this call begins with.
    pub first_step: u64,
    /// Items that are trained on.
    pub n_items: usize,
    /// Items of the validation part.
    pub n_validation: usize,
    /// Parameters that are trained, decoder or head included.
    pub n_parameters: usize,
    /// The run's folder.
    pub out: PathBuf,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The finished model's folder; absent if the run was stopped before its end.
    pub model: Option<PathBuf>,
    /// The step that a resumed run begins with.
    pub next_step: u64,
    /// The newest entry of the log.
    pub last: Entry,
}

/// Trains.
///
/// # Errors
/// See `Error`.
pub fn train(config: &Config, _begin: Begin, _watcher: &mut dyn Watcher) -> Result<Outcome> {
    Err(Error::run(&config.out, "the loop is being written"))
}
