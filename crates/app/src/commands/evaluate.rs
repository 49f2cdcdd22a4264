//! `m3ret evaluate`: how well models find similar images, in numbers that anyone can compute again.

pub(super) mod files;
mod groups;
mod mixed;
mod page;
mod results;
mod subject;
mod ties;
mod told;

use m3ret_manifest::text_of;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use m3ret_search::{Bootstrap, Embeddings, Metric};

use super::compare::{Comparison, Layout, Run, compare, render};
use super::embed::precision_name;
use super::embed::rows::{RowVectors, WantedRows, embed_rows};
use super::protocol::{GROUP_METRICS, PROTOCOL};
use super::vectors::{self, VectorFile};
use crate::Outcome;
use crate::cli::EvaluateArguments;
use crate::model_name::{self, DEFAULT, PIXELS};
use crate::output::{Screen, write_whole};
use crate::progress::Progress;
use crate::watch::Watch;
use results::{Config, Measured, Results, Settings, measure};
use subject::Subject;

/// Files of several models' comparison.
const COMPARISON: &str = "comparison";

/// Where the vectors of one evaluation come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Model(String),
    File(PathBuf),
}

/// Something that is evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contender {
    name: String,
    source: Source,
}

/// The vectors of one contender.
struct Vectors {
    rows: RowVectors,
    fingerprint: String,
    precision: Option<String>,
}

/// Evaluates every model that was named, and says how it went.
pub(crate) fn run(arguments: &EvaluateArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let progress = Progress::start(screen);
    if arguments.model.is_none() && arguments.models.is_empty() && arguments.embeddings.is_empty() {
        progress.note(&model_name::taken_for_granted(DEFAULT));
    }
    let all = evaluate(arguments, &progress)?;
    let is_single = all.len() == 1;
    let comparisons = if is_single {
        Vec::new()
    } else {
        write_comparisons(arguments, &all)?
    };
    progress.clear();
    tell(arguments, &all, &comparisons, screen).context("writing to standard output")?;
    let n_refused: usize = all.iter().map(|(_, results)| results.n_refused).sum();
    let is_measured = all.iter().all(|(_, results)| !results.tasks.is_empty());
    if !is_measured {
        let _ = writeln!(io::stderr(), "m3ret: no task could be measured");
    }
    Ok(if n_refused > 0 || !is_measured {
        Outcome::SomeRefused
    } else {
        Outcome::AllGood
    })
}

/// Evaluates every model that was named; returns the folder and the numbers of each.
pub(super) fn evaluate(
    arguments: &EvaluateArguments,
    progress: &dyn Watch,
) -> anyhow::Result<Vec<(PathBuf, Results)>> {
    files::refuse_foreign(&arguments.out, arguments.force)?;
    let mut subject = Subject::open(arguments)?;
    let has_images = subject.has_images();
    let contenders = contenders(arguments, has_images)?;
    if !has_images && contenders.len() > 1 {
        subject.notes.push(format!(
            "no image of the manifest is on this machine: {PIXELS} is not evaluated beside"
        ));
    }
    let mut all = Vec::new();
    for contender in &contenders {
        let folder = if contenders.len() == 1 {
            arguments.out.clone()
        } else {
            arguments.out.join(folder_name(&contender.name))
        };
        files::refuse_foreign(&folder, arguments.force)?;
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let vectors = vectors(arguments, &subject, contender, (&folder, progress))
            .with_context(|| format!("evaluating {}", contender.name))?;
        all.push((folder, contender, vectors));
    }
    let n_left_out = keep_common(&mut all, &subject);
    if n_left_out > 0 {
        subject.notes.push(format!(
            "{n_left_out} images take no part, as one of the models has no vector of them"
        ));
    }
    let mut evaluated: Vec<Option<(PathBuf, Results)>> = all.iter().map(|_| None).collect();
    // What others are judged by comes first.
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|&idx| all[idx].1.name != PIXELS);
    for idx in order {
        let (folder, contender, vectors) = &all[idx];
        progress.step(", measuring");
        let pixels = evaluated.iter().flatten().map(|(_, results)| results);
        let pixels = pixels.into_iter().find(|results| results.model == PIXELS);
        let one = One {
            arguments,
            subject: &subject,
            contender,
            pixels,
        };
        let results = one.measure(folder, vectors)?;
        evaluated[idx] = Some((folder.clone(), results));
    }
    Ok(evaluated.into_iter().flatten().collect())
}

