//! Where objects wait until they are embedded: a folder for each series, files named by keyed hashes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use m3ret_files::{FolderLock, Locking, make_one_private_folder, own_folder, sync_folder};

use crate::error::{Error, Result};
use crate::names::Names;
use crate::part10::{ObjectIds, read_ids};
use crate::uid::Uid;

/// End of the name of a folder that is not complete.
const UNFINISHED: &str = ".tmp";
/// End of the name of a file that is not complete.
const PART: &str = ".part";
/// Bytes of a file that are copied at a time.
const COPIED_BYTES: usize = 1 << 18;

/// What a spool may hold.
#[derive(Debug, Clone, Copy)]
pub struct SpoolLimits {
    /// Bytes of one object.
    pub max_object_bytes: u64,
    /// Objects of one series.
    pub max_objects: usize,
    /// Bytes of everything that waits.
    pub max_bytes: u64,
}

impl Default for SpoolLimits {
    /// 1 GiB an object, 20,000 objects a series, 256 GiB in all.
    fn default() -> Self {
        Self {
            max_object_bytes: 1 << 30,
            max_objects: 20_000,
            max_bytes: 256 << 30,
        }
    }
}

/// A complete series on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledSeries {
    /// The keyed hash of the series: name of the folder.
    pub name: String,
    /// Its files, one an object.
    pub folder: PathBuf,
    /// Number of its objects.
    pub n_objects: usize,
    /// `StudyInstanceUID`
    pub study: Uid,
    /// `SeriesInstanceUID`
    pub series: Uid,
    /// Objects that had arrived when this was listed.
    n_arrived: u64,
}

/// What became of an object that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is on the disk now.
    New,
    /// The same bytes were there already.
    Same,
    /// Other bytes were there under its `SOPInstanceUID`; these stay.
    Other,
}

/// When a series last got an object, and whether it waits.
#[derive(Debug)]
struct Arrival {
    study: Uid,
    series: Uid,
    last: Instant,
    /// Number of objects that arrived; with it, whether one came after the series was taken is known.
    n_arrived: u64,
    /// Whether its rows are in the archive, so that its files are only kept for late objects. Until then it waits,
    /// whatever becomes of those who add it.
    is_added: bool,
    /// Whether its files could not be listed.
    is_unreadable: bool,
}

/// What a spool says of itself: everything in it may be erased.
const MARK: &str = "spool of DICOM objects of m3ret";

/// A folder of series that wait. One process a folder.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    names: Names,
    limits: SpoolLimits,
    n_begun: AtomicU64,
    n_bytes: AtomicU64,
    arrivals: Mutex<HashMap<String, Arrival>>,
    _lock: FolderLock,
}

impl Spool {
    /// Opens a folder, which is made if it is not there, and erases what was not complete when an earlier process ended.
    /// Complete series of it wait again.
    ///
    /// # Errors
    /// `Caller` if another process uses the folder; `Io`.
    pub fn open(folder: &Path, names: Names, limits: SpoolLimits) -> Result<Self> {
        let lock = match own_folder(folder, MARK)? {
            Locking::Locked(lock) | Locking::Unsupported(lock) => lock,
            Locking::Taken => {
                return Err(Error::Caller(format!(
                    "another process uses the spool {}; name another folder with --spool",
                    folder.display()
                )));
            }
        };
        let spool = Self {
            folder: folder.to_owned(),
            names,
            limits,
            n_begun: AtomicU64::new(0),
            n_bytes: AtomicU64::new(0),
            arrivals: Mutex::default(),
            _lock: lock,
        };
        spool
            .take_stock()
            .map_err(Error::io("listing the spool", folder))?;
        Ok(spool)
    }

    /// Returns where it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns how files are named.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Returns what the spool may hold.
    #[must_use]
    pub fn limits(&self) -> SpoolLimits {
        self.limits
    }

