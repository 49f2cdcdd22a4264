//! Finds the rows of a patient, or of images.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use m3ret_manifest::columns::is_patient;
use m3ret_manifest::privacy::{Storage, storage};
use m3ret_search::{Gallery, RowId};

use super::receipt::{ErasedPlace, FoundColumn, Storing};
use super::{Patient, Subject};
use crate::galleries::{columns, file_of};

/// What a gallery holds of a subject.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Rows that are there.
    pub rows: Vec<RowId>,
    /// Rows that were removed before, and whose bytes are still in a file.
    pub removed: Vec<RowId>,
    /// Where the patient was found.
    pub columns: Vec<FoundColumn>,
    /// All pseudonyms of the patient, that of the number first; empty for images.
    pub pseudonyms: Vec<String>,
    /// The patient, or all ids, as a receipt names them.
    pub subject: String,
    pub n_sharing: usize,
    pub n_with_issuer: usize,
    pub n_without_patient: usize,
    /// Whether the patient is on the list of erased patients.
    pub is_listed: bool,
}

/// Returns the columns of a gallery that hold patients.
pub(super) fn patient_columns(gallery: &Gallery) -> Vec<&str> {
    let own = [
        columns::PATIENT,
        columns::OWN_PATIENT,
        columns::OWN_ISSUED_PATIENT,
    ];
    let is_of_patients = |name: &str| {
        own.contains(&name)
            || is_patient(name)
            || storage(name).requested() == Storage::Hashed(columns::PATIENT.to_owned())
    };
    let mut names = gallery.columns();
    names.retain(|name| is_of_patients(name));
    names
}

/// Finds the rows of a subject, and those of some files.
pub(super) fn find(
    gallery: &Gallery,
    subject: &Subject,
    files: &HashSet<PathBuf>,
) -> crate::Result<Found> {
    let mut found = match subject {
        Subject::Patient(patient) => rows_of_patient(gallery, patient)?,
        Subject::Images(ids) => rows_of_images(gallery, ids)?,
    };
    if !files.is_empty() {
        let known: HashSet<RowId> = found.rows.iter().copied().collect();
        for row in gallery.rows().filter(|row| !known.contains(row)) {
            if files.contains(&file_of(gallery, row)?) {
                found.rows.push(row);
            }
        }
    }
    if let Subject::Patient(_) = subject {
        look_at_others(gallery, &mut found)?;
    }
    Ok(found)
}

fn rows_of_images(gallery: &Gallery, ids: &[String]) -> crate::Result<Found> {
    let mut wanted: Vec<&str> = ids.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut found = Found {
        subject: gallery.keyed_digest("m3ret:erased ids", wanted.join("\n").as_bytes()),
        ..Found::default()
    };
    for id in &wanted {
        found.rows.extend(gallery.find(id)?);
    }
    for row in gallery.removed_rows() {
        if wanted.binary_search(&gallery.id(row)?).is_ok() {
            found.removed.push(row);
        }
    }
    Ok(found)
}

