//! What can go wrong between a PACS and the disk, by who must act.

use std::io;
use std::path::Path;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by who must act. No text holds what a header or an answer says: only our words, numbers and places
/// that the caller named.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine: a file, a folder or a socket.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The PACS is away, busy or cut an answer short: another try may help.
    #[error("{what}: {found}")]
    Unreachable {
        /// What was asked.
        what: &'static str,
        /// What came instead of an answer.
        found: String,
    },
    /// The PACS refuses: another try does not help.
    #[error("{what}: found {found}, wanted {wanted}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// What came.
        found: String,
        /// What was wanted, and what to do.
        wanted: &'static str,
    },
    /// What came breaks its format.
    #[error("{what}: found {found}, wanted {wanted}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// What was found.
        found: String,
        /// What was wanted.
        wanted: &'static str,
    },
    /// What came is larger than allowed.
    #[error("{what}: at most {allowed} are allowed")]
    LimitExceeded {
        /// What is bounded.
        what: &'static str,
        /// The bound.
        allowed: u64,
    },
    /// The caller: what was asked for.
    #[error("{0}")]
    Caller(String),
    /// The archive that takes the images.
    #[error("adding to the archive")]
    Archive(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The caller stopped the work; what is done is saved.
    #[error("interrupted; what is done is in the archive, and the same command resumes")]
    Stopped,
}

impl Error {
    /// Returns whether another try may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Returns one word for counts.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { .. } => "refused",
            Self::Malformed { .. } => "malformed",
            Self::LimitExceeded { .. } => "limit_exceeded",
            Self::Caller(_) => "caller",
            Self::Archive(_) => "archive",
            Self::Stopped => "stopped",
        }
    }

    /// Describes a failed operation on a place that the caller named.
    pub(crate) fn io(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let doing = format!("{doing} {}", path.display());
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn malformed(
        what: &'static str,
        found: impl Into<String>,
        wanted: &'static str,
    ) -> Self {
        Self::Malformed {
            what,
            found: found.into(),
            wanted,
        }
    }
}