    /// Erases what is not complete, and lets complete series wait.
    fn take_stock(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_folder = entry.file_type()?.is_dir();
            if is_folder && name.ends_with(UNFINISHED) {
                std::fs::remove_dir_all(entry.path())?;
            } else if !is_folder && name.ends_with(PART) {
                std::fs::remove_file(entry.path())?;
            } else if is_folder && is_name(&name) {
                match self.ids_of(&entry.path())? {
                    Some(ids) => self.note(&name, ids),
                    None => std::fs::remove_dir_all(entry.path())?,
                }
            }
        }
        Ok(())
    }

    /// Reads whose objects a folder holds; `None` if none can be read.
    fn ids_of(&self, folder: &Path) -> io::Result<Option<ObjectIds>> {
        let mut ids = None;
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            self.n_bytes
                .fetch_add(entry.metadata()?.len(), Ordering::Relaxed);
            if ids.is_none() {
                ids = read_ids(File::open(entry.path())?).ok();
            }
        }
        Ok(ids)
    }

    fn note(&self, name: &str, ids: ObjectIds) {
        let arrival = Arrival {
            study: ids.study,
            series: ids.series,
            last: Instant::now(),
            n_arrived: 0,
            is_added: false,
            is_unreadable: false,
        };
        self.all().insert(name.to_owned(), arrival);
    }

    /// Begins an object.
    ///
    /// # Errors
    /// `LimitExceeded` if too much waits; `Io`.
    pub fn begin(&self) -> Result<Incoming> {
        if self.n_bytes.load(Ordering::Relaxed) > self.limits.max_bytes {
            return Err(Error::LimitExceeded {
                what: "bytes in the spool",
                allowed: self.limits.max_bytes,
            });
        }
        self.begin_in(&self.folder)
    }

    fn begin_in(&self, folder: &Path) -> Result<Incoming> {
        let number = self.n_begun.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{number}{PART}"));
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options
            .open(&path)
            .map_err(Error::io("making a file in", folder))?;
        Ok(Incoming {
            file,
            path,
            hasher: Box::default(),
            n_bytes: 0,
            max_bytes: self.limits.max_object_bytes,
        })
    }

    /// Puts a complete object beside the others of its series; it survives a power cut when this returns.
    ///
    /// # Errors
    /// `Malformed` if it says not which object it is; `LimitExceeded`; `Io`.
    pub fn take(&self, incoming: &Incoming) -> Result<(ObjectIds, Stored)> {
        let ids = incoming.ids()?;
        let io = |error| Error::io("writing into the spool", &self.folder)(error);
        incoming.file.sync_data().map_err(io)?;
        let name = self.names.series(&ids.series);
        let folder = self.folder.join(&name);
        // Nothing of the series is erased meanwhile.
        let mut arrivals = self.all();
        match make_one_private_folder(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io(error)),
            _ => {}
        }
        let path = folder.join(format!("{}.dcm", self.names.instance(&ids.sop_instance)));
        if path.exists() {
            let is_same = digest_of(&path).map_err(io)? == incoming.hasher.finalize();
            let stored = if is_same { Stored::Same } else { Stored::Other };
            return Ok((ids, stored));
        }
        std::fs::rename(&incoming.path, &path).map_err(io)?;
        sync_folder(&folder).map_err(io)?;
        self.n_bytes.fetch_add(incoming.n_bytes, Ordering::Relaxed);
        let arrival = arrivals.entry(name).or_insert_with(|| Arrival {
            study: ids.study.clone(),
            series: ids.series.clone(),
            last: Instant::now(),
            n_arrived: 0,
            is_added: false,
            is_unreadable: false,
        });
        (arrival.last, arrival.is_added) = (Instant::now(), false);
        arrival.n_arrived += 1;
        Ok((ids, Stored::New))
    }

    /// Returns the series that wait and got no object for this long. They wait until `added` is called. A series whose
    /// files cannot be listed stays away alone, and one whose folder somebody removed is forgotten.
    pub fn quiet(&self, quiet: Duration) -> Vec<SpooledSeries> {
        let mut found = Vec::new();
        self.all().retain(|name, arrival| {
            if arrival.is_added || arrival.last.elapsed() < quiet {
                return true;
            }
            let folder = self.folder.join(name);
            let listed = n_objects(&folder);
            arrival.is_unreadable = listed.is_err();
            match listed {
                Ok(n_objects) => found.push(SpooledSeries {
                    name: name.clone(),
                    n_objects,
                    folder,
                    study: arrival.study.clone(),
                    series: arrival.series.clone(),
                    n_arrived: arrival.n_arrived,
                }),
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    return false;
                }
                Err(_) => arrival.last = Instant::now(),
            }
            true
        });
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// Returns the number of series whose files could not be listed.
    #[must_use]
    pub fn n_unreadable(&self) -> usize {
        let all = self.all();
        all.values().filter(|arrival| arrival.is_unreadable).count()
    }

    /// Returns the number of series that are not in the archive yet.
    #[must_use]
    pub fn n_waiting(&self) -> usize {
        let all = self.all();
        all.values().filter(|arrival| !arrival.is_added).count()
    }

    /// Takes note that the rows of a series are in the archive. If an object came since it was listed, it still waits.
    pub fn added(&self, series: &SpooledSeries) {
        if let Some(arrival) = self.all().get_mut(&series.name) {
            arrival.is_added = arrival.n_arrived == series.n_arrived;
        }
    }

    /// Erases the files of series whose rows are in the archive.
    ///
    /// # Errors
    /// `Io`.
    pub fn erase_added(&self) -> Result<()> {
        self.erase_where(|arrival| arrival.is_added)
    }

    /// Lets a series wait as long as if an object had come, because adding it failed.
    pub fn wait_again(&self, name: &str) {
        if let Some(arrival) = self.all().get_mut(name) {
            arrival.last = Instant::now();
        }
    }

    /// Erases series whose rows are in the archive and that got no object for this long.
    ///
    /// # Errors
    /// `Io`.
    pub fn erase_old(&self, keep: Duration) -> Result<()> {
        self.erase_where(|arrival| arrival.is_added && arrival.last.elapsed() >= keep)
    }

    fn erase_where(&self, is_old: impl Fn(&Arrival) -> bool) -> Result<()> {
        let mut arrivals = self.all();
        let old = arrivals.iter().filter(|(_, arrival)| is_old(arrival));
        let old: Vec<String> = old.map(|(name, _)| name.clone()).collect();
        for name in old {
            self.erase(&self.folder.join(&name))?;
            arrivals.remove(&name);
        }
        Ok(())
    }

    fn erase(&self, folder: &Path) -> Result<()> {
        // What somebody removed is erased.
        if !folder.exists() {
            return Ok(());
        }
        let io = |error| Error::io("erasing in the spool", &self.folder)(error);
        let n_bytes = n_bytes(folder).map_err(io)?;
        std::fs::remove_dir_all(folder).map_err(io)?;
        self.forget_bytes(n_bytes);
        Ok(())
    }

    fn forget_bytes(&self, n_bytes: u64) {
        // Never below zero, whatever was put there by hand.
        let less = |all: u64| Some(all.saturating_sub(n_bytes));
        let _ = self
            .n_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Begins a series that is fetched as a whole.
    ///
    /// # Errors
    /// `LimitExceeded` if too much waits; `Io`.
    pub fn begin_series(&self, study: &Uid, series: &Uid) -> Result<Fetching<'_>> {
        let name = self.names.series(series);
        let folder = self.folder.join(format!("{name}{UNFINISHED}"));
        let io = |error| Error::io("making a folder in", &self.folder)(error);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(io)?;
        }
        make_one_private_folder(&folder).map_err(io)?;
        Ok(Fetching {
            spool: self,
            name,
            folder,
            study: study.clone(),
            series: series.clone(),
            n_objects: 0,
        })
    }

    /// Erases a series that was fetched as a whole.
    ///
    /// # Errors
    /// `Io`.
    pub fn erase_series(&self, series: &SpooledSeries) -> Result<()> {
        self.all().remove(&series.name);
        self.erase(&series.folder)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arrival>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A series while it is fetched; dropped, it is erased.
#[derive(Debug)]
pub struct Fetching<'a> {
    spool: &'a Spool,
    name: String,
    folder: PathBuf,
    study: Uid,
    series: Uid,
    n_objects: usize,
}

