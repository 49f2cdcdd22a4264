//! Files that appear whole or not at all, with this crate's errors.

use std::path::Path;

use m3ret_files as files;
pub(crate) use m3ret_files::{folder_of, open_regular, plain_path, sync_folder};

use crate::error::{Error, Result};

/// Makes a folder and those above it, unless they are there; only this user may enter those that are made.
///
/// # Errors
/// `Io` if a file is in the way, or the machine refuses.
pub(crate) fn make_private_folder(path: &Path) -> Result<()> {
    files::make_private_folder(path).map_err(|error| Error::io(&error.path)(error.source))
}

/// Fails unless a folder is this user's or the system's, and others cannot write to it.
///
/// # Errors
/// `Io` that says who can.
pub(crate) fn check_own(path: &Path) -> Result<()> {
    files::check_own(path).map_err(|error| Error::io(&error.path)(error.source))
}

/// Writes a file beside its name, and gives it the name once it is on disk.
///
/// # Errors
/// `Io` if that fails; what was there before is still there then.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |unfinished| std::fs::write(unfinished, bytes))
}

/// Lets `write` fill an unfinished file beside `path`, which then takes its place: after a crash, there is the old
/// file or the new one.
///
/// # Errors
/// `Io` if that fails; the unfinished file is removed.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    files::replace(path, write).map_err(|error| Error::io(&error.path)(error.source))
}
