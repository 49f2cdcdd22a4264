//! Pages for people: one file each, that needs no network and no other file.

mod chart;
mod picture;
pub mod shell;
pub mod training;
