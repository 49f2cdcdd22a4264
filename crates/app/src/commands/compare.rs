//! `m3ret compare`: which of two evaluated models is better, task by task.

mod runs;
mod table;

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use m3ret_search::{Bootstrap, ComparedPair, Difference, Metric, Stratum, Verdict};
use serde::Serialize;

use super::protocol::GROUP_METRICS;
use crate::Outcome;
use crate::cli::CompareArguments;
use crate::output::{Screen, write_whole};
pub(super) use runs::Run;
pub(super) use table::{Layout, render};

/// Verdicts on a task, or a mean of tasks, in which a model is collapsed: A, B, both.
const COLLAPSED: [&str; 3] = ["first collapsed", "second collapsed", "both collapsed"];

/// Every verdict, in the order of summaries.
pub(super) const VERDICTS: [&str; 7] = [
    "better",
    "not distinguishable",
    "worse",
    "too few patients",
    COLLAPSED[0],
    COLLAPSED[1],
    COLLAPSED[2],
];

/// What is compared: a task, or the mean of a group's tasks.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Compared {
    /// A task, or a group followed by the number of its tasks.
    pub(super) name: String,
    pub(super) is_group: bool,
    pub(super) metric: String,
    pub(super) n_queries: usize,
    pub(super) n_patients: usize,
    /// What random rankings have; of a group, the mean over its tasks.
    pub(super) chance: Option<f64>,
    /// What the best fixed ranking has that is known.
    pub(super) constant: Option<f64>,
    /// The difference that can be told, by the variation of `pixels`, where that was evaluated beside.
    pub(super) resolution: Option<f64>,
    /// Whether a fixed ranking nearly solves the task, so that it is in no mean.
    pub(super) is_solved_by_constant: bool,
    pub(super) a: f64,
    pub(super) b: f64,
    pub(super) difference: f64,
    pub(super) ci95_low: Option<f64>,
    pub(super) ci95_high: Option<f64>,
    /// Of B against A.
    pub(super) verdict: &'static str,
}

/// Everything that two models have in common.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) a: String,
    pub(super) b: String,
    pub(super) protocol: u64,
    /// Whether tasks that thumbnails solve could be left out of group means.
    pub(super) knows_pixels: bool,
    pub(super) n_resamples: usize,
    pub(super) rows: Vec<Compared>,
    /// Tasks that only one of them has.
    pub(super) only_one_has: Vec<String>,
}

/// Compares, prints, writes.
pub(crate) fn run(arguments: &CompareArguments, _: Screen) -> anyhow::Result<Outcome> {
    let layouts: Vec<(&Path, Layout)> = arguments
        .out
        .iter()
        .map(|path| Ok((path.as_path(), Layout::of(path)?)))
        .collect::<anyhow::Result<_>>()?;
    let [a, b] = [&arguments.a, &arguments.b].map(|folder| Run::open(folder));
    let (a, b) = (a?, b?);
    let pixels = match &arguments.pixels {
        Some(folder) => Some(Run::open(folder)?),
        None => None,
    };
    let pixels = pixels
        .as_ref()
        .or_else(|| [&a, &b].into_iter().find(|run| run.name == "pixels"));
    let bootstrap = Bootstrap {
        n_resamples: arguments.resamples,
        seed: arguments.seed,
    };
    let metrics: &[Metric] = if arguments.metric.is_empty() {
        &GROUP_METRICS
    } else {
        &arguments.metric
    };
    let comparison = compare(&a, &b, pixels, (metrics, bootstrap))?;
    let mut out = io::stdout().lock();
    let told = if arguments.json {
        super::write_json_line(&mut out, &comparison)
    } else {
        out.write_all(render(&comparison, Layout::Text).as_bytes())
    };
    told.context("writing to standard output")?;
    for (path, layout) in layouts {
        let text = render(&comparison, layout);
        write_whole(path, |out| Ok(out.write_all(text.as_bytes())?))?;
    }
    Ok(Outcome::AllGood)
}

