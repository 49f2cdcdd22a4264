//! The numbers of one model: what results.json holds.

use std::collections::BTreeMap;
use std::fmt;

use m3ret_manifest::columns::{PATIENT, SOURCE};
use m3ret_search::{
    Answer, Bootstrap, Clusters, Embeddings, Evaluation, Interval, Measures, Metric, Task, evaluate,
};
use serde::Serialize;

use super::groups::{GroupResult, ResolutionValue};
use super::mixed::{self, MixedResult};
use super::subject::{Subject, is_identifier};
use crate::evaluation::protocol::GROUP_METRICS;

/// Numbers that the ladder shows.
const LADDER: [Metric; 3] = [Metric::HitAt(1), Metric::PrecisionAt(5), Metric::MapAt(10)];
/// Most classes of which a confusion matrix is kept.
const MAX_CLASSES: usize = 40;

/// results.json.
#[derive(Debug, Serialize)]
pub struct Results {
    /// The rules of docs/evaluation.md; results without it followed the first.
    pub protocol: u64,
    pub model: String,
    /// Of everything that decides the numbers, but the images.
    pub config_hash: String,
    pub m3ret_version: &'static str,
    pub config: Config,
    pub notes: Vec<String>,
    pub n_rows: usize,
    pub n_refused: usize,
    /// Counts of refused images by reason.
    pub refused: BTreeMap<String, usize>,
    pub tasks: Vec<TaskResult>,
    /// Means of the tasks that say something.
    pub groups: Vec<GroupResult>,
    /// All modalities in one gallery.
    pub mixed: Vec<MixedResult>,
    pub skipped: Vec<SkippedTask>,
    /// Every image against all others of its kind: how often the nearest one is of the same patient.
    pub privacy: Vec<TaskResult>,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    pub fingerprint: String,
    pub precision: Option<String>,
    pub manifest: String,
    pub relevance: Vec<String>,
    pub exclude: Vec<String>,
    pub filter: Vec<String>,
    pub k: Vec<usize>,
    pub least_jaccard: f32,
    pub protocol: u64,
    pub ties: &'static str,
    pub n_resamples: usize,
    pub seed: u64,
}

/// One task.
#[derive(Debug, Serialize)]
pub struct TaskResult {
    pub task: String,
    pub group: String,
    pub query_modality: Option<String>,
    pub gallery_modality: Option<String>,
    pub relevance: String,
    /// Whom a query cannot find: itself, and who has its value in these columns.
    pub exclude: Vec<String>,
    /// Queries that count, `n`.
    pub n_queries: usize,
    pub n_patients: usize,
    pub n_gallery: usize,
    /// `queries`, or `query_classes` where the mean over each class's queries is taken first.
    pub averaged_over: &'static str,
    pub n_query_classes: usize,
    pub n_gallery_classes: usize,
    pub left_out: LeftOutCounts,
    /// Queries that have a metric whose cut goes through equal scores of relevant and other items.
    pub n_tied: usize,
    /// Whether all scores are equal but for rounding, so that every ranking is by chance.
    pub is_collapsed: bool,
    pub chance: BTreeMap<String, f64>,
    /// What the best fixed ranking has that is known.
    pub constant: BTreeMap<String, f64>,
    /// What a perfect ranking has.
    pub maximum: BTreeMap<String, f64>,
    /// The largest share of the maximum that `constant` reaches, by the metrics of groups.
    pub constant_share: Option<f64>,
    pub metrics: BTreeMap<String, Value>,
    /// Differences of two models that can be told.
    pub resolution: BTreeMap<String, ResolutionValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ladder: Vec<Rung>,
    pub hubness: Hubness,
    /// Of who is asked for what: equal where two models can be compared.
    pub ground_truth: String,
    /// The stem of its files in the folder trec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trec: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Confusion>,
    /// What the files and the page are made of.
    #[serde(skip)]
    pub answers: Vec<Answer>,
}

/// A mean over queries.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Value {
    pub value: f64,
    /// `None` with fewer than five patients.
    pub ci95_low: Option<f64>,
    pub ci95_high: Option<f64>,
}

