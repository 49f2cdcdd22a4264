//! Proving that a gallery is as it was written.

use std::collections::HashSet;
use std::path::Path;

use rayon::prelude::*;
use serde::de::DeserializeOwned;

use super::catalog::{self, Catalog, Entry, Named, REFUSALS, Reference};
use super::erased::{ERASED, ErasedList};
use super::footer::MAGIC;
use super::segment::lookup::order_of;
use super::segment::{self, Segment};
use super::writer::{is_ours, needed_files};
use super::{Gallery, KEY, Key, Refusal, dead, open_segment};
use crate::embedding::fault;
use crate::error::{Error, Result};
use crate::quantise::Encoder;
use crate::short::ShortCodes;
use crate::statistics::Statistics;

/// One thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file's name in the gallery.
    pub file: String,
    /// What is wrong with it.
    pub what: String,
    /// Readers still get the right answer, from a second copy.
    pub is_harmless: bool,
}

/// What `verify` found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// Rows that were looked at.
    pub n_rows: usize,
    /// Bytes whose checksums were compared.
    pub n_bytes: u64,
    /// Files that no reader needs: what a writer that was killed left.
    pub leftovers: Vec<String>,
    /// What could not be read now, and may be good: rights, a disk that fails, a link.
    pub unreadable: Vec<String>,
}

impl Report {
    /// Says whether everything is as it was written.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, path: &Path, what: impl Into<String>, is_harmless: bool) {
        self.findings.push(Finding {
            file: name_of(path),
            what: what.into(),
            is_harmless,
        });
    }

    fn find_error(&mut self, path: &Path, error: &Error) {
        let (path, what) = match error {
            Error::Damaged { path, found, .. } => (path.as_path(), found.clone()),
            Error::Io {
                path,
                source,
                action,
            } => (path.as_path(), format!("{action}: {source}")),
            other => (path, other.to_string()),
        };
        if let Error::Io { source, .. } = error
            && source.kind() != std::io::ErrorKind::NotFound
        {
            self.unreadable.push(format!("{}: {what}", name_of(path)));
        }
        self.find(path, what, false);
    }
}

pub(super) fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Reads every byte of a gallery and checks that checksums, vectors, codes, ids, cells and lists
/// agree.
///
/// # Errors
/// `Unsupported` if the folder is no gallery, or a newer m3ret wrote to it; `Io` if it cannot be
/// listed. Damage is no error, but in the report.
pub fn verify(folder: &Path) -> Result<Report> {
    let mut report = Report::default();
    let generations = catalog::generations(folder)?;
    let Some(&newest) = generations.first() else {
        // Says what is wanted.
        return Gallery::open(folder).map(|_| report);
    };
    let catalog = match catalog::read(folder, newest) {
        Ok((catalog, is_damaged)) => {
            if is_damaged {
                let path = catalog::path_of(folder, newest);
                report.find(&path, "one of its two copies is damaged", true);
            }
            catalog
        }
        Err(error @ Error::Unsupported { .. }) => return Err(error),
        Err(error) => {
            report.find_error(&catalog::path_of(folder, newest), &error);
            return Ok(report);
        }
    };
    if let Err(error) = Key::read(folder, &catalog.key_check) {
        report.find_error(&folder.join(KEY), &error);
    }
    let mut ids = HashSet::new();
    for entry in &catalog.segments {
        verify_entry(folder, &catalog, entry, &mut report, &mut ids)?;
    }
    let (statistics, refusals) = (&catalog.statistics, &catalog.refusals);
    verify_named::<Statistics>(folder, (statistics, catalog.statistics_kind()), &mut report);
    verify_named::<Vec<Refusal>>(folder, (refusals, REFUSALS), &mut report);
    verify_named::<ErasedList>(folder, (&catalog.erased, ERASED), &mut report);
    let needed = needed_files(&catalog);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_ours(&name) && !needed.contains(&name) {
            report.leftovers.push(name);
        }
    }
    report.leftovers.sort();
    Ok(report)
}

