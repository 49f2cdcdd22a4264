//! How the library is to work, as plain values: what a program was told, without how it was told.

use std::str::FromStr;

use m3ret_encoder::RunOptions;
use m3ret_imaging::ReadOptions;

/// How images are read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Limits, and the frames that are read of a video.
    pub options: ReadOptions,
    /// Objects that are read at once.
    pub n_readers: usize,
}

impl Default for Reading {
    /// Reads with the usual limits, one object for each core.
    fn default() -> Self {
        Self {
            options: ReadOptions::default(),
            n_readers: n_cores(),
        }
    }
}

/// Returns how many threads this machine runs at once.
pub fn n_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Which model, and how it runs.
#[derive(Debug, Clone)]
pub struct ModelChoice {
    /// A folder, the name of one, or a built-in model; `None` for the default.
    pub name: Option<String>,
    pub run: RunOptions,
}

/// A column and one of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnValue {
    pub column: String,
    pub value: String,
    pub is_negated: bool,
}

impl FromStr for ColumnValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (column, value) = text.split_once('=').ok_or("COLUMN=VALUE is wanted")?;
        let (column, is_negated) = match column.strip_suffix('!') {
            Some(column) => (column, true),
            None => (column, false),
        };
        if column.is_empty() {
            return Err("a column is wanted before =".to_owned());
        }
        Ok(Self {
            column: column.to_owned(),
            value: value.to_owned(),
            is_negated,
        })
    }
}
