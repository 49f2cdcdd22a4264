//! What scores mean in a gallery: samples of scores that pairs and best matches have by chance.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::gallery::{Gallery, RowId};
use crate::names::{MODALITY, PATIENT};
use crate::scan::{BELONGING, Calibration, Filter, LeftOut, Queries, RowAsQuery, SearchOptions};

/// Scores between a query of one modality and gallery rows of one modality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreSample {
    /// Modality of the query; `None`: any.
    pub query: Option<String>,
    /// Modality of the gallery rows; `None`: any.
    pub gallery: Option<String>,
    /// Scores of random pairs that do not belong together, ascending.
    pub random: Vec<f32>,
    /// Best scores that rows reach among rows of other patients, ascending.
    pub best: Vec<f32>,
}

/// Samples of scores of one gallery.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Pooled over all modalities first.
    pub pairs: Vec<ScoreSample>,
}

/// Pairs that are drawn for each two modalities.
const N_RANDOM: usize = 1000;
/// Rows that are queries for each modality.
const N_BEST: usize = 128;
/// Modalities that have samples of their own: those with most rows.
const MAX_MODALITIES: usize = 10;
/// Samples below say nothing.
const MIN_SAMPLE: usize = 20;
/// A match is confident from this quantile of the best scores that the gallery's own rows reach.
const CONFIDENT_FROM: f64 = 0.1;
/// Where random choices begin.
const SEED: u64 = 0x6d33_7265_7400_0004;

impl Statistics {
    /// Draws samples. Without any modality or patient, there is nothing to tell chance by.
    pub(crate) fn sample(gallery: &Gallery, _: &Calibration) -> Result<Self> {
        let columns = gallery.columns();
        let mut rows: BTreeMap<&str, Vec<RowId>> = BTreeMap::new();
        let mut all = Vec::with_capacity(gallery.len());
        for row in gallery.rows() {
            all.push(row);
        }
        let mut has_metadata = false;
        if columns.contains(&MODALITY) {
            for &row in &all {
                let modality = gallery.value(row, MODALITY)?;
                if !modality.is_empty() {
                    has_metadata = true;
                    rows.entry(modality).or_default().push(row);
                }
            }
        }
        if columns.contains(&PATIENT) && !has_metadata {
            for &row in &all {
                has_metadata = has_metadata || !gallery.value(row, PATIENT)?.is_empty();
            }
        }
        if !has_metadata {
            return Ok(Self::default());
        }
        let mut modalities: Vec<(&str, Vec<RowId>)> = rows.into_iter().collect();
        modalities.sort_by_key(|(_, rows)| std::cmp::Reverse(rows.len()));
        modalities.truncate(MAX_MODALITIES);
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let pooled = PairSide {
            modality: None,
            rows: &all,
        };
        let sides = modalities.iter().map(|(modality, rows)| PairSide {
            modality: Some(modality),
            rows,
        });
        let sides: Vec<PairSide<'_>> = sides.collect();
        let mut pairs = vec![pair(gallery, pooled, pooled, &mut random)?];
        for &from in &sides {
            for &to in &sides {
                pairs.push(pair(gallery, from, to, &mut random)?);
            }
        }
        Ok(Self { pairs })
    }

    /// Returns the percentage of random pairs of these modalities that score lower.
    #[must_use]
    pub fn percentile(&self, score: f32, query: &str, gallery: &str) -> Option<f64> {
        let pair = self.find(query, gallery, |pair| &pair.random)?;
        Some(100.0 * share_below(&pair.random, score))
    }

    /// Says whether a query's best score is one that rows of the gallery, too, reach among other
    /// patients: a score below what nine of ten reach is no match. `None` where too little is known.
    #[must_use]
    pub fn is_confident(&self, score: f32, query: &str, gallery: &str) -> Option<bool> {
        let pair = self.find(query, gallery, |pair| &pair.best)?;
        Some(share_below(&pair.best, score) >= CONFIDENT_FROM)
    }

    /// Finds the samples of two modalities, or the pooled ones where those say too little.
    fn find(
        &self,
        query: &str,
        gallery: &str,
        of: impl Fn(&ScoreSample) -> &Vec<f32>,
    ) -> Option<&ScoreSample> {
        let says = |pair: &&ScoreSample| of(pair).len() >= MIN_SAMPLE;
        let is_meant = |pair: &&ScoreSample| {
            pair.query.as_deref() == Some(query) && pair.gallery.as_deref() == Some(gallery)
        };
        let own = self.pairs.iter().filter(says).find(is_meant);
        own.or_else(|| self.pairs.first().filter(says))
    }
}

/// Returns the share of a sorted sample that is below a score.
#[expect(clippy::cast_precision_loss, reason = "samples are small")]
fn share_below(sample: &[f32], score: f32) -> f64 {
    let n_below = sample.partition_point(|&other| other < score);
    n_below as f64 / sample.len().max(1) as f64
}

