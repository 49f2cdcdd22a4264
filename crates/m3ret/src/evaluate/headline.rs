//! One sentence that says what an evaluation found.

use super::results::{Results, TaskResult};
use super::tables::SHOWN;
use crate::evaluation::comparison::Comparison;
use crate::words::counted;

/// What `better` and `worse` mean in the sentence.
pub(super) const MEANING: &str =
    "Better and worse mean that the 95 % interval of the difference excludes 0.";

/// How many tasks say what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    n_better: usize,
    n_worse: usize,
    n_equal: usize,
    /// Tasks without an interval.
    n_unknown: usize,
}

/// What an evaluation found about one model, against chance and against simpler models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Headline {
    model: String,
    n_tasks: usize,
    chance: Counts,
    others: Vec<(String, Counts)>,
}

/// Returns the metric that decides whether a task is better than chance.
pub(super) fn deciding(task: &TaskResult) -> Option<&'static str> {
    SHOWN
        .into_iter()
        .find(|metric| task.metrics.contains_key(*metric))
}

impl Counts {
    /// Counts one interval; better and worse mean that it excludes `nothing`.
    fn add(&mut self, interval: Option<(f64, f64)>, nothing: f64) {
        match interval {
            Some((low, _)) if low > nothing => self.n_better += 1,
            Some((_, high)) if high < nothing => self.n_worse += 1,
            Some(_) => self.n_equal += 1,
            None => self.n_unknown += 1,
        }
    }

    fn total(self) -> usize {
        self.n_better + self.n_worse + self.n_equal + self.n_unknown
    }
}

impl Headline {
    /// Counts the tasks of a model; `comparisons` are those of all models.
    pub(super) fn of(results: &Results, comparisons: &[&Comparison]) -> Self {
        let mut chance = Counts::default();
        for task in &results.tasks {
            let metric = deciding(task);
            let value = metric.and_then(|metric| task.metrics.get(metric));
            let level = metric.and_then(|metric| task.chance.get(metric));
            let interval = value.and_then(|value| value.ci95_low.zip(value.ci95_high));
            if let Some(&level) = level {
                // Equal scores for all images tell nothing, whatever their interval is.
                let interval = interval.map(|found| match task.is_collapsed {
                    true => (level, level),
                    false => found,
                });
                chance.add(interval, level);
            }
        }
        let own = comparisons.iter().filter(|one| one.b == results.model);
        let others = own.map(|comparison| {
            let [metric, ..] = SHOWN;
            let mut counts = Counts::default();
            let rows = comparison.rows.iter();
            for row in rows.filter(|row| !row.is_group && row.metric == metric) {
                counts.add(row.ci95_low.zip(row.ci95_high), 0.0);
            }
            (comparison.a.clone(), counts)
        });
        Self {
            model: results.model.clone(),
            n_tasks: results.tasks.len(),
            chance,
            others: others.collect(),
        }
    }

    /// Returns the sentence for people.
    pub(super) fn sentence(&self) -> String {
        let Counts {
            n_better,
            n_worse,
            n_equal,
            n_unknown,
        } = self.chance;
        let tasks = counted(self.n_tasks as u64, "task", "tasks");
        let mut text = format!(
            "{} is better than chance in {n_better} of {tasks}",
            self.model
        );
        let mut rest = Vec::new();
        if n_worse > 0 {
            rest.push(format!("worse in {n_worse}"));
        }
        if n_equal > 0 {
            rest.push(format!("not distinguishable from it in {n_equal}"));
        }
        if !rest.is_empty() {
            text += &format!(" ({})", rest.join(", "));
        }
        for (name, counts) in &self.others {
            text += &format!(
                ", better than {name} in {} of {} (worse in {})",
                counts.n_better,
                counts.total(),
                counts.n_worse
            );
        }
        text.push('.');
        if n_unknown > 0 {
            text += &format!(
                " {} fewer than five patients: n is too small to say.",
                counted(n_unknown as u64, "task has", "tasks have")
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_counts_what_intervals_exclude() {
        let mut chance = Counts::default();
        for interval in [Some((0.3, 0.5)), Some((0.1, 0.19)), Some((0.1, 0.3)), None] {
            chance.add(interval, 0.2);
        }
        let mut hog = Counts::default();
        hog.add(Some((0.01, 0.2)), 0.0);
        let headline = Headline {
            model: "m3ret-tiny".to_owned(),
            n_tasks: 4,
            chance,
            others: vec![("hog".to_owned(), hog)],
        };
        assert_eq!(
            headline.sentence(),
            "m3ret-tiny is better than chance in 1 of 4 tasks (worse in 1, not distinguishable from it in 1), better \
             than hog in 1 of 1 (worse in 0). 1 task has fewer than five patients: n is too small to say."
        );
    }
}
