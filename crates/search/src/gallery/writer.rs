//! The one writer of a gallery.
//!
//! Every change is new files, then a new catalog beside the old one: whenever the power goes, the
//! newest catalog names only files that are complete and on disk. A change that returned is in it.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::catalog::{self, Catalog, Entry, Reference};
use super::erased::ERASED;
use super::footer::Numbers;
use super::leftovers::Changing;
use super::segment::write::{Heading, write};
use super::segment::{self, Chosen};
use super::source::{Batch, Joined, NewRows, Source};
use super::text_hash::TextHashes;
use super::{Gallery, KEY, Key, LOCK, Maker, Refusal, dead, refusals, version};
use crate::disk::{Disk, DiskFile as _, RealDisk, mode_below, open_regular_as, unfinished_name};
use crate::embedding::{MAX_WIDTH, check_unit};
use crate::error::{Error, Result};
use crate::scan::{Calibration, calibrate};
use crate::statistics::Statistics;

/// What a new gallery is for.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What makes the vectors.
    pub maker: Maker,
    /// Numbers of a vector.
    pub width: usize,
    /// How they are stored.
    pub numbers: Numbers,
}

/// Changes a gallery; there is at most one at a time, and readers go on meanwhile.
#[derive(Debug)]
pub struct Writer<D: Disk = RealDisk> {
    disk: D,
    gallery: Gallery,
    /// Taken off the list before the lock is given back.
    _changing: Changing,
    _lock: File,
}

impl Writer<RealDisk> {
    /// Makes an empty gallery in a new folder.
    ///
    /// # Errors
    /// `Mismatch` if something else lies there already, or the width is 0 or above 65,536; `Io`.
    pub fn create(folder: &Path, setup: Setup) -> Result<Self> {
        Self::create_on(RealDisk, folder, setup)
    }

    /// As `create`, with the key of another gallery or lake: identifiers have the same hashes in both.
    ///
    /// # Errors
    /// As `create`.
    pub fn create_with(folder: &Path, setup: Setup, key: &Key) -> Result<Self> {
        Self::make(RealDisk, folder, setup, Some(key))
    }

    /// Opens a gallery for changes.
    ///
    /// # Errors
    /// `Locked` if another process writes to it; as `Gallery::open`.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_on(RealDisk, folder)
    }
}

impl<D: Disk> Writer<D> {
    /// As `create`, on a disk of the caller's.
    ///
    /// # Errors
    /// As `create`.
    pub fn create_on(disk: D, folder: &Path, setup: Setup) -> Result<Self> {
        Self::make(disk, folder, setup, None)
    }