/// Verifies a file of a kind that the catalog names, and says whether readers can use it.
pub(super) fn verify_named<T: DeserializeOwned>(
    folder: &Path,
    (reference, kind): (&Option<Reference>, &str),
    report: &mut Report,
) -> bool {
    let Some(reference) = reference else {
        return true;
    };
    let named = Named::read(folder, reference, kind);
    match named.and_then(|named| named.parse::<T>().map(|_| named)) {
        Ok(named) if named.is_damaged => {
            report.find(&named.path, "one of its two copies is damaged", true);
            true
        }
        Ok(_) => true,
        Err(error) => {
            report.find_error(&folder.join(&reference.file), &error);
            false
        }
    }
}

/// Verifies one segment and its list of removed rows. Fails for a segment of a newer m3ret only:
/// that is no damage, and nothing must be repaired.
pub(super) fn verify_entry(
    folder: &Path,
    catalog: &Catalog,
    entry: &Entry,
    report: &mut Report,
    ids: &mut HashSet<String>,
) -> Result<()> {
    let path = segment::path_of(folder, entry.id);
    let segment = match open_segment(folder, entry, catalog) {
        Ok(segment) => segment,
        Err(error @ Error::Unsupported { .. }) => return Err(error),
        Err(error) => {
            report.find_error(&path, &error);
            return Ok(());
        }
    };
    if segment.has_damaged_copy {
        report.find(&path, "one of the copies of its end is damaged", true);
    }
    let dead = match entry.dead.as_ref() {
        None => None,
        Some(reference) => match read_dead(folder, entry, reference, segment.n_rows()) {
            Ok((dead, is_damaged)) => {
                if is_damaged {
                    let path = folder.join(&reference.file);
                    report.find(&path, "one of its two copies is damaged", true);
                }
                Some(dead)
            }
            Err(error) => {
                report.find_error(&folder.join(&reference.file), &error);
                None
            }
        },
    };
    let segment = segment.with_dead(dead);
    report.n_rows += segment.n_live();
    report.n_bytes += std::fs::metadata(&path).map_or(0, |status| status.len());
    let blocks = segment.blocks();
    let blocks = (0..blocks.n_blocks())
        .into_par_iter()
        .filter_map(|block| blocks.check(block).err());
    let mut faults: Vec<Error> = blocks.collect();
    if faults.is_empty() {
        faults.extend(check_contents(&segment, ids).err());
    }
    let n_more = faults.len().saturating_sub(8);
    for error in faults.iter().take(8) {
        report.find_error(&path, error);
    }
    if n_more > 0 {
        report.find(&path, format!("{n_more} more blocks like this"), false);
    }
    Ok(())
}

/// Reads the list of a segment's removed rows, and says whether a copy of it is damaged.
pub(super) fn read_dead(
    folder: &Path,
    entry: &Entry,
    reference: &Reference,
    n_rows: usize,
) -> Result<(Vec<u64>, bool)> {
    let path = reference.path_in(folder, &entry.dead_kind())?;
    dead::read(&path, n_rows, &reference.digest)
}

/// Vectors whose codes are computed again at once.
const CHUNK_ROWS: usize = 4096;

/// Checks that arrays with good checksums also agree with each other.
fn check_contents(segment: &Segment, ids: &mut HashSet<String>) -> Result<()> {
    let header = segment.blocks().bytes(0..MAGIC.len() + 4)?;
    if header[..MAGIC.len()] != MAGIC
        || header[MAGIC.len()..] != segment.footer().version.to_le_bytes()
    {
        return Err(Error::damaged(
            segment.path(),
            "it does not begin as a segment of its version",
        ));
    }
    check_ids(segment, ids)?;
    segment.check_views()?;
    for column in 0..segment.columns().len() {
        check_column(segment, column)?;
    }
    for kind in 0..segment.attachments().len() {
        for row in 0..u32::try_from(segment.n_rows()).unwrap_or(u32::MAX) {
            segment.attachment(kind, row)?;
        }
    }
    check_codes(segment)
}

