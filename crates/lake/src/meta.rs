//! `meta.json`: what a lake is, and which version of its table counts.

use std::path::{Path, PathBuf};

use m3ret_search::{Error, MAX_WIDTH, Maker, Numbers, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cells::damaged;
use crate::objects::{Objects, State};
use crate::place::META;

/// The format that is read and written.
const FORMAT: u32 = 1;
/// How often a change begins again because another writer was faster.
const MAX_ATTEMPTS: usize = 64;

/// How thorough a search is that looks for some hits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Most hits that it was measured for.
    pub k: usize,
    /// Lists that are looked at.
    pub nprobes: usize,
    /// The same with filters that leave out most rows.
    pub nprobes_filtered: usize,
    /// Vectors that are read for each hit.
    pub refine: usize,
    /// Share of the exact best hits that was found.
    pub recall: f64,
    /// The same with such filters.
    pub recall_filtered: f64,
}

/// How a lake is searched, and how good that was when it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plans {
    /// Rows at that time.
    pub n_rows: usize,
    /// Lists of the index.
    pub n_lists: usize,
    /// Queries by which it was measured.
    pub n_queries: usize,
    /// The share of the exact best hits that was wanted.
    pub target: f64,
    /// In ascending order of `k`.
    pub levels: Vec<Level>,
}

/// The content of `meta.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    pub(crate) format: u32,
    pub(crate) maker: Maker,
    pub(crate) width: usize,
    pub(crate) numbers: Numbers,
    /// Tells the key of the hashes from every other one.
    pub(crate) key_check: String,
    /// Number of changes of this object.
    pub(crate) generation: u64,
    /// The version of the table that readers open; 0 before there is any row.
    pub(crate) published: u64,
    /// Number of erasures: what readers keep of files that held erased rows is removed when it changes.
    pub(crate) n_purges: u64,
    /// Names of the views that rows have further vectors of, in ascending order.
    pub(crate) views: Vec<String>,
    /// How it is searched; `None` while every vector is looked at.
    pub(crate) plans: Option<Plans>,
    /// The object with what was measured of first hits, and the rows at that time.
    pub(crate) statistics: Option<Measured>,
}

/// An object that belongs to a lake of so many rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measured {
    pub(crate) object: String,
    pub(crate) n_rows: usize,
}

impl Meta {
    pub(crate) fn new(maker: Maker, width: usize, numbers: Numbers, key_check: String) -> Self {
        Self {
            format: FORMAT,
            maker,
            width,
            numbers,
            key_check,
            generation: 1,
            published: 0,
            n_purges: 0,
            views: Vec::new(),
            plans: None,
            statistics: None,
        }
    }

    /// Reads what a lake is.
    ///
    /// # Errors
    /// `Unsupported` if there is no lake, or one of a later format; `Damaged`; `Io`.
    pub(crate) async fn read(objects: &Objects, path: &Path) -> Result<(Self, State)> {
        let unsupported = |found: String, wanted: &str| Error::Unsupported {
            path: path.to_owned(),
            found,
            wanted: wanted.to_owned(),
        };
        let Some((bytes, state)) = objects.get(META).await? else {
            let wanted =
                "`m3ret lake create` makes a lake, and `m3ret lake import` one of a gallery";
            return Err(unsupported(format!("no {META}"), wanted));
        };
        #[derive(Deserialize)]
        struct Formatted {
            format: u32,
        }
        let path = named(path);
        let Formatted { format } = parse(&bytes, &path)?;
        if format != FORMAT {
            let found = format!("a lake of format {format}");
            return Err(unsupported(
                found,
                "this program reads format 1; use a newer m3ret",
            ));
        }
        let meta: Self = parse(&bytes, &path)?;
        let is_width = (1..=MAX_WIDTH).contains(&meta.width);
        let plans = meta.plans.iter().flat_map(|plans| &plans.levels);
        let mut levels =
            plans.map(|level| level.nprobes.min(level.nprobes_filtered).min(level.refine));
        if !is_width || levels.any(|least| least == 0) {
            let found = format!(
                "numbers that no lake has: width {}, or a plan with 0",
                meta.width
            );
            return Err(damaged(&path, &found));
        }
        Ok((meta, state))
    }

    /// Changes it as one step; `change` is asked again if another writer was faster, and returns whether there is
    /// something to change.
    pub(crate) async fn update(
        objects: &Objects,
        path: &Path,
        mut change: impl FnMut(&mut Self) -> bool + Send,
    ) -> Result<Self> {
        for _ in 0..MAX_ATTEMPTS {
            let (mut meta, state) = Self::read(objects, path).await?;
            if !change(&mut meta) {
                return Ok(meta);
            }
            meta.generation += 1;
            if !objects.put(META, to_bytes(&meta), Some(&state)).await? {
                return Ok(meta);
            }
        }
        Err(Error::Locked {
            path: path.to_owned(),
        })
    }
}

pub(crate) fn named(path: &Path) -> PathBuf {
    path.join(META)
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| damaged(path, &error.to_string()))
}

pub(crate) fn to_bytes<T: Serialize>(value: &T) -> bytes::Bytes {
    // What is written here has no maps with keys that are no text, the only thing that JSON refuses.
    serde_json::to_vec(value).unwrap_or_default().into()
}
