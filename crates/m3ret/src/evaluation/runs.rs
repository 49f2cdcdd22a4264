//! Reads an evaluation from disk: the values of every query.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use m3ret_imaging::Limits;
use m3ret_manifest::{Manifest, Table};
use m3ret_search::evaluation::{QueryPair, Strata, Stratum};
use serde_json::Value;

use super::protocol::{PROTOCOL, Standing};

/// The file of numbers.
pub(crate) const RESULTS: &str = "results.json";
/// The file of queries.
pub(crate) const PER_QUERY: &str = "per_query.parquet";

/// Columns of `per_query.parquet` before the metrics: texts, then whole numbers, then a score.
pub(crate) mod columns {
    pub(crate) const TASK: &str = "task";
    pub(crate) const PATH: &str = "path";
    pub(crate) const FIRST_PATH: &str = "first_path";
    /// The row of the manifest, from 0.
    pub(crate) const ROW: &str = "row";
    /// A number for the patient that means nothing elsewhere.
    pub(crate) const PATIENT: &str = "patient";
    /// The query's class, from 1, where a task's value is the mean over classes; else 0.
    pub(crate) const QUERY_CLASS: &str = "query_class";
    pub(crate) const N_CANDIDATES: &str = "n_candidates";
    pub(crate) const N_RELEVANT: &str = "n_relevant";
    pub(crate) const FIRST_SCORE: &str = "first_score";
    /// Mean `precision_at_5` of random rankings.
    pub(crate) const CHANCE: &str = "chance_precision_at_5";
}

/// One model's evaluation.
#[derive(Debug)]
pub(crate) struct Run {
    pub name: String,
    /// Number of the rules that it followed; 1 if the file states none.
    pub protocol: u64,
    /// The differences that the means of groups can resolve, by group and metric.
    pub resolutions: BTreeMap<String, BTreeMap<String, f64>>,
    /// By name.
    pub tasks: BTreeMap<String, TaskRun>,
}

/// The queries of one task, and what results.json states about it.
#[derive(Debug, Default)]
pub(crate) struct TaskRun {
    pub about: About,
    queries: Vec<Query>,
    /// For each metric the value of every query.
    values: BTreeMap<String, Vec<f64>>,
}

/// What results.json states about a task; numbers are by metric.
#[derive(Debug, Default, Clone)]
pub(crate) struct About {
    pub group: String,
    pub chance: BTreeMap<String, f64>,
    pub constant: BTreeMap<String, f64>,
    pub constant_share: Option<f64>,
    maximum: BTreeMap<String, f64>,
    /// The difference that can be told, if both models vary as `pixels` does.
    pub resolution: BTreeMap<String, f64>,
    /// Whether all scores of the model are equal but for rounding.
    pub is_collapsed: bool,
    /// Hash of images, labels and exclusions.
    ground_truth: String,
}

#[derive(Debug, PartialEq)]
struct Query {
    path: String,
    /// How many queries of the task before it have this path.
    again: u32,
    patient: u32,
    /// 0 where the task's value is the mean over queries.
    class: u32,
    /// Must be equal for two models that are compared.
    n_relevant: u32,
    n_candidates: u32,
}

impl Run {
    /// Reads a folder that `m3ret evaluate` wrote.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let mut run = about(folder).with_context(|| {
            format!(
                "{}: a folder that m3ret evaluate wrote is wanted",
                folder.display()
            )
        })?;
        ensure!(
            run.protocol <= PROTOCOL,
            "{}: its numbers follow protocol {}, and this program knows those up to {PROTOCOL}; use a newer m3ret",
            folder.display(),
            run.protocol
        );
        let path = folder.join(PER_QUERY);
        let doing = || format!("reading {}", path.display());
        // Every cell becomes text, numbers in full.
        let table = Manifest::open(&path, &Limits::default()).with_context(doing)?;
        let table = table.load().with_context(doing)?;
        for (name, found) in tasks(&table).with_context(doing)? {
            let task = run.tasks.get_mut(&name);
            let task = task.with_context(|| format!("{}: no task {name}", folder.display()))?;
            (task.queries, task.values) = (found.queries, found.values);
        }
        run.tasks.retain(|_, task| !task.queries.is_empty());
        Ok(run)
    }

    /// Returns what decides whether a task is in the mean of its group.
    pub(crate) fn standing(&self, name: &str, pixels: Option<&Self>) -> Standing {
        let task = self.tasks.get(name);
        let chance = task.and_then(|task| task.about.chance.get("precision_at_5"));
        Standing {
            n_queries: task.map_or(0, TaskRun::n),
            chance: chance.copied().unwrap_or(1.0),
            pixels: pixels.and_then(|run| run.tasks.get(name)?.share_of_maximum()),
            constant_share: task.and_then(|task| task.about.constant_share),
        }
    }

    /// Fails if another evaluation followed other rules.
    pub(crate) fn check_protocol(&self, other: &Self) -> anyhow::Result<()> {
        let (old, new) = if self.protocol < other.protocol {
            (self, other)
        } else {
            (other, self)
        };
        ensure!(
            old.protocol == new.protocol,
            "{} was evaluated by protocol {} and {} by protocol {}, which have different rules; \
             evaluate {} again into its folder, which uses the vectors that lie there (docs/evaluation.md, Protocols)",
            old.name,
            old.protocol,
            new.name,
            new.protocol,
            old.name
        );
        Ok(())
    }
}

