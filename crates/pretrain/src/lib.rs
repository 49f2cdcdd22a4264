//! Manifest -> checkpoint: trains the encoder on unlabelled images, with MAE or `SimDINO`.
//!
//! `Config` says everything about a run; `train` does it and leaves a model folder that
//! `m3ret_encoder::Model::open` takes. Only this crate knows Burn, and no Burn type leaves it.

pub mod config;
pub mod dataset;
mod error;
#[cfg(test)]
mod golden;
mod learner;
mod mae;
pub mod measure;
mod monitor;
mod ops;
mod optimizer;
mod parameters;
mod patches;
mod random;
pub mod report;
mod schedule;
mod simdino;
mod step;
mod vit;

pub use config::Config;
pub use error::{Error, Result};
