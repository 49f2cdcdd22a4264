//! Means of groups, and the differences between models that tasks and groups can resolve.

use std::collections::BTreeMap;

use m3ret_search::evaluation::{Clusters, Metric, Strata, Stratum};
use serde::Serialize;

use super::results::{Results, Settings, TaskResult, Value};
use super::subject::Subject;
use crate::evaluation::protocol::{GROUP_METRICS, Standing};

/// Mean of the tasks of a group that say something; maps are by metric of groups.
#[derive(Debug, Serialize)]
pub struct GroupResult {
    /// Name of the group, such as `within`.
    pub group: String,
    /// Names of the tasks in the mean.
    pub tasks: Vec<String>,
    /// Number of queries of these tasks.
    pub n_queries: usize,
    /// Number of patients of these queries; a patient in several tasks counts once.
    pub n_patients: usize,
    /// Whether `pixels` was evaluated too, so that tasks solved by thumbnails are not in the mean.
    pub knows_pixels: bool,
    /// Mean over the tasks of what random rankings have.
    pub chance: BTreeMap<String, f64>,
    /// Mean over the tasks of what the better of two fixed rankings has.
    pub constant: BTreeMap<String, f64>,
    /// Mean of the model over the tasks.
    pub metrics: BTreeMap<String, Value>,
    /// Differences between two models that the mean can resolve.
    pub resolution: BTreeMap<String, ResolutionValue>,
}

/// Smallest difference between two models that can be told, in units of the metric.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ResolutionValue {
    /// For two models that vary between patients as `pixels` does; `None` if `pixels` was not evaluated too.
    pub expected: Option<f64>,
    /// Bound for any two models.
    pub at_most: f64,
}

/// Returns what decides whether a task is in the mean of its group.
pub(super) fn standing(task: &TaskResult, pixels: Option<&Results>) -> Standing {
    let of_pixels = pixels.and_then(|results| {
        let same = results.tasks.iter().find(|other| other.task == task.task)?;
        share_of_maximum(same)
    });
    Standing {
        n_queries: task.n_queries,
        chance: task.chance.get("precision_at_5").copied().unwrap_or(1.0),
        pixels: of_pixels,
        constant_share: task.constant_share,
    }
}

/// Returns which share of the largest possible `precision_at_5` a task's value is.
fn share_of_maximum(task: &TaskResult) -> Option<f64> {
    let maximum = task.maximum.get("precision_at_5").copied()?;
    let value = task.metrics.get("precision_at_5")?.value;
    (maximum > 0.0).then(|| value / maximum)
}

/// Enters the resolutions of tasks, and computes the means of groups.
///
/// `pixels` holds the results of that model, if it was evaluated too; `is_pixels` says that `results` are its own.
pub(super) fn complete(
    results: &mut Results,
    pixels: Option<&Results>,
    is_pixels: bool,
    subject: &Subject,
    settings: &Settings<'_>,
) {
    for idx in 0..results.tasks.len() {
        let reference = if is_pixels {
            Some(&results.tasks[idx])
        } else {
            pixels.and_then(|pixels| same(pixels, &results.tasks[idx]))
        };
        let tasks = [&results.tasks[idx]];
        let resolution =
            Pool::new(&tasks, subject).resolution(reference.as_slice(), settings.metrics);
        results.tasks[idx].resolution = resolution;
    }
    let own = is_pixels.then_some(&*results);
    let groups = groups(results, own.or(pixels), subject, settings);
    results.groups = groups;
}

fn same<'a>(results: &'a Results, task: &TaskResult) -> Option<&'a TaskResult> {
    let is_same =
        |other: &&TaskResult| other.task == task.task && other.answers.len() == task.answers.len();
    results.tasks.iter().find(is_same)
}

