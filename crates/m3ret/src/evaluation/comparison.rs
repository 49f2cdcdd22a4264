//! Two evaluations side by side: the difference of every task and group, and a verdict on each.

pub mod table;

use anyhow::{Context as _, ensure};
use m3ret_search::{Bootstrap, ComparedPair, Difference, Metric, Stratum, Verdict};
use serde::Serialize;

use super::runs::Run;

/// Verdicts on a task, or a mean of tasks, in which a model is collapsed: A, B, both.
const COLLAPSED: [&str; 3] = ["first collapsed", "second collapsed", "both collapsed"];

/// Every verdict, in the order of summaries.
pub const VERDICTS: [&str; 7] = [
    "better",
    "not distinguishable",
    "worse",
    "too few patients",
    COLLAPSED[0],
    COLLAPSED[1],
    COLLAPSED[2],
];

/// One line of a comparison: a task, or the mean of a group's tasks.
#[derive(Debug, Clone, Serialize)]
pub struct ComparisonRow {
    /// A task, or a group followed by the number of its tasks.
    pub name: String,
    pub is_group: bool,
    pub metric: String,
    pub n_queries: usize,
    pub n_patients: usize,
    /// What random rankings have; of a group, the mean over its tasks.
    pub chance: Option<f64>,
    /// What the best fixed ranking has that is facts.
    pub constant: Option<f64>,
    /// The difference that can be told, by the variation of `pixels`, where that was evaluated beside.
    pub resolution: Option<f64>,
    /// Whether a fixed ranking nearly solves the task, so that it is in no mean.
    pub is_solved_by_constant: bool,
    pub a: f64,
    pub b: f64,
    pub difference: f64,
    pub ci95_low: Option<f64>,
    pub ci95_high: Option<f64>,
    /// Of B against A.
    pub verdict: &'static str,
}

/// Everything that two models have in common.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub a: String,
    pub b: String,
    pub protocol: u64,
    /// Whether tasks that thumbnails solve could be left out of group means.
    pub knows_pixels: bool,
    pub n_resamples: usize,
    pub rows: Vec<ComparisonRow>,
    /// Tasks that only one of them has.
    pub only_one_has: Vec<String>,
}

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub struct Runs<'a> {
    pub a: &'a Run,
    pub b: &'a Run,
    /// The model `pixels`, which says which tasks thumbnails solve; `None` where it is not facts.
    pub pixels: Option<&'a Run>,
}

/// Compares two models on every task that both have, then the means of groups.
///
/// # Errors
/// If the evaluations follow different protocols, have no task in common, or differ in images, labels or
/// exclusions; if one of them lacks a metric.
pub fn compare(
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
    pairs: Vec<ComparedPair>,
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

    fn add(&mut self, pairs: &[ComparedPair], facts: &RowFacts) {
        let task = self.n_tasks;
        let numbered = pairs.iter().map(|pair| {
            let stratum = Stratum {
                task,
                ..pair.stratum
            };
            ComparedPair { stratum, ..*pair }
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
    pairs: &[ComparedPair],
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

/// Says which model is better, where that can be told and neither is collapsed.
fn verdict(difference: &Difference, are_collapsed: [bool; 2]) -> &'static str {
    match (are_collapsed, difference.verdict()) {
        ([true, false], _) => COLLAPSED[0],
        ([false, true], _) => COLLAPSED[1],
        ([true, true], _) => COLLAPSED[2],
        (_, Verdict::Better) => "better",
        (_, Verdict::Worse) => "worse",
        (_, Verdict::NotDistinguishable) => "not distinguishable",
        (_, Verdict::TooFewPatients) => "too few patients",
    }
}
