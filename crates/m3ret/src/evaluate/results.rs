//! The numbers of one model, as `results.json` holds them; docs/evaluation.md defines every one.
//!
//! Maps by metric have the names of docs/evaluation.md as keys, such as `map_at_r`.

use std::collections::BTreeMap;
use std::fmt;

use m3ret_manifest::columns::{PATIENT, SOURCE};
use m3ret_search::evaluation::{
    Answer, Bootstrap, Clusters, Embeddings, Evaluation, Interval, Measures, Metric, Task, evaluate,
};
use serde::Serialize;

pub use super::groups::{GroupResult, ResolutionValue};
use super::mixed;
pub use super::mixed::{MixedResult, Share};
pub use super::reliability::{Bin, Kind, Reliability};
use super::subject::{Subject, is_identifier};
use crate::evaluation::protocol::GROUP_METRICS;
use crate::words::counted;

/// Metrics of the ladder.
const LADDER: [Metric; 3] = [Metric::HitAt(1), Metric::PrecisionAt(5), Metric::MapAt(10)];
/// Most classes of a confusion matrix.
const MAX_CLASSES: usize = 40;

/// Everything that was measured of one model: the content of `results.json`.
#[derive(Debug, Serialize)]
pub struct Results {
    /// Number of the rules of docs/evaluation.md by which the numbers were computed.
    pub protocol: u64,
    /// Name of the model.
    pub model: String,
    /// Hash of everything that decides the numbers except the images, 16 hexadecimal digits.
    pub config_hash: String,
    /// Version of m3ret that computed the numbers.
    pub m3ret_version: &'static str,
    /// How the model was evaluated.
    pub config: Config,
    /// Sentences that a reader of the numbers should know.
    pub notes: Vec<String>,
    /// Number of rows of the manifest that take part.
    pub n_rows: usize,
    /// Number of rows whose image has no vector.
    pub n_refused: usize,
    /// Number of refused images by reason code.
    pub refused: BTreeMap<String, usize>,
    /// Tasks with at least one query that counts.
    pub tasks: Vec<TaskResult>,
    /// Means of groups, over the tasks that say something.
    pub groups: Vec<GroupResult>,
    /// Searches over all modalities in one gallery.
    pub mixed: Vec<MixedResult>,
    /// Whether the agreement that searches tell is the one that is found; `None` without a split or body parts.
    pub reliability: Option<Reliability>,
    /// Tasks that were not measured.
    pub skipped: Vec<SkippedTask>,
    /// Tasks in which every image of a kind queries all others: `hit_at_1` is how often the nearest image is of the
    /// same patient.
    pub privacy: Vec<TaskResult>,
}

/// How a model was evaluated.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// Fingerprint of the model.
    pub fingerprint: String,
    /// Precision in which the model ran; `None` for vectors that do not state it.
    pub precision: Option<String>,
    /// Path of the manifest, as it was given.
    pub manifest: String,
    /// Columns whose equal values are relevant to each other.
    pub relevance: Vec<String>,
    /// Columns in which a hit must differ from its query.
    pub exclude: Vec<String>,
    /// Conditions on rows, `COLUMN=VALUE`; values that identify people are shown as `...`.
    pub filter: Vec<String>,
    /// Cutoffs of metrics, in hits, ascending.
    pub k: Vec<usize>,
    /// Smallest Jaccard index of relevant images with several labels; 0 if one shared label is enough.
    pub least_jaccard: f32,
    /// Number of the rules of docs/evaluation.md.
    pub protocol: u64,
    /// How equal scores count: `expected`, the mean over all their orders.
    pub ties: &'static str,
    /// Number of draws of the confidence intervals.
    pub n_resamples: usize,
    /// Seed of the draws and of the order in which equal scores are shown.
    pub seed: u64,
}

/// The numbers of one task.
#[derive(Debug, Serialize)]
pub struct TaskResult {
    /// Name of the task, such as `cross/CT-DX/body_part`.
    pub task: String,
    /// Group of the task, such as `cross`.
    pub group: String,
    /// Modality of all queries; `None` if there are several.
    pub query_modality: Option<String>,
    /// Modality of the whole gallery; `None` if there are several.
    pub gallery_modality: Option<String>,
    /// The column, or columns joined by `+`, whose equal values are relevant.
    pub relevance: String,
    /// Columns whose value a hit must not share with its query; the query itself is always excluded.
    pub exclude: Vec<String>,
    /// Number of queries that count, `n`.
    pub n_queries: usize,
    /// Number of patients of these queries; an unknown patient counts once for each query.
    pub n_patients: usize,
    /// Number of images in the gallery that have a vector and a label.
    pub n_gallery: usize,
    /// `queries`, or `query_classes` if the mean over the queries of each class is taken first.
    pub averaged_over: &'static str,
    /// Number of classes of the queries that count.
    pub n_query_classes: usize,
    /// Number of classes of the gallery.
    pub n_gallery_classes: usize,
    /// Queries that do not count.
    pub left_out: LeftOutCounts,
    /// Number of queries for which the order of equal scores decides what lies within a cutoff.
    pub n_tied: usize,
    /// Whether all scores are equal except for rounding, so that every metric is its chance.
    pub is_collapsed: bool,
    /// Mean of random rankings, by metric.
    pub chance: BTreeMap<String, f64>,
    /// Value of the better of two fixed rankings that ignore the query, by metric; votes have none.
    pub constant: BTreeMap<String, f64>,
    /// Value of a perfect ranking, by metric; votes have none.
    pub maximum: BTreeMap<String, f64>,
    /// Largest ratio of `constant` to `maximum` among the metrics of groups, 0..=1; from 0.8 on, the task is in no
    /// mean.
    pub constant_share: Option<f64>,
    /// Value of the model, by metric.
    pub metrics: BTreeMap<String, Value>,
    /// Differences between two models that the task can resolve, by metric of groups.
    pub resolution: BTreeMap<String, ResolutionValue>,
    /// The task again under other exclusions: none but the query itself, then the same patient, then also the same
    /// source. Empty for pair tasks and privacy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ladder: Vec<Rung>,
    /// How evenly the images of the gallery are found.
    pub hubness: Hubness,
    /// Hash of images, labels and exclusions: two models can be compared if theirs are equal.
    pub ground_truth: String,
    /// Name of the TREC files without extension, in the folder `trec`; `None` if none were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trec: Option<String>,
    /// Confusion matrix of the vote of 20; `None` if a class is a set of labels, if there are more than 40 classes,
    /// or if the classes identify people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Confusion>,
    /// The answer to each query that counts; files and page are made of them.
    #[serde(skip)]
    pub(crate) answers: Vec<Answer>,
}

