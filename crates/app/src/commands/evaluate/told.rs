//! Evaluations as text: for a terminal, and side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::groups::{GroupResult, ResolutionValue};
use super::results::{Results, TaskResult, Value};
use super::ties;
use crate::commands::compare::{Compared, Comparison, VERDICTS};
use crate::commands::protocol::MAX_CONSTANT;
use crate::output::Screen;
use crate::report::text::Paint;
use crate::words::aligned;

/// What tables show; the first decides.
const SHOWN: [&str; 3] = ["map_at_r", "precision_at_5", "hit_at_1"];
/// Longest list of skipped tasks on a terminal.
const MAX_SKIPPED: usize = 8;

/// Writes the table of one model, and where its files are.
pub(super) fn text(results: &Results, folder: &Path, screen: Screen, is_whole: bool) -> String {
    let paint = Paint {
        is_on: screen.has_colour,
    };
    let mut text = format!("{}\n", paint.bold(&results.model));
    if is_whole {
        text.push_str(&table(results, paint));
        text.push_str(&mixed(results));
        text.push_str(&privacy(results));
        text.push_str(&skipped(results));
        for note in &results.notes {
            let _ = writeln!(text, "  note     {note}");
        }
    } else if let Some(note) = ties::collapse(&results.tasks) {
        let _ = writeln!(text, "  note     {note}");
    }
    text.push_str(&refused(results));
    let _ = writeln!(text, "  report   {}", folder.join("report.html").display());
    text
}

/// Writes the tasks, the means of groups, and the tasks that a fixed ranking nearly solves.
fn table(results: &Results, paint: Paint) -> String {
    let head = ["task", "n", "patients", "chance", "constant", "resolves"].map(str::to_owned);
    let mut rows = vec![head.into_iter().chain(SHOWN.map(str::to_owned)).collect()];
    let line = |numbers: &Numbers<'_>| -> Vec<String> {
        let values = SHOWN.map(|metric| numbers.value(metric));
        numbers.start(SHOWN[0]).into_iter().chain(values).collect()
    };
    let is_apart = |task: &&TaskResult| is_solved_by_constant(task);
    let usual = results.tasks.iter().filter(|task| !is_apart(task));
    rows.extend(usual.map(|task| line(&Numbers::of_task(task))));
    let n_tasks = rows.len();
    rows.extend(
        results
            .groups
            .iter()
            .map(|group| line(&Numbers::of_group(group))),
    );
    let n_groups = rows.len();
    let apart = results.tasks.iter().filter(is_apart);
    rows.extend(apart.map(|task| line(&Numbers::of_task(task))));
    let mut text = String::new();
    for (idx, line) in aligned(&rows, 1..6).into_iter().enumerate() {
        if idx == n_tasks && n_groups > n_tasks {
            text.push_str("  means of groups\n");
        }
        if idx == n_groups {
            let _ = writeln!(
                text,
                "  a fixed ranking (constant) reaches {MAX_CONSTANT} of the maximum; in no mean"
            );
        }
        let line = if idx == 0 { paint.dim(&line) } else { line };
        let _ = writeln!(text, "  {}", line.trim_end());
    }
    let _ = writeln!(
        text,
        "  chance, constant and resolves are those of {}",
        SHOWN[0]
    );
    text
}

fn is_solved_by_constant(task: &TaskResult) -> bool {
    super::groups::standing(task, None).is_solved_by_constant()
}

/// The numbers of a task or of a group.
struct Numbers<'a> {
    name: String,
    n_queries: usize,
    n_patients: usize,
    chance: &'a BTreeMap<String, f64>,
    constant: &'a BTreeMap<String, f64>,
    resolution: &'a BTreeMap<String, ResolutionValue>,
    metrics: &'a BTreeMap<String, Value>,
}

impl<'a> Numbers<'a> {
    fn of_task(task: &'a TaskResult) -> Self {
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

    fn of_group(group: &'a GroupResult) -> Self {
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

    /// What stands before the models' values: the name, counts, and what no model decides.
    fn start(&self, metric: &str) -> [String; 6] {
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

    fn value(&self, metric: &str) -> String {
        let Some(value) = self.metrics.get(metric) else {
            return "-".to_owned();
        };
        value.to_string()
    }
}

fn mixed(results: &Results) -> String {
    let mut text = String::new();
    for mixed in &results.mixed {
        let percent = |x: f64| 100.0 * x;
        let (right, own) = (
            &mixed.right_of_other_modality_at_5,
            &mixed.own_modality_at_5,
        );
        let _ = writeln!(
            text,
            "  mixed    {}: of the first 5 hits over all modalities {:.1} % are right and of another modality \
             (chance {:.1} %), {:.1} % of the query's own (chance {:.1} %); n {}",
            mixed.relevance,
            percent(right.value.value),
            percent(right.chance),
            percent(own.value.value),
            percent(own.chance),
            mixed.n_queries
        );
    }
    text
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
    let mut text = String::new();
    for (idx, metric) in SHOWN.into_iter().enumerate() {
        let mut rows = rows(results, metric);
        if idx > 0 {
            // Beside the metric that decides, only the means of groups.
            rows.retain(|row| row[0] == "task" || row[0].starts_with("mean of "));
        }
        let _ = writeln!(text, "\n{}", paint.bold(metric));
        for (idx, line) in aligned(&rows, 1..usize::MAX).into_iter().enumerate() {
            let line = if idx == 0 { paint.dim(&line) } else { line };
            let _ = writeln!(text, "{line}");
        }
    }
    for results in results {
        if !results.mixed.is_empty() {
            let _ = write!(text, "\n{}\n{}", results.model, mixed(results));
        }
    }
    for comparison in comparisons {
        text.push_str(&verdicts(comparison));
    }
    // Tasks and notes are those of the manifest, alike for all models.
    if let Some(first) = results.first() {
        let _ = write!(text, "\n{}", skipped(first));
        for note in &first.notes {
            let _ = writeln!(text, "  note     {note}");
        }
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
    for verdict in VERDICTS {
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

/// One metric of all models: a head, the tasks, the means of groups, and the tasks that a fixed ranking
/// nearly solves.
fn rows(results: &[&Results], metric: &str) -> Vec<Vec<String>> {
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

/// One row: what no model decides, then each model's value; `None` where a model lacks it.
fn beside(all: Option<Vec<Numbers<'_>>>, metric: &str) -> Option<Vec<String>> {
    let all = all?;
    let start = all.first()?.start(metric);
    let values = all.iter().map(|numbers| numbers.value(metric));
    Some(start.into_iter().chain(values).collect())
}

/// What searches over all modalities find, a row a column and model.
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
