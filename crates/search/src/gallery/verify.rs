//! Proving that a gallery is as it was written, and rebuilding what can be proved.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::de::DeserializeOwned;

use super::catalog::{self, Catalog, Entry, Named, REFUSALS, Reference, STATISTICS};
use super::footer::MAGIC;
use super::segment::lookup::order_of;
use super::segment::{self, Chosen, Segment};
use super::source::Source as _;
use super::writer::{is_ours, lock, needed_files, put_catalog, put_segment};
use super::{Gallery, KEY, Key, Refusal, Writer, dead, open_segment, version};
use crate::disk::{Disk as _, RealDisk};
use crate::embedding::fault;
use crate::error::{Error, Result};
use crate::quantise::Encoder;
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
}

/// What `repair` did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// What was wrong before.
    pub report: Report,
    /// Files that were moved to the folder `quarantine`.
    pub quarantined: Vec<String>,
    /// Rows that could not be proved and are no longer in the gallery.
    pub n_lost: usize,
    /// Ids of those of them whose id could be read.
    pub lost: Vec<String>,
    /// What else a person must know.
    pub notes: Vec<String>,
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
            Error::Damaged { path, found } => (path.as_path(), found.clone()),
            Error::Io {
                path,
                source,
                action,
            } => (path.as_path(), format!("{action}: {source}")),
            other => (path, other.to_string()),
        };
        self.find(path, what, false);
    }
}

fn name_of(path: &Path) -> String {
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
    verify_named::<Statistics>(folder, (statistics, STATISTICS), &mut report);
    verify_named::<Vec<Refusal>>(folder, (refusals, REFUSALS), &mut report);
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
fn verify_named<T: DeserializeOwned>(
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
fn verify_entry(
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
fn read_dead(
    folder: &Path,
    entry: &Entry,
    reference: &Reference,
    n_rows: usize,
) -> Result<(Vec<u64>, bool)> {
    let path = reference.path_in(folder, &entry.dead_kind())?;
    dead::read(&path, n_rows, &reference.digest)
}

/// Rows whose codes are computed again at once.
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

/// Checks vectors, and that all codes are those of the vectors.
fn check_codes(segment: &Segment) -> Result<()> {
    let (width, starts) = (segment.width(), segment.starts()?);
    let encoder = Encoder::new(width, segment.centroids()?);
    for first in (0..segment.n_rows()).step_by(CHUNK_ROWS) {
        let rows = first..segment.n_rows().min(first + CHUNK_ROWS);
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
                    "codes of rows {} to {} are not those of their vectors",
                    rows.start, rows.end
                ),
            ));
        }
    }
    Ok(())
}

/// Rebuilds a gallery from what can be proved, and moves damaged files to its folder `quarantine`.
///
/// # Errors
/// `Locked` if a process writes to the gallery; `Io`; `Damaged` if nothing can be rebuilt.
pub fn repair(folder: &Path) -> Result<Repair> {
    let report = verify(folder)?;
    if report.is_good() {
        return Ok(Repair {
            report,
            ..Repair::default()
        });
    }
    let lock = lock(folder)?;
    // A writer may have ended in between.
    let mut repair = Repair {
        report: verify(folder)?,
        ..Repair::default()
    };
    let mut catalog = catalog_to_repair(folder, &mut repair)?;
    if Key::read(folder, &catalog.key_check).is_err() {
        quarantine(folder, &folder.join(KEY), &mut repair)?;
        let key = Key::new().map_err(Error::io("asking for random numbers for", folder))?;
        super::writer::write_key(&RealDisk, folder, &key)?;
        catalog.key_check = key.check();
        repair.notes.push(
            "the key was lost: patients, studies and series of rows added from now on are not \
             recognised as those of older rows; build the gallery anew to mend that"
                .to_owned(),
        );
    }
    let mut ids = HashSet::new();
    let mut kept = Vec::new();
    for entry in std::mem::take(&mut catalog.segments) {
        kept.extend(repair_segment(
            folder,
            &mut catalog,
            entry,
            &mut repair,
            &mut ids,
        )?);
    }
    catalog.segments = kept;
    repair_named(folder, &mut catalog, &mut repair)?;
    RealDisk
        .sync_folder(folder)
        .map_err(Error::io("syncing", folder))?;
    catalog.generation += 1;
    put_catalog(&RealDisk, folder, &catalog)?;
    drop(lock);
    if catalog.statistics.is_none() {
        measure_again(folder, &mut repair)?;
    }
    Ok(repair)
}

