//! Errors of the library as exceptions of the package.

use m3ret::Error;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyModule;

/// The classes of `m3ret._errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Any,
    Mismatch,
    Damaged,
    Locked,
    File,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Any => "M3retError",
            Self::Mismatch => "MismatchError",
            Self::Damaged => "DamagedError",
            Self::Locked => "LockedError",
            Self::File => "FileError",
        }
    }
}

/// Returns an exception with a sentence.
pub(crate) fn exception(py: Python<'_>, class: Class, sentence: String) -> PyErr {
    raised(py, class.name(), (sentence,))
}

/// Returns the exception of an image that was refused.
pub(crate) fn refused(py: Python<'_>, sentence: String, reason: &str) -> PyErr {
    raised(py, "Refused", (sentence, reason))
}

fn raised<'py>(py: Python<'py>, name: &str, arguments: impl pyo3::call::PyCallArgs<'py>) -> PyErr {
    let made = PyModule::import(py, "m3ret._errors")
        .and_then(|module| module.getattr(name))
        .and_then(|class| class.call1(arguments));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// Returns an error of the library as an exception.
pub(crate) fn of_library(py: Python<'_>, error: &Error) -> PyErr {
    let sentence = told(error);
    match error {
        Error::Stopped(_) => PyKeyboardInterrupt::new_err(sentence),
        Error::Image(_) => {
            let cause = cause::<m3ret_imaging::Error>(error);
            let reason = cause.map_or("io", |cause| cause.code().as_str());
            refused(py, sentence, reason)
        }
        Error::Gallery(_) => {
            let class = cause(error).map_or(Class::Any, class_of_gallery);
            exception(py, class, sentence)
        }
        Error::Model(_) => {
            let is_mismatch = matches!(cause(error), Some(m3ret_encoder::Error::Mismatch { .. }));
            let class = if is_mismatch {
                Class::Mismatch
            } else {
                Class::Any
            };
            exception(py, class, sentence)
        }
        Error::Io(_) => exception(py, Class::File, sentence),
        Error::Caller(_) => exception(py, Class::Mismatch, sentence),
        Error::Training(_) => exception(py, Class::Any, sentence),
    }
}

fn class_of_gallery(error: &m3ret_search::Error) -> Class {
    use m3ret_search::Error as Gallery;
    match error {
        Gallery::Io { .. } => Class::File,
        Gallery::Damaged { .. } => Class::Damaged,
        Gallery::Locked { .. } => Class::Locked,
        Gallery::Mismatch { .. } => Class::Mismatch,
        Gallery::Erased { .. } | Gallery::Unsupported { .. } | Gallery::LimitExceeded { .. } => {
            Class::Any
        }
    }
}

/// Returns the first cause of a type.
fn cause<T: std::error::Error + 'static>(error: &Error) -> Option<&T> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref() {
            return Some(found);
        }
        next = current.source();
    }
    None
}

/// Joins an error and its causes, without what an earlier one says already.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut next = error.source();
    while let Some(current) = next {
        let cause = current.to_string();
        if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
        next = current.source();
    }
    message
}
