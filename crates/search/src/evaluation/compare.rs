//! Two models on the same queries: is one better, or can it not be told?

use super::bootstrap::{Bootstrap, Clusters, Interval};
use super::strata::{Strata, Stratum};

/// One query that both models answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueryPair {
    /// Its task, and its class where the task's value is a mean over classes.
    pub stratum: Stratum,
    /// Its patient; queries with equal numbers are drawn together. Not 0.
    pub patient: u32,
    /// The first model's value.
    pub a: f64,
    /// The second model's value.
    pub b: f64,
}

/// How much the second model is better than the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Mean of the first model: over queries, then over classes, then over tasks.
    pub mean_a: f64,
    /// The same of the second.
    pub mean_b: f64,
    /// Of the mean of `b - a`; `None` below `MIN_PATIENTS`.
    pub interval: Option<Interval>,
    /// Queries that both answered.
    pub n: usize,
    /// Patients of these.
    pub n_patients: usize,
}

/// What may be said of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceVerdict {
    /// The interval lies above 0.
    Better,
    /// The interval lies below 0.
    Worse,
    /// The interval holds 0.
    NotDistinguishable,
    /// Too few patients for an interval.
    TooFewPatients,
}

impl Difference {
    /// Compares two models query by query; with several tasks, each weighs the same, and so do the classes of
    /// a task.
    ///
    /// `None` without any query.
    #[must_use]
    pub fn new(pairs: &[QueryPair], bootstrap: Bootstrap) -> Option<Self> {
        if pairs.is_empty() {
            return None;
        }
        let patients: Vec<u32> = pairs.iter().map(|pair| pair.patient).collect();
        let clusters = Clusters::new(&patients);
        let strata: Vec<Stratum> = pairs.iter().map(|pair| pair.stratum).collect();
        let strata = Strata::new(&strata);
        let values = |of: fn(&QueryPair) -> f64| -> Vec<f64> { pairs.iter().map(of).collect() };
        let differences: Vec<[f64; 1]> = pairs.iter().map(|pair| [pair.b - pair.a]).collect();
        let intervals = clusters.intervals(&differences, 1, &strata, bootstrap);
        Some(Self {
            mean_a: strata.mean(&values(|pair| pair.a)),
            mean_b: strata.mean(&values(|pair| pair.b)),
            interval: intervals.into_iter().next().flatten(),
            n: pairs.len(),
            n_patients: clusters.len(),
        })
    }

    /// Returns the mean of `b - a`.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean_b - self.mean_a
    }

    /// Says which model is better, where that can be told.
    #[must_use]
    pub fn verdict(&self) -> DifferenceVerdict {
        match self.interval {
            None => DifferenceVerdict::TooFewPatients,
            Some(interval) if interval.low > 0.0 => DifferenceVerdict::Better,
            Some(interval) if interval.high < 0.0 => DifferenceVerdict::Worse,
            Some(_) => DifferenceVerdict::NotDistinguishable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(n: u32, a: impl Fn(u32) -> f64, b: impl Fn(u32) -> f64) -> Vec<QueryPair> {
        let pair = |i| QueryPair {
            stratum: Stratum {
                task: i % 2,
                class: 0,
            },
            patient: i / 2 + 1,
            a: a(i),
            b: b(i),
        };
        (0..n).map(pair).collect()
    }

    fn verdict(pairs: &[QueryPair]) -> DifferenceVerdict {
        let difference = Difference::new(pairs, Bootstrap::default()).unwrap();
        difference.verdict()
    }

    #[test]
    fn a_small_steady_gain_is_told_and_a_large_noisy_one_is_not() {
        let every = |n: u32| move |i: u32| f64::from(u8::from(i.is_multiple_of(n)));
        let noise = every(4);
        let steady = pairs(200, noise, |i| noise(i) + 0.01);
        assert_eq!(verdict(&steady), DifferenceVerdict::Better);
        let worse: Vec<QueryPair> = steady
            .iter()
            .map(|p| QueryPair {
                a: p.b,
                b: p.a,
                ..*p
            })
            .collect();
        assert_eq!(verdict(&worse), DifferenceVerdict::Worse);
        let noisy = pairs(20, noise, every(3));
        assert_eq!(verdict(&noisy), DifferenceVerdict::NotDistinguishable);
    }

    #[test]
    fn a_model_does_not_differ_from_itself() {
        let same = pairs(100, f64::from, f64::from);
        let difference = Difference::new(&same, Bootstrap::default()).unwrap();
        assert_eq!(
            (difference.mean(), difference.n, difference.n_patients),
            (0.0, 100, 50)
        );
        assert_eq!(difference.verdict(), DifferenceVerdict::NotDistinguishable);
        assert_eq!(verdict(&same[..8]), DifferenceVerdict::TooFewPatients);
        assert!(Difference::new(&[], Bootstrap::default()).is_none());
    }

    #[test]
    fn every_task_weighs_the_same() {
        let mut all = pairs(20, |_| 0.0, |_| 1.0);
        all.retain(|pair| pair.stratum.task == 0 || pair.patient == 1);
        let all: Vec<QueryPair> = all
            .iter()
            .map(|p| QueryPair {
                b: f64::from(p.stratum.task),
                ..*p
            })
            .collect();
        let difference = Difference::new(&all, Bootstrap::default()).unwrap();
        assert_eq!(difference.mean_b, 0.5);
    }
}
