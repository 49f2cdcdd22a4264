//! Options that several functions of the library share, as plain values.

use std::fmt;
use std::str::FromStr;

use m3ret_encoder::RunOptions;
use m3ret_imaging::ReadOptions;
use m3ret_search::names::is_slice;

pub use crate::file_patterns::{FilePattern, FilePatterns};

/// How images are read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Limits on cost, and the number of frames that are read of a video.
    pub options: ReadOptions,
    /// Number of objects that are read at the same time, each on a thread of its own; 0 to read one at a time on the
    /// calling thread and its rayon pool, as a forked process needs it.
    pub n_readers: usize,
    /// Whether images that a gallery remembers as refused are read again although they have not changed.
    pub retries_refused: bool,
    /// Columns of a manifest that a gallery stores beside those that m3ret knows, in any spelling.
    pub keep: Vec<String>,
}

impl Default for Reading {
    /// Reads with the default limits, one object for each core.
    fn default() -> Self {
        Self {
            options: ReadOptions::default(),
            n_readers: n_cores(),
            retries_refused: false,
            keep: Vec::new(),
        }
    }
}

/// Most threads that a caller may ask for: more only take each other's time, until the machine answers nobody.
pub const MAX_THREADS: usize = 512;

/// Returns how many threads this machine runs at the same time; 1 if that is unknown.
pub fn n_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Which model is used, and how it runs.
#[derive(Debug, Clone, Default)]
pub struct ModelChoice {
    /// A model folder, its name, or a built-in model (`pixels`, `hog`, `random:PRESET`); `None` for the default of
    /// the function.
    pub name: Option<String>,
    /// Precision and number of threads of the model.
    pub run: RunOptions,
}

impl ModelChoice {
    /// Chooses a model by its name, run as this machine runs it fastest.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..Self::default()
        }
    }
}

/// Of which pictures of a volume a gallery holds further vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeViews {
    /// Means along its axes, by which radiographs find it.
    pub projections: bool,
    /// Up to 32 of its slices, by which a picture of one slice finds its level.
    pub slices: bool,
}

impl Default for VolumeViews {
    /// Wants projections alone.
    fn default() -> Self {
        Self {
            projections: true,
            slices: false,
        }
    }
}

impl VolumeViews {
    /// Wants a volume's own vector alone.
    pub const NONE: Self = Self {
        projections: false,
        slices: false,
    };

    /// Returns the kinds that queries to a gallery with some views have: slices are found, and never ask.
    pub(crate) fn of_queries<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            slices: false,
            ..Self::among(names)
        }
    }

    /// Returns the kinds that some views are of, by their names.
    pub(crate) fn among<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::NONE;
        for name in names {
            match is_slice(name) {
                true => found.slices = true,
                false => found.projections = true,
            }
        }
        found
    }

    /// Returns whether views of this name are wanted.
    pub(crate) fn has(self, name: &str) -> bool {
        match is_slice(name) {
            true => self.slices,
            false => self.projections,
        }
    }
}

/// Where labels of the images of a folder come from, beside what their files state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FolderLabels {
    /// A manifest that lies in the folder as `manifest.csv` or `manifest.parquet`, where there is one.
    #[default]
    Manifest,
    /// The names of the folders that the images lie in.
    Folders,
    /// Nothing else.
    None,
}

/// Which files of a folder are read, and what labels their images. Manifests and galleries say both themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FolderChoice {
    /// Where labels of the images come from.
    pub labels: FolderLabels,
    /// Which files are read.
    pub files: FilePatterns,
}

impl FolderChoice {
    /// Reads every file, and uses no labels.
    pub(crate) fn every_file() -> Self {
        Self {
            labels: FolderLabels::None,
            files: FilePatterns {
                reads_masks: true,
                ..FilePatterns::default()
            },
        }
    }
}

/// A condition on a column of an archive, written `COLUMN=VALUE` or `COLUMN!=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnValue {
    /// The column, in any spelling of docs/manifest.md.
    pub column: String,
    /// A whole cell, or one of its labels (`a|b`).
    pub value: String,
    /// Whether the rows without the value pass, instead of those with it.
    pub is_negated: bool,
}

impl fmt::Display for ColumnValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_negated { "!=" } else { "=" };
        write!(formatter, "{}{sign}{}", self.column, self.value)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_named_as_searches_know_them() {
        // The crate of searches depends on no other, so that the word stands in two.
        assert_eq!(m3ret_imaging::SLICE_VIEW, m3ret_search::names::SLICE);
        assert!(VolumeViews::among(["slice 1/2"]).has("slice 3/8"));
    }
}
