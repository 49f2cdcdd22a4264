//! Whether what `m3ret search` says of its answers holds: agreement is measured on the gallery's images, as a gallery
//! does it, and compared with what the queries, images of other patients, really find.

use anyhow::Context as _;
use m3ret_manifest::columns::{BODY_PART, MODALITY, PAIR, PATIENT, SPLIT};
use m3ret_search::{
    Agreements, Batch, Filter, Gallery, LeftOut, Maker, Numbers, Queries, SearchOptions, Setup,
    Writer,
};
use serde::Serialize;

use super::subject::Subject;

/// Bins of equal width of the diagram.
const N_BINS: usize = 10;
/// Searches below say nothing of their kind alone.
const MIN_SEARCHES: usize = 30;
/// Hits that are looked at for one with a label.
const N_HITS: usize = 10;
/// Columns whose cell a hit must not share with its query.
const BELONGING: [&str; 2] = [PATIENT, PAIR];

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

/// Measures vectors, [rows, width]; `None` without a split, body parts, or enough images.
pub(super) fn measure(
    subject: &Subject,
    values: &[f32],
    width: usize,
) -> anyhow::Result<Option<Reliability>> {
    let columns = &subject.columns;
    let has_vector = |row: usize| {
        let vector = values.get(row * width..(row + 1) * width);
        vector.is_some_and(|vector| vector.iter().all(|x| !x.is_nan()))
    };
    let of_split = |split: &str| -> Vec<usize> {
        let rows = 0..columns.n_rows();
        let is_meant = |row: &usize| columns.text(SPLIT, *row) == split && has_vector(*row);
        rows.filter(is_meant).collect()
    };
    let (queries, rows) = (of_split("query"), of_split("gallery"));
    if queries.is_empty() || rows.is_empty() {
        return Ok(None);
    }
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let set = Rows {
        subject,
        values,
        width,
    };
    let gallery = set.gallery(&rows, &folder.path().join("reliability.m3i"))?;
    let Some(known) = gallery
        .statistics()?
        .and_then(|measured| measured.of(BODY_PART))
    else {
        return Ok(None);
    };
    let mut modalities: Vec<&str> = gallery.values(MODALITY)?;
    modalities.retain(|modality| !modality.is_empty());
    let mut all: Vec<Outcome> = Vec::new();
    let mut kinds = Vec::new();
    for hits in std::iter::once(None).chain(modalities.iter().copied().map(Some)) {
        for query in &modalities {
            let of_kind = |row: &&usize| columns.text(MODALITY, **row) == *query;
            let asked: Vec<usize> = queries.iter().filter(of_kind).copied().collect();
            let outcomes = set.ask(&gallery, known, &asked, hits)?;
            all.extend(&outcomes);
            if outcomes.len() >= MIN_SEARCHES {
                kinds.push(Kind {
                    query: (*query).to_owned(),
                    hits: hits.map(str::to_owned),
                    all: bin(&outcomes),
                    ece: ece(&bins(&outcomes)),
                });
            }
        }
    }
    let bins = bins(&all);
    Ok((!all.is_empty()).then(|| Reliability {
        column: BODY_PART,
        n_searches: all.len(),
        ece: ece(&bins),
        bins,
        kinds,
    }))
}

/// Rows of a manifest with their vectors.
struct Rows<'a> {
    subject: &'a Subject,
    /// [rows, width]
    values: &'a [f32],
    width: usize,
}

impl Rows<'_> {
    fn vectors(&self, rows: &[usize]) -> Vec<f32> {
        let vectors = rows.iter().filter_map(|&row| {
            let start = row * self.width;
            self.values.get(start..start + self.width)
        });
        vectors.flatten().copied().collect()
    }

    fn cells(&self, rows: &[usize], name: &str) -> Vec<String> {
        let cells = rows.iter().map(|&row| self.subject.columns.text(name, row));
        cells.map(str::to_owned).collect()
    }

    /// Makes a gallery of rows, which measures agreement as every gallery does.
    fn gallery(&self, rows: &[usize], path: &std::path::Path) -> anyhow::Result<Gallery> {
        let setup = Setup {
            maker: Maker {
                model: "evaluated".to_owned(),
                precision: "f32".to_owned(),
                fingerprint: "evaluated".to_owned(),
            },
            width: self.width,
            numbers: Numbers::F32,
        };
        let mut writer = Writer::create(path, setup)?;
        let ids: Vec<String> = rows.iter().map(usize::to_string).collect();
        let columns = [MODALITY, BODY_PART, PATIENT, PAIR];
        let columns = columns.map(|name| (name.to_owned(), self.cells(rows, name)));
        writer.add(Batch {
            vectors: &self.vectors(rows),
            ids: &ids,
            columns: &columns,
            ..Batch::default()
        })?;
        writer.calibrate()?;
        Ok(Gallery::open(path)?)
    }

    /// Searches for rows of one modality: what is told of each answer, and whether its first hit agrees.
    fn ask(
        &self,
        gallery: &Gallery,
        known: &Agreements,
        rows: &[usize],
        hits: Option<&str>,
    ) -> anyhow::Result<Vec<Outcome>> {
        let left_out = BELONGING.map(|name| LeftOut {
            column: name.to_owned(),
            values: self.cells(rows, name),
        });
        let vectors = self.vectors(rows);
        let queries = Queries {
            vectors: &vectors,
            left_out: &left_out,
            ..Queries::default()
        };
        let filter = hits.map(|modality| Filter {
            column: MODALITY.to_owned(),
            values: vec![modality.to_owned()],
            is_negated: false,
        });
        let options = SearchOptions {
            k: N_HITS,
            filters: filter.into_iter().collect(),
            ..SearchOptions::default()
        };
        let columns = &self.subject.columns;
        let mut outcomes = Vec::with_capacity(rows.len());
        for (&row, found) in rows.iter().zip(gallery.search(queries, &options)?) {
            let label = columns.text(BODY_PART, row);
            for hit in found {
                let other = gallery.value(hit.row, BODY_PART)?;
                if label.is_empty() || other.is_empty() {
                    continue;
                }
                let told = known.estimate(hit.score, columns.text(MODALITY, row), hits);
                outcomes.extend(told.map(|told| (told.value, label == other)));
                break;
            }
        }
        Ok(outcomes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "searches are fewer than 2^52")]
fn bin(outcomes: &[Outcome]) -> Bin {
    let n = outcomes.len();
    let share = |sum: f64| sum / n.max(1) as f64;
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
