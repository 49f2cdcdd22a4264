//! How a caller follows the work: progress, notes, and whether to stop.

use std::fmt;

/// Follows the work of the library.
///
/// Every method has a default that does nothing. The library calls the methods in order, from the thread that
/// called the library.
pub trait Watch {
    /// A step begins whose length is unknown; `name` is shown to people.
    fn step(&self, _name: &str) {}

    /// Work on `n_objects` objects begins.
    fn count(&self, _n_objects: usize) {}

    /// Another object is done; `n_refused` were refused so far.
    fn advance(&self, _n_refused: usize) {}

    /// Receives a sentence that a person should read; it is no error.
    fn note(&self, _sentence: &str) {}

    /// From now on, an interrupt waits until finished work is saved (`true`), or may end the program (`false`).
    fn defer(&self, _is_deferred: bool) {}

    /// Returns whether the work is to stop. The library then saves what is done and returns `Stopped`.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// A watcher that ignores everything and never stops the work.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Watch for Quiet {}

/// While this value exists, an interrupt waits until finished work is saved.
pub(crate) struct Deferral<'a>(&'a dyn Watch);

impl<'a> Deferral<'a> {
    pub(crate) fn start(watch: &'a dyn Watch) -> Self {
        watch.defer(true);
        Self(watch)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}

impl Drop for Deferral<'_> {
    fn drop(&mut self) {
        self.0.defer(false);
    }
}

/// The error of work that ended because its watcher stopped it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// What is saved and how to resume, as a sentence for people.
    pub saved: String,
}

impl Stopped {
    /// Checks whether the work may go on.
    ///
    /// # Errors
    /// `Stopped` with this sentence if the watcher wants it to stop.
    pub fn check(watch: &dyn Watch, saved: &str) -> Result<(), Self> {
        match watch.is_stopped() {
            false => Ok(()),
            true => Err(Self {
                saved: saved.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.saved)
    }
}

impl std::error::Error for Stopped {}
