//! Manifest -> checkpoint: trains the encoder on unlabelled images, with MAE or `SimDINO`.
//!
//! `Config` says everything about a run; `train` does it and leaves a model folder that
//! `m3ret_encoder::Model::open` takes. Only this crate knows Burn, and no Burn type leaves it.

mod checkpoint;
pub mod config;
pub mod dataset;
mod error;
mod files;
#[cfg(test)]
mod golden;
mod init;
mod learner;
mod mae;
pub mod measure;
mod monitor;
mod ops;
mod optimizer;
mod parameters;
mod patches;
mod pictures;
mod random;
pub mod report;
mod run_folder;
mod salt;
mod schedule;
mod simdino;
mod step;
mod train;
mod validation;
mod vit;
mod whitening;

pub use config::Config;
pub use error::{Error, Result};
pub use train::{Begin, Outcome, RunFacts, Watcher, train};
