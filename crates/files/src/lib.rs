//! Files that appear whole or not at all, locks on folders, outputs that replace
//! nothing of the user's, and paths without detours.
//!
//! A file is written beside its name, synced, and renamed. Unfinished files are listed while they exist, so
//! that a program that is interrupted can remove them.

mod leftovers;
mod outputs;
mod own;
mod paths;
mod private;

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use leftovers::remove_leftovers;
pub use outputs::{Force, Inputs, Output, Refusal, Replaces};
pub use own::own_folder;
pub use paths::{folder_of, place_of, plain_path, way_between};
pub use private::{check_own, make_one_private_folder, make_private_folder, open_regular};

/// An operation on a file that failed.
#[derive(Debug)]
pub struct Error {
    /// What was being done, such as `writing`.
    pub doing: &'static str,
    /// The file that the caller asked for.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.doing, self.path.display())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

fn writing(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error {
        doing: "writing",
        path,
        source,
    }
}

/// Unfinished files that exist right now.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    // A list of paths is good, whoever panicked while it was locked.
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every unfinished file of this process, and lets no further one appear until `end` returns.
///
/// For a program that is about to end: `end` usually does not return.
pub fn remove_unfinished(end: impl FnOnce()) {
    let listed = unfinished();
    for path in listed.iter() {
        let _ = std::fs::remove_file(path);
    }
    end();
}

/// A file that is being written beside its name; dropped, it is removed.
#[derive(Debug)]
pub struct Unfinished {
    file: BufWriter<File>,
    name: Listed,
    path: PathBuf,
}

/// A complete file on disk that waits to be renamed; dropped, it is removed.
#[derive(Debug)]
pub struct Finished {
    name: Listed,
    path: PathBuf,
}

/// The name of an unfinished file on the list; the file is removed and unlisted in the end, whatever happened.
#[derive(Debug)]
struct Listed(tempfile::TempPath);

impl Drop for Listed {
    fn drop(&mut self) {
        let path = self.0.to_path_buf();
        let _ = std::fs::remove_file(&path);
        unfinished().retain(|other| *other != path);
    }
}

impl Unfinished {
    /// Begins a file that will be named `path`.
    ///
    /// # Errors
    /// If something is there that no file may replace, or the folder takes no file.
    pub fn create(path: &Path) -> Result<Self> {
        refuse_irregular(path)?;
        let begun = create_listed(path).map_err(writing(path))?;
        let (file, name) = begun.into_parts();
        Ok(Self {
            file: BufWriter::new(file),
            name: Listed(name),
            path: path.to_owned(),
        })
    }

    /// Puts everything on disk.
    ///
    /// # Errors
    /// If that fails.
    pub fn finish(self) -> Result<Finished> {
        let Self { file, name, path } = self;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error);
        let synced = file.and_then(|file| file.sync_all());
        synced.map_err(writing(&path))?;
        Ok(Finished { name, path })
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Finished {
    /// Returns where the file lies until it has its name.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.name.0
    }

    /// Gives the file its name, in place of an older one.
    ///
    /// # Errors
    /// If that fails; the older file is then still there.
    pub fn put(self) -> Result<()> {
        let Self { name, path } = self;
        let mut listed = unfinished();
        let renamed = std::fs::rename(&name.0, &path);
        if renamed.is_ok() {
            listed.retain(|other| *other != *name.0);
        }
        // Dropping the name takes the lock again.
        drop(listed);
        renamed.map_err(writing(&path))
    }
}

fn create_listed(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".m3ret-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = private::mode_in(folder_of(path))?;
        builder.permissions(std::fs::Permissions::from_mode(mode));
    }
    // The lock is held so that an interrupt finds every file that exists.
    let mut listed = unfinished();
    let begun = leftovers::begin(folder_of(path), |folder| builder.tempfile_in(folder))?;
    listed.push(begun.path().to_path_buf());
    Ok(begun)
}

/// Writes a file beside its name: complete and on disk, but not yet in its place.
///
/// # Errors
/// What `write` fails with, or writing itself.
pub fn write_beside<E: From<Error>>(
    path: &Path,
    write: impl FnOnce(&mut Unfinished) -> std::result::Result<(), E>,
) -> std::result::Result<Finished, E> {
    let mut begun = Unfinished::create(path)?;
    write(&mut begun)?;
    Ok(begun.finish()?)
}

/// Writes a file beside its name and renames it once it is complete and on disk.
///
/// # Errors
/// What `write` fails with, or writing itself; what was there before is still there then.
pub fn write_whole<E: From<Error>>(
    path: &Path,
    write: impl FnOnce(&mut Unfinished) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    Ok(write_beside(path, write)?.put()?)
}

