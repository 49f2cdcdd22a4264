//! `comparison.html`: several models on one page, one file that needs nothing else.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::files::TOGETHER;
use super::groups::GroupResult;
use super::headline::{Headline, MEANING};
use super::results::{Results, TaskResult};
use super::tables::is_solved_by_constant;
use crate::evaluation::comparison::Comparison;
use crate::files::write_whole;
use crate::model_name::{HOG, PIXELS};
use crate::report::shell::Page;
use crate::report::viewer;

/// One line of the page: a task, or the mean of a group.
struct Line {
    is_group: bool,
    /// The name of the group that the line stands below.
    heading: String,
    about: Value,
    /// The values of each model by metric; null for a model that has no such line.
    models: Vec<Value>,
}

/// Writes the page.
pub(super) fn write(
    folder: &Path,
    results: &[&Results],
    comparisons: &[&Comparison],
) -> anyhow::Result<()> {
    let page = Page {
        title: "m3ret evaluation of several models",
        style: &[viewer::STYLE, include_str!("../report/web/evaluate.css")].concat(),
        body: include_str!("../report/web/together.html"),
        script: concat!(
            include_str!("../report/web/viewer.js"),
            include_str!("../report/web/bars.js"),
            include_str!("../report/web/together.js")
        ),
        data: Some(&page_of(results, comparisons)),
    };
    let page = page.html();
    Ok(write_whole(&folder.join(TOGETHER), |out| {
        Ok(out.write_all(page.as_bytes())?)
    })?)
}

fn page_of(results: &[&Results], comparisons: &[&Comparison]) -> Value {
    let models = results.iter().map(|one| {
        let folder = super::folder_name(&one.model);
        json!({
            "name": one.model,
            "report": format!("{folder}/report.html"),
            "is_simple": (one.model == PIXELS || one.model == HOG),
            "headline": Headline::of(one, comparisons).sentence(),
            "n_refused": one.n_refused,
        })
    });
    let lines = lines(results).into_iter().map(|line| {
        json!({
            "is_group": line.is_group,
            "heading": line.heading,
            "about": line.about,
            "models": line.models,
        })
    });
    let skipped = results.iter().flat_map(|one| &one.skipped);
    let skipped: BTreeMap<&str, &str> = skipped
        .map(|skipped| (skipped.task.as_str(), skipped.reason.as_str()))
        .collect();
    let first = results.first();
    json!({
        "models": models.collect::<Vec<_>>(),
        "lines": lines.collect::<Vec<_>>(),
        "skipped": skipped,
        "manifest": first.map(|one| &one.config.manifest),
        "n_rows": first.map(|one| one.n_rows),
        "meaning": MEANING,
        "version": env!("CARGO_PKG_VERSION"),
        "differences": differences(comparisons),
    })
}

/// Returns for each line the differences of models, with their verdicts.
fn differences(comparisons: &[&Comparison]) -> Vec<Value> {
    let all = comparisons.iter().map(|comparison| {
        let rows = comparison.rows.iter().map(|row| {
            json!({
                "name": row.name,
                "metric": row.metric,
                "difference": row.difference,
                "low": row.ci95_low,
                "high": row.ci95_high,
                "verdict": row.verdict,
            })
        });
        json!({"a": comparison.a, "b": comparison.b, "rows": rows.collect::<Vec<_>>()})
    });
    all.collect()
}

/// Returns the tasks in the order of the first model that has them, then the means of groups.
fn lines(results: &[&Results]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for one in results {
        for task in &one.tasks {
            let place = |line: &Line| line.about["name"] == task.task.as_str();
            if !lines.iter().any(place) {
                lines.push(line_of_task(task, results));
            }
        }
    }
    lines.sort_by_key(|line| line.heading.starts_with(EASY));
    for one in results {
        for group in &one.groups {
            let name = name_of_group(group);
            if !lines.iter().any(|line| line.about["name"] == name.as_str()) {
                lines.push(line_of_group(group, results));
            }
        }
    }
    lines
}

/// The heading of tasks that are in no mean.
const EASY: &str = "a fixed ranking reaches 0.8 of the maximum: in no mean";

fn line_of_task(task: &TaskResult, results: &[&Results]) -> Line {
    let of = |one: &&Results| {
        let mut tasks = one.tasks.iter();
        json!(
            tasks
                .find(|other| other.task == task.task)
                .map(|other| &other.metrics)
        )
    };
    Line {
        is_group: false,
        heading: match is_solved_by_constant(task) {
            true => EASY.to_owned(),
            false => task.group.clone(),
        },
        about: json!({
            "name": task.task,
            "n": task.n_queries,
            "patients": task.n_patients,
            "gallery": task.n_gallery,
            "chance": task.chance,
            "constant": task.constant,
        }),
        models: results.iter().map(of).collect(),
    }
}

/// Names the mean of a group as comparisons do.
fn name_of_group(group: &GroupResult) -> String {
    let n = group.tasks.len();
    let plural = if n == 1 { "" } else { "s" };
    format!("{} ({n} task{plural})", group.group)
}

fn line_of_group(group: &GroupResult, results: &[&Results]) -> Line {
    let of = |one: &&Results| {
        let mut groups = one.groups.iter();
        let same = groups.find(|other| name_of_group(other) == name_of_group(group));
        json!(same.map(|other| &other.metrics))
    };
    Line {
        is_group: true,
        heading: "means of groups".to_owned(),
        about: json!({
            "name": name_of_group(group),
            "n": group.n_queries,
            "patients": group.n_patients,
            "gallery": Value::Null,
            "chance": group.chance,
            "constant": group.constant,
        }),
        models: results.iter().map(of).collect(),
    }
}
