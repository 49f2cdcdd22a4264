//! Functions over whole archives and manifests. Each returns JSON as the command line prints it.

use std::path::PathBuf;

use m3ret::check::report::Report;
use m3ret::check::{CheckOptions, check as check_archive};
use m3ret::compare::{CompareOptions, compare as compare_folders};
use m3ret::evaluate::evaluate as evaluate_models;
use m3ret::evaluate::options::{EvaluateOptions, NamedModel, NamedVectors};
use m3ret::map::{MapOptions, map as draw_map};
use m3ret::model_name::{self, build_in};
use m3ret::simulate::{
    Hounsfield, PictureFormat, RadiographOptions, RadiographResult, radiographs,
};
use m3ret::split::{ImageOptions, SplitOptions, split as split_manifest};
use m3ret::watch::Stopped;
use m3ret_encoder::{ModelBytes, RunOptions};
use m3ret_search::evaluation::{Bootstrap, Metric};
use pyo3::prelude::*;
use serde_json::json;

use crate::archive::{Archive, opening};
use crate::errors::{self, Class};
use crate::json::to_json;
use crate::reading::{FolderArguments, ModelArguments, ReadingArguments, filters, precision};
use crate::work::Run;

/// What is evaluated, as Python says it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct EvaluateArguments {
    manifest: PathBuf,
    out: PathBuf,
    force: bool,
    models: Vec<(String, String)>,
    embeddings: Vec<(String, PathBuf)>,
    normalize: bool,
    relevance: Vec<String>,
    jaccard: Option<f32>,
    exclude: Vec<String>,
    k: Vec<usize>,
    filter: Vec<String>,
    pooled: bool,
    allow_overlap: bool,
    resamples: usize,
    seed: u64,
    precision: String,
}

/// Evaluates models; returns folder and results of each, and the comparisons.
#[pyfunction]
pub(crate) fn evaluate(
    py: Python<'_>,
    arguments: EvaluateArguments,
    reading: ReadingArguments,
    watch: Option<Bound<'_, PyAny>>,
) -> PyResult<(Vec<(PathBuf, String)>, String)> {
    let named = arguments.models.into_iter();
    let vectors = arguments.embeddings.into_iter();
    let options = EvaluateOptions {
        manifest: arguments.manifest,
        out: arguments.out,
        is_forced: arguments.force,
        models: named
            .map(|(name, place)| NamedModel { name, place })
            .collect(),
        embeddings: vectors
            .map(|(name, path)| NamedVectors { name, path })
            .collect(),
        normalizes: arguments.normalize,
        relevance: arguments.relevance,
        least_jaccard: arguments.jaccard,
        exclude: arguments.exclude,
        cutoffs: arguments.k,
        filters: filters(py, &arguments.filter)?,
        is_pooled: arguments.pooled,
        allows_overlap: arguments.allow_overlap,
        bootstrap: Bootstrap {
            n_resamples: arguments.resamples,
            seed: arguments.seed,
        },
        run: RunOptions {
            precision: precision(py, Some(&arguments.precision))?,
            n_threads: None,
        },
        reading: reading.reading(py)?,
    };
    let run = Run {
        watch: watch.as_ref(),
        n_threads: reading.threads(),
    };
    let result = run.go(py, move |watch| evaluate_models(&options, watch))?;
    let models = result.models.iter().map(|model| {
        let results = to_json(py, &model.results)?;
        Ok((model.folder.clone(), results))
    });
    let models = models.collect::<PyResult<_>>()?;
    Ok((models, to_json(py, &result.comparisons)?))
}

/// Compares two evaluations.
#[pyfunction]
pub(crate) fn compare(
    py: Python<'_>,
    folders: (PathBuf, PathBuf),
    pixels: Option<PathBuf>,
    metrics: Vec<String>,
    bootstrap: (usize, u64),
) -> PyResult<String> {
    let metrics = metrics.iter().map(|name| name.parse());
    let metrics: Result<Vec<Metric>, String> = metrics.collect();
    let (n_resamples, seed) = bootstrap;
    let options = CompareOptions {
        a: folders.0,
        b: folders.1,
        pixels,
        metrics: metrics.map_err(|sentence| errors::exception(py, Class::Mismatch, sentence))?,
        bootstrap: Bootstrap { n_resamples, seed },
    };
    let comparison = Run::default().go(py, move |_| compare_folders(&options))?;
    to_json(py, &comparison)
}

/// How a manifest is split, as Python says it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct SplitArguments {
    manifest: PathBuf,
    out: PathBuf,
    seed: u64,
    query: f64,
    pretrain: f64,
    stratify: Option<Vec<String>>,
    overwrite: bool,
    force: bool,
    duplicates: bool,
    near: f32,
    cache: Option<PathBuf>,
}

/// Splits a manifest; returns the summary.
#[pyfunction]
pub(crate) fn split(
    py: Python<'_>,
    arguments: SplitArguments,
    model: ModelArguments,
    reading: ReadingArguments,
    watch: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let options = SplitOptions {
        manifest: arguments.manifest,
        out: arguments.out,
        seed: arguments.seed,
        query: arguments.query,
        pretrain: arguments.pretrain,
        stratify: arguments.stratify,
        is_overwriting: arguments.overwrite,
        is_forced: arguments.force,
        images: ImageOptions {
            are_read: arguments.duplicates,
            near: arguments.near,
            cache: arguments.cache,
            model: model.choice(py)?,
            reading: reading.reading(py)?,
        },
    };
    let run = Run {
        watch: watch.as_ref(),
        n_threads: reading.threads(),
    };
    let summary = run.go(py, move |watch| {
        let summary = split_manifest(&options, watch)?;
        Ok(summary.as_json(&options))
    })?;
    to_json(py, &summary)
}

