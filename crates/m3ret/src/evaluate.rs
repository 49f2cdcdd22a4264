//! Measures how well models find similar images, as docs/evaluation.md defines it.

mod contenders;
mod files;
mod groups;
mod headline;
mod mixed;
pub mod options;
mod page;
mod reliability;
pub mod results;
mod subject;
pub mod tables;
pub mod ties;
mod together;
mod vectors;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_manifest::text_of;
use m3ret_search::evaluation::{Embeddings, Metric};

use super::evaluation::comparison::table::{Layout, render};
use super::evaluation::comparison::{Comparison, Runs, compare};
use super::evaluation::protocol::{GROUP_METRICS, PROTOCOL};
use super::evaluation::runs::Run;
use crate::files::{Inputs, make_folder, write_whole};
use crate::model_name::{self, DEFAULT, HOG, PIXELS};
use crate::options::ColumnValue;
use crate::watch::Watch;
use crate::words::counted;
use contenders::{contenders, folder_name};
use options::EvaluateOptions;
use results::{Config, Measurements, Results, Settings, measure};
use subject::Subject;
use vectors::{Further, Trial, keep_common};

/// Files of several models' comparison.
const COMPARISON: &str = "comparison";

/// The evaluation of one model.
#[derive(Debug)]
pub struct ModelEvaluation {
    /// The folder of its files.
    pub folder: PathBuf,
    /// Its numbers, as `results.json` holds them.
    pub results: Results,
}

/// The evaluations of all models, and their comparisons.
#[derive(Debug)]
pub struct EvaluateResult {
    /// In the order in which they were named; `pixels` comes first if it was added.
    pub models: Vec<ModelEvaluation>,
    /// Every other model against `pixels`; empty for one model, or without `pixels`.
    pub comparisons: Vec<Comparison>,
}

impl EvaluateResult {
    /// Returns how many images have no vector; an image counts once for each model.
    pub fn n_refused(&self) -> usize {
        let counts = self.models.iter().map(|model| model.results.n_refused);
        counts.sum()
    }

    /// Returns whether every model has at least one task.
    pub fn has_tasks(&self) -> bool {
        self.models
            .iter()
            .all(|model| !model.results.tasks.is_empty())
    }
}

/// Evaluates every model, writes the files of each, and compares several models with `pixels`.
///
/// # Errors
/// If the folder holds what is read, or files that no evaluation wrote; if the manifest cannot be read, has no task, or has patients
/// that models are trained on; if a model cannot be opened or vectors are not usable; if a file cannot be written;
/// `Stopped` if the watcher stopped the work.
pub fn evaluate(options: &EvaluateOptions, watch: &dyn Watch) -> crate::Result<EvaluateResult> {
    if options.models.is_empty() && options.embeddings.is_empty() {
        watch.note(&model_name::taken_for_granted(DEFAULT));
    }
    let models = evaluate_models(options, watch)?;
    let comparisons = if models.len() == 1 {
        Vec::new()
    } else {
        write_comparisons(options, &models)?
    };
    Ok(EvaluateResult {
        models,
        comparisons,
    })
}

fn evaluate_models(
    options: &EvaluateOptions,
    watch: &dyn Watch,
) -> anyhow::Result<Vec<ModelEvaluation>> {
    let mut subject = Subject::open(options)?;
    let has_images = subject.has_images();
    let contenders = contenders(options, has_images)?;
    check_folder(&options.out, options, &|| subject.files())?;
    if !has_images && contenders.len() > 1 {
        subject.notes.push(format!(
            "no image of the manifest is on this machine: {PIXELS} is not evaluated beside"
        ));
    }
    let mut trials = Vec::new();
    for contender in &contenders {
        let folder = if contenders.len() == 1 {
            options.out.clone()
        } else {
            options.out.join(folder_name(&contender.name))
        };
        if contenders.len() > 1 {
            check_folder(&folder, options, &Vec::new)?;
        }
        make_folder(&folder)?;
        trials.push(Trial::prepare(options, &subject, contender, folder, watch)?);
    }
    let n_left_out = keep_common(&mut trials, &subject);
    if n_left_out > 0 {
        subject.notes.push(format!(
            "{} no part, as one of the models has no vector there",
            counted(n_left_out as u64, "image takes", "images take")
        ));
    }
    let mut evaluated: Vec<Option<ModelEvaluation>> = trials.iter().map(|_| None).collect();
    // `pixels` is measured first, because the others are judged by it.
    let mut order: Vec<usize> = (0..trials.len()).collect();
    order.sort_by_key(|&idx| !trials[idx].contender.is_pixels());
    for idx in order {
        watch.step(", measuring");
        let mut finished = evaluated.iter().flatten().map(|model| &model.results);
        let pixels = finished.find(|results| results.model == PIXELS);
        let results = evaluate_trial(options, &subject, &trials[idx], pixels)?;
        evaluated[idx] = Some(ModelEvaluation {
            folder: trials[idx].folder.clone(),
            results,
        });
    }
    Ok(evaluated.into_iter().flatten().collect())
}