/// Lets `write` fill an unfinished file by its name; the file then takes its place and stays after a power cut.
///
/// # Errors
/// If writing fails; what was there before is still there then.
pub fn replace(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let begun = Unfinished::create(path)?;
    let place = begun.name.0.to_path_buf();
    let filled = || -> io::Result<()> {
        let permissions = begun.file.get_ref().metadata()?.permissions();
        write(&place)?;
        // `write` may have put another file under this name, with permissions of its own.
        let written = File::open(&place)?;
        written.set_permissions(permissions)?;
        written.sync_all()
    };
    filled().map_err(writing(path))?;
    let Unfinished { name, path, .. } = begun;
    let finished = Finished { name, path };
    let folder = folder_of(&finished.path).to_owned();
    finished.put()?;
    sync_folder(&folder).map_err(writing(&folder))
}

/// Makes a folder and those above it, unless they are there.
///
/// # Errors
/// If a file is in the way, or the machine refuses.
pub fn make_folder(path: &Path) -> Result<()> {
    let made = match file_in_the_way(path) {
        Some(file) => Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            format!(
                "{} is a file, and a folder is wanted there; choose another name",
                file.display()
            ),
        )),
        None => std::fs::create_dir_all(path),
    };
    made.map_err(|source| Error {
        doing: "making",
        path: path.to_owned(),
        source,
    })
}

/// Returns what is no folder at a path, or above it.
fn file_in_the_way(path: &Path) -> Option<&Path> {
    let there = path.ancestors().find(|path| path.exists());
    there.filter(|there| !there.is_dir())
}

/// Fails if something is there that no file may replace: renaming onto a device or a pipe would put a file in
/// its place.
///
/// # Errors
/// If `path` is there and no regular file.
pub fn refuse_irregular(path: &Path) -> Result<()> {
    let is_irregular = std::fs::metadata(path).is_ok_and(|status| !status.is_file());
    if !is_irregular {
        return Ok(());
    }
    Err(Error {
        doing: "writing",
        path: path.to_owned(),
        source: io::Error::new(
            io::ErrorKind::InvalidInput,
            "something is there that is no regular file",
        ),
    })
}

/// Makes a renamed file stay after a power cut.
///
/// # Errors
/// If the folder cannot be opened or synced.
#[cfg(unix)]
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes a renamed file stay after a power cut; here the system does.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// A folder that this process alone works in; the system gives it back when the process ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// How an attempt to lock a folder ended.
#[derive(Debug)]
pub enum Locking {
    /// This process has the folder.
    Locked(FolderLock),
    /// Another process works there.
    Taken,
    /// The disk knows no locks, as some network disks do not.
    Unsupported(FolderLock),
}

/// Locks a folder by the file `lock` in it, which is never emptied.
///
/// # Errors
/// If that file cannot be opened.
pub fn lock(folder: &Path) -> Result<Locking> {
    let path = folder.join("lock");
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    if let Ok(mode) = private::mode_in(folder) {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    }
    let opened = private::open_regular_as(&mut options, &path);
    let file = opened.map_err(|source| Error {
        doing: "opening",
        path,
        source,
    })?;
    Ok(match file.try_lock() {
        Ok(()) => Locking::Locked(FolderLock { _file: file }),
        Err(TryLockError::WouldBlock) => Locking::Taken,
        Err(TryLockError::Error(_)) => Locking::Unsupported(FolderLock { _file: file }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n_files(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let failed = write_whole(&path, |out| -> Result<()> {
            out.write_all(b"half").unwrap();
            Err(writing(&path)(io::Error::other("no more")))
        });
        assert!(failed.is_err());
        assert_eq!(n_files(folder.path()), 0);
        for text in ["first", "second"] {
            let write = |out: &mut Unfinished| {
                let written = out.write_all(text.as_bytes());
                written.map_err(writing(&path))
            };
            write_whole(&path, write).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(n_files(folder.path()), 1);
        let onto_folder = write_whole(folder.path(), |_| -> Result<()> { Ok(()) });
        assert!(onto_folder.is_err());
        let is_listed = |listed: &PathBuf| listed.starts_with(folder.path());
        assert!(!unfinished().iter().any(is_listed));
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        std::fs::write(&path, "old").unwrap();
        let failed = replace(&path, |place| {
            std::fs::write(place, "half")?;
            Err(io::Error::other("no space"))
        });
        let error = failed.unwrap_err();
        assert!(error.to_string().contains("state"), "{error}");
        assert_eq!(error.source.to_string(), "no space");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(n_files(folder.path()), 1);
        replace(&path, |place| std::fs::write(place, "new")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_folder_is_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        assert!(matches!(first, Locking::Locked(_)));
        assert!(matches!(lock(folder.path()).unwrap(), Locking::Taken));
        drop(first);
        assert!(matches!(lock(folder.path()).unwrap(), Locking::Locked(_)));
    }
}
