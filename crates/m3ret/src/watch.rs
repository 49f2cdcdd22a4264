//! Who follows the work: progress, notes, and whether it is to stop.

use std::fmt;

/// Follows the work of the library. Every method has a default, so that a watcher says only what it cares for.
///
/// Calls come from the thread that called the library, in order.
pub trait Watch {
    /// A step begins that takes a while and cannot be counted.
    fn step(&self, _name: &str) {}

    /// So many objects are going to be worked on.
    fn count(&self, _n_objects: usize) {}

    /// One object more is done; `n_refused` were refused so far.
    fn advance(&self, _n_refused: usize) {}

    /// A person should know this; it is no error.
    fn note(&self, _sentence: &str) {}

    /// From now on an interrupt has to wait until what is done is saved (`true`), or does not (`false`).
    fn defer(&self, _is_deferred: bool) {}

    /// Returns whether the work is to stop. What is done is then saved, and `Stopped` is returned.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// Follows nothing.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "for programs other than the command line")
)]
pub struct Quiet;

impl Watch for Quiet {}

/// While this exists, an interrupt waits until what is done is saved.
pub struct Deferral<'a>(&'a dyn Watch);

impl<'a> Deferral<'a> {
    pub fn start(watch: &'a dyn Watch) -> Self {
        watch.defer(true);
        Self(watch)
    }

    pub fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}

impl Drop for Deferral<'_> {
    fn drop(&mut self) {
        self.0.defer(false);
    }
}

/// The work ended because its watcher asked for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// What is saved, and how to go on.
    pub saved: String,
}

impl fmt::Display for Stopped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.saved)
    }
}

impl std::error::Error for Stopped {}
