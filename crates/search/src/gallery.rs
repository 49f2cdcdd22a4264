//! A gallery on disk: unit vectors, ids and metadata that are searched. docs/gallery-format.md has
//! every byte.
//!
//! A gallery is a folder of immutable segments and a catalog that says which of them count. Readers
//! open the newest catalog and keep what they opened; one writer at a time adds segments and lists
//! of removed rows, and then puts a new catalog beside the old one.

mod blocks;
mod catalog;
mod dead;
mod erased;
mod footer;
mod key;
mod leftovers;
mod refusals;
mod repair;
pub(crate) mod segment;
pub(crate) mod source;
mod text_hash;
mod traces;
mod verify;
mod version;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

pub use catalog::is_gallery;
pub use erased::{ErasedList, ErasedPatients, Erasure};
pub use footer::Numbers;
pub use key::Key;
pub use leftovers::{abandon_changes, collect};
pub use refusals::Refusal;
pub use repair::{LostRow, Repair, forget_lost, repair};
pub use source::{Batch, View, ViewVectors};
pub use traces::{Hit, Scanner, Trace};
pub use verify::{Finding, Report, verify};
pub use writer::{ERASING, Setup, Writer, files_of, is_begun};

use erased::ERASED;

use crate::error::{Error, Result};
use crate::names::BODY_PART;
use crate::scan::{AllowedVectors, Calibration, Filter, Kinds};
use crate::statistics::Statistics;
use catalog::{Catalog, Named};
use segment::{Column, Segment, Texts};

/// What made the vectors: only vectors of the same encoder and input config can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maker {
    /// Tells the encoder and its input config from every other.
    pub fingerprint: String,
    /// The model's name, for people.
    pub model: String,
    /// What the network computed with; shown, not compared.
    pub precision: String,
}

/// Where a row lies: segment, and row there. Good for one open gallery only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    pub(crate) segment: u32,
    pub(crate) row: u32,
}

impl RowId {
    /// Makes the row of an address in another collection than a gallery: the part in the upper 32 bits, the row there in the
    /// lower ones.
    #[must_use]
    pub fn of_address(address: u64) -> Self {
        let [segment, row] = [address >> 32, address & u64::from(u32::MAX)];
        Self {
            segment: u32::try_from(segment).unwrap_or(u32::MAX),
            row: u32::try_from(row).unwrap_or(u32::MAX),
        }
    }

    /// Returns the address that the row was made of.
    #[must_use]
    pub fn address(self) -> u64 {
        u64::from(self.segment) << 32 | u64::from(self.row)
    }
}

/// A view that some row has a further vector of: its place in `Gallery::views`. Good for one open gallery only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(pub u32);

/// An open gallery: what it was when it was opened, whatever a writer does meanwhile.
#[derive(Debug)]
pub struct Gallery {
    folder: PathBuf,
    catalog: Catalog,
    segments: Vec<Segment>,
    /// Names of the views of further vectors, in ascending order.
    views: Vec<String>,
    key: Key,
    has_damaged_copy: bool,
    /// Vectors that pass the filters that were used before: of all, and of the rows' own alone.
    allowed: [Mutex<HashMap<Vec<Filter>, Arc<AllowedVectors>>>; Kinds::N],
    /// The file with samples of scores: read when the gallery is opened, because a writer may remove it afterwards.
    statistics_file: Option<Named>,
    /// The samples, parsed when they are first asked for.
    statistics: OnceLock<Statistics>,
    /// The file with images that were refused.
    refusals_file: Option<Named>,
    /// Patients of whom no rows are added.
    erased: ErasedPatients,
}

/// The file that holds the key.
const KEY: &str = "key";
/// The file that a writer holds locked.
const LOCK: &str = "lock";

/// Filters whose rows are kept in memory.
const MAX_KNOWN_FILTERS: usize = 32;

/// How often a reader begins again because a writer took away what it was about to open.
const MAX_ATTEMPTS: usize = 16;