fn rows_of_patient(gallery: &Gallery, patient: &Patient) -> crate::Result<Found> {
    let pseudonym = patient.pseudonym(gallery);
    let names = patient_columns(gallery);
    let mut counts: BTreeMap<(usize, bool), usize> = BTreeMap::new();
    let mut cells_of = |row: RowId| -> crate::Result<bool> {
        let mut is_theirs = false;
        for (idx, name) in names.iter().enumerate() {
            let cell = gallery.value(row, name)?;
            let is_clear = patient.issuer.is_none() && cell == patient.number;
            if is_clear || cell == pseudonym {
                *counts.entry((idx, is_clear)).or_default() += 1;
                is_theirs = true;
            }
        }
        Ok(is_theirs)
    };
    let (mut rows, mut removed) = (Vec::new(), Vec::new());
    for row in gallery.rows() {
        if cells_of(row)? {
            rows.push(row);
        }
    }
    for row in gallery.removed_rows() {
        if cells_of(row)? {
            removed.push(row);
        }
    }
    let columns = counts
        .into_iter()
        .map(|((idx, is_clear), n_rows)| FoundColumn {
            column: names[idx].to_owned(),
            stored: match is_clear {
                true => Storing::Clear,
                false => Storing::Hashed,
            },
            n_rows,
        });
    let columns = columns.collect();
    let n_with_issuer = match patient.issuer {
        Some(_) => 0,
        None => {
            let rows: HashSet<RowId> = rows.iter().copied().collect();
            let mut n_with_issuer = 0;
            for row in gallery.rows().filter(|row| !rows.contains(row)) {
                let issued = gallery.value(row, columns::OWN_ISSUED_PATIENT)?;
                n_with_issuer += usize::from(!issued.is_empty());
            }
            n_with_issuer
        }
    };
    Ok(Found {
        rows,
        removed,
        columns,
        subject: gallery.erased_hash(&pseudonym),
        is_listed: gallery.is_erased(&pseudonym),
        pseudonyms: vec![pseudonym],
        n_with_issuer,
        ..Found::default()
    })
}

/// Adds the other pseudonyms of the rows that were found, but for those that rows have which stay: who shares them is
/// not known to be the patient.
fn look_at_others(gallery: &Gallery, found: &mut Found) -> crate::Result<()> {
    let names = patient_columns(gallery);
    let rows: HashSet<RowId> = found.rows.iter().copied().collect();
    let mut others: HashSet<&str> = HashSet::new();
    for &row in &found.rows {
        for name in &names {
            others.insert(gallery.value(row, name)?);
        }
    }
    others.remove("");
    let mut shared: HashSet<&str> = HashSet::new();
    for row in gallery.rows().filter(|row| !rows.contains(row)) {
        let (mut is_shared, mut is_named) = (false, false);
        for name in &names {
            let cell = gallery.value(row, name)?;
            is_named |= !cell.is_empty();
            if others.contains(cell) {
                shared.insert(cell);
                is_shared = true;
            }
        }
        found.n_sharing += usize::from(is_shared);
        found.n_without_patient += usize::from(!is_named);
    }
    for cell in others.difference(&shared) {
        let is_hash = cell.len() == 32 && cell.bytes().all(|byte| byte.is_ascii_hexdigit());
        let pseudonym = match is_hash {
            true => (*cell).to_owned(),
            false => gallery.pseudonym(columns::PATIENT, cell),
        };
        if !found.pseudonyms.contains(&pseudonym) {
            found.pseudonyms.push(pseudonym);
        }
    }
    found.pseudonyms[1..].sort_unstable();
    Ok(())
}

impl Found {
    /// Returns whether there is anything of the subject.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.removed.is_empty()
    }

    /// Tells in a receipt what was found.
    pub(super) fn tell(&self, place: &mut ErasedPlace, gallery: &Gallery) -> crate::Result<()> {
        place.subject = match self.pseudonyms.is_empty() {
            true => vec![self.subject.clone()],
            false => {
                let hashes = self.pseudonyms.iter().map(|p| gallery.erased_hash(p));
                hashes.collect()
            }
        };
        place.columns.clone_from(&self.columns);
        place.n_sharing = self.n_sharing;
        place.n_with_issuer = self.n_with_issuer;
        place.n_without_patient = self.n_without_patient;
        place.was_listed = self.is_listed;
        place.counts.n_rows = self.rows.len();
        place.counts.n_rows_removed_before = self.removed.len();
        for &row in &self.rows {
            place.counts.n_views += gallery.view_vectors(row)?.len();
            let thumbnail = gallery.attachment(row, crate::galleries::THUMBNAIL)?;
            place.counts.n_thumbnails += usize::from(!thumbnail.is_empty());
        }
        Ok(())
    }
}