/// Takes the vectors of images away that one of several models has none of, so that all are asked for
/// the same; returns how many images that are.
fn keep_common(all: &mut [(PathBuf, &Contender, Vectors)], subject: &Subject) -> usize {
    let wanted = subject.wanted();
    let lacks = |vectors: &Vectors, row: usize| {
        let width = vectors.rows.width;
        vectors.rows.values[row * width..][..width]
            .iter()
            .all(|x| x.is_nan())
    };
    let mut n_left_out = 0;
    for row in (0..wanted.len()).filter(|&row| wanted[row]) {
        let n_lacking = all
            .iter()
            .filter(|(.., vectors)| lacks(vectors, row))
            .count();
        if n_lacking == 0 || n_lacking == all.len() {
            continue;
        }
        n_left_out += 1;
        for (.., vectors) in all.iter_mut() {
            let width = vectors.rows.width;
            vectors.rows.values[row * width..][..width].fill(f32::NAN);
        }
    }
    n_left_out
}

fn tell(
    arguments: &EvaluateArguments,
    all: &[(PathBuf, Results)],
    comparisons: &[Comparison],
    screen: Screen,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (folder, results) in all {
        if arguments.json {
            super::write_json_line(&mut out, results)?;
        } else {
            out.write_all(told::text(results, folder, screen, comparisons.is_empty()).as_bytes())?;
        }
    }
    if !comparisons.is_empty() && !arguments.json {
        let results: Vec<&Results> = all.iter().map(|(_, results)| results).collect();
        let text = told::side_by_side(&results, comparisons, &arguments.out, screen);
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Lists what is evaluated, in the order in which it was named.
fn contenders(arguments: &EvaluateArguments, has_images: bool) -> anyhow::Result<Vec<Contender>> {
    let model = |name: &str| {
        let (name, place) = name.split_once('=').unwrap_or((name, name));
        Contender {
            name: name.to_owned(),
            source: Source::Model(place.to_owned()),
        }
    };
    let named = arguments.model.iter().chain(&arguments.models);
    let mut all: Vec<Contender> = named.map(|name| model(name)).collect();
    all.extend(arguments.embeddings.iter().map(|embeddings| Contender {
        name: embeddings.name.clone(),
        source: Source::File(embeddings.path.clone()),
    }));
    if all.is_empty() {
        all.push(model(DEFAULT));
    }
    let is_real = Source::Model(PIXELS.to_owned());
    ensure!(
        all.iter()
            .all(|contender| contender.name != PIXELS || contender.source == is_real),
        "{PIXELS} is the name of the built-in model; give the vectors another one: NAME=F"
    );
    let has_pixels = all.iter().any(|contender| contender.name == PIXELS);
    if all.len() > 1 && has_images && !has_pixels {
        all.insert(0, model(PIXELS));
    }
    let names = all.iter().map(|contender| folder_name(&contender.name));
    let names: BTreeSet<String> = names.collect();
    ensure!(
        names.len() == all.len(),
        "two models have the same name; name them with NAME=MODEL or NAME=F"
    );
    ensure!(
        !names
            .iter()
            .any(|name| name.is_empty() || name.starts_with(COMPARISON)),
        "a model has a name that is no name of a folder; name it with NAME=MODEL or NAME=F"
    );
    Ok(all)
}

/// Turns a model's name, which may be a path, into the name of a folder.
fn folder_name(name: &str) -> String {
    let name = name.trim_end_matches('/');
    let last = Path::new(name)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = last
        .chars()
        .map(|c| if is_plain(c) { c } else { '-' })
        .collect();
    name.trim_start_matches('.').to_owned()
}

/// One of the models that are evaluated.
struct One<'a> {
    arguments: &'a EvaluateArguments,
    subject: &'a Subject,
    contender: &'a Contender,
    /// The model `pixels`, if it was evaluated before.
    pixels: Option<&'a Results>,
}

impl One<'_> {
    /// Measures every task, and writes all files.
    fn measure(&self, folder: &Path, vectors: &Vectors) -> anyhow::Result<Results> {
        let (arguments, subject) = (self.arguments, self.subject);
        let width = vectors.rows.width;
        let values = subject
            .rows
            .iter()
            .flat_map(|&row| &vectors.rows.values[row * width..][..width]);
        let values: Vec<f32> = values.copied().collect();
        let embeddings = Embeddings::new(&values, width)
            .with_context(|| format!("vectors of {}", self.contender.name))?;
        let mut ks: Vec<usize> = arguments.k.clone();
        ks.sort_unstable();
        ks.dedup();
        let metrics = metrics_of(&ks);
        let settings = Settings {
            metrics: &metrics,
            // Any shared label has a Jaccard index above 0.
            least_grade: arguments.jaccard.unwrap_or(f32::MIN_POSITIVE),
            n_hits: ks.last().copied().unwrap_or_default(),
            bootstrap: bootstrap(arguments),
        };
        let measured = measure(subject, &embeddings, &settings)?;
        let mut results = results_of(arguments, subject, self.contender, vectors, (measured, &ks));
        let is_pixels = self.contender.name == PIXELS;
        let about = (subject, metrics.as_slice(), settings.bootstrap);
        groups::complete(&mut results, self.pixels, is_pixels, about);
        if results.groups.iter().any(|group| !group.knows_pixels) {
            results.notes.push(format!(
                "tasks that thumbnails solve are in the means of groups, since {PIXELS} is not evaluated beside; \
                 --models {PIXELS},NAME leaves them out"
            ));
        }
        files::begin(folder)?;
        let judged = (&embeddings, settings.least_grade);
        let too_large = files::write_trec(folder, &mut results.tasks, subject, judged)?;
        if !too_large.is_empty() {
            results.notes.push(format!(
                "too many judgements for TREC files: {}",
                too_large.join(", ")
            ));
        }
        files::write_per_query(folder, &results.tasks, subject, &metrics)?;
        let options = arguments.reading.options();
        page::write(folder, &results, subject, (&embeddings, &options))?;
        files::write_results(folder, &results)?;
        Ok(results)
    }
}

