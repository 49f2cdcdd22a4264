//! Finds what pretrain and evaluation rows of manifests have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::ensure;
use m3ret_manifest::columns::{PAIR, SPLIT};

use super::images::Images;
use super::overlap::{Overlap, Side, across, shared, side_of};
use super::rows::Sources;
use super::summary::ImageSummary;
use super::{BATCH_PAIRS, ImageOptions};
use crate::watch::Watch;

/// Which manifests are compared, and how.
#[derive(Debug, Clone)]
pub struct CheckSplitOptions {
    /// CSV or Parquet with the columns `path` and `split`; no manifest may be named twice.
    pub manifests: Vec<PathBuf>,
    /// How images are read and compared.
    pub images: ImageOptions,
}

/// Pretrain and evaluation rows that have something in common, by what that is.
#[derive(Debug, Default)]
pub struct Overlaps {
    /// Rows with the same `patient_id`.
    pub patients: Vec<Overlap>,
    /// Rows with the same `pair_id`.
    pub pairs: Vec<Overlap>,
    /// Rows with the same file and part, or equal values.
    pub exact: Vec<Overlap>,
    /// Near duplicates, two rows each, the most similar first.
    pub near: Vec<Overlap>,
}

/// What pretrain and evaluation rows have in common, and how many rows were compared.
#[derive(Debug)]
pub struct SplitCheck {
    sources: Sources,
    /// Number of rows that are trained on.
    pub n_pretrain: usize,
    /// Number of rows of gallery and query.
    pub n_evaluation: usize,
    /// Number of rows of neither, which are compared with nothing.
    pub n_others: usize,
    /// Number of evaluation rows that have something in common with pretrain rows.
    pub n_evaluation_overlapping: usize,
    /// Number of patients of pretrain who are in evaluation if ids are read as numbers (`0001` and `1`), but not as
    /// text.
    pub n_alike_as_numbers: usize,
    /// The rows that have something in common.
    pub overlaps: Overlaps,
    /// How images were read; `None` if none were.
    pub images: Option<ImageSummary>,
}

/// Where a row of a manifest is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowPlace<'a> {
    /// The manifest, as the options name it.
    pub manifest: &'a Path,
    /// Number of the row in its manifest, from 1, without the header.
    pub number: usize,
    /// The file and its part.
    pub file: String,
    /// The word in its column `split`.
    pub split: &'a str,
}

/// Compares pretrain rows with evaluation rows, in one manifest or across several.
///
/// # Errors
/// If a manifest cannot be read or is named twice; if no row is trained on, or none evaluated; if a manifest names an
/// image twice; `Stopped` if the watcher stopped the work.
pub fn check_split(options: &CheckSplitOptions, watch: &dyn Watch) -> crate::Result<SplitCheck> {
    let limits = &options.images.reading.options.limits;
    let names = options.manifests.iter().map(PathBuf::as_path);
    let sources = Sources::open(names, limits, watch)?;
    let splits = sources.words(SPLIT);
    let sides: Vec<Option<Side>> = splits.into_iter().map(side_of).collect();
    for (side, what) in [
        (Side::Pretrain, "pretrain"),
        (Side::Evaluation, "gallery or query"),
    ] {
        ensure!(
            sides.contains(&Some(side)),
            "no row has {what} in its column {SPLIT}: there is nothing to compare"
        );
    }
    let images = Images::open(&sources, &options.images, watch)?;
    watch.step("comparing");
    let near = options.images.near;
    let overlaps = overlaps(&sources, &sides, images.as_ref(), near, watch)?;
    let n_rows = |wanted: Option<Side>| sides.iter().filter(|&&side| side == wanted).count();
    Ok(SplitCheck {
        n_pretrain: n_rows(Some(Side::Pretrain)),
        n_evaluation: n_rows(Some(Side::Evaluation)),
        n_others: n_rows(None),
        n_evaluation_overlapping: overlaps.n_evaluation_rows(),
        n_alike_as_numbers: n_alike_as_numbers(&sources.patients(), &sides),
        sources,
        overlaps,
        images: images.map(Images::into_summary),
    })
}

