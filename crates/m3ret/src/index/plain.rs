//! Galleries of plain vectors, made of what is in memory.

use std::path::Path;

use m3ret_manifest::columns::{ID, PATIENT, is_patient, meaning};
use m3ret_manifest::privacy::{Storage, storage};
use m3ret_search::{Batch, Gallery, Maker, Numbers, Setup, Writer};

use crate::error::{bail, ensure};
use crate::galleries::columns;
use crate::watch::{Stopped, Watch};

/// Rows of a gallery of plain vectors.
#[derive(Debug, Clone, Copy)]
pub struct PlainRows<'a> {
    /// What made the vectors.
    pub maker: &'a Maker,
    /// Unit vectors, [rows, width].
    pub vectors: &'a [f32],
    /// Number of values of a vector.
    pub width: usize,
    /// One id for each row.
    pub ids: &'a [String],
    /// Names of columns, each with one cell for each row; those that name or identify people are stored as keyed hashes
    /// or refused, by the name of the column.
    pub columns: &'a [(String, Vec<String>)],
}

/// Makes a gallery of plain vectors, or adds them to one.
///
/// # Errors
/// If there is a gallery of another maker, or one with images although `is_new`; if a vector is no unit vector, an id
/// is empty, comes twice or is there already, or a column describes people; if the gallery is locked or cannot be
/// written.
pub fn put_plain(
    folder: &Path,
    rows: PlainRows<'_>,
    is_new: bool,
    numbers: Numbers,
    watch: &dyn Watch,
) -> crate::Result<usize> {
    let is_made = is_new && std::fs::symlink_metadata(folder).is_err();
    let written = write(folder, rows, is_new, numbers, watch);
    if written.is_err() && is_made && Gallery::open(folder).is_ok_and(|made| made.is_empty()) {
        // A gallery without rows would only be in the way of the next try.
        let _ = std::fs::remove_dir_all(folder);
    }
    written
}

fn write(
    folder: &Path,
    rows: PlainRows<'_>,
    is_new: bool,
    numbers: Numbers,
    watch: &dyn Watch,
) -> crate::Result<usize> {
    ensure!(rows.width > 0, "the vectors have no numbers");
    m3ret_search::check_unit(rows.vectors, rows.width)?;
    let columns = rows.columns.iter();
    let columns = columns.map(|(name, cells)| Ok((StoredColumn::of(name)?, cells)));
    let columns: Vec<(StoredColumn, &Vec<String>)> = columns.collect::<crate::Result<_>>()?;
    Stopped::check(watch, "interrupted; nothing was written")?;
    let mut writer = writer_for(folder, rows, is_new, numbers)?;
    watch.step("writing");
    let gallery = writer.gallery();
    let cells = columns.into_iter().map(|(column, cells)| {
        let cells = cells.iter().map(|cell| column.cell(gallery, cell));
        let cells = cells.collect();
        (column.name, cells)
    });
    let cells: Vec<(String, Vec<String>)> = cells.collect();
    writer.add(Batch {
        vectors: rows.vectors,
        ids: rows.ids,
        columns: &cells,
        ..Batch::default()
    })?;
    if writer.is_calibration_old() {
        watch.step("measuring how to search");
        writer.compact()?;
    }
    Ok(writer.gallery().len())
}

/// How a gallery of plain vectors stores a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredColumn {
    /// The name under which it is stored.
    pub name: String,
    /// The kind of the hashes that are stored of cells that identify people.
    kind: Option<String>,
}

impl StoredColumn {
    /// Says how a column of this name is stored.
    ///
    /// # Errors
    /// If the name is one of m3ret's own, or says that the column describes people.
    pub fn of(name: &str) -> crate::Result<Self> {
        if name == ID || name.starts_with(columns::OWN) {
            bail!("a column {name:?} is m3ret's own; give it another name");
        }
        let own = match is_patient(name) {
            true => PATIENT,
            false => meaning(name).unwrap_or(name),
        };
        let kind = match storage(own).requested() {
            Storage::Hashed(kind) => Some(kind),
            Storage::Never => bail!(
                "the name of the column {name:?} says that it describes people, and galleries store nothing of that; \
                 rename the column if it does not"
            ),
            Storage::Plain | Storage::OnRequest | Storage::HashedOnRequest(_) => None,
        };
        Ok(Self {
            name: own.to_owned(),
            kind,
        })
    }

    /// Returns what a gallery stores of a cell.
    pub fn cell(&self, gallery: &Gallery, cell: &str) -> String {
        match &self.kind {
            Some(kind) => gallery.pseudonym(kind, cell),
            None => cell.to_owned(),
        }
    }
}

fn writer_for(
    folder: &Path,
    rows: PlainRows<'_>,
    is_new: bool,
    numbers: Numbers,
) -> crate::Result<Writer> {
    let there = Gallery::open(folder);
    if !is_new {
        there?.check_maker(rows.maker)?;
        return Ok(Writer::open(folder)?);
    }
    ensure!(
        there.is_err(),
        "{} is there already; open it and add to it, or give another name",
        folder.display()
    );
    let setup = Setup {
        maker: rows.maker.clone(),
        width: rows.width,
        numbers,
    };
    Ok(Writer::create(folder, setup)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Quiet;

    #[test]
    fn patients_of_plain_vectors_are_hashed_and_names_refused() {
        let folder = tempfile::tempdir().unwrap();
        let gallery = folder.path().join("g.m3i");
        let maker = Maker {
            fingerprint: "external:x:2".to_owned(),
            model: "x".to_owned(),
            precision: "unknown".to_owned(),
        };
        let ids = ["a".to_owned(), "b".to_owned()];
        let columns = [(
            "PatientID".to_owned(),
            vec!["P1".to_owned(), "P2".to_owned()],
        )];
        let rows = PlainRows {
            maker: &maker,
            vectors: &[1.0, 0.0, 0.0, 1.0],
            width: 2,
            ids: &ids,
            columns: &columns,
        };
        let put = |rows, is_new| put_plain(&gallery, rows, is_new, Numbers::F32, &Quiet);
        assert_eq!(put(rows, true).unwrap(), 2);
        let opened = Gallery::open(&gallery).unwrap();
        let row = opened.find("a").unwrap().unwrap();
        let hashed = opened.value(row, PATIENT).unwrap().to_owned();
        assert_eq!(hashed, opened.pseudonym("patient_id", "P1"));
        assert!(put(rows, true).is_err(), "it is there already");
        assert!(put(rows, false).is_err(), "its ids are there already");
        let named = [("patient_name".to_owned(), vec![String::new(); 2])];
        let named = PlainRows {
            columns: &named,
            ..rows
        };
        assert!(put(named, false).is_err());
        let other = folder.path().join("other.m3i");
        let twice = ["a".to_owned(), "a".to_owned()];
        let put = |ids| {
            let rows = PlainRows { ids, ..rows };
            put_plain(&other, rows, true, Numbers::F32, &Quiet)
        };
        assert!(put(&twice).is_err(), "an id comes twice");
        assert_eq!(put(&ids).unwrap(), 2, "and nothing is in the way");
    }
}
