//! A run of any length in little memory: each number as at most 1024 bins of steps.

use std::collections::BTreeMap;

use super::{Entry, Knn};
use crate::schedule::as_f64;

/// The most bins of a series; from then on, neighbours are joined.
const MAX_BINS: u64 = 1024;

/// What the entries of a run amount to.
#[derive(Debug, Clone, Default)]
pub struct History {
    series: BTreeMap<&'static str, Series>,
    last: Option<Entry>,
    student: Option<KnnHistory>,
    teacher: Option<KnnHistory>,
}

/// One number over the steps.
#[derive(Debug, Clone)]
pub struct Series {
    /// Steps of a bin; a power of two.
    width: u64,
    bins: Vec<Bin>,
    last: (u64, f64),
}

/// The values of neighbouring steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// The mean step.
    pub step: f64,
    /// The mean value.
    pub mean: f64,
    /// The lowest value.
    pub low: f64,
    /// The highest value.
    pub high: f64,
    n: f64,
    index: u64,
}

/// What kNN gave first, last and at its best, each with its step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KnnHistory {
    /// At the first look.
    pub first: (u64, Knn),
    /// At the newest look.
    pub last: (u64, Knn),
    /// The earliest of the highest `hit_at_1`.
    pub best: (u64, Knn),
}

impl History {
    /// Adds the entry of the same step as the newest, or of a later one.
    pub fn push(&mut self, entry: &Entry) {
        for (name, value) in entry.numbers() {
            self.series
                .entry(name)
                .and_modify(|series| series.push(entry.step, value))
                .or_insert_with(|| Series::new(entry.step, value));
        }
        for (place, knn) in [
            (&mut self.student, entry.knn_student),
            (&mut self.teacher, entry.knn_teacher),
        ] {
            if let Some(knn) = knn.filter(Knn::is_finite) {
                let look = (entry.step, knn);
                *place = Some(place.map_or_else(|| KnnHistory::new(look), |old| old.with(look)));
            }
        }
        self.last = Some(entry.clone());
    }

    /// Returns the newest entry.
    #[must_use]
    pub fn last(&self) -> Option<&Entry> {
        self.last.as_ref()
    }

    /// Returns a number's series by the name that `Entry::numbers` gives it.
    #[must_use]
    pub fn series(&self, name: &str) -> Option<&Series> {
        self.series.get(name)
    }

    /// Returns the kNN of the network that becomes the model: the teacher's, where there is one.
    #[must_use]
    pub fn knn(&self) -> Option<&KnnHistory> {
        self.teacher.as_ref().or(self.student.as_ref())
    }
}

impl KnnHistory {
    fn new(look: (u64, Knn)) -> Self {
        Self {
            first: look,
            last: look,
            best: look,
        }
    }

    fn with(self, look: (u64, Knn)) -> Self {
        let is_better = look.1.hit_at_1 > self.best.1.hit_at_1;
        Self {
            last: look,
            best: if is_better { look } else { self.best },
            ..self
        }
    }
}

impl Series {
    fn new(step: u64, value: f64) -> Self {
        let mut series = Self {
            width: 1,
            bins: Vec::new(),
            last: (step, value),
        };
        series.push(step, value);
        series
    }

    fn push(&mut self, step: u64, value: f64) {
        self.last = (step, value);
        while step / self.width >= MAX_BINS {
            self.join_neighbours();
        }
        self.add(Bin {
            step: as_f64(step),
            mean: value,
            low: value,
            high: value,
            n: 1.0,
            index: step / self.width,
        });
    }

    fn join_neighbours(&mut self) {
        self.width *= 2;
        for bin in std::mem::take(&mut self.bins) {
            self.add(Bin {
                index: bin.index / 2,
                ..bin
            });
        }
    }

    fn add(&mut self, bin: Bin) {
        match self.bins.last_mut() {
            Some(last) if last.index >= bin.index => last.join(&bin),
            _ => self.bins.push(bin),
        }
    }

