//! Whether what `m3ret search` says of its answers holds: agreement is measured on the gallery's images, as a gallery
//! does it, and compared with what the queries, images of other patients, really find.

use std::collections::BTreeMap;

use m3ret_manifest::columns::{BODY_PART, MODALITY, PAIR, PATIENT, SPLIT};
use m3ret_search::Agreements;
use rayon::prelude::*;
use serde::Serialize;

use super::subject::Subject;

/// Queries of each modality that test it.
const N_ASKED: usize = 512;
/// Bins of equal width of the diagram.
const N_BINS: usize = 10;
/// Searches below say nothing of their kind alone.
const MIN_SEARCHES: usize = 30;
/// How far the agreement that a search tells is the one that is found.
#[derive(Debug, Serialize)]
pub struct Reliability {
    /// The column whose cells agree.
    pub column: &'static str,
    /// Number of searches: each query among all images, and among those of each modality.
    pub n_searches: usize,
    /// Expected calibration error over ten bins of equal width: mean distance of what was told and what was found,
    /// weighted by the number of searches, 0..=1.
    pub ece: f64,
    /// Searches by what was told of them.
    pub bins: Vec<Bin>,
    /// The same of each kind of search with at least 30.
    pub kinds: Vec<Kind>,
}

/// Searches of which about the same was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Bin {
    /// Number of searches.
    pub n: usize,
    /// Mean of what was told, 0..=1.
    pub told: f64,
    /// Share of first hits that agree, 0..=1.
    pub found: f64,
}

/// Searches of one kind.
#[derive(Debug, Serialize)]
pub struct Kind {
    /// Modality of the queries.
    pub query: String,
    /// Modality of the hits; `None` for searches among all images.
    pub hits: Option<String>,
    /// Their number, what was told and what was found.
    #[serde(flatten)]
    pub all: Bin,
    /// Expected calibration error.
    pub ece: f64,
}

/// What was told of a search, and whether it was so.
type Outcome = (f64, bool);

/// The first hit of a search with a label: the modality of the query, that of the hits or `None` for all, the score, and
/// whether it agrees.
type First<'a> = (&'a str, Option<&'a str>, f32, bool);

/// Measures vectors, [rows, width]; `None` without a split, patients, body parts, or enough images.
///
/// Everything stays in memory: labels of patients are numbers here, and nothing is written.
pub(super) fn measure(subject: &Subject, values: &[f32], width: usize) -> Option<Reliability> {
    let set = Rows::new(subject, values, width);
    let (queries, rows) = (set.of_split("query"), set.of_split("gallery"));
    let own = set.ask(&some_of_each(&set, &rows, Agreements::N_QUERIES), &rows);
    let known = Agreements::of_outcomes(BODY_PART, own);
    let asked = set.ask(&some_of_each(&set, &queries, N_ASKED), &rows);
    let mut by_kind: BTreeMap<(&str, Option<&str>), Vec<Outcome>> = BTreeMap::new();
    for (query, hits, score, agrees) in asked {
        if let Some(told) = known.estimate(score, query, hits) {
            let of_kind = by_kind.entry((query, hits)).or_default();
            of_kind.push((told.value, agrees));
        }
    }
    let all: Vec<Outcome> = by_kind.values().flatten().copied().collect();
    let told = by_kind
        .iter()
        .filter(|(_, outcomes)| outcomes.len() >= MIN_SEARCHES);
    let kinds = told.map(|((query, hits), outcomes)| Kind {
        query: (*query).to_owned(),
        hits: hits.map(str::to_owned),
        all: bin(outcomes),
        ece: ece(&bins(outcomes)),
    });
    let bins = bins(&all);
    (!all.is_empty()).then(|| Reliability {
        column: BODY_PART,
        n_searches: all.len(),
        ece: ece(&bins),
        kinds: kinds.collect(),
        bins,
    })
}

/// Takes at most `n` rows of each modality, spread evenly.
fn some_of_each(set: &Rows<'_>, rows: &[usize], n: usize) -> Vec<usize> {
    let mut by_modality: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &row in rows {
        by_modality.entry(set.modality(row)).or_default().push(row);
    }
    let some = by_modality.into_values().flat_map(|rows| {
        let step = rows.len().div_ceil(n).max(1);
        rows.into_iter().step_by(step).collect::<Vec<_>>()
    });
    some.collect()
}

/// Rows of a manifest with their vectors.
struct Rows<'a> {
    subject: &'a Subject,
    /// [rows, width]
    values: &'a [f32],
    width: usize,
    /// The modalities that are told apart: those with most images.
    modalities: Vec<&'a str>,
}

