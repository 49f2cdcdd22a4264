//! What a ranking is worth: docs/evaluation.md defines every metric, and what chance would give.

use std::fmt;
use std::str::FromStr;

mod ties;
mod vote;

use ties::Before;
pub use ties::Block;
pub use vote::{MAX_TIED_VOTE_K, Vote};

/// A number between 0 and 1 that says how good one query's ranking is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Whether one of the first k items is relevant.
    HitAt(usize),
    /// The share of all relevant items that is among the first k.
    RecallAt(usize),
    /// The number of relevant items among the first k, divided by k.
    PrecisionAt(usize),
    /// Average precision over the first k; the denominator is min(R, k).
    MapAt(usize),
    /// Average precision over the first R items, R being the number of relevant ones.
    MapAtR,
    /// One over the rank of the first relevant item, 0 if that is beyond k.
    MrrAt(usize),
    /// Discounted gain of the first k, over the best that is possible.
    NdcgAt(usize),
    /// Whether most of the first k items have the query's class.
    MajorityAt(usize),
    /// Whether a vote of the first 20, weighted by exp(score / 0.07), gives the query's class.
    KnnAccuracy,
    /// The same, with one vote each.
    KnnAccuracyPlain,
}

/// Neighbours of `KnnAccuracy`.
pub const KNN_K: usize = 20;
/// `T` of `KnnAccuracy`'s weights exp(score / T).
pub const KNN_TEMPERATURE: f64 = 0.07;

impl Metric {
    /// Lists the metrics of a task for these cutoffs, in the order of reports.
    #[must_use]
    pub fn all(ks: &[usize]) -> Vec<Self> {
        let families = [
            Self::HitAt,
            Self::PrecisionAt,
            Self::RecallAt,
            Self::MapAt,
            Self::MrrAt,
            Self::NdcgAt,
            Self::MajorityAt,
        ];
        let at = families
            .iter()
            .flat_map(|family| ks.iter().map(move |&k| family(k)));
        at.chain([Self::MapAtR, Self::KnnAccuracy, Self::KnnAccuracyPlain])
            .collect()
    }

    /// Returns whether the metric asks for one class an item.
    #[must_use]
    pub fn is_vote(self) -> bool {
        matches!(
            self,
            Self::MajorityAt(_) | Self::KnnAccuracy | Self::KnnAccuracyPlain
        )
    }

    /// Returns how many items of a ranking the metric looks at; `MapAtR` looks at R.
    #[must_use]
    pub fn depth(self, n_relevant: usize) -> usize {
        match self {
            Self::HitAt(k)
            | Self::RecallAt(k)
            | Self::PrecisionAt(k)
            | Self::MapAt(k)
            | Self::MrrAt(k)
            | Self::NdcgAt(k)
            | Self::MajorityAt(k) => k,
            Self::MapAtR => n_relevant,
            Self::KnnAccuracy | Self::KnnAccuracyPlain => KNN_K,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HitAt(k) => write!(f, "hit_at_{k}"),
            Self::RecallAt(k) => write!(f, "recall_at_{k}"),
            Self::PrecisionAt(k) => write!(f, "precision_at_{k}"),
            Self::MapAt(k) => write!(f, "map_at_{k}"),
            Self::MapAtR => f.write_str("map_at_r"),
            Self::MrrAt(k) => write!(f, "mrr_at_{k}"),
            Self::NdcgAt(k) => write!(f, "ndcg_at_{k}"),
            Self::MajorityAt(k) => write!(f, "majority_at_{k}"),
            Self::KnnAccuracy => f.write_str("knn_accuracy"),
            Self::KnnAccuracyPlain => f.write_str("knn_accuracy_plain"),
        }
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = match name {
            "map_at_r" => Some(Self::MapAtR),
            "knn_accuracy" => Some(Self::KnnAccuracy),
            "knn_accuracy_plain" => Some(Self::KnnAccuracyPlain),
            _ => None,
        };
        let at = || {
            let (family, k) = name.rsplit_once("_at_")?;
            let k: usize = k.parse().ok().filter(|&k| k > 0)?;
            Some(match family {
                "hit" => Self::HitAt(k),
                "recall" => Self::RecallAt(k),
                "precision" => Self::PrecisionAt(k),
                "map" => Self::MapAt(k),
                "mrr" => Self::MrrAt(k),
                "ndcg" => Self::NdcgAt(k),
                "majority" => Self::MajorityAt(k),
                _ => return None,
            })
        };
        known.or_else(at).ok_or_else(|| {
            format!("found the metric {name:?}; wanted one such as hit_at_1, precision_at_5, map_at_r or knn_accuracy")
        })
    }
}