    /// Returns the newest step and value.
    #[must_use]
    pub fn last(&self) -> (u64, f64) {
        self.last
    }

    /// Returns the bins, by step.
    #[must_use]
    pub fn bins(&self) -> &[Bin] {
        &self.bins
    }

    /// Returns the lowest and the highest value of all.
    #[must_use]
    pub fn extremes(&self) -> [f64; 2] {
        self.bins
            .iter()
            .fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], bin| {
                [low.min(bin.low), high.max(bin.high)]
            })
    }
}

impl Bin {
    fn join(&mut self, other: &Self) {
        let n = self.n + other.n;
        let share = other.n / n;
        self.step = self.step * (1.0 - share) + other.step * share;
        self.mean = self.mean * (1.0 - share) + other.mean * share;
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
        self.n = n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(n_steps: u64, every: u64) -> History {
        let mut history = History::default();
        for step in (0..n_steps).step_by(usize::try_from(every).unwrap()) {
            history.push(&Entry {
                step,
                loss: Some(as_f64(step % 7)),
                lr: Some(as_f64(step)),
                ..Entry::default()
            });
        }
        history
    }

    #[test]
    #[allow(clippy::float_cmp, reason = "whole numbers, exact")]
    fn a_short_run_is_kept_to_the_step() {
        let history = filled(1000, 1);
        let bins = history.series("lr").unwrap().bins();
        assert_eq!(bins.len(), 1000);
        assert!(
            bins.iter()
                .all(|bin| (bin.high - bin.low).abs() + (bin.mean - bin.step).abs() < 1e-9)
        );
    }

    #[test]
    #[allow(clippy::float_cmp, reason = "whole numbers, exact")]
    fn a_million_entries_become_a_thousand_bins_with_means_and_extremes() {
        let history = filled(1_000_000, 1);
        let lr = history.series("lr").unwrap();
        assert!(
            (512..=1024).contains(&lr.bins().len()),
            "{}",
            lr.bins().len()
        );
        assert_eq!(
            lr.extremes().map(f64::to_bits),
            [0.0_f64, 999_999.0].map(f64::to_bits)
        );
        assert_eq!(lr.last(), (999_999, 999_999.0));
        for bin in lr.bins() {
            assert!((bin.mean - bin.step).abs() < 1e-6 * (1.0 + bin.step));
            assert!(bin.low <= bin.mean && bin.mean <= bin.high);
        }
        let loss = history.series("loss").unwrap();
        for bin in &loss.bins()[..900] {
            assert!(bin.low.abs() + (bin.high - 6.0).abs() < 1e-9);
            assert!((bin.mean - 3.0).abs() < 0.01, "{}", bin.mean);
        }
    }

    #[test]
    fn rare_entries_keep_their_own_bins() {
        assert_eq!(
            filled(1_000_000, 5000).series("loss").unwrap().bins().len(),
            200
        );
    }

    #[test]
    fn numbers_that_are_not_finite_are_left_out() {
        let mut history = filled(3, 1);
        history.push(&Entry {
            step: 3,
            loss: Some(f64::NAN),
            ..Entry::default()
        });
        assert_eq!(history.series("loss").unwrap().last(), (2, 2.0));
        assert_eq!(history.last().unwrap().step, 3);
        assert!(history.series("alignment").is_none());
    }

    #[test]
    fn the_best_look_is_the_earliest_of_the_highest() {
        let mut history = History::default();
        for (step, hit_at_1) in [(10, 0.2), (20, 0.6), (30, 0.6), (40, 0.5)] {
            let knn = Knn {
                hit_at_1,
                precision_at_5: 0.1,
                n_queries: 9,
                chance_hit_at_1: 0.1,
            };
            history.push(&Entry {
                step,
                knn_student: Some(knn),
                ..Entry::default()
            });
        }
        let knn = history.knn().unwrap();
        assert_eq!([knn.first.0, knn.best.0, knn.last.0], [10, 20, 40]);
    }
}
