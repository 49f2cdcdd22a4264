//! The crate's one error type, grouped by who must act.

use std::path::Path;

/// The reason that a model cannot be opened or an object not embedded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine failed: a disk, memory.
    #[error("{action}: {source}")]
    Io {
        /// The action that failed.
        action: String,
        /// The machine's error.
        source: std::io::Error,
    },
    /// A file of the model breaks the rules of its format, or its tensors do not fit its config.
    #[error("{file}: found {found}, wanted {wanted}")]
    Malformed {
        /// The file's name, without its folder.
        file: String,
        /// What the file holds.
        found: String,
        /// What was wanted.
        wanted: String,
    },
    /// The model is valid, but this program cannot run it.
    #[error("{feature} is not supported; {advice}")]
    Unsupported {
        /// The feature by name, e.g. the model type.
        feature: String,
        /// The advice to the user.
        advice: String,
    },
    /// Running would cost more than is allowed.
    #[error("{what}: {asked} asked, {allowed} allowed")]
    LimitExceeded {
        /// The limited quantity with its unit.
        what: &'static str,
        /// The limit.
        allowed: u64,
        /// The amount that was asked for.
        asked: u64,
    },
    /// The caller's arguments do not fit each other or the model.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// The quantity that was compared.
        what: &'static str,
        /// The expected value.
        expected: String,
        /// The value that was given.
        got: String,
    },
    /// The object cannot be prepared for the model.
    #[error(transparent)]
    Imaging(#[from] m3ret_imaging::Error),
}

impl Error {
    /// Says that the machine failed while doing `action`.
    pub fn io(action: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            action: action.into(),
            source,
        }
    }

    /// Says that a file of the model is wrong.
    pub fn malformed(path: &Path, found: impl Into<String>, wanted: impl Into<String>) -> Self {
        let name = path.file_name().unwrap_or_default();
        Self::Malformed {
            file: name.to_string_lossy().into_owned(),
            found: found.into(),
            wanted: wanted.into(),
        }
    }

    /// Says that a valid model needs what is not there.
    pub fn unsupported(feature: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Unsupported {
            feature: feature.into(),
            advice: advice.into(),
        }
    }

    /// Says that two things do not fit each other.
    pub fn mismatch(
        what: &'static str,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self::Mismatch {
            what,
            expected: expected.into(),
            got: got.into(),
        }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
