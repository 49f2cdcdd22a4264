//! HTML pages for people; each is one file that needs no network and no other file.

#[cfg(feature = "training")]
mod chart;
#[cfg(feature = "training")]
mod picture;
pub(crate) mod shell;
#[cfg(feature = "training")]
pub mod training;
pub(crate) mod viewer;
