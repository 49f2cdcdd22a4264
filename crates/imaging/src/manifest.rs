//! The manifest: the table that says which files belong to a set, and what is known about them.
//!
//! CSV or Parquet, told apart by content. Only the column `path` is required; the others of
//! `COLUMNS` have a fixed meaning, and any further column is kept. Every cell is text: an empty
//! cell, a Parquet null and a missing value are the same.
//!
//! A path is relative to the folder of the manifest and may name a file or a DICOM series folder.
//! Absolute paths and `..` are allowed: a manifest is written by the person who runs the program,
//! and opens nothing that this person could not open. Never load a manifest of a stranger's.
//!
//! `Manifest` streams batches of rows; `Manifest::load` keeps all of them in a compact `Table`.

mod csv_rows;
mod parquet_rows;
mod table;
#[cfg(test)]
mod tests;
mod write;

use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parquet::file::reader::ChunkReader;

use crate::error::{Error, Result};
use crate::limits::Limits;

use csv_rows::{CsvRows, Text};
use parquet_rows::ParquetRows;
use table::Builder;

pub use table::{Column, Row, Table};
pub use write::{Layout, Writer};

/// The columns with a fixed meaning, in the order in which they are written.
pub const COLUMNS: [&str; 10] = [
    "path",
    "modality",
    "body_part",
    "finding",
    "patient_id",
    "source",
    "split",
    "dims",
    "license",
    "pair_id",
];

/// Rows of one batch of a `Manifest`.
pub const BATCH_ROWS: usize = 8192;

/// The name that errors give to the format.
const FORMAT: &str = "manifest";

/// An open manifest: an iterator of batches, in the order of the file.
///
/// Holds one batch at a time, however long the file is. Ends after the first error.
pub struct Manifest {
    source: Source,
    shared: Arc<Shared>,
    ignored: Vec<String>,
    limits: Limits,
    finished: bool,
}

enum Source {
    Csv(Box<CsvRows>),
    Parquet(Box<ParquetRows>),
}

/// What every row of one manifest has in common.
#[derive(Debug, PartialEq, Eq)]
struct Shared {
    folder: PathBuf,
    names: Vec<String>,
    path_idx: usize,
}

impl Manifest {
    /// Opens a manifest and checks its columns.
    ///
    /// # Errors
    /// `Io`; `LimitExceeded` if the file is larger than `max_bytes`; `Malformed` if there is no
    /// column `path`, two columns have the same name, or the file is neither CSV in UTF-8 nor
    /// Parquet; `Unsupported` for compression that is not built in.
    pub fn open(path: &Path, limits: &Limits) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| Error::io("opening the manifest", e))?;
        let status = file
            .metadata()
            .map_err(|e| Error::io("asking for the file's size", e))?;
        if status.is_dir() {
            return Err(Error::malformed(
                FORMAT,
                "a folder",
                "a CSV or Parquet file",
            ));
        }
        limits.bytes(status.len())?;
        let mut magic = Vec::with_capacity(4);
        (&mut file)
            .take(4)
            .read_to_end(&mut magic)
            .and_then(|_| file.rewind())
            .map_err(|e| Error::io("reading the manifest", e))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        match told_by(&magic)? {
            Layout::Parquet => Self::new(Source::parquet(file)?, folder, limits),
            Layout::Csv => Self::new(Source::csv(Box::new(file))?, folder, limits),
        }
    }

    /// Opens a manifest that is in memory and belongs into `folder`.
    ///
    /// # Errors
    /// As `open`.
    pub fn from_bytes(bytes: Vec<u8>, folder: &Path, limits: &Limits) -> Result<Self> {
        limits.bytes(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
        match told_by(&bytes)? {
            Layout::Parquet => Self::new(Source::parquet(Bytes::from(bytes))?, folder, limits),
            Layout::Csv => Self::new(Source::csv(Box::new(Cursor::new(bytes)))?, folder, limits),
        }
    }

    fn new(opened: Opened, folder: &Path, limits: &Limits) -> Result<Self> {
        let Opened {
            source,
            names,
            ignored,
        } = opened;
        let path_idx = check_names(&names)?;
        let shared = Arc::new(Shared {
            folder: folder.to_path_buf(),
            names,
            path_idx,
        });
        Ok(Self {
            source,
            shared,
            ignored,
            limits: limits.clone(),
            finished: false,
        })
    }

    /// Returns the names of the columns, in the order of the file.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.shared.names
    }

    /// Returns the names of Parquet columns that are no text, number, truth value, date or time,
    /// such as lists and binary values; their cells are not read.
    #[must_use]
    pub fn ignored_columns(&self) -> &[String] {
        &self.ignored
    }

    /// Reads the remaining rows into one table.
    ///
    /// # Errors
    /// As the iterator; `LimitExceeded` if the table would take more than `max_bytes`.
    pub fn load(mut self) -> Result<Table> {
        let mut builder = Builder::new(Arc::clone(&self.shared), self.limits.max_bytes);
        while self.fill(&mut builder)? > 0 {}
        Ok(builder.finish())
    }

    /// Appends at most `BATCH_ROWS` rows and returns how many came.
    fn fill(&mut self, builder: &mut Builder) -> Result<usize> {
        match &mut self.source {
            Source::Csv(rows) => rows.fill(builder, BATCH_ROWS),
            Source::Parquet(rows) => rows.fill(builder, BATCH_ROWS),
        }
    }
}

impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manifest")
            .field("columns", &self.shared.names)
            .finish_non_exhaustive()
    }
}

impl Iterator for Manifest {
    type Item = Result<Table>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let mut builder = Builder::new(Arc::clone(&self.shared), self.limits.max_bytes);
        let filled = self.fill(&mut builder);
        self.finished = !matches!(filled, Ok(n_rows) if n_rows > 0);
        match filled {
            Ok(0) => None,
            Ok(_) => Some(Ok(builder.finish())),
            Err(error) => Some(Err(error)),
        }
    }
}

/// A source with the names of its usable and its ignored columns.
struct Opened {
    source: Source,
    names: Vec<String>,
    ignored: Vec<String>,
}

impl Source {
    fn csv(text: Box<dyn Text>) -> Result<Opened> {
        let (rows, names) = CsvRows::open(text)?;
        Ok(Opened {
            source: Self::Csv(Box::new(rows)),
            names,
            ignored: Vec::new(),
        })
    }

    fn parquet(bytes: impl ChunkReader + 'static) -> Result<Opened> {
        let (rows, names, ignored) = ParquetRows::open(bytes)?;
        Ok(Opened {
            source: Self::Parquet(Box::new(rows)),
            names,
            ignored,
        })
    }
}

/// Tells the layout by the first bytes.
fn told_by(head: &[u8]) -> Result<Layout> {
    if head.starts_with(b"\x1f\x8b") {
        return Err(Error::unsupported(
            FORMAT,
            "gzip around the table",
            "decompress it first",
        ));
    }
    Ok(if head.starts_with(b"PAR1") {
        Layout::Parquet
    } else {
        Layout::Csv
    })
}

/// Checks the columns' names and returns the position of `path`.
///
/// Unknown names are not repeated in errors: without a header line, they are a row's cells.
fn check_names(names: &[String]) -> Result<usize> {
    for (idx, name) in names.iter().enumerate() {
        if let Some(first) = names.iter().take(idx).position(|earlier| earlier == name) {
            let known = COLUMNS.iter().find(|&known| known == name);
            let named = known.map_or_else(String::new, |known| format!(" ({known})"));
            return Err(Error::malformed(
                FORMAT,
                format!(
                    "columns {} and {} with the same name{named}",
                    first + 1,
                    idx + 1
                ),
                "every column once",
            ));
        }
    }
    names.iter().position(|name| name == "path").ok_or_else(|| {
        let plural = if names.len() == 1 {
            "column"
        } else {
            "columns"
        };
        Error::malformed(
            FORMAT,
            format!("{} {plural}, none of them named path", names.len()),
            "a first line that names the columns, path among them, separated by commas",
        )
    })
}