impl Gallery {
    /// Opens the newest state of a gallery; reads descriptions only, not the vectors.
    ///
    /// Every file that the catalog names is opened now, and what a writer removes afterwards stays readable.
    ///
    /// # Errors
    /// `Unsupported` if the folder is no gallery; `Damaged` if a file is missing, does not have its checksum, or is
    /// not the one that the catalog names; `Io`.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let newest = catalog::newest(folder)?;
            let error = match Self::open_once(folder, newest) {
                Err(error) if attempt < MAX_ATTEMPTS => error,
                other => return other.map_err(missing_as_damaged),
            };
            // A writer that ended in between removes what its catalog no longer names.
            if catalog::newest(folder)? == newest {
                return Err(missing_as_damaged(error));
            }
        }
    }

    fn open_once(folder: &Path, newest: Option<u64>) -> Result<Self> {
        let Some(newest) = newest else {
            return Err(Error::Unsupported {
                path: folder.to_owned(),
                found: "no catalog of a gallery".to_owned(),
                wanted: "a folder made by `m3ret index build` is wanted".to_owned(),
            });
        };
        let (catalog, mut has_damaged_copy) = catalog::read(folder, newest)?;
        let key = Key::read(folder, &catalog.key_check)?;
        let mut segments = Vec::with_capacity(catalog.segments.len());
        for entry in &catalog.segments {
            let segment = open_segment(folder, entry, &catalog)?;
            let n_rows = segment.n_rows();
            has_damaged_copy |= segment.has_damaged_copy;
            let dead = match &entry.dead {
                None => None,
                Some(reference) => {
                    let path = reference.path_in(folder, &entry.dead_kind())?;
                    let (dead, is_damaged) = dead::read(&path, n_rows, &reference.digest)?;
                    has_damaged_copy |= is_damaged;
                    Some(dead)
                }
            };
            segments.push(segment.with_dead(dead));
        }
        let named = |reference: &Option<catalog::Reference>, kind: &str| {
            let reference = reference.as_ref();
            reference
                .map(|reference| Named::read(folder, reference, kind))
                .transpose()
        };
        let statistics_file = named(&catalog.statistics, catalog.statistics_kind())?;
        let refusals_file = named(&catalog.refusals, catalog::REFUSALS)?;
        let erased_file = named(&catalog.erased, ERASED)?;
        let files = [&statistics_file, &refusals_file, &erased_file];
        has_damaged_copy |= files.into_iter().flatten().any(|file| file.is_damaged);
        Ok(Self {
            folder: folder.to_owned(),
            views: names_of_views(&segments),
            catalog,
            segments,
            key,
            has_damaged_copy,
            allowed: Default::default(),
            statistics_file,
            statistics: OnceLock::new(),
            refusals_file,
            erased: match erased_file {
                Some(file) => ErasedPatients::new(file.parse::<ErasedList>()?),
                None => ErasedPatients::default(),
            },
        })
    }

    /// Returns the vectors of some kinds that pass some filters, found by `find` the first time.
    pub(crate) fn allowed(
        &self,
        filters: &[Filter],
        kinds: Kinds,
        find: impl FnOnce() -> Result<AllowedVectors>,
    ) -> Result<Arc<AllowedVectors>> {
        let known = &self.allowed[kinds as usize];
        let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(allowed) = lock().get(filters) {
            return Ok(Arc::clone(allowed));
        }
        let allowed = Arc::new(find()?);
        let mut known = lock();
        if known.len() >= MAX_KNOWN_FILTERS {
            known.clear();
        }
        known.insert(filters.to_vec(), Arc::clone(&allowed));
        Ok(allowed)
    }

    /// Returns where the gallery lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the names of the files that this state of the gallery consists of, without its key and lock.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        writer::needed_files(&self.catalog).into_iter().collect()
    }

    /// Returns how many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.iter().map(Segment::n_live).sum()
    }

    /// Says whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the numbers of a vector.
    #[must_use]
    pub fn width(&self) -> usize {
        self.catalog.width
    }

    /// Returns how vectors are stored.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        self.catalog.numbers
    }

    /// Returns what made the vectors.
    #[must_use]
    pub fn maker(&self) -> &Maker {
        &self.catalog.maker
    }

    /// Returns how many changes there were.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.catalog.generation
    }

    /// Returns the number of a gallery's newest state; lists the folder and opens no file. `None` if it is no gallery.
    ///
    /// # Errors
    /// `Io` if the folder cannot be listed.
    pub fn newest_generation(folder: &Path) -> Result<Option<u64>> {
        catalog::newest(folder)
    }

    /// Returns how many files the rows are spread over.
    #[must_use]
    pub fn n_segments(&self) -> usize {
        self.segments.len()
    }

    /// Returns how the gallery is searched, and how good that was when it was measured.
    #[must_use]
    pub fn calibration(&self) -> Option<&Calibration> {
        self.catalog.calibration.as_ref()
    }

    /// Says whether one of two copies of a description is damaged; the other one was good.
    #[must_use]
    pub fn has_damaged_copy(&self) -> bool {
        self.has_damaged_copy
    }

    /// Returns the names of all columns of metadata.
    #[must_use]
    pub fn columns(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self
            .segments
            .iter()
            .flat_map(|segment| &segment.footer().columns)
        {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// Checks that vectors of `fingerprint` can be compared with the gallery's.
    ///
    /// # Errors
    /// `Mismatch` if another encoder made the gallery.
    pub fn check_maker(&self, maker: &Maker) -> Result<()> {
        let own = self.maker();
        if own.fingerprint == maker.fingerprint {
            return Ok(());
        }
        Err(Error::mismatch(
            "encoder",
            format!(
                "{} ({}), which made the gallery",
                own.model, own.fingerprint
            ),
            format!("{} ({})", maker.model, maker.fingerprint),
        ))
    }

    /// Iterates over all rows, segment by segment.
    pub fn rows(&self) -> impl Iterator<Item = RowId> {
        let segments = self.segments.iter().enumerate();
        segments.flat_map(|(idx, segment)| {
            let segment_idx = u32::try_from(idx).unwrap_or(u32::MAX);
            segment.live().map(move |row| RowId {
                segment: segment_idx,
                row,
            })
        })
    }

    /// Iterates over rows that were removed and whose bytes are still in a file.
    pub fn removed_rows(&self) -> impl Iterator<Item = RowId> {
        let segments = (0_u32..).zip(&self.segments);
        segments.flat_map(|(segment_idx, segment)| {
            let n_rows = u32::try_from(segment.n_rows()).unwrap_or(u32::MAX);
            let removed = (0..n_rows).filter(|&row| !segment.is_live(row));
            removed.map(move |row| RowId {
                segment: segment_idx,
                row,
            })
        })
    }

    /// Returns the row with this id.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn find(&self, id: &str) -> Result<Option<RowId>> {
        for (idx, segment) in self.segments.iter().enumerate() {
            if let Some(row) = segment.find(id)?
                && segment.is_live(row)
            {
                let segment = u32::try_from(idx).unwrap_or(u32::MAX);
                return Ok(Some(RowId { segment, row }));
            }
        }
        Ok(None)
    }

    /// Returns the rows whose cell in a column is `value`, in ascending order.
    ///
    /// Whole cells are compared: `a` does not find `a|b`. As with `value`, a row without the column
    /// has an empty cell. A column with at least a quarter as many values as rows is searched in
    /// O(log n) steps; of another, the codes of all rows are compared. Segments of format 1 are
    /// scanned, their values and their codes.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn find_rows(&self, column: &str, value: &str) -> Result<Vec<RowId>> {
        let mut found = Vec::new();
        for (segment_idx, segment) in (0_u32..).zip(&self.segments) {
            let rows = match segment.column(column) {
                Some(column) => segment.find_rows(column, value)?,
                None if value.is_empty() => segment.live().collect(),
                None => Vec::new(),
            };
            found.extend(rows.into_iter().map(|row| RowId {
                segment: segment_idx,
                row,
            }));
        }
        Ok(found)
    }

    /// Returns the different cells of a column in ascending order of bytes: every row has one of
    /// them. An empty one stands for rows of which nothing is known, or without the column.
    ///
    /// Costs a walk over all values, and over the codes of all rows in segments with removed rows.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn values(&self, column: &str) -> Result<Vec<&str>> {
        let mut values = Vec::new();
        for segment in &self.segments {
            match segment.column(column) {
                Some(column) => values.extend(segment.values(column)?),
                None if segment.n_live() > 0 => values.push(""),
                None => {}
            }
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    /// Returns the id of a row.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn id(&self, row: RowId) -> Result<&str> {
        self.segment(row)?.id(row.row)
    }

    /// Returns a row's own vector.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn vector(&self, row: RowId) -> Result<Vec<f32>> {
        self.segment(row)?.vector(row.row)
    }

    /// Returns the names of the views that rows have further vectors of, in ascending order. Views that only removed
    /// rows had stay until `compact`.
    #[must_use]
    pub fn views(&self) -> Vec<&str> {
        self.views.iter().map(String::as_str).collect()
    }

    /// Returns how many vectors there are: one for each row, and further ones.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn n_vectors(&self) -> Result<usize> {
        let counts = self.segments.iter().map(Segment::n_live_vectors);
        counts.sum()
    }

    /// Returns the further vectors of a row, each with the name of its view, in ascending order of names.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn view_vectors(&self, row: RowId) -> Result<Vec<(&str, Vec<f32>)>> {
        let segment = self.segment(row)?;
        let places = segment.vectors_of(row.row)?;
        let further = places.as_slice().iter().skip(1).map(|&place| {
            let name = segment.view_name(segment.view_at(place)?);
            Ok((name, segment.vector_at(place)?))
        });
        further.collect()
    }

    /// Returns the view of the vector at a place of a segment; `None` for a row's own.
    pub(crate) fn view_of(&self, segment: &Segment, place: u32) -> Result<Option<ViewId>> {
        if !segment.has_views() {
            return Ok(None);
        }
        let name = segment.view_name(segment.view_at(place)?);
        let found = self
            .views
            .binary_search_by(|other| other.as_str().cmp(name));
        Ok(found
            .ok()
            .and_then(|place| u32::try_from(place).ok())
            .map(ViewId))
    }

    /// Returns a row's cell in a column; empty where the row or the gallery has none.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn value(&self, row: RowId, column: &str) -> Result<&str> {
        let segment = self.segment(row)?;
        match segment.column(column) {
            Some(column) => segment.value(column, row.row),
            None => Ok(""),
        }
    }

    /// Reads cells of many rows: for each row in their order, one for each column. Where columns lie is asked once for each
    /// segment.
    pub(crate) fn cells(&self, rows: &[RowId], columns: &[&str]) -> Result<Vec<Vec<&str>>> {
        let mut opened: Vec<Option<Vec<Option<Column<'_>>>>> = Vec::new();
        opened.resize_with(self.segments.len(), || None);
        let cells = rows.iter().map(|row| {
            let segment = self.segment(*row)?;
            let opened = &mut opened[row.segment as usize];
            let columns = match opened {
                Some(columns) => columns,
                None => opened.insert(segment.open_columns(columns)?),
            };
            let cells = columns.iter().map(|column| match column {
                Some(column) => column.get(row.row),
                None => Ok(""),
            });
            cells.collect::<Result<Vec<&str>>>()
        });
        cells.collect()
    }

    /// Reads the ids of many rows, in their order.
    pub(crate) fn ids(&self, rows: &[RowId]) -> Result<Vec<&str>> {
        let mut opened: Vec<Option<Texts<'_>>> = Vec::new();
        opened.resize_with(self.segments.len(), || None);
        let ids = rows.iter().map(|row| {
            let segment = self.segment(*row)?;
            let opened = &mut opened[row.segment as usize];
            let ids = match opened {
                Some(ids) => ids,
                None => opened.insert(segment.open_ids()?),
            };
            ids.get_str(row.row as usize)
        });
        ids.collect()
    }

    /// Returns what is attached to a row under a name, e.g. `thumbnail`; empty for nothing.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn attachment(&self, row: RowId, name: &str) -> Result<&[u8]> {
        let segment = self.segment(row)?;
        let kind = segment
            .footer()
            .attachments
            .iter()
            .position(|other| other == name);
        match kind {
            Some(kind) => segment.attachment(kind, row.row),
            None => Ok(&[]),
        }
    }

    /// Returns the names of what may be attached to rows.
    #[must_use]
    pub fn attachments(&self) -> Vec<&str> {
        let all = self
            .segments
            .iter()
            .flat_map(|segment| &segment.footer().attachments);
        let mut names: Vec<&str> = all.map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns the hash under which an identifier of a kind (`patient_id`) is stored; empty for an
    /// empty identifier. Nobody without the gallery's key can make or test it.
    #[must_use]
    pub fn pseudonym(&self, kind: &str, identifier: &str) -> String {
        self.key.pseudonym(kind, identifier)
    }

    /// Returns a hash of some bytes for one purpose, which nobody without the gallery's key can make.
    #[must_use]
    pub fn keyed_digest(&self, purpose: &str, bytes: &[u8]) -> String {
        self.key.keyed_digest(purpose, bytes)
    }

    /// Returns what was measured when the gallery was built; it is read once.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn statistics(&self) -> Result<Option<&Statistics>> {
        let Some(file) = &self.statistics_file else {
            return Ok(None);
        };
        if let Some(statistics) = self.statistics.get() {
            return Ok(Some(statistics));
        }
        let statistics = file.parse()?;
        Ok(Some(self.statistics.get_or_init(|| statistics)))
    }

    /// Says whether nothing was measured although there are rows: it was lost, not taken yet, or taken by an older m3ret.
    /// `m3ret index compact` measures.
    #[must_use]
    pub fn lacks_statistics(&self) -> bool {
        !self.catalog.has_agreements() && !self.is_empty() && self.columns().contains(&BODY_PART)
    }

    /// Returns the images that were refused, and are not to be read again before they change.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn refusals(&self) -> Result<Vec<Refusal>> {
        match &self.refusals_file {
            Some(file) => file.parse(),
            None => Ok(Vec::new()),
        }
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    fn segment(&self, row: RowId) -> Result<&Segment> {
        let segment = self.segments.get(row.segment as usize);
        segment.ok_or_else(|| Error::mismatch("row", "one of this gallery", format!("{row:?}")))
    }
}

