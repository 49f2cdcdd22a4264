//! Patients whose rows were erased: no writer adds rows of theirs until they are allowed again.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::catalog::Reference;
use super::refusals::Refusal;
use super::writer::Writer;
use super::{Gallery, Key};
use super::{catalog, refusals};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::names::{HEADER_PATIENT, ISSUED_PATIENT, PATIENT};

/// How the names of files with erased patients begin.
pub(super) const ERASED: &str = "erased-";
/// The kind of hash that the list holds of a pseudonym.
const KIND: &str = "m3ret:erased";
/// Characters of a pseudonym.
const PSEUDONYM_CHARS: usize = 32;

/// Who was erased: nothing but keyed hashes of pseudonyms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasedList {
    /// For each patient the hashes of all pseudonyms, in ascending order.
    pub patients: Vec<Vec<String>>,
    /// How many patients were allowed again.
    pub n_lifted: u64,
}

impl ErasedList {
    fn hashes(&self) -> HashSet<String> {
        self.patients.iter().flatten().cloned().collect()
    }

    /// Joins a patient with those that share a hash; returns whether the list changed.
    pub fn add(&mut self, hashes: Vec<String>) -> bool {
        let before = self.patients.clone();
        let mut all: HashSet<String> = hashes.into_iter().collect();
        if all.is_empty() {
            return false;
        }
        self.patients.retain(|patient| {
            let is_shared = patient.iter().any(|hash| all.contains(hash));
            if is_shared {
                all.extend(patient.iter().cloned());
            }
            !is_shared
        });
        let mut all: Vec<String> = all.into_iter().collect();
        all.sort_unstable();
        self.patients.push(all);
        self.patients.sort_unstable();
        self.patients != before
    }
}

/// A list of erased patients that rows are compared with.
#[derive(Debug, Default)]
pub struct ErasedPatients {
    pub(super) list: ErasedList,
    hashes: HashSet<String>,
}

impl ErasedPatients {
    /// Makes a list ready to be asked.
    #[must_use]
    pub fn new(list: ErasedList) -> Self {
        Self {
            hashes: list.hashes(),
            list,
        }
    }

    /// Returns whether any patient was erased.
    #[must_use]
    pub fn has_any(&self) -> bool {
        !self.hashes.is_empty()
    }

    /// Returns the hash under which a pseudonym stands on the list.
    #[must_use]
    pub fn hash(key: &Key, pseudonym: &str) -> String {
        key.pseudonym(KIND, pseudonym)
    }

    /// Returns whether a patient was erased, by a pseudonym or by the number in clear.
    #[must_use]
    pub fn has(&self, key: &Key, patient: &str) -> bool {
        if self.hashes.is_empty() || patient.is_empty() {
            return false;
        }
        let of_clear = || Self::hash(key, &key.pseudonym(PATIENT, patient));
        self.hashes.contains(&Self::hash(key, patient)) || self.hashes.contains(&of_clear())
    }

    /// Returns whether a cell names an erased patient.
    #[must_use]
    pub fn has_cell(&self, key: &Key, column: &str, cell: &str) -> bool {
        let is_pseudonym =
            cell.len() == PSEUDONYM_CHARS && cell.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_of_patients = [PATIENT, HEADER_PATIENT, ISSUED_PATIENT].contains(&column);
        (is_of_patients || is_pseudonym) && self.has(key, cell)
    }

    /// Returns which rows are of erased patients, given the columns that they would have, in ascending order.
    ///
    /// The columns of patients may hold pseudonyms or numbers in clear; of others, cells that look like a pseudonym are
    /// compared.
    #[must_use]
    pub fn rows(&self, key: &Key, columns: &[(String, Vec<String>)]) -> Vec<usize> {
        if self.hashes.is_empty() {
            return Vec::new();
        }
        let mut rows = Vec::new();
        for (name, cells) in columns {
            let mut known: HashMap<&str, bool> = HashMap::new();
            for (row, cell) in cells.iter().enumerate() {
                let is_erased = known
                    .entry(cell)
                    .or_insert_with(|| self.has_cell(key, name, cell));
                if *is_erased {
                    rows.push(row);
                }
            }
        }
        rows.sort_unstable();
        rows.dedup();
        rows
    }
}

/// What leaves a gallery for good.
#[derive(Debug, Clone, Copy, Default)]
pub struct Erasure<'a> {
    /// Ids of the rows.
    pub ids: &'a [String],
    /// All pseudonyms of the one patient whose rows they are; empty to forbid no patient.
    pub pseudonyms: &'a [String],
    /// The refused images that are still remembered.
    pub refusals: &'a [Refusal],
}

impl Gallery {
    /// Returns the hash under which a pseudonym stands on the list of erased patients.
    #[must_use]
    pub fn erased_hash(&self, pseudonym: &str) -> String {
        ErasedPatients::hash(&self.key, pseudonym)
    }

