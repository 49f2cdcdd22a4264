//! How deep the quantised passes look, chosen from measured recall.
//!
//! The gallery's own rows serve as queries: for each, the exact hits are known, and plans are tried from the
//! cheapest on until one finds nearly all of them.

use std::ops::Range;

use rand::SeedableRng as _;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{LeftOut, Method, Queries, RowAsQuery, RowHit, SearchOptions};
use crate::error::Result;
use crate::gallery::{Gallery, RowId};
use crate::names::{PAIR, PATIENT, STUDY};

/// How many rows each quantised pass looks at, and how many it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Hits of a query that the plan is made for.
    pub k: usize,
    /// Lists of a segment that are looked at; `None`: all rows, by their 1-bit codes.
    pub n_probe: Option<usize>,
    /// Candidates of the pass over 1-bit codes that the next one looks at.
    pub depth_bits: usize,
    /// Candidates of the pass over 8-bit codes whose vectors are looked at.
    pub depth_codes: usize,
}

impl Plan {
    /// The plan without quantised passes.
    pub(super) const EXACT: Self = Self {
        k: 0,
        n_probe: None,
        depth_bits: 0,
        depth_codes: 0,
    };
}

/// What was measured on a gallery with its own rows as queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Rows of the gallery at that time.
    pub n_rows: usize,
    /// Rows that were queries.
    pub n_queries: usize,
    /// The recall that plans had to reach.
    pub target: f64,
    /// Plans for few hits first; empty for a small gallery, where every search is exact.
    pub plans: Vec<Plan>,
    /// Share of the exact 10 best that the first plan found.
    pub recall_at_10: f64,
    /// The same share for a search with filters, which looks at the 1-bit codes of all rows that pass.
    pub recall_at_10_filtered: f64,
}

/// Most rows that plans are made for, and the deepest that they look.
const MAX_COUNT: u64 = 1 << 40;

impl Calibration {
    /// Says whether a search can follow every plan: a calibration comes from a file.
    pub(crate) fn is_sound(&self) -> bool {
        let fits = |count: usize| count as u64 <= MAX_COUNT;
        let is_possible = |plan: &Plan| {
            plan.k > 0
                && plan.n_probe != Some(0)
                && [plan.k, plan.depth_bits, plan.depth_codes]
                    .into_iter()
                    .all(fits)
        };
        fits(self.n_rows) && self.plans.iter().all(is_possible)
    }
}

/// Galleries of fewer vectors are searched exactly, which takes a few milliseconds at most.
const MIN_VECTORS: usize = 8192;
/// Recall that a plan must reach. The documents promise 0.995; the margin is for queries from elsewhere, which
/// may be harder than the gallery's own rows.
const TARGET: f64 = 0.998;
/// Rows that are queries.
const N_QUERIES: usize = 128;
/// Queries of them that are asked first, to see whether a plan can reach the target.
const N_ASKED_FIRST: usize = 8;
/// Seed of all random choices.
const SEED: u64 = 0x6d33_7265_7400_0003;
/// Numbers of hits that plans are made for; a search for more hits derives a deeper plan from the last.
const KS: [usize; 2] = [10, 100];

impl Calibration {
    /// Returns the plan for `k` hits; `None` for an exact search.
    pub(super) fn plan(&self, k: usize) -> Option<Plan> {
        let last = self.plans.last()?;
        if let Some(&plan) = self.plans.iter().find(|plan| k <= plan.k) {
            return Some(plan);
        }
        // Codes of 8 bits confuse only close neighbours, so a margin beyond `k` is enough. Codes of 1 bit confuse
        // many more: their depth grows with `k`.
        let depth_codes = k + k / 4 + last.depth_codes;
        let depth_bits = last.depth_bits.saturating_mul(k).div_ceil(last.k);
        let depth_bits = depth_bits.max(2 * depth_codes);
        // From an eighth of all rows on the exact search takes the plan's place: it reads rows in order. The number
        // of lists was measured for fewer hits, so the derived plan looks at all rows.
        (depth_codes * 8 < self.n_rows).then_some(Plan {
            k,
            n_probe: None,
            depth_bits,
            depth_codes,
        })
    }
}

/// The gallery's own rows as queries, and their exact hits.
struct Sample {
    /// One vector of each query, [queries, width].
    vectors: Vec<f32>,
    /// The row that each query is, alone.
    own: Vec<Vec<RowId>>,
    /// Patient, study and pair of each query. Real queries are of patients that the gallery does not hold, so
    /// rows of the same patient are no hits here.
    left_out: Vec<LeftOut>,
    /// The exact hits of each query, best first.
    exact: Vec<Vec<RowHit>>,
}