/// Refuses a folder of results that holds inputs, or files that no evaluation wrote.
fn check_folder(
    folder: &Path,
    options: &EvaluateOptions,
    images: &dyn Fn() -> Vec<PathBuf>,
) -> anyhow::Result<()> {
    let models = options.models.iter();
    let models: Vec<PathBuf> = models
        .filter_map(|model| model_name::folder_named(&model.place))
        .collect();
    let vectors = options.embeddings.iter().map(|vectors| &vectors.path);
    let named = std::iter::once(&options.manifest)
        .chain(&models)
        .chain(vectors);
    let named: Vec<&Path> = named.map(PathBuf::as_path).collect();
    let inputs = Inputs {
        named: &named,
        listed: images,
    };
    Ok(files::check_folder(folder, options.is_forced, &inputs)?)
}

/// Measures every task with one contender's vectors, and writes all files.
///
/// `pixels` holds the model of that name, if it was evaluated before.
fn evaluate_trial(
    options: &EvaluateOptions,
    subject: &Subject,
    trial: &Trial<'_>,
    pixels: Option<&Results>,
) -> anyhow::Result<Results> {
    let width = trial.vectors.rows.width;
    let values = subject
        .rows
        .iter()
        .flat_map(|&row| &trial.vectors.rows.values[row * width..][..width]);
    let values: Vec<f32> = values.copied().collect();
    let embeddings = Embeddings::new(&values, width)
        .with_context(|| format!("vectors of {}", trial.contender.name))?;
    let further = Further::of(subject, &trial.vectors.rows, &embeddings);
    let embeddings = embeddings.with_views(further.views())?;
    let cutoffs = options.sorted_cutoffs();
    let metrics = metrics_of(&cutoffs);
    let settings = Settings {
        metrics: &metrics,
        // Any shared label has a Jaccard index above 0.
        least_grade: options.least_jaccard.unwrap_or(f32::MIN_POSITIVE),
        n_hits: cutoffs.last().copied().unwrap_or_default(),
        bootstrap: options.bootstrap,
    };
    let measurements = measure(subject, &embeddings, &settings)?;
    let mut results = results_of(options, subject, trial, measurements);
    match further.told() {
        Some(told) => results.notes.push(told),
        // Searches by further vectors are others than it measures.
        None => results.reliability = reliability::measure(subject, &values, width),
    }
    let is_pixels = trial.contender.is_pixels();
    groups::complete(&mut results, pixels, is_pixels, subject, &settings);
    if results.groups.iter().any(|group| !group.knows_pixels) {
        results.notes.push(format!(
            "tasks that thumbnails solve are in the means of groups, since {PIXELS} is not evaluated beside; \
             --models {PIXELS},NAME leaves them out"
        ));
    }
    let folder = &trial.folder;
    files::begin(folder)?;
    let least_grade = settings.least_grade;
    let too_large = files::write_trec(
        folder,
        &mut results.tasks,
        subject,
        &embeddings,
        least_grade,
    )?;
    if !too_large.is_empty() {
        results.notes.push(format!(
            "too many judgements for TREC files: {}",
            too_large.join(", ")
        ));
    }
    files::write_per_query(folder, &results.tasks, subject, &metrics)?;
    page::write(
        folder,
        &results,
        subject,
        &embeddings,
        &options.reading.options,
    )?;
    files::write_results(folder, &results)?;
    Ok(results)
}

/// Lists the metrics for these cutoffs, and always those of groups.
fn metrics_of(cutoffs: &[usize]) -> Vec<Metric> {
    let mut metrics = Metric::all(cutoffs);
    for metric in GROUP_METRICS {
        if !metrics.contains(&metric) {
            metrics.push(metric);
        }
    }
    metrics
}