    /// Returns whether a patient was erased, by a pseudonym or by the number in clear.
    #[must_use]
    pub fn is_erased(&self, patient: &str) -> bool {
        self.erased.has(&self.key, patient)
    }

    /// Returns how many patients are on the list of erased patients.
    #[must_use]
    pub fn n_erased(&self) -> usize {
        self.erased.list.patients.len()
    }

    /// Returns which rows are of erased patients, given the columns that they would have, in ascending order.
    #[must_use]
    pub fn erased_rows(&self, columns: &[(String, Vec<String>)]) -> Vec<usize> {
        self.erased.rows(&self.key, columns)
    }

    /// Returns whether a cell names an erased patient.
    #[must_use]
    pub fn is_erased_cell(&self, column: &str, cell: &str) -> bool {
        self.erased.has_cell(&self.key, column, cell)
    }
}

impl<D: Disk> Writer<D> {
    /// Refuses rows of patients that were erased.
    pub(super) fn check_erased(&self, columns: &[(String, Vec<String>)]) -> Result<()> {
        let n_rows = self.gallery().erased_rows(columns).len();
        match n_rows {
            0 => Ok(()),
            _ => Err(Error::Erased {
                path: self.gallery().folder().to_owned(),
                n_rows,
            }),
        }
    }

    /// Removes rows for good: no file of the gallery holds their bytes afterwards, and no writer adds rows of the patient.
    ///
    /// The rows and refused images leave and the patient is listed in one change; then all other rows are written anew,
    /// what the catalog does not name is removed, and the removal is made to survive a power cut. Killed at any point, the
    /// same call completes it. Readers that opened the gallery before keep the old files until they close them.
    ///
    /// # Errors
    /// As `remove` and `compact`; `Io` if an old file cannot be removed.
    pub fn erase(&mut self, erasure: Erasure<'_>) -> Result<()> {
        let mut catalog = self.gallery().catalog.clone();
        let dead = self.dead_after(erasure.ids)?;
        self.write_dead(&mut catalog, &dead)?;
        let is_listed = self.list_erased(&mut catalog, erasure.pseudonyms)?;
        let kept = refusals::kept(erasure.refusals);
        let forgets = kept != self.gallery().refusals()?;
        if forgets {
            catalog.refusals = self.put_refusals(&catalog, kept)?;
        }
        if !erasure.ids.is_empty() || is_listed || forgets {
            self.commit(catalog)?;
        }
        self.compact()?;
        self.remove_all_leftovers()
    }

    /// Takes patients off the list of erased patients, each with all its pseudonyms; returns how many.
    ///
    /// # Errors
    /// `Io`; `Damaged`.
    pub fn allow_again(&mut self, pseudonyms: &[String]) -> Result<usize> {
        let gallery = self.gallery();
        let hashes: Vec<String> = pseudonyms.iter().map(|p| gallery.erased_hash(p)).collect();
        let mut list = gallery.erased.list.clone();
        let before = list.patients.len();
        let is_other = |patient: &Vec<String>| !patient.iter().any(|hash| hashes.contains(hash));
        list.patients.retain(is_other);
        let n_lifted = before - list.patients.len();
        if n_lifted == 0 {
            return Ok(0);
        }
        list.n_lifted += n_lifted as u64;
        let mut catalog = gallery.catalog.clone();
        catalog.erased = Some(self.put_erased(&catalog, &list)?);
        self.commit(catalog)?;
        Ok(n_lifted)
    }

    /// Puts a patient on the list; returns whether the list changed.
    fn list_erased(&self, catalog: &mut catalog::Catalog, pseudonyms: &[String]) -> Result<bool> {
        let gallery = self.gallery();
        let mut list = gallery.erased.list.clone();
        let hashes = pseudonyms.iter().map(|p| gallery.erased_hash(p)).collect();
        let has_changed = list.add(hashes);
        if has_changed {
            catalog.erased = Some(self.put_erased(catalog, &list)?);
        }
        Ok(has_changed)
    }

    fn put_erased(&self, catalog: &catalog::Catalog, list: &ErasedList) -> Result<Reference> {
        let name = format!("{ERASED}{:016x}.json", catalog.generation + 1);
        Reference::put(self.disk(), self.gallery().folder(), name, list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patients_who_share_a_hash_are_one() {
        let owned = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        let mut list = ErasedList::default();
        assert!(!list.add(Vec::new()));
        assert!(list.add(owned(&["b", "a"])));
        assert!(!list.add(owned(&["a"])));
        assert!(list.add(owned(&["d"])));
        assert_eq!(list.patients, [owned(&["a", "b"]), owned(&["d"])]);
        assert!(list.add(owned(&["d", "b", "c"])));
        assert_eq!(list.patients, [owned(&["a", "b", "c", "d"])]);
    }
}
