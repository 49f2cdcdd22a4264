//! The arguments of `m3ret study`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::numbers::thread_count;

/// Trains and evaluates many models to answer one question
#[derive(Debug, Args)]
pub(crate) struct StudyArguments {
    #[command(subcommand)]
    pub(crate) action: StudyAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StudyAction {
    Scaling(ScalingArguments),
}

/// Trains a ladder of model sizes on growing shares of the data, and fits how retrieval grows with both
///
/// CONFIG is a TOML file that names a config of m3ret pretrain, the sizes, the shares and the manifest
/// for evaluation; docs/evaluation.md explains it, and configs/scaling.toml is an example. Every run has
/// the same number of steps. The folder (key out) then holds the runs, their evaluations, report.html
/// and report.md with curves.
///
/// A study may be interrupted at any time: the same command goes on where it was.
///
/// Exit status: 0 if the study is complete, 1 if it failed, 2 for wrong usage, 130 if it was interrupted.
#[derive(Debug, Args)]
pub(crate) struct ScalingArguments {
    /// The study's settings
    #[arg(value_name = "CONFIG.toml")]
    pub(crate) config: PathBuf,

    /// Change a setting of every run, e.g. train.steps=50; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// Threads [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    pub(crate) threads: Option<NonZeroUsize>,
}