/// Lists the metrics for these cutoffs, and always those of groups.
fn metrics_of(ks: &[usize]) -> Vec<Metric> {
    let mut metrics = Metric::all(ks);
    for metric in GROUP_METRICS {
        if !metrics.contains(&metric) {
            metrics.push(metric);
        }
    }
    metrics
}

fn bootstrap(arguments: &EvaluateArguments) -> Bootstrap {
    Bootstrap {
        n_resamples: arguments.resamples,
        seed: arguments.seed,
    }
}

fn vectors(
    arguments: &EvaluateArguments,
    subject: &Subject,
    contender: &Contender,
    (folder, progress): (&Path, &dyn Watch),
) -> anyhow::Result<Vectors> {
    match &contender.source {
        Source::Model(name) => {
            let options = arguments.precision.with_threads(arguments.threads);
            let model = model_name::open_named(name, &options)?;
            let work = folder.join("vectors");
            let wanted = subject.wanted();
            Ok(Vectors {
                rows: embed_rows(
                    WantedRows {
                        listing: &subject.listing,
                        is_wanted: &wanted,
                    },
                    &model,
                    &arguments.reading.reading(),
                    &work,
                    progress,
                )?,
                fingerprint: model.fingerprint().to_owned(),
                precision: Some(precision_name(model.precision()).to_owned()),
            })
        }
        Source::File(path) => {
            let file = vectors::read(path)?;
            let maker = file.maker.clone();
            let (fingerprint, precision) = match maker {
                Some(maker) => (maker.fingerprint, Some(maker.precision)),
                None => (format!("external:{}", contender.name), None),
            };
            Ok(Vectors {
                fingerprint,
                precision,
                rows: rows_of_file((path, file), subject, arguments.normalize, progress)?,
            })
        }
    }
}

/// Reads vectors that were made elsewhere, one for each row of the manifest.
fn rows_of_file(
    (path, file): (&Path, VectorFile),
    subject: &Subject,
    normalizes: bool,
    progress: &dyn Watch,
) -> anyhow::Result<RowVectors> {
    let table = subject.listing.manifest.as_ref().context("a manifest")?;
    let (vectors, join) = file.rows_of(path, table)?;
    let (mut values, width) = (vectors.values, vectors.width);
    progress.note(&join.told(path));
    if normalizes {
        for vector in values
            .chunks_exact_mut(width)
            .filter(|vector| vector.iter().any(|x| !x.is_nan()))
        {
            m3ret_search::normalize(vector).with_context(|| path.display().to_string())?;
        }
    }
    // Here rows still have the numbers that they have in the file.
    Embeddings::new(&values, width).with_context(|| path.display().to_string())?;
    Ok(RowVectors {
        values,
        width,
        refused: Vec::new(),
    })
}