/// Keeps the good ones of the files that the catalog names; of others, both copies are damaged.
fn repair_named(folder: &Path, catalog: &mut Catalog, repair: &mut Repair) -> Result<()> {
    let mut unread = Report::default();
    let before = [
        (catalog.statistics.clone(), STATISTICS),
        (catalog.refusals.clone(), REFUSALS),
    ];
    let before = before
        .into_iter()
        .filter_map(|(reference, kind)| Some((reference?, kind)));
    if !verify_named::<Statistics>(folder, (&catalog.statistics, STATISTICS), &mut unread) {
        // Both are made together.
        (catalog.statistics, catalog.calibration) = (None, None);
    }
    if !verify_named::<Vec<Refusal>>(folder, (&catalog.refusals, REFUSALS), &mut unread) {
        catalog.refusals = None;
        repair.notes.push(
            "the list of refused images was lost: they are read again with the next search or \
             `m3ret index add`"
                .to_owned(),
        );
    }
    for (reference, kind) in before {
        let path = reference.path_in(folder, kind);
        let is_kept = [&catalog.statistics, &catalog.refusals]
            .into_iter()
            .any(|kept| kept.as_ref() == Some(&reference));
        match path {
            Ok(_) if is_kept => Named::read(folder, &reference, kind)?.mend(&RealDisk)?,
            Ok(path) => quarantine(folder, &path, repair)?,
            // It names a file that is not the gallery's to move.
            Err(_) => {}
        }
    }
    Ok(())
}

/// Takes samples of scores again, which percentiles and confidence need.
fn measure_again(folder: &Path, repair: &mut Repair) -> Result<()> {
    let mut writer = Writer::open(folder)?;
    if writer.gallery().is_empty() {
        return Ok(());
    }
    writer.calibrate()?;
    repair.notes.push(
        "percentiles and the confidence of matches are measured again on the rows that are there"
            .to_owned(),
    );
    Ok(())
}

/// Moves a file out of the way; nothing is deleted.
fn quarantine(folder: &Path, path: &Path, repair: &mut Repair) -> Result<()> {
    let place = folder.join("quarantine");
    match std::fs::symlink_metadata(&place) {
        Ok(status) if status.is_dir() => {}
        // A link would lead files out of the gallery.
        Ok(_) => return Err(Error::damaged(&place, "it is no folder")),
        Err(_) => std::fs::create_dir(&place).map_err(Error::io("making", &place))?,
    }
    let name = name_of(path);
    let free = (0..).map(|n| match n {
        0 => place.join(&name),
        n => place.join(format!("{name}.{n}")),
    });
    let mut free = free.filter(|path| !path.exists());
    let target = free.next().unwrap_or_else(|| place.join(&name));
    match std::fs::rename(path, &target) {
        Ok(()) => repair.quarantined.push(name),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("moving to quarantine", path)(error)),
    }
    Ok(())
}

/// Returns the newest catalog, or one made of the segments that lie there.
fn catalog_to_repair(folder: &Path, repair: &mut Repair) -> Result<Catalog> {
    let generations = catalog::generations(folder)?;
    let newest = generations.first().copied().unwrap_or(0);
    match catalog::read(folder, newest) {
        Ok((catalog, _)) => return Ok(catalog),
        Err(error @ Error::Unsupported { .. }) => return Err(error),
        Err(_) => {}
    }
    let segments = segments_there(folder)?;
    quarantine(folder, &catalog::path_of(folder, newest), repair)?;
    let replaced: HashSet<u64> = segments
        .iter()
        .flat_map(|s| s.footer().replaces.clone())
        .collect();
    let counted = segments
        .iter()
        .filter(|segment| !replaced.contains(&segment.footer().id));
    let counted: Vec<&Segment> = counted.collect();
    let Some(first) = counted.first() else {
        let path = catalog::path_of(folder, newest);
        return Err(Error::damaged(
            &path,
            "and there is no whole segment to make another of",
        ));
    };
    repair.notes.push(
        "the catalog was lost and made anew of the segments: rows that were being added, or were \
         removed, may be back"
            .to_owned(),
    );
    let entries = counted.iter().map(|segment| Entry {
        id: segment.footer().id,
        n_rows: segment.footer().n_rows,
        digest: format!("{:032x}", segment.digest()),
        dead: newest_dead(folder, segment),
    });
    let versions = counted.iter().map(|segment| segment.footer().version);
    Ok(Catalog {
        version: versions.max().unwrap_or(version::NEWEST),
        generation: newest,
        maker: first.footer().maker.clone(),
        width: first.width(),
        numbers: first.footer().numbers,
        key_check: Key::of_file(folder)
            .map(|key| key.check())
            .unwrap_or_default(),
        next_segment: segments.iter().map(|s| s.footer().id).max().unwrap_or(0) + 1,
        segments: entries.collect(),
        calibration: None,
        statistics: None,
        refusals: None,
    })
}

