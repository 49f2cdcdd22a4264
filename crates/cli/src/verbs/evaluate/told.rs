//! Evaluations as text for a terminal: one model, or several side by side.

use std::fmt::Write as _;
use std::path::Path;

use crate::screen::Screen;
use crate::text::Paint;
use m3ret::evaluate::ModelEvaluation;
use m3ret::evaluate::results::{Results, TaskResult};
use m3ret::evaluate::tables::{Numbers, SHOWN, is_solved_by_constant, rows};
use m3ret::evaluate::ties;
use m3ret::evaluation::comparison::{Comparison, ComparisonRow, VERDICTS};
use m3ret::evaluation::protocol::MAX_CONSTANT;
use m3ret::words::{aligned, counted, printable, printable_path};

/// Longest list of skipped tasks on a terminal.
const MAX_SKIPPED: usize = 8;

/// Writes the table of one model, and where its files are.
pub(crate) fn text(model: &ModelEvaluation, screen: Screen, is_whole: bool) -> String {
    let results = &model.results;
    let paint = Paint {
        is_on: screen.has_colour,
    };
    let mut text = format!("{}\n", paint.bold(&printable(&results.model)));
    if is_whole {
        text.push_str(&table(results, paint));
        text.push_str(&mixed(results));
        text.push_str(&privacy(results));
        text.push_str(&skipped(results));
        for note in &results.notes {
            let _ = writeln!(text, "  note     {}", printable(note));
        }
    } else if let Some(note) = ties::collapse(&results.tasks) {
        let _ = writeln!(text, "  note     {}", printable(&note));
    }
    text.push_str(&refused(results));
    let report = model.folder.join("report.html");
    let _ = writeln!(text, "  report   {}", printable_path(&report));
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
            printable(&mixed.relevance),
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
                "  privacy  {kind}: the nearest image is of the same patient for {:.0} % of {} (chance {:.1} %)",
                100.0 * value.value,
                counted(task.n_queries as u64, "image", "images"),
                100.0 * chance
            );
        }
    }
    text
}

fn skipped(results: &Results) -> String {
    let mut text = String::new();
    for skipped in results.skipped.iter().take(MAX_SKIPPED) {
        let (task, reason) = (printable(&skipped.task), printable(&skipped.reason));
        let _ = writeln!(text, "  skipped  {task}: {reason}");
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
        "  refused  {} no vector ({})\n",
        counted(results.n_refused as u64, "image has", "images have"),
        reasons.join(", ")
    )
}

/// Writes models side by side for a terminal.
pub(crate) fn side_by_side(
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
            let _ = write!(text, "\n{}\n{}", printable(&results.model), mixed(results));
        }
    }
    for comparison in comparisons {
        text.push_str(&verdicts(comparison));
    }
    // Tasks and notes are those of the manifest, alike for all models.
    if let Some(first) = results.first() {
        let _ = write!(text, "\n{}", skipped(first));
        for note in &first.notes {
            let _ = writeln!(text, "  note     {}", printable(note));
        }
    }
    let _ = writeln!(
        text,
        "\nAll intervals and differences: {}",
        printable_path(&folder.join("comparison.md"))
    );
    text
}

/// Says in which groups the second model is better than the first.
fn verdicts(comparison: &Comparison) -> String {
    let of = |verdict: &str| {
        let is_group = |row: &&ComparisonRow| row.is_group && row.metric == SHOWN[0];
        let groups = comparison.rows.iter().filter(is_group);
        let names = groups.filter(|row| row.verdict == verdict);
        names
            .map(|row| printable(&row.name))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut text = format!(
        "\n{} against {}, means of groups:\n",
        printable(&comparison.b),
        printable(&comparison.a)
    );
    for verdict in VERDICTS {
        let names = of(verdict);
        if !names.is_empty() {
            let _ = writeln!(text, "  {verdict:<19}  {names}");
        }
    }
    text
}