impl Value {
    pub fn new(value: f64, interval: Option<Interval>) -> Self {
        Self {
            value,
            ci95_low: interval.map(|interval| interval.low),
            ci95_high: interval.map(|interval| interval.high),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.value)?;
        match (self.ci95_low, self.ci95_high) {
            (Some(low), Some(high)) => write!(f, " [{low:.3}, {high:.3}]"),
            _ => Ok(()),
        }
    }
}

/// Queries that do not count.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LeftOutCounts {
    pub without_vector: usize,
    pub without_label: usize,
    pub without_relevant: usize,
    pub only_relevant: usize,
}

impl LeftOutCounts {
    fn of(evaluation: &Evaluation) -> Self {
        let left_out = &evaluation.left_out;
        Self {
            without_vector: left_out.n_without_vector,
            without_label: left_out.n_unlabelled,
            without_relevant: left_out.n_without_relevant,
            only_relevant: left_out.n_only_relevant,
        }
    }
}

/// The same task under another exclusion.
#[derive(Debug, Serialize)]
pub struct Rung {
    pub exclude: Vec<String>,
    pub n_queries: usize,
    pub chance: BTreeMap<String, f64>,
    pub metrics: BTreeMap<String, f64>,
}

/// How evenly the gallery is found.
#[derive(Debug, Serialize)]
pub struct Hubness {
    /// Hits of a query that are looked at.
    pub k: usize,
    /// Share of the gallery that no query has among its hits.
    pub never_retrieved: f64,
    /// The same of random rankings.
    pub never_retrieved_chance: f64,
    /// Queries that have the commonest item among their hits.
    pub most_retrieved: u32,
}

/// What the vote of 20 gives, by class: rows are the truth.
#[derive(Debug, Serialize)]
pub struct Confusion {
    pub classes: Vec<String>,
    pub counts: Vec<Vec<u32>>,
}

/// A task without a query that counts.
#[derive(Debug, Serialize)]
pub struct SkippedTask {
    pub task: String,
    pub reason: String,
}

/// How tasks are measured.
pub(super) struct Settings<'a> {
    pub(super) metrics: &'a [Metric],
    pub(super) least_grade: f32,
    pub(super) n_hits: usize,
    pub(super) bootstrap: Bootstrap,
}

/// The results of all tasks.
pub(super) struct Measurements {
    pub(super) tasks: Vec<TaskResult>,
    pub(super) mixed: Vec<MixedResult>,
    pub(super) skipped: Vec<SkippedTask>,
    pub(super) privacy: Vec<TaskResult>,
}

/// Measures every task.
pub(super) fn measure(
    subject: &Subject,
    embeddings: &Embeddings<'_>,
    settings: &Settings<'_>,
) -> anyhow::Result<Measurements> {
    let mut measurements = Measurements {
        tasks: Vec::new(),
        mixed: mixed::measure(subject, embeddings, settings)?,
        skipped: Vec::new(),
        privacy: Vec::new(),
    };
    for task in &subject.tasks.tasks {
        let result = one(task, subject, embeddings, settings)?;
        match why_skipped(task, &result) {
            None => measurements.tasks.push(result),
            Some(reason) => measurements.skipped.push(SkippedTask {
                task: result.task,
                reason,
            }),
        }
    }
    for task in &subject.tasks.privacy {
        let result = one(task, subject, embeddings, settings)?;
        if result.n_queries > 0 {
            measurements.privacy.push(result);
        }
    }
    Ok(measurements)
}

fn why_skipped(task: &Task, result: &TaskResult) -> Option<String> {
    if result.n_queries > 0 {
        let has_classes = result.n_query_classes > 1 && result.n_gallery_classes > 1;
        return (task.is_mean_of_classes() && !has_classes).then(|| {
            format!(
                "the {} queries that count have {} and the gallery {}; two on both sides are wanted, \
                 as one fixed ranking answers one class",
                result.n_queries,
                n_classes(result.n_query_classes),
                n_classes(result.n_gallery_classes)
            )
        });
    }
    let left_out = &result.left_out;
    let reasons = [
        (left_out.without_label, "have no label"),
        (left_out.without_vector, "have no vector"),
        (
            left_out.without_relevant,
            "have no relevant item in the gallery",
        ),
        (
            left_out.only_relevant,
            "have only relevant items in the gallery",
        ),
    ];
    let reasons = reasons.iter().filter(|(n, _)| *n > 0);
    let reasons: Vec<String> = reasons
        .map(|(n, why)| format!("{n} queries {why}"))
        .collect();
    Some(reasons.join(", "))
}

