//! How far a mean may be off: the patient-clustered bootstrap.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::metrics::as_f64;
use super::strata::Strata;

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

    /// Returns the patient of each query, numbered from 0.
    pub(crate) fn of_queries(&self) -> &[u32] {
        &self.of_query
    }

    /// Returns the interval of the mean of each column of `values`, a row for each query.
    ///
    /// As many patients as there are are drawn with replacement, and the mean of `strata` taken over the
    /// queries of all drawn patients: a class or task without a drawn query is left out of that draw.
    /// Bounds are the 2.5 and 97.5 percentiles (linear between draws). `None` below `MIN_PATIENTS`.
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
        strata: &Strata,
        bootstrap: Bootstrap,
    ) -> Vec<Option<Interval>> {
        assert_eq!(values.len(), self.of_query.len(), "a row for each query");
        let columns: Vec<Vec<f64>> = (0..n_columns)
            .map(|column| values.iter().map(|row| row.as_ref()[column]).collect())
            .collect();
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let Some(draws) = self.draws(strata, &columns, bootstrap) else {
            return vec![None; n_columns];
        };
        let column = |column: usize| draws.iter().map(|means| means[column]).collect();
        (0..n_columns).map(|i| percentiles(column(i))).collect()
    }

    /// Returns the mean of `strata` of each column for each draw of patients, a row for each draw.
    ///
    /// A column has a value for each query. The draws are the same for all columns. `None` below
    /// `MIN_PATIENTS`.
    ///
    /// # Panics
    /// If a column or `strata` has not as many values as there are queries.
    #[must_use]
    pub fn draws(
        &self,
        strata: &Strata,
        columns: &[&[f64]],
        bootstrap: Bootstrap,
    ) -> Option<Vec<Vec<f64>>> {
        if self.n < MIN_PATIENTS {
            return None;
        }
        let cells = Cells::new(strata, &self.of_query);
        let sums: Vec<Vec<f64>> = columns.iter().map(|column| cells.sums(column)).collect();
        let means = (0..bootstrap.n_resamples).into_par_iter().map(|resample| {
            let drawn = draw(self.n, bootstrap.seed, resample);
            let column = |sums: &Vec<f64>| cells.mean(sums, &drawn, strata);
            sums.iter().map(column).collect()
        });
        Some(means.collect())
    }
}

/// The queries of one patient in one stratum, summed: all that a draw needs.
struct Cells {
    /// Stratum and patient of each cell, in ascending order.
    places: Vec<(u32, u32)>,
    /// The cell of each query.
    of_query: Vec<usize>,
    /// Queries of each cell.
    sizes: Vec<f64>,
}

impl Cells {
    fn new(strata: &Strata, clusters: &[u32]) -> Self {
        assert_eq!(
            strata.of_query.len(),
            clusters.len(),
            "a stratum for each query"
        );
        let all = || {
            strata
                .of_query
                .iter()
                .copied()
                .zip(clusters.iter().copied())
        };
        let mut places: Vec<(u32, u32)> = all().collect();
        places.sort_unstable();
        places.dedup();
        let of_query = all().map(|place| places.binary_search(&place).unwrap_or_default());
        let of_query: Vec<usize> = of_query.collect();
        let mut sizes = vec![0.0; places.len()];
        of_query.iter().for_each(|&cell| sizes[cell] += 1.0);
        Self {
            places,
            of_query,
            sizes,
        }
    }

    fn sums(&self, values: &[f64]) -> Vec<f64> {
        assert_eq!(values.len(), self.of_query.len(), "a value for each query");
        let mut sums = vec![0.0; self.places.len()];
        for (&cell, value) in self.of_query.iter().zip(values) {
            sums[cell] += value;
        }
        sums
    }

    /// The mean of the strata where each patient counts as often as it was drawn.
    fn mean(&self, sums: &[f64], drawn: &[u32], strata: &Strata) -> f64 {
        let mut totals = vec![(0.0, 0.0); strata.task_of.len()];
        for ((&(stratum, cluster), sum), size) in self.places.iter().zip(sums).zip(&self.sizes) {
            let weight = f64::from(drawn[cluster as usize]);
            let (total, n) = &mut totals[stratum as usize];
            *total += sum * weight;
            *n += size * weight;
        }
        strata.mean_of_totals(&totals)
    }
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
    use crate::evaluation::strata::Stratum;
    use proptest::prelude::*;

