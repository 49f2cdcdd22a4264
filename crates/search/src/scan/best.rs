//! The best candidates of one query, in whatever order they come.

use std::cmp::Ordering;

/// A vector whose row may be a hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) score: f32,
    /// Place of the row in the order of ids, which decides between equal scores. Each row has another one.
    pub(crate) rank: u32,
    /// Place of the vector in the segment: the row's number where each row has one vector.
    pub(crate) vector: u32,
}

impl Candidate {
    /// Orders the better candidate first.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then(self.rank.cmp(&other.rank))
    }
}

/// The best `n_kept` of all candidates so far; which ones does not depend on their order.
///
/// Where rows have several vectors, those candidates are kept that are no worse than the best vector of the `n_kept`th
/// best row: so there are at least as many rows, each with all its vectors that are good enough.
#[derive(Debug, Clone)]
pub(crate) struct Best {
    n_kept: usize,
    /// Several candidates may be of one row.
    has_views: bool,
    candidates: Vec<Candidate>,
    /// Candidates from which on some are let go.
    limit: usize,
    /// Nothing below this can be among the best.
    pub(crate) threshold: f32,
}

impl Best {
    pub(crate) fn new(n_kept: usize, has_views: bool) -> Self {
        Self {
            n_kept,
            has_views,
            candidates: Vec::new(),
            limit: 2 * n_kept.max(8),
            threshold: f32::NEG_INFINITY,
        }
    }

    /// Takes a candidate whose score is not below `threshold`.
    #[inline]
    pub(crate) fn push(&mut self, candidate: Candidate) {
        self.candidates.push(candidate);
        if self.candidates.len() >= self.limit {
            self.shrink();
        }
    }

    #[cold]
    fn shrink(&mut self) {
        if self.has_views {
            return self.shrink_to_rows();
        }
        if self.candidates.len() > self.n_kept && self.n_kept > 0 {
            let last = self.n_kept - 1;
            self.candidates
                .select_nth_unstable_by(last, Candidate::order);
            self.candidates.truncate(self.n_kept);
            self.threshold = self.candidates[last].score;
        }
    }

    fn shrink_to_rows(&mut self) {
        let mut rows = self.candidates.clone();
        keep_best_of_rows(&mut rows, Candidate::order);
        if rows.len() > self.n_kept && self.n_kept > 0 {
            let last = self.n_kept - 1;
            let (_, cut, _) = rows.select_nth_unstable_by(last, Candidate::order);
            self.candidates.retain(|other| other.order(cut).is_le());
            self.threshold = cut.score;
        }
        // Sorting pays off only when many more have come.
        self.limit = 2 * self.candidates.len().max(self.n_kept).max(8);
    }

    pub(crate) fn absorb(&mut self, other: Self) {
        for candidate in other.candidates {
            if candidate.score >= self.threshold {
                self.push(candidate);
            }
        }
    }

    /// Returns the best candidates, in no order.
    pub(crate) fn into_candidates(mut self) -> Vec<Candidate> {
        self.shrink();
        self.candidates
    }
}

/// Keeps the best candidate of each row.
pub(crate) fn keep_best_of_rows(
    candidates: &mut Vec<Candidate>,
    order: impl Fn(&Candidate, &Candidate) -> Ordering,
) {
    candidates.sort_unstable_by(|a, b| a.rank.cmp(&b.rank).then_with(|| order(a, b)));
    candidates.dedup_by_key(|candidate| candidate.rank);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_in_whatever_order_they_come() {
        let candidate = |i: u32| Candidate {
            score: f32::from(u16::try_from(i * 7 % 50).unwrap()),
            rank: 1000 - i,
            vector: i,
        };
        let mut all: Vec<Candidate> = (0..300).map(candidate).collect();
        let kept = |all: &[Candidate]| {
            let mut best = Best::new(20, false);
            for &candidate in all {
                if candidate.score >= best.threshold {
                    best.push(candidate);
                }
            }
            let mut kept = best.into_candidates();
            kept.sort_by(Candidate::order);
            kept
        };
        let forward = kept(&all);
        all.reverse();
        assert_eq!(kept(&all), forward);
        all.sort_by(Candidate::order);
        assert_eq!(all[..20], forward);
    }

    #[test]
    fn rows_are_kept_with_all_their_vectors_that_are_good_enough() {
        // Row `rank` has three vectors; equal scores within and across rows.
        let all: Vec<Candidate> = (0..300_u32)
            .map(|vector| Candidate {
                score: f32::from(u16::try_from(vector * 37 % 60).unwrap()),
                rank: vector % 100,
                vector,
            })
            .collect();
        let mut rows = all.clone();
        keep_best_of_rows(&mut rows, Candidate::order);
        rows.sort_by(Candidate::order);
        let cut = rows[19];
        let mut expected: Vec<u32> = all
            .iter()
            .filter(|candidate| candidate.order(&cut).is_le())
            .map(|candidate| candidate.vector)
            .collect();
        expected.sort_unstable();
        for step in [1, 7, 113, 299] {
            let (mut one, mut other) = (Best::new(20, true), Best::new(20, true));
            for i in 0..300 {
                let candidate = all[i * step % 300];
                let best = if i % 3 == 0 { &mut one } else { &mut other };
                if candidate.score >= best.threshold {
                    best.push(candidate);
                }
            }
            one.absorb(other);
            let kept = one.into_candidates().into_iter();
            let mut kept: Vec<u32> = kept.map(|candidate| candidate.vector).collect();
            kept.sort_unstable();
            assert_eq!(kept, expected, "{step}");
        }
    }
}
