//! Evaluations as text: for a terminal, and side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::results::{Results, TaskResult};
use crate::commands::compare::{Compared, Comparison, is_in_mean};
use crate::output::Screen;
use crate::report::text::{Paint, aligned};

/// What tables show, where these cutoffs were asked for.
const SHOWN: [&str; 3] = ["precision_at_5", "hit_at_1", "map_at_10"];
/// Longest list of skipped tasks on a terminal.
const MAX_SKIPPED: usize = 8;

/// Writes the table of one model, and where its files are.
pub(super) fn text(results: &Results, folder: &Path, screen: Screen, is_whole: bool) -> String {
    let paint = Paint {
        is_on: screen.has_colour,
    };
    let mut text = format!("{}\n", paint.bold(&results.model));
    if is_whole {
        let names: Vec<&str> = shown(results);
        let width = results
            .tasks
            .iter()
            .map(|task| task.task.len())
            .max()
            .unwrap_or(4)
            .max(4);
        let mut head = format!(
            "  {:<width$} {:>5} {:>8} {:>6}",
            "task", "n", "patients", "chance"
        );
        for name in &names {
            let _ = write!(head, "  {name:<21}");
        }
        let _ = writeln!(text, "{}", paint.dim(head.trim_end()));
        for task in &results.tasks {
            let _ = write!(
                text,
                "  {:<width$} {:>5} {:>8} {:>6.3}",
                task.task,
                task.n_queries,
                task.n_patients,
                chance(task)
            );
            for name in &names {
                let _ = write!(text, "  {:<21}", value(task, name));
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text.push_str(&privacy(results));
        text.push_str(&skipped(results));
        for note in &results.notes {
            let _ = writeln!(text, "  note     {note}");
        }
    }
    text.push_str(&refused(results));
    let _ = writeln!(text, "  report   {}", folder.join("report.html").display());
    text
}

fn shown(results: &Results) -> Vec<&'static str> {
    let has = |name: &&str| {
        results
            .tasks
            .iter()
            .any(|task| task.metrics.contains_key(*name))
    };
    SHOWN.into_iter().filter(has).collect()
}

/// Chance of `precision_at_5`, which is always there.
fn chance(task: &TaskResult) -> f64 {
    task.chance
        .get("precision_at_5")
        .copied()
        .unwrap_or(f64::NAN)
}

fn value(task: &TaskResult, name: &str) -> String {
    let Some(value) = task.metrics.get(name) else {
        return "-".to_owned();
    };
    match (value.ci95_low, value.ci95_high) {
        (Some(low), Some(high)) => format!("{:.3} [{low:.3}, {high:.3}]", value.value),
        _ => format!("{:.3}", value.value),
    }
}

fn privacy(results: &Results) -> String {
    let mut text = String::new();
    for task in &results.privacy {
        let kind = task.task.trim_start_matches("privacy/");
        if let (Some(value), Some(chance)) =
            (task.metrics.get("hit_at_1"), task.chance.get("hit_at_1"))
        {
            let _ = writeln!(
                text,
                "  privacy  {kind}: the nearest image is of the same patient for {:.0} % of {} images (chance {:.1} %)",
                100.0 * value.value,
                task.n_queries,
                100.0 * chance
            );
        }
    }
    text
}

fn skipped(results: &Results) -> String {
    let mut text = String::new();
    for skipped in results.skipped.iter().take(MAX_SKIPPED) {
        let _ = writeln!(text, "  skipped  {}: {}", skipped.task, skipped.reason);
    }
    let n_more = results.skipped.len().saturating_sub(MAX_SKIPPED);
    if n_more > 0 {
        let _ = writeln!(text, "  skipped  {n_more} more, all in results.json");
    }
    text
}

fn refused(results: &Results) -> String {
    if results.n_refused == 0 {
        return String::new();
    }
    let reasons = results
        .refused
        .iter()
        .map(|(code, n)| format!("{code} {n}"));
    let reasons: Vec<String> = reasons.collect();
    format!(
        "  refused  {} images have no vector ({})\n",
        results.n_refused,
        reasons.join(", ")
    )
}

/// Writes models side by side for a terminal.
pub(super) fn side_by_side(
    results: &[&Results],
    comparisons: &[Comparison],
    folder: &Path,
    screen: Screen,
) -> String {
    let paint = Paint {
        is_on: screen.has_colour,
    };
    let mut text = String::from("\n");
    let lines = aligned(&rows(results, "precision_at_5"), 1..usize::MAX);
    for (idx, line) in lines.into_iter().enumerate() {
        let line = if idx == 0 { paint.dim(&line) } else { line };
        let _ = writeln!(text, "{line}");
    }
    for comparison in comparisons {
        text.push_str(&verdicts(comparison));
    }
    let _ = writeln!(
        text,
        "\nAll intervals and differences: {}",
        folder.join("comparison.md").display()
    );
    text
}

/// Says in which groups the second model is better than the first.
fn verdicts(comparison: &Comparison) -> String {
    let of = |verdict: &str| {
        let is_group = |row: &&Compared| row.is_group && row.metric == SHOWN[0];
        let groups = comparison.rows.iter().filter(is_group);
        let names = groups.filter(|row| row.verdict == verdict);
        names
            .map(|row| row.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut text = format!(
        "\n{} against {}, means of groups:\n",
        comparison.b, comparison.a
    );
    for verdict in ["better", "not distinguishable", "worse", "too few patients"] {
        let names = of(verdict);
        if !names.is_empty() {
            let _ = writeln!(text, "  {verdict:<19}  {names}");
        }
    }
    text
}

/// Writes models side by side, one table a metric.
pub(super) fn markdown(results: &[&Results]) -> String {
    let mut text = String::new();
    for metric in SHOWN {
        if !results
            .iter()
            .all(|results| shown(results).contains(&metric))
        {
            continue;
        }
        let rows = rows(results, metric);
        let _ = writeln!(text, "### {metric}\n");
        for (idx, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
            if idx == 0 {
                let _ = writeln!(text, "|---|{}", "---:|".repeat(row.len() - 1));
            }
        }
        text.push('\n');
    }
    text
}

/// One metric of all models: a head, the tasks, and means of groups.
fn rows(results: &[&Results], metric: &str) -> Vec<Vec<String>> {
    let head = ["task", "n", "patients", "chance"]
        .map(str::to_owned)
        .into_iter();
    let mut rows: Vec<Vec<String>> = vec![
        head.chain(results.iter().map(|results| results.model.clone()))
            .collect(),
    ];
    let by_name: Vec<BTreeMap<&str, &TaskResult>> = results
        .iter()
        .map(|results| {
            results
                .tasks
                .iter()
                .map(|task| (task.task.as_str(), task))
                .collect()
        })
        .collect();
    let pixels = results
        .iter()
        .position(|results| results.model == crate::model_name::PIXELS);
    let mut means = Means::default();
    for task in results.first().map_or(&[][..], |results| &results.tasks) {
        let all = by_name
            .iter()
            .map(|tasks| tasks.get(task.task.as_str()).copied());
        let all: Option<Vec<&TaskResult>> = all.collect();
        let has_metric = |task: &&TaskResult| task.metrics.contains_key(metric);
        let Some(all) = all.filter(|all| all.iter().all(has_metric)) else {
            continue;
        };
        let mut row = vec![
            task.task.clone(),
            task.n_queries.to_string(),
            task.n_patients.to_string(),
            format!(
                "{:.3}",
                task.chance.get(metric).copied().unwrap_or(f64::NAN)
            ),
        ];
        row.extend(all.iter().map(|task| value(task, metric)));
        rows.push(row);
        let of_pixels = pixels.and_then(|idx| all[idx].metrics.get("precision_at_5"));
        if is_in_mean(
            task.n_queries,
            chance(task),
            of_pixels.map(|value| value.value),
        ) {
            let values = all.iter().map(|task| task.metrics[metric].value);
            means.add(&task.group, values.collect());
        }
    }
    rows.extend(means.rows());
    rows
}

/// Means over the tasks of each group, one a model.
#[derive(Default)]
struct Means {
    groups: Vec<(String, Vec<Vec<f64>>)>,
}

impl Means {
    fn add(&mut self, group: &str, values: Vec<f64>) {
        match self.groups.last_mut() {
            Some((last, tasks)) if last == group => tasks.push(values),
            _ => self.groups.push((group.to_owned(), vec![values])),
        }
    }

    fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        self.groups.iter().map(|(group, tasks)| {
            let n = tasks.len();
            let plural = if n == 1 { "" } else { "s" };
            let mut row = vec![format!("mean of {group} ({n} task{plural})")];
            row.resize(4, String::new());
            let models = 0..tasks.first().map_or(0, Vec::len);
            row.extend(models.map(|model| {
                let sum: f64 = tasks.iter().map(|values| values[model]).sum();
                format!("{:.3}", sum / n as f64)
            }));
            row
        })
    }
}
