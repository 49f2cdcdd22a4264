//! Files that no catalog names: of writers that were killed, and of one that is being interrupted.

use std::path::{Path, PathBuf};

use super::Gallery;
use super::catalog;
use super::writer::{Writer, is_ours, needed_files};
use crate::disk::changing;
use crate::error::Result;

/// A gallery that this process is changing, until this is dropped. Its writer's lock is held meanwhile.
#[derive(Debug)]
pub(super) struct Changing(PathBuf);

impl Changing {
    pub(super) fn begin(folder: &Path) -> Self {
        changing().push(folder.to_owned());
        Self(folder.to_owned())
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        let mut folders = changing();
        let own = folders.iter().position(|folder| *folder == self.0);
        own.map(|own| folders.swap_remove(own));
    }
}

/// Removes what no catalog names from every gallery that this process is changing, and lets no file of a gallery appear
/// until `end` returns: a change is whole, or was never made.
///
/// For a program that is about to end: `end` usually does not return.
pub fn abandon_changes(end: impl FnOnce()) {
    let folders = changing();
    for path in folders.iter().flat_map(|folder| unnamed(folder)) {
        let _ = std::fs::remove_file(path);
    }
    end();
}

/// Removes the files of a gallery that no catalog names. A reader that needs no change calls this, so that a writer that
/// was killed behind its last change leaves nothing for good.
///
/// # Errors
/// `Locked` if another process writes to the gallery, whose files these are; as `Gallery::open`.
pub fn collect(folder: &Path) -> Result<()> {
    Gallery::open(folder)?;
    if !unnamed(folder).is_empty() {
        // Opened with its lock, it removes them.
        Writer::open(folder)?;
    }
    Ok(())
}

/// Lists the files that writers made and the newest catalog does not name. Where no catalog can be read, these are only
/// files that were never finished: a repair needs the others.
fn unnamed(folder: &Path) -> Vec<PathBuf> {
    let newest = catalog::newest(folder).ok().flatten();
    let catalog = newest.and_then(|newest| catalog::read(folder, newest).ok());
    let needed = catalog.map(|(catalog, _)| needed_files(&catalog));
    let is_unnamed = |name: &str| {
        is_ours(name)
            && match &needed {
                Some(needed) => !needed.contains(name),
                None => name.ends_with(".part"),
            }
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_unnamed))
        .map(|entry| entry.path())
        .collect()
}