/// Returns the names of the views of further vectors, in ascending order.
fn names_of_views(segments: &[Segment]) -> Vec<String> {
    let names = segments.iter().flat_map(|segment| &segment.footer().views);
    let mut names: Vec<String> = names.filter(|name| !name.is_empty()).cloned().collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Makes a file that is missing a fault of the gallery, which repair mends.
fn missing_as_damaged(error: Error) -> Error {
    match error {
        Error::Io { source, path, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::damaged(&path, "it is missing")
        }
        other => other,
    }
}

/// Opens one segment of a catalog and checks that it is the one that is meant.
fn open_segment(folder: &Path, entry: &catalog::Entry, catalog: &Catalog) -> Result<Segment> {
    let path = segment::path_of(folder, entry.id);
    let segment = Segment::open(&path)?;
    let footer = segment.footer();
    let is_meant = format!("{:032x}", segment.digest()) == entry.digest
        && version::of_gallery(footer.version) <= catalog.version
        && footer.id == entry.id
        && footer.n_rows == entry.n_rows
        && footer.width as usize == catalog.width
        && footer.numbers == catalog.numbers
        && footer.maker.fingerprint == catalog.maker.fingerprint;
    if !is_meant {
        return Err(Error::damaged(
            &path,
            "not the segment that the catalog names",
        ));
    }
    Ok(segment)
}