/// Opens every segment file of a folder that can be opened, in the order of their numbers. Fails
/// if a newer m3ret wrote one of them.
fn segments_there(folder: &Path) -> Result<Vec<Segment>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("listing", folder))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "m3s"))
        .collect();
    paths.sort();
    let mut segments = Vec::with_capacity(paths.len());
    for path in &paths {
        match Segment::open(path) {
            // A copy under another name would count twice.
            Ok(segment) if *path == segment::path_of(folder, segment.footer().id) => {
                segments.push(segment);
            }
            Ok(_) => {}
            Err(error @ Error::Unsupported { .. }) => return Err(error),
            // It is damaged, and stays where it is.
            Err(_) => {}
        }
    }
    Ok(segments)
}

/// Finds the newest good list of a segment's removed rows.
fn newest_dead(folder: &Path, segment: &Segment) -> Option<Reference> {
    let start = format!("dead-{:016x}-", segment.footer().id);
    let names = std::fs::read_dir(folder).ok()?.flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| name.starts_with(&start) && name.ends_with(".bits"))
        .collect();
    names.sort();
    names.into_iter().rev().find_map(|file| {
        let digest = dead::digest_of(&folder.join(&file), segment.n_rows())?;
        Some(Reference { file, digest })
    })
}

/// Keeps a good segment, or writes a new one of the rows of a damaged one that can be proved.
fn repair_segment(
    folder: &Path,
    catalog: &mut Catalog,
    entry: Entry,
    repair: &mut Repair,
    ids: &mut HashSet<String>,
) -> Result<Option<Entry>> {
    let mut report = Report::default();
    let mut seen = ids.clone();
    verify_entry(folder, catalog, &entry, &mut report, &mut seen)?;
    if report.is_good() {
        *ids = seen;
        return Ok(Some(entry));
    }
    let path = segment::path_of(folder, entry.id);
    let segment = open_segment(folder, &entry, catalog);
    let n_rows = usize::try_from(entry.n_rows).unwrap_or(usize::MAX);
    let dead = entry.dead.as_ref().and_then(|reference| {
        let read = read_dead(folder, &entry, reference, n_rows);
        if read.is_err() {
            repair.notes.push(format!(
                "the list {} of removed rows was lost: rows that it removed are back",
                reference.file
            ));
        }
        read.ok().map(|(words, _)| words)
    });
    let Ok(segment) = segment else {
        let n_dead: u32 = dead.iter().flatten().map(|word| word.count_ones()).sum();
        repair.n_lost += n_rows - n_dead as usize;
        quarantine(folder, &path, repair)?;
        return Ok(None);
    };
    let segment = segment.with_dead(dead);
    let mut provable = Vec::new();
    for row in segment.live() {
        match prove(&segment, row) {
            Ok(id) if ids.insert(id.to_owned()) => provable.push(row),
            _ => {
                repair.n_lost += 1;
                repair.lost.extend(segment.id(row).ok().map(str::to_owned));
            }
        }
    }
    let rebuilt = match provable.len() {
        0 => None,
        _ => {
            let source = Chosen::lenient(&segment, provable);
            let replaces = vec![entry.id];
            Some(put_segment(&RealDisk, folder, catalog, &source, replaces)?)
        }
    };
    quarantine(folder, &path, repair)?;
    let dead = entry.dead.as_ref();
    let dead = dead.and_then(|reference| reference.path_in(folder, &entry.dead_kind()).ok());
    if let Some(path) = dead {
        quarantine(folder, &path, repair)?;
    }
    Ok(rebuilt)
}

/// Reads everything that makes up a row but what is attached to it, and returns its id.
fn prove(segment: &Segment, row: u32) -> Result<&str> {
    let vector = segment.vector(row)?;
    if let Some(found) = fault(&vector) {
        return Err(Error::damaged(segment.path(), found));
    }
    for column in 0..segment.columns().len() {
        segment.value(column, row)?;
    }
    segment.id(row)
}