impl Sample {
    /// Takes the first rows of a random order, or those after them if `is_second`, with their exact `k` hits.
    fn take(gallery: &Gallery, k: usize, is_second: bool) -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let rows: Vec<RowId> = gallery.rows().collect();
        // Both halves are drawn at once, so that the second measures with rows that no plan was chosen by.
        let chosen = sample(&mut random, rows.len(), rows.len().min(2 * N_QUERIES));
        let chosen = chosen.into_iter().map(|idx| vec![rows[idx]]);
        let n_before = if is_second { N_QUERIES } else { 0 };
        let own: Vec<Vec<RowId>> = chosen.skip(n_before).take(N_QUERIES).collect();
        let mut vectors = Vec::with_capacity(own.len() * gallery.width());
        // Vectors that were stored in 16 bits have length 1 only up to rounding, and a search wants unit vectors.
        let read = RowAsQuery::read_units(gallery, &own.concat())?;
        for (idx, RowAsQuery { own, further }) in read.iter().enumerate() {
            // One of its vectors in turn: asked together, the row's own would find nearly all, and a radiograph asks with
            // one that is like a projection.
            let all: Vec<&[f32]> = std::iter::once(own.as_slice())
                .chain(further.chunks_exact(own.len()))
                .collect();
            vectors.extend_from_slice(all[idx % all.len()]);
        }
        let mut taken = Self {
            left_out: belonging(gallery, &own)?,
            vectors,
            own,
            exact: Vec::new(),
        };
        taken.exact = taken.search(gallery, k, Method::Exact)?;
        Ok(taken)
    }

    /// Searches for the best `k` hits of every query.
    fn search(&self, gallery: &Gallery, k: usize, method: Method) -> Result<Vec<Vec<RowHit>>> {
        self.search_some(gallery, 0..self.own.len(), k, method)
    }

    /// Searches for the best `k` hits of some queries; what is found does not depend on the other ones.
    fn search_some(
        &self,
        gallery: &Gallery,
        some: Range<usize>,
        k: usize,
        method: Method,
    ) -> Result<Vec<Vec<RowHit>>> {
        let width = gallery.width();
        let left_out = self.left_out.iter().map(|column| LeftOut {
            column: column.column.clone(),
            values: column.values[some.clone()].to_vec(),
        });
        let left_out: Vec<LeftOut> = left_out.collect();
        let queries = Queries {
            vectors: &self.vectors[some.start * width..some.end * width],
            own: &self.own[some],
            left_out: &left_out,
            ..Queries::default()
        };
        let options = SearchOptions {
            k,
            method,
            ..SearchOptions::default()
        };
        gallery.search(queries, &options)
    }

    /// Measures the share of the exact best `k` that a plan finds.
    fn recall(&self, gallery: &Gallery, plan: Plan) -> Result<f64> {
        let found = self.search(gallery, plan.k, Method::Planned(plan))?;
        Ok(recall(&self.exact, &found, plan.k))
    }

    /// Measures the recall of a plan that reaches the target; `None` for one that does not.
    ///
    /// Most plans that are tried miss far more than they may, which their first queries show: the others are then
    /// not asked.
    fn reached(&self, gallery: &Gallery, plan: Plan) -> Result<Option<f64>> {
        let mut found: Vec<Vec<RowHit>> = Vec::with_capacity(self.own.len());
        while found.len() < self.own.len() {
            let n_asked = found.len();
            let end = self.own.len().min((2 * n_asked).max(N_ASKED_FIRST));
            found.append(&mut self.search_some(
                gallery,
                n_asked..end,
                plan.k,
                Method::Planned(plan),
            )?);
            // As if every query that was not asked found all: what is at most reached.
            let rest = self.exact[end..].iter().cloned();
            let best_case: Vec<Vec<RowHit>> = found.iter().cloned().chain(rest).collect();
            let at_most = recall(&self.exact, &best_case, plan.k);
            if at_most < TARGET {
                return Ok(None);
            }
        }
        Ok(Some(recall(&self.exact, &found, plan.k)))
    }
}

/// Columns whose equal values mean that two rows belong together.
pub(crate) const BELONGING: [&str; 3] = [PATIENT, STUDY, PAIR];

/// Returns the columns by which rows belong to each of `rows`, with the values of each: rows that share one
/// are no hits for it.
fn belonging(gallery: &Gallery, rows: &[Vec<RowId>]) -> Result<Vec<LeftOut>> {
    let columns = gallery.columns();
    let known = BELONGING.iter().filter(|column| columns.contains(column));
    let left_out = known.map(|column| {
        let value = |row: &RowId| gallery.value(*row, column).map(str::to_owned);
        let values = rows.iter().flatten().map(value).collect::<Result<_>>()?;
        Ok(LeftOut {
            column: (*column).to_owned(),
            values,
        })
    });
    left_out.collect()
}

