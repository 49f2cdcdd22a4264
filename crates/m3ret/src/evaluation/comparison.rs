//! Two evaluations side by side: the difference of every task and group, and a verdict on each.

pub mod table;

use anyhow::{Context as _, ensure};
use m3ret_search::evaluation::{
    Bootstrap, Difference, DifferenceVerdict, Metric, QueryPair, Stratum,
};
use serde::Serialize;

use super::runs::Run;

/// Verdicts on a task or a mean of tasks in which a model is collapsed: A, B, both.
const COLLAPSED: [&str; 3] = ["first collapsed", "second collapsed", "both collapsed"];

/// Every verdict, in the order in which summaries count them.
pub const VERDICTS: [&str; 7] = [
    "better",
    "not distinguishable",
    "worse",
    "too few patients",
    COLLAPSED[0],
    COLLAPSED[1],
    COLLAPSED[2],
];

/// One line of a comparison: a task, or the mean of the tasks of a group, by one metric.
#[derive(Debug, Clone, Serialize)]
pub struct ComparisonRow {
    /// Name of the task, or of the group with the number of its tasks.
    pub name: String,
    /// Whether this is the mean of a group.
    pub is_group: bool,
    /// Name of the metric.
    pub metric: String,
    /// Number of queries that both models answered.
    pub n_queries: usize,
    /// Number of patients of these queries.
    pub n_patients: usize,
    /// Mean of random rankings; of a group, the mean over its tasks.
    pub chance: Option<f64>,
    /// Value of the better of two fixed rankings; `None` where it is unknown.
    pub constant: Option<f64>,
    /// Smallest difference that can be told, by the variation of `pixels`; `None` if that was not evaluated.
    pub resolution: Option<f64>,
    /// Whether a fixed ranking nearly solves the task, so that it is in no mean.
    pub is_solved_by_constant: bool,
    /// Value of A.
    pub a: f64,
    /// Value of B.
    pub b: f64,
    /// B minus A.
    pub difference: f64,
    /// Lower end of the 95 % interval of the difference; `None` with fewer than five patients.
    pub ci95_low: Option<f64>,
    /// Upper end of the 95 % interval of the difference; `None` with fewer than five patients.
    pub ci95_high: Option<f64>,
    /// Verdict on B against A, one of `VERDICTS`.
    pub verdict: &'static str,
}

/// The comparison of two models on every task that both have.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Name of the first model.
    pub a: String,
    /// Name of the second model.
    pub b: String,
    /// Number of the rules of docs/evaluation.md that both evaluations follow.
    pub protocol: u64,
    /// Whether `pixels` was evaluated, so that tasks solved by thumbnails are not in means of groups.
    pub knows_pixels: bool,
    /// Number of draws of the confidence intervals.
    pub n_resamples: usize,
    /// For each metric the tasks, then the means of groups, then the tasks that a fixed ranking nearly solves.
    pub rows: Vec<ComparisonRow>,
    /// Names of the tasks that only one of the models has.
    pub only_one_has: Vec<String>,
}

/// The evaluations that are compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runs<'a> {
    pub a: &'a Run,
    pub b: &'a Run,
    /// The evaluation of `pixels`, which says which tasks thumbnails solve; `None` if it is unknown.
    pub pixels: Option<&'a Run>,
}

/// Compares two models on every task that both have, then the means of groups.
///
/// # Errors
/// If the evaluations follow different protocols, have no task in common, or differ in images, labels or
/// exclusions; if one of them lacks a metric.
pub(crate) fn compare(
    runs: Runs<'_>,
    metrics: &[Metric],
    bootstrap: Bootstrap,
) -> anyhow::Result<Comparison> {
    let Runs { a, b, pixels } = runs;
    for other in std::iter::once(b).chain(pixels) {
        a.check_protocol(other)?;
    }
    let mut rows = Vec::new();
    for metric in metrics {
        rows.extend(rows_of(runs, &metric.to_string(), bootstrap)?);
    }
    ensure!(
        !rows.is_empty(),
        "the two evaluations have no task in common"
    );
    let only_in = |run: &Run, other: &Run| -> Vec<String> {
        run.tasks
            .keys()
            .filter(|name| !other.tasks.contains_key(*name))
            .cloned()
            .collect()
    };
    Ok(Comparison {
        a: a.name.clone(),
        b: b.name.clone(),
        protocol: a.protocol,
        knows_pixels: pixels.is_some(),
        n_resamples: bootstrap.n_resamples,
        only_one_has: [only_in(a, b), only_in(b, a)].concat(),
        rows,
    })
}

/// The tasks of one group that are in its mean.
#[derive(Default)]
struct Group {
    name: String,
    n_tasks: u32,
    pairs: Vec<QueryPair>,
    /// Whether A, and whether B, is collapsed in one of its tasks.
    are_collapsed: [bool; 2],
    /// Sums over its tasks; `None` where a task has none.
    chance: Option<f64>,
    constant: Option<f64>,
}

