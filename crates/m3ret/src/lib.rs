//! Finds similar medical images: archives of X-rays, CT, MR, ultrasound and video as unit vectors, asked by image.
//!
//! This library is what the command line, servers and other programs share. It prints nothing, ends no program and
//! starts no global thread pool: who calls it follows the work as a [`watch::Watch`] and decides what is shown.
//!
//! Opens a folder of images, asks which are most similar to one, and says why:
//!
//! ```
//! use m3ret::galleries::{Archive, OpenOptions};
//! use m3ret::options::ModelChoice;
//! use m3ret::search::{Ask, Queries};
//! use m3ret::watch::Quiet;
//!
//! # let folder = tempfile::tempdir()?;
//! # std::fs::create_dir(folder.path().join("archive"))?;
//! # for i in 0..3_u8 {
//! #     let place = folder.path().join(format!("archive/{i}.png"));
//! #     let pixels: Vec<u8> = (0..64 * 64_u32).map(|at| (at * u32::from(i + 1) / 16 % 251) as u8).collect();
//! #     std::fs::write(place, m3ret_imaging::encode_png(m3ret_imaging::Pixels::Grey8(&pixels), 64, 64)?)?;
//! # }
//! # let place = folder.path().join("archive");
//! let options = OpenOptions {
//!     model: ModelChoice::named("random:tiny"),
//! #   cache: Some(folder.path().join("cache")),
//!     ..OpenOptions::default()
//! };
//! let mut archive = Archive::open(&place, &options, &Quiet)?;
//! let queries = Queries::images([place.join("0.png")]);
//! let found = archive.ask(&queries, &Ask { k: 2, ..Ask::default() }, &Quiet)?;
//! for hit in &found.answers[0].hits {
//!     println!("{} {:.3} {}", hit.rank, hit.score, hit.file);
//! }
//! let why = archive.explain(&found.answers[0], 0)?;
//! assert!(why.is_some_and(|why| why.score_without <= 1.0));
//! # assert_eq!(found.answers[0].hits.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod check;
mod choices;
pub mod compare;
pub mod dedup;
pub mod doctor;
pub mod duplicates;
pub mod embed;
pub mod erase;
mod error;
pub mod evaluate;
pub mod evaluation;
mod file_patterns;
pub mod files;
pub mod galleries;
pub mod images;
pub mod index;
pub mod inspect;
pub mod lake;
pub mod map;
pub mod model_name;
mod objects;
pub mod options;
pub mod panics;
pub mod report;
pub mod sealed;
pub mod search;
pub mod simulate;
pub mod split;
#[cfg(feature = "training")]
pub mod study;
mod vectors;
pub mod watch;
pub mod words;

pub use error::{Cause, Error, Result};
