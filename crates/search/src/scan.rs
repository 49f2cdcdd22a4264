//! Search: which rows of a gallery have the largest dot products with a query.
//!
//! Three passes: the first looks at codes of all rows or of the lists nearest to the query, the
//! second at 8-bit codes of what is left, the last at the vectors. `Method::Exact` has only the
//! last, over all rows, and is the reference for everything else.
//!
//! A row has the score of the best of its vectors. The passes look at vectors, wherever they lie; rows are what they
//! count, and what rules are asked about. A query with several vectors is several searches whose hits are merged.

mod best;
mod calibrate;
mod finish;
mod pass;
mod plan;
mod rules;
mod views;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use rayon::prelude::*;

pub(crate) use calibrate::{BELONGING, calibrate};
pub use plan::{Calibration, Level, Plan, Recall};
pub(crate) use rules::AllowedVectors;
pub use rules::{Filter, LeftOut, no_column, no_value};
pub use views::{DEFAULT_HANDICAP, Views};
pub(crate) use views::{Kinds, RowAsQuery};

use crate::collection::Collection;
use crate::embedding::check_unit;
use crate::error::{Error, Result};
use crate::gallery::{Gallery, RowId, ViewId};
use best::{Best, Candidate};
use finish::Finish;
pub use finish::dot_product;
use pass::{Chunk, First, Passed};
use rules::Rules;
use views::Asked;

/// How thorough a search is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// As the gallery's calibration says for `Recall::DEFAULT`; exact where there is none.
    #[default]
    Auto,
    /// As the gallery's calibration says for a recall; exact where there is none, or none for so high a recall.
    Recall(Recall),
    /// Every vector is looked at.
    Exact,
    /// As this plan says, for measuring.
    Planned(Plan),
}

/// What to look for, and where.
#[derive(Debug, Clone, Default)]
pub struct SearchOptions {
    /// Most hits of a query.
    pub k: usize,
    /// How thorough to be.
    pub method: Method,
    /// Only rows that pass all of these are hits.
    pub filters: Vec<Filter>,
    /// Of rows with the same value in this column only the best is a hit; rows without a value
    /// stand for themselves.
    pub group_by: Option<String>,
    /// Which vectors are compared, where rows or queries have several.
    pub views: Views,
}

/// Several queries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Queries<'a> {
    /// Unit vectors, [n, width].
    pub vectors: &'a [f32],
    /// The rows of each query's own image, which are no hits of it; empty if no query is an image of the gallery.
    pub own: &'a [Vec<RowId>],
    /// Rows that have a query's value in a column are no hits for it.
    pub left_out: &'a [LeftOut],
    /// Further unit vectors of each query's object, [n, width] each; empty if no query has any.
    pub further: &'a [Vec<f32>],
}

impl Queries<'_> {
    /// Checks that all parts are of the same queries, and that all vectors are unit vectors; returns the number of queries.
    ///
    /// # Errors
    /// `Mismatch`.
    pub fn check(&self, width: usize) -> Result<usize> {
        let n_queries = self.vectors.len() / width;
        let fits = self.vectors.len() == n_queries * width
            && (self.own.is_empty() || self.own.len() == n_queries)
            && (self.further.is_empty() || self.further.len() == n_queries)
            && self
                .further
                .iter()
                .all(|further| further.len().is_multiple_of(width))
            && self
                .left_out
                .iter()
                .all(|column| column.values.len() == n_queries);
        if !fits {
            return Err(Error::mismatch(
                "queries",
                format!("vectors of {width} numbers, and as many rows and values as vectors"),
                format!("{} numbers", self.vectors.len()),
            ));
        }
        check_unit(self.vectors, width)?;
        for further in self.further {
            check_unit(further, width)?;
        }
        Ok(n_queries)
    }
}

