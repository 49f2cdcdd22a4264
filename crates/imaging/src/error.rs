//! The crate's one error type, grouped by who must act.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::reason::Code;

/// Why nothing could be read; the caller adds the path.
///
/// Messages name formats, tags, offsets and sizes, never a value that could identify a patient.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine failed: a disk, a pipe, a missing program.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// The machine's own answer.
        source: std::io::Error,
    },
    /// The file breaks the rules of its format, or its geometry contradicts itself.
    #[error("{format}: found {found}, wanted {wanted}")]
    Malformed {
        /// The format whose rule is broken.
        format: &'static str,
        /// A reason code more exact than `malformed`, where there is one.
        code: Code,
        /// What the file holds.
        found: String,
        /// What the format asks for.
        wanted: String,
    },
    /// The file is valid, and this program cannot read it.
    #[error("{format}: {feature} is not supported; {advice}")]
    Unsupported {
        /// The format.
        format: &'static str,
        /// The feature by name, e.g. the transfer syntax.
        feature: String,
        /// What a person can do about it.
        advice: String,
    },
    /// Reading would cost more than the caller allowed.
    #[error("{what}: {asked} asked, {allowed} allowed{}", advice(what))]
    LimitExceeded {
        /// The limited quantity with its unit.
        what: &'static str,
        /// The limit.
        allowed: u64,
        /// What the file asks for.
        asked: u64,
    },
    /// One file of several is at fault.
    #[error("in {name}: {source}")]
    InFile {
        /// The file's name, without its folder.
        name: String,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// The caller's arguments do not fit each other.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// What was compared.
        what: &'static str,
        /// The expected value.
        expected: String,
        /// The value that came.
        got: String,
    },
}

impl Error {
    /// Says that the machine failed while doing `action`.
    pub fn io(action: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            action: action.into(),
            source,
        }
    }

    /// Says that a file breaks its format.
    pub fn malformed(
        format: &'static str,
        found: impl Into<String>,
        wanted: impl Into<String>,
    ) -> Self {
        Self::refused(format, Code::Malformed, found, wanted)
    }

    /// Says that a file breaks its format in a way that has a reason code of its own.
    pub fn refused(
        format: &'static str,
        code: Code,
        found: impl Into<String>,
        wanted: impl Into<String>,
    ) -> Self {
        Self::Malformed {
            format,
            code,
            found: found.into(),
            wanted: wanted.into(),
        }
    }

    /// Says that a valid file needs a feature that is not there.
    pub fn unsupported(
        format: &'static str,
        feature: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::Unsupported {
            format,
            feature: feature.into(),
            advice: advice.into(),
        }
    }

    /// Says which of several files is at fault.
    #[must_use]
    pub fn in_file(self, path: &std::path::Path) -> Self {
        let name = path.file_name().unwrap_or_default();
        Self::InFile {
            name: name.to_string_lossy().into_owned(),
            source: Box::new(self),
        }
    }

    /// Returns what was found, without what was wanted: the rule that is broken, or the feature.
    #[must_use]
    pub fn found(&self) -> Option<&str> {
        match self {
            Self::Malformed { found, .. } => Some(found),
            Self::Unsupported { feature, .. } => Some(feature),
            Self::Mismatch { got, .. } => Some(got),
            Self::InFile { source, .. } => source.found(),
            Self::Io { .. } | Self::LimitExceeded { .. } => None,
        }
    }

    /// Returns the reason code under which reports count this error.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Io { .. } => Code::Io,
            Self::Malformed { code, .. } => *code,
            Self::Unsupported { .. } => Code::Unsupported,
            Self::LimitExceeded { .. } => Code::LimitExceeded,
            Self::InFile { source, .. } => source.code(),
            Self::Mismatch { .. } => Code::Mismatch,
        }
    }
}

/// Says which limit of the command line can be raised; some are fixed.
fn advice(what: &str) -> String {
    let name = match what {
        "voxels of one object" => "voxels",
        "bytes" => "bytes",
        "decompressed bytes" => "ratio or bytes",
        "frames" => "frames",
        "parts of one object" => "parts",
        "depth of nested sequences" => "depth",
        "seconds of decoding in child processes" => "seconds",
        _ => return String::new(),
    };
    format!("; raise --limit {name} if the file is trusted")
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Runs a decoder of others' code: a panic in it is `failed`, and must not end a walk over an archive.
pub(crate) fn guarded<T>(
    decode: impl FnOnce() -> Result<T>,
    failed: impl FnOnce() -> Error,
) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(failed()))
}
