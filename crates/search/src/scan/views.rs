//! Several vectors a row or a query: which pairs are compared, and what becomes of their scores.

use std::borrow::Cow;

use rayon::prelude::*;

use super::pass::Chunk;
use super::{Queries, RowHit};
use crate::collection::Collection;
use crate::embedding::normalize;
use crate::error::{Error, Result};
use crate::gallery::segment::views::OWN_VIEW;
use crate::gallery::{Gallery, RowId};
use crate::names::is_slice;

/// What a pair of vectors loses if one of them is a further one, where the caller says nothing else.
///
/// # Source
/// docs/search.md, "Projections of volumes": chosen on patients that no benchmark has.
pub const DEFAULT_HANDICAP: f32 = 0.15;

/// Which vectors of rows and queries a search compares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Views {
    /// The rows' own vectors with the queries' own.
    Own,
    /// All but those of slices. A row's score is the best over all pairs of a vector of the query and one of the row.
    Projections {
        /// What the score of a pair loses, once, if either of its vectors is a further one; 0 or more.
        handicap: f32,
    },
    /// The queries' own vectors with the rows' own and those of their slices; no pair loses anything.
    Slices,
}

impl Default for Views {
    fn default() -> Self {
        Self::Projections {
            handicap: DEFAULT_HANDICAP,
        }
    }
}

impl Views {
    /// Checks the handicap.
    ///
    /// # Errors
    /// `Mismatch` if it is negative or not finite.
    pub fn check(self) -> Result<()> {
        match self {
            Self::Projections { handicap } if !(handicap.is_finite() && handicap >= 0.0) => {
                let wanted = "a finite number of 0 or more";
                Err(Error::mismatch("handicap", wanted, handicap.to_string()))
            }
            Self::Projections { .. } | Self::Own | Self::Slices => Ok(()),
        }
    }

    /// Returns which vectors of rows are compared.
    pub(super) fn kinds(self) -> Kinds {
        match self {
            Self::Own => Kinds::Own,
            Self::Projections { .. } => Kinds::Projections,
            Self::Slices => Kinds::Slices,
        }
    }

    /// Returns what pairs with a further vector lose.
    fn handicap(self) -> f32 {
        match self {
            // Rules allow no further vector here; with such scores, few of them are asked for.
            Self::Own => f32::INFINITY,
            Self::Projections { handicap } => handicap,
            Self::Slices => 0.0,
        }
    }
}

/// Which vectors of rows are compared: their own, and those of some views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kinds {
    Own,
    /// All but slices.
    Projections,
    Slices,
}

impl Kinds {
    /// Their number.
    pub(crate) const N: usize = 3;

    /// Returns whether vectors of a view are compared; the name of a row's own vector is empty.
    pub(super) fn has(self, view: &str) -> bool {
        match self {
            _ if view.is_empty() => true,
            Self::Own => false,
            Self::Projections => !is_slice(view),
            Self::Slices => is_slice(view),
        }
    }
}

/// One vector that is searched for.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueryVector {
    /// Number of its query.
    pub(super) query: u32,
    /// Which of the query's further vectors it is; `None`: its own.
    pub(super) further: Option<u32>,
}

/// All vectors that are searched for, those of a query side by side.
pub(super) struct Asked<'a> {
    /// [query vectors, width]
    vectors: Cow<'a, [f32]>,
    of: Vec<QueryVector>,
    n_queries: usize,
    width: usize,
    handicap: f32,
}

impl<'a> Asked<'a> {
    pub(super) fn new(queries: Queries<'a>, width: usize, views: Views) -> Self {
        let n_queries = queries.vectors.len() / width;
        let numbers = 0..u32::try_from(n_queries).unwrap_or(u32::MAX);
        let own = numbers.map(|query| QueryVector {
            query,
            further: None,
        });
        let mut asked = Self {
            vectors: Cow::Borrowed(queries.vectors),
            of: own.collect(),
            n_queries,
            width,
            handicap: views.handicap(),
        };
        let has_further = matches!(views, Views::Projections { .. });
        if !has_further || queries.further.iter().all(Vec::is_empty) {
            return asked;
        }
        let (mut vectors, mut all) = (Vec::new(), Vec::new());
        let own = queries.vectors.chunks_exact(width);
        for ((of, own), further) in asked.of.iter().zip(own).zip(queries.further) {
            vectors.extend_from_slice(own);
            vectors.extend_from_slice(further);
            all.push(*of);
            let numbers = (0_u32..).take(further.len() / width);
            all.extend(numbers.map(|number| QueryVector {
                further: Some(number),
                ..*of
            }));
        }
        (asked.vectors, asked.of) = (Cow::Owned(vectors), all);
        asked
    }