/// Returns the results of a contender, still without means of groups.
fn results_of(
    options: &EvaluateOptions,
    subject: &Subject,
    trial: &Trial<'_>,
    measurements: Measurements,
) -> Results {
    let vectors = &trial.vectors;
    let config = Config {
        fingerprint: vectors.fingerprint.clone(),
        precision: vectors.precision.clone(),
        manifest: text_of(&options.manifest),
        relevance: subject.relevance.clone(),
        exclude: subject.exclude.clone(),
        filter: options.filters.iter().map(masked_filter).collect(),
        k: options.sorted_cutoffs(),
        least_jaccard: options.least_jaccard.unwrap_or(0.0),
        protocol: PROTOCOL,
        ties: "expected",
        n_resamples: options.bootstrap.n_resamples,
        seed: options.bootstrap.seed,
    };
    // The path of the manifest does not decide any number.
    let hashed = Config {
        manifest: String::new(),
        filter: options.filters.iter().map(whole_filter).collect(),
        ..config.clone()
    };
    let hashed = serde_json::to_vec(&hashed).unwrap_or_default();
    let mut refused = BTreeMap::new();
    for (_, refusal) in &vectors.rows.refused {
        *refused.entry(refusal.code.as_str().to_owned()).or_default() += 1;
    }
    Results {
        protocol: PROTOCOL,
        model: trial.contender.name.clone(),
        config_hash: format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&hashed)),
        m3ret_version: env!("CARGO_PKG_VERSION"),
        config,
        notes: [subject.notes.clone(), ties::notes(&measurements.tasks)].concat(),
        n_rows: subject.rows.len(),
        n_refused: vectors.rows.refused.len(),
        refused,
        tasks: measurements.tasks,
        groups: Vec::new(),
        mixed: measurements.mixed,
        reliability: None,
        skipped: measurements.skipped,
        privacy: measurements.privacy,
    }
}

fn whole_filter(filter: &ColumnValue) -> String {
    filter_text(filter, &filter.value)
}

/// Hides the value where it identifies people.
fn masked_filter(filter: &ColumnValue) -> String {
    let is_masked = subject::is_identifier(&filter.column);
    filter_text(filter, if is_masked { "..." } else { &filter.value })
}

fn filter_text(filter: &ColumnValue, value: &str) -> String {
    let sign = if filter.is_negated { "!=" } else { "=" };
    format!("{}{sign}{value}", filter.column)
}

/// Compares every model with pixels, and writes that as text for people and papers, and as a page.
fn write_comparisons(
    options: &EvaluateOptions,
    models: &[ModelEvaluation],
) -> anyhow::Result<Vec<Comparison>> {
    let runs = models.iter().map(|model| Run::open(&model.folder));
    let runs: Vec<Run> = runs.collect::<anyhow::Result<_>>()?;
    let results: Vec<&Results> = models.iter().map(|model| &model.results).collect();
    let Some(pixels) = runs.iter().find(|run| run.name == PIXELS) else {
        together::write(&options.out, &results, &[])?;
        return Ok(Vec::new());
    };
    let compared = |a: &Run, metrics: &[Metric]| -> anyhow::Result<Vec<Comparison>> {
        let others = runs
            .iter()
            .filter(|run| ![PIXELS, HOG].contains(&&*run.name));
        let hog = runs
            .iter()
            .filter(|run| run.name == HOG && std::ptr::eq(a, pixels));
        let pixels = Some(pixels);
        let pairs = hog
            .chain(others)
            .map(|b| compare(Runs { a, b, pixels }, metrics, options.bootstrap));
        pairs.collect()
    };
    let mut comparisons = compared(pixels, &GROUP_METRICS)?;
    // In the order in which the models were named.
    let place = |name: &str| runs.iter().position(|run| run.name == name);
    comparisons.sort_by_key(|comparison| place(&comparison.b));
    let [deciding, ..] = GROUP_METRICS;
    let hog = runs.iter().find(|run| run.name == HOG);
    let with_hog = hog.map_or(Ok(Vec::new()), |hog| compared(hog, &[deciding]))?;
    // The folder is known by this file, so it is written first.
    write_whole(&options.out.join(format!("{COMPARISON}.json")), |out| {
        Ok(serde_json::to_writer_pretty(out, &comparisons)?)
    })?;
    let all: Vec<&Comparison> = comparisons.iter().chain(&with_hog).collect();
    together::write(&options.out, &results, &all)?;
    for (extension, layout) in [("md", Layout::Markdown), ("tex", Layout::Latex)] {
        let path = options.out.join(format!("{COMPARISON}.{extension}"));
        let mut text = String::new();
        if layout == Layout::Markdown {
            text.push_str(&tables::markdown(&results));
        }
        for comparison in &comparisons {
            text.push('\n');
            text.push_str(&render(comparison, layout));
        }
        write_whole(&path, |out| Ok(out.write_all(text.as_bytes())?))?;
    }
    Ok(comparisons)
}
