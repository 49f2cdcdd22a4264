//! What an erasure keeps in the gallery until it is complete, so that one that is killed can be repeated: what the
//! search looks for can no longer be read once the rows are gone.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_search::{ERASING, Trace};
use serde::{Deserialize, Serialize};

use super::receipt::{Counts, FileSize, FoundColumn};
use crate::files::write_whole;
use crate::words::printable_path;

/// An erasure that is not complete. It holds keyed hashes only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contents {
    /// Generation before the first attempt.
    pub generation_before: u64,
    pub counts: Counts,
    pub columns: Vec<FoundColumn>,
    /// Hashes of all pseudonyms.
    pub subject: Vec<String>,
    pub was_listed: bool,
    /// Files that were there before the first attempt.
    pub files: Vec<FileSize>,
    pub traces: Vec<Trace>,
    pub n_not_searched_for: usize,
}

/// The file of an erasure that is not complete.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    pub contents: Contents,
}

/// Most bytes of a file.
const MAX_BYTES: u64 = 1 << 30;

impl Journal {
    fn path_of(folder: &Path, subject: &str) -> PathBuf {
        folder.join(format!("{ERASING}{subject}.json"))
    }

    /// Reads the journal of an earlier attempt, if there is one.
    pub(super) fn read(folder: &Path, subject: &str) -> crate::Result<Option<Self>> {
        let path = Self::path_of(folder, subject);
        if std::fs::symlink_metadata(&path).is_err() {
            return Ok(None);
        }
        let doing = || format!("reading {}", printable_path(&path));
        let bytes = super::check::read_bounded(&path, MAX_BYTES).with_context(doing)?;
        let contents = serde_json::from_slice(&bytes);
        // It was written whole: something else has changed it, and what it holds must be searched for.
        let contents = contents.map_err(|_| {
            anyhow::anyhow!(
                "{} is damaged, and says what an erasure that was killed has to look for; remove it and erase again: what was \
                 removed before is then not searched for",
                printable_path(&path)
            )
        })?;
        Ok(Some(Self { path, contents }))
    }

    /// Writes what is going to be erased, together with that of earlier attempts.
    pub(super) fn write(
        folder: &Path,
        subject: &str,
        new: Contents,
        before: Option<Self>,
    ) -> crate::Result<Self> {
        let mut contents = match before {
            None => new,
            Some(Self {
                contents: mut before,
                ..
            }) => {
                if new.counts.n_rows > 0 {
                    // The rows are still there: the earlier attempt ended before it removed them.
                    before.counts = new.counts;
                    before.columns = new.columns;
                    before.n_not_searched_for = new.n_not_searched_for;
                }
                before.subject.extend(new.subject);
                before.traces.extend(new.traces);
                before
            }
        };
        contents.subject.sort_unstable();
        contents.subject.dedup();
        contents.traces.sort_unstable();
        contents.traces.dedup();
        let path = Self::path_of(folder, subject);
        let bytes = serde_json::to_vec(&contents).map_err(std::io::Error::from)?;
        write_whole(&path, |file| Ok(file.write_all(&bytes)?))?;
        m3ret_files::sync_folder(folder)?;
        Ok(Self { path, contents })
    }

    /// Removes the file: the erasure is complete.
    pub(super) fn remove(&self) -> crate::Result<()> {
        let removed = std::fs::remove_file(&self.path);
        let doing = || format!("removing {}", printable_path(&self.path));
        Ok(removed.with_context(doing)?)
    }
}
