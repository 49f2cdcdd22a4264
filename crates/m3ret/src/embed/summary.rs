//! Reports on each image and on a whole run of `embed`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::array_task::Whole;
use super::shards::Settings;
use super::{EmbedResult, Facts, Refusal, ResultFiles, Row};
use crate::check::report::Report;

/// The result of a run.
#[derive(Debug)]
pub struct EmbedReport {
    /// Counts and settings of the run.
    pub summary: EmbedSummary,
    /// The refused images, as `check` describes them; those without a row are last.
    pub refused: Vec<Report>,
    /// What the source holds, where a part of it was embedded.
    pub whole: Option<Whole>,
}

/// What became of one image, as `m3ret embed --json` prints it.
#[derive(Debug, Serialize)]
pub struct EmbedRow<'a> {
    /// Row of the vector in the results, from 0; `None` if the image has no row.
    pub row: Option<usize>,
    /// Path as reports show it; of a manifest, as it is written there.
    pub path: &'a str,
    /// What the file states about the image.
    #[serde(flatten)]
    pub facts: &'a Facts,
    /// `embedded` or `refused`.
    pub verdict: &'static str,
    /// The reason code of a refused image; empty for others.
    pub reason_codes: Vec<&'static str>,
    /// Why the image was refused, as a sentence; `None` if it was embedded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

impl<'a> EmbedRow<'a> {
    pub(super) fn new(number: Option<usize>, path: &'a str, row: &'a Row) -> Self {
        let refusal = row.place.as_ref().err();
        Self {
            row: number,
            path,
            facts: &row.facts,
            verdict: if refusal.is_some() {
                "refused"
            } else {
                "embedded"
            },
            reason_codes: refusal
                .iter()
                .map(|refusal| refusal.code.as_str())
                .collect(),
            error: refusal.map(|refusal| refusal.message.as_str()),
        }
    }
}

/// Counts and settings of a run, as `m3ret embed --json` prints them.
#[derive(Debug, Serialize)]
pub struct EmbedSummary {
    /// Number of rows of the results: images with a vector, and those without one that a manifest names.
    pub n_rows: usize,
    /// Number of images with a vector in the results, including those of an earlier run.
    pub n_embedded: usize,
    /// Number of images without a vector.
    pub n_refused: usize,
    /// Number of objects that an earlier run had embedded.
    pub n_kept: usize,
    /// Number of files of a folder that hold no image format.
    pub n_not_images: usize,
    /// Number of refused images by reason code.
    pub reason_codes: BTreeMap<&'static str, usize>,
    /// Name of the model.
    pub model: String,
    /// Fingerprint of the model: only vectors with equal fingerprints can be compared.
    pub fingerprint: String,
    /// Precision in which the model ran: `f32`, `bf16` or `int8`.
    pub precision: String,
    /// Number of values of a vector.
    pub width: usize,
    /// The file of vectors; `None` if no image was embedded.
    pub out: Option<String>,
    /// The list of rows beside an array; `None` for a table, which names its images itself.
    pub rows: Option<String>,
    /// Seconds of reading and embedding, without opening the model and writing the results.
    pub seconds: f64,
    /// Objects embedded per second, without those of an earlier run.
    pub items_per_second: f64,
}

impl EmbedSummary {
    /// Counts the images of a result; the caller sets the times.
    pub(super) fn new(result: &EmbedResult<'_>, settings: &Settings, files: ResultFiles) -> Self {
        let mut reason_codes = BTreeMap::new();
        for (_, refusal) in result.refused() {
            *reason_codes.entry(refusal.code.as_str()).or_default() += 1;
        }
        Self {
            n_rows: result.rows.len(),
            n_embedded: result.n_embedded(),
            n_refused: reason_codes.values().sum(),
            n_kept: 0,
            n_not_images: 0,
            reason_codes,
            model: result.model.name().to_owned(),
            fingerprint: settings.fingerprint.clone(),
            precision: settings.precision.clone(),
            width: settings.width,
            out: files.out,
            rows: files.rows,
            seconds: 0.0,
            items_per_second: 0.0,
        }
    }
}

/// Describes every refused image as `check` does.
pub(super) fn refused_reports(result: &EmbedResult<'_>) -> Vec<Report> {
    let reports = result.refused();
    let reports = reports.map(|(placed, refusal)| refused(placed.path, &placed.row.facts, refusal));
    reports.collect()
}

fn refused(path: &str, facts: &Facts, refusal: &Refusal) -> Report {
    let report = Report::refused(path.as_ref(), refusal.code, refusal.message.clone());
    Report {
        part: facts.part.clone(),
        ..report
    }
}
