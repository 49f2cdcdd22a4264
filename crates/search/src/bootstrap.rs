//! How far a mean may be off: the patient-clustered bootstrap.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::metrics::as_f64;

/// Below so many patients no interval is given: the percentiles would say nothing.
pub const MIN_PATIENTS: usize = 5;

/// How intervals are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// Draws; 2000 is enough for two digits.
    pub n_resamples: usize,
    /// Decides the draws.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            n_resamples: 2000,
            seed: 0,
        }
    }
}

/// A 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The 2.5 percentile.
    pub low: f64,
    /// The 97.5 percentile.
    pub high: f64,
}

impl Interval {
    /// Returns whether the interval lies on one side of 0.
    #[must_use]
    pub fn excludes_0(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Which query belongs to which patient; each patient is drawn as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clusters {
    of_query: Vec<u32>,
    n: usize,
}

impl Clusters {
    /// Takes the patient of each query; 0 says that it is not known, and makes a cluster of its own.
    #[must_use]
    pub fn new(patients: &[u32]) -> Self {
        let mut known: Vec<u32> = patients.iter().copied().filter(|&p| p != 0).collect();
        known.sort_unstable();
        known.dedup();
        let mut n = known.len();
        let of_query = patients.iter().map(|patient| {
            // Patients are numbered in their order, so that draws do not depend on that of queries.
            let place = known.binary_search(patient).unwrap_or_else(|_| {
                n += 1;
                n - 1
            });
            u32::try_from(place).unwrap_or(u32::MAX)
        });
        Self {
            of_query: of_query.collect(),
            n,
        }
    }

    /// Returns how many patients there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.n
    }

    /// Returns whether there is no query.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Returns the interval of the mean of each column of `values`, a row for each query.
    ///
    /// As many patients as there are are drawn with replacement, and the values of all their queries
    /// pooled; bounds are the 2.5 and 97.5 percentiles (linear between draws). `None` below
    /// `MIN_PATIENTS`.
    ///
    /// # Source
    /// Field and Welsh 2007 (cluster bootstrap); Efron 1979.
    ///
    /// # Panics
    /// If a row has fewer than `n_columns` values, or there are not as many rows as queries.
    #[must_use]
    pub fn intervals<R: AsRef<[f64]>>(
        &self,
        values: &[R],
        n_columns: usize,
        bootstrap: Bootstrap,
    ) -> Vec<Option<Interval>> {
        assert_eq!(values.len(), self.of_query.len(), "a row for each query");
        if self.n < MIN_PATIENTS {
            return vec![None; n_columns];
        }
        let mut sizes = vec![0.0; self.n];
        let mut sums = vec![vec![0.0; self.n]; n_columns];
        for (row, &cluster) in values.iter().zip(&self.of_query) {
            sizes[cluster as usize] += 1.0;
            for (column, sums) in sums.iter_mut().enumerate() {
                sums[cluster as usize] += row.as_ref()[column];
            }
        }
        let means: Vec<Vec<f64>> = (0..bootstrap.n_resamples)
            .into_par_iter()
            .map(|resample| {
                let drawn = draw(self.n, bootstrap.seed, resample);
                let n_queries = weighted(&sizes, &drawn);
                let column = |sums: &Vec<f64>| weighted(sums, &drawn) / n_queries;
                sums.iter().map(column).collect()
            })
            .collect();
        let column = |column: usize| means.iter().map(|row| row[column]).collect();
        (0..n_columns).map(|i| percentiles(column(i))).collect()
    }

    /// Returns the interval of a mean over several tasks of their means, where a patient that is in
    /// several of them is drawn for all together.
    ///
    /// `tasks` holds for each query its task, from 0, and `values` its value. A task of which nobody was
    /// drawn is left out of that draw's mean.
    #[must_use]
    pub fn interval_over_tasks(
        &self,
        tasks: &[u32],
        values: &[f64],
        bootstrap: Bootstrap,
    ) -> Option<Interval> {
        let draws = self.means_over_tasks(tasks, &[values], bootstrap)?;
        percentiles(draws.iter().map(|means| means[0]).collect())
    }

    /// Returns such a mean of each of several models for each draw, a row for each
    /// draw; the draws are the same for all models.
    #[must_use]
    pub fn means_over_tasks(
        &self,
        tasks: &[u32],
        models: &[&[f64]],
        bootstrap: Bootstrap,
    ) -> Option<Vec<Vec<f64>>> {
        if self.n < MIN_PATIENTS {
            return None;
        }
        let n_tasks = tasks.iter().map(|&task| task as usize + 1).max()?;
        let means = (0..bootstrap.n_resamples).into_par_iter().map(|resample| {
            let drawn = draw(self.n, bootstrap.seed, resample);
            let weights = self
                .of_query
                .iter()
                .map(|&cluster| f64::from(drawn[cluster as usize]));
            let weights: Vec<f64> = weights.collect();
            let mean = |values: &&[f64]| mean_over_tasks(tasks, values, &weights, n_tasks);
            models.iter().map(mean).collect()
        });
        Some(means.collect())
    }
}

fn mean_over_tasks(tasks: &[u32], values: &[f64], weights: &[f64], n_tasks: usize) -> f64 {
    let mut sums = vec![(0.0, 0.0); n_tasks];
    for ((&task, &value), &weight) in tasks.iter().zip(values).zip(weights) {
        let (sum, n) = &mut sums[task as usize];
        *sum += weight * value;
        *n += weight;
    }
    let seen = sums.iter().filter(|&&(_, n)| n > 0.0);
    let (total, n) = seen.fold((0.0, 0.0), |(total, count), (sum, n)| {
        (total + sum / n, count + 1.0)
    });
    total / n
}

/// Draws `n` of `n` with replacement; returns how often each was drawn.
fn draw(n: usize, seed: u64, resample: usize) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Every resample has a stream of its own, so that threads may share the work.
    random.set_stream(resample as u64);
    let mut drawn = vec![0; n];
    for _ in 0..n {
        drawn[random.random_range(0..n)] += 1;
    }
    drawn
}