    fn one<T>(values: &[T]) -> Strata {
        Strata::new(&vec![Stratum::default(); values.len()])
    }

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
            let intervals =
                Clusters::new(&patients).intervals(&values, 1, &one(&values), Bootstrap::default());
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
        let interval =
            Clusters::new(&patients).intervals(&values, 1, &one(&values), Bootstrap::default())[0];
        let interval = interval.unwrap();
        assert!(interval.high - interval.low > 0.6, "{interval:?}");
        let few = Clusters::new(&[1, 2, 3, 4, 4, 4]);
        assert_eq!(
            few.intervals(&[[0.0]; 6], 1, &one(&[[0.0]; 6]), Bootstrap::default()),
            [None]
        );
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
            clusters.intervals(&values, 2, &one(&values), bootstrap)
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
        let task = |i: u32| u32::from(i >= 100);
        let strata: Vec<Stratum> = (0..110)
            .map(|i| Stratum {
                task: task(i),
                class: 0,
            })
            .collect();
        let values: Vec<[f64; 1]> = (0..110).map(|i| [f64::from(task(i))]).collect();
        let strata = Strata::new(&strata);
        let interval = clusters.intervals(&values, 1, &strata, Bootstrap::default())[0].unwrap();
        assert!((interval.low - 0.5).abs() < 1e-9 && (interval.high - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_class_that_no_drawn_patient_has_is_left_out_of_the_draw() {
        // Class 1 belongs to one of ten patients: 35 % of the draws lack it, and have 0, not 0 / 2.
        let patients: Vec<u32> = (1..=10).collect();
        let strata: Vec<Stratum> = (0..10)
            .map(|i| Stratum {
                task: 0,
                class: u32::from(i == 9),
            })
            .collect();
        let values: Vec<f64> = (0..10).map(|i| f64::from(u8::from(i == 9))).collect();
        let draws = Clusters::new(&patients)
            .draws(&Strata::new(&strata), &[&values], Bootstrap::default())
            .unwrap();
        let n_without = draws.iter().filter(|means| means[0] == 0.0).count();
        assert!(draws.iter().all(|means| [0.0, 0.5].contains(&means[0])));
        let share = as_f64(n_without) / as_f64(draws.len());
        assert!((share - 0.9_f64.powi(10)).abs() < 0.03, "{share}");
    }

    /// What `draws` should give: pools the drawn queries one by one.
    fn plain(rows: &[(u32, u32, u32, f64)], clusters: &Clusters, resample: usize) -> f64 {
        let drawn = draw(clusters.n, 3, resample);
        let mut pooled: Vec<(Stratum, f64)> = Vec::new();
        for (row, &cluster) in rows.iter().zip(&clusters.of_query) {
            let stratum = Stratum {
                task: row.0,
                class: row.1,
            };
            for _ in 0..drawn[cluster as usize] {
                pooled.push((stratum, row.3));
            }
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / as_f64(values.len());
        let distinct = |mut all: Vec<u32>| {
            all.sort_unstable();
            all.dedup();
            all
        };
        let tasks = distinct(pooled.iter().map(|(s, _)| s.task).collect());
        let of_task = |task: u32| {
            let here = |s: &Stratum| s.task == task;
            let own = pooled.iter().filter(|(s, _)| here(s));
            let classes = distinct(own.map(|(s, _)| s.class).collect());
            let of_class = |class: u32| {
                let own = pooled.iter().filter(|(s, _)| here(s) && s.class == class);
                mean(&own.map(|&(_, value)| value).collect::<Vec<_>>())
            };
            mean(&classes.into_iter().map(of_class).collect::<Vec<_>>())
        };
        mean(&tasks.into_iter().map(of_task).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn draws_agree_with_pooling_every_drawn_query(
            rows in prop::collection::vec((0_u32..3, 0_u32..4, 0_u32..12, 0.0_f64..1.0), 12..60)
        ) {
            let clusters = Clusters::new(&rows.iter().map(|row| row.2).collect::<Vec<_>>());
            prop_assume!(clusters.len() >= MIN_PATIENTS);
            let strata: Vec<Stratum> = rows.iter().map(|row| Stratum { task: row.0, class: row.1 }).collect();
            let values: Vec<f64> = rows.iter().map(|row| row.3).collect();
            let bootstrap = Bootstrap { n_resamples: 20, seed: 3 };
            let draws = clusters.draws(&Strata::new(&strata), &[&values], bootstrap).unwrap();
            for (resample, means) in draws.iter().enumerate() {
                let wanted = plain(&rows, &clusters, resample);
                prop_assert!((means[0] - wanted).abs() < 1e-12, "{} {}", means[0], wanted);
            }
        }
    }
}
