//! `m3ret compare`: which of two evaluated models is better, task by task.

mod runs;
mod table;

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use m3ret_search::{Bootstrap, ComparedPair, Difference, Metric, Verdict};
use serde::Serialize;

use crate::Outcome;
use crate::cli::CompareArguments;
use crate::output::{Screen, write_whole};
pub(super) use runs::Run;
pub(super) use table::{Layout, render};

/// The rules of group means: a task counts with so many queries,
const MIN_QUERIES: usize = 20;
/// with a chance of at most this,
const MAX_CHANCE: f64 = 0.8;
/// and with a `precision_at_5` of thumbnails below this.
const MAX_PIXELS: f64 = 0.98;

/// What is compared: a task, or the mean of a group's tasks.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Compared {
    /// A task, or a group followed by the number of its tasks.
    pub(super) name: String,
    pub(super) is_group: bool,
    pub(super) metric: String,
    pub(super) n_queries: usize,
    pub(super) n_patients: usize,
    /// Chance of `precision_at_5`.
    pub(super) chance: f64,
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
    let comparison = compare(&a, &b, pixels, (&arguments.metric, bootstrap))?;
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
    /// Sum over its tasks.
    chance: f64,
}

impl Group {
    fn add(&mut self, pairs: &[ComparedPair], chance: f64) {
        let task = self.n_tasks;
        let numbered = pairs.iter().map(|pair| ComparedPair { task, ..*pair });
        self.pairs.extend(numbered);
        self.chance += chance;
        self.n_tasks += 1;
    }

    fn mean(&self, metric: &str, bootstrap: Bootstrap) -> Option<Compared> {
        let plural = if self.n_tasks == 1 { "" } else { "s" };
        let name = format!("{} ({} task{plural})", self.name, self.n_tasks);
        let chance = self.chance / f64::from(self.n_tasks);
        let mean = compared(&name, &self.pairs, (chance, metric), bootstrap)?;
        Some(Compared {
            is_group: true,
            ..mean
        })
    }
}

/// Compares by one metric: tasks first, then means of groups.
fn rows_of(
    a: &Run,
    b: &Run,
    pixels: Option<&Run>,
    (metric, bootstrap): (&str, Bootstrap),
) -> anyhow::Result<Vec<Compared>> {
    let mut groups: Vec<Group> = Vec::new();
    let mut rows = Vec::new();
    for (name, task) in &a.tasks {
        let Some(other) = b.tasks.get(name) else {
            continue;
        };
        let pairs = task
            .pairs(other, metric)
            .with_context(|| format!("task {name}"))?;
        rows.extend(compared(name, &pairs, (task.chance, metric), bootstrap));
        let of_pixels = pixels.and_then(|run| run.precision_at_5(name));
        if !is_in_mean(task.n(), task.chance, of_pixels) {
            continue;
        }
        let group = name.split('/').next().unwrap_or_default();
        if groups.last().is_none_or(|last| last.name != group) {
            groups.push(Group {
                name: group.to_owned(),
                ..Group::default()
            });
        }
        if let Some(last) = groups.last_mut() {
            last.add(&pairs, task.chance);
        }
    }
    rows.extend(
        groups
            .iter()
            .filter_map(|group| group.mean(metric, bootstrap)),
    );
    Ok(rows)
}

/// Returns whether a task says something in a mean of its group.
pub(super) fn is_in_mean(n: usize, chance: f64, pixels: Option<f64>) -> bool {
    n >= MIN_QUERIES && chance <= MAX_CHANCE && pixels.is_none_or(|pixels| pixels < MAX_PIXELS)
}

fn compared(
    name: &str,
    pairs: &[ComparedPair],
    (chance, metric): (f64, &str),
    bootstrap: Bootstrap,
) -> Option<Compared> {
    let difference = Difference::new(pairs, bootstrap)?;
    Some(Compared {
        name: name.to_owned(),
        is_group: false,
        metric: metric.to_owned(),
        n_queries: difference.n,
        n_patients: difference.n_patients,
        chance,
        a: difference.mean_a,
        b: difference.mean_b,
        difference: difference.mean(),
        ci95_low: difference.interval.map(|interval| interval.low),
        ci95_high: difference.interval.map(|interval| interval.high),
        verdict: match difference.verdict() {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::NotDistinguishable => "not distinguishable",
            Verdict::TooFewPatients => "too few patients",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn easy_and_small_tasks_are_in_no_mean() {
        assert!(is_in_mean(20, 0.8, Some(0.97)) && is_in_mean(20, 0.8, None));
        assert!(!is_in_mean(19, 0.1, None));
        assert!(!is_in_mean(50, 0.81, None));
        assert!(!is_in_mean(50, 0.1, Some(0.98)));
    }
}
