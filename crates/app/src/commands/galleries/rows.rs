//! What a gallery stores of an image.

use std::path::{Path, PathBuf};

use m3ret_imaging::manifest::Table;
use m3ret_search::{Gallery, RowId};

use super::columns;
use crate::commands::embed::Facts;

/// Columns of a manifest whose values identify people, studies or series: only hashes are stored.
const IDENTIFIERS: [(&str, &str); 9] = [
    ("patient_id", columns::PATIENT),
    ("patientid", columns::PATIENT),
    ("subject_id", columns::PATIENT),
    ("study_id", columns::STUDY),
    ("study_uid", columns::STUDY),
    ("studyinstanceuid", columns::STUDY),
    ("series_id", columns::SERIES),
    ("series_uid", columns::SERIES),
    ("seriesinstanceuid", columns::SERIES),
];

/// Columns that name people; nothing of them is stored.
const NAMES: [&str; 12] = [
    "patient_name",
    "patientname",
    "name",
    "patient_birth_date",
    "patientbirthdate",
    "birth_date",
    "birthdate",
    "accession_number",
    "accessionnumber",
    "address",
    "phone",
    "email",
];

/// Whose image something is, as hashes with the gallery's key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::commands) struct Pseudonyms {
    pub(in crate::commands) patient: String,
    pub(in crate::commands) study: String,
    pub(in crate::commands) series: String,
}

impl Pseudonyms {
    /// Hashes what a file says of whom it shows.
    pub(in crate::commands) fn of(facts: &Facts, gallery: &Gallery) -> Self {
        let identifiers = &facts.traits.identifiers;
        let hash = |kind: &str, identifier: &Option<m3ret_imaging::Identifier>| {
            let exposed = identifier
                .as_ref()
                .map_or("", |identifier| identifier.expose());
            gallery.pseudonym(kind, exposed)
        };
        Self {
            patient: hash(columns::PATIENT, &identifiers.patient_id),
            study: hash(columns::STUDY, &identifiers.study_instance_uid),
            series: hash(columns::SERIES, &identifiers.series_instance_uid),
        }
    }

    pub(in crate::commands) fn of_row(gallery: &Gallery, row: RowId) -> anyhow::Result<Self> {
        let value = |column: &str| gallery.value(row, column).map(str::to_owned);
        Ok(Self {
            patient: value(columns::PATIENT)?,
            study: value(columns::STUDY)?,
            series: value(columns::SERIES)?,
        })
    }
}

/// Rows on their way into a gallery, column by column.
#[derive(Debug, Default)]
pub(in crate::commands) struct Columns {
    names: Vec<String>,
    values: Vec<Vec<String>>,
    n_rows: usize,
}

impl Columns {
    /// Appends a row; columns that it does not name are empty in it.
    pub(in crate::commands) fn push(&mut self, cells: Vec<(String, String)>) {
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
    pub(in crate::commands) fn take(&mut self) -> Vec<(String, Vec<String>)> {
        self.n_rows = 0;
        let values = std::mem::take(&mut self.values);
        std::mem::take(&mut self.names)
            .into_iter()
            .zip(values)
            .collect()
    }
}

/// Returns the cells that a manifest's row gives to a gallery: everything but names of people, and
/// identifiers as hashes.
pub(in crate::commands) fn cells_of_manifest(
    table: &Table,
    row_idx: usize,
    gallery: &Gallery,
) -> Vec<(String, String)> {
    let Some(row) = table.row(row_idx) else {
        return Vec::new();
    };
    let mut cells = Vec::new();
    for name in table.columns() {
        let plain = name.to_ascii_lowercase();
        let value = row.get(name).unwrap_or_default();
        if plain == "path" || plain == "part" || plain == "id" || NAMES.contains(&plain.as_str()) {
            continue;
        }
        match IDENTIFIERS.iter().find(|(other, _)| *other == plain) {
            Some((_, kind)) => cells.push(((*kind).to_owned(), gallery.pseudonym(kind, value))),
            None => cells.push((name.clone(), value.to_owned())),
        }
    }
    cells
}

/// Returns the columns of a manifest that say whose an image is.
pub(in crate::commands) fn patient_columns(table: &Table) -> Vec<&str> {
    let is_patient = |name: &str| IDENTIFIERS.contains(&(name, columns::PATIENT));
    let names = table.columns().iter().map(String::as_str);
    names
        .filter(|name| is_patient(&name.to_ascii_lowercase()))
        .collect()
}

/// Returns whether a column of a manifest identifies or names people, studies or series.
pub(in crate::commands) fn identifies_people(column: &str) -> bool {
    let plain = column.to_ascii_lowercase();
    NAMES.contains(&plain.as_str()) || IDENTIFIERS.iter().any(|(name, _)| *name == plain)
}

/// Returns the columns of a manifest that name people, which are not stored.
pub(in crate::commands) fn left_out_columns(table: &Table) -> Vec<&str> {
    let names = table.columns().iter().map(String::as_str);
    names
        .filter(|name| NAMES.contains(&name.to_ascii_lowercase().as_str()))
        .collect()
}

/// Returns the file or folder of a row.
pub(in crate::commands) fn file_of(gallery: &Gallery, row: RowId) -> anyhow::Result<PathBuf> {
    let root = gallery.value(row, columns::ROOT)?;
    Ok(Path::new(root).join(gallery.value(row, columns::PATH)?))
}

#[cfg(test)]
mod tests {
    use super::*;

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
