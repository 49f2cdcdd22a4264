//! Writes files that appear whole or not at all, and protects files that m3ret did not write.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
pub use m3ret_files::remove_unfinished;
use m3ret_files::{Finished, Unfinished};
pub(crate) use m3ret_files::{refuse_irregular, way_between};

/// Writes a temporary file beside `path` and renames it to `path` once it is complete and synced to disk.
///
/// # Errors
/// Errors of `write`; if the file cannot be created, synced or renamed. The file at `path` is then unchanged.
pub fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut Unfinished) -> anyhow::Result<()>,
) -> crate::Result<()> {
    Ok(write_beside(path, write)?.put()?)
}

/// Writes a temporary file beside `path`: complete and synced to disk, but not yet renamed to `path`.
pub(crate) fn write_beside(
    path: &Path,
    write: impl FnOnce(&mut Unfinished) -> anyhow::Result<()>,
) -> anyhow::Result<Finished> {
    let write =
        |out: &mut Unfinished| write(out).with_context(|| format!("writing {}", path.display()));
    m3ret_files::write_beside(path, write)
}

/// Refuses to replace a file; with `is_forced`, any regular file may be replaced.
///
/// # Errors
/// If `path` exists and is not to be replaced, or is no regular file.
pub(crate) fn refuse_existing(path: &Path, is_forced: bool) -> anyhow::Result<()> {
    refuse_irregular(path)?;
    crate::error::ensure!(
        is_forced || std::fs::symlink_metadata(path).is_err(),
        "{} is there; give another name, or replace it with --force",
        path.display()
    );
    Ok(())
}

/// Text in the head of every page that m3ret writes.
const PAGE_MARK: &str = "<title>m3ret ";
/// Number of bytes at the start of a file in which `PAGE_MARK` is searched.
const HEAD_BYTES: u64 = 4096;

/// Refuses to write a page over a file that is no page of m3ret, so that a slip in a command does not cost a
/// manifest or an image. With `is_forced`, any regular file may be replaced.
///
/// # Errors
/// If `path` is such a file, or no regular file; if it cannot be read.
pub fn refuse_foreign_page(path: &Path, is_forced: bool) -> crate::Result<()> {
    refuse_irregular(path)?;
    let Ok(file) = std::fs::File::open(path) else {
        return Ok(());
    };
    let mut head = Vec::new();
    file.take(HEAD_BYTES)
        .read_to_end(&mut head)
        .with_context(|| format!("reading {}", path.display()))?;
    let is_ours = head
        .windows(PAGE_MARK.len())
        .any(|part| part == PAGE_MARK.as_bytes());
    crate::error::ensure!(
        is_ours || is_forced,
        "{} is there and is no page that m3ret wrote; give another name, or replace it with --force",
        path.display()
    );
    Ok(())
}
