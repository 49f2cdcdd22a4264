//! Unfinished files of runs that were killed: the next run that writes into the same folder removes them.
//!
//! A run holds a lock on each of its unfinished files, which the system gives back when the run ends, however it ends.
//! So a file that can be locked belongs to no run.

use std::collections::HashSet;
use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use tempfile::NamedTempFile;

use crate::private::{is_own, open_regular};

/// How the names of unfinished files begin and end.
const NAME: (&str, &str) = (".m3ret-", ".part");

/// Folders that this process has looked through.
static SEEN: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);

/// Removes the unfinished files of killed runs from a folder, and nothing else: regular files with a name of ours, which
/// the user of this process owns and no run has locked. Returns how many there were.
///
/// What cannot be removed stays, as a later run will try again.
pub fn remove_leftovers(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let entries = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        is_file && name.starts_with(NAME.0) && name.ends_with(NAME.1)
    });
    entries
        .filter(|entry| remove(&entry.path()).is_some())
        .count()
}

/// Removes a file that no run has locked.
fn remove(path: &Path) -> Option<()> {
    // A link or a pipe may have taken the name since the folder was listed.
    let file = open_regular(path).ok()?;
    let is_own = is_own(&file.metadata().ok()?);
    if !is_own || file.try_lock().is_err() {
        return None;
    }
    std::fs::remove_file(path).ok()
}

/// Makes an unfinished file that no other run takes for a leftover; before the first of a folder, its leftovers are
/// removed.
pub(crate) fn begin(
    folder: &Path,
    make: impl Fn(&Path) -> io::Result<NamedTempFile>,
) -> io::Result<NamedTempFile> {
    let is_first = {
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(folder.to_owned())
    };
    if is_first {
        remove_leftovers(folder);
    }
    loop {
        let begun = make(folder)?;
        match begun.as_file().try_lock() {
            // Another run looked through the folder between the file and its lock.
            Err(TryLockError::WouldBlock) => {}
            Ok(()) if !begun.path().exists() => {}
            // Where a disk knows no locks, nothing is taken for a leftover either.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(begun),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unfinished;

    #[test]
    fn files_of_killed_runs_are_removed_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in [
            ".m3ret-abc.part",
            ".m3ret-def.part",
            ".m3ret-x",
            "m3ret-y.part",
        ] {
            std::fs::write(at(name), "").unwrap();
        }
        std::fs::create_dir(at(".m3ret-folder.part")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(at("m3ret-y.part"), at(".m3ret-link.part")).unwrap();
        let running = Unfinished::create(&at("out")).unwrap();
        assert!(
            !at(".m3ret-abc.part").exists() && !at(".m3ret-def.part").exists(),
            "the first file of a folder collects"
        );
        std::fs::write(at(".m3ret-later.part"), "").unwrap();
        assert_eq!(remove_leftovers(folder.path()), 1);
        for name in [".m3ret-x", "m3ret-y.part", ".m3ret-folder.part"] {
            assert!(at(name).exists(), "{name}");
        }
        #[cfg(unix)]
        assert!(at(".m3ret-link.part").is_symlink());
        running.finish().unwrap().put().unwrap();
        assert!(at("out").exists());
        assert_eq!(remove_leftovers(&at("nowhere")), 0);
    }
}