fn results_of(
    arguments: &EvaluateArguments,
    subject: &Subject,
    contender: &Contender,
    vectors: &Vectors,
    (measured, ks): (Measured, &[usize]),
) -> Results {
    let filters = |masks: bool| -> Vec<String> {
        let filters = arguments.filter.iter().map(|filter| {
            let sign = if filter.is_negated { "!=" } else { "=" };
            let is_masked = masks && subject::is_identifier(&filter.column);
            let value = if is_masked { "..." } else { &filter.value };
            format!("{}{sign}{value}", filter.column)
        });
        filters.collect()
    };
    let config = Config {
        fingerprint: vectors.fingerprint.clone(),
        precision: vectors.precision.clone(),
        manifest: text_of(&arguments.manifest),
        relevance: subject.relevance.clone(),
        exclude: subject.exclude.clone(),
        filter: filters(true),
        k: ks.to_vec(),
        least_jaccard: arguments.jaccard.unwrap_or(0.0),
        protocol: PROTOCOL,
        ties: "expected",
        n_resamples: arguments.resamples,
        seed: arguments.seed,
    };
    // Where the manifest lies decides nothing.
    let hashed = Config {
        manifest: String::new(),
        filter: filters(false),
        ..config.clone()
    };
    let hashed = serde_json::to_vec(&hashed).unwrap_or_default();
    let mut refused = BTreeMap::new();
    for (_, refusal) in &vectors.rows.refused {
        *refused.entry(refusal.code.as_str().to_owned()).or_default() += 1;
    }
    Results {
        protocol: PROTOCOL,
        model: contender.name.clone(),
        config_hash: format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&hashed)),
        m3ret_version: env!("CARGO_PKG_VERSION"),
        config,
        notes: [subject.notes.clone(), ties::notes(&measured.tasks)].concat(),
        n_rows: subject.rows.len(),
        n_refused: vectors.rows.refused.len(),
        refused,
        tasks: measured.tasks,
        groups: Vec::new(),
        mixed: measured.mixed,
        skipped: measured.skipped,
        privacy: measured.privacy,
    }
}

/// Compares every model with pixels, and writes that as text for people and papers.
fn write_comparisons(
    arguments: &EvaluateArguments,
    all: &[(PathBuf, Results)],
) -> anyhow::Result<Vec<Comparison>> {
    let runs: Vec<Run> = all
        .iter()
        .map(|(folder, _)| Run::open(folder))
        .collect::<anyhow::Result<_>>()?;
    let Some(pixels) = runs.iter().find(|run| run.name == PIXELS) else {
        return Ok(Vec::new());
    };
    let mut comparisons = Vec::new();
    for run in runs.iter().filter(|run| run.name != PIXELS) {
        let about = (&GROUP_METRICS[..], bootstrap(arguments));
        comparisons.push(compare(pixels, run, Some(pixels), about)?);
    }
    let results: Vec<&Results> = all.iter().map(|(_, results)| results).collect();
    for (extension, layout) in [("md", Layout::Markdown), ("tex", Layout::Latex)] {
        let path = arguments.out.join(format!("{COMPARISON}.{extension}"));
        let mut text = String::new();
        if layout == Layout::Markdown {
            text.push_str(&told::markdown(&results));
        }
        for comparison in &comparisons {
            text.push('\n');
            text.push_str(&render(comparison, layout));
        }
        write_whole(&path, |out| Ok(out.write_all(text.as_bytes())?))?;
    }
    write_whole(&arguments.out.join(format!("{COMPARISON}.json")), |out| {
        Ok(serde_json::to_writer_pretty(out, &comparisons)?)
    })?;
    Ok(comparisons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_become_names_of_folders() {
        for (name, wanted) in [
            ("random:tiny", "random-tiny"),
            ("../models/dino v2/", "dino-v2"),
            ("pixels", "pixels"),
            ("../..", ""),
        ] {
            assert_eq!(folder_name(name), wanted, "{name}");
        }
    }
}
