//! The end of a search in one segment: exact scores of the candidates, and rows of vectors.

use rayon::prelude::*;

use super::best::{Best, Candidate, keep_best_of_rows};
use super::pass::Chunk;
use super::rules::Allowed;
use super::views::Handicap;
use crate::error::Result;
use crate::gallery::segment::views::{Belonging, OWN_VIEW, Places};
use crate::gallery::segment::{Segment, Vectors};
use crate::kernels::{Kernels, LANES, dot};

/// Makes hits of the candidates of a pass over a segment.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) segment: &'a Segment,
    pub(super) chunk: &'a Chunk<'a>,
    pub(super) rules: &'a Allowed<'a>,
}

impl Finish<'_> {
    /// Gives candidates their exact scores, unless `is_exact` says that they have them, and returns the best `k` rows of
    /// each query, in order.
    pub(super) fn run(
        self,
        best: Vec<Best>,
        k: usize,
        is_exact: bool,
    ) -> Result<Vec<Vec<Candidate>>> {
        let Self {
            segment,
            chunk,
            rules,
        } = self;
        let belonging = segment.belonging()?;
        let queries = best.into_par_iter().enumerate().with_min_len(8);
        let finished = queries.map(|(query, best)| {
            let mut scorer = Scorer {
                segment,
                rules,
                belonging,
                query: chunk.query(query),
                handicap: chunk.handicap(query),
                vector: Vec::new(),
            };
            let mut candidates = best.into_candidates();
            // After the exact pass the scores are final. After any codes each candidate's vector is read once, again
            // in the order of memory.
            if !is_exact {
                candidates.sort_unstable_by_key(|candidate| candidate.vector);
                for candidate in &mut candidates {
                    candidate.score = scorer.score(candidate.vector)?;
                }
            }
            if let Some(belonging) = belonging {
                scorer.keep_rows(&mut candidates, belonging, k, is_exact)?;
            }
            candidates.sort_unstable_by(Candidate::order);
            candidates.truncate(k);
            Ok(candidates)
        });
        finished.collect()
    }
}

/// Computes exact scores of one query.
struct Scorer<'a> {
    segment: &'a Segment,
    rules: &'a Allowed<'a>,
    belonging: Option<Belonging<'a>>,
    query: &'a [f32],
    handicap: Handicap,
    /// Room for a vector that is stored in 16 bits.
    vector: Vec<f32>,
}

impl Scorer<'_> {
    /// Returns the score of the vector at a place.
    fn score(&mut self, place: u32) -> Result<f32> {
        let product = exact_score(self.segment, self.query, place, &mut self.vector)?;
        let view = |belonging: Belonging<'_>| belonging.views[place as usize];
        Ok(product - self.handicap.of(self.belonging.map_or(OWN_VIEW, view)))
    }

    /// Keeps the best candidate of each of the best `k` rows; of equally good vectors, that of the first view.
    fn keep_rows(
        &mut self,
        candidates: &mut Vec<Candidate>,
        belonging: Belonging<'_>,
        k: usize,
        is_exact: bool,
    ) -> Result<()> {
        let view = |candidate: &Candidate| belonging.views[candidate.vector as usize];
        let order = |a: &Candidate, b: &Candidate| a.order(b).then(view(a).cmp(&view(b)));
        keep_best_of_rows(candidates, order);
        if is_exact {
            return Ok(());
        }
        candidates.sort_unstable_by(Candidate::order);
        candidates.truncate(k);
        // Codes may have missed the best vector of a row, but the row's score is to be exact.
        for candidate in candidates {
            let row = belonging.rows[candidate.vector as usize];
            if let Places::Several(places) = self.segment.vectors_of(row)? {
                for &place in places.iter().filter(|&&place| self.rules.passes(place)) {
                    let other = Candidate {
                        score: self.score(place)?,
                        vector: place,
                        ..*candidate
                    };
                    if order(&other, candidate).is_lt() {
                        *candidate = other;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Computes the product with one vector; `vector` is room for one that is stored in 16 bits.
fn exact_score(segment: &Segment, query: &[f32], place: u32, vector: &mut Vec<f32>) -> Result<f32> {
    let place = place as usize;
    Ok(match segment.vectors(place..place + 1)? {
        Vectors::F32(values) => dot_product(query, values),
        Vectors::F16(halves) => {
            vector.clear();
            vector.extend(halves.iter().map(|x| x.to_f32()));
            dot_product(query, vector)
        }
    })
}

/// Computes one product with the kernels where the width fits them, else plainly. Both give the same bits, so
/// an approximate search returns the very scores of an exact one.
#[must_use]
pub fn dot_product(query: &[f32], row: &[f32]) -> f32 {
    if query.len().is_multiple_of(LANES) {
        let mut product = [0.0];
        (Kernels::get().dots_f32)(query, row, query.len(), &mut product);
        return product[0];
    }
    dot(query, row)
}
