//! Rebuilding a gallery from what can be proved.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::catalog::{self, Catalog, Entry, Named, REFUSALS, Reference};
use super::erased::{ERASED, ErasedList};
use super::leftovers::{self, Changing};
use super::segment::views::RowVectors;
use super::segment::{self, Chosen, ProvedRow, Segment};
use super::verify::{Report, name_of, read_dead, verify, verify_entry, verify_named};
use super::writer::{lock, put_catalog, put_segment};
use super::{KEY, Key, Refusal, Writer, dead, open_segment, version};
use crate::disk::{Disk as _, RealDisk};
use crate::embedding::fault;
use crate::error::{Error, Result};
use crate::statistics::Statistics;

/// What `repair` did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// What was wrong before.
    pub report: Report,
    /// Files that were moved to the folder `quarantine`.
    pub quarantined: Vec<String>,
    /// Rows that could not be proved and are no longer in the gallery.
    pub n_lost: usize,
    /// Those of them that could be read in part.
    pub lost: Vec<LostRow>,
    /// Ids of rows that are there, and lost some of their further vectors.
    pub incomplete: Vec<String>,
    /// Names of the views that segments with such rows, or with lost ones, had vectors of.
    pub views: Vec<String>,
    /// What else a person must know.
    pub notes: Vec<String>,
    /// Damaged files that stand for nothing once there is a new catalog.
    replaced: Vec<PathBuf>,
}

/// A row that is no longer in the gallery, as far as it could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostRow {
    /// Its id; empty if it could not be read.
    pub id: String,
    /// Whether the id has the checksum that was written with it.
    pub is_id_proved: bool,
    /// Cells by column that have the checksums that were written with them.
    pub proved: Vec<(String, String)>,
    /// The other cells that are not empty, read from damaged bytes: hints where the image may lie, and nothing more.
    pub unproved: Vec<(String, String)>,
}

impl LostRow {
    /// Returns a cell, proved or not; empty if it could not be read.
    #[must_use]
    pub fn cell(&self, column: &str) -> &str {
        let mut cells = self.proved.iter().chain(&self.unproved);
        let cell = cells.find(|(name, _)| name == column);
        cell.map_or("", |(_, value)| value)
    }
}