impl Group {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            chance: Some(0.0),
            constant: Some(0.0),
            ..Self::default()
        }
    }

    fn add(&mut self, pairs: &[QueryPair], facts: &RowFacts) {
        let task = self.n_tasks;
        let numbered = pairs.iter().map(|pair| {
            let stratum = Stratum {
                task,
                ..pair.stratum
            };
            QueryPair { stratum, ..*pair }
        });
        self.pairs.extend(numbered);
        for (is_any, is_collapsed) in self.are_collapsed.iter_mut().zip(facts.are_collapsed) {
            *is_any |= is_collapsed;
        }
        let sum = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
        self.chance = sum(self.chance, facts.chance);
        self.constant = sum(self.constant, facts.constant);
        self.n_tasks += 1;
    }

    fn mean(
        &self,
        pixels: Option<&Run>,
        metric: &str,
        bootstrap: Bootstrap,
    ) -> Option<ComparisonRow> {
        let plural = if self.n_tasks == 1 { "" } else { "s" };
        let name = format!("{} ({} task{plural})", self.name, self.n_tasks);
        let n_tasks = f64::from(self.n_tasks);
        let of_pixels = pixels.and_then(|run| run.resolutions.get(&self.name)?.get(metric));
        let facts = RowFacts {
            chance: self.chance.map(|sum| sum / n_tasks),
            constant: self.constant.map(|sum| sum / n_tasks),
            resolution: of_pixels.copied(),
            is_solved_by_constant: false,
            are_collapsed: self.are_collapsed,
        };
        let mean = row_of(&name, &self.pairs, &facts, metric, bootstrap)?;
        Some(ComparisonRow {
            is_group: true,
            ..mean
        })
    }
}

/// What is known of a task or a group besides the values of its queries.
struct RowFacts {
    /// Whether A, and whether B, is collapsed.
    are_collapsed: [bool; 2],
    chance: Option<f64>,
    constant: Option<f64>,
    resolution: Option<f64>,
    is_solved_by_constant: bool,
}

/// Compares by one metric: tasks first, then means of groups, then tasks that a constant solves.
fn rows_of(
    runs: Runs<'_>,
    metric: &str,
    bootstrap: Bootstrap,
) -> anyhow::Result<Vec<ComparisonRow>> {
    let Runs { a, b, pixels } = runs;
    let mut groups: Vec<Group> = Vec::new();
    let (mut rows, mut apart) = (Vec::new(), Vec::new());
    for (name, task) in &a.tasks {
        let Some(other) = b.tasks.get(name) else {
            continue;
        };
        let pairs = task
            .pairs(other, metric)
            .with_context(|| format!("task {name}"))?;
        let standing = a.standing(name, pixels);
        let of_pixels = pixels.and_then(|run| run.tasks.get(name));
        let facts = RowFacts {
            are_collapsed: [task, other].map(|task| task.about.is_collapsed),
            chance: task.about.chance.get(metric).copied(),
            constant: task.about.constant.get(metric).copied(),
            resolution: of_pixels.and_then(|task| task.about.resolution.get(metric).copied()),
            is_solved_by_constant: standing.is_solved_by_constant(),
        };
        let row = row_of(name, &pairs, &facts, metric, bootstrap);
        if facts.is_solved_by_constant {
            apart.extend(row);
        } else {
            rows.extend(row);
        }
        if !standing.is_in_mean() {
            continue;
        }
        let group = &task.about.group;
        let place = groups.iter().position(|other| other.name == *group);
        let place = place.unwrap_or_else(|| {
            groups.push(Group::new(group));
            groups.len() - 1
        });
        groups[place].add(&pairs, &facts);
    }
    let means = groups.iter();
    rows.extend(means.filter_map(|group| group.mean(pixels, metric, bootstrap)));
    rows.extend(apart);
    Ok(rows)
}

fn row_of(
    name: &str,
    pairs: &[QueryPair],
    facts: &RowFacts,
    metric: &str,
    bootstrap: Bootstrap,
) -> Option<ComparisonRow> {
    let difference = Difference::new(pairs, bootstrap)?;
    Some(ComparisonRow {
        name: name.to_owned(),
        is_group: false,
        metric: metric.to_owned(),
        n_queries: difference.n,
        n_patients: difference.n_patients,
        chance: facts.chance,
        constant: facts.constant,
        resolution: facts.resolution,
        is_solved_by_constant: facts.is_solved_by_constant,
        a: difference.mean_a,
        b: difference.mean_b,
        difference: difference.mean(),
        ci95_low: difference.interval.map(|interval| interval.low),
        ci95_high: difference.interval.map(|interval| interval.high),
        verdict: verdict(&difference, facts.are_collapsed),
    })
}

/// Returns which model is better, if that can be told and neither is collapsed.
fn verdict(difference: &Difference, are_collapsed: [bool; 2]) -> &'static str {
    match (are_collapsed, difference.verdict()) {
        ([true, false], _) => COLLAPSED[0],
        ([false, true], _) => COLLAPSED[1],
        ([true, true], _) => COLLAPSED[2],
        (_, DifferenceVerdict::Better) => "better",
        (_, DifferenceVerdict::Worse) => "worse",
        (_, DifferenceVerdict::NotDistinguishable) => "not distinguishable",
        (_, DifferenceVerdict::TooFewPatients) => "too few patients",
    }
}