/// Opens an archive as `m3ret dedup` does: with the model of its gallery, or thumbnails.
#[pyfunction]
pub(crate) fn open_for_dedup(
    py: Python<'_>,
    place: PathBuf,
    cache: Option<PathBuf>,
    model: ModelArguments,
    reading: ReadingArguments,
    folder: FolderArguments,
    watch: Option<Bound<'_, PyAny>>,
) -> PyResult<Archive> {
    let mut options = opening(py, cache, &model, &reading, &folder)?;
    options.default_model = model_name::PIXELS;
    Archive::opened(py, place, options, reading.threads(), watch.as_ref())
}

/// Draws a map; returns counts of images on it, of all, and of those that were refused.
#[pyfunction]
pub(crate) fn map(
    py: Python<'_>,
    places: (PathBuf, PathBuf),
    color: String,
    force: bool,
    cache: Option<PathBuf>,
    arguments: (ModelArguments, ReadingArguments, FolderArguments),
    watch: Option<Bound<'_, PyAny>>,
) -> PyResult<(usize, usize, usize)> {
    let (archive, html) = places;
    let (model, reading, folder) = arguments;
    let options = MapOptions {
        archive,
        html,
        is_forced: force,
        shown_from: std::env::current_dir().ok(),
        colour: color,
        cache,
        model: model.choice(py)?,
        reading: reading.reading(py)?,
        folder: folder.choice(py)?,
    };
    let run = Run {
        watch: watch.as_ref(),
        n_threads: reading.threads(),
    };
    let summary = run.go(py, move |watch| draw_map(&options, watch))?;
    Ok((summary.n_points, summary.n_all, summary.n_refused))
}

/// Reads every object of an archive; returns the reports and the summary.
#[pyfunction]
pub(crate) fn check(
    py: Python<'_>,
    root: PathBuf,
    strict: bool,
    reading: ReadingArguments,
    watch: Option<Bound<'_, PyAny>>,
) -> PyResult<(String, String)> {
    let options = CheckOptions {
        root,
        is_strict: strict,
        reading: reading.reading(py)?,
    };
    let run = Run {
        watch: watch.as_ref(),
        n_threads: reading.threads(),
    };
    let (reports, tally) = run.go(py, move |watch| {
        let mut reports: Vec<Report> = Vec::new();
        let tally = check_archive(&options, watch, |report| {
            if watch.is_stopped() {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            reports.push(report.clone());
            Ok(())
        })?;
        Ok((reports, tally))
    })?;
    Ok((to_json(py, &reports)?, to_json(py, &tally.summary())?))
}

/// What is projected, as Python says it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct SimulateArguments {
    sources: Vec<PathBuf>,
    out: PathBuf,
    force: bool,
    angles: Vec<u16>,
    side: Option<u16>,
    dicom: bool,
    bits: u8,
    window: Option<[f64; 2]>,
    disturb: Option<u64>,
    hounsfield: bool,
}

/// Simulates radiographs; returns the results and the summary.
#[pyfunction]
pub(crate) fn simulate(
    py: Python<'_>,
    arguments: SimulateArguments,
    reading: ReadingArguments,
    watch: Option<Bound<'_, PyAny>>,
) -> PyResult<(String, String)> {
    let options = RadiographOptions {
        sources: arguments.sources,
        out: arguments.out,
        is_forced: arguments.force,
        angles: arguments.angles,
        side_px: arguments.side,
        format: match arguments.dicom {
            true => PictureFormat::Dicom,
            false => PictureFormat::Png,
        },
        is_16_bits: arguments.bits == 16,
        window: arguments.window,
        disturb: arguments.disturb,
        hounsfield: match arguments.hounsfield {
            true => Hounsfield::All,
            false => Hounsfield::WithAir,
        },
        read_options: reading.options(py)?,
    };
    let run = Run {
        watch: watch.as_ref(),
        n_threads: reading.threads(),
    };
    let (results, summary) = run.go(py, move |watch| {
        let mut results = Vec::new();
        let mut keep = |result: &RadiographResult| {
            Stopped::check(watch, "interrupted; no manifest was written")?;
            results.push(json!(result));
            Ok(())
        };
        let summary = radiographs(&options, &mut keep, watch)?;
        Ok((results, summary))
    })?;
    Ok((to_json(py, &results)?, to_json(py, &summary)?))
}

/// Describes this installation; `search_path` is the variable `PATH`.
#[pyfunction]
pub(crate) fn doctor(py: Python<'_>, search_path: std::ffi::OsString) -> PyResult<String> {
    let diagnosis = Run::default().go(py, move |_| m3ret::doctor::doctor(&search_path))?;
    to_json(py, &diagnosis)
}

/// Makes a model known by its name whose files lie in a package; only the first call counts.
#[pyfunction]
pub(crate) fn add_model(name: String, folder: PathBuf) -> PyResult<()> {
    let read = |file: &str| std::fs::read(folder.join(file));
    // The model is there until the process ends.
    let leak = |bytes: Vec<u8>| -> &'static [u8] { Vec::leak(bytes) };
    let agreement = std::fs::read_to_string(folder.join("agreement.json")).unwrap_or_default();
    let model = model_name::BuiltIn {
        bytes: ModelBytes {
            name: String::leak(name),
            config: leak(read("config.json")?),
            weights: leak(read("model.safetensors")?),
        },
        agreement: String::leak(agreement),
    };
    build_in(Vec::leak(vec![model]));
    Ok(())
}