/// Rebuilds a gallery from what can be proved, and moves damaged files to its folder `quarantine`.
///
/// # Errors
/// `Locked` if a process writes to the gallery; `Io`; `Damaged` if nothing can be rebuilt.
pub fn repair(folder: &Path) -> Result<Repair> {
    let report = verify(folder)?;
    if report.is_good() {
        // Files of a writer or a repair that was killed; those of one that works are its own.
        let _ = leftovers::collect(folder);
        // A repair that was killed before its rows were added again: they are told once more.
        let lost = read_lost(folder)?;
        return Ok(Repair {
            report,
            n_lost: lost.len(),
            lost,
            ..Repair::default()
        });
    }
    check_readable(folder, &report)?;
    let lock = lock(folder)?;
    let changing = Changing::begin(folder);
    // A writer may have ended in between.
    let mut repair = Repair {
        report: verify(folder)?,
        ..Repair::default()
    };
    check_readable(folder, &repair.report)?;
    check_quarantine(folder)?;
    let mut catalog = catalog_to_repair(folder, &mut repair)?;
    if Key::read(folder, &catalog.key_check).is_err() {
        quarantine(folder, &folder.join(KEY), &mut repair)?;
        let key = Key::new().map_err(Error::io("asking for random numbers for", folder))?;
        super::writer::write_key(&RealDisk, folder, &key)?;
        catalog.key_check = key.check();
        repair.notes.push(
            "the key was lost: patients, studies and series of rows added from now on are not \
             recognised as those of older rows; build the gallery again to mend that"
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
    keep_lost(folder, &repair.lost)?;
    RealDisk
        .sync_folder(folder)
        .map_err(Error::io("syncing", folder))?;
    catalog.generation += 1;
    put_catalog(&RealDisk, folder, &catalog)?;
    // Only now: until the new catalog is there, another repair needs what the old one names.
    for path in std::mem::take(&mut repair.replaced) {
        quarantine(folder, &path, &mut repair)?;
    }
    drop((changing, lock));
    let _ = leftovers::collect(folder);
    if catalog.calibration.is_none() {
        measure_again(folder, &mut repair)?;
    }
    Ok(repair)
}

/// Keeps the good ones of the files that the catalog names; of others, both copies are damaged.
fn repair_named(folder: &Path, catalog: &mut Catalog, repair: &mut Repair) -> Result<()> {
    let mut unread = Report::default();
    let kind = catalog.statistics_kind();
    let before = [
        (catalog.statistics.clone(), kind),
        (catalog.refusals.clone(), REFUSALS),
        (catalog.erased.clone(), ERASED),
    ];
    if !verify_named::<Statistics>(folder, (&catalog.statistics, kind), &mut unread) {
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
    if !verify_named::<ErasedList>(folder, (&catalog.erased, ERASED), &mut unread) {
        catalog.erased = None;
        repair.notes.push(
            "the list of erased patients was lost: rows of theirs are no longer refused; run `m3ret erase` for each of \
             them again"
                .to_owned(),
        );
    }
    let kept = [&catalog.statistics, &catalog.refusals, &catalog.erased];
    for (reference, kind) in before {
        let Some(reference) = reference else { continue };
        let is_kept = kept.iter().any(|kept| kept.as_ref() == Some(&reference));
        match reference.path_in(folder, kind) {
            Ok(_) if is_kept => Named::read(folder, &reference, kind)?.mend(&RealDisk)?,
            Ok(path) => repair.replaced.push(path),
            // It names a file that is not the gallery's to move.
            Err(_) => {}
        }
    }
    Ok(())
}

/// Measures again how often first hits agree.
fn measure_again(folder: &Path, repair: &mut Repair) -> Result<()> {
    let mut writer = Writer::open(folder)?;
    if writer.gallery().is_empty() {
        return Ok(());
    }
    writer.calibrate()?;
    repair
        .notes
        .push("how often first hits agree is measured again on the rows that are there".to_owned());
    Ok(())
}

/// Refuses to repair what cannot be read now: it may be good, and would be taken out of the gallery.
fn check_readable(folder: &Path, report: &Report) -> Result<()> {
    if report.unreadable.is_empty() {
        return Ok(());
    }
    Err(Error::Unsupported {
        path: folder.to_owned(),
        found: format!(
            "files that cannot be read now ({})",
            report.unreadable.join("; ")
        ),
        wanted: "files that this user can read, on a disk that works; nothing was changed"
            .to_owned(),
    })
}

/// Refuses a link or file in the place of the folder of damaged files: it would lead them out of the gallery.
fn check_quarantine(folder: &Path) -> Result<PathBuf> {
    let place = folder.join("quarantine");
    match std::fs::symlink_metadata(&place) {
        Ok(status) if !status.is_dir() => Err(Error::damaged(&place, "it is no folder")),
        _ => Ok(place),
    }
}

fn make_quarantine(folder: &Path) -> Result<PathBuf> {
    let place = check_quarantine(folder)?;
    match std::fs::create_dir(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::io("making", &place)(error))
        }
        _ => Ok(place),
    }
}

/// The rows that a repair lost, until `forget_lost`, so that a repair that is killed can be repeated.
const LOST: &str = "lost-rows.json";

fn keep_lost(folder: &Path, lost: &[LostRow]) -> Result<()> {
    if lost.is_empty() {
        return Ok(());
    }
    let path = make_quarantine(folder)?.join(LOST);
    let bytes = catalog::to_copies(&lost).map_err(Error::io("writing", &path))?;
    catalog::put(&RealDisk, &path, &bytes)
}

fn read_lost(folder: &Path) -> Result<Vec<LostRow>> {
    let path = folder.join("quarantine").join(LOST);
    match std::fs::symlink_metadata(&path) {
        Err(_) => Ok(Vec::new()),
        Ok(_) => catalog::read_copies(&path),
    }
}

/// Forgets the rows that a repair lost: they were added again, or told.
///
/// # Errors
/// `Io` if the list cannot be removed.
pub fn forget_lost(folder: &Path) -> Result<()> {
    let path = folder.join("quarantine").join(LOST);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("removing", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Moves a file out of the way; nothing is deleted.
fn quarantine(folder: &Path, path: &Path, repair: &mut Repair) -> Result<()> {
    let place = make_quarantine(folder)?;
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
    repair.replaced.push(catalog::path_of(folder, newest));
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
        version: version::of_gallery(versions.max().unwrap_or(version::ONE_VECTOR)),
        generation: newest,
        maker: first.footer().maker.clone(),
        width: first.width(),
        numbers: first.footer().numbers,
        key_check: Key::of_folder(folder)
            .map(|key| key.check())
            .unwrap_or_default(),
        next_segment: segments.iter().map(|s| s.footer().id).max().unwrap_or(0) + 1,
        segments: entries.collect(),
        calibration: None,
        statistics: None,
        refusals: None,
        erased: newest_erased(folder),
    })
}

/// Finds the newest good list of erased patients.
fn newest_erased(folder: &Path) -> Option<Reference> {
    let names = std::fs::read_dir(folder).ok()?.flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| name.starts_with(ERASED) && name.ends_with(".json"))
        .collect();
    names.sort();
    names.into_iter().rev().find_map(|file| {
        let list: ErasedList = catalog::read_copies(&folder.join(&file)).ok()?;
        Reference::of(file, &list).ok()
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
        let n_live = n_rows
            .min(u32::MAX as usize)
            .saturating_sub(n_dead as usize);
        repair.n_lost = repair.n_lost.saturating_add(n_live);
        repair.replaced.push(path);
        return Ok(None);
    };
    let segment = segment.with_dead(dead);
    let (provable, lost) = prove_all(&segment, repair, ids);
    repair.n_lost += lost.len();
    let unchecked = Segment::open(&path)?;
    unchecked.blocks().trust_all();
    let lost = lost.into_iter();
    repair
        .lost
        .extend(lost.map(|row| lost_row(&segment, &unchecked, row)));
    let rebuilt = match provable.len() {
        0 => None,
        _ => {
            let source = Chosen::lenient(&segment, &provable);
            let replaces = vec![entry.id];
            Some(put_segment(&RealDisk, folder, catalog, &source, replaces)?)
        }
    };
    repair.replaced.push(path);
    let dead = entry.dead.as_ref();
    let dead = dead.and_then(|reference| reference.path_in(folder, &entry.dead_kind()).ok());
    repair.replaced.extend(dead);
    Ok(rebuilt)
}

/// Divides the rows of a segment into those that can be proved and those that cannot; tells how many further vectors
/// were lost of the first.
fn prove_all(
    segment: &Segment,
    repair: &mut Repair,
    ids: &mut HashSet<String>,
) -> (Vec<ProvedRow>, Vec<u32>) {
    let (mut provable, mut lost) = (Vec::new(), Vec::new());
    let n_before = repair.incomplete.len();
    let mut n_vectors_less = 0;
    let all = segment.provable_vectors();
    for row in segment.live() {
        let vectors = &all[row as usize];
        match prove(segment, row, vectors) {
            Ok((id, proved)) if ids.insert(id.to_owned()) => {
                let n_less = vectors.n_further.saturating_sub(proved.further.len());
                n_vectors_less += n_less;
                if n_less > 0 {
                    repair.incomplete.push(id.to_owned());
                }
                provable.push(proved);
            }
            _ => lost.push(row),
        }
    }
    let views = segment.footer().views.iter();
    let further = views.filter(|view| !view.is_empty());
    repair.views.extend(further.cloned());
    let n_rows_less = repair.incomplete.len() - n_before;
    if n_vectors_less > 0 {
        repair.notes.push(format!(
            "{n_vectors_less} further vectors of {n_rows_less} rows could not be proved"
        ));
    }
    (provable, lost)
}

/// Reads everything that makes up a row but what is attached to it; returns its id and what is left of its vectors.
fn prove<'s>(segment: &'s Segment, row: u32, vectors: &RowVectors) -> Result<(&'s str, ProvedRow)> {
    let check = |place: u32| match fault(&segment.vector_at(place)?) {
        Some(found) => Err(Error::damaged(segment.path(), found)),
        None => Ok(()),
    };
    let Some(own) = vectors.own else {
        return Err(Error::damaged(segment.path(), "a row without its vector"));
    };
    check(own)?;
    for column in 0..segment.columns().len() {
        segment.value(column, row)?;
    }
    let further = vectors.further.iter().copied();
    let proved = ProvedRow {
        row,
        own,
        further: further.filter(|&(_, place)| check(place).is_ok()).collect(),
    };
    Ok((segment.id(row)?, proved))
}

/// Reads what there is of a row that cannot be proved.
fn lost_row(checked: &Segment, unchecked: &Segment, row: u32) -> LostRow {
    let id = checked.id(row);
    let mut lost = LostRow {
        is_id_proved: id.is_ok(),
        id: id
            .or_else(|_| unchecked.id(row))
            .unwrap_or_default()
            .to_owned(),
        ..LostRow::default()
    };
    for (column, name) in checked.columns().iter().enumerate() {
        if let Ok(value) = checked.value(column, row) {
            lost.proved.push((name.clone(), value.to_owned()));
        } else {
            let value = unchecked.value(column, row).unwrap_or_default();
            if !value.is_empty() {
                lost.unproved.push((name.clone(), value.to_owned()));
            }
        }
    }
    lost
}
