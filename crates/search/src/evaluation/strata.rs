//! Which queries are averaged together: queries in classes, classes in tasks, tasks in a group.

use super::metrics::as_f64;

/// Where the value of a query counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stratum {
    /// Number of the task.
    pub task: u32,
    /// Number of the query's class; 0 for all queries of a task whose value is their plain mean.
    pub class: u32,
}

/// The strata of some queries, and the mean over them.
///
/// The mean over the queries of each class is taken first, then the mean over the classes of each task,
/// then that over tasks. Strata without a query are in no mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strata {
    /// The stratum of each query, by its place in ascending order.
    pub(crate) of_query: Vec<u32>,
    /// The task of each stratum, by its place in ascending order.
    pub(crate) task_of: Vec<u32>,
    n_tasks: usize,
}

impl Strata {
    /// Numbers the strata of all queries.
    #[must_use]
    pub fn new(of_queries: &[Stratum]) -> Self {
        let mut distinct = of_queries.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let place = |stratum: &Stratum| {
            let place = distinct.binary_search(stratum).unwrap_or_default();
            u32::try_from(place).unwrap_or(u32::MAX)
        };
        let mut tasks: Vec<u32> = distinct.iter().map(|stratum| stratum.task).collect();
        tasks.dedup();
        let task_of = distinct.iter().map(|stratum| {
            let place = tasks.binary_search(&stratum.task).unwrap_or_default();
            u32::try_from(place).unwrap_or(u32::MAX)
        });
        Self {
            of_query: of_queries.iter().map(place).collect(),
            task_of: task_of.collect(),
            n_tasks: tasks.len(),
        }
    }

    /// Returns the mean of a value of every query; NaN without any query.
    ///
    /// # Panics
    /// If there are not as many values as queries.
    #[must_use]
    pub fn mean(&self, values: &[f64]) -> f64 {
        self.mean_of_totals(&self.totals(values))
    }

    /// Returns how far each query's value is from the mean of its stratum.
    pub(crate) fn deviations(&self, values: &[f64]) -> Vec<f64> {
        let totals = self.totals(values);
        let deviation = |(&stratum, value): (&u32, &f64)| {
            let (total, n) = totals[stratum as usize];
            value - total / n
        };
        self.of_query.iter().zip(values).map(deviation).collect()
    }

    /// Returns how much each query weighs in the mean; all weights add up to 1.
    #[must_use]
    pub fn weights(&self) -> Vec<f64> {
        let mut n_queries = vec![0_usize; self.task_of.len()];
        for &stratum in &self.of_query {
            n_queries[stratum as usize] += 1;
        }
        let mut n_classes = vec![0_usize; self.n_tasks];
        for &task in &self.task_of {
            n_classes[task as usize] += 1;
        }
        let weight = |&stratum: &u32| {
            let task = self.task_of[stratum as usize];
            let n = n_queries[stratum as usize] * n_classes[task as usize] * self.n_tasks;
            1.0 / as_f64(n)
        };
        self.of_query.iter().map(weight).collect()
    }

    /// Returns the sum and the number of the values of each stratum.
    fn totals(&self, values: &[f64]) -> Vec<(f64, f64)> {
        assert_eq!(values.len(), self.of_query.len(), "a value for each query");
        let mut totals = vec![(0.0, 0.0); self.task_of.len()];
        for (&stratum, value) in self.of_query.iter().zip(values) {
            let (total, n) = &mut totals[stratum as usize];
            *total += value;
            *n += 1.0;
        }
        totals
    }

    /// Returns the mean, given the sum and the number of the queries of each stratum.
    pub(crate) fn mean_of_totals(&self, totals: &[(f64, f64)]) -> f64 {
        let mut of_tasks = vec![(0.0, 0.0); self.n_tasks];
        for (&(total, n), &task) in totals.iter().zip(&self.task_of) {
            if n > 0.0 {
                let (sum, n_classes) = &mut of_tasks[task as usize];
                *sum += total / n;
                *n_classes += 1.0;
            }
        }
        let seen = of_tasks.iter().filter(|&&(_, n)| n > 0.0);
        let (sum, n) = seen.fold((0.0, 0.0), |(sum, n_tasks), (total, n)| {
            (sum + total / n, n_tasks + 1.0)
        });
        sum / n
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strata(places: &[(u32, u32)]) -> Strata {
        let places = places.iter().map(|&(task, class)| Stratum { task, class });
        Strata::new(&places.collect::<Vec<_>>())
    }

    #[test]
    fn classes_weigh_the_same_then_tasks() {
        // Task 7: class 1 has mean 0.5, class 4 has 1; task 9 has 0.
        let strata = strata(&[(7, 1), (7, 4), (7, 1), (9, 0)]);
        assert_eq!(strata.mean(&[0.0, 1.0, 1.0, 0.0]), 0.375);
        assert_eq!(strata.weights(), [0.125, 0.25, 0.125, 0.5]);
        assert!(Strata::default().mean(&[]).is_nan());
    }

    proptest! {
        #[test]
        fn the_mean_is_the_sum_by_weights(
            rows in prop::collection::vec((0_u32..3, 0_u32..4, 0.0_f64..1.0), 1..40)
        ) {
            let places: Vec<(u32, u32)> = rows.iter().map(|row| (row.0, row.1)).collect();
            let strata = strata(&places);
            let values: Vec<f64> = rows.iter().map(|row| row.2).collect();
            let weights = strata.weights();
            let wanted: f64 = weights.iter().zip(&values).map(|(w, v)| w * v).sum();
            prop_assert!((strata.mean(&values) - wanted).abs() < 1e-12);
            prop_assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }
}
