//! What tells whether a run goes well: retrieval on the validation part, effective rank, and the alarm
//! for collapse.

use burn::tensor::Tensor;
use m3ret_encoder::Pooling;
use m3ret_imaging::Input;
use m3ret_search::evaluation::{Block, Metric, Ranking};
use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ops::VitBackend;
use crate::parameters::numbers;
use crate::report::Knn;
use crate::step::{Plan, SimDinoTerms};
use crate::vit::{Patches, Vit};

/// An item of the validation part, for kNN.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Labelled {
    pub(crate) vector: Vec<f32>,
    /// Equal labels are relevant to each other; `None` where the row has none.
    pub(crate) label: Option<u32>,
    /// Items of one patient are never hits of each other.
    pub(crate) patient: u64,
}

/// Ranks the items by cosine for each that has a label, other patients only, and counts hits.
///
/// Metrics are means over all orders of equal cosines. Queries without any relevant item are left out; `None` if that
/// is all of them. `precision_at_5` divides by 5 always.
#[allow(clippy::cast_precision_loss, reason = "counts are small")]
pub(crate) fn knn(items: &[Labelled]) -> Option<Knn> {
    const HIT: Metric = Metric::HitAt(1);
    const PRECISION: Metric = Metric::PrecisionAt(N_NEAREST);
    let mut sums = [0.0; 3];
    let mut n_queries = 0_usize;
    for query in items.iter().filter(|item| item.label.is_some()) {
        let candidates: Vec<&Labelled> = items
            .iter()
            .filter(|item| item.patient != query.patient)
            .collect();
        let is_relevant = |item: &&&Labelled| item.label == query.label;
        let blocks = blocks(query, &candidates);
        let n_relevant = candidates.iter().filter(is_relevant).count();
        let ranking = Ranking {
            blocks: &blocks,
            n_candidates: candidates.len(),
            n_relevant,
            ideal: &[],
            total_grade: n_relevant as f64,
        };
        let values = (
            ranking.value(HIT),
            ranking.value(PRECISION),
            ranking.chance(HIT),
        );
        let (Some(hit), Some(precision), Some(chance)) = values else {
            continue;
        };
        for (sum, value) in sums.iter_mut().zip([hit, precision, chance]) {
            *sum += value;
        }
        n_queries += 1;
    }
    let [hit_at_1, precision_at_5, chance_hit_at_1] = sums.map(|sum| sum / n_queries as f64);
    (n_queries > 0).then_some(Knn {
        hit_at_1,
        precision_at_5,
        n_queries,
        chance_hit_at_1,
    })
}

/// Neighbours that kNN looks at.
const N_NEAREST: usize = 5;

/// Ranks all items, 1 for each that is relevant and 0 for the others, the nearest first.
fn blocks(query: &Labelled, candidates: &[&Labelled]) -> Vec<Block> {
    let mut ranked: Vec<(f32, f32)> = candidates
        .iter()
        .map(|item| {
            let grade = f32::from(u8::from(item.label == query.label));
            (cosine(&query.vector, &item.vector), grade)
        })
        .collect();
    ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (scores, grades): (Vec<f32>, Vec<f32>) = ranked.into_iter().unzip();
    Block::of_scores(&scores, &grades, 1.0)
}

/// Of unit vectors.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Embeds inputs of any shapes with a network in training, in their order; unit vectors.
///
/// # Errors
/// `Encoder` if an input does not divide into patches.
pub(crate) fn embed<B: VitBackend>(
    encoder: &Vit<B>,
    inputs: &[&Input],
    plan: &Plan,
    pooling: Pooling,
) -> Result<Vec<Vec<f32>>> {
    pooled(encoder, inputs, plan, pooling, crate::simdino::unit)
}

