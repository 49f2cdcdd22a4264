//! Writes an evaluation for other programs: `results.json`, `per_query.parquet`, TREC runs and qrels.

use std::fs::DirEntry;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use m3ret_search::evaluation::{
    Answer, Embeddings, Metric, RankedItem, RelevanceRule, relevant_items,
};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Value, json};

use super::COMPARISON;
use super::results::{Results, TaskResult};
use super::subject::Subject;
use crate::embed::{is_own_work_folder, remove_if_there};
use crate::evaluation::runs::{PER_QUERY, RESULTS, columns};
use crate::files::{Force, Inputs, Output, Refusal, Replaces, is_page, make_folder, write_whole};

/// The folder of runs and qrels.
const TREC: &str = "trec";
/// Longest name of a task's files, without a hash and an ending.
const MAX_STEM: usize = 160;
/// A task with more judgements and hits than this has no TREC files: they would take gigabytes.
const MAX_JUDGEMENTS: usize = 5_000_000;

/// The folder of the vectors that a model's evaluation keeps.
pub(super) const VECTORS: &str = "vectors";

/// Files that an evaluation leaves in its folder.
const OURS: [&str; 4] = [RESULTS, PER_QUERY, TREC, "report.html"];
/// Files that several evaluations leave in the folder above theirs.
const OURS_TOGETHER: [&str; 3] = ["comparison.md", "comparison.tex", "comparison.json"];
/// The page of several evaluations, which lies beside them; by itself it makes no folder of evaluations.
pub(super) const TOGETHER: &str = "comparison.html";

/// Deepest folder of several evaluations that is looked into: that of a model.
const MAX_DEPTH: usize = 1;

/// Refuses a folder that holds what is read, or files that no evaluation wrote; with `is_forced`, the latter may be
/// replaced.
///
/// # Errors
/// As `Output::check_folder`.
pub(super) fn check_folder(
    folder: &Path,
    is_forced: bool,
    inputs: &Inputs<'_>,
) -> Result<(), Refusal> {
    let output = Output {
        path: folder,
        replaces: Replaces::Own {
            what: "evaluation",
            is_own: &|folder| is_of_evaluation(folder, MAX_DEPTH),
        },
        force: Force::of(is_forced),
    };
    output.check_folder(inputs)
}

/// Returns whether evaluations wrote a folder: it holds the results of one or the comparison of several, or nothing
/// but what an evaluation that was interrupted leaves.
fn is_of_evaluation(folder: &Path, depth: usize) -> bool {
    let (is_one, is_several) = (stems_of_earlier(folder).is_some(), has_comparison(folder));
    let has = |names: &[&str]| names.iter().any(|name| folder.join(name).exists());
    if is_one || is_several {
        // A file with a name of ours may still be the user's own.
        return (is_one || !has(&OURS)) && (is_several || !has(&OURS_TOGETHER));
    }
    let is_left = |entry: DirEntry| {
        let path = entry.path();
        match entry.file_name() == VECTORS {
            true => is_own_work_folder(&path),
            false if entry.file_name() == TOGETHER => is_page(&path),
            false => path.is_dir() && depth > 0 && is_of_evaluation(&path, depth - 1),
        }
    };
    let entries = std::fs::read_dir(folder);
    entries.is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(is_left)))
}

/// Returns whether a folder holds the comparison of several evaluations.
fn has_comparison(folder: &Path) -> bool {
    let text = std::fs::read_to_string(folder.join(format!("{COMPARISON}.json")));
    let text = text.unwrap_or_default();
    let comparisons: Option<Vec<Value>> = serde_json::from_str(&text).ok();
    let has_protocol = |comparison: &Value| comparison.get("protocol").is_some();
    comparisons.is_some_and(|all| !all.is_empty() && all.iter().all(has_protocol))
}

/// Returns the names of the TREC files of the evaluation that a folder holds; `None` if it holds none.
fn stems_of_earlier(folder: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(folder.join(RESULTS)).ok()?;
    let results: Value = serde_json::from_str(&text).ok()?;
    results.get("m3ret_version")?;
    let tasks = results.get("tasks").and_then(Value::as_array);
    let stems = tasks
        .into_iter()
        .flatten()
        .filter_map(|task| task.get("trec")?.as_str());
    // A stem must be the name of a file and no path, since the file is untrusted.
    let stems = stems.filter(|stem| !stem.contains(['/', '\\']));
    Some(stems.map(str::to_owned).collect())
}