impl<'a> Rows<'a> {
    fn new(subject: &'a Subject, values: &'a [f32], width: usize) -> Self {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in 0..subject.columns.n_rows() {
            *counts
                .entry(subject.columns.text(MODALITY, row))
                .or_default() += 1;
        }
        counts.remove("");
        let mut modalities: Vec<&str> = counts.keys().copied().collect();
        modalities.sort_by_key(|modality| std::cmp::Reverse(counts[modality]));
        modalities.truncate(Agreements::MAX_MODALITIES);
        Self {
            subject,
            values,
            width,
            modalities,
        }
    }

    fn modality(&self, row: usize) -> &'a str {
        self.subject.columns.text(MODALITY, row)
    }

    fn vector(&self, row: usize) -> &'a [f32] {
        let start = row * self.width;
        self.values
            .get(start..start + self.width)
            .unwrap_or_default()
    }

    /// Returns the rows of a split with a vector, a body part, a known patient and one of the modalities.
    fn of_split(&self, split: &str) -> Vec<usize> {
        let columns = &self.subject.columns;
        let rows = 0..columns.n_rows();
        let is_meant = |row: &usize| {
            columns.text(SPLIT, *row) == split
                && !columns.text(BODY_PART, *row).is_empty()
                && !columns.text(PATIENT, *row).is_empty()
                && self.modalities.contains(&self.modality(*row))
                && self.vector(*row).iter().all(|x| !x.is_nan())
        };
        rows.filter(is_meant).collect()
    }

    /// Returns whether two rows are of one patient, or of one pair.
    fn belong_together(&self, a: usize, b: usize) -> bool {
        [PATIENT, PAIR].iter().any(|name| {
            let column = self.subject.columns.get(name);
            column.is_some_and(|column| column.code(a) != 0 && column.code(a) == column.code(b))
        })
    }

    /// Finds the first hits of queries among all rows and among those of each modality.
    fn ask(&self, queries: &[usize], rows: &[usize]) -> Vec<First<'a>> {
        let of_query = queries.par_iter().flat_map_iter(|&query| {
            // The best of each modality; the best of all is among them.
            let mut best: BTreeMap<&str, (f32, usize)> = BTreeMap::new();
            for &row in rows
                .iter()
                .filter(|&&row| !self.belong_together(query, row))
            {
                let pairs = self.vector(query).iter().zip(self.vector(row));
                let score: f32 = pairs.map(|(a, b)| a * b).sum();
                let of_modality = best.entry(self.modality(row)).or_insert((score, row));
                if score > of_modality.0 {
                    *of_modality = (score, row);
                }
            }
            let label = |row| self.subject.columns.text(BODY_PART, row);
            let own = self.modality(query);
            let first = best.values().copied().max_by(|a, b| a.0.total_cmp(&b.0));
            let agrees = move |row| label(row) == label(query);
            let among_all = first.map(|(score, row)| (own, None, score, agrees(row)));
            let each = best.into_iter();
            let each = each.map(move |(hits, (score, row))| (own, Some(hits), score, agrees(row)));
            among_all.into_iter().chain(each).collect::<Vec<_>>()
        });
        of_query.collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "searches are fewer than 2^52")]
fn bin(outcomes: &[Outcome]) -> Bin {
    let n = outcomes.len();
    // A sum of nothing is -0.
    let share = |sum: f64| (sum + 0.0) / n.max(1) as f64;
    Bin {
        n,
        told: share(outcomes.iter().map(|(told, _)| told).sum()),
        found: share(outcomes.iter().map(|(_, agrees)| f64::from(*agrees)).sum()),
    }
}

/// Sorts outcomes by what was told, into bins of equal width.
fn bins(outcomes: &[Outcome]) -> Vec<Bin> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share times ten"
    )]
    let place = |told: f64| ((told * N_BINS as f64) as usize).min(N_BINS - 1);
    let of_bin = |number: usize| -> Vec<Outcome> {
        let all = outcomes.iter().copied();
        all.filter(|(told, _)| place(*told) == number).collect()
    };
    (0..N_BINS).map(|number| bin(&of_bin(number))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "searches are fewer than 2^52")]
fn ece(bins: &[Bin]) -> f64 {
    let n_all: usize = bins.iter().map(|bin| bin.n).sum();
    let parts = bins
        .iter()
        .map(|bin| bin.n as f64 * (bin.told - bin.found).abs());
    parts.sum::<f64>() / n_all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_the_mean_distance_of_what_was_told_and_found() {
        // 10 searches told 0.25, of which 5 agree; 30 told 0.95, of which 27 agree.
        let low = (0..10).map(|i| (0.25, i < 5));
        let high = (0..30).map(|i| (0.95, i < 27));
        let outcomes: Vec<Outcome> = low.chain(high).collect();
        let bins = bins(&outcomes);
        assert_eq!((bins[2].n, bins[2].found, bins[9].n), (10, 0.5, 30));
        assert!((ece(&bins) - (10.0 * 0.25 + 30.0 * 0.05) / 40.0).abs() < 1e-12);
        assert!(ece(&[Bin::default(); 10]).abs() < 1e-12);
    }
}