/// Returns what becomes of the pooled tokens of inputs of any shapes, `[n, E]` with rows of their own, in the
/// order of the inputs.
///
/// # Errors
/// As `embed`.
pub(crate) fn pooled<B: VitBackend>(
    encoder: &Vit<B>,
    inputs: &[&Input],
    plan: &Plan,
    pooling: Pooling,
    finish: impl Fn(Tensor<B, 2>) -> Tensor<B, 2>,
) -> Result<Vec<Vec<f32>>> {
    let mut order: Vec<usize> = (0..inputs.len()).collect();
    order.sort_by_key(|&i| inputs[i].shape());
    let mut vectors = vec![Vec::new(); inputs.len()];
    for same in order.chunk_by(|&a, &b| inputs[a].shape() == inputs[b].shape()) {
        let grid = m3ret_encoder::grid_of(inputs[same[0]].shape(), plan.vit.patch)?;
        let n_tokens = encoder.n_prefix() + grid.iter().product::<usize>();
        for places in same.chunks((plan.micro_tokens / n_tokens).max(1)) {
            let images: Vec<&Input> = places.iter().map(|&i| inputs[i]).collect();
            let patches = Patches::cut(&images, &plan.vit, None)?;
            let tokens = encoder.forward(&patches, &plan.vit, None, &plan.running());
            let [n_images, n_tokens, width] = tokens.dims();
            let pooled: Tensor<B, 3> = match pooling {
                Pooling::Cls => tokens.slice([0..n_images, 0..1]),
                Pooling::Mean => tokens
                    .slice([0..n_images, encoder.n_prefix()..n_tokens])
                    .mean_dim(1),
            };
            let pooled = finish(pooled.reshape([n_images, width]));
            for (&place, vector) in places.iter().zip(numbers(pooled).chunks_exact(width)) {
                vectors[place] = vector.to_vec();
            }
        }
    }
    Ok(vectors)
}

/// Returns the effective rank of rows of width `p`: the exponential of the entropy of the singular
/// values' shares (Roy and Vetterli 2007).
pub(crate) fn effective_rank(rows: &[f32], p: usize) -> f64 {
    let m = rows.len() / p;
    let rows = DMatrix::from_row_iterator(m, p, rows.iter().map(|&value| f64::from(value)));
    let gram = if m < p {
        &rows * rows.transpose()
    } else {
        rows.transpose() * &rows
    };
    // A singular value is the root of an eigenvalue of the Gram matrix.
    let singular: Vec<f64> = gram
        .symmetric_eigenvalues()
        .iter()
        .map(|value| value.max(0.0).sqrt())
        .collect();
    let total: f64 = singular.iter().sum();
    let entropy: f64 = singular
        .iter()
        .map(|value| value / total)
        .filter(|&share| share > 0.0)
        .map(|share| -share * share.ln())
        .sum();
    entropy.exp()
}

/// Steps over which the coding rate is averaged before it is judged.
const SMOOTHING: f64 = 20.0;

/// Watches the coding rate: a fall towards the collapsed value, from the run's own maximum.
///
/// Shares are of the way from the collapsed rate to the largest one, so that batches of different sizes
/// compare.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alarm {
    rate: Watched,
    rank: Watched,
}

/// A share from 0 to 1: its running mean, and the most that this has been.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watched {
    smoothed: Option<f64>,
    most: f64,
}

impl Watched {
    /// Takes a share; returns the running mean if it is below `least_share` of its maximum.
    fn falls(&mut self, share: f64, least_share: f64) -> Option<f64> {
        let smoothed = self
            .smoothed
            .map_or(share, |before| before + (share - before) / SMOOTHING);
        self.smoothed = Some(smoothed);
        self.most = self.most.max(smoothed);
        (smoothed < least_share * self.most).then_some(smoothed)
    }
}

