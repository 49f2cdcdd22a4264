//! What an erasure tells: counts, files, the search for what must be gone, and a seal.

use std::path::Path;

use m3ret_manifest::text_of;
use m3ret_search::{Gallery, Trace};
use serde::{Deserialize, Serialize};

use super::EraseOptions;

/// The version of the format of receipts.
const FORMAT: u32 = 1;

/// What a receipt is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Rows were erased.
    Erase,
    /// A patient was taken off the lists of erased patients.
    AllowAgain,
}

/// What was done, for whoever must prove it. It holds keyed hashes of what was erased, and nothing of it in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The version of this format.
    pub format: u32,
    /// What was done.
    pub action: Action,
    /// The version of m3ret that did it.
    pub m3ret: String,
    /// When, in UTC.
    pub time: String,
    /// Who.
    pub who: String,
    /// Why.
    pub reason: String,
    /// Whether nothing was changed, and this is what would be done.
    pub is_dry_run: bool,
    /// The galleries, snapshots and caches.
    pub places: Vec<ErasedPlace>,
    /// Where copies may be that m3ret cannot reach, or cannot know of.
    pub not_reached: Vec<String>,
}

/// What a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceKind {
    /// A gallery that was named.
    Gallery,
    /// A snapshot below one.
    Snapshot,
    /// A gallery of a plain folder in a cache.
    Cache,
    /// A lake that was named.
    Lake,
}

/// Makes a hash of a purpose and bytes that is keyed with the secret of a place.
pub(super) type DigestOfPlace<'a> = dyn Fn(&Path, &str, &[u8]) -> crate::Result<String> + 'a;

/// How a column stores patients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storing {
    /// As keyed hashes.
    Hashed,
    /// As they are, as galleries of older programs may.
    Clear,
}

/// A column in which the patient was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundColumn {
    /// Its name.
    pub column: String,
    /// How it stores patients.
    pub stored: Storing,
    /// In how many rows.
    pub n_rows: usize,
}

/// How much left a place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Rows.
    pub n_rows: usize,
    /// Rows that were removed before, and whose bytes were still in a file.
    pub n_rows_removed_before: usize,
    /// Further vectors.
    pub n_views: usize,
    /// Small pictures.
    pub n_thumbnails: usize,
    /// Refused images that are forgotten.
    pub n_refusals: usize,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.n_rows += other.n_rows;
        self.n_rows_removed_before += other.n_rows_removed_before;
        self.n_views += other.n_views;
        self.n_thumbnails += other.n_thumbnails;
        self.n_refusals += other.n_refusals;
    }
}

/// A file and its size.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSize {
    /// The name below the place.
    pub file: String,
    /// Bytes.
    pub n_bytes: u64,
}

/// A search of every file below a place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scan {
    /// Files that were searched.
    pub n_files: usize,
    /// Bytes that were searched.
    pub n_bytes: u64,
    /// Different traces that were searched for.
    pub n_traces: usize,
    /// Traces that images hold which stay: copies of an erased image, texts that contain an erased one's.
    pub n_shared: usize,
    /// Traces that were found elsewhere: 0 is wanted.
    pub n_found: usize,
    /// The files in which they were found.
    pub found_in: Vec<String>,
    /// What could not be searched: links, pipes, devices.
    pub not_searched: Vec<String>,
}

impl Scan {
    /// Returns whether everything was searched and nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.n_found == 0 && self.not_searched.is_empty()
    }
}

/// What was done in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasedPlace {
    /// The folder.
    pub place: String,
    /// What it is.
    pub kind: PlaceKind,
    /// The patient as on the list of erased patients: hashes of the pseudonyms, keyed with the gallery's secret. Of images,
    /// one hash of all ids.
    pub subject: Vec<String>,
    /// The gallery's number of changes before.
    pub generation_before: u64,
    /// The gallery's number of changes after.
    pub generation_after: u64,
    /// What left.
    pub counts: Counts,
    /// Rows that are there now.
    pub n_rows_left: usize,
    /// Where the patient was found.
    pub columns: Vec<FoundColumn>,
    /// Rows that stay although they share another identifier with erased ones: look at them.
    pub n_sharing: usize,
    /// Rows that stay and whose number has an issuer, if none was named: they could not be compared.
    pub n_with_issuer: usize,
    /// Rows that stay and name no patient.
    pub n_without_patient: usize,
    /// Whether the patient was on the list of erased patients before.
    pub was_listed: bool,
    /// Files that are gone.
    pub files_removed: Vec<FileSize>,
    /// Files that are new.
    pub files_written: Vec<FileSize>,
    /// The search afterwards.
    pub scan: Scan,
    /// Parts of erased rows that are too short or too uniform to be searched for, such as an id of three letters. They
    /// left with their rows.
    pub n_not_searched_for: usize,
    /// By what the search can be repeated.
    pub traces: Vec<Trace>,
    /// A hash of this receipt, keyed with the gallery's secret.
    pub seal: String,
}

