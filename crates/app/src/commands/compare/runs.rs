//! An evaluation as it lies on disk: the values of every query.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use m3ret_imaging::Limits;
use m3ret_imaging::manifest::{Manifest, Table};
use m3ret_search::ComparedPair;

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
    queries: Vec<Query>,
    /// For each metric the value of every query.
    values: BTreeMap<String, Vec<f64>>,
}

#[derive(Debug, PartialEq)]
struct Query {
    path: String,
    patient: u32,
    /// Two models must have been asked for the same.
    n_relevant: u32,
    n_candidates: u32,
}

impl Run {
    /// Reads a folder that `m3ret evaluate` wrote.
    pub(in crate::commands) fn open(folder: &Path) -> anyhow::Result<Self> {
        let name = name_of(folder).with_context(|| {
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
        let tasks = tasks(&table).with_context(doing)?;
        Ok(Self { name, tasks })
    }

    pub(in crate::commands) fn precision_at_5(&self, task: &str) -> Option<f64> {
        self.tasks.get(task)?.mean("precision_at_5")
    }
}

fn name_of(folder: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(folder.join(RESULTS))?;
    let results: serde_json::Value = serde_json::from_str(&text)?;
    let name = results.get("model").and_then(serde_json::Value::as_str);
    Ok(name.context("found no model in results.json")?.to_owned())
}

fn tasks(table: &Table) -> anyhow::Result<BTreeMap<String, TaskRun>> {
    let is_metric = |name: &&String| name.parse::<m3ret_search::Metric>().is_ok();
    let metrics: Vec<&String> = table.columns().iter().filter(is_metric).collect();
    let mut tasks = BTreeMap::<String, TaskRun>::new();
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
        task.queries.push(Query {
            path: cell(columns::PATH)?.to_owned(),
            patient: number(columns::PATIENT)?,
            n_relevant: number(columns::N_RELEVANT)?,
            n_candidates: number(columns::N_CANDIDATES)?,
        });
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
        let places: HashMap<&str, usize> = other
            .queries
            .iter()
            .enumerate()
            .map(|(i, q)| (q.path.as_str(), i))
            .collect();
        ensure!(
            places.len() == other.queries.len(),
            "a path is twice among the queries"
        );
        let mut pairs = Vec::with_capacity(self.queries.len());
        for (query, &a) in self.queries.iter().zip(a) {
            let Some(&place) = places.get(query.path.as_str()) else {
                continue;
            };
            let theirs = &other.queries[place];
            let [ours, theirs] =
                [query, theirs].map(|query| (query.n_relevant, query.n_candidates));
            ensure!(
                ours == theirs,
                "{}: one evaluation has {} relevant of {} images for it, the other {} of {}; \
                 evaluate both models with the same manifest and rules",
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
