//! Which difference between two models a set of queries can tell, before a model is looked at.

use super::bootstrap::{Clusters, MIN_PATIENTS};
use super::metrics::as_f64;
use super::strata::Strata;

/// The correlation of two models' errors, patient by patient, that resolutions assume.
pub const CORRELATION: f64 = 0.5;
/// Standard errors from the middle of a 95 % interval to its end.
const Z: f64 = 1.96;
/// Deviations of metrics (0 to 1) below it are rounding.
const EPSILON: f64 = 1e-12;

/// The smallest difference of two models whose 95 % interval can be expected to exclude 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resolution {
    /// If both models vary between patients as the reference does; `None` without a reference, and
    /// where the reference has the same value in every query: it then tells nothing of variance.
    pub expected: Option<f64>,
    /// Whatever the models are.
    pub at_most: f64,
}

impl Clusters {
    /// Returns the resolution of a mean of `strata`; `None` below `MIN_PATIENTS`.
    ///
    /// With `w_q` the weight of query q in the mean, `v_q` the reference's value of it and `m_q` the
    /// reference's mean in the stratum of q, patient p deviates by `e_p`, the sum over its queries of
    /// `w_q (v_q - m_q)`. The reference's standard error `s` is the root of `n / (n - 1) sum_p e_p^2`.
    /// `expected` is `1.96 sqrt(2 (1 - CORRELATION)) s`. For `at_most`, each patient has the largest
    /// variance of a sum between 0 and `r_p`, the sum of `w_q max_q`: `s` is the root of
    /// `sum_p r_p^2 / 4`.
    ///
    /// # Source
    /// Taylor linearisation of a ratio, clustered: Cochran 1977, section 6. Popoviciu 1935 for the bound.
    ///
    /// # Panics
    /// If there are not as many values, maxima and strata as queries.
    #[must_use]
    pub fn resolution(
        &self,
        strata: &Strata,
        reference: Option<&[f64]>,
        maxima: &[f64],
    ) -> Option<Resolution> {
        if self.len() < MIN_PATIENTS {
            return None;
        }
        let weights = strata.weights();
        // The root of the sum of the squares of a number of each patient.
        let norm = |of_queries: &[f64]| {
            let mut of_patients = vec![0.0; self.len()];
            for ((&patient, value), weight) in
                self.of_queries().iter().zip(of_queries).zip(&weights)
            {
                of_patients[patient as usize] += value * weight;
            }
            of_patients.iter().map(|sum| sum * sum).sum::<f64>().sqrt()
        };
        assert_eq!(maxima.len(), weights.len(), "a maximum for each query");
        let n = as_f64(self.len());
        let half_width = |s: f64| Z * (2.0 * (1.0 - CORRELATION)).sqrt() * s;
        let expected = reference
            .map(|values| strata.deviations(values))
            .filter(|deviations| deviations.iter().any(|deviation| deviation.abs() > EPSILON))
            .map(|deviations| half_width((n / (n - 1.0)).sqrt() * norm(&deviations)));
        Some(Resolution {
            expected,
            at_most: half_width(norm(maxima) / 2.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::bootstrap::Bootstrap;
    use crate::evaluation::strata::Stratum;

    fn every(n: u32, class: impl Fn(u32) -> u32) -> Strata {
        let strata = (0..n).map(|i| Stratum {
            task: 0,
            class: class(i),
        });
        Strata::new(&strata.collect::<Vec<_>>())
    }

    #[test]
    fn a_share_of_one_half_has_its_known_standard_error() {
        let values: Vec<f64> = (0..100).map(|i| f64::from(i % 2)).collect();
        let clusters = Clusters::new(&[0; 100]);
        let found = clusters
            .resolution(&every(100, |_| 0), Some(&values), &[1.0; 100])
            .unwrap();
        // 1.96 * 0.5 / sqrt(99), and with sqrt(100) for the bound.
        assert!(
            (found.expected.unwrap() - 0.098_494).abs() < 1e-5,
            "{found:?}"
        );
        assert!((found.at_most - 0.098).abs() < 1e-9, "{found:?}");
        let constant = clusters.resolution(&every(100, |i| i % 7), Some(&[0.1; 100]), &[1.0; 100]);
        assert_eq!(
            constant.unwrap().expected,
            None,
            "a reference that never varies"
        );
        let few = Clusters::new(&[1, 1, 2, 3, 4]);
        assert_eq!(few.resolution(&every(5, |_| 0), None, &[1.0; 5]), None);
    }

    #[test]
    fn it_is_half_the_width_of_the_bootstrap_interval() {
        // Sixty patients with one to three queries, in three classes.
        let patients: Vec<u32> = (0..120).map(|i| i * i % 60 + 1).collect();
        let values: Vec<[f64; 1]> = (0..120)
            .map(|i| [f64::from(i * 37 % 101) / 101.0])
            .collect();
        let strata = every(120, |i| i % 3);
        let clusters = Clusters::new(&patients);
        let interval = clusters.intervals(&values, 1, &strata, Bootstrap::default())[0].unwrap();
        let flat: Vec<f64> = values.iter().map(|row| row[0]).collect();
        let found = clusters
            .resolution(&strata, Some(&flat), &[1.0; 120])
            .unwrap();
        let ratio = found.expected.unwrap() / (interval.high - interval.low) * 2.0;
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
        assert!(found.at_most > found.expected.unwrap());
    }
}
