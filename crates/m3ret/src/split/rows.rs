//! The rows of one or several manifests, numbered from 0 through all of them.

use m3ret_manifest::text_of;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_imaging::Limits;
use m3ret_manifest::columns::PATIENT;
use m3ret_manifest::{Manifest, Row, Table};

use crate::galleries::with_part;
use crate::watch::Watch;

/// A manifest.
#[derive(Debug)]
pub(super) struct Source {
    /// As the user wrote it.
    pub(super) name: PathBuf,
    /// Absolute and without links, as galleries store it.
    pub(super) path: PathBuf,
    pub(super) table: Table,
    /// The number of its first row among those of all manifests.
    pub(super) start: usize,
}

/// Manifests whose rows are numbered from 0 through all of them, in the order in which they are named.
#[derive(Debug)]
pub(super) struct Sources(pub(super) Vec<Source>);

impl Sources {
    /// Opens manifests.
    pub(super) fn open<'a>(
        names: impl IntoIterator<Item = &'a Path>,
        limits: &Limits,
        watch: &dyn Watch,
    ) -> anyhow::Result<Self> {
        let mut sources: Vec<Source> = Vec::new();
        let mut start = 0;
        for name in names {
            let doing = || format!("opening {}", name.display());
            let path = name.canonicalize().with_context(doing)?;
            if sources.iter().any(|source| source.path == path) {
                anyhow::bail!("{} is named twice", name.display());
            }
            let table = Manifest::open(&path, limits)
                .and_then(Manifest::load)
                .with_context(doing)?;
            for note in table.notes() {
                watch.note(&note);
            }
            let n_rows = table.len();
            sources.push(Source {
                name: name.to_owned(),
                path,
                table,
                start,
            });
            start += n_rows;
        }
        Ok(Self(sources))
    }

    pub(super) fn n_rows(&self) -> usize {
        self.0.iter().map(|source| source.table.len()).sum()
    }

    /// Iterates over all rows by number.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.0.iter().flat_map(|source| source.table.rows())
    }

    /// Returns the manifest of a row, and its position in it from 0.
    pub(super) fn place(&self, row: usize) -> (&Source, usize) {
        let at = self.0.partition_point(|source| source.start <= row);
        let source = &self.0[at.saturating_sub(1)];
        (source, row - source.start)
    }

    /// Returns the file of a row and its part.
    pub(super) fn shown(&self, row: usize) -> String {
        let (source, idx) = self.place(row);
        let row = source.table.row(idx);
        row.map_or_else(String::new, |row| {
            with_part(&text_of(&plain(&row.file())), row.part())
        })
    }

    /// Returns the patient of each row, empty if unknown; must not be shown.
    pub(super) fn patients(&self) -> Vec<&str> {
        self.words(PATIENT)
    }

    /// Returns the cell of each row in a column; empty if there is none.
    pub(super) fn words(&self, column: &str) -> Vec<&str> {
        let mut words = Vec::with_capacity(self.n_rows());
        for source in &self.0 {
            let column = source.table.column(column);
            let word = |idx| {
                column
                    .and_then(|column| column.get(idx))
                    .unwrap_or_default()
            };
            words.extend((0..source.table.len()).map(word));
        }
        words
    }

    /// Returns the name of each row in its manifest: path and part.
    pub(super) fn names(&self) -> Vec<String> {
        let name = |row: Row<'_>| with_part(row.path(), row.part());
        self.rows().map(name).collect()
    }

    /// Returns the file and part of each row as one word.
    pub(super) fn files(&self) -> Vec<String> {
        let file = |row: Row<'_>| with_part(&text_of(&plain(&row.file())), row.part());
        self.rows().map(file).collect()
    }
}

/// Removes `.` and doubled slashes from a path.
pub(super) fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}