fn weighted(values: &[f64], weights: &[u32]) -> f64 {
    let products = values.iter().zip(weights);
    products
        .map(|(&value, &weight)| value * f64::from(weight))
        .sum()
}

/// Returns the 2.5 and 97.5 percentiles of draws, linear between them; `None` without any.
#[must_use]
pub fn percentiles(mut values: Vec<f64>) -> Option<Interval> {
    values.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * as_f64(values.len().checked_sub(1)?);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place within the list"
        )]
        let below = place.floor() as usize;
        let above = (below + 1).min(values.len() - 1);
        let rest = place - place.floor();
        Some(values[below] + rest * (values[above] - values[below]))
    };
    Some(Interval {
        low: at(0.025)?,
        high: at(0.975)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_one_patient_are_drawn_together() {
        let clusters = Clusters::new(&[7, 0, 7, 0, 9, 3, 9]);
        assert_eq!(clusters.of_query, [1, 3, 1, 4, 2, 0, 2]);
        assert_eq!((clusters.len(), clusters.is_empty()), (5, false));
    }

    #[test]
    fn an_interval_holds_the_mean_and_narrows_with_patients() {
        let width = |n: u32| {
            let patients: Vec<u32> = (1..=n).collect();
            let values: Vec<[f64; 1]> = (0..n).map(|i| [f64::from(i % 2)]).collect();
            let intervals = Clusters::new(&patients).intervals(&values, 1, Bootstrap::default());
            let interval = intervals[0].unwrap();
            assert!(interval.low < 0.5 && 0.5 < interval.high);
            interval.high - interval.low
        };
        // The standard error of a share of one half is 1 / (2 sqrt(n)).
        for n in [40, 400] {
            let wanted = 2.0 * 1.96 * 0.5 / f64::from(n).sqrt();
            let found = width(n);
            assert!((found / wanted - 1.0).abs() < 0.1, "{found} {wanted}");
        }
    }

    #[test]
    fn many_queries_of_few_patients_say_little() {
        let patients: Vec<u32> = (0..600).map(|i| i / 100 + 1).collect();
        let values: Vec<[f64; 1]> = (0..600_u32).map(|i| [f64::from(i / 100 % 2)]).collect();
        let interval = Clusters::new(&patients).intervals(&values, 1, Bootstrap::default())[0];
        let interval = interval.unwrap();
        assert!(interval.high - interval.low > 0.6, "{interval:?}");
        let few = Clusters::new(&[1, 2, 3, 4, 4, 4]);
        assert_eq!(few.intervals(&[[0.0]; 6], 1, Bootstrap::default()), [None]);
    }

    #[test]
    fn a_constant_has_an_interval_of_no_width_and_seeds_matter_elsewhere() {
        let clusters = Clusters::new(&[0; 30]);
        let values: Vec<[f64; 2]> = (0..30).map(|i| [0.25, f64::from(i * i % 7)]).collect();
        let of_seed = |seed| {
            let bootstrap = Bootstrap {
                seed,
                n_resamples: 200,
            };
            clusters.intervals(&values, 2, bootstrap)
        };
        let [constant, varying] = of_seed(1)[..] else {
            panic!()
        };
        let wanted = Interval {
            low: 0.25,
            high: 0.25,
        };
        assert_eq!(constant, Some(wanted));
        assert_eq!(of_seed(1)[1], varying);
        assert_ne!(of_seed(2)[1], varying);
    }

    #[test]
    fn tasks_weigh_the_same_however_many_queries_they_have() {
        let clusters = Clusters::new(&[0; 110]);
        let tasks: Vec<u32> = (0..110).map(|i| u32::from(i >= 100)).collect();
        let values: Vec<f64> = tasks.iter().copied().map(f64::from).collect();
        let interval = clusters.interval_over_tasks(&tasks, &values, Bootstrap::default());
        let interval = interval.unwrap();
        assert!((interval.low - 0.5).abs() < 1e-9 && (interval.high - 0.5).abs() < 1e-9);
    }
}