impl ErasedPlace {
    pub(super) fn new(folder: &Path, kind: PlaceKind, gallery: &Gallery) -> Self {
        Self {
            generation_before: gallery.generation(),
            generation_after: gallery.generation(),
            n_rows_left: gallery.len(),
            ..Self::empty(folder, kind)
        }
    }

    pub(super) fn empty(folder: &Path, kind: PlaceKind) -> Self {
        Self {
            place: text_of(folder),
            kind,
            subject: Vec::new(),
            generation_before: 0,
            generation_after: 0,
            counts: Counts::default(),
            n_rows_left: 0,
            columns: Vec::new(),
            n_sharing: 0,
            n_with_issuer: 0,
            n_without_patient: 0,
            was_listed: false,
            files_removed: Vec::new(),
            files_written: Vec::new(),
            scan: Scan::default(),
            n_not_searched_for: 0,
            traces: Vec::new(),
            seal: String::new(),
        }
    }
}

/// Where copies may be that m3ret cannot reach.
const NOT_REACHED: [&str; 8] = [
    "the images themselves, and lists that name them: remove them from the archive, or the next run reads them again",
    "of images that were erased by id: objects that wait in the spool of `m3ret receive`, `sync` or `serve`",
    "backups, copies of the gallery, older versions of objects in a store, and snapshots of a file system",
    "results that were written elsewhere: tables and arrays of vectors, unfinished ones beside them, reports, maps, splits \
     and evaluations",
    "models that were trained on the images",
    "files that a search had open while they were removed: whether there are any is not known; they are gone when the \
     last search that began before ends",
    "blocks that a disk keeps after a file is removed: free space, a journal, wear levelling of an SSD; encryption of the \
     disk helps",
    "memory and swap of processes that searched the gallery",
];

impl Receipt {
    pub(super) fn new(action: Action, options: &EraseOptions) -> Self {
        Self {
            format: FORMAT,
            action,
            m3ret: env!("CARGO_PKG_VERSION").to_owned(),
            time: options.time.clone(),
            who: options.who.clone(),
            reason: options.reason.clone(),
            is_dry_run: options.is_dry_run,
            places: Vec::new(),
            not_reached: match action {
                Action::Erase => NOT_REACHED.map(str::to_owned).to_vec(),
                Action::AllowAgain => Vec::new(),
            },
        }
    }

    /// Returns whether every file of every place was searched and nothing was found.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        self.places.iter().all(|place| place.scan.is_clean())
    }

    /// Returns how much left all places together.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        let places = self.places.iter();
        places.for_each(|place| counts.add(&place.counts));
        counts
    }

    /// Seals the receipt for each place with the secret of its gallery.
    pub(super) fn seal(&mut self) -> crate::Result<()> {
        self.seal_with(&|place, purpose, bytes| {
            Ok(Gallery::open(place)?.keyed_digest(purpose, bytes))
        })
    }

    /// Seals the receipt for each place with a hash that is keyed with the secret of the place: of a purpose, and bytes.
    pub(super) fn seal_with(&mut self, digest: &DigestOfPlace<'_>) -> crate::Result<()> {
        let mut seals = Vec::with_capacity(self.places.len());
        for (idx, place) in self.places.iter().enumerate() {
            let path = m3ret_manifest::path_of(&place.place);
            let (purpose, bytes) = self.sealed(idx)?;
            seals.push(digest(&path, &purpose, &bytes)?);
        }
        for (place, seal) in self.places.iter_mut().zip(seals) {
            place.seal = seal;
        }
        Ok(())
    }

    /// Returns the seal that a place has if the receipt is as it was written and the gallery's secret is that of the place.
    pub(super) fn seal_of(&self, idx: usize, gallery: &Gallery) -> crate::Result<String> {
        self.seal_by(idx, &|purpose, bytes| gallery.keyed_digest(purpose, bytes))
    }

    /// As `seal_of`, by a keyed hash.
    pub(super) fn seal_by(
        &self,
        idx: usize,
        digest: &dyn Fn(&str, &[u8]) -> String,
    ) -> crate::Result<String> {
        let (purpose, bytes) = self.sealed(idx)?;
        Ok(digest(&purpose, &bytes))
    }

    /// Returns the purpose of the seal of a place, and what it seals.
    fn sealed(&self, idx: usize) -> crate::Result<(String, Vec<u8>)> {
        let mut open = self.clone();
        for place in &mut open.places {
            place.seal.clear();
        }
        let bytes = serde_json::to_vec(&open).map_err(std::io::Error::from)?;
        Ok((format!("m3ret:receipt {idx}"), bytes))
    }

    /// Reads a receipt.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let receipt: Self = serde_json::from_slice(bytes).map_err(|error| {
            // The text of the error may repeat what stands in the file.
            let (line, column) = (error.line(), error.column());
            format!("no receipt of an erasure: line {line}, column {column} is not as wanted")
        })?;
        match receipt.format {
            FORMAT => Ok(receipt),
            other => Err(format!(
                "a receipt of format {other}; this program reads format {FORMAT}"
            )),
        }
    }
}