impl Fetching<'_> {
    /// Begins the next object.
    ///
    /// # Errors
    /// `LimitExceeded`; `Io`.
    pub fn begin(&self) -> Result<Incoming> {
        let limits = self.spool.limits;
        if self.n_objects >= limits.max_objects {
            return Err(Error::LimitExceeded {
                what: "objects of a series",
                allowed: u64::try_from(limits.max_objects).unwrap_or(u64::MAX),
            });
        }
        self.spool.begin_in(&self.folder)
    }

    /// Puts a complete object to the others.
    ///
    /// # Errors
    /// `Malformed` if it is none of this series; `Io`.
    pub fn take(&mut self, incoming: &Incoming) -> Result<()> {
        let ids = incoming.ids()?;
        if ids.series != self.series {
            return Err(Error::malformed(
                "series",
                "an object of another",
                "objects of the series that was asked for",
            ));
        }
        let io = |error| Error::io("writing into the spool", &self.folder)(error);
        let name = self.spool.names.instance(&ids.sop_instance);
        let path = self.folder.join(format!("{name}.dcm"));
        // A PACS that sends an object twice has it once; other pixels under its name are another object.
        if path.exists() {
            let is_same = digest_of(&path).map_err(io)? == incoming.hasher.finalize();
            return match is_same {
                true => Ok(()),
                false => Err(Error::malformed(
                    "series",
                    "two objects with one SOPInstanceUID and other bytes",
                    "one; remove the wrong one at its source",
                )),
            };
        }
        self.n_objects += 1;
        std::fs::rename(&incoming.path, &path).map_err(io)
    }

    /// Moves all objects of a series of another spool with the same names here.
    pub(crate) fn adopt(&mut self, from: &Spool, series: &SpooledSeries) -> Result<()> {
        let io = |error| Error::io("moving files out of", &series.folder)(error);
        from.forget_bytes(n_bytes(&series.folder).map_err(io)?);
        for entry in std::fs::read_dir(&series.folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let place = self.folder.join(entry.file_name());
            std::fs::rename(entry.path(), place).map_err(io)?;
            self.n_objects += 1;
        }
        Ok(())
    }

    /// Returns the number of objects so far.
    #[must_use]
    pub fn n_objects(&self) -> usize {
        self.n_objects
    }

    /// Gives the folder its name: the series is complete.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(self) -> Result<SpooledSeries> {
        let folder = self.spool.folder.join(&self.name);
        let io = |error| Error::io("writing into the spool", &self.spool.folder)(error);
        if folder.exists() {
            self.spool.erase(&folder)?;
        }
        std::fs::rename(&self.folder, &folder).map_err(io)?;
        let n_bytes = n_bytes(&folder).map_err(io)?;
        self.spool.n_bytes.fetch_add(n_bytes, Ordering::Relaxed);
        Ok(SpooledSeries {
            name: self.name.clone(),
            folder,
            n_objects: self.n_objects,
            study: self.study.clone(),
            series: self.series.clone(),
            n_arrived: 0,
        })
    }
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        // What cannot be erased now is erased when the spool is opened again.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// An object while it comes in; dropped before it is taken, it is erased.
#[derive(Debug)]
pub struct Incoming {
    file: File,
    path: PathBuf,
    hasher: Box<blake3::Hasher>,
    n_bytes: u64,
    max_bytes: u64,
}

