//! The vote of the nearest items on a query's class.

use std::collections::BTreeMap;

use super::{KNN_K, KNN_TEMPERATURE, Metric, as_f64};

/// Most neighbours of a vote whose ties take the mean over all orders; in larger ones the order in
/// which ties are listed decides, as the work grows with the third power.
pub const MAX_TIED_VOTE_K: usize = 100;

/// The classes and scores of one query's nearest items, the best first.
#[derive(Debug, Clone, Copy)]
pub struct Vote<'a> {
    /// Classes; equal numbers of votes go to the lowest.
    pub classes: &'a [u32],
    /// Cosines, as many as classes.
    pub scores: &'a [f32],
    /// The classes of all further items with the last of these scores.
    pub beyond: &'a [u32],
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
            let weight = weight(score, temperature);
            match sums.binary_search_by_key(&class, |&(class, _)| class) {
                Ok(place) => sums[place].1 += weight,
                Err(place) => sums.insert(place, (class, weight)),
            }
        }
        sums
    }

    /// Returns the class with the largest sum; ties are taken in the order in which they are listed.
    #[must_use]
    pub fn winner(&self, k: usize, temperature: Option<f64>) -> Option<u32> {
        let sums = self.class_scores(k, temperature).into_iter();
        sums.reduce(|best, other| if other.1 > best.1 { other } else { best })
            .map(|(class, _)| class)
    }

    /// Returns the class that a metric's vote gives, `None` for metrics without a vote.
    #[must_use]
    pub fn decide(&self, metric: Metric) -> Option<u32> {
        let (k, temperature) = rule(metric)?;
        self.winner(k, temperature)
    }

    /// Returns the share of all orders of equal scores in which a metric's vote gives `class`, `None`
    /// for metrics without a vote.
    ///
    /// Above `MAX_TIED_VOTE_K` neighbours it is 1 or 0, as `decide` says.
    #[must_use]
    pub fn share_of(&self, metric: Metric, class: u32) -> Option<f64> {
        let (k, temperature) = rule(metric)?;
        Some(self.share(k, temperature, class))
    }

    pub(super) fn share(&self, k: usize, temperature: Option<f64>, class: u32) -> f64 {
        match self.tie_at(k).filter(|_| k <= MAX_TIED_VOTE_K) {
            Some(start) => self.tied_vote(start, k, temperature).share_of(class),
            None => f64::from(u8::from(self.winner(k, temperature) == Some(class))),
        }
    }

    /// Returns where the items with the score of the k-th begin, if some of them are not among the
    /// first `k`.
    fn tie_at(&self, k: usize) -> Option<usize> {
        let last = *self.scores.get(k.checked_sub(1)?)?;
        let goes_on = match self.scores.get(k) {
            Some(next) => next.to_bits() == last.to_bits(),
            None => !self.beyond.is_empty(),
        };
        goes_on.then(|| self.scores.partition_point(|&score| score > last))
    }

    /// Sorts the items out that one cut of a tie concerns: votes that are cast in any case, and those of
    /// the tie, of which `k - start` are cast.
    fn tied_vote(&self, start: usize, k: usize, temperature: Option<f64>) -> TiedVote {
        let score = self.scores[start];
        let ties = self.scores[start..].iter();
        let n_listed = ties
            .take_while(|other| other.to_bits() == score.to_bits())
            .count();
        let end = start + n_listed;
        let mut tied = self.classes[start..end].to_vec();
        if end == self.classes.len() {
            tied.extend(self.beyond);
        }
        let mut classes = BTreeMap::<u32, Class>::new();
        for (class, sum) in self.class_scores(start, temperature) {
            classes.entry(class).or_default().sum = sum;
        }
        for class in &tied {
            classes.entry(*class).or_default().n += 1;
        }
        TiedVote {
            n_tied: tied.len(),
            n_cast: k - start,
            weight: weight(score, temperature),
            classes,
        }
    }
}

/// Returns the number of neighbours and the temperature of a metric's vote.
fn rule(metric: Metric) -> Option<(usize, Option<f64>)> {
    match metric {
        Metric::MajorityAt(k) => Some((k, None)),
        Metric::KnnAccuracy => Some((KNN_K, Some(KNN_TEMPERATURE))),
        Metric::KnnAccuracyPlain => Some((KNN_K, None)),
        _ => None,
    }
}

fn weight(score: f32, temperature: Option<f64>) -> f64 {
    temperature.map_or(1.0, |t| (f64::from(score) / t).exp())
}

