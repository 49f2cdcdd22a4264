//! Every change that a gallery makes to a disk, in one place, so that tests can make it fail.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a gallery does to a disk. A test's disk fails where it is told to, and forgets what was
/// not synced.
pub trait Disk: Clone + Send + Sync {
    /// A file that is being written.
    type File: DiskFile;

    /// Makes a new file, as private as its folder.
    ///
    /// # Errors
    /// The machine's own; `AlreadyExists` if anything has that name, a link too.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Makes a new file that only its owner may read.
    ///
    /// # Errors
    /// As `create`.
    fn create_private(&self, path: &Path) -> io::Result<Self::File> {
        self.create(path)
    }

    /// Gives a file another name; one of that name is replaced in the same instant.
    ///
    /// # Errors
    /// The machine's own.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes names that were given and taken away in a folder survive a power cut.
    ///
    /// # Errors
    /// The machine's own.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The machine's own.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// A file that is being written.
pub trait DiskFile: Write {
    /// Makes what was written survive a power cut.
    ///
    /// # Errors
    /// The machine's own.
    fn sync(&mut self) -> io::Result<()>;
}

/// Folders whose galleries this process is changing. Names come and go on the real disk only while this is held, so
/// that a program that is interrupted can stop all of them.
static CHANGING: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

pub(crate) fn changing() -> MutexGuard<'static, Vec<PathBuf>> {
    // A list of paths is good, whoever panicked while it was locked.
    CHANGING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn create(&self, path: &Path) -> io::Result<File> {
        let _held = changing();
        create_new(path, mode_below(path))
    }

    fn create_private(&self, path: &Path) -> io::Result<File> {
        let _held = changing();
        create_new(path, 0o600)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _held = changing();
        std::fs::rename(from, to)
    }

    #[cfg(unix)]
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let _held = changing();
        std::fs::remove_file(path)
    }
}

/// Makes a file whose name is free. A link of that name is not followed: who may write to the folder could point it
/// at any file of this user.
fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options.open(path)
}

/// Returns the permissions of new files below a folder: those who may not read the folder may not read them either.
/// The user's umask takes more away.
#[cfg(unix)]
pub(crate) fn mode_below(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let status = std::fs::metadata(folder.unwrap_or(Path::new(".")));
    status.map_or(0o600, |status| status.mode() & 0o666)
}

#[cfg(not(unix))]
fn mode_below(_: &Path) -> u32 {
    0o666
}

/// Returns a name for a file that will be renamed to `path` once it is whole. Another writer, or who wants to be in
/// the way, cannot guess it.
pub(crate) fn unfinished_name(path: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    Ok(path.with_extension(format!("{:016x}.part", u64::from_le_bytes(random))))
}

/// Opens a regular file for reading; links are not followed, and a pipe or device is refused without waiting for it.
///
/// # Errors
/// The machine's own; `InvalidInput` if something else than a regular file has the name.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    open_regular_as(OpenOptions::new().read(true), path)
}

/// As `open_regular`, as `options` say.
pub(crate) fn open_regular_as(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt as _;
        let kept = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.custom_flags(kept.bits().cast_signed());
    }
    let irregular = |what: &str| {
        let told = format!(
            "found {what}, wanted a regular file; galleries are copied with links resolved (cp -L)"
        );
        io::Error::new(io::ErrorKind::InvalidInput, told)
    };
    let file = match options.open(path) {
        Err(_) if std::fs::symlink_metadata(path).is_ok_and(|status| status.is_symlink()) => {
            return Err(irregular("a link"));
        }
        opened => opened?,
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(irregular("a folder, pipe or device")),
    }
}

/// Reads at most the first `max_bytes` of a regular file. Who needs the whole file compares checksums or lengths.
///
/// # Errors
/// As `open_regular`.
pub(crate) fn read_regular(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(max_bytes)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl DiskFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