/// Returns the share of the exact `k` best scores that were found; another row with the same score
/// is as good.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(crate) fn recall(exact: &[Vec<RowHit>], found: &[Vec<RowHit>], k: usize) -> f64 {
    let (mut n_found, mut n_all) = (0, 0);
    for (exact, found) in exact.iter().zip(found) {
        // The score of the last exact hit divides good from bad. Counting scores instead of ids forgives a pass
        // that returns another row with an equal score.
        let exact = &exact[..exact.len().min(k)];
        let Some(last) = exact.last() else { continue };
        let good = found.iter().filter(|hit| hit.score >= last.score);
        n_found += good.count().min(exact.len());
        n_all += exact.len();
    }
    if n_all == 0 {
        1.0
    } else {
        n_found as f64 / n_all as f64
    }
}

/// Measures which plans reach the target, from the cheapest on, and returns one for each of `KS`.
pub(crate) fn calibrate(gallery: &Gallery) -> Result<Calibration> {
    let n_rows = gallery.len();
    let mut calibration = Calibration {
        n_rows,
        n_queries: 0,
        target: TARGET,
        plans: Vec::new(),
        recall_at_10: 1.0,
        recall_at_10_filtered: 1.0,
    };
    if gallery.n_vectors()? < MIN_VECTORS {
        return Ok(calibration);
    }
    // The exact hits are searched once: those for the largest `k` contain those for every other.
    let sample = Sample::take(gallery, KS[KS.len() - 1], false)?;
    calibration.n_queries = sample.own.len();
    let mut depth_bits = 0;
    for k in KS {
        // More hits never need fewer candidates, so the search for the next plan begins at the depth that this one
        // needs, without its margin.
        let (plan, recall, filtered) = plan_for(gallery, &sample, k, depth_bits)?;
        depth_bits = plan.depth_bits / 2;
        if k == 10 {
            calibration.recall_at_10 = recall;
            calibration.recall_at_10_filtered = filtered;
        }
        calibration.plans.push(plan);
    }
    Ok(calibration)
}

/// Finds the cheapest plan for `k` hits whose pass over 1-bit codes keeps at least `depth_bits` candidates;
/// returns the plan with its recall, and the recall over the 1-bit codes of all rows.
fn plan_for(
    gallery: &Gallery,
    sample: &Sample,
    k: usize,
    depth_bits: usize,
) -> Result<(Plan, f64, f64)> {
    let n_rows = gallery.len();
    // First without lists: the depth over the 1-bit codes of all rows doubles until the recall is reached. That
    // plan also serves searches with filters, whose rows may lie in any list.
    let mut flat = Plan {
        k,
        n_probe: None,
        depth_bits: depth_bits.max(8 * k),
        depth_codes: 4 * k,
    };
    let recall_flat = loop {
        if let Some(reached) = sample.reached(gallery, flat)? {
            break reached;
        }
        if flat.depth_bits >= n_rows / 2 {
            break sample.recall(gallery, flat)?;
        }
        flat.depth_bits *= 2;
    };
    // Queries from elsewhere may be harder than rows of the gallery; twice the depth is the margin for them.
    flat.depth_bits *= 2;
    // Then with lists, at the depth just found, so that only the number of lists is left to choose. It grows by
    // half each time.
    let n_lists = n_lists_of_largest(gallery)?;
    let mut n_probe = 2;
    // Beyond a quarter of the lists, reading all 1-bit codes is less work.
    while n_probe <= n_lists / 4 {
        let plan = Plan {
            n_probe: Some(n_probe),
            ..flat
        };
        if sample.reached(gallery, plan)?.is_some() {
            // The neighbours of queries from elsewhere are spread over a few more lists: half as many again.
            let plan = Plan {
                n_probe: Some(n_probe + n_probe.div_ceil(2)),
                ..flat
            };
            return Ok((plan, sample.recall(gallery, plan)?, recall_flat));
        }
        n_probe += n_probe.div_ceil(2);
    }
    Ok((flat, recall_flat, recall_flat))
}

/// Returns the number of lists of the segment that has most.
fn n_lists_of_largest(gallery: &Gallery) -> Result<usize> {
    let mut largest = 0;
    for segment in gallery.segments() {
        largest = largest.max(segment.starts()?.len() - 1);
    }
    Ok(largest)
}

impl Gallery {
    /// Measures the recall of the ten best hits again, on other rows than `calibrate` took: by the
    /// gallery's plan, and by the plan for searches with filters.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn measure_recall(&self) -> Result<Option<[f64; 2]>> {
        let plan = self
            .calibration()
            .and_then(|calibration| calibration.plan(10));
        let Some(plan) = plan else { return Ok(None) };
        let sample = Sample::take(self, 10, true)?;
        let flat = Plan {
            n_probe: None,
            ..plan
        };
        Ok(Some([
            sample.recall(self, plan)?,
            sample.recall(self, flat)?,
        ]))
    }
}