fn groups(
    results: &Results,
    pixels: Option<&Results>,
    subject: &Subject,
    settings: &Settings<'_>,
) -> Vec<GroupResult> {
    let mut groups: Vec<(&str, Vec<&TaskResult>)> = Vec::new();
    for task in &results.tasks {
        if !standing(task, pixels).is_in_mean() {
            continue;
        }
        match groups.iter_mut().find(|(name, _)| *name == task.group) {
            Some((_, tasks)) => tasks.push(task),
            None => groups.push((&task.group, vec![task])),
        }
    }
    let made = groups.into_iter().map(|(name, tasks)| {
        let pool = Pool::new(&tasks, subject);
        let of_pixels = tasks
            .iter()
            .map(|task| pixels.and_then(|all| same(all, task)));
        let of_pixels: Option<Vec<&TaskResult>> = of_pixels.collect();
        let mean = |of: fn(&TaskResult) -> &BTreeMap<String, f64>| {
            let mean = |metric: &Metric| {
                let name = metric.to_string();
                let values = tasks.iter().map(|task| of(task).get(&name).copied());
                let sum: f64 = values.sum::<Option<f64>>()?;
                Some((name, sum / tasks.len() as f64))
            };
            GROUP_METRICS.iter().filter_map(mean).collect()
        };
        GroupResult {
            group: name.to_owned(),
            tasks: tasks.iter().map(|task| task.task.clone()).collect(),
            n_queries: tasks.iter().map(|task| task.n_queries).sum(),
            n_patients: pool.clusters.len(),
            knows_pixels: pixels.is_some(),
            chance: mean(|task| &task.chance),
            constant: mean(|task| &task.constant),
            metrics: pool.means(&tasks, settings),
            resolution: pool.resolution(of_pixels.as_deref().unwrap_or_default(), settings.metrics),
        }
    });
    made.collect()
}

/// The queries of several tasks, pooled.
struct Pool<'a> {
    clusters: Clusters,
    strata: Strata,
    tasks: &'a [&'a TaskResult],
}

impl<'a> Pool<'a> {
    fn new(tasks: &'a [&'a TaskResult], subject: &Subject) -> Self {
        let answers = || tasks.iter().flat_map(|task| &task.answers);
        let patients: Vec<u32> = answers()
            .map(|answer| subject.patient(answer.query))
            .collect();
        let strata = (0..).zip(tasks).flat_map(|(number, task)| {
            let stratum = move |class| Stratum {
                task: number,
                class,
            };
            task.answers
                .iter()
                .map(move |answer| stratum(answer.class_number))
        });
        Self {
            clusters: Clusters::new(&patients),
            strata: Strata::new(&strata.collect::<Vec<_>>()),
            tasks,
        }
    }

    fn means(&self, tasks: &[&TaskResult], settings: &Settings<'_>) -> BTreeMap<String, Value> {
        let places = places(settings.metrics);
        let columns: Vec<Vec<f64>> = places.iter().map(|&(_, idx)| values(tasks, idx)).collect();
        let slices: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let draws = self
            .clusters
            .draws(&self.strata, &slices, settings.bootstrap);
        let interval = |column: usize| {
            let draws = draws.as_ref()?;
            m3ret_search::evaluation::percentiles(draws.iter().map(|means| means[column]).collect())
        };
        let named = places.iter().zip(&columns).enumerate();
        let named = named.map(|(column, ((metric, _), values))| {
            let interval = interval(column);
            let value = Value {
                value: self.strata.mean(values),
                ci95_low: interval.map(|interval| interval.low),
                ci95_high: interval.map(|interval| interval.high),
            };
            (metric.to_string(), value)
        });
        named.collect()
    }

    /// The reference is the same tasks of another model, or empty.
    fn resolution(
        &self,
        reference: &[&TaskResult],
        metrics: &[Metric],
    ) -> BTreeMap<String, ResolutionValue> {
        let of = |&(metric, idx): &(Metric, usize)| {
            let maxima: Vec<f64> = self
                .tasks
                .iter()
                .flat_map(|task| task.answers.iter().map(|answer| answer.maximum[idx]))
                .collect();
            let known = (!reference.is_empty()).then(|| values(reference, idx));
            let found = self
                .clusters
                .resolution(&self.strata, known.as_deref(), &maxima)?;
            let value = ResolutionValue {
                expected: found.expected,
                at_most: found.at_most,
            };
            Some((metric.to_string(), value))
        };
        places(metrics).iter().filter_map(of).collect()
    }
}

/// The metrics of groups and where their values are.
fn places(metrics: &[Metric]) -> Vec<(Metric, usize)> {
    let place = |metric: &Metric| {
        let idx = metrics.iter().position(|other| other == metric)?;
        Some((*metric, idx))
    };
    GROUP_METRICS.iter().filter_map(place).collect()
}

fn values(tasks: &[&TaskResult], idx: usize) -> Vec<f64> {
    let answers = tasks.iter().flat_map(|task| &task.answers);
    answers.map(|answer| answer.values[idx]).collect()
}
