//! Every change that a gallery makes to a disk, in one place, so that tests can make it fail.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// What a gallery does to a disk. A test's disk fails where it is told to, and forgets what was
/// not synced.
pub trait Disk: Clone + Send + Sync {
    /// A file that is being written.
    type File: DiskFile;

    /// Makes a new file; one of that name is lost.
    ///
    /// # Errors
    /// The machine's own.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

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

/// The disk of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn create(&self, path: &Path) -> io::Result<File> {
        File::create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
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
        std::fs::remove_file(path)
    }
}

impl DiskFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
