//! HTML pages for people; each is one file that needs no network and no other file.

#[cfg(feature = "training")]
mod chart;
#[cfg(feature = "training")]
mod picture;
pub(crate) mod shell;
#[cfg(feature = "training")]
pub mod training;
pub(crate) mod viewer;

pub use viewer::{Pictures, View, hu_levels};

/// The palette and the elements of every page, for pages that are served with a style sheet of their own.
pub const BASE_STYLE: &str = shell::BASE;

/// The rules of the page of a search.
pub const SEARCH_STYLE: &str = include_str!("report/web/search.css");

/// The rules of pictures and buttons that pages of images share.
pub const VIEWER_STYLE: &str = viewer::STYLE;

/// What pages of searches share, after `VIEWER_SCRIPT`: `agreementOf`, `seenFrom`, `step` and others. The page has `state.hit`
/// and `mark`.
pub const HITS_SCRIPT: &str = include_str!("report/web/hits.js");

/// What pages of images share: `make`, `clamp` and `viewer`.
pub const VIEWER_SCRIPT: &str = include_str!("report/web/viewer.js");
