//! Files that appear whole or not at all, and are never written over what is not m3ret's.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use m3ret_files::{Finished, Unfinished};
pub use m3ret_files::{refuse_irregular, remove_unfinished, way_between};

/// Writes a file beside its name and renames it once it is complete and on disk.
pub fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut Unfinished) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    Ok(write_beside(path, write)?.put()?)
}

/// Writes a file beside its name: complete and on disk, but not yet in its place.
pub fn write_beside(
    path: &Path,
    write: impl FnOnce(&mut Unfinished) -> anyhow::Result<()>,
) -> anyhow::Result<Finished> {
    let write =
        |out: &mut Unfinished| write(out).with_context(|| format!("writing {}", path.display()));
    m3ret_files::write_beside(path, write)
}

/// What the head of every page that m3ret writes holds.
const PAGE_MARK: &str = "<title>m3ret ";
/// Bytes of a file that are looked at for it.
const HEAD_BYTES: u64 = 4096;

/// Fails if a file lies where a page is to be written and is no page of m3ret, so that a slip in a command
/// costs nobody a manifest or an image.
pub fn refuse_foreign_page(path: &Path, is_forced: bool) -> anyhow::Result<()> {
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
    anyhow::ensure!(
        is_ours || is_forced,
        "{} is there and is no page that m3ret wrote; give another name, or replace it with --force",
        path.display()
    );
    Ok(())
}