fn n_classes(n: usize) -> String {
    format!("{n} class{}", if n == 1 { "" } else { "es" })
}

/// Lists the rules of exclusion of a task: the one that counts, then the rungs of the ladder.
fn rules(task: &Task, subject: &Subject) -> Vec<Vec<String>> {
    let mut rules = vec![Vec::new()];
    if !task.finds_same_patient() {
        rules = vec![subject.exclude.clone(), Vec::new()];
        let mut rung = Vec::new();
        for name in [PATIENT, SOURCE] {
            if subject.columns.get(name).is_some() {
                rung.push(name.to_owned());
                rules.push(rung.clone());
            }
        }
    }
    for rule in &mut rules {
        rule.extend(subject.image_column.map(str::to_owned));
    }
    rules
}

fn one(
    task: &Task,
    subject: &Subject,
    embeddings: &Embeddings<'_>,
    settings: &Settings<'_>,
) -> anyhow::Result<TaskResult> {
    let measures = Measures {
        metrics: settings.metrics,
        least_grade: settings.least_grade,
        n_hits: settings.n_hits,
        query_order: &subject.path_order,
        tie_order: &subject.tie_order,
    };
    let rules = rules(task, subject);
    let mut evaluations =
        evaluate(task, &subject.columns, embeddings, &measures, &rules)?.into_iter();
    let main = evaluations.next().unwrap_or_default();
    let ladder = evaluations
        .map(|evaluation| rung(&evaluation, settings))
        .collect();
    let patients: Vec<u32> = main
        .answers
        .iter()
        .map(|answer| subject.patient(answer.query))
        .collect();
    let clusters = Clusters::new(&patients);
    let values = main.answers.iter().map(|answer| answer.values.as_slice());
    let values: Vec<&[f64]> = values.collect();
    let n_metrics = settings.metrics.len();
    let intervals = clusters.intervals(&values, n_metrics, &main.strata, settings.bootstrap);
    let numbers = Numbers::new(&main, settings.metrics, &intervals);
    Ok(TaskResult {
        task: task.name.clone(),
        group: task.group().to_owned(),
        query_modality: task.query_modality.clone(),
        gallery_modality: task.gallery_modality.clone(),
        relevance: task.relevance.clone(),
        n_queries: main.answers.len(),
        n_patients: clusters.len(),
        n_gallery: main.n_gallery,
        averaged_over: if task.is_mean_of_classes() {
            "query_classes"
        } else {
            "queries"
        },
        n_query_classes: main.n_classes[0],
        n_gallery_classes: main.n_classes[1],
        left_out: LeftOutCounts::of(&main),
        n_tied: main.answers.iter().filter(|answer| answer.is_tied).count(),
        is_collapsed: main.common_score.is_some(),
        constant_share: numbers.constant_share(),
        chance: numbers.chance,
        constant: numbers.constant,
        maximum: numbers.maximum,
        metrics: numbers.metrics,
        resolution: BTreeMap::new(),
        ladder,
        hubness: hubness(&main, settings.n_hits),
        ground_truth: ground_truth(task, subject, &main.exclude),
        trec: None,
        confusion: confusion(&main, task, subject),
        exclude: main.exclude,
        answers: main.answers,
    })
}

/// Hashes everything that decides which items are relevant to which query, whatever the order of rows.
fn ground_truth(task: &Task, subject: &Subject, exclude: &[String]) -> String {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for rows in [&task.queries, &task.gallery] {
        let mut rows = rows.clone();
        rows.sort_unstable_by_key(|&row| subject.path_order[row as usize]);
        for row in rows {
            let cells = exclude.iter().chain([&task.relevance]);
            let cells = cells.map(|name| subject.columns.text(name, row as usize));
            for text in std::iter::once(subject.path(row)).chain(cells) {
                hash.update(text.as_bytes());
                hash.update(&[0]);
            }
        }
        hash.update(&[1]);
    }
    format!("{:016x}", hash.digest())
}

