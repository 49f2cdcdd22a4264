//! What a ranking is worth: docs/evaluation.md defines every metric, and what chance would give.

use std::fmt;
use std::str::FromStr;

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
/// labels. An item is relevant if its grade reaches `least_grade`.
#[derive(Debug, Clone, Copy)]
pub struct Ranking<'a> {
    /// Grades of the first items, the best first: as many as the metrics look at, or all there are.
    pub grades: &'a [f32],
    /// Grade from which on an item is relevant; above 0.
    pub least_grade: f32,
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
    fn is_relevant(&self, idx: usize) -> bool {
        self.grades
            .get(idx)
            .is_some_and(|&grade| grade >= self.least_grade)
    }

    /// Counts relevant items among the first `k`.
    fn n_found(&self, k: usize) -> usize {
        let k = k.min(self.grades.len());
        (0..k).filter(|&idx| self.is_relevant(idx)).count()
    }

    /// Returns the rank of the first relevant item, from 1, if it is not beyond `k`.
    fn first(&self, k: usize) -> Option<usize> {
        let k = k.min(self.grades.len());
        (0..k).find(|&idx| self.is_relevant(idx)).map(|idx| idx + 1)
    }

    /// Average precision over the first `k`.
    fn average_precision(&self, k: usize) -> f64 {
        let (mut n_found, mut sum) = (0, 0.0);
        for rank in 1..=k.min(self.grades.len()) {
            if self.is_relevant(rank - 1) {
                n_found += 1;
                sum += f64::from(n_found) / as_f64(rank);
            }
        }
        sum / as_f64(self.n_relevant.min(k))
    }

    /// Returns the value of a metric, `None` for votes (`Vote` has them) and where R is 0.
    ///
    /// # Source
    /// docs/evaluation.md; Manning et al. 2008, chapter 8, but for the denominators named there.
    #[must_use]
    pub fn value(&self, metric: Metric) -> Option<f64> {
        if self.n_relevant == 0 {
            return None;
        }
        Some(match metric {
            Metric::HitAt(k) => f64::from(u8::from(self.first(k).is_some())),
            Metric::RecallAt(k) => as_f64(self.n_found(k)) / as_f64(self.n_relevant),
            Metric::PrecisionAt(k) => as_f64(self.n_found(k)) / as_f64(k),
            Metric::MapAt(k) => self.average_precision(k),
            Metric::MapAtR => self.average_precision(self.n_relevant),
            Metric::MrrAt(k) => self.first(k).map_or(0.0, |rank| 1.0 / as_f64(rank)),
            Metric::NdcgAt(k) => discounted(self.grades, k) / discounted(self.ideal, k),
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
        let (n, r) = (as_f64(self.n_candidates), as_f64(self.n_relevant));
        let seen = |k: usize| k.min(self.n_candidates);
        Some(match metric {
            Metric::HitAt(k) => 1.0 - self.no_relevant_before(k),
            Metric::RecallAt(k) => as_f64(seen(k)) / n,
            Metric::PrecisionAt(k) => as_f64(seen(k)) * r / n / as_f64(k),
            Metric::MapAt(k) => self.chance_of_average_precision(k),
            Metric::MapAtR => self.chance_of_average_precision(self.n_relevant),
            Metric::MrrAt(k) => self.chance_of_mrr(k),
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

    /// C(N-R, k) / C(N, k): the probability that none of the first `k` is relevant.
    fn no_relevant_before(&self, k: usize) -> f64 {
        let (n, r) = (self.n_candidates, self.n_relevant);
        if k > n - r {
            return 0.0;
        }
        (0..k)
            .map(|i| as_f64(n - r - i) / as_f64(n - i))
            .product::<f64>()
    }

    /// The item at rank i is relevant with R/N, and then (i-1)(R-1)/(N-1) relevant ones precede it.
    fn chance_of_average_precision(&self, k: usize) -> f64 {
        let (n, r) = (as_f64(self.n_candidates), as_f64(self.n_relevant));
        let others = if self.n_candidates > 1 {
            (r - 1.0) / (n - 1.0)
        } else {
            0.0
        };
        let terms = (1..=k.min(self.n_candidates)).map(|rank| {
            let before = as_f64(rank - 1) * others;
            r / n * (1.0 + before) / as_f64(rank)
        });
        terms.sum::<f64>() / as_f64(self.n_relevant.min(k))
    }

    /// The sum over ranks of the probability that the first relevant item is there, over the rank.
    fn chance_of_mrr(&self, k: usize) -> f64 {
        let (n, r) = (self.n_candidates, self.n_relevant);
        let (mut none_before, mut sum) = (1.0, 0.0);
        for rank in 1..=k.min(n - r + 1) {
            let n_left = as_f64(n - rank + 1);
            sum += none_before * as_f64(r) / n_left / as_f64(rank);
            none_before *= as_f64(n - r + 1 - rank) / n_left;
        }
        sum
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

/// The classes and scores of one query's nearest items, the best first.
#[derive(Debug, Clone, Copy)]
pub struct Vote<'a> {
    /// Classes; equal numbers of votes go to the lowest.
    pub classes: &'a [u32],
    /// Cosines, as many as classes.
    pub scores: &'a [f32],
}

impl Vote<'_> {
    /// Returns every class that got a vote, with the sum of its weights, in the order of classes.
    ///
    /// # Source
    /// Wu et al. 2018, section 3.4: weights exp(score / T); with `temperature` `None`, each item has
    /// one vote.
    #[must_use]
    pub fn class_scores(&self, k: usize, temperature: Option<f64>) -> Vec<(u32, f64)> {
        let mut sums: Vec<(u32, f64)> = Vec::new();
        for (&class, &score) in self.classes.iter().zip(self.scores).take(k) {
            let weight = temperature.map_or(1.0, |t| (f64::from(score) / t).exp());
            match sums.binary_search_by_key(&class, |&(class, _)| class) {
                Ok(place) => sums[place].1 += weight,
                Err(place) => sums.insert(place, (class, weight)),
            }
        }
        sums
    }

    /// Returns the class with the largest sum.
    #[must_use]
    pub fn winner(&self, k: usize, temperature: Option<f64>) -> Option<u32> {
        let sums = self.class_scores(k, temperature).into_iter();
        sums.reduce(|best, other| if other.1 > best.1 { other } else { best })
            .map(|(class, _)| class)
    }

    /// Returns the class that a metric's vote gives, `None` for metrics without a vote.
    #[must_use]
    pub fn decide(&self, metric: Metric) -> Option<u32> {
        match metric {
            Metric::MajorityAt(k) => self.winner(k, None),
            Metric::KnnAccuracy => self.winner(KNN_K, Some(KNN_TEMPERATURE)),
            Metric::KnnAccuracyPlain => self.winner(KNN_K, None),
            _ => None,
        }
    }
}

/// Counts are far below 2^53.
pub(crate) fn as_f64(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests;
