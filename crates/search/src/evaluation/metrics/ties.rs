//! Blocks of equal scores, whose order is left to chance: metrics take the mean over all orders.
//!
//! # Source
//! `McSherry` and Najork 2008, "Computing information retrieval performance measures efficiently in the
//! presence of tied scores", sections 2 and 3. Differs: denominators are those of docs/evaluation.md.

use super::as_f64;

/// Consecutive items of a ranking whose order is random: those of one score, or a single item.
///
/// Neighbouring blocks whose items all have one and the same grade are kept as one, as their order
/// changes no metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    /// Items, `n`.
    pub n: usize,
    /// Relevant ones among them, `r`.
    pub n_relevant: usize,
    /// Sum of the grades of all items.
    pub total_grade: f64,
}

/// What stands before a block in its ranking.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before {
    /// Items.
    pub(super) n: usize,
    /// Relevant ones among them.
    pub(super) n_relevant: usize,
}

impl Block {
    /// Lists the blocks of a ranking by falling score; items with one score form a block.
    ///
    /// `least_grade` is the grade from which on an item is relevant.
    ///
    /// # Panics
    /// If there are fewer grades than scores.
    #[must_use]
    pub fn of_scores(scores: &[f32], grades: &[f32], least_grade: f32) -> Vec<Self> {
        let mut blocks = BlockBuilder::new(least_grade);
        let mut start = 0;
        // -0 becomes 0: the two are one score.
        for ties in scores.chunk_by(|a, b| (a + 0.0).to_bits() == (b + 0.0).to_bits()) {
            blocks.push(&grades[start..start + ties.len()]);
            start += ties.len();
        }
        blocks.all
    }

    /// Lists the blocks of a ranking without ties.
    #[must_use]
    pub fn of_order(grades: &[f32], least_grade: f32) -> Vec<Self> {
        let mut blocks = BlockBuilder::new(least_grade);
        for grade in grades.chunks(1) {
            blocks.push(grade);
        }
        blocks.all
    }

    /// Returns whether the block holds relevant items and others.
    #[must_use]
    pub fn is_mixed(&self) -> bool {
        (1..self.n).contains(&self.n_relevant)
    }

    /// The mean number of relevant items among the first `k`: `k r / n`.
    pub(super) fn n_found(&self, k: usize) -> f64 {
        if k >= self.n {
            return as_f64(self.n_relevant);
        }
        as_f64(k) * as_f64(self.n_relevant) / as_f64(self.n)
    }

    /// The probability that none of the first `k` is relevant: `C(n-r, k) / C(n, k)`.
    pub(super) fn none_among(&self, k: usize) -> f64 {
        let (n, r) = (self.n, self.n_relevant);
        if k > n - r {
            return 0.0;
        }
        if r == 0 {
            return 1.0;
        }
        (0..k)
            .map(|i| as_f64(n - r - i) / as_f64(n - i))
            .product::<f64>()
    }

    /// For each of the first `k` items the mean of relevance times precision at its rank.
    ///
    /// Item j (from 1) is relevant with r/n, and then `(j-1)(r-1)/(n-1)` relevant items of the block
    /// precede it on average.
    pub(super) fn precisions(self, before: Before, k: usize) -> impl Iterator<Item = f64> {
        let (n, r) = (as_f64(self.n), as_f64(self.n_relevant));
        let others = if self.n > 1 {
            (r - 1.0) / (n - 1.0)
        } else {
            0.0
        };
        let n_found = as_f64(before.n_relevant);
        // Without a relevant item every term is 0.
        let n_seen = if self.n_relevant == 0 {
            0
        } else {
            k.min(self.n)
        };
        (1..=n_seen).map(move |j| {
            let n_before = as_f64(j - 1) * others;
            r / n * (n_found + 1.0 + n_before) / as_f64(before.n + j)
        })
    }

    /// The mean of one over the rank of the first relevant item, 0 where that is not among the
    /// first `k` items of the block.
    ///
    /// The sum over ranks of the probability that the first relevant item is there, over the rank.
    pub(super) fn reciprocal_rank(&self, before: Before, k: usize) -> f64 {
        let (n, r) = (self.n, self.n_relevant);
        let (mut none_before, mut sum) = (1.0, 0.0);
        for j in 1..=k.min(n - r + 1) {
            let n_left = as_f64(n - j + 1);
            sum += none_before * as_f64(r) / n_left / as_f64(before.n + j);
            none_before *= as_f64(n - r + 1 - j) / n_left;
        }
        sum
    }
}

/// Blocks in the making.
struct BlockBuilder {
    all: Vec<Block>,
    least_grade: f32,
    /// The grade of all items of the last block, where they have the same.
    last_grade: Option<f32>,
}

impl BlockBuilder {
    fn new(least_grade: f32) -> Self {
        Self {
            all: Vec::new(),
            least_grade,
            last_grade: None,
        }
    }

    /// Adds items whose order is random.
    fn push(&mut self, grades: &[f32]) {
        let Some(&first) = grades.first() else {
            return;
        };
        let bits = |grade: f32| grade.to_bits();
        let own_grade = grades
            .iter()
            .all(|&grade| bits(grade) == bits(first))
            .then_some(first);
        let is_relevant = |grade: &&f32| **grade >= self.least_grade;
        let block = Block {
            n: grades.len(),
            n_relevant: grades.iter().filter(is_relevant).count(),
            total_grade: grades.iter().copied().map(f64::from).sum(),
        };
        let is_same = own_grade.is_some() && own_grade.map(bits) == self.last_grade.map(bits);
        match self.all.last_mut() {
            Some(last) if is_same => {
                last.n += block.n;
                last.n_relevant += block.n_relevant;
                last.total_grade += block.total_grade;
            }
            _ => self.all.push(block),
        }
        self.last_grade = own_grade;
    }
}