    fn make(disk: D, folder: &Path, setup: Setup, key: Option<&Key>) -> Result<Self> {
        if setup.width == 0 || setup.width > MAX_WIDTH {
            return Err(Error::mismatch(
                "numbers of a vector",
                format!("1 to {MAX_WIDTH}"),
                setup.width.to_string(),
            ));
        }
        match std::fs::create_dir(folder) {
            Err(_) if is_begun(folder) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(occupied(folder));
            }
            made => made.map_err(Error::io("making", folder))?,
        }
        let Begun {
            gallery,
            changing,
            lock,
        } = create_begun(&disk, folder, setup, key)?;
        Ok(Self {
            disk,
            gallery,
            _changing: changing,
            _lock: lock,
        })
    }

    /// As `open`, on a disk of the caller's.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_on(disk: D, folder: &Path) -> Result<Self> {
        // No lock is made in a folder that is no gallery.
        Gallery::open(folder)?;
        let lock = lock(folder)?;
        let changing = Changing::begin(folder);
        // Another writer may have ended in between.
        let gallery = Gallery::open(folder)?;
        let mut writer = Self {
            disk,
            gallery,
            _changing: changing,
            _lock: lock,
        };
        writer.remove_leftovers();
        Ok(writer)
    }

    /// Returns the gallery as it is after the last change.
    #[must_use]
    pub fn gallery(&self) -> &Gallery {
        &self.gallery
    }

    /// Adds rows; when this returns, they survive a power cut. All of them are added, or none.
    ///
    /// # Errors
    /// `Mismatch` if the parts of the batch differ in length, a vector is not a unit vector, an id is empty, comes
    /// twice or is in the gallery already, or a further vector is of a row or view that the batch lacks, or of the
    /// row and view of another; `Erased` for rows of patients who were erased; `LimitExceeded` for thousands of views;
    /// `Io`; `Damaged`.
    pub fn add(&mut self, batch: Batch<'_>) -> Result<()> {
        self.replace(batch, &[])
    }

    /// Removes rows and adds others, as one change.
    ///
    /// # Errors
    /// As `add` and `remove`.
    pub fn replace(&mut self, batch: Batch<'_>, removed: &[String]) -> Result<()> {
        let width = self.gallery.width();
        let n_rows = batch.check(width)?;
        check_unit(batch.vectors, width)?;
        self.check_erased(batch.columns)?;
        let mut catalog = self.gallery.catalog.clone();
        let mut dead = self.dead_after(removed)?;
        self.check_ids(batch.ids, removed)?;
        if n_rows > 0 {
            let rows = NewRows::new(batch, width);
            self.add_segment(&mut catalog, &mut dead, &rows)?;
        } else if removed.is_empty() {
            return Ok(());
        }
        self.write_dead(&mut catalog, &dead)?;
        self.commit(catalog)
    }

    /// Removes rows by id. Their data leaves the disk with the next `compact`.
    ///
    /// # Errors
    /// `Mismatch` if an id is not in the gallery; nothing is removed then. `Io`; `Damaged`.
    pub fn remove(&mut self, ids: &[String]) -> Result<()> {
        self.replace(Batch::default(), ids)
    }

    /// Writes all rows anew into one segment without those that were removed, and measures how to
    /// search it.
    ///
    /// # Errors
    /// `Io`; `Damaged`.
    pub fn compact(&mut self) -> Result<()> {
        let mut catalog = self.gallery.catalog.clone();
        let is_compact = matches!(&catalog.segments[..], [] | [Entry { dead: None, .. }]);
        if is_compact && catalog.calibration.is_some() {
            return Ok(());
        }
        if !is_compact {
            let all = 0..self.gallery.segments.len();
            let live = self.gallery.segments.iter().map(Chosen::live);
            let live: Vec<Chosen<'_>> = live.collect::<Result<_>>()?;
            let parts = live.iter().map(|part| part as &dyn Source).collect();
            let joined = Joined::new(parts);
            let replaces = all.map(|idx| catalog.segments[idx].id).collect();
            // All segments go, so their versions no longer count.
            catalog.version = catalog.version.min(version::ONE_VECTOR);
            let entry = match joined.n_rows() {
                0 => None,
                _ => {
                    let (disk, folder) = (&self.disk, &self.gallery.folder);
                    Some(put_segment(disk, folder, &mut catalog, &joined, replaces)?)
                }
            };
            catalog.segments = entry.into_iter().collect();
            // Both are of the rows that were there before.
            (catalog.calibration, catalog.statistics) = (None, None);
            self.commit(catalog)?;
        }
        self.calibrate()
    }

    /// Measures how deep the quantised pass must look, and how often first hits agree.
    ///
    /// # Errors
    /// `Io`; `Damaged`.
    pub fn calibrate(&mut self) -> Result<()> {
        if self.gallery.is_empty() {
            return Ok(());
        }
        let calibration = calibrate(&self.gallery)?;
        let statistics = Statistics::measure(&self.gallery)?;
        let mut catalog = self.gallery.catalog.clone();
        let name = format!("{AGREEMENTS}{:016x}.json", catalog.generation + 1);
        let folder = &self.gallery.folder;
        catalog.calibration = Some(calibration);
        catalog.statistics = match statistics.agreements.is_empty() {
            true => None,
            false => Some(Reference::put(&self.disk, folder, name, &statistics)?),
        };
        self.commit(catalog)
    }

    /// Keeps the images that were refused, in place of those that were kept before. Far too many are kept in part.
    ///
    /// # Errors
    /// `Io`; `Damaged`.
    pub fn keep_refusals(&mut self, all: &[Refusal]) -> Result<()> {
        let kept = refusals::kept(all);
        if kept == self.gallery.refusals()? {
            return Ok(());
        }
        let mut catalog = self.gallery.catalog.clone();
        catalog.refusals = self.put_refusals(&catalog, kept)?;
        self.commit(catalog)
    }

    /// Writes the images that were refused for the catalog after `catalog`.
    pub(super) fn put_refusals(
        &self,
        catalog: &Catalog,
        kept: &[Refusal],
    ) -> Result<Option<Reference>> {
        let name = format!("{}{:016x}.json", catalog::REFUSALS, catalog.generation + 1);
        match kept {
            [] => Ok(None),
            _ => Reference::put(&self.disk, &self.gallery.folder, name, &kept).map(Some),
        }
    }

    pub(super) fn disk(&self) -> &D {
        &self.disk
    }

    /// Says whether so much has changed since `calibrate` that its measurements are of another
    /// gallery: more than a fifth of the rows, or that an older m3ret took them.
    #[must_use]
    pub fn is_calibration_old(&self) -> bool {
        let n_rows = self.gallery.len();
        match &self.gallery.catalog.calibration {
            Some(_) if self.gallery.lacks_statistics() => true,
            Some(calibration) => calibration.n_rows.abs_diff(n_rows) * 5 > n_rows,
            None => n_rows > 0,
        }
    }

    fn check_ids(&self, ids: &[String], removed: &[String]) -> Result<()> {
        let removed: HashSet<&String> = removed.iter().collect();
        let mut seen = HashSet::with_capacity_and_hasher(ids.len(), TextHashes::new());
        for (row, id) in ids.iter().enumerate() {
            let fault = if id.is_empty() {
                "an empty id"
            } else if !seen.insert(id) {
                "an id that came before"
            } else if !removed.contains(id) && self.gallery.find(id)?.is_some() {
                "an id that is in the gallery already; remove it first"
            } else {
                continue;
            };
            return Err(Error::mismatch(
                format!("id of row {row} (from 0)"),
                "a new one",
                fault,
            ));
        }
        Ok(())
    }

    /// Returns the removed rows of each segment as they will be.
    pub(super) fn dead_after(&self, removed: &[String]) -> Result<BTreeMap<u64, Vec<u64>>> {
        let mut dead = BTreeMap::new();
        for (entry, segment) in self
            .gallery
            .catalog
            .segments
            .iter()
            .zip(&self.gallery.segments)
        {
            if let Some(words) = segment.dead_rows() {
                dead.insert(entry.id, words.clone());
            }
        }
        for (idx, id) in removed.iter().enumerate() {
            let Some(place) = self.gallery.find(id)? else {
                return Err(Error::mismatch(
                    format!("id {} to remove (from 0)", idx),
                    "one of the gallery's",
                    "one that is not in it",
                ));
            };
            let entry = &self.gallery.catalog.segments[place.segment as usize];
            let n_words = usize::try_from(entry.n_rows)
                .unwrap_or(usize::MAX)
                .div_ceil(64);
            let words = dead.entry(entry.id).or_insert_with(|| vec![0; n_words]);
            words[place.row as usize / 64] |= 1 << (place.row % 64);
        }
        Ok(dead)
    }

    /// Writes new rows as a segment, together with the segments before it that have no more rows
    /// than it: so the number of segments grows with the logarithm of the number of rows.
    fn add_segment(
        &self,
        catalog: &mut Catalog,
        dead: &mut BTreeMap<u64, Vec<u64>>,
        rows: &NewRows<'_>,
    ) -> Result<()> {
        let mut n_rows = rows.n_rows() as u64;
        let mut first = catalog.segments.len();
        while let Some(before) = first.checked_sub(1)
            && catalog.segments[before].n_rows <= n_rows
        {
            n_rows += catalog.segments[before].n_rows;
            first = before;
        }
        let merged = &self.gallery.segments[first..];
        let ids = catalog.segments[first..].iter().map(|entry| entry.id);
        let ids: Vec<u64> = ids.collect();
        let live = merged.iter().zip(&ids).map(|(segment, id)| {
            let dead = dead.remove(id);
            let is_dead = |row: u32| {
                let words = dead.as_deref().unwrap_or_default();
                let word = words.get(row as usize / 64).copied().unwrap_or(0);
                word >> (row % 64) & 1 == 1
            };
            Chosen::new(
                segment,
                segment.live().filter(|&row| !is_dead(row)).collect(),
            )
        });
        let live: Vec<Chosen<'_>> = live.collect::<Result<_>>()?;
        let mut parts: Vec<&dyn Source> = live.iter().map(|part| part as &dyn Source).collect();
        parts.push(rows);
        let (disk, folder) = (&self.disk, &self.gallery.folder);
        let entry = put_segment(disk, folder, catalog, &Joined::new(parts), ids)?;
        catalog.segments.truncate(first);
        catalog.segments.push(entry);
        Ok(())
    }

    /// Writes the lists of removed rows that changed.
    pub(super) fn write_dead(
        &self,
        catalog: &mut Catalog,
        dead: &BTreeMap<u64, Vec<u64>>,
    ) -> Result<()> {
        let generation = catalog.generation + 1;
        for entry in &mut catalog.segments {
            let Some(words) = dead.get(&entry.id) else {
                continue;
            };
            let now = self
                .gallery
                .catalog
                .segments
                .iter()
                .zip(&self.gallery.segments);
            let mut now = now.filter(|(old, _)| old.id == entry.id);
            if now.any(|(_, segment)| segment.dead_rows() == Some(words)) {
                continue;
            }
            let name = format!("dead-{:016x}-{generation:016x}.bits", entry.id);
            let n_rows = usize::try_from(entry.n_rows).unwrap_or(usize::MAX);
            let path = self.gallery.folder.join(name);
            entry.dead = Some(dead::write(&self.disk, &path, n_rows, words)?);
        }
        Ok(())
    }

    /// Puts the next catalog, opens what it names and removes what it does not.
    pub(super) fn commit(&mut self, catalog: Catalog) -> Result<()> {
        let folder = &self.gallery.folder;
        // Names of segments must be on disk before a catalog mentions them.
        self.disk
            .sync_folder(folder)
            .map_err(Error::io("syncing", folder))?;
        let catalog = Catalog {
            generation: self.gallery.catalog.generation + 1,
            ..catalog
        };
        put_catalog(&self.disk, folder, &catalog)?;
        self.gallery = Gallery::open(folder)?;
        self.remove_leftovers();
        Ok(())
    }

    /// Removes files that no catalog needs: those of older states, and those of writers that were
    /// killed. What cannot be removed stays for the next writer.
    fn remove_leftovers(&mut self) {
        for path in self.leftovers() {
            let _ = self.disk.remove(&path);
        }
    }

    /// As `remove_leftovers`, so that the files are gone after a power cut, too.
    pub(super) fn remove_all_leftovers(&mut self) -> Result<()> {
        for path in self.leftovers() {
            self.disk
                .remove(&path)
                .map_err(Error::io("removing", &path))?;
        }
        let folder = &self.gallery.folder;
        self.disk
            .sync_folder(folder)
            .map_err(Error::io("syncing", folder))
    }

    /// Lists the files of writers that the catalog does not name.
    fn leftovers(&self) -> Vec<PathBuf> {
        let needed = needed_files(&self.gallery.catalog);
        let is_left = |name: &str| is_ours(name) && !needed.contains(name);
        let entries = std::fs::read_dir(&self.gallery.folder)
            .into_iter()
            .flatten();
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(is_left))
            .map(|entry| entry.path())
            .collect()
    }
}

