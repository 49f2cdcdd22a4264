//! What was uploaded: files of this user alone, erased after an hour, at the end and at the start.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, bail};
use m3ret::images::{MemoryContent, MemoryImage};
use m3ret_files::{FolderLock, Locking, make_one_private_folder, own_folder};
use m3ret_imaging::{Format, ReadOptions, read_file, read_head, sniff};
use serde::Serialize;

use crate::Limits;
use crate::accounts::random_token;
use crate::problem::{Problem, Result};

/// How names of uploads begin.
pub(crate) const PREFIX: &str = "tmp-";

/// What the folder of all uploads says of itself: everything in it may be erased.
const MARK: &str = "spool of uploads of m3ret";
/// How names of the folders begin that `m3ret serve` makes for itself in the folder of temporary files.
const OWN_PREFIX: &str = "m3ret-spool-";

/// Names a new folder for uploads among temporary files, and removes those that killed servers left there.
///
/// # Errors
/// If the machine has no random numbers.
pub fn own_spool() -> anyhow::Result<PathBuf> {
    let folder = std::env::temp_dir();
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(OWN_PREFIX)
            && m3ret_files::check_own(&entry.path()).is_ok()
            && entry.path().join("lock").is_file();
        // A folder that a server uses is locked. What cannot be looked at is of others.
        if is_ours && let Ok(Locking::Locked(_lock)) = own_folder(&entry.path(), MARK) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let name = random_token()?;
    let name = name.get(..16).unwrap_or_default();
    Ok(folder.join(format!("{OWN_PREFIX}{name}")))
}

/// How names of files that a job works on begin.
const JOB_PREFIX: &str = "job-";

/// What is told of one image of an upload.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(crate) struct VolumeFacts {
    /// `image`, `video` or `volume`.
    pub(crate) kind: &'static str,
    /// [C, D, H, W]
    pub(crate) shape: [usize; 4],
    /// Codes of what is unusual.
    pub(crate) reasons: Vec<&'static str>,
}

/// An upload that could be read. Its files are erased with it.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) id: String,
    /// Name of the account that sent it, which alone may use it.
    pub(crate) owner: String,
    /// Digest of its files.
    pub(crate) digest: String,
    pub(crate) volumes: Vec<VolumeFacts>,
    /// PNG
    pub(crate) thumbnail: Vec<u8>,
    files: Files,
    born: Instant,
}

impl Upload {
    pub(crate) fn new(
        files: Files,
        owner: String,
        volumes: Vec<VolumeFacts>,
        thumbnail: Vec<u8>,
    ) -> Self {
        Self {
            id: files.id.clone(),
            owner,
            digest: files.digest(),
            volumes,
            thumbnail,
            files,
            born: Instant::now(),
        }
    }

    /// Reads its files.
    pub(crate) fn image(&self, options: &ReadOptions) -> Result<Arc<MemoryImage>> {
        self.files.image(options)
    }
}

/// The files of one upload; erased when this is dropped.
#[derive(Debug)]
pub(crate) struct Files {
    id: String,
    folder: PathBuf,
    open: Option<File>,
    n_files: usize,
    n_bytes: u64,
    hasher: Box<blake3::Hasher>,
    room: Arc<Room>,
}

/// What all files of the spool may take: of uploads that arrive, that are kept, and that wait as jobs.
#[derive(Debug)]
struct Room {
    taken: AtomicU64,
    limit: u64,
}

