//! What a gallery stores of an image.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_manifest::columns::{
    BODY_PART, DIMS, FINDING, ID, LABEL, MODALITY, PART, PATH, SOURCE, names_people,
};
use m3ret_manifest::path_of;
use m3ret_manifest::privacy::Storage;
use m3ret_manifest::{Row, Table};
use m3ret_search::{Batch, Collection, Gallery, Numbers, RowId, View, ViewVectors, Writer};

use super::columns;
use crate::embed::{Facts, Views};

/// One identifier as hashes keyed with the gallery's secret, by origin. Only identifiers of one origin are
/// compared, since the pseudonym in a manifest says nothing of the number in a header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pseudonym {
    /// From a manifest.
    pub stated: String,
    /// From the header.
    pub header: String,
    /// From the header, together with the issuer of the number.
    pub issued: String,
}

impl Pseudonym {
    /// Returns whether both are the same, `None` where that is not known.
    ///
    /// Equal identifiers of any origin mean yes. Only the origin that takes precedence in both means no, because a
    /// manifest may join two numbers of one person whose headers differ.
    pub(crate) fn is(&self, other: &Self) -> Option<bool> {
        let pairs = [
            (&self.stated, &other.stated),
            (&self.issued, &other.issued),
            (&self.header, &other.header),
        ];
        if pairs.iter().any(|(a, b)| !a.is_empty() && a == b) {
            return Some(true);
        }
        let first = pairs.iter().find(|(a, b)| !a.is_empty() || !b.is_empty())?;
        (!first.0.is_empty() && !first.1.is_empty()).then_some(false)
    }

    /// Returns the hash that filters and groups use: that of the manifest takes precedence.
    pub(crate) fn shown(&self) -> &str {
        let all = [&self.stated, &self.issued, &self.header];
        all.into_iter()
            .find(|hash| !hash.is_empty())
            .map_or("", String::as_str)
    }
}

/// Patient, study and series of an image, as hashes keyed with the gallery's secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pseudonyms {
    pub patient: Pseudonym,
    pub study: Pseudonym,
    pub series: Pseudonym,
}

/// Separates issuer and number in an identifier of a header.
const ISSUER_SEPARATOR: char = '\u{1f}';

impl Pseudonyms {
    /// Hashes the identifiers of a file.
    pub(crate) fn of_facts(facts: &Facts, gallery: &dyn Collection) -> Self {
        let identifiers = &facts.traits.identifiers;
        let hash = |kind: &str, identifier: &Option<m3ret_imaging::Identifier>| {
            let exposed = identifier
                .as_ref()
                .map_or("", |identifier| identifier.expose());
            let hash = gallery.pseudonym(kind, exposed);
            let mut pseudonym = Pseudonym::default();
            if exposed.contains(ISSUER_SEPARATOR) {
                pseudonym.issued = hash;
            } else {
                pseudonym.header = hash;
            }
            pseudonym
        };
        Self {
            patient: hash(columns::PATIENT, &identifiers.patient_id),
            study: hash(columns::STUDY, &identifiers.study_instance_uid),
            series: hash(columns::SERIES, &identifiers.series_instance_uid),
        }
    }

    /// Returns the hashes of the header alone.
    pub(crate) fn of_header(self) -> Self {
        let header = |pseudonym: Pseudonym| Pseudonym {
            stated: String::new(),
            ..pseudonym
        };
        Self {
            patient: header(self.patient),
            study: header(self.study),
            series: header(self.series),
        }
    }

    /// Returns the hashes of a row. Older galleries do not store the origin of an identifier, which then counts as one
    /// of every origin.
    pub(crate) fn of(cells: &RowCells<'_>) -> Self {
        let read = |shown: &str, header: &str, issued: &str| {
            let is_stated = cells
                .get(columns::STATED)
                .split(' ')
                .any(|name| name == shown);
            let value = |column: &str| cells.get(column).to_owned();
            let (shown, header, issued) = (value(shown), value(header), value(issued));
            if cells.is_older {
                return Pseudonym {
                    stated: shown.clone(),
                    header: shown.clone(),
                    issued: shown,
                };
            }
            // Galleries without the column tell a manifest's identifier by its difference from the header's.
            let is_stated = is_stated || (shown != header && shown != issued);
            Pseudonym {
                stated: if is_stated { shown } else { String::new() },
                header,
                issued,
            }
        };
        Self {
            patient: read(
                columns::PATIENT,
                columns::OWN_PATIENT,
                columns::OWN_ISSUED_PATIENT,
            ),
            study: read(columns::STUDY, columns::OWN_STUDY, ""),
            series: read(columns::SERIES, columns::OWN_SERIES, ""),
        }
    }
}

