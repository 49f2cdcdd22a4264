//! The rules by which evaluations are judged: docs/evaluation.md, "Means of groups".

use m3ret_search::evaluation::Metric;

/// Number of the rules of this version; numbers of other rules are not compared with these.
pub const PROTOCOL: u64 = 3;

/// Metrics of groups: the first decides, the others stand beside it.
pub(crate) const GROUP_METRICS: [Metric; 3] =
    [Metric::MapAtR, Metric::PrecisionAt(5), Metric::HitAt(1)];

/// A task is in the mean of its group with at least this number of queries,
const MIN_QUERIES: usize = 20;
/// with a chance of `precision_at_5` of at most this,
const MAX_CHANCE: f64 = 0.8;
/// if `pixels` reaches less than this share of the maximum of `precision_at_5`,
const MAX_PIXELS: f64 = 0.98;
/// Share of the maximum of a metric of groups from which on a fixed ranking solves a task, which is then in no mean.
pub const MAX_CONSTANT: f64 = 0.8;

/// What decides whether a task is in the mean of its group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Standing {
    pub n_queries: usize,
    /// Chance of `precision_at_5`.
    pub chance: f64,
    /// Share of the maximum of `precision_at_5` that `pixels` reaches; `None` if it is unknown.
    pub pixels: Option<f64>,
    /// Share of the maximum that a fixed ranking reaches; `None` if it is unknown.
    pub constant_share: Option<f64>,
}

impl Standing {
    /// Returns whether the task counts in the mean of its group.
    pub(crate) fn is_in_mean(self) -> bool {
        self.n_queries >= MIN_QUERIES
            && self.chance <= MAX_CHANCE
            && self.pixels.is_none_or(|pixels| pixels < MAX_PIXELS)
            && !self.is_solved_by_constant()
    }

    /// Returns whether a ranking that ignores the query solves the task.
    pub(crate) fn is_solved_by_constant(self) -> bool {
        self.constant_share
            .is_some_and(|share| share >= MAX_CONSTANT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn easy_and_small_tasks_are_in_no_mean() {
        let good = Standing {
            n_queries: 20,
            chance: 0.8,
            pixels: Some(0.97),
            constant_share: Some(0.79),
        };
        let unknown = Standing {
            pixels: None,
            constant_share: None,
            ..good
        };
        assert!(good.is_in_mean() && unknown.is_in_mean());
        for bad in [
            Standing {
                n_queries: 19,
                ..good
            },
            Standing {
                chance: 0.81,
                ..good
            },
            Standing {
                pixels: Some(0.98),
                ..good
            },
            Standing {
                constant_share: Some(0.8),
                ..good
            },
        ] {
            assert!(!bad.is_in_mean(), "{bad:?}");
        }
    }
}