/// Removes the files of an earlier evaluation, and nothing else. Until `write_results`, the folder is marked as
/// unfinished.
pub(super) fn begin(folder: &Path) -> anyhow::Result<()> {
    let stems = stems_of_earlier(folder).unwrap_or_default();
    let tasks: Vec<Value> = stems.iter().map(|stem| json!({"trec": stem})).collect();
    let unfinished = json!({
        "m3ret_version": env!("CARGO_PKG_VERSION"),
        "is_unfinished": true,
        "tasks": tasks,
    });
    write_whole(&folder.join(RESULTS), |out| {
        Ok(serde_json::to_writer(out, &unfinished)?)
    })?;
    for stem in stems {
        for ending in ["run", "qrels"] {
            remove_if_there(&folder.join(TREC).join(format!("{stem}.{ending}")))?;
        }
    }
    Ok(())
}

/// Writes results.json.
pub(super) fn write_results(folder: &Path, results: &Results) -> anyhow::Result<()> {
    Ok(write_whole(&folder.join(RESULTS), |out| {
        serde_json::to_writer_pretty(&mut *out, results)?;
        Ok(out.write_all(b"\n")?)
    })?)
}

/// Writes one row for each query of each task; a task is a row group.
pub(super) fn write_per_query(
    folder: &Path,
    tasks: &[TaskResult],
    subject: &Subject,
    metrics: &[Metric],
) -> anyhow::Result<()> {
    let schema = Type::group_type_builder("per_query")
        .with_fields(fields(metrics)?)
        .build()?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    Ok(write_whole(&folder.join(PER_QUERY), |out| {
        let mut file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
        for task in tasks {
            let mut group = file.next_row_group()?;
            write_group(&mut group, task, subject, metrics)?;
            group.close()?;
        }
        file.close()?;
        Ok(())
    })?)
}

fn fields(metrics: &[Metric]) -> anyhow::Result<Vec<TypePtr>> {
    let texts = [columns::TASK, columns::PATH, columns::FIRST_PATH];
    let numbers = [
        columns::ROW,
        columns::PATIENT,
        columns::QUERY_CLASS,
        columns::N_CANDIDATES,
        columns::N_RELEVANT,
    ];
    let values = [columns::FIRST_SCORE, columns::CHANCE].map(str::to_owned);
    let values = values
        .into_iter()
        .chain(metrics.iter().map(Metric::to_string));
    let field = |name: &str, physical: Physical, logical: Option<LogicalType>| {
        let field = Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(logical)
            .build()?;
        anyhow::Ok(Arc::new(field))
    };
    let mut fields = Vec::new();
    for name in texts {
        fields.push(field(
            name,
            Physical::BYTE_ARRAY,
            Some(LogicalType::String),
        )?);
    }
    for name in numbers {
        fields.push(field(name, Physical::INT32, None)?);
    }
    for name in values {
        fields.push(field(&name, Physical::DOUBLE, None)?);
    }
    Ok(fields)
}

fn write_group(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    task: &TaskResult,
    subject: &Subject,
    metrics: &[Metric],
) -> anyhow::Result<()> {
    let first = |answer: &Answer| answer.hits.first().copied();
    let path = |row: u32| ByteArray::from(subject.path(row));
    let number = |n: usize| i32::try_from(n).context("more than 2^31 items");
    let answers = || task.answers.iter();
    write::<ByteArrayType>(
        group,
        answers().map(|_| Ok(ByteArray::from(task.task.as_str()))),
    )?;
    write::<ByteArrayType>(group, answers().map(|answer| Ok(path(answer.query))))?;
    write::<ByteArrayType>(
        group,
        answers().map(|answer| {
            Ok(first(answer).map_or_else(|| ByteArray::from(""), |hit| path(hit.row)))
        }),
    )?;
    write::<Int32Type>(
        group,
        answers().map(|answer| number(subject.rows[answer.query as usize])),
    )?;
    write::<Int32Type>(
        group,
        answers().map(|answer| number(subject.patient(answer.query) as usize)),
    )?;
    write::<Int32Type>(
        group,
        answers().map(|answer| number(answer.class_number as usize)),
    )?;
    write::<Int32Type>(group, answers().map(|answer| number(answer.n_candidates)))?;
    write::<Int32Type>(group, answers().map(|answer| number(answer.n_relevant)))?;
    write::<DoubleType>(
        group,
        answers().map(|answer| Ok(first(answer).map_or(f64::NAN, |hit| f64::from(hit.score)))),
    )?;
    write::<DoubleType>(group, answers().map(|answer| Ok(chance(answer))))?;
    for idx in 0..metrics.len() {
        write::<DoubleType>(group, answers().map(|answer| Ok(answer.values[idx])))?;
    }
    Ok(())
}