impl Room {
    /// Takes room for bytes; an error if that is more than there is.
    fn take(&self, n_bytes: u64) -> io::Result<()> {
        let before = self.taken.fetch_add(n_bytes, Ordering::SeqCst);
        if before.saturating_add(n_bytes) > self.limit {
            self.give(n_bytes);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn give(&self, n_bytes: u64) {
        self.taken.fetch_sub(n_bytes, Ordering::SeqCst);
    }
}

impl Files {
    /// Begins the next file. Its name is its number.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        self.open = Some(options.open(self.folder.join(self.n_files.to_string()))?);
        self.n_files += 1;
        // Where files begin is part of what they are.
        self.hasher.update(b"file");
        self.hasher.update(&self.n_bytes.to_le_bytes());
        Ok(())
    }

    /// Appends to the file.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let n_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.room.take(n_bytes)?;
        self.n_bytes += n_bytes;
        if let Some(file) = &mut self.open {
            file.write_all(bytes)?;
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// Keeps them for a job, which an erasure of all uploads leaves alone.
    pub(crate) fn for_job(mut self) -> io::Result<Self> {
        let name = self.id.replacen(PREFIX, JOB_PREFIX, 1);
        let folder = self.folder.with_file_name(name);
        std::fs::rename(&self.folder, &folder)?;
        self.folder = folder;
        Ok(self)
    }

    /// Returns the digest of all files.
    pub(crate) fn digest(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// Returns the folder that they lie in, named by their numbers.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// Returns the number of files.
    pub(crate) fn n_files(&self) -> usize {
        self.n_files
    }

    /// Reads the files; of a zip archive, the one image or series in it.
    pub(crate) fn image(&self, options: &ReadOptions) -> Result<Arc<MemoryImage>> {
        let paths: Vec<PathBuf> = (0..self.n_files)
            .map(|idx| self.folder.join(idx.to_string()))
            .collect();
        let failed = |_| Problem::internal("io");
        let is_zip =
            |path: &PathBuf| read_head(path).is_ok_and(|head| sniff(&head) == Some(Format::Zip));
        let content = match paths.as_slice() {
            [only] if is_zip(only) => zipped(only, options)?,
            [_, _, ..] if paths.iter().any(is_zip) => {
                let detail = "a zip archive is read alone; send one, or the files of one series";
                return Err(Problem::unprocessable("unsupported", detail));
            }
            paths => {
                let files = paths.iter().map(std::fs::read).collect::<io::Result<_>>();
                MemoryContent::Files(files.map_err(failed)?)
            }
        };
        Ok(Arc::new(MemoryImage {
            name: "query".to_owned(),
            file: None,
            content,
        }))
    }
}

/// Reads the one image or series of a zip archive. Its members are looked up in it alone, and none is written.
fn zipped(path: &Path, options: &ReadOptions) -> Result<MemoryContent> {
    let read = m3ret::panics::guard(|| read_file(path, options));
    let read = read.map_err(|_| Problem::unreadable("internal_error"))?;
    let volumes = read.map_err(|error| match error {
        m3ret_imaging::Error::Mismatch { .. } => Problem::unprocessable(
            "mismatch",
            "the zip archive holds several images or none; one with one image or one DICOM series is wanted: \
             unpack it and send the files of one series",
        ),
        error => Problem::unreadable(error.code().as_str()),
    })?;
    Ok(MemoryContent::Volumes(
        volumes.into_iter().map(Arc::new).collect(),
    ))
}

impl Drop for Files {
    fn drop(&mut self) {
        // What cannot be erased now is erased when the server ends or starts.
        let _ = std::fs::remove_dir_all(&self.folder);
        self.room.give(self.n_bytes);
    }
}

/// The folder of all uploads.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    uploads: Mutex<HashMap<String, Arc<Upload>>>,
    room: Arc<Room>,
    limits: Limits,
    _lock: FolderLock,
}

impl Spool {
    /// Opens a folder, which is made if it is not there, and erases what an earlier server left in it.
    pub(crate) fn open(folder: &Path, limits: Limits) -> anyhow::Result<Self> {
        let lock = match own_folder(folder, MARK)? {
            Locking::Locked(lock) | Locking::Unsupported(lock) => lock,
            Locking::Taken => bail!("another server uses the spool {}", folder.display()),
        };
        let spool = Self {
            folder: folder.to_owned(),
            uploads: Mutex::default(),
            room: Arc::new(Room {
                taken: AtomicU64::new(0),
                limit: limits.max_spool_bytes,
            }),
            limits,
            _lock: lock,
        };
        let erased = spool.erase_left(&[PREFIX, JOB_PREFIX]);
        erased.with_context(|| format!("erasing what is left in {}", folder.display()))?;
        Ok(spool)
    }

    /// Begins an upload.
    pub(crate) fn begin(&self) -> Result<Files> {
        let made = || -> anyhow::Result<Files> {
            let id = format!("{PREFIX}{}", random_token()?);
            let folder = self.folder.join(&id);
            make_one_private_folder(&folder)?;
            Ok(Files {
                id,
                folder,
                open: None,
                n_files: 0,
                n_bytes: 0,
                hasher: Box::default(),
                room: Arc::clone(&self.room),
            })
        };
        made().map_err(|_| Problem::internal("io"))
    }

    /// Keeps an upload.
    pub(crate) fn keep(&self, upload: Upload) -> Arc<Upload> {
        let upload = Arc::new(upload);
        self.all().insert(upload.id.clone(), Arc::clone(&upload));
        upload
    }

    /// Returns an upload of an account.
    pub(crate) fn find(&self, id: &str, owner: &str) -> Option<Arc<Upload>> {
        let found = self.all().get(id).cloned();
        found.filter(|upload| upload.owner == owner)
    }

    /// Erases uploads that were kept long enough.
    pub(crate) fn erase_old(&self) {
        let longest = self.limits.upload;
        self.all()
            .retain(|_, upload| upload.born.elapsed() < longest);
    }

    /// Erases everything.
    pub(crate) fn erase_all(&self) {
        self.all().clear();
        // An upload that is still read keeps its files; they go now.
        let _ = self.erase_left(&[PREFIX, JOB_PREFIX]);
    }

    /// Erases every upload; what was sent to be added stays, as an index refuses what was erased.
    pub(crate) fn erase_uploads(&self) {
        self.all().clear();
        let _ = self.erase_left(&[PREFIX]);
    }

    fn erase_left(&self, prefixes: &[&str]) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Upload>>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn upload(spool: &Spool) -> Upload {
        let mut files = spool.begin().unwrap();
        files.begin().unwrap();
        files.write(b"secret").unwrap();
        Upload::new(files, "ann".to_owned(), Vec::new(), Vec::new())
    }

    fn n_left(folder: &Path) -> usize {
        let entries = std::fs::read_dir(folder).unwrap();
        let named = entries.filter(|entry| entry.as_ref().unwrap().file_name() != "lock");
        named.count()
    }

    #[test]
    fn uploads_are_their_owners_and_are_erased() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), Limits::default()).unwrap();
        assert!(Spool::open(folder.path(), Limits::default()).is_err());
        let kept = spool.keep(upload(&spool));
        assert!(spool.find(&kept.id, "bob").is_none());
        assert!(spool.find(&kept.id, "ann").is_some());
        assert!(spool.find("tmp-1", "ann").is_none());
        drop(upload(&spool));
        assert_eq!(n_left(folder.path()), 1);
        assert_eq!(kept.image(&ReadOptions::default()).unwrap().name, "query");
        drop(kept);
        spool.erase_old();
        assert_eq!(n_left(folder.path()), 1, "not yet");
        spool.erase_all();
        assert_eq!(n_left(folder.path()), 0);
    }

    #[test]
    fn old_and_forgotten_uploads_are_erased() {
        let folder = tempfile::tempdir().unwrap();
        // As a server that was killed leaves it.
        drop(own_folder(folder.path(), MARK).unwrap());
        std::fs::create_dir(folder.path().join("tmp-left")).unwrap();
        std::fs::write(folder.path().join("tmp-left/0"), "secret").unwrap();
        let limits = Limits {
            upload: Duration::ZERO,
            ..Limits::default()
        };
        let spool = Spool::open(folder.path(), limits).unwrap();
        assert_eq!(n_left(folder.path()), 0);
        spool.keep(upload(&spool));
        spool.erase_old();
        assert_eq!(n_left(folder.path()), 0);
        drop(spool);
        let theirs = folder.path().join("theirs");
        std::fs::create_dir_all(theirs.join("tmp-thesis")).unwrap();
        assert!(Spool::open(&theirs, limits).is_err());
        assert!(theirs.join("tmp-thesis").exists());
    }

    #[test]
    fn uploads_that_arrive_count_as_those_that_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits {
            max_spool_bytes: 10,
            ..Limits::default()
        };
        let spool = Spool::open(folder.path(), limits).unwrap();
        let begin = || {
            let mut files = spool.begin().unwrap();
            files.begin().unwrap();
            files
        };
        let mut first = begin();
        let mut second = begin();
        first.write(b"123456").unwrap();
        let full = second.write(b"12345").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        second.write(b"1234").unwrap();
        assert!(second.write(b"5").is_err());
        let waiting = second.for_job().unwrap();
        assert!(begin().write(b"1").is_err(), "a job counts, too");
        drop((first, waiting));
        begin().write(b"1234567890").unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn only_their_user_reads_uploads() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(&folder.path().join("spool"), Limits::default()).unwrap();
        let upload = upload(&spool);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&spool.folder), 0o700);
        assert_eq!(mode(&upload.files.folder), 0o700);
        assert_eq!(mode(&upload.files.folder.join("0")), 0o600);
    }
}
