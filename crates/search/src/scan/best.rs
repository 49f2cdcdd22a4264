//! The best candidates of one query, in whatever order they come.

use std::cmp::Ordering;

/// A row that may be a hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) score: f32,
    /// Place in the order of ids, which decides between equal scores.
    pub(crate) rank: u32,
    pub(crate) row: u32,
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
#[derive(Debug, Clone)]
pub(crate) struct Best {
    n_kept: usize,
    candidates: Vec<Candidate>,
    /// Nothing below this can be among the best.
    pub(crate) threshold: f32,
}

impl Best {
    pub(crate) fn new(n_kept: usize) -> Self {
        Self {
            n_kept,
            candidates: Vec::new(),
            threshold: f32::NEG_INFINITY,
        }
    }

    /// Takes a candidate whose score is not below `threshold`.
    #[inline]
    pub(crate) fn push(&mut self, candidate: Candidate) {
        self.candidates.push(candidate);
        if self.candidates.len() >= 2 * self.n_kept.max(8) {
            self.shrink();
        }
    }

    #[cold]
    fn shrink(&mut self) {
        if self.candidates.len() > self.n_kept && self.n_kept > 0 {
            let last = self.n_kept - 1;
            self.candidates
                .select_nth_unstable_by(last, Candidate::order);
            self.candidates.truncate(self.n_kept);
            self.threshold = self.candidates[last].score;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_in_whatever_order_they_come() {
        let candidate = |i: u32| Candidate {
            score: f32::from(u16::try_from(i * 7 % 50).unwrap()),
            rank: 1000 - i,
            row: i,
        };
        let mut all: Vec<Candidate> = (0..300).map(candidate).collect();
        let kept = |all: &[Candidate]| {
            let mut best = Best::new(20);
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
}