impl Alarm {
    /// Takes the rate of one step, and the effective rank where it was computed; past the warm-up
    /// returns what to tell if one of them fell below `least_share` of the run's maximum.
    #[allow(clippy::cast_precision_loss, reason = "batches are small")]
    pub(crate) fn sees(
        &mut self,
        terms: &SimDinoTerms,
        rank: Option<(f64, usize)>,
        is_warm: bool,
        least_share: f64,
    ) -> Option<String> {
        let [collapsed, bound] = terms.rate_limits;
        // A single vector has one possible rate: nothing can be told from it.
        if bound - collapsed <= f64::EPSILON {
            return None;
        }
        let share = (terms.coding_rate - collapsed) / (bound - collapsed);
        let rate = self.rate.falls(share, least_share).map(|share| {
            format!("the coding rate is {:.0} % of the way", 100.0 * share)
                + &format!(
                    " from equal vectors to the largest, after {:.0} %",
                    100.0 * self.rate.most
                )
        });
        let rank = rank.and_then(|(rank, largest)| {
            let most = largest as f64;
            let share = (rank - 1.0) / (most - 1.0).max(1.0);
            let fell = self.rank.falls(share, least_share)?;
            let [now, before] = [fell, self.rank.most].map(|share| 1.0 + share * (most - 1.0));
            Some(format!(
                "the effective rank is {now:.1} of {most}, after {before:.1}"
            ))
        });
        let what = rate.or(rank).filter(|_| is_warm)?;
        Some(format!(
            "the vectors collapse: {what} earlier in this run; start another run with a lower \
             optimizer.base_lr or a larger train.batch, and init set to the folder model of an earlier \
             checkpoint, or go on with monitor.collapse_share = 0"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(vector: [f32; 2], label: Option<u32>, patient: u64) -> Labelled {
        let vector = vector.to_vec();
        Labelled {
            vector,
            label,
            patient,
        }
    }

    #[test]
    fn knn_counts_other_patients_only() {
        let items = [
            item([1.0, 0.0], Some(1), 1),
            // The same patient, nearest of all: no hit.
            item([1.0, 0.0], Some(1), 1),
            item([0.8, 0.6], Some(2), 2),
            item([0.6, 0.8], Some(1), 3),
            item([0.0, 1.0], None, 4),
        ];
        let knn = knn(&items).unwrap();
        // Items 0 and 1 find the wrong label first; item 3 finds 2, then 0 and 1; item 2 has nothing
        // relevant.
        assert_eq!(knn.n_queries, 3);
        assert!((knn.hit_at_1 - 0.0).abs() < 1e-12);
        assert!((knn.precision_at_5 - (0.2 + 0.2 + 0.4) / 3.0).abs() < 1e-12);
        assert!((knn.chance_hit_at_1 - (1.0 / 3.0 + 1.0 / 3.0 + 0.5) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn without_relevant_items_there_is_no_number() {
        assert_eq!(knn(&[]), None);
        assert_eq!(
            knn(&[item([1.0, 0.0], Some(1), 1), item([1.0, 0.0], Some(2), 2)]),
            None
        );
    }

    #[test]
    fn effective_rank_counts_equal_directions() {
        let mut rows = vec![0.0; 4 * 6];
        for i in 0..4 {
            rows[i * 6 + i] = 1.0;
        }
        assert!((effective_rank(&rows, 6) - 4.0).abs() < 1e-9);
        assert!(
            (effective_rank(&rows, 4) - 4.0).abs() < 1.0,
            "tall matrices too"
        );
        let equal = [0.6, 0.8].repeat(5);
        assert!((effective_rank(&equal, 2) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_alarm_tells_a_fall_from_the_runs_own_maximum_after_the_warm_up() {
        let terms = |coding_rate| SimDinoTerms {
            total: 0.0,
            alignment: 0.0,
            coding_rate,
            rate_limits: [1.0, 5.0],
            patch_alignment: None,
            teacher: Vec::new(),
        };
        let mut alarm = Alarm::default();
        let mut told = |rate: f64, is_warm| alarm.sees(&terms(rate), None, is_warm, 0.5);
        // A fresh network starts near the collapsed value, which is no alarm.
        for step in 0..100 {
            assert_eq!(told(1.0 + 0.03 * f64::from(step), step > 10), None);
        }
        for _ in 0..200 {
            assert_eq!(told(1.2, false), None, "not during the warm-up");
        }
        assert!(told(1.2, true).is_some_and(|message| message.contains("the coding rate is")));

        let mut alarm = Alarm::default();
        let mut told = |rank: f64| alarm.sees(&terms(4.0), Some((rank, 16)), true, 0.5);
        assert_eq!(told(12.0), None);
        let last = (0..100).map(|_| told(2.0)).last().unwrap();
        assert!(last.is_some_and(|message| message.contains("the effective rank is 2.")));
    }
}
