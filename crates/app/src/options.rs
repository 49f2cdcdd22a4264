//! How the library is to work, as plain values: what a program was told, without how it was told.

use m3ret_encoder::RunOptions;
use m3ret_imaging::ReadOptions;

/// How images are read.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// Limits, and the frames that are read of a video.
    pub(crate) options: ReadOptions,
    /// Objects that are read at once.
    pub(crate) n_readers: usize,
}

/// Which model, and how it runs.
#[derive(Debug, Clone)]
pub(crate) struct ModelChoice {
    /// A folder, the name of one, or a built-in model; `None` for the default.
    pub(crate) name: Option<String>,
    pub(crate) run: RunOptions,
}
