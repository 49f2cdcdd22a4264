//! What can go wrong, by who must act.

use std::fmt;

use crate::watch::Stopped;

/// A result of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by who must act.
///
/// It shows as one sentence; `std::error::Error::source` leads to the causes below it.
#[derive(Debug)]
pub enum Error {
    /// An image: whoever keeps the archive.
    Image(Cause),
    /// A model: whoever made or chose it.
    Model(Cause),
    /// A gallery: damaged, locked by another writer, or of another model.
    Gallery(Cause),
    /// A training run: its settings, its images, or its loss.
    Training(Cause),
    /// A file or folder: the machine.
    Io(Cause),
    /// What was asked: the caller.
    Caller(Cause),
    /// The watcher stopped the work; what is done is saved.
    Stopped(Stopped),
}

/// Why something went wrong.
pub struct Cause(anyhow::Error);

impl fmt::Debug for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

impl Error {
    /// Returns the cause, or the stop where there is none.
    fn cause(&self) -> std::result::Result<&Cause, &Stopped> {
        match self {
            Self::Image(cause)
            | Self::Model(cause)
            | Self::Gallery(cause)
            | Self::Training(cause)
            | Self::Io(cause)
            | Self::Caller(cause) => Ok(cause),
            Self::Stopped(stopped) => Err(stopped),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause() {
            Ok(cause) => fmt::Display::fmt(&cause.0, formatter),
            Err(stopped) => fmt::Display::fmt(stopped, formatter),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.cause() {
            Ok(cause) => Some(cause.0.as_ref()),
            Err(stopped) => Some(stopped),
        }
    }
}

impl From<anyhow::Error> for Error {
    /// Sorts an error by the deepest cause that says whose it is.
    fn from(error: anyhow::Error) -> Self {
        // An error of this library that went through a callback comes back as it was.
        let error = match error.downcast::<Self>() {
            Ok(own) => return own,
            Err(error) => error,
        };
        let error = match error.downcast::<Stopped>() {
            Ok(stopped) => return Self::Stopped(stopped),
            Err(error) => error,
        };
        let has = |is: fn(&(dyn std::error::Error + 'static)) -> bool| error.chain().any(is);
        if has(|cause| cause.is::<m3ret_search::Error>()) {
            Self::Gallery(Cause(error))
        } else if has(|cause| cause.is::<m3ret_encoder::Error>()) {
            Self::Model(Cause(error))
        } else if has(is_of_training) {
            Self::Training(Cause(error))
        } else if has(|cause| cause.is::<m3ret_imaging::Error>()) {
            Self::Image(Cause(error))
        } else if has(|cause| cause.is::<std::io::Error>() || cause.is::<m3ret_files::Error>()) {
            Self::Io(Cause(error))
        } else {
            Self::Caller(Cause(error))
        }
    }
}

#[cfg(feature = "training")]
fn is_of_training(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<m3ret_pretrain::Error>()
}

#[cfg(not(feature = "training"))]
fn is_of_training(_: &(dyn std::error::Error + 'static)) -> bool {
    false
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        anyhow::Error::new(error).into()
    }
}

impl From<m3ret_files::Error> for Error {
    fn from(error: m3ret_files::Error) -> Self {
        anyhow::Error::new(error).into()
    }
}

impl From<m3ret_files::Refusal> for Error {
    fn from(refusal: m3ret_files::Refusal) -> Self {
        anyhow::Error::new(refusal).into()
    }
}

impl From<m3ret_imaging::Error> for Error {
    fn from(error: m3ret_imaging::Error) -> Self {
        anyhow::Error::new(error).into()
    }
}

impl From<m3ret_encoder::Error> for Error {
    fn from(error: m3ret_encoder::Error) -> Self {
        anyhow::Error::new(error).into()
    }
}

impl From<m3ret_search::Error> for Error {
    fn from(error: m3ret_search::Error) -> Self {
        anyhow::Error::new(error).into()
    }
}

#[cfg(feature = "training")]
impl From<m3ret_pretrain::Error> for Error {
    fn from(error: m3ret_pretrain::Error) -> Self {
        anyhow::Error::new(error).into()
    }
}

impl From<Stopped> for Error {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

/// Returns an error of this text, from functions with this library's errors or with causes.
macro_rules! bail {
    ($($text:tt)*) => {
        return Err(anyhow::anyhow!($($text)*).into())
    };
}

/// Returns an error of this text unless something holds.
macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        let holds: bool = $holds;
        if !holds {
            return Err(anyhow::anyhow!($($text)*).into());
        }
    };
}

pub(crate) use {bail, ensure};

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn errors_are_sorted_by_who_must_act_and_keep_their_words() {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let in_context = Err::<(), _>(missing())
            .context("reading a.png")
            .unwrap_err();
        let io = Error::from(in_context);
        assert!(matches!(io, Error::Io(_)));
        assert_eq!(io.to_string(), "reading a.png");
        let causes: Vec<String> = anyhow::Error::new(io)
            .chain()
            .map(ToString::to_string)
            .collect();
        assert!(causes.last().unwrap().contains("not found"), "{causes:?}");
        let caller = Error::from(anyhow::anyhow!("k is 0"));
        assert!(matches!(caller, Error::Caller(_)));
        let again = Error::from(anyhow::Error::new(caller));
        assert!(matches!(again, Error::Caller(_)));
        let stopped = Stopped {
            saved: "all of it".to_owned(),
        };
        let stopped = Error::from(anyhow::Error::new(stopped));
        assert_eq!(stopped.to_string(), "all of it");
        assert!(matches!(stopped, Error::Stopped(_)));
    }
}
