//! HTML pages for people; each is one file that needs no network and no other file.

mod chart;
mod picture;
pub(crate) mod shell;
pub mod training;
pub(crate) mod viewer;