/// Reads results.json: the model, and the tasks without their queries.
fn about(folder: &Path) -> anyhow::Result<Run> {
    let text = std::fs::read_to_string(folder.join(RESULTS))?;
    let results: Value = serde_json::from_str(&text)?;
    ensure!(
        results.get("is_unfinished").is_none(),
        "the evaluation was interrupted; the same command resumes it"
    );
    let list = |key: &str| results.get(key).and_then(Value::as_array);
    let tasks = list("tasks").with_context(|| format!("found no tasks in {RESULTS}"))?;
    let tasks = tasks.iter().map(|task| {
        let about = About {
            group: text_of(task, "group")?,
            chance: numbers(task.get("chance")),
            constant: numbers(task.get("constant")),
            maximum: numbers(task.get("maximum")),
            constant_share: task.get("constant_share").and_then(Value::as_f64),
            resolution: resolution(task),
            // Protocols 1 and 2 did not look for it.
            is_collapsed: task.get("is_collapsed").and_then(Value::as_bool) == Some(true),
            ground_truth: text_of(task, "ground_truth")?,
        };
        let run = TaskRun {
            about,
            ..TaskRun::default()
        };
        Ok((text_of(task, "task")?, run))
    });
    let groups = list("groups").map_or(&[][..], Vec::as_slice).iter();
    let groups = groups.map(|group| Ok((text_of(group, "group")?, resolution(group))));
    Ok(Run {
        name: text_of(&results, "model")?,
        // Before there were protocols, results did not name one.
        protocol: results.get("protocol").and_then(Value::as_u64).unwrap_or(1),
        resolutions: groups.collect::<anyhow::Result<_>>()?,
        tasks: tasks.collect::<anyhow::Result<_>>()?,
    })
}

fn text_of(value: &Value, key: &str) -> anyhow::Result<String> {
    let found = value.get(key).and_then(Value::as_str);
    let found = found.with_context(|| format!("found no {key} in {RESULTS}"))?;
    Ok(found.to_owned())
}

fn numbers(value: Option<&Value>) -> BTreeMap<String, f64> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    let entries = entries.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)));
    entries.collect()
}

/// Reads the expected resolutions of a task or a group.
fn resolution(value: &Value) -> BTreeMap<String, f64> {
    let entries = value.get("resolution").and_then(Value::as_object);
    let entries = entries.into_iter().flatten();
    let entries = entries.filter_map(|(name, value)| {
        Some((name.clone(), value.get("expected").and_then(Value::as_f64)?))
    });
    entries.collect()
}

fn tasks(table: &Table) -> anyhow::Result<BTreeMap<String, TaskRun>> {
    let is_metric = |name: &&String| name.parse::<m3ret_search::evaluation::Metric>().is_ok();
    let metrics: Vec<&String> = table.columns().iter().filter(is_metric).collect();
    let mut tasks = BTreeMap::<String, TaskRun>::new();
    let mut seen = HashMap::<(String, String), u32>::new();
    for row in table.rows() {
        let cell = |name: &str| {
            // A name that means something to manifests is known by its meaning.
            row.get(table.name_of(name).unwrap_or(name))
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
            class: match row.get(columns::QUERY_CLASS) {
                Some(_) => number(columns::QUERY_CLASS)?,
                // The first protocol has means over queries only.
                None => 0,
            },
            n_relevant: number(columns::N_RELEVANT)?,
            n_candidates: number(columns::N_CANDIDATES)?,
        });
        *n_before += 1;
        for metric in &metrics {
            task.values
                .entry((*metric).clone())
                .or_default()
                .push(value(metric)?);
        }
    }
    Ok(tasks)
}

impl Query {
    fn stratum(&self) -> Stratum {
        Stratum {
            task: 0,
            class: self.class,
        }
    }
}

impl TaskRun {
    pub(crate) fn n(&self) -> usize {
        self.queries.len()
    }

    pub(crate) fn mean(&self, metric: &str) -> Option<f64> {
        let strata = self.queries.iter().map(Query::stratum);
        let strata = Strata::new(&strata.collect::<Vec<_>>());
        Some(strata.mean(self.values.get(metric)?))
    }

    /// Returns which share of the largest possible `precision_at_5` the task's value is; results of
    /// protocol 1 do not name the largest one, and it is then 1.
    fn share_of_maximum(&self) -> Option<f64> {
        const METRIC: &str = "precision_at_5";
        let maximum = self.about.maximum.get(METRIC).copied().unwrap_or(1.0);
        let value = self.mean(METRIC)?;
        (maximum > 0.0).then(|| value / maximum)
    }

    /// Lays the values of two models side by side, for the queries that both answered.
    pub(crate) fn pairs(&self, other: &Self, metric: &str) -> anyhow::Result<Vec<QueryPair>> {
        let (Some(a), Some(b)) = (self.values.get(metric), other.values.get(metric)) else {
            let known: Vec<&str> = self.values.keys().map(String::as_str).collect();
            bail!(
                "--metric {metric}: not in both evaluations; the first has {}",
                known.join(", ")
            );
        };
        ensure!(
            self.about.ground_truth == other.about.ground_truth,
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
            pairs.push(QueryPair {
                stratum: query.stratum(),
                patient: query.patient,
                a,
                b: b[place],
            });
        }
        Ok(pairs)
    }
}
