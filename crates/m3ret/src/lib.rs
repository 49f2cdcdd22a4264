//! Finds similar medical images: archives of X-rays, CT, MR, ultrasound and video as unit vectors, asked by image.
//!
//! This library is what the command line, servers and other programs share. It prints nothing, ends no program and
//! starts no global thread pool: who calls it follows the work as a `Watch` and decides what is shown.

pub mod check;
pub mod compare;
pub mod dedup;
pub mod duplicates;
pub mod embed;
pub mod evaluate;
pub mod evaluation;
pub mod files;
pub mod galleries;
pub mod index;
pub mod inspect;
pub mod map;
pub mod model_name;
mod objects;
pub mod options;
pub mod panics;
pub mod report;
pub mod search;
pub mod simulate;
pub mod split;
pub mod study;
mod vectors;
pub mod watch;
pub mod words;