/// The best part of one query's ranking, and what it is a part of.
///
/// Relevance is a grade from 0 to 1: 1 where two labels are equal, the Jaccard index of two sets of
/// labels. An item is relevant if its grade reaches the least grade that counts.
#[derive(Debug, Clone, Copy)]
pub struct Ranking<'a> {
    /// The first items, the best first: as many as the metrics look at, or all there are. The last
    /// block is whole, even where it goes beyond.
    pub blocks: &'a [Block],
    /// Items after exclusions, `N`.
    pub n_candidates: usize,
    /// Relevant ones among them, `R`.
    pub n_relevant: usize,
    /// The largest grades among all candidates, in falling order, as many as `NdcgAt` looks at.
    pub ideal: &'a [f32],
    /// Sum of the grades of all candidates.
    pub total_grade: f64,
}

impl Ranking<'_> {
    /// Iterates over the blocks that begin among the first `k` items, and what is before each.
    fn until(&self, k: usize) -> impl Iterator<Item = (Before, Block)> {
        let mut before = Before::default();
        let blocks = self.blocks.iter().map(move |&block| {
            let start = before;
            before.n += block.n;
            before.n_relevant += block.n_relevant;
            (start, block)
        });
        blocks.take_while(move |(before, _)| before.n < k)
    }

    /// Returns whether rank `k` and the next are in one block that holds relevant items and others:
    /// then the order of equal scores decides what is among the first `k`.
    #[must_use]
    pub fn is_cut_in_tie(&self, k: usize) -> bool {
        self.until(k)
            .last()
            .is_some_and(|(before, block)| before.n + block.n > k && block.is_mixed())
    }

    /// The mean number of relevant items among the first `k`.
    fn n_found(&self, k: usize) -> f64 {
        let founds = self
            .until(k)
            .map(|(before, block)| block.n_found(k - before.n));
        founds.sum()
    }

    /// The probability that a relevant item is among the first `k`.
    fn hit(&self, k: usize) -> f64 {
        let nones = self
            .until(k)
            .map(|(before, block)| block.none_among(block.n.min(k - before.n)));
        1.0 - nones.product::<f64>()
    }

    /// The mean of one over the rank of the first relevant item.
    fn reciprocal_rank(&self, k: usize) -> f64 {
        let first = self.until(k).find(|(_, block)| block.n_relevant > 0);
        first.map_or(0.0, |(before, block)| {
            block.reciprocal_rank(before, k - before.n)
        })
    }

    /// Average precision over the first `k`.
    fn average_precision(&self, k: usize) -> f64 {
        let mut sum = 0.0;
        for (before, block) in self.until(k) {
            for precision in block.precisions(before, k - before.n) {
                sum += precision;
            }
        }
        sum / as_f64(self.n_relevant.min(k))
    }

    /// DCG with linear gain; every item of a block gains the block's mean grade.
    fn discounted(&self, k: usize) -> f64 {
        let mut sum = 0.0;
        for (before, block) in self.until(k) {
            let grade = block.total_grade / as_f64(block.n);
            for rank in before.n + 1..=k.min(before.n + block.n) {
                sum += grade * discount(rank);
            }
        }
        sum
    }

    /// Returns the value of a metric, `None` for votes (`Vote` has them) and where R is 0.
    ///
    /// With ties, the mean over all orders of the items of each block. Where one block holds all
    /// candidates, that is `chance`.
    ///
    /// # Source
    /// docs/evaluation.md; Manning et al. 2008, chapter 8, but for the denominators named there.
    #[must_use]
    pub fn value(&self, metric: Metric) -> Option<f64> {
        if let [block] = self.blocks
            && block.n == self.n_candidates
            && block.is_mixed()
        {
            return self.chance(metric);
        }
        if self.n_relevant == 0 {
            return None;
        }
        Some(match metric {
            Metric::HitAt(k) => self.hit(k),
            Metric::RecallAt(k) => self.n_found(k) / as_f64(self.n_relevant),
            Metric::PrecisionAt(k) => self.n_found(k) / as_f64(k),
            Metric::MapAt(k) => self.average_precision(k),
            Metric::MapAtR => self.average_precision(self.n_relevant),
            Metric::MrrAt(k) => self.reciprocal_rank(k),
            Metric::NdcgAt(k) => self.discounted(k) / discounted(self.ideal, k),
            Metric::MajorityAt(_) | Metric::KnnAccuracy | Metric::KnnAccuracyPlain => return None,
        })
    }

    /// Returns what a random ranking of the same candidates has on average, `None` for votes and
    /// where R is 0.
    #[must_use]
    pub fn chance(&self, metric: Metric) -> Option<f64> {
        if self.n_relevant == 0 {
            return None;
        }
        let all = [Block {
            n: self.n_candidates,
            n_relevant: self.n_relevant,
            total_grade: self.total_grade,
        }];
        let tied = Ranking {
            blocks: &all,
            ..*self
        };
        let (n, r) = (as_f64(self.n_candidates), as_f64(self.n_relevant));
        let seen = |k: usize| k.min(self.n_candidates);
        Some(match metric {
            Metric::HitAt(k) => tied.hit(k),
            Metric::RecallAt(k) => as_f64(seen(k)) / n,
            Metric::PrecisionAt(k) => as_f64(seen(k)) * r / n / as_f64(k),
            Metric::MapAt(k) => tied.average_precision(k),
            Metric::MapAtR => tied.average_precision(self.n_relevant),
            Metric::MrrAt(k) => tied.reciprocal_rank(k),
            Metric::NdcgAt(k) => {
                let discounts: f64 = (1..=seen(k)).map(discount).sum();
                self.total_grade / n * discounts / discounted(self.ideal, k)
            }
            Metric::MajorityAt(_) | Metric::KnnAccuracy | Metric::KnnAccuracyPlain => return None,
        })
    }

    /// Returns what the best ranking of the same candidates has, `None` for votes and where R is 0.
    #[must_use]
    pub fn maximum(&self, metric: Metric) -> Option<f64> {
        if self.n_relevant == 0 {
            return None;
        }
        let found = |k: usize| as_f64(k.min(self.n_relevant));
        Some(match metric {
            Metric::RecallAt(k) => found(k) / as_f64(self.n_relevant),
            Metric::PrecisionAt(k) => found(k) / as_f64(k),
            Metric::HitAt(_)
            | Metric::MapAt(_)
            | Metric::MapAtR
            | Metric::MrrAt(_)
            | Metric::NdcgAt(_) => 1.0,
            Metric::MajorityAt(_) | Metric::KnnAccuracy | Metric::KnnAccuracyPlain => return None,
        })
    }
}

fn discount(rank: usize) -> f64 {
    1.0 / (as_f64(rank) + 1.0).log2()
}

/// DCG with linear gain.
fn discounted(grades: &[f32], k: usize) -> f64 {
    let gains = grades.iter().take(k).zip(1..);
    gains
        .map(|(&grade, rank)| f64::from(grade) * discount(rank))
        .sum()
}

/// Counts are far below 2^53.
pub(crate) fn as_f64(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests;
