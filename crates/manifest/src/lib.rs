//! The manifest: the table that says which files belong to a set, and what is known about them.
//!
//! CSV (separated by commas, semicolons or tabs) or Parquet, told apart by content. Only the column
//! `path` is required; `columns` lists those with a meaning, and any further column is kept. Every cell
//! is text without space around it: an empty cell, a Parquet null and a word for a missing value are
//! the same.
//!
//! A path is relative to the folder of the manifest and may name a file or a DICOM series folder.
//! Absolute paths and `..` are allowed: a manifest is written by the person who runs the program,
//! and opens nothing that this person could not open. `text_of` writes paths that are not UTF-8. Never load a manifest of a stranger's.
//!
//! `Manifest` streams batches of rows; `Manifest::load` keeps all of them in a compact `Table`.

mod bounds;
pub mod columns;
mod csv_rows;
mod notes;
mod parquet_rows;
mod place;
pub mod privacy;
mod table;
#[cfg(test)]
mod tests;
mod words;
mod write;

use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parquet::file::reader::ChunkReader;

use m3ret_imaging::{Error, Limits, Result, sniff};

use bounds::Bounds;
use columns::Header;
use csv_rows::{CsvRows, Text};
use parquet_rows::ParquetRows;
use table::Builder;

pub use columns::COLUMNS;
pub use place::{path_of, text_of};
pub use table::{Column, Row, Table};
pub use words::{is_mr, is_nobody, is_unknown_modality, is_unseen};
pub use write::{Layout, Writer};

/// Between the labels of a cell that holds several.
pub const LABEL_SEPARATOR: char = '|';

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
    bounds: Bounds,
    n_rows: u64,
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
    header: Header,
    /// Columns that cannot be read as text.
    unread: Vec<String>,
}

/// Tells a manifest from an image by its first bytes: Parquet, or no image but a text whose first line
/// names a column `path`. A file that is named `.csv` or `.tsv` is one unless it is an image.
#[must_use]
pub fn is_manifest(head: &[u8], path: &Path) -> bool {
    if head.starts_with(b"PAR1") {
        return true;
    }
    if sniff(head).is_some() {
        return false;
    }
    let is_named_so = path.extension().is_some_and(|extension| {
        ["csv", "tsv"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    });
    is_named_so || csv_rows::separator(head).is_some()
}

impl Manifest {
    /// Opens a manifest and checks its columns.
    ///
    /// # Errors
    /// `Io`; `LimitExceeded` if the file is larger than `max_bytes`, or has more columns, rows or cells than a
    /// file of its size holds honestly; `Malformed` if there is no
    /// column `path`, two columns have the same name or meaning, or the file is neither CSV in UTF-8
    /// nor Parquet; `Unsupported` for compression that is not built in, and for a column that has a
    /// meaning and a type that cannot be read as text.
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
        let bounds = Bounds::new(status.len(), limits);
        let mut magic = Vec::with_capacity(4);
        (&mut file)
            .take(4)
            .read_to_end(&mut magic)
            .and_then(|_| file.rewind())
            .map_err(|e| Error::io("reading the manifest", e))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        match told_by(&magic)? {
            Layout::Parquet => Self::new(Source::parquet(file, bounds)?, folder, bounds),
            Layout::Csv => Self::new(Source::csv(Box::new(file))?, folder, bounds),
        }
    }

    /// Opens a manifest that is in memory and belongs into `folder`.
    ///
    /// # Errors
    /// As `open`.
    pub fn from_bytes(bytes: Vec<u8>, folder: &Path, limits: &Limits) -> Result<Self> {
        let n_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        limits.bytes(n_bytes)?;
        let bounds = Bounds::new(n_bytes, limits);
        match told_by(&bytes)? {
            Layout::Parquet => {
                Self::new(Source::parquet(Bytes::from(bytes), bounds)?, folder, bounds)
            }
            Layout::Csv => Self::new(Source::csv(Box::new(Cursor::new(bytes)))?, folder, bounds),
        }
    }

    fn new(opened: Opened, folder: &Path, bounds: Bounds) -> Result<Self> {
        let Opened {
            source,
            names,
            unread,
        } = opened;
        refuse_unreadable(&unread)?;
        let shared = Arc::new(Shared {
            folder: folder.to_path_buf(),
            header: Header::new(names)?,
            unread,
        });
        Ok(Self {
            source,
            shared,
            bounds,
            n_rows: 0,
            finished: false,
        })
    }

    /// Returns the names of the columns, in the order of the file; those with a meaning have our names.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.shared.header.names
    }

    /// Reads the remaining rows into one table.
    ///
    /// # Errors
    /// As the iterator; `LimitExceeded` if the table would take more than `max_bytes`, or than
    /// `Limits::max_decompressed` of its file.
    pub fn load(mut self) -> Result<Table> {
        let mut builder = Builder::new(Arc::clone(&self.shared), self.bounds.max_bytes);
        while self.fill(&mut builder)? > 0 {}
        Ok(builder.finish())
    }

    /// Appends at most `BATCH_ROWS` rows and returns how many came.
    fn fill(&mut self, builder: &mut Builder) -> Result<usize> {
        let n_filled = match &mut self.source {
            Source::Csv(rows) => rows.fill(builder, BATCH_ROWS),
            Source::Parquet(rows) => rows.fill(builder, BATCH_ROWS),
        }?;
        let n_new = u64::try_from(n_filled).unwrap_or(u64::MAX);
        self.n_rows = self.n_rows.saturating_add(n_new);
        self.bounds
            .rows(self.n_rows, self.shared.header.names.len())?;
        Ok(n_filled)
    }
}

impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manifest")
            .field("columns", &self.shared.header.names)
            .finish_non_exhaustive()
    }
}

impl Iterator for Manifest {
    type Item = Result<Table>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let mut builder = Builder::new(Arc::clone(&self.shared), self.bounds.max_bytes);
        let filled = self.fill(&mut builder);
        self.finished = !matches!(filled, Ok(n_rows) if n_rows > 0);
        match filled {
            Ok(0) => None,
            Ok(_) => Some(Ok(builder.finish())),
            Err(error) => Some(Err(error)),
        }
    }
}

/// A source with the names of its usable and its unread columns.
struct Opened {
    source: Source,
    names: Vec<String>,
    unread: Vec<String>,
}

impl Source {
    fn csv(text: Box<dyn Text>) -> Result<Opened> {
        let (rows, names) = CsvRows::open(text)?;
        Ok(Opened {
            source: Self::Csv(Box::new(rows)),
            names,
            unread: Vec::new(),
        })
    }

    fn parquet(bytes: impl ChunkReader + 'static, bounds: Bounds) -> Result<Opened> {
        let (rows, names, unread) = ParquetRows::open(bytes, bounds)?;
        Ok(Opened {
            source: Self::Parquet(Box::new(rows)),
            names,
            unread,
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

/// Refuses columns that have a meaning and cannot be read: as if they were not there, patients would be
/// strangers and splits would hold everything.
fn refuse_unreadable(unread: &[String]) -> Result<()> {
    let Some(name) = unread.iter().find(|name| columns::meaning(name).is_some()) else {
        return Ok(());
    };
    Err(Error::unsupported(
        FORMAT,
        format!("Parquet column {name} of a nested or binary type"),
        "write it as text or numbers; several labels as a list of text, or joined by |",
    ))
}
