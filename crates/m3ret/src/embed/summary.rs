//! What became of each image, and of a whole run.

use std::collections::BTreeMap;

use serde::Serialize;

use super::shards::Settings;
use super::{EmbedResult, Facts, Refusal, ResultFiles, Row};
use crate::check::report::Report;

/// What a run did.
#[derive(Debug)]
pub struct EmbedReport {
    pub summary: EmbedSummary,
    /// The refused images, as `check` describes them; those without a row last.
    pub refused: Vec<Report>,
}

/// What became of one image.
#[derive(Debug, Serialize)]
pub struct EmbedRow<'a> {
    /// The row of the vector; null where there is none.
    pub row: Option<usize>,
    pub path: &'a str,
    #[serde(flatten)]
    pub facts: &'a Facts,
    /// `embedded` or `refused`.
    pub verdict: &'static str,
    pub reason_codes: Vec<&'static str>,
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

/// What a run amounts to.
#[derive(Debug, Serialize)]
pub struct EmbedSummary {
    pub n_embedded: usize,
    pub n_refused: usize,
    /// Objects that an earlier run had embedded.
    pub n_kept: usize,
    /// Files of a folder that hold no image format.
    pub n_not_images: usize,
    /// Refused images by reason.
    pub reason_codes: BTreeMap<&'static str, usize>,
    pub model: String,
    pub fingerprint: String,
    pub precision: String,
    /// Numbers of a vector.
    pub width: usize,
    /// Null where nothing was embedded.
    pub out: Option<String>,
    /// The list of rows beside an array; null where the table itself says which row is which.
    pub rows: Option<String>,
    /// Of reading and embedding, without opening the model and writing the results.
    pub seconds: f64,
    /// Objects embedded in a second, without those of an earlier run.
    pub items_per_second: f64,
}

impl EmbedSummary {
    /// Counts; times are for the caller to fill in.
    pub(super) fn new(result: &EmbedResult<'_>, settings: &Settings, files: ResultFiles) -> Self {
        let mut reason_codes = BTreeMap::new();
        for (_, refusal) in result.refused() {
            *reason_codes.entry(refusal.code.as_str()).or_default() += 1;
        }
        Self {
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