/// The columns that say where an image lies, what it is and whose, in the order of the cells of `RowCells`.
const TELLING: [&str; 16] = [
    PATH,
    columns::PART,
    MODALITY,
    BODY_PART,
    FINDING,
    LABEL,
    DIMS,
    SOURCE,
    columns::PATIENT,
    columns::STUDY,
    columns::SERIES,
    columns::STATED,
    columns::OWN_PATIENT,
    columns::OWN_ISSUED_PATIENT,
    columns::OWN_STUDY,
    columns::OWN_SERIES,
];

/// The cells of one row that say where its image lies, what it is and whose.
pub(crate) struct RowCells<'a> {
    /// One for each column of `TELLING`, then root and pixels.
    cells: Vec<Cow<'a, str>>,
    /// Whether the gallery does not store who stated an identifier.
    is_older: bool,
}

impl<'a> RowCells<'a> {
    /// Reads the cells of rows together.
    pub(crate) fn of_rows(
        gallery: &'a dyn Collection,
        rows: &[RowId],
    ) -> anyhow::Result<Vec<Self>> {
        let own = columns::own_names(gallery);
        let is_older = !gallery.columns().contains(&columns::CELLS);
        let names = [&TELLING[..], &[own.root, own.pixels]].concat();
        let rows = gallery.rows(rows, &names)?.into_iter();
        Ok(rows.map(|cells| Self { cells, is_older }).collect())
    }

    /// Reads the cells of one row.
    pub(crate) fn of_row(gallery: &'a dyn Collection, row: RowId) -> anyhow::Result<Self> {
        let mut rows = Self::of_rows(gallery, &[row])?;
        rows.pop().context("a row that was found")
    }

    /// Returns a cell of one of the columns that are read; empty for another column.
    pub(crate) fn get(&self, column: &str) -> &str {
        let place = TELLING.iter().position(|name| *name == column);
        place.map_or("", |place| self.cells[place].as_ref())
    }

    /// Returns the folder that the path is relative to.
    pub(crate) fn root(&self) -> &str {
        self.cells[TELLING.len()].as_ref()
    }

    /// Returns the hash of all values; empty if it is not known.
    pub(crate) fn pixels(&self) -> &str {
        self.cells[TELLING.len() + 1].as_ref()
    }

    /// Returns which image of the file this is; `None` if the file holds one image.
    pub(crate) fn part(&self) -> Option<&str> {
        Some(self.get(columns::PART)).filter(|part| !part.is_empty())
    }

    /// Returns the file or folder of the image.
    pub(crate) fn file(&self) -> PathBuf {
        place_below(self.root(), self.get(PATH))
    }
}

/// Cells of rows that go into a gallery, column by column.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    names: Vec<String>,
    values: Vec<Vec<String>>,
    n_rows: usize,
}

impl Columns {
    /// Appends a row; its cells in columns that it does not name are empty.
    pub(crate) fn push(&mut self, cells: Vec<(String, String)>) {
        for (name, value) in cells {
            let place = self.names.iter().position(|other| *other == name);
            let place = place.unwrap_or_else(|| {
                self.names.push(name);
                self.values.push(vec![String::new(); self.n_rows]);
                self.names.len() - 1
            });
            // Of two cells with the same name, the first one counts.
            if self.values[place].len() == self.n_rows {
                self.values[place].push(value);
            }
        }
        self.n_rows += 1;
        for values in &mut self.values {
            values.resize(self.n_rows, String::new());
        }
    }

    /// Takes all rows out.
    pub(crate) fn take(&mut self) -> Vec<(String, Vec<String>)> {
        self.n_rows = 0;
        let values = std::mem::take(&mut self.values);
        std::mem::take(&mut self.names)
            .into_iter()
            .zip(values)
            .collect()
    }
}

/// The attachment that holds a small picture.
pub(crate) const THUMBNAIL: &str = "thumbnail";

/// Rows on their way into a gallery, with their vectors and pictures.
#[derive(Debug, Default)]
pub(crate) struct PendingRows {
    ids: Vec<String>,
    /// [rows, width]
    vectors: Vec<f32>,
    cells: Columns,
    thumbnails: Vec<Vec<u8>>,
    /// What `view_vectors` are of.
    views: Vec<View>,
    view_names: Vec<String>,
    /// [views, width]
    view_vectors: Vec<f32>,
}

/// What a row holds beside its cells.
#[derive(Debug, Default)]
pub(crate) struct RowParts {
    /// Its vector at unit length.
    pub vector: Vec<f32>,
    /// Its small picture; empty for none.
    pub thumbnail: Vec<u8>,
    /// Further vectors at unit length.
    pub views: Views,
}

