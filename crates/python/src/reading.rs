//! How images are read, as Python says it.

use std::collections::HashMap;
use std::str::FromStr as _;

use m3ret::options::{
    ColumnValue, FilePattern, FilePatterns, FolderChoice, FolderLabels, ModelChoice, Reading,
};
use m3ret_encoder::{Precision, RunOptions};
use m3ret_imaging::ReadOptions;
use pyo3::prelude::*;

use crate::errors::{self, Class};
use crate::work;

/// The keyword arguments that all functions share which read images.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct ReadingArguments {
    /// Limits by their names in `Limits`.
    limits: Option<HashMap<String, u64>>,
    /// Frames that are read of a video.
    frames: Option<usize>,
    threads: Option<usize>,
    /// Columns of a manifest that are stored beside those that m3ret knows.
    keep: Vec<String>,
    retry: bool,
}

impl ReadingArguments {
    pub(crate) fn threads(&self) -> Option<usize> {
        self.threads
    }

    pub(crate) fn options(&self, py: Python<'_>) -> PyResult<ReadOptions> {
        let mut options = ReadOptions {
            n_frames: self.frames,
            ..ReadOptions::default()
        };
        let limits = &mut options.limits;
        for (name, &value) in self.limits.iter().flatten() {
            let limit = match name.as_str() {
                "max_bytes" => &mut limits.max_bytes,
                "max_voxels" => &mut limits.max_voxels,
                "max_frames" => &mut limits.max_frames,
                "max_parts" => &mut limits.max_parts,
                "max_seconds" => &mut limits.max_seconds,
                "max_decompression_ratio" => &mut limits.max_decompression_ratio,
                "ratio_free_bytes" => &mut limits.ratio_free_bytes,
                "max_depth" => &mut limits.max_depth,
                other => {
                    let wanted = "max_bytes, max_voxels, max_frames, max_parts, max_seconds, max_decompression_ratio, \
                                  ratio_free_bytes or max_depth";
                    let sentence = format!("limits: found {other:?}, wanted {wanted}");
                    return Err(errors::exception(py, Class::Mismatch, sentence));
                }
            };
            *limit = value;
        }
        Ok(options)
    }

    pub(crate) fn reading(&self, py: Python<'_>) -> PyResult<Reading> {
        Ok(Reading {
            options: self.options(py)?,
            n_readers: work::n_readers(self.threads),
            retries_refused: self.retry,
            keep: self.keep.clone(),
        })
    }
}

/// Which files of a folder are read, and what labels their images.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct FolderArguments {
    labels: Option<String>,
    include: Vec<String>,
    exclude: Vec<String>,
    masks: bool,
}

impl FolderArguments {
    pub(crate) fn choice(&self, py: Python<'_>) -> PyResult<FolderChoice> {
        let mismatch = |sentence: String| errors::exception(py, Class::Mismatch, sentence);
        let labels = match self.labels.as_deref() {
            None | Some("manifest") => FolderLabels::Manifest,
            Some("folders") => FolderLabels::Folders,
            Some("none") => FolderLabels::None,
            Some(_) => {
                let sentence =
                    "labels: found another word, wanted \"manifest\", \"folders\" or \"none\"";
                return Err(mismatch(sentence.to_owned()));
            }
        };
        let patterns = |words: &[String]| {
            let patterns = words.iter().map(|word| FilePattern::from_str(word));
            let patterns: Result<Vec<FilePattern>, _> = patterns.collect();
            patterns.map_err(|error| mismatch(error.to_string()))
        };
        Ok(FolderChoice {
            labels,
            files: FilePatterns {
                include: patterns(&self.include)?,
                exclude: patterns(&self.exclude)?,
                reads_masks: self.masks,
            },
        })
    }
}

/// Which model is used.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct ModelArguments {
    model: Option<String>,
    precision: Option<String>,
}

impl ModelArguments {
    pub(crate) fn choice(&self, py: Python<'_>) -> PyResult<ModelChoice> {
        Ok(ModelChoice {
            name: self.model.clone(),
            run: RunOptions {
                precision: precision(py, self.precision.as_deref())?,
                // The work runs on the package's own threads.
                n_threads: None,
            },
        })
    }
}

/// Returns the precision of a word; `None` for the fastest.
pub(crate) fn precision(py: Python<'_>, word: Option<&str>) -> PyResult<Option<Precision>> {
    Ok(match word {
        None | Some("auto") => None,
        Some("f32") => Some(Precision::F32),
        Some("bf16") => Some(Precision::Bf16),
        Some("int8") => Some(Precision::Int8),
        Some(_) => {
            let sentence =
                "precision: found another word, wanted \"auto\", \"f32\", \"bf16\" or \"int8\"";
            return Err(errors::exception(py, Class::Mismatch, sentence.to_owned()));
        }
    })
}

/// Returns conditions `COLUMN=VALUE` and `COLUMN!=VALUE`.
pub(crate) fn filters(py: Python<'_>, words: &[String]) -> PyResult<Vec<ColumnValue>> {
    let filters = words.iter().map(|word| ColumnValue::from_str(word));
    let filters: Result<Vec<ColumnValue>, String> = filters.collect();
    filters
        .map_err(|sentence| errors::exception(py, Class::Mismatch, format!("filter: {sentence}")))
}