/// Checks that ids are in their order, and that no live one is in a segment before.
fn check_ids(segment: &Segment, ids: &mut HashSet<String>) -> Result<()> {
    let wrong = |what: String| Err(Error::damaged(segment.path(), what));
    let (order, ranks) = (segment.order()?, segment.ranks()?);
    let mut before: Option<&str> = None;
    for (rank, &row) in order.iter().enumerate() {
        let id = segment.id(row)?;
        if before.is_some_and(|before| before >= id)
            || ranks.get(row as usize).copied() != u32::try_from(rank).ok()
        {
            return wrong(format!("the order of ids at {rank}"));
        }
        if segment.is_live(row) && !ids.insert(id.to_owned()) {
            return wrong(format!("the id of row {row} is in another segment too"));
        }
        before = Some(id);
    }
    Ok(())
}

/// Checks that every row has a value, every value is text, and what is sorted is.
fn check_column(segment: &Segment, column: usize) -> Result<()> {
    let wrong = |what: &str| {
        let found = format!("column {column}: {what}");
        Err(Error::damaged(segment.path(), found))
    };
    let (dictionary, cells) = (segment.dictionary(column)?, segment.cells(column)?);
    let n_values = dictionary.len();
    if cells.iter().any(|&code| code as usize >= n_values) {
        return wrong("a cell without a value");
    }
    let mut before: Option<&str> = None;
    for code in 0..n_values {
        let value = dictionary.get_str(code)?;
        if segment.has_sorted_values() && before.is_some_and(|before| before >= value) {
            return wrong("its values are not in ascending order");
        }
        before = Some(value);
    }
    let rows = segment.rows_by_value(column)?;
    if rows.is_some_and(|rows| rows != order_of(cells, n_values)) {
        return wrong("its rows are not in the order of their values");
    }
    Ok(())
}

/// Checks all vectors, and that all codes are those of the vectors.
fn check_codes(segment: &Segment) -> Result<()> {
    let (width, starts) = (segment.width(), segment.starts()?);
    let encoder = Encoder::new(width, segment.centroids()?);
    let short = segment.short()?;
    let mut short_codes = ShortCodes::new(short.map_or(0, |short| short.basis.n_short()));
    for first in (0..segment.n_vectors()).step_by(CHUNK_ROWS) {
        let rows = first..segment.n_vectors().min(first + CHUNK_ROWS);
        let numbers: Vec<u32> = rows
            .clone()
            .map(|row| u32::try_from(row).unwrap_or(0))
            .collect();
        let mut vectors = Vec::new();
        segment.read(&numbers, &mut vectors)?;
        for (row, vector) in rows.clone().zip(vectors.chunks_exact(width)) {
            if let Some(found) = fault(vector) {
                return Err(Error::damaged(
                    segment.path(),
                    format!("vector {row}: {found}"),
                ));
            }
        }
        if let Some(short) = short {
            short_codes.push(&short.basis.project(&vectors));
        }
        let list = |&row: &u32| starts.partition_point(|&start| start <= row) - 1;
        let lists = numbers
            .iter()
            .map(|row| u32::try_from(list(row)).unwrap_or(0));
        let encoded = encoder.encode(&vectors, &lists.collect::<Vec<u32>>());
        let agree = encoded.codes == segment.codes(rows.clone())?
            && encoded.bits == segment.bits(rows.clone())?
            && encoded.terms == segment.terms(rows.clone())?;
        if !agree {
            return Err(Error::damaged(
                segment.path(),
                format!(
                    "codes of vectors {} to {} are not those of their vectors",
                    rows.start, rows.end
                ),
            ));
        }
    }
    if short.is_some() && !segment.has_short_codes(&short_codes)? {
        let found = "short codes are not those of their vectors";
        return Err(Error::damaged(segment.path(), found));
    }
    Ok(())
}