/// Returns the mean `precision_at_5` of random rankings, for any selection of metrics.
fn chance(answer: &Answer) -> f64 {
    let n_seen = answer.n_candidates.min(5) as f64 / 5.0;
    n_seen * answer.n_relevant as f64 / answer.n_candidates.max(1) as f64
}

fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    cells: impl Iterator<Item = anyhow::Result<T::T>>,
) -> anyhow::Result<()> {
    let cells: Vec<T::T> = cells.collect::<anyhow::Result<_>>()?;
    let mut column = group
        .next_column()?
        .context("a column that the schema lacks")?;
    column.typed::<T>().write_batch(&cells, None, None)?;
    column.close()?;
    Ok(())
}

/// Writes a run and its judgements for each task, as `trec_eval` and its kin read them.
///
/// Topics are `q` and items `d` with the row of the manifest, from 0. Returns the tasks that are too
/// large for that.
pub(super) fn write_trec(
    folder: &Path,
    tasks: &mut [TaskResult],
    subject: &Subject,
    embeddings: &Embeddings<'_>,
    least_grade: f32,
) -> anyhow::Result<Vec<String>> {
    let folder = folder.join(TREC);
    make_folder(&folder)?;
    let mut too_large = Vec::new();
    for result in tasks {
        let lines = result.answers.iter();
        let n_judgements: usize = lines
            .map(|answer| answer.n_relevant + answer.hits.len())
            .sum();
        if n_judgements > MAX_JUDGEMENTS {
            too_large.push(result.task.clone());
            continue;
        }
        let Some(task) = subject.all_tasks().find(|task| task.name == result.task) else {
            continue;
        };
        let name = stem(&result.task);
        let row = |row: u32| subject.rows[row as usize];
        write_whole(&folder.join(format!("{name}.run")), |out| {
            for answer in &result.answers {
                for (rank, (hit, score)) in (1..).zip(falling(&answer.hits)) {
                    let (query, item) = (row(answer.query), row(hit.row));
                    writeln!(out, "q{query} Q0 d{item} {rank} {score:e} m3ret")?;
                }
            }
            Ok(())
        })?;
        write_whole(&folder.join(format!("{name}.qrels")), |out| {
            for answer in &result.answers {
                let rule = RelevanceRule {
                    exclude: &result.exclude,
                    least_grade,
                };
                for item in relevant_items(task, &subject.columns, embeddings, answer.query, rule)?
                {
                    writeln!(out, "q{} 0 d{} 1", row(answer.query), row(item))?;
                }
            }
            Ok(())
        })?;
        result.trec = Some(name);
    }
    Ok(too_large)
}

/// Returns the stem of the files of a task; a hash makes it unique where another task could have the same.
fn stem(task: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_+/".contains(c);
    if task.chars().all(is_plain) && task.matches('/').count() <= 2 && task.len() <= MAX_STEM {
        return task.replace('/', ".");
    }
    let plain = task.chars().map(|c| if is_plain(c) { c } else { '_' });
    let plain: String = plain.take(MAX_STEM).collect();
    let hash = xxhash_rust::xxh3::xxh3_64(task.as_bytes());
    format!("{}.{hash:016x}", plain.replace('/', "."))
}

/// Lowers equal scores to the next smaller numbers, so that every reader ranks as we do.
fn falling(hits: &[RankedItem]) -> impl Iterator<Item = (&RankedItem, f32)> {
    let mut before = f32::INFINITY;
    hits.iter().map(move |hit| {
        before = if hit.score < before {
            hit.score
        } else {
            before.next_down()
        };
        (hit, before)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_different_tasks_have_different_names() {
        assert_eq!(stem("within/DX-2d/body_part"), "within.DX-2d.body_part");
        let names = [
            "within-source/a.b-2d/x",
            "within-source/a/b-2d/x",
            "pair/\u{fffd}",
        ]
        .map(stem);
        assert_ne!(names[0], names[1]);
        assert!(
            names
                .iter()
                .all(|name| name.is_ascii() && !name.contains('/'))
        );
        assert!(stem(&"x".repeat(400)).len() < 200);
    }

    #[test]
    fn scores_of_a_run_fall_strictly() {
        let hits = [0.5, 0.5, 0.5, 0.25].map(|score| RankedItem {
            row: 0,
            score,
            grade: 0.0,
        });
        let scores: Vec<f32> = falling(&hits).map(|(_, score)| score).collect();
        assert!(scores.is_sorted_by(|a, b| a > b), "{scores:?}");
        assert!((scores[2] - 0.5).abs() < 1e-6 && (scores[3] - 0.25).abs() < 1e-6);
    }
}
