//! How deep the quantised passes look, chosen from measured recall.
//!
//! The gallery's own rows serve as queries: for each, the exact hits are known, and plans are tried from the
//! cheapest on until one finds nearly all of them.

use std::ops::Range;

use rand::SeedableRng as _;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;

use super::plan::{Calibration, Level, Plan, Recall};
use super::{LeftOut, Method, Queries, RowAsQuery, RowHit, SearchOptions};
use crate::error::Result;
use crate::gallery::{Gallery, RowId};
use crate::names::{PAIR, PATIENT, STUDY};

/// Galleries of fewer vectors are searched exactly, which takes a few milliseconds at most.
const MIN_VECTORS: usize = 8192;
/// Recalls that plans are measured for besides the default one, the lowest first.
const OTHER_LEVELS: [f64; 3] = [0.95, 0.99, 0.999];
/// Of the hits that a level may miss, the share that its plans may miss of the gallery's own rows: queries from
/// elsewhere may be harder.
const MISSES_OF_OWN: f64 = 0.4;
/// Of those, the share that the depth of the passes may cost; lists may cost the rest.
const MISSES_OF_DEPTH: f64 = 0.4;
/// Rows that are queries.
const N_QUERIES: usize = 192;
/// Queries of them that are asked first, to see whether a plan can reach the target.
const N_ASKED_FIRST: usize = 8;
/// A short or 1-bit code misses too much where more than one row in this many would have to be looked at again.
const MIN_SAVED: usize = 32;
/// Seed of all random choices.
const SEED: u64 = 0x6d33_7265_7400_0003;
/// Numbers of hits that plans are made for; a search for more hits derives a deeper plan from the last.
const KS: [usize; 2] = [10, 100];

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

    /// Measures the recall of a plan that reaches a target; `None` for one that does not.
    ///
    /// Most plans that are tried miss far more than they may, which their first queries show: the others are then
    /// not asked.
    fn reached(&self, gallery: &Gallery, plan: Plan, target: f64) -> Result<Option<f64>> {
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
            if at_most < target {
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

/// Measures which plans reach the recall of each level, from the cheapest on, and returns one for each of `KS`.
pub(crate) fn calibrate(gallery: &Gallery) -> Result<Calibration> {
    let mut calibration = Calibration {
        n_rows: gallery.len(),
        n_queries: 0,
        target: target_of(Recall::DEFAULT.share()),
        plans: Vec::new(),
        recall_at_10: 1.0,
        recall_at_10_filtered: 1.0,
        levels: Vec::new(),
    };
    if gallery.n_vectors()? < MIN_VECTORS {
        return Ok(calibration);
    }
    // The exact hits are searched once: those for the largest `k` contain those for every other.
    let sample = Sample::take(gallery, KS[KS.len() - 1], false)?;
    calibration.n_queries = sample.own.len();
    let mut measure = Measure::new(gallery, &sample)?;
    let mut shares = OTHER_LEVELS.to_vec();
    shares.push(Recall::DEFAULT.share());
    shares.sort_by(f64::total_cmp);
    let mut levels: Vec<Level> = shares
        .iter()
        .map(|&recall| Level {
            recall,
            plans: Vec::new(),
            recall_at_10: 1.0,
        })
        .collect();
    for k in KS {
        measure.begin(k);
        for level in &mut levels {
            let plan = measure.plan_for(target_of(level.recall))?;
            if k == 10 {
                level.recall_at_10 = measure.recall(plan)?;
                if is_default(level) {
                    let filtered = plan.of_filtered();
                    calibration.recall_at_10_filtered = measure.recall(filtered)?;
                }
            }
            level.plans.push(plan);
        }
    }
    for level in levels {
        if is_default(&level) {
            (calibration.plans, calibration.recall_at_10) = (level.plans, level.recall_at_10);
        } else {
            calibration.levels.push(level);
        }
    }
    Ok(calibration)
}

fn is_default(level: &Level) -> bool {
    level.recall.total_cmp(&Recall::DEFAULT.share()).is_eq()
}

/// Returns the recall that plans must reach on the gallery's own rows, for a recall of queries from elsewhere.
fn target_of(recall: f64) -> f64 {
    1.0 - MISSES_OF_OWN * (1.0 - recall)
}

/// Looks for plans for `k` hits, level by level, from the lowest recall on. Whatever a level needs, the next one needs
/// at least, so the search for it begins there.
struct Measure<'a> {
    gallery: &'a Gallery,
    sample: &'a Sample,
    n_lists: usize,
    has_short: bool,
    /// Short codes reached the targets for `k` so far.
    uses_short: bool,
    k: usize,
    /// Depths that the last level needed, of each first pass.
    depth_bits: usize,
    depth_short: usize,
    /// Lists that the last level needed.
    n_probe: usize,
    /// Plans that reached their targets, and their recalls: most levels ask for the same ones again.
    reached: Vec<(Plan, f64)>,
}

impl<'a> Measure<'a> {
    fn new(gallery: &'a Gallery, sample: &'a Sample) -> Result<Self> {
        let (mut n_lists, mut has_short) = (0, false);
        for segment in gallery.segments() {
            n_lists = n_lists.max(segment.starts()?.len() - 1);
            has_short |= segment.short()?.is_some();
        }
        Ok(Self {
            gallery,
            sample,
            n_lists,
            has_short,
            uses_short: has_short,
            k: 0,
            depth_bits: 0,
            depth_short: 0,
            n_probe: 2,
            reached: Vec::new(),
        })
    }

    /// Turns to plans for `k` hits.
    fn begin(&mut self, k: usize) {
        (self.k, self.uses_short) = (k, self.has_short);
        (self.depth_bits, self.depth_short, self.n_probe) = (8 * k, 2 * k, 2);
    }

    /// Finds the cheapest plan that reaches a target.
    fn plan_for(&mut self, target: f64) -> Result<Plan> {
        let of_depth = 1.0 - MISSES_OF_DEPTH * (1.0 - target);
        let bits = self.with_bits(target, of_depth)?;
        match self.with_short(bits, of_depth)? {
            Some(short) => self.with_lists(short, target),
            None => {
                // Lists that were enough with short codes say nothing of 1-bit codes.
                if self.uses_short {
                    (self.uses_short, self.n_probe) = (false, 2);
                }
                self.with_lists(bits, target)
            }
        }
    }

    /// Finds the depth over the 1-bit codes of all rows, which doubles until the target is reached. That plan also
    /// serves searches with filters, whose rows may lie in any list.
    ///
    /// Where short codes are looked at instead, only searches with filters need it, and the whole target is theirs.
    fn with_bits(&mut self, target: f64, of_depth: f64) -> Result<Plan> {
        let target = if self.uses_short { target } else { of_depth };
        let n_rows = self.gallery.len();
        loop {
            let plan = Plan {
                k: self.k,
                n_probe: None,
                depth_short: None,
                depth_bits: self.depth_bits,
                depth_codes: 4 * self.k,
            };
            let is_deepest = self.depth_bits >= n_rows / 2;
            if is_deepest || self.reaches(plan, target)? {
                return Ok(plan);
            }
            self.depth_bits *= 2;
        }
    }

    /// Finds the depths over the short codes of all rows; `None` if there are no short codes, or they miss too much.
    fn with_short(&mut self, bits: Plan, target: f64) -> Result<Option<Plan>> {
        if !self.uses_short {
            return Ok(None);
        }
        let deepest = self.gallery.len() / MIN_SAVED;
        while self.depth_short <= deepest {
            let plan = Plan {
                depth_short: Some(self.depth_short),
                depth_codes: 2 * self.k,
                ..bits
            };
            if self.reaches(plan, target)? {
                return Ok(Some(plan));
            }
            self.depth_short += self.depth_short / 2;
        }
        Ok(None)
    }

    /// Finds how many lists are enough at the depths of a plan. Their number grows by half each time.
    fn with_lists(&mut self, flat: Plan, target: f64) -> Result<Plan> {
        // Beyond a quarter of the lists, reading all codes is less work.
        while self.n_probe <= self.n_lists / 4 {
            let n_probe = self.n_probe;
            let plan = Plan {
                n_probe: Some(n_probe),
                ..flat
            };
            if self.reaches(plan, target)? {
                // The neighbours of queries from elsewhere are spread over a few more lists.
                return Ok(Plan {
                    n_probe: Some(n_probe + n_probe.div_ceil(4)),
                    ..flat
                });
            }
            self.n_probe += n_probe.div_ceil(2);
        }
        Ok(flat)
    }

    fn reaches(&mut self, plan: Plan, target: f64) -> Result<bool> {
        if let Some((_, recall)) = self.reached.iter().find(|(before, _)| *before == plan) {
            return Ok(*recall >= target);
        }
        let recall = self.sample.reached(self.gallery, plan, target)?;
        if let Some(recall) = recall {
            self.reached.push((plan, recall));
        }
        Ok(recall.is_some())
    }

    /// Returns the recall of a plan.
    fn recall(&self, plan: Plan) -> Result<f64> {
        match self.reached.iter().find(|(before, _)| *before == plan) {
            Some((_, recall)) => Ok(*recall),
            None => self.sample.recall(self.gallery, plan),
        }
    }
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
            .and_then(|calibration| calibration.plan(10, Recall::DEFAULT));
        let Some(plan) = plan else { return Ok(None) };
        let sample = Sample::take(self, 10, true)?;
        Ok(Some([
            sample.recall(self, plan)?,
            sample.recall(self, plan.of_filtered())?,
        ]))
    }
}
