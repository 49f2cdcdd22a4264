//! Why a run cannot start or go on.

use std::path::PathBuf;

/// Result of everything that trains.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a run cannot start or go on, grouped by who must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting makes no sense. The person who wrote the config must act.
    #[error("setting {setting}: expected {expected}, found {found}")]
    Config {
        /// The key, e.g. `train.batch`.
        setting: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The TOML itself is wrong.
    #[error("{path}: {message}", path = path.display())]
    Toml {
        /// The config file.
        path: PathBuf,
        /// Where and why, without values of other keys.
        message: String,
    },
    /// The images cannot serve as asked, e.g. MR among them or none at all.
    #[error("{what}: {advice}")]
    Images {
        /// What was found.
        what: String,
        /// What to do.
        advice: String,
    },
    /// Files of a run that are missing, damaged or of another run.
    #[error("{path}: {message}", path = path.display())]
    Run {
        /// The file or folder.
        path: PathBuf,
        /// What was found, what was wanted, what to do.
        message: String,
    },
    /// Training went wrong: a loss that is no number, or a collapse.
    #[error("step {step}: {message}")]
    Diverged {
        /// The optimiser step, from 0.
        step: u64,
        /// What was seen, with seed and rows, and what to do.
        message: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An output that is refused, so that nothing of the user's is lost.
    #[error(transparent)]
    Output(#[from] m3ret_files::Refusal),
    /// An image or manifest could not be read.
    #[error(transparent)]
    Imaging(#[from] m3ret_imaging::Error),
    /// A model folder could not be read.
    #[error(transparent)]
    Encoder(#[from] m3ret_encoder::Error),
}

impl Error {
    pub(crate) fn config(
        setting: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Config {
            setting: setting.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn run(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::Run {
            path: path.into(),
            message: message.into(),
        }
    }

    /// Returns the word that reports count.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config { .. } | Self::Toml { .. } => "config",
            Self::Images { .. } => "images",
            Self::Run { .. } | Self::Output(_) => "run",
            Self::Diverged { .. } => "diverged",
            Self::Io { .. } => "io",
            Self::Imaging(error) => error.code().as_str(),
            Self::Encoder(_) => "model",
        }
    }
}