impl PendingRows {
    /// Appends a row.
    pub(crate) fn push(&mut self, id: String, cells: Vec<(String, String)>, parts: RowParts) {
        let row = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        for (name, vector) in parts.views {
            let place = self.view_names.iter().position(|known| *known == name);
            let place = place.unwrap_or_else(|| {
                self.view_names.push(name);
                self.view_names.len() - 1
            });
            let name = u32::try_from(place).unwrap_or(u32::MAX);
            self.views.push(View { row, name });
            self.view_vectors.extend(vector);
        }
        self.ids.push(id);
        self.vectors.extend(parts.vector);
        self.cells.push(cells);
        self.thumbnails.push(parts.thumbnail);
    }

    pub(crate) fn ids(&self) -> &[String] {
        &self.ids
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns how many numbers all vectors have.
    pub(crate) fn n_numbers(&self) -> usize {
        self.vectors.len() + self.view_vectors.len()
    }

    /// Adds the rows to a gallery, and removes others in the same change.
    pub(crate) fn save(&mut self, writer: &mut Writer, removed: &[String]) -> anyhow::Result<()> {
        let cells = self.cells.take();
        let thumbnails = std::mem::take(&mut self.thumbnails);
        let has_any = thumbnails.iter().any(|thumbnail| !thumbnail.is_empty());
        let attachments = [(THUMBNAIL.to_owned(), thumbnails)];
        let batch = Batch {
            vectors: &self.vectors,
            ids: &self.ids,
            columns: &cells,
            attachments: if has_any { &attachments } else { &[] },
            views: ViewVectors {
                names: &self.view_names,
                of: &self.views,
                vectors: &self.view_vectors,
            },
        };
        writer.replace(batch, removed)?;
        self.ids.clear();
        self.vectors.clear();
        self.views.clear();
        self.view_names.clear();
        self.view_vectors.clear();
        Ok(())
    }
}

/// Returns what a row holds beside its cells, to write the row again.
pub(crate) fn stored_parts(gallery: &Gallery, row: RowId) -> anyhow::Result<RowParts> {
    let mut vector = gallery.vector(row)?;
    if gallery.numbers() == Numbers::F16 {
        // 16 bits keep no unit length, which the writer asks for.
        m3ret_search::normalize(&mut vector)?;
    }
    Ok(RowParts {
        vector,
        thumbnail: gallery.attachment(row, THUMBNAIL)?.to_vec(),
        views: views_of(gallery, row)?,
    })
}

/// Returns the further vectors of a row at unit length.
pub(crate) fn views_of(gallery: &dyn Collection, row: RowId) -> anyhow::Result<Views> {
    let mut views = Vec::new();
    for (name, mut vector) in gallery.view_vectors(row)? {
        if gallery.numbers() == Numbers::F16 {
            m3ret_search::normalize(&mut vector)?;
        }
        views.push((name.into_owned(), vector));
    }
    Ok(views)
}

/// Returns all cells of a row, to write it again.
pub(super) fn cells_of_row(gallery: &Gallery, row: RowId) -> anyhow::Result<Vec<(String, String)>> {
    let names = gallery.columns().into_iter();
    let cells = names.map(|name| Ok((name.to_owned(), gallery.value(row, name)?.to_owned())));
    cells.collect()
}

/// Returns whether a row with these cells is of a patient who was erased from a gallery.
pub(crate) fn is_of_erased(gallery: &Gallery, cells: &[(String, String)]) -> bool {
    let mut cells = cells.iter();
    cells.any(|(name, value)| gallery.is_erased_cell(name, value))
}

/// Replaces the value of a cell, or adds the cell.
pub(super) fn set_cell(cells: &mut Vec<(String, String)>, name: &str, value: String) {
    match cells.iter_mut().find(|(other, _)| other == name) {
        Some((_, cell)) => *cell = value,
        None => cells.push((name.to_owned(), value)),
    }
}

/// Returns the columns of a table and what a gallery does with them: it goes on with columns that it has.
fn storage_of<'a>(
    table: &'a Table,
    gallery: &'a dyn Collection,
) -> impl Iterator<Item = (&'a str, Storage)> {
    let is_asked = |(_, storage): (&str, Storage)| !storage.stores() && storage != Storage::Never;
    let there = match table.storage().any(is_asked) {
        true => gallery.columns(),
        false => Vec::new(),
    };
    table
        .storage()
        .map(move |(name, storage)| match there.contains(&name) {
            true => (name, storage.requested()),
            false => (name, storage),
        })
}

/// Returns the cells of a row of a manifest as a gallery stores them: identifiers as hashes, and of columns that m3ret
/// does not know those that a person asked for.
pub(crate) fn cells_of_manifest(
    table: &Table,
    row_idx: usize,
    gallery: &dyn Collection,
) -> Vec<(String, String)> {
    let Some(row) = table.row(row_idx) else {
        return Vec::new();
    };
    let mut cells = Vec::new();
    for ((name, storage), value) in storage_of(table, gallery).zip(row.cells()) {
        if [PATH, PART, ID].contains(&name) {
            continue;
        }
        let value = match storage {
            Storage::Plain => value.to_owned(),
            Storage::Hashed(kind) => gallery.pseudonym(&kind, value),
            Storage::OnRequest | Storage::HashedOnRequest(_) | Storage::Never => continue,
        };
        cells.push((name.to_owned(), value));
    }
    cells
}

