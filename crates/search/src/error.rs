//! The crate's one error type, grouped by who must act.

use std::path::{Path, PathBuf};

/// Why there is no gallery or no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine failed: a disk, memory.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The machine's own answer.
        source: std::io::Error,
    },
    /// A file of the gallery is not what was written: a checksum, a size or a rule disagrees.
    #[error("{} is damaged: {found}; {advice}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What disagrees.
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// The folder is no gallery, or one of a later version.
    #[error("{}: {found}; {wanted}", path.display())]
    Unsupported {
        /// The file or folder.
        path: PathBuf,
        /// What was found.
        found: String,
        /// What is wanted, and what to do.
        wanted: String,
    },
    /// More was asked than is allowed.
    #[error("{what}: {asked} asked, {allowed} allowed")]
    LimitExceeded {
        /// The limited quantity with its unit.
        what: &'static str,
        /// The limit.
        allowed: u64,
        /// What was asked.
        asked: u64,
    },
    /// The caller's arguments do not fit each other or the gallery.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// What was compared.
        what: String,
        /// The expected value.
        expected: String,
        /// The value that came.
        got: String,
    },
    /// Rows of patients who were erased from the gallery.
    #[error(
        "{n_rows} of the rows are refused (erased): their patients were erased from {}; leave them out, or allow the patient again with \
         `m3ret erase --allow-again`",
        path.display()
    )]
    Erased {
        /// The gallery.
        path: PathBuf,
        /// How many rows.
        n_rows: usize,
    },
    /// Another process writes to the gallery.
    #[error("another process writes to {}; wait until it is done", path.display())]
    Locked {
        /// The gallery.
        path: PathBuf,
    },
}

impl Error {
    /// Makes the machine's answer an error that says what was being done to what.
    pub(crate) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    pub(crate) fn damaged(path: &Path, found: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            found: found.into(),
            advice: "`m3ret index verify` lists all damage, and with --repair rebuilds what is provable",
        }
    }

    pub(crate) fn mismatch(
        what: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self::Mismatch {
            what: what.into(),
            expected: expected.into(),
            got: got.into(),
        }
    }
}

/// The crate's results.
pub type Result<T> = std::result::Result<T, Error>;
