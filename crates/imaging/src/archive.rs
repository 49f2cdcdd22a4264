//! Finds the objects of an archive: files, and DICOM series spread over files.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::read::{Format, ReadOptions};
use crate::volume::Volume;

/// One thing to read: a file, or the files of one DICOM series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The file, or the folder that holds the series.
    pub path: PathBuf,
    /// `series=2`, where the folder holds several series.
    pub part: Option<String>,
    /// The files, in reading order.
    pub files: Vec<PathBuf>,
    /// What the files hold.
    pub format: Format,
}

/// A file that belongs to no object.
#[derive(Debug)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: Error,
}

/// Finds every object below `root` (a file, a folder or a DICOMDIR).
///
/// # Errors
/// `Io` if `root` itself cannot be listed; everything below it is skipped with its reason.
pub fn find_objects(root: &Path, options: &ReadOptions) -> Result<(Vec<Object>, Vec<Skipped>)> {
    let _ = (root, options);
    Err(Error::unsupported("archive", "", ""))
}

/// Reads one object.
///
/// # Errors
/// As `read_path`.
pub fn read_object(object: &Object, options: &ReadOptions) -> Result<Vec<Volume>> {
    let _ = (object, options);
    Err(Error::unsupported("archive", "", ""))
}
