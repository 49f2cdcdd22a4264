//! Tables of models side by side: their cells, and Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::groups::{self, GroupResult, ResolutionValue};
use super::results::{Results, TaskResult, Value};

/// Metrics of tables; the first decides groups.
pub const SHOWN: [&str; 3] = ["map_at_r", "precision_at_5", "hit_at_1"];

/// Returns whether a fixed ranking nearly solves a task, so that the task is in no mean.
pub fn is_solved_by_constant(task: &TaskResult) -> bool {
    groups::standing(task, None).is_solved_by_constant()
}

/// The numbers of a task or of a group, ready to be formatted.
pub struct Numbers<'a> {
    name: String,
    n_queries: usize,
    n_patients: usize,
    chance: &'a BTreeMap<String, f64>,
    constant: &'a BTreeMap<String, f64>,
    resolution: &'a BTreeMap<String, ResolutionValue>,
    metrics: &'a BTreeMap<String, Value>,
}

impl<'a> Numbers<'a> {
    /// Takes the numbers of a task.
    pub fn of_task(task: &'a TaskResult) -> Self {
        Self {
            name: task.task.clone(),
            n_queries: task.n_queries,
            n_patients: task.n_patients,
            chance: &task.chance,
            constant: &task.constant,
            resolution: &task.resolution,
            metrics: &task.metrics,
        }
    }

    /// Takes the numbers of a group.
    pub fn of_group(group: &'a GroupResult) -> Self {
        let n = group.tasks.len();
        let plural = if n == 1 { "" } else { "s" };
        Self {
            name: format!("mean of {} ({n} task{plural})", group.group),
            n_queries: group.n_queries,
            n_patients: group.n_patients,
            chance: &group.chance,
            constant: &group.constant,
            resolution: &group.resolution,
            metrics: &group.metrics,
        }
    }

    /// Returns the cells before the values of models: name, queries, patients, chance, constant, and the difference
    /// that can be resolved.
    pub fn start(&self, metric: &str) -> [String; 6] {
        let number = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.3}"));
        let resolution = self.resolution.get(metric);
        [
            self.name.clone(),
            self.n_queries.to_string(),
            self.n_patients.to_string(),
            number(self.chance.get(metric).copied()),
            number(self.constant.get(metric).copied()),
            match resolution.map(|found| (found.expected, found.at_most)) {
                Some((Some(expected), _)) => format!("{expected:.3}"),
                Some((None, at_most)) => format!("<={at_most:.3}"),
                None => "-".to_owned(),
            },
        ]
    }

    /// Returns the value of a metric with its interval; `-` if it was not measured.
    pub fn value(&self, metric: &str) -> String {
        let Some(value) = self.metrics.get(metric) else {
            return "-".to_owned();
        };
        value.to_string()
    }
}

/// Returns models side by side as Markdown, one table for each metric.
pub(super) fn markdown(results: &[&Results]) -> String {
    let mut text = String::new();
    for metric in SHOWN {
        let _ = writeln!(text, "### {metric}\n");
        markdown_table(&rows(results, metric), &mut text);
    }
    let mixed = mixed_rows(results);
    if mixed.len() > 1 {
        text.push_str("### all modalities in one gallery\n\n");
        markdown_table(&mixed, &mut text);
    }
    text
}

fn markdown_table(rows: &[Vec<String>], text: &mut String) {
    for (idx, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if idx == 0 {
            let _ = writeln!(text, "|---|{}", "---:|".repeat(row.len() - 1));
        }
    }
    text.push('\n');
}

/// Returns the table of one metric of all models: a head, the tasks, the means of groups, and the tasks that a fixed
/// ranking nearly solves.
pub fn rows(results: &[&Results], metric: &str) -> Vec<Vec<String>> {
    let head = ["task", "n", "patients", "chance", "constant", "resolves"].map(str::to_owned);
    let models = results.iter().map(|results| results.model.clone());
    let mut rows: Vec<Vec<String>> = vec![head.into_iter().chain(models).collect()];
    let mut apart = Vec::new();
    let first = results.first();
    for task in first.map_or(&[][..], |results| &results.tasks) {
        let same = results.iter().map(|results| {
            let mut tasks = results.tasks.iter();
            tasks
                .find(|other| other.task == task.task)
                .map(Numbers::of_task)
        });
        if let Some(mut row) = beside(same.collect(), metric) {
            if is_solved_by_constant(task) {
                row[0].push_str(" (constant)");
                apart.push(row);
            } else {
                rows.push(row);
            }
        }
    }
    for group in first.map_or(&[][..], |results| &results.groups) {
        let same = results.iter().map(|results| {
            let mut groups = results.groups.iter();
            groups
                .find(|other| other.group == group.group)
                .map(Numbers::of_group)
        });
        rows.extend(beside(same.collect(), metric));
    }
    rows.extend(apart);
    rows
}

/// Returns one row: the cells before the values, then the value of each model; `None` if a model lacks it.
fn beside(all: Option<Vec<Numbers<'_>>>, metric: &str) -> Option<Vec<String>> {
    let all = all?;
    let start = all.first()?.start(metric);
    let values = all.iter().map(|numbers| numbers.value(metric));
    Some(start.into_iter().chain(values).collect())
}

/// Returns the table of searches over all modalities, a row for each column and model.
fn mixed_rows(results: &[&Results]) -> Vec<Vec<String>> {
    let head = [
        "relevance",
        "n",
        "patients",
        "model",
        "right_of_other_modality_at_5",
        "chance",
        "own_modality_at_5",
        "chance",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for results in results {
        for mixed in &results.mixed {
            let shares = [
                &mixed.right_of_other_modality_at_5,
                &mixed.own_modality_at_5,
            ];
            let mut row = vec![
                mixed.relevance.clone(),
                mixed.n_queries.to_string(),
                mixed.n_patients.to_string(),
                results.model.clone(),
            ];
            for share in shares {
                row.push(share.value.to_string());
                row.push(format!("{:.3}", share.chance));
            }
            rows.push(row);
        }
    }
    rows
}