/// One row that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowHit {
    /// Where it lies.
    pub row: RowId,
    /// Dot product of the two vectors, the cosine of their angle; less the handicap if either is a further one.
    pub score: f32,
    /// The view of the row whose vector has the score; `None`: its own vector.
    pub view: Option<ViewId>,
    /// Which of the query's further vectors has the score; `None`: its own vector.
    pub query_vector: Option<u32>,
}

/// Candidates that all queries of one chunk may hold together.
const CHUNK_CANDIDATES: usize = 1 << 20;
/// Most queries of one chunk.
const CHUNK_QUERIES: usize = 512;

impl Gallery {
    /// Finds the best hits of each query, best first; of equal scores, the smaller id first.
    ///
    /// A row's score is the best over all pairs of vectors that `views` allows; of equally good pairs, that of the
    /// first vector of the query counts, and then that of the first view of the row.
    ///
    /// Runs in rayon's current pool; results do not depend on its threads, nor on which queries
    /// come together.
    ///
    /// # Errors
    /// `Mismatch` if a vector does not have the gallery's width or is no unit vector, a filter names a column or
    /// value that no row has, or the handicap is negative or not finite; `Damaged`.
    pub fn search(
        &self,
        queries: Queries<'_>,
        options: &SearchOptions,
    ) -> Result<Vec<Vec<RowHit>>> {
        let width = self.width();
        queries.check(width)?;
        options.views.check()?;
        let asked = Asked::new(queries, width, options.views);
        let rules = Rules::new(self, queries, options)?;
        match &options.group_by {
            None => self.search_all(&asked, &rules, options.k, options.method),
            Some(column) => self.search_groups(&asked, &rules, options, column),
        }
    }

    fn search_all(
        &self,
        asked: &Asked<'_>,
        rules: &Rules<'_>,
        k: usize,
        method: Method,
    ) -> Result<Vec<Vec<RowHit>>> {
        let k = k.min(self.len());
        if k == 0 {
            return Ok(vec![Vec::new(); asked.n_queries()]);
        }
        let plan = self.plan(k, method, rules.is_restricted());
        let depth = plan.depth().max(k);
        let n_together = (CHUNK_CANDIDATES / depth).clamp(1, CHUNK_QUERIES);
        let mut hits = Vec::with_capacity(asked.n_queries());
        for chunk in asked.chunks(n_together) {
            hits.append(&mut self.search_chunk(&chunk, rules, k, plan)?);
        }
        match asked.has_further() {
            true => asked.merge(self, hits, k),
            false => Ok(hits),
        }
    }

    /// Chooses how to search for `k` hits.
    fn plan(&self, k: usize, method: Method, is_restricted: bool) -> Plan {
        let planned = match (method, self.calibration()) {
            (Method::Planned(plan), _) => Some(plan),
            (Method::Exact, _) | (_, None) => None,
            (Method::Auto, Some(calibration)) => calibration.plan(k, Recall::DEFAULT),
            (Method::Recall(recall), Some(calibration)) => calibration.plan(k, recall),
        };
        match planned {
            None => Plan::EXACT,
            // Vectors that pass a filter, or are the rows' own, may lie in any list.
            Some(plan) if is_restricted => plan.of_filtered(),
            Some(plan) => plan,
        }
    }

