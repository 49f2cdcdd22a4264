//! Vectors that tell nothing apart: all cosines of a task are one number, but for rounding.

use rayon::prelude::*;

use super::{Embeddings, GROUP_QUERIES, Ranker};

/// Scores of a task that all lie within this range are one score: 64 units in the last place of 1.
///
/// A dot product of w numbers in 16 chains of fused multiply-adds rounds `w / 16 + 4` times, by half a
/// unit each, up or down; so up to w = 960, equal cosines may come out that far apart and no further.
/// Vectors that are nearly equal are then less than 0.004 radians apart.
pub const COLLAPSED_RANGE: f32 = 64.0 * f32::EPSILON;

/// The smallest and the largest of some scores.
#[derive(Debug, Clone, Copy)]
struct Range {
    low: f32,
    high: f32,
}

impl Range {
    const NONE: Self = Self {
        low: f32::INFINITY,
        high: f32::NEG_INFINITY,
    };

    fn with(self, other: Self) -> Self {
        Self {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
        }
    }

    /// Returns the middle, if that stands for all.
    fn common(self) -> Option<f32> {
        let width = self.high - self.low;
        (0.0..COLLAPSED_RANGE)
            .contains(&width)
            .then(|| self.low + width / 2.0)
    }
}

/// Returns the one score of all queries and gallery items, if they have one.
///
/// A query's score with itself does not count.
pub(super) fn common_score(
    ranker: &Ranker<'_>,
    queries: &[u32],
    embeddings: &Embeddings<'_>,
) -> Option<f32> {
    let range = |queries: &[u32]| {
        let scores = ranker.scores(queries, embeddings);
        let rows = scores.chunks_exact(ranker.gallery.rows.len().max(1));
        let mut range = Range::NONE;
        for (query, scores) in queries.iter().zip(rows) {
            for (row, &score) in ranker.gallery.rows.iter().zip(scores) {
                if row != query {
                    range = range.with(Range {
                        low: score,
                        high: score,
                    });
                }
            }
        }
        range
    };
    // Nearly always a few queries show that scores differ.
    let (first, rest) = queries.split_at(queries.len().min(GROUP_QUERIES));
    let first = range(first);
    first.common()?;
    let rest = rest
        .par_chunks(GROUP_QUERIES)
        .map(range)
        .reduce(|| Range::NONE, Range::with);
    first.with(rest).common()
}