/// One class of a vote.
#[derive(Debug, Clone, Copy, Default)]
struct Class {
    /// Sum of the weights that are cast in any case.
    sum: f64,
    /// Items in the tie.
    n: usize,
}

/// A vote of which the last `n_cast` votes are drawn from `n_tied` items of one score.
struct TiedVote {
    n_tied: usize,
    n_cast: usize,
    /// Of each item of the tie.
    weight: f64,
    classes: BTreeMap<u32, Class>,
}

/// Classes that stand the same to the class in question, and how many they are.
type Groups = BTreeMap<(u64, usize, bool), u32>;

impl TiedVote {
    /// Returns the probability that `class` wins.
    ///
    /// The votes of the tie are a draw without replacement: with `n_c` items of class c, the counts
    /// `m_c` have the probability `prod C(n_c, m_c) / C(n, k)`. For each count of the class itself the
    /// others are summed over all counts that do not beat it, class by class (a product of
    /// polynomials). `C(n_c, m)` is scaled to the binomial distribution of `k / n`, which keeps numbers
    /// within f64 and cancels.
    fn share_of(&self, class: u32) -> f64 {
        let own = self.classes.get(&class).copied().unwrap_or_default();
        let mut groups = Groups::new();
        for (&other, of_other) in self.classes.iter().filter(|(other, _)| **other != class) {
            // Sums are positive, so that their bits tell them apart.
            let kind = (of_other.sum.to_bits(), of_other.n, other < class);
            *groups.entry(kind).or_default() += 1;
        }
        let of_own = self.binomial(own.n);
        let mut share = 0.0;
        let mut sum = own.sum;
        for (n_own, probability) in of_own.iter().enumerate() {
            share += probability * self.others(&groups, sum, self.n_cast - n_own);
            // One by one, as `class_scores` adds.
            sum += self.weight;
        }
        let all = self.binomial(self.n_tied);
        (share / all[self.n_cast]).min(1.0)
    }

    /// The scaled probability that all other classes together get `n_cast` votes of the tie, and none of
    /// them beats a class with `sum`.
    fn others(&self, groups: &Groups, sum: f64, n_cast: usize) -> f64 {
        let mut product = vec![1.0];
        for (&(own_sum, n, is_before), &n_classes) in groups {
            // Equal sums go to the lower class.
            let is_beaten = |other: f64| other < sum || (!is_before && other <= sum);
            let mut other = f64::from_bits(own_sum);
            let mut counts = self.binomial(n);
            let mut n_counts = 0;
            while n_counts < counts.len() && is_beaten(other) {
                other += self.weight;
                n_counts += 1;
            }
            counts.truncate(n_counts);
            product = multiply(&product, &power(counts, n_classes, n_cast), n_cast);
        }
        product.get(n_cast).copied().unwrap_or(0.0)
    }

    /// The binomial distribution of `n` draws with probability `n_cast / n_tied`, up to `n_cast`.
    fn binomial(&self, n: usize) -> Vec<f64> {
        let p = as_f64(self.n_cast) / as_f64(self.n_tied);
        let mut term = (as_f64(n) * (-p).ln_1p()).exp();
        let mut terms = Vec::with_capacity(n.min(self.n_cast) + 1);
        for m in 0..=n.min(self.n_cast) {
            terms.push(term);
            term *= as_f64(n - m) / as_f64(m + 1) * p / (1.0 - p);
        }
        terms
    }
}

/// Multiplies two polynomials, up to a degree.
fn multiply(a: &[f64], b: &[f64], degree: usize) -> Vec<f64> {
    if a.is_empty() || b.is_empty() {
        return Vec::new();
    }
    let mut product = vec![0.0; (a.len() + b.len() - 1).min(degree + 1)];
    for (i, x) in a.iter().enumerate().take(degree + 1) {
        for (place, y) in product[i..].iter_mut().zip(b) {
            *place += x * y;
        }
    }
    product
}

/// Raises a polynomial to a power, up to a degree.
fn power(base: Vec<f64>, mut exponent: u32, degree: usize) -> Vec<f64> {
    let (mut result, mut square) = (vec![1.0], base);
    while exponent > 0 {
        if exponent % 2 == 1 {
            result = multiply(&result, &square, degree);
        }
        exponent /= 2;
        if exponent > 0 {
            square = multiply(&square, &square, degree);
        }
    }
    result
}