fn rung(evaluation: &Evaluation, settings: &Settings<'_>) -> Rung {
    let mut rung = Rung {
        exclude: evaluation.exclude.clone(),
        n_queries: evaluation.answers.len(),
        chance: BTreeMap::new(),
        metrics: BTreeMap::new(),
    };
    for (idx, metric) in settings.metrics.iter().enumerate() {
        if LADDER.contains(metric) && rung.n_queries > 0 {
            let value = evaluation.mean(|answer| answer.values[idx]);
            let chance = evaluation.mean(|answer| answer.chance[idx]);
            rung.metrics.insert(metric.to_string(), value);
            rung.chance.insert(metric.to_string(), chance);
        }
    }
    rung
}

/// The numbers of one task by the metrics' names, without what is not defined.
#[derive(Default)]
struct Numbers {
    chance: BTreeMap<String, f64>,
    constant: BTreeMap<String, f64>,
    maximum: BTreeMap<String, f64>,
    metrics: BTreeMap<String, Value>,
}

impl Numbers {
    fn new(evaluation: &Evaluation, metrics: &[Metric], intervals: &[Option<Interval>]) -> Self {
        let mut numbers = Self::default();
        if evaluation.answers.is_empty() {
            return numbers;
        }
        for (idx, metric) in metrics.iter().enumerate() {
            let name = metric.to_string();
            let value = evaluation.mean(|answer| answer.values[idx]);
            if value.is_nan() {
                continue;
            }
            let chance = evaluation.mean(|answer| answer.chance[idx]);
            numbers.chance.insert(name.clone(), chance);
            if !metric.is_vote() {
                let maximum = evaluation.mean(|answer| answer.maximum[idx]);
                numbers.maximum.insert(name.clone(), maximum);
                numbers
                    .constant
                    .insert(name.clone(), evaluation.constant[idx]);
            }
            numbers
                .metrics
                .insert(name, Value::new(value, intervals[idx]));
        }
        numbers
    }

    fn constant_share(&self) -> Option<f64> {
        let shares = GROUP_METRICS.iter().filter_map(|metric| {
            let name = metric.to_string();
            Some(self.constant.get(&name)? / self.maximum.get(&name)?)
        });
        shares.reduce(f64::max)
    }
}

fn hubness(evaluation: &Evaluation, k: usize) -> Hubness {
    let n = evaluation.n_retrieved.len().max(1) as f64;
    let n_never = evaluation
        .n_retrieved
        .iter()
        .filter(|&&(_, count)| count == 0)
        .count();
    // A random ranking shows each candidate among the first k with this probability.
    let missed = evaluation.answers.iter().map(|answer| {
        let n_candidates = answer.n_candidates.max(1) as f64;
        1.0 - (k as f64).min(n_candidates) / n_candidates
    });
    Hubness {
        k,
        never_retrieved: n_never as f64 / n,
        never_retrieved_chance: missed.product(),
        most_retrieved: evaluation
            .n_retrieved
            .iter()
            .map(|&(_, count)| count)
            .max()
            .unwrap_or(0),
    }
}

fn confusion(evaluation: &Evaluation, task: &Task, subject: &Subject) -> Option<Confusion> {
    let column = subject.columns.get(&task.relevance)?;
    let pairs: Option<Vec<(u32, u32)>> = evaluation
        .answers
        .iter()
        .map(|answer| Some((column.code(answer.query as usize), answer.class?)))
        .collect();
    let pairs = pairs.filter(|pairs| !pairs.is_empty())?;
    let mut classes: Vec<u32> = pairs
        .iter()
        .flat_map(|&(truth, found)| [truth, found])
        .collect();
    classes.sort_unstable();
    classes.dedup();
    if classes.len() > MAX_CLASSES || is_identifier(&task.relevance) {
        return None;
    }
    let mut counts = vec![vec![0; classes.len()]; classes.len()];
    let place = |class: &u32| classes.binary_search(class).unwrap_or(0);
    for (truth, found) in &pairs {
        counts[place(truth)][place(found)] += 1;
    }
    let names = classes.iter().map(|&class| column.word(class).to_owned());
    Some(Confusion {
        classes: names.collect(),
        counts,
    })
}