    pub(super) fn n_queries(&self) -> usize {
        self.n_queries
    }

    pub(super) fn has_further(&self) -> bool {
        self.of.len() > self.n_queries
    }

    /// Returns one query alone, as number 0.
    pub(super) fn only(&self, query: usize) -> Asked<'_> {
        let start = self.of.partition_point(|of| (of.query as usize) < query);
        let end = self.of.partition_point(|of| of.query as usize <= query);
        let of = self.of[start..end].iter();
        Asked {
            vectors: Cow::Borrowed(&self.vectors[start * self.width..end * self.width]),
            of: of.map(|of| QueryVector { query: 0, ..*of }).collect(),
            n_queries: 1,
            ..*self
        }
    }

    /// Divides the vectors into chunks of at most `n`.
    pub(super) fn chunks(&self, n: usize) -> impl Iterator<Item = Chunk<'_>> {
        let vectors = self.vectors.chunks(n * self.width);
        let chunks = vectors.zip(self.of.chunks(n));
        chunks.map(|(vectors, of)| Chunk::new(vectors, self.width, of, self.handicap))
    }

    /// Merges the hits of each query's vectors, the best `k` of each, into the query's: of a row, the best stays, and
    /// of equally good ones that of the first vector.
    pub(super) fn merge(
        &self,
        gallery: &Gallery,
        hits: Vec<Vec<RowHit>>,
        k: usize,
    ) -> Result<Vec<Vec<RowHit>>> {
        let mut merged = vec![Vec::new(); self.n_queries];
        for (of, hits) in self.of.iter().zip(hits) {
            merged[of.query as usize].extend(hits);
        }
        merged
            .par_iter_mut()
            .try_for_each(|hits: &mut Vec<RowHit>| {
                hits.sort_unstable_by(|a, b| {
                    let by_score = a.row.cmp(&b.row).then(b.score.total_cmp(&a.score));
                    by_score.then(a.query_vector.cmp(&b.query_vector))
                });
                hits.dedup_by_key(|hit| hit.row);
                gallery.sort(hits)?;
                hits.truncate(k);
                Ok(())
            })?;
        Ok(merged)
    }
}

/// What pairs with one query vector lose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handicap {
    /// With a row's own vector.
    pub(super) of_own: f32,
    /// With a further one.
    pub(super) of_further: f32,
}

impl Handicap {
    pub(super) fn new(of: QueryVector, handicap: f32) -> Self {
        Self {
            of_own: if of.further.is_some() { handicap } else { 0.0 },
            of_further: handicap,
        }
    }

    #[inline]
    pub(super) fn of(self, view: u32) -> f32 {
        if view == OWN_VIEW {
            self.of_own
        } else {
            self.of_further
        }
    }
}

/// The vectors of a row of a gallery, as a query has them.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowAsQuery {
    pub(crate) own: Vec<f32>,
    /// [further vectors, width]
    pub(crate) further: Vec<f32>,
}

impl RowAsQuery {
    /// Reads the vectors of rows as they are stored; in 16 bits, they are not quite of unit length. Slices are only
    /// compared with queries, and are none.
    pub(crate) fn read(collection: &dyn Collection, rows: &[RowId]) -> Result<Vec<Self>> {
        let has_further = !collection.views().is_empty();
        let vectors = collection.vectors(rows)?;
        let own = vectors.chunks_exact(collection.width());
        let read = rows.iter().zip(own).map(|(&row, own)| {
            let further = match has_further {
                true => collection.view_vectors(row)?,
                false => Vec::new(),
            };
            let further = further.into_iter().filter(|(view, _)| !is_slice(view));
            Ok(Self {
                own: own.to_vec(),
                further: further.flat_map(|(_, vector)| vector).collect(),
            })
        });
        read.collect()
    }

    /// Reads the vectors of rows and gives them unit length.
    pub(crate) fn read_units(collection: &dyn Collection, rows: &[RowId]) -> Result<Vec<Self>> {
        let mut all = Self::read(collection, rows)?;
        for Self { own, further } in &mut all {
            let further = further.chunks_exact_mut(own.len());
            std::iter::once(&mut own[..])
                .chain(further)
                .try_for_each(normalize)?;
        }
        Ok(all)
    }
}