    fn search_chunk(
        &self,
        chunk: &Chunk<'_>,
        rules: &Rules<'_>,
        k: usize,
        plan: Plan,
    ) -> Result<Vec<Vec<RowHit>>> {
        let mut found: Vec<Vec<RowHit>> = vec![Vec::new(); chunk.len()];
        for (idx, segment) in self.segments().iter().enumerate() {
            let segment_idx = u32::try_from(idx).unwrap_or(u32::MAX);
            let rules = rules.of(idx);
            let first = First::choose(segment, plan, rules.allowed.is_some())?;
            let Passed { mut best, thinned } = first.run(segment, chunk, &rules, k)?;
            if let First::Bits { .. } | First::Short { .. } = first {
                best = pass::refine(segment, chunk, best, plan.depth_codes)?;
            }
            let is_exact = matches!(first, First::Exact);
            let finish = Finish {
                segment,
                chunk,
                rules: &rules,
            };
            let mut rows = finish.run(best, k, is_exact)?;
            for query in thinned.into_iter().map(|query| query as usize) {
                let alone = chunk.only(query);
                let best = First::Exact.run(segment, &alone, &rules, k)?.best;
                let finish = Finish {
                    chunk: &alone,
                    ..finish
                };
                let exact = finish.run(best, k, true)?;
                rows[query] = exact.into_iter().next().unwrap_or_default();
            }
            for (query, (found, rows)) in found.iter_mut().zip(rows).enumerate() {
                let query_vector = chunk.query_vector(query);
                for Candidate { score, vector, .. } in rows {
                    found.push(RowHit {
                        row: RowId {
                            segment: segment_idx,
                            row: segment.row_of(vector)?,
                        },
                        score,
                        view: self.view_of(segment, vector)?,
                        query_vector,
                    });
                }
            }
        }
        if self.segments().len() > 1 {
            found.par_iter_mut().try_for_each(|hits| self.sort(hits))?;
        }
        for hits in &mut found {
            hits.truncate(k);
        }
        Ok(found)
    }

    /// Sorts hits of several segments: best first, then by id.
    pub(crate) fn sort(&self, hits: &mut [RowHit]) -> Result<()> {
        let mut fault = None;
        // An id that cannot be read comes first: a sort panics where the order is no order.
        let mut id = |row| match self.id(row) {
            Ok(id) => Some(id),
            Err(error) => {
                fault = Some(error);
                None
            }
        };
        hits.sort_by(|a, b| {
            let by_score = b.score.total_cmp(&a.score);
            by_score.then_with(|| id(a.row).cmp(&id(b.row)))
        });
        fault.map_or(Ok(()), Err)
    }

    /// Looks deeper and deeper until there are `k` groups or no more rows.
    fn search_groups(
        &self,
        asked: &Asked<'_>,
        rules: &Rules<'_>,
        options: &SearchOptions,
        column: &str,
    ) -> Result<Vec<Vec<RowHit>>> {
        if !self.columns().contains(&column) {
            return Err(no_column(self, column));
        }
        let n_queries = asked.n_queries();
        let mut done: Vec<Vec<RowHit>> = Vec::with_capacity(n_queries);
        for query in 0..n_queries {
            let (asked, rules) = (asked.only(query), rules.only(query));
            let mut depth = options.k.saturating_mul(4).max(1);
            let groups = loop {
                let hits = self.search_all(&asked, &rules, depth, options.method)?;
                let hits = hits.into_iter().next().unwrap_or_default();
                let n_hits = hits.len();
                let groups = best_of_groups(self, hits, column, options.k)?;
                if groups.len() == options.k || n_hits < depth {
                    break groups;
                }
                depth = depth.saturating_mul(4);
            };
            done.push(groups);
        }
        Ok(done)
    }
}

/// Keeps the best `k` hits of which no two have the same value in a column; those without a value stand for themselves.
///
/// # Errors
/// `Damaged`.
pub fn best_of_groups(
    collection: &dyn Collection,
    mut hits: Vec<RowHit>,
    column: &str,
    k: usize,
) -> Result<Vec<RowHit>> {
    let rows: Vec<RowId> = hits.iter().map(|hit| hit.row).collect();
    let mut values = collection.rows(&rows, &[column])?.into_iter().flatten();
    let mut seen = HashSet::new();
    hits.retain(|_| {
        let value = values.next().unwrap_or_default();
        value.is_empty() || seen.insert(value)
    });
    hits.truncate(k);
    Ok(hits)
}

/// Merges what several threads found.
fn merge(mut all: Vec<Best>, more: Vec<Best>) -> Vec<Best> {
    for (best, more) in all.iter_mut().zip(more) {
        best.absorb(more);
    }
    all
}