/// Compares two models on every task that both have, then the means of groups.
pub(super) fn compare(
    a: &Run,
    b: &Run,
    pixels: Option<&Run>,
    (metrics, bootstrap): (&[Metric], Bootstrap),
) -> anyhow::Result<Comparison> {
    for other in std::iter::once(b).chain(pixels) {
        a.check_protocol(other)?;
    }
    let mut rows = Vec::new();
    for metric in metrics {
        rows.extend(rows_of(a, b, pixels, (&metric.to_string(), bootstrap))?);
    }
    ensure!(
        !rows.is_empty(),
        "the two evaluations have no task in common"
    );
    let both = |run: &Run, other: &Run| -> Vec<String> {
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
        only_one_has: [both(a, b), both(b, a)].concat(),
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

    fn add(&mut self, pairs: &[ComparedPair], known: &Known) {
        let task = self.n_tasks;
        let numbered = pairs.iter().map(|pair| {
            let stratum = Stratum {
                task,
                ..pair.stratum
            };
            ComparedPair { stratum, ..*pair }
        });
        self.pairs.extend(numbered);
        for (is_any, is_collapsed) in self.are_collapsed.iter_mut().zip(known.are_collapsed) {
            *is_any |= is_collapsed;
        }
        let sum = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
        self.chance = sum(self.chance, known.chance);
        self.constant = sum(self.constant, known.constant);
        self.n_tasks += 1;
    }

    fn mean(&self, pixels: Option<&Run>, metric: &str, bootstrap: Bootstrap) -> Option<Compared> {
        let plural = if self.n_tasks == 1 { "" } else { "s" };
        let name = format!("{} ({} task{plural})", self.name, self.n_tasks);
        let n_tasks = f64::from(self.n_tasks);
        let of_pixels = pixels.and_then(|run| run.resolutions.get(&self.name)?.get(metric));
        let known = Known {
            chance: self.chance.map(|sum| sum / n_tasks),
            constant: self.constant.map(|sum| sum / n_tasks),
            resolution: of_pixels.copied(),
            is_solved_by_constant: false,
            are_collapsed: self.are_collapsed,
        };
        let mean = compared(&name, &self.pairs, (&known, metric), bootstrap)?;
        Some(Compared {
            is_group: true,
            ..mean
        })
    }
}

/// What is known of a task or a group besides the values of its queries.
struct Known {
    /// Whether A, and whether B, is collapsed.
    are_collapsed: [bool; 2],
    chance: Option<f64>,
    constant: Option<f64>,
    resolution: Option<f64>,
    is_solved_by_constant: bool,
}

/// Compares by one metric: tasks first, then means of groups, then tasks that a constant solves.
fn rows_of(
    a: &Run,
    b: &Run,
    pixels: Option<&Run>,
    (metric, bootstrap): (&str, Bootstrap),
) -> anyhow::Result<Vec<Compared>> {
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
        let known = Known {
            are_collapsed: [task, other].map(|task| task.about.is_collapsed),
            chance: task.about.chance.get(metric).copied(),
            constant: task.about.constant.get(metric).copied(),
            resolution: of_pixels.and_then(|task| task.about.resolution.get(metric).copied()),
            is_solved_by_constant: standing.is_solved_by_constant(),
        };
        let row = compared(name, &pairs, (&known, metric), bootstrap);
        if known.is_solved_by_constant {
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
        groups[place].add(&pairs, &known);
    }
    let means = groups.iter();
    rows.extend(means.filter_map(|group| group.mean(pixels, metric, bootstrap)));
    rows.extend(apart);
    Ok(rows)
}

fn compared(
    name: &str,
    pairs: &[ComparedPair],
    (known, metric): (&Known, &str),
    bootstrap: Bootstrap,
) -> Option<Compared> {
    let difference = Difference::new(pairs, bootstrap)?;
    Some(Compared {
        name: name.to_owned(),
        is_group: false,
        metric: metric.to_owned(),
        n_queries: difference.n,
        n_patients: difference.n_patients,
        chance: known.chance,
        constant: known.constant,
        resolution: known.resolution,
        is_solved_by_constant: known.is_solved_by_constant,
        a: difference.mean_a,
        b: difference.mean_b,
        difference: difference.mean(),
        ci95_low: difference.interval.map(|interval| interval.low),
        ci95_high: difference.interval.map(|interval| interval.high),
        verdict: verdict(&difference, known.are_collapsed),
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