/// The rows that queries, or hits, are drawn from.
#[derive(Clone, Copy)]
struct PairSide<'a> {
    /// Their modality; `None`: any.
    modality: Option<&'a str>,
    rows: &'a [RowId],
}

fn pair(
    gallery: &Gallery,
    from: PairSide<'_>,
    to: PairSide<'_>,
    random: &mut ChaCha8Rng,
) -> Result<ScoreSample> {
    let mut scores = Vec::with_capacity(N_RANDOM);
    if !from.rows.is_empty() && !to.rows.is_empty() {
        // Some draws are of one patient; where most are, few pairs do not belong together.
        for _ in 0..2 * N_RANDOM {
            let (a, b) = (
                from.rows[random.random_range(0..from.rows.len())],
                to.rows[random.random_range(0..to.rows.len())],
            );
            if scores.len() < N_RANDOM && !belong_together(gallery, a, b)? {
                let [a, b] = [RowAsQuery::read(gallery, a)?, RowAsQuery::read(gallery, b)?];
                scores.push(a.score(&b));
            }
        }
    }
    scores.sort_by(f32::total_cmp);
    Ok(ScoreSample {
        query: from.modality.map(str::to_owned),
        gallery: to.modality.map(str::to_owned),
        random: scores,
        best: best(gallery, from.rows, to.modality, random)?,
    })
}

fn belong_together(gallery: &Gallery, a: RowId, b: RowId) -> Result<bool> {
    if a == b {
        return Ok(true);
    }
    for column in BELONGING {
        let value = gallery.value(a, column)?;
        if !value.is_empty() && value == gallery.value(b, column)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Searches for some rows among those of one modality and of other patients.
fn best(
    gallery: &Gallery,
    from: &[RowId],
    modality: Option<&str>,
    random: &mut ChaCha8Rng,
) -> Result<Vec<f32>> {
    let chosen = rand::seq::index::sample(random, from.len(), from.len().min(N_BEST));
    let chosen: Vec<RowId> = chosen.into_iter().map(|idx| from[idx]).collect();
    let mut vectors = Vec::with_capacity(chosen.len() * gallery.width());
    let mut further = Vec::with_capacity(chosen.len());
    let mut left_out: Vec<LeftOut> = BELONGING
        .iter()
        .map(|column| LeftOut {
            column: (*column).to_owned(),
            values: Vec::new(),
        })
        .collect();
    for &row in &chosen {
        let query = RowAsQuery::read_unit(gallery, row)?;
        vectors.extend(query.own);
        further.push(query.further);
        for LeftOut { column, values } in &mut left_out {
            values.push(gallery.value(row, column)?.to_owned());
        }
    }
    let own: Vec<Vec<RowId>> = chosen.iter().map(|&row| vec![row]).collect();
    let queries = Queries {
        vectors: &vectors,
        own: &own,
        left_out: &left_out,
        further: &further,
    };
    let filters = modality.map(|modality| Filter {
        column: MODALITY.to_owned(),
        values: vec![modality.to_owned()],
        is_negated: false,
    });
    let options = SearchOptions {
        k: 1,
        filters: filters.into_iter().collect(),
        ..SearchOptions::default()
    };
    let hits = gallery.search(queries, &options)?;
    let mut scores: Vec<f32> = hits.iter().flatten().map(|hit| hit.score).collect();
    scores.sort_by(f32::total_cmp);
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(best: Vec<f32>) -> Statistics {
        let pair = |query: Option<&str>, random: Vec<f32>, best: Vec<f32>| ScoreSample {
            query: query.map(str::to_owned),
            gallery: query.map(str::to_owned),
            random,
            best,
        };
        let even: Vec<f32> = (0..100_u8).map(|i| f32::from(i) / 100.0).collect();
        Statistics {
            pairs: vec![
                pair(None, even.clone(), best),
                pair(Some("CT"), vec![0.9; 50], vec![]),
            ],
        }
    }

    #[test]
    fn percentiles_are_of_the_modalities_or_pooled() {
        let statistics = statistics(vec![]);
        let of = |score, query, gallery| statistics.percentile(score, query, gallery);
        assert_eq!(of(0.25, "MR", "CT"), Some(25.0));
        assert_eq!(of(0.25, "CT", "CT"), Some(0.0));
        assert_eq!(of(0.95, "CT", "CT"), Some(100.0));
        assert_eq!(Statistics::default().percentile(0.5, "CT", "CT"), None);
    }

    #[test]
    fn a_match_is_confident_if_other_rows_match_no_better() {
        let confident = statistics((0..100_u8).map(|i| 0.5 + f32::from(i) / 200.0).collect());
        let of = |score| confident.is_confident(score, "CT", "CT");
        assert_eq!(
            (of(0.4), of(0.54), of(0.56)),
            (Some(false), Some(false), Some(true))
        );
        assert_eq!(statistics(vec![0.5; 5]).is_confident(0.9, "CT", "CT"), None);
    }
}