impl SplitCheck {
    /// Returns where a row of an overlap is found.
    pub fn row(&self, row: usize) -> RowPlace<'_> {
        let (source, idx) = self.sources.place(row);
        let split = source.table.row(idx).and_then(|row| row.get(SPLIT));
        RowPlace {
            manifest: &source.name,
            number: idx + 1,
            file: self.sources.shown(row),
            split: split.unwrap_or_default(),
        }
    }
}

impl Overlaps {
    /// Returns whether no rows have anything in common.
    pub fn is_empty(&self) -> bool {
        self.all().into_iter().all(<[Overlap]>::is_empty)
    }

    /// Counts the evaluation rows of all overlaps; each counts once.
    fn n_evaluation_rows(&self) -> usize {
        let overlaps = self.all().into_iter().flatten();
        let rows: BTreeSet<usize> = overlaps
            .flat_map(|overlap| overlap.evaluation.iter().copied())
            .collect();
        rows.len()
    }

    fn all(&self) -> [&[Overlap]; 4] {
        [&self.patients, &self.pairs, &self.exact, &self.near]
    }
}

fn overlaps(
    sources: &Sources,
    sides: &[Option<Side>],
    images: Option<&Images>,
    near: f32,
    watch: &dyn Watch,
) -> anyhow::Result<Overlaps> {
    let patients = shared(sources.patients(), sides);
    let pairs = shared(sources.words(PAIR), sides);
    let mut contents = sources.files();
    let Some(images) = images else {
        let exact = shared(contents.iter().map(String::as_str), sides);
        return Ok(Overlaps {
            patients,
            pairs,
            exact,
            near: Vec::new(),
        });
    };
    for (content, pixels) in contents.iter_mut().zip(&images.pixels) {
        if !pixels.is_empty() {
            content.clone_from(pixels);
        }
    }
    let exact = shared(contents.iter().map(String::as_str), sides);
    let has = |source: usize, side: Side| {
        let source = &sources.0[source];
        sides[source.start..][..source.table.len()].contains(&Some(side))
    };
    let wants = |a: usize, b: usize| {
        has(a, Side::Pretrain) && has(b, Side::Evaluation)
            || has(a, Side::Evaluation) && has(b, Side::Pretrain)
    };
    let mut close = images.close(near, wants, watch)?;
    close.retain(|pair| {
        let [a, b] = pair.rows;
        across(pair.rows, sides).is_some() && contents[a] != contents[b]
    });
    let mut alike = Vec::new();
    for batch in close.chunks(BATCH_PAIRS) {
        for (pair, verdict) in batch.iter().zip(images.confirm(batch)?) {
            let overlap = verdict.and_then(|_| across(pair.rows, sides));
            alike.extend(overlap.map(|overlap| Overlap {
                score: Some(pair.score),
                ..overlap
            }));
        }
    }
    Ok(Overlaps {
        patients,
        pairs,
        exact,
        near: alike,
    })
}

/// Counts the patients of pretrain who are in evaluation under another spelling of the same number.
fn n_alike_as_numbers(patients: &[&str], sides: &[Option<Side>]) -> usize {
    let of = |side: Side| -> BTreeMap<String, BTreeSet<&str>> {
        let mut by_number = BTreeMap::<String, BTreeSet<&str>>::new();
        let rows = patients
            .iter()
            .zip(sides)
            .filter(|(_, own)| **own == Some(side));
        for (patient, _) in rows {
            if let Some(number) = as_number(patient) {
                by_number.entry(number).or_default().insert(patient);
            }
        }
        by_number
    };
    let (pretrain, evaluation) = (of(Side::Pretrain), of(Side::Evaluation));
    let differs = |(number, words): &(&String, &BTreeSet<&str>)| {
        evaluation
            .get(*number)
            .is_some_and(|others| words.is_disjoint(others))
    };
    pretrain.iter().filter(differs).count()
}

/// Returns the whole number that an identifier is, without zeros in front and without decimals of 0.
fn as_number(identifier: &str) -> Option<String> {
    let whole = match identifier.split_once('.') {
        Some((whole, decimals)) if decimals.bytes().all(|byte| byte == b'0') => whole,
        Some(_) => return None,
        None => identifier,
    };
    let is_number = !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| whole.trim_start_matches('0').to_owned())
}