impl Incoming {
    /// Appends bytes.
    ///
    /// # Errors
    /// `LimitExceeded`; `Io`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.n_bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.n_bytes > self.max_bytes {
            return Err(Error::LimitExceeded {
                what: "bytes of an object",
                allowed: self.max_bytes,
            });
        }
        self.hasher.update(bytes);
        let written = self.file.write_all(bytes);
        written.map_err(|source| Error::Io {
            doing: "writing into the spool".to_owned(),
            source,
        })
    }

    /// Appends a whole file.
    pub(crate) fn copy(&mut self, mut file: File) -> Result<()> {
        let mut bytes = vec![0; COPIED_BYTES];
        loop {
            let n_bytes = file.read(&mut bytes).map_err(|source| Error::Io {
                doing: "reading a file of the folder".to_owned(),
                source,
            })?;
            match bytes.get(..n_bytes) {
                None | Some([]) => return Ok(()),
                Some(read) => self.write(read)?,
            }
        }
    }

    pub(crate) fn ids(&self) -> Result<ObjectIds> {
        let file = File::open(&self.path);
        read_ids(file.map_err(Error::io("reading", &self.path))?)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // After it was taken, there is no such file.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Returns whether this is a name that `Names` makes.
fn is_name(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn n_objects(folder: &Path) -> Result<usize> {
    let entries = std::fs::read_dir(folder);
    Ok(entries.map_err(Error::io("listing", folder))?.count())
}

fn n_bytes(folder: &Path) -> io::Result<u64> {
    let entries = std::fs::read_dir(folder)?;
    let sizes = entries.map(|entry| Ok(entry?.metadata()?.len()));
    sizes.sum()
}

fn digest_of(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part10::tests::object;

    fn uid(text: &str) -> Uid {
        Uid::new(text.as_bytes()).unwrap()
    }

    fn open(folder: &Path, limits: SpoolLimits) -> Spool {
        Spool::open(folder, Names::new(b"key"), limits).unwrap()
    }

    fn put(spool: &Spool, bytes: &[u8]) -> Result<Stored> {
        let mut incoming = spool.begin()?;
        for piece in bytes.chunks(7) {
            incoming.write(piece)?;
        }
        spool.take(&incoming).map(|(_, stored)| stored)
    }

    #[test]
    fn objects_are_sorted_by_series_and_equal_ones_are_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let spool = open(folder.path(), SpoolLimits::default());
        assert!(Spool::open(folder.path(), Names::new(b""), SpoolLimits::default()).is_err());
        assert_eq!(
            put(&spool, &object("1.1", "1.5", b"a")).unwrap(),
            Stored::New
        );
        assert_eq!(
            put(&spool, &object("1.1", "1.5", b"a")).unwrap(),
            Stored::Same
        );
        assert_eq!(
            put(&spool, &object("1.1", "1.5", b"b")).unwrap(),
            Stored::Other
        );
        assert_eq!(
            put(&spool, &object("1.1", "1.6", b"b")).unwrap(),
            Stored::New
        );
        assert_eq!(
            put(&spool, &object("1.2", "1.7", b"b")).unwrap(),
            Stored::New
        );
        assert!(put(&spool, b"no DICOM").is_err());
        assert!(spool.quiet(Duration::from_secs(9)).is_empty());
        let found = spool.quiet(Duration::ZERO);
        let mut counts: Vec<usize> = found.iter().map(|series| series.n_objects).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 2]);
        // Whoever took them and ended has added nothing: they wait, and are not erased.
        spool.erase_old(Duration::ZERO).unwrap();
        assert_eq!(spool.quiet(Duration::ZERO), found);
        spool.added(&found[0]);
        assert_eq!(spool.quiet(Duration::ZERO), found[1..]);
        spool.added(&found[1]);
        put(&spool, &object("1.2", "1.8", b"late")).unwrap();
        let late = spool.quiet(Duration::ZERO);
        assert_eq!((late.len(), spool.n_waiting()), (1, 1));
        // An object came since the series was listed: what was added is not all of it.
        spool.added(found.iter().find(|old| old.name == late[0].name).unwrap());
        assert_eq!(spool.n_waiting(), 1);
        spool.added(&late[0]);
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(name == "lock" || is_name(&name), "{name}");
        }
        spool.erase_old(Duration::ZERO).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(spool.n_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_series_that_somebody_removed_keeps_no_other_one() {
        let folder = tempfile::tempdir().unwrap();
        let spool = open(folder.path(), SpoolLimits::default());
        for series in 1..8 {
            let (series, instance) = (format!("1.1.{series}"), format!("1.5.{series}"));
            put(&spool, &object(&series, &instance, b"a")).unwrap();
        }
        let all = spool.quiet(Duration::ZERO);
        std::fs::remove_dir_all(&all[3].folder).unwrap();
        assert_eq!(
            (spool.quiet(Duration::ZERO).len(), spool.n_waiting()),
            (6, 6)
        );
        for series in &spool.quiet(Duration::ZERO) {
            spool.added(series);
        }
        std::fs::remove_dir_all(&all[4].folder).unwrap();
        spool.erase_old(Duration::ZERO).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_of_others_is_no_spool() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("thesis.tmp");
        std::fs::create_dir(&theirs).unwrap();
        let opened = Spool::open(folder.path(), Names::new(b""), SpoolLimits::default());
        let told = format!("{:?}", opened.unwrap_err());
        assert!(told.contains("empty folder"), "{told}");
        assert!(theirs.exists() && !folder.path().join("lock").exists());
    }

    #[test]
    fn what_was_complete_waits_again_and_the_rest_is_erased() {
        let folder = tempfile::tempdir().unwrap();
        let spool = open(folder.path(), SpoolLimits::default());
        put(&spool, &object("1.1", "1.5", b"a")).unwrap();
        let left = spool.begin().unwrap();
        let fetching = spool.begin_series(&uid("1.9"), &uid("1.4")).unwrap();
        std::mem::forget((left, fetching));
        drop(spool);
        let spool = open(folder.path(), SpoolLimits::default());
        assert_eq!(spool.quiet(Duration::ZERO).len(), 1);
        let n_left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(n_left, 2, "the lock and the series");
    }

    #[test]
    fn a_series_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let spool = open(folder.path(), SpoolLimits::default());
        let fetch = |instances: &[&str], of: &str| -> Result<SpooledSeries> {
            let mut fetching = spool.begin_series(&uid("1.9"), &uid("1.1"))?;
            for instance in instances {
                let mut incoming = fetching.begin()?;
                incoming.write(&object(of, instance, b"a"))?;
                fetching.take(&incoming)?;
            }
            fetching.finish()
        };
        assert!(fetch(&["1.5"], "1.2").is_err(), "of another series");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let series = fetch(&["1.5", "1.6", "1.5"], "1.1").unwrap();
        assert_eq!(series.n_objects, 2);
        assert_eq!(fetch(&["1.5"], "1.1").unwrap().n_objects, 1);
        spool.erase_series(&series).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn sizes_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let limits = SpoolLimits {
            max_object_bytes: 600,
            max_objects: 1,
            max_bytes: 700,
        };
        let spool = open(folder.path(), limits);
        assert!(matches!(
            put(&spool, &object("1.1", "1.5", &[0; 1000])),
            Err(Error::LimitExceeded { .. })
        ));
        for instance in ["1.5", "1.6", "1.7"] {
            let _ = put(&spool, &object("1.1", instance, b"aa"));
        }
        assert!(spool.begin().is_err());
    }
}
