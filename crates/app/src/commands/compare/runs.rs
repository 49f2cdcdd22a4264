//! An evaluation as it lies on disk: the values of every query.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use m3ret_imaging::Limits;
use m3ret_imaging::manifest::{Manifest, Table};
use m3ret_search::ComparedPair;
use serde_json::Value;

use crate::commands::evaluate::files::{PER_QUERY, RESULTS, columns};

/// One model's evaluation.
#[derive(Debug)]
pub(in crate::commands) struct Run {
    pub(in crate::commands) name: String,
    /// By name; groups lie together.
    pub(in crate::commands) tasks: BTreeMap<String, TaskRun>,
}

/// One task's queries.
#[derive(Debug, Default)]
pub(in crate::commands) struct TaskRun {
    /// Mean chance of `precision_at_5`.
    pub(in crate::commands) chance: f64,
    /// A hash of who was asked for what.
    ground_truth: String,
    queries: Vec<Query>,
    /// For each metric the value of every query.
    values: BTreeMap<String, Vec<f64>>,
}

#[derive(Debug, PartialEq)]
struct Query {
    path: String,
    /// How many queries of the task before it have this path.
    again: u32,
    patient: u32,
    /// Two models must have been asked for the same.
    n_relevant: u32,
    n_candidates: u32,
}

impl Run {
    /// Reads a folder that `m3ret evaluate` wrote.
    pub(in crate::commands) fn open(folder: &Path) -> anyhow::Result<Self> {
        let (name, truths) = about(folder).with_context(|| {
            format!(
                "{}: a folder that m3ret evaluate wrote is wanted",
                folder.display()
            )
        })?;
        let path = folder.join(PER_QUERY);
        let doing = || format!("reading {}", path.display());
        // Every cell becomes text, numbers in full.
        let table = Manifest::open(&path, &Limits::default()).with_context(doing)?;
        let table = table.load().with_context(doing)?;
        let mut tasks = tasks(&table).with_context(doing)?;
        for (name, task) in &mut tasks {
            let truth = truths
                .get(name)
                .with_context(|| format!("{}: no task {name}", folder.display()))?;
            task.ground_truth.clone_from(truth);
        }
        Ok(Self { name, tasks })
    }

    pub(in crate::commands) fn precision_at_5(&self, task: &str) -> Option<f64> {
        self.tasks.get(task)?.mean("precision_at_5")
    }
}

/// Reads the model's name, and a hash of the ground truth of each task.
fn about(folder: &Path) -> anyhow::Result<(String, BTreeMap<String, String>)> {
    let text = std::fs::read_to_string(folder.join(RESULTS))?;
    let results: Value = serde_json::from_str(&text)?;
    let text = |value: &Value, key: &str| -> anyhow::Result<String> {
        let found = value.get(key).and_then(Value::as_str);
        Ok(found
            .with_context(|| format!("found no {key} in {RESULTS}"))?
            .to_owned())
    };
    let tasks = results.get("tasks").and_then(Value::as_array);
    let tasks = tasks.with_context(|| format!("found no tasks in {RESULTS}"))?;
    let truths = tasks
        .iter()
        .map(|task| Ok((text(task, "task")?, text(task, "ground_truth")?)));
    Ok((
        text(&results, "model")?,
        truths.collect::<anyhow::Result<_>>()?,
    ))
}

fn tasks(table: &Table) -> anyhow::Result<BTreeMap<String, TaskRun>> {
    let is_metric = |name: &&String| name.parse::<m3ret_search::Metric>().is_ok();
    let metrics: Vec<&String> = table.columns().iter().filter(is_metric).collect();
    let mut tasks = BTreeMap::<String, TaskRun>::new();
    let mut seen = HashMap::<(String, String), u32>::new();
    for row in table.rows() {
        let cell = |name: &str| {
            row.get(name)
                .with_context(|| format!("found no column {name}"))
        };
        let number = |name: &str| -> anyhow::Result<u32> {
            cell(name)?
                .parse()
                .with_context(|| format!("column {name}"))
        };
        // A NaN is read as an empty cell: the metric is not defined for this query.
        let value = |name: &str| -> anyhow::Result<f64> {
            let cell = cell(name)?;
            if cell.is_empty() {
                Ok(f64::NAN)
            } else {
                Ok(cell.parse()?)
            }
        };
        let task = tasks.entry(cell(columns::TASK)?.to_owned()).or_default();
        let path = cell(columns::PATH)?.to_owned();
        let n_before = seen
            .entry((cell(columns::TASK)?.to_owned(), path.clone()))
            .or_default();
        task.queries.push(Query {
            path,
            again: *n_before,
            patient: number(columns::PATIENT)?,
            n_relevant: number(columns::N_RELEVANT)?,
            n_candidates: number(columns::N_CANDIDATES)?,
        });
        *n_before += 1;
        task.chance += value(columns::CHANCE)?;
        for metric in &metrics {
            task.values
                .entry((*metric).clone())
                .or_default()
                .push(value(metric)?);
        }
    }
    for task in tasks.values_mut() {
        task.chance /= task.queries.len() as f64;
    }
    Ok(tasks)
}

impl TaskRun {
    pub(in crate::commands) fn n(&self) -> usize {
        self.queries.len()
    }

    pub(in crate::commands) fn mean(&self, metric: &str) -> Option<f64> {
        let values = self.values.get(metric)?;
        Some(values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Lays the values of two models side by side, for the queries that both answered.
    pub(in crate::commands) fn pairs(
        &self,
        other: &Self,
        metric: &str,
    ) -> anyhow::Result<Vec<ComparedPair>> {
        let (Some(a), Some(b)) = (self.values.get(metric), other.values.get(metric)) else {
            let known: Vec<&str> = self.values.keys().map(String::as_str).collect();
            bail!(
                "--metric {metric}: not in both evaluations; the first has {}",
                known.join(", ")
            );
        };
        ensure!(
            self.ground_truth == other.ground_truth,
            "the two evaluations have other images, labels or exclusions; \
             evaluate both models with the same manifest and rules"
        );
        let name = |query: &Query| (query.path.clone(), query.again);
        let places: HashMap<_, usize> = other
            .queries
            .iter()
            .enumerate()
            .map(|(i, q)| (name(q), i))
            .collect();
        let mut pairs = Vec::with_capacity(self.queries.len());
        for (query, &a) in self.queries.iter().zip(a) {
            let Some(&place) = places.get(&name(query)) else {
                continue;
            };
            let theirs = &other.queries[place];
            let [ours, theirs] =
                [query, theirs].map(|query| (query.n_relevant, query.n_candidates));
            ensure!(
                ours == theirs,
                "{}: one evaluation has {} relevant of {} images for it, the other {} of {}; \
                 one of the models has no vector of some of them: evaluate both together (--models), which leaves these out",
                query.path,
                ours.0,
                ours.1,
                theirs.0,
                theirs.1
            );
            if a.is_nan() || b[place].is_nan() {
                continue;
            }
            pairs.push(ComparedPair {
                task: 0,
                patient: query.patient,
                a,
                b: b[place],
            });
        }
        Ok(pairs)
    }
}