/// Begins the name of the file of `Statistics`.
pub(super) const AGREEMENTS: &str = "agreements-";

/// Begins the names of files of erasures that are not complete: no writer removes them but the erasure itself.
pub const ERASING: &str = "erasing-";

/// Says whether a name is one of those that writers give to files, but to the key and the lock.
pub(super) fn is_ours(name: &str) -> bool {
    let starts = [
        "segment-",
        "dead-",
        AGREEMENTS,
        // Of an older m3ret.
        "statistics-",
        "refusals-",
        ERASED,
        "catalog-",
        "key.",
    ];
    starts.iter().any(|start| name.starts_with(start))
}

/// Lists the files in a folder that writers of galleries made; nothing else that lies there.
///
/// # Errors
/// If the folder cannot be listed.
pub fn files_of(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type()?.is_file();
        let is_unfinished_erasure = name.starts_with(ERASING);
        if is_file && (is_ours(&name) || is_unfinished_erasure || name == KEY || name == LOCK) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Returns the names of all files that a catalog needs, with its own.
pub(super) fn needed_files(catalog: &Catalog) -> HashSet<String> {
    let name = |path: PathBuf| path.to_string_lossy().into_owned();
    let segments = catalog.segments.iter();
    let mut needed: HashSet<String> = segments
        .clone()
        .map(|entry| name(segment::path_of(Path::new(""), entry.id)))
        .collect();
    needed.extend(segments.filter_map(|entry| Some(entry.dead.as_ref()?.file.clone())));
    let others = [&catalog.statistics, &catalog.refusals, &catalog.erased]
        .into_iter()
        .flatten();
    needed.extend(others.map(|reference| reference.file.clone()));
    needed.insert(name(catalog::path_of(Path::new(""), catalog.generation)));
    needed
}

/// Writes rows as a new segment of a catalog, which stands for the segments `replaces`; returns its entry.
pub(super) fn put_segment<D: Disk>(
    disk: &D,
    folder: &Path,
    catalog: &mut Catalog,
    source: &dyn Source,
    replaces: Vec<u64>,
) -> Result<Entry> {
    let id = catalog.next_segment;
    let path = segment::path_of(folder, id);
    let temporary = unfinished_name(&path).map_err(Error::io("naming", &path))?;
    let heading = Heading {
        id,
        width: catalog.width,
        numbers: catalog.numbers,
        replaces,
        maker: catalog.maker.clone(),
    };
    let file = disk
        .create(&temporary)
        .map_err(Error::io("making", &temporary))?;
    let written = write(file, &temporary, source, &heading);
    let renamed = written.and_then(|digest| {
        let renamed = disk.rename(&temporary, &path);
        renamed
            .map(|()| digest)
            .map_err(Error::io("renaming", &temporary))
    });
    let (digest, version) = renamed.inspect_err(|_| {
        // What cannot be removed now is removed by the next writer.
        let _ = disk.remove(&temporary);
    })?;
    catalog.next_segment += 1;
    catalog.version = catalog.version.max(version::of_gallery(version));
    Ok(Entry {
        id,
        n_rows: source.n_rows() as u64,
        digest: format!("{digest:032x}"),
        dead: None,
    })
}

pub(super) fn put_catalog<D: Disk>(disk: &D, folder: &Path, catalog: &Catalog) -> Result<()> {
    let path = catalog::path_of(folder, catalog.generation);
    // An older m3ret refuses what it does not know by the version.
    let calibration = catalog.calibration.as_ref();
    let version = match (&catalog.refusals, catalog.version) {
        _ if calibration.is_some_and(Calibration::has_levels) => version::LEVELS,
        _ if catalog.erased.is_some() => version::ERASED,
        _ if catalog.has_agreements() => version::GALLERY_OF_SEVERAL,
        (_, version::GALLERY_OF_SEVERAL..) => version::GALLERY_OF_SEVERAL,
        (Some(_), _) => version::REFUSALS,
        (None, version) => version.min(version::ONE_VECTOR),
    };
    let catalog = Catalog {
        version,
        ..catalog.clone()
    };
    let bytes = catalog::to_copies(&catalog).map_err(Error::io("writing", &path))?;
    catalog::put(disk, &path, &bytes)
}

/// A gallery that was just made.
#[derive(Debug)]
pub(super) struct Begun {
    gallery: Gallery,
    changing: Changing,
    lock: File,
}

/// Makes a gallery in a folder that holds none yet.
pub(super) fn create_begun<D: Disk>(
    disk: &D,
    folder: &Path,
    setup: Setup,
    key: Option<&Key>,
) -> Result<Begun> {
    let lock = lock(folder)?;
    let changing = Changing::begin(folder);
    // Another process may have made the gallery between the look and the lock, and its key must stay.
    if !is_begun(folder) {
        return Err(occupied(folder));
    }
    let key = match key {
        Some(key) => key.clone(),
        None => Key::new().map_err(Error::io("asking for random numbers for", folder))?,
    };
    write_key(disk, folder, &key)?;
    let catalog = Catalog {
        version: version::ONE_VECTOR,
        generation: 1,
        maker: setup.maker,
        width: setup.width,
        numbers: setup.numbers,
        key_check: key.check(),
        next_segment: 1,
        segments: Vec::new(),
        calibration: None,
        statistics: None,
        refusals: None,
        erased: None,
    };
    put_catalog(disk, folder, &catalog)?;
    if let Some(parent) = folder.parent().filter(|parent| *parent != Path::new("")) {
        disk.sync_folder(parent)
            .map_err(Error::io("syncing", parent))?;
    }
    Ok(Begun {
        gallery: Gallery::open(folder)?,
        changing,
        lock,
    })
}

fn occupied(folder: &Path) -> Error {
    Error::mismatch(
        folder.display().to_string(),
        "a name that is free, or an empty folder",
        "a file, or a folder that holds something",
    )
}

/// Says whether a folder holds at most what `Writer::create` leaves when it is killed.
#[must_use]
pub fn is_begun(folder: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(folder) else {
        return false;
    };
    entries.all(|entry| {
        let entry = entry.and_then(|entry| Ok((entry.file_name(), entry.metadata()?.len())));
        entry.is_ok_and(|(name, n_bytes)| match name.to_str() {
            Some(KEY) => n_bytes == size_of::<Key>() as u64,
            Some(LOCK) => n_bytes == 0,
            Some(name) => {
                name.ends_with(".part")
                    && (name.starts_with("key.") || name.starts_with("catalog-"))
            }
            None => false,
        })
    })
}

/// Takes the lock of a gallery's writer; the operating system gives it back when the process ends.
pub(super) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode_below(&path));
    let file = open_regular_as(&mut options, &path);
    let file = file.map_err(Error::io("opening", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Locked {
            path: folder.to_owned(),
        }),
        Err(std::fs::TryLockError::Error(error)) => Err(Error::io("locking", &path)(error)),
    }
}

/// Writes the key, for the owner's eyes only.
pub(super) fn write_key<D: Disk>(disk: &D, folder: &Path, key: &Key) -> Result<()> {
    let path = folder.join(KEY);
    let write = || -> std::io::Result<()> {
        let temporary = unfinished_name(&path)?;
        let mut file = disk.create_private(&temporary)?;
        file.write_all(&key.0)?;
        file.flush()?;
        file.sync()?;
        disk.rename(&temporary, &path)?;
        disk.sync_folder(folder)
    };
    write().map_err(Error::io("writing", &path))
}