/// A mean over queries with its 95 % interval by a patient-clustered bootstrap.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Value {
    /// The mean.
    pub value: f64,
    /// Lower end of the interval; `None` with fewer than five patients.
    pub ci95_low: Option<f64>,
    /// Upper end of the interval; `None` with fewer than five patients.
    pub ci95_high: Option<f64>,
}

impl Value {
    pub(crate) fn new(value: f64, interval: Option<Interval>) -> Self {
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

/// Number of queries of a task that do not count, by reason.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LeftOutCounts {
    /// The image has no vector.
    pub without_vector: usize,
    /// The cell of the relevance column is empty.
    pub without_label: usize,
    /// No candidate is relevant.
    pub without_relevant: usize,
    /// Every candidate is relevant, so that no ranking can be wrong.
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

/// A task under another rule of exclusion.
#[derive(Debug, Serialize)]
pub struct Rung {
    /// Columns whose value a hit must not share with its query.
    pub exclude: Vec<String>,
    /// Number of queries that count under this rule.
    pub n_queries: usize,
    /// Mean of random rankings, by metric.
    pub chance: BTreeMap<String, f64>,
    /// Value of the model, by metric: `hit_at_1`, `precision_at_5` and `map_at_10`, if they were measured.
    pub metrics: BTreeMap<String, f64>,
}

/// How evenly the images of a gallery are found.
#[derive(Debug, Serialize)]
pub struct Hubness {
    /// Number of hits of each query that are examined.
    pub k: usize,
    /// Share of the gallery that no query has among its hits, 0..=1.
    pub never_retrieved: f64,
    /// The same share of random rankings.
    pub never_retrieved_chance: f64,
    /// Number of queries that have the most frequent image among their hits.
    pub most_retrieved: u32,
}

/// Confusion matrix of the vote of the first 20 hits.
#[derive(Debug, Serialize)]
pub struct Confusion {
    /// Names of the classes, in the order of rows and columns.
    pub classes: Vec<String>,
    /// Number of queries by true class (row) and class of the vote (column).
    pub counts: Vec<Vec<u32>>,
}

/// A task that was not measured, and why.
#[derive(Debug, Serialize)]
pub struct SkippedTask {
    /// Name of the task.
    pub task: String,
    /// Why it was skipped, as a sentence.
    pub reason: String,
}

/// How tasks are measured.
pub(super) struct Settings<'a> {
    pub(super) metrics: &'a [Metric],
    pub(super) least_grade: f32,
    pub(super) n_hits: usize,
    pub(super) bootstrap: Bootstrap,
}

impl<'a> Settings<'a> {
    /// Returns what is measured of the queries of a subject.
    pub(super) fn measures(&self, subject: &'a Subject) -> Measures<'a> {
        Measures {
            metrics: self.metrics,
            least_grade: self.least_grade,
            n_hits: self.n_hits,
            query_order: &subject.path_order,
            tie_order: &subject.tie_order,
        }
    }
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
                "the {} {} and the gallery {}; two on both sides are wanted, as one fixed ranking answers one class",
                counted(result.n_queries as u64, "query that counts has", "queries that count have"),
                n_classes(result.n_query_classes),
                n_classes(result.n_gallery_classes)
            )
        });
    }
    let left_out = &result.left_out;
    let reasons = [
        (left_out.without_label, "no label"),
        (left_out.without_vector, "no vector"),
        (left_out.without_relevant, "no relevant item in the gallery"),
        (left_out.only_relevant, "only relevant items in the gallery"),
    ];
    let reasons = reasons.iter().filter(|(n, _)| *n > 0);
    let reasons: Vec<String> = reasons
        .map(|(n, why)| format!("{} {why}", counted(*n as u64, "query has", "queries have")))
        .collect();
    Some(reasons.join(", "))
}

fn n_classes(n: usize) -> String {
    format!("{n} class{}", if n == 1 { "" } else { "es" })
}

/// Returns the rules of exclusion of a task: the one that counts, then the rungs of the ladder.
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
    let measures = settings.measures(subject);
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
    let numbers = TaskNumbers::new(&main, settings.metrics, &intervals);
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

/// Hashes everything that decides which items are relevant to which query, in any order of rows.
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
struct TaskNumbers {
    chance: BTreeMap<String, f64>,
    constant: BTreeMap<String, f64>,
    maximum: BTreeMap<String, f64>,
    metrics: BTreeMap<String, Value>,
}

impl TaskNumbers {
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