/// Returns the cell that says which identifiers a manifest states, given the cells that it states.
pub(super) fn cell_of_stated(stated: &[(String, String)]) -> (String, String) {
    let identifiers = [columns::PATIENT, columns::STUDY, columns::SERIES];
    let is_stated = |kind: &&str| {
        let mut cells = stated.iter();
        cells.any(|(name, value)| name == kind && !value.is_empty())
    };
    let names: Vec<&str> = identifiers.into_iter().filter(is_stated).collect();
    (columns::STATED.to_owned(), names.join(" "))
}

/// Returns a keyed hash of all cells of a row of a manifest and of the columns that are left out, which detects a change
/// of any.
pub(crate) fn digest_of_cells(row: Option<Row<'_>>, gallery: &dyn Collection) -> String {
    // Not empty even without cells, which distinguishes it from rows of older galleries.
    let mut text = "=".to_owned();
    if let Some(row) = row {
        for (name, storage) in storage_of(row.table(), gallery) {
            // Galleries never had the columns of `names_people`; rows that had others are written again without them.
            if !storage.stores() && !names_people(name) {
                text += &format!("-{}:{name}", name.len());
            }
        }
    }
    for (name, value) in row.iter().flat_map(Row::named_cells) {
        if name != PATH && name != PART && !value.is_empty() {
            text += &format!("{}:{name}{}:{value}", name.len(), value.len());
        }
    }
    gallery.pseudonym(columns::CELLS, &text)
}

/// Returns what is said of the columns of a manifest that are not stored, one sentence a reason.
pub(super) fn notes_of_left_out(table: &Table) -> Vec<String> {
    let of = |wanted: fn(&Storage) -> bool| {
        let names = table.storage().filter(|(_, storage)| wanted(storage));
        names.map(|(name, _)| name).collect::<Vec<_>>()
    };
    let reasons = [
        (
            of(|storage| *storage == Storage::Never),
            "columns that name people are not stored",
            "",
        ),
        (
            of(|storage| matches!(storage, Storage::HashedOnRequest(_))),
            "columns that identify people or visits are not stored",
            "; --keep COLUMN stores one as hashes",
        ),
        (
            of(|storage| *storage == Storage::OnRequest),
            "columns that m3ret does not know are not stored",
            "; --keep COLUMN, or a search that names one, stores it as it is",
        ),
    ];
    let told = reasons.into_iter().filter(|(names, ..)| !names.is_empty());
    let told = told.map(|(names, what, advice)| format!("{what}: {}{advice}", listed(&names)));
    told.collect()
}

/// Most columns that a note names.
const MAX_LISTED: usize = 20;

fn listed(names: &[&str]) -> String {
    let mut text = names[..names.len().min(MAX_LISTED)].join(", ");
    if names.len() > MAX_LISTED {
        text += &format!(" and {} more", names.len() - MAX_LISTED);
    }
    text
}

/// Returns the file or folder of a row.
pub(crate) fn file_of(gallery: &dyn Collection, row: RowId) -> anyhow::Result<PathBuf> {
    let root = gallery.value(row, columns::own_names(gallery).root)?;
    Ok(place_below(&root, &gallery.value(row, PATH)?))
}

/// Returns where the image lies whose row has these cells.
pub(crate) fn place_below(root: &str, path: &str) -> PathBuf {
    path_of(root).join(path_of(path))
}

/// Returns whether two paths lead to the same file or folder.
pub(crate) fn is_same_place(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_set_once() {
        let mut cells = vec![("a".to_owned(), "1".to_owned())];
        set_cell(&mut cells, "a", "2".to_owned());
        set_cell(&mut cells, "b", "3".to_owned());
        let wanted = [("a", "2"), ("b", "3")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(cells, wanted);
    }

    #[test]
    fn columns_may_come_with_any_row() {
        let cell = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut columns = Columns::default();
        columns.push(vec![cell("a", "1")]);
        columns.push(vec![cell("b", "2"), cell("b", "3")]);
        columns.push(vec![cell("b", "4"), cell("a", "5")]);
        let wanted = [("a", ["1", "", "5"]), ("b", ["", "2", "4"])];
        let taken = columns.take();
        for ((name, values), (wanted_name, wanted)) in taken.iter().zip(wanted) {
            assert_eq!(
                (name.as_str(), values.as_slice()),
                (wanted_name, &wanted.map(str::to_owned)[..])
            );
        }
        assert!(columns.take().is_empty());
    }
}
