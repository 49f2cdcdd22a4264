//! Attention of one head at a time, over strips of 32 queries: memory grows with L, never L x L.
//!
//! Scores are computed transposed: keys are the rows of a tile and 32 queries its columns. The softmax
//! over keys then sums down the columns and never across a vector, and its result already has the
//! layout of a packed panel for the product with the values.

use rayon::prelude::*;

use super::dispatch::{Kernels, Start, Task};
use super::math::exp2;
use super::rows::{bf16_pair, bf16_pair_of_shares, convert};
use super::{Lanes, MR, NR, Panels, Precision, UnitRow};

/// The rows of one object among those of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) first_row: usize,
    pub(crate) n_tokens: usize,
    /// Rotary positions of its tokens, where the model has them.
    pub(crate) rotation: Option<Rotation>,
}

/// Rotary position embedding: how queries and keys of every token turn.
///
/// # Source
/// Su et al. 2021; the halves of a head are rotated against each other, as `DINOv3` does.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    /// The first tokens, which do not turn: CLS and registers.
    pub(crate) n_prefix: usize,
    /// [N, head width], of the tokens after these.
    pub(crate) cosines: Vec<f32>,
    /// [N, head width], of the tokens after these.
    pub(crate) sines: Vec<f32>,
}

impl Rotation {
    /// Turns the query or key of one token, [head width].
    #[inline(always)]
    fn turn(&self, token: usize, line: &mut [f32]) {
        let Some(patch) = token.checked_sub(self.n_prefix) else {
            return;
        };
        let width = line.len();
        let cosines = &self.cosines[patch * width..][..width];
        let sines = &self.sines[patch * width..][..width];
        // x cos + rotate_half(x) sin: value i turns with value i + half, by the angles of each.
        let half = width / 2;
        for i in 0..half {
            let (first, second) = (line[i], line[i + half]);
            line[i] = first * cosines[i] - second * sines[i];
            line[i + half] = second * cosines[i + half] + first * sines[i + half];
        }
    }
}

/// Computes softmax(Q K^T / sqrt(d)) V of every object and head.
///
/// # Shapes
/// `qkv` [rows, 3E], columns q, k, v, each split by head -> `out`, [L, d] of every object and head,
/// consecutive.
pub(crate) fn attend(
    kernels: &Kernels,
    precision: Precision,
    qkv: &Panels,
    spans: &[Span],
    out: &mut HeadOutputs,
) {
    // 3E columns hold 3 parts of every head.
    let width = qkv.n_cols() / 3 / out.n_heads;
    out.values.resize(qkv.n_rows() * out.n_heads * width, 0.0);
    // Each head of each object gets its own part of the output, so threads share no memory.
    let mut heads = Vec::with_capacity(spans.len() * out.n_heads);
    let mut rest = &mut out.values[..];
    for span in spans {
        for head in 0..out.n_heads {
            let (mine, others) = rest.split_at_mut(span.n_tokens * width);
            heads.push((span, head, mine));
            rest = others;
        }
    }
    heads
        .into_par_iter()
        .for_each_init(Scratch::default, |scratch, (span, head, out)| {
            AttentionHead {
                kernels,
                precision,
                qkv,
                span,
                first_col: head * width,
                width,
            }
            .attend(scratch, out);
        });
}

/// The result of `attend`: [L, d] of every object and head.
#[derive(Debug)]
pub(crate) struct HeadOutputs {
    pub(crate) values: Vec<f32>,
    pub(crate) n_heads: usize,
}

/// The memory of one thread, reused from head to head.
#[derive(Debug, Default)]
struct Scratch {
    /// Keys as rows of tiles: [ceil(L / MR)][units of d][MR].
    keys: Vec<[u32; MR]>,
    /// Values as rows of tiles, a row for each channel: [ceil(d / MR)][units of L][MR].
    values: Vec<[u32; MR]>,
    /// 32 queries: [units of d].
    queries: Vec<UnitRow>,
    /// [L] scores of 32 queries.
    scores: Vec<Lanes>,
    /// The weights that softmax makes of them: [units of L].
    weights: Vec<UnitRow>,
}

/// One head of one object.
struct AttentionHead<'a> {
    kernels: &'a Kernels,
    precision: Precision,
    qkv: &'a Panels,
    span: &'a Span,
    /// The head's first column within q, k or v.
    first_col: usize,
    /// `d`: width of the head.
    width: usize,
}

impl AttentionHead<'_> {
    /// Computes the head's output, [L, d].
    fn attend(&self, scratch: &mut Scratch, out: &mut [f32]) {
        let (n_tokens, width) = (self.span.n_tokens, self.width);
        let per_unit = self.precision.per_unit();
        let (n_units, n_key_units) = (width.div_ceil(per_unit), n_tokens.div_ceil(per_unit));
        let Scratch {
            keys,
            values,
            queries,
            scores,
            weights,
        } = scratch;
        // The padding of tiles keeps values of an earlier head; results computed from it are not read.
        keys.resize(n_tokens.div_ceil(MR) * n_units, [0; MR]);
        values.resize(width.div_ceil(MR) * n_key_units, [0; MR]);
        queries.resize(n_units, UnitRow::ZERO);
        scores.resize(n_tokens.next_multiple_of(MR), Lanes::ZERO);
        weights.resize(n_key_units, UnitRow::ZERO);
        self.kernels.run(PackHead {
            head: self,
            keys,
            values,
        });
        let tile_of = self.kernels.tile(self.precision);
        let mut tile = [Lanes::ZERO; MR];
        for (idx, out) in out.chunks_mut(NR * width).enumerate() {
            self.kernels.run(PackQueries {
                head: self,
                first: idx * NR,
                queries,
            });
            // K Q^T: [L, d] x [32, d]^T -> [L][32 queries]. Scores of keys past the last are not read.
            let tiles = scores.as_chunks_mut::<MR>().0;
            for (tile, keys) in tiles.iter_mut().zip(keys.chunks_exact(n_units)) {
                tile_of(keys, queries, Start::ZERO, tile);
            }
            // -> weights [L][32 queries], which are the right factor of the next product. Dividing by
            // their sums is left to its result, which has d rows and not L.
            let shares = self.kernels.run(Softmax {
                scores: &mut scores[..n_tokens],
                precision: self.precision,
                weights,
            });
            // V^T weights: [d, L] x [32, L]^T -> [d][32 queries], `MR` channels at a time.
            for (first, values) in (0..width).step_by(MR).zip(values.chunks_exact(n_key_units)) {
                let tile = &mut tile[..MR.min(width - first)];
                tile_of(values, weights, Start::ZERO, tile);
                self.kernels.run(Divide {
                    tile,
                    shares: &shares,
                    out,
                    first,
                    width,
                });
            }
        }
    }

    /// Reads the query, key or value of one token, [d].
    #[inline(always)]
    fn read(&self, part: QkvPart, token: usize, line: &mut [f32]) {
        let first = part as usize * self.qkv.n_cols() / 3 + self.first_col;
        self.qkv.read(self.span.first_row + token, first, line);
        if let (Some(rotation), QkvPart::Query | QkvPart::Key) = (&self.span.rotation, part) {
            rotation.turn(token, line);
        }
    }
}

/// The parts of the columns of `qkv`, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QkvPart {
    Query = 0,
    Key = 1,
    Value = 2,
}

/// Packs all keys and values of a head.
struct PackHead<'a> {
    head: &'a AttentionHead<'a>,
    keys: &'a mut [[u32; MR]],
    values: &'a mut [[u32; MR]],
}

impl Task for PackHead<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Self { head, keys, values } = self;
        let (n_tokens, width) = (head.span.n_tokens, head.width);
        let per_unit = head.precision.per_unit();
        let n_units = width.div_ceil(per_unit);
        // [L, d] -> [tiles][units of d][MR]: keys are rows of the product with the queries, and are
        // multiplied along d.
        let (mut line, mut converted) = (vec![0.0; width], vec![0; n_units]);
        for (first, tile) in (0..n_tokens)
            .step_by(MR)
            .zip(keys.chunks_exact_mut(n_units))
        {
            for i in 0..MR.min(n_tokens - first) {
                head.read(QkvPart::Key, first + i, &mut line);
                convert(&line, head.precision, &mut converted);
                for (unit, &converted) in tile.iter_mut().zip(&converted) {
                    unit[i] = converted;
                }
            }
        }
        // [L, d] -> [tiles of channels][units of L][MR]: values are multiplied along L, so a bf16 unit
        // holds one channel of two neighbouring tokens.
        let n_key_units = n_tokens.div_ceil(per_unit);
        let (mut even, mut odd) = (vec![0.0; width], vec![0.0; width]);
        let mut units = vec![0; width];
        for unit in 0..n_key_units {
            let token = unit * per_unit;
            head.read(QkvPart::Value, token, &mut even);
            if per_unit == 1 {
                for (unit, value) in units.iter_mut().zip(&even) {
                    *unit = value.to_bits();
                }
            } else {
                if token + 1 < n_tokens {
                    head.read(QkvPart::Value, token + 1, &mut odd);
                } else {
                    odd.fill(0.0);
                }
                for (unit, (&even, &odd)) in units.iter_mut().zip(even.iter().zip(&odd)) {
                    *unit = bf16_pair(even, odd);
                }
            }
            for (tile, channels) in units.chunks(MR).enumerate() {
                let place = &mut values[tile * n_key_units + unit];
                match channels.as_array::<MR>() {
                    Some(whole) => *place = *whole,
                    None => place[..channels.len()].copy_from_slice(channels),
                }
            }
        }
    }
}

/// Packs 32 queries, scaled by `log2(e) / sqrt(d)`: softmax then needs `2^score` only.
struct PackQueries<'a> {
    head: &'a AttentionHead<'a>,
    first: usize,
    queries: &'a mut [UnitRow],
}

impl Task for PackQueries<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Self {
            head,
            first,
            queries,
        } = self;
        #[allow(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
        let scale = std::f32::consts::LOG2_E / (head.width as f32).sqrt();
        let (mut line, mut converted) = (vec![0.0; head.width], vec![0; queries.len()]);
        // Columns past the last query keep old values; their results are not read.
        for j in 0..NR.min(head.span.n_tokens - first) {
            head.read(QkvPart::Query, first + j, &mut line);
            line.iter_mut().for_each(|value| *value *= scale);
            convert(&line, head.precision, &mut converted);
            for (query, &converted) in queries.iter_mut().zip(&converted) {
                query.0[j] = converted;
            }
        }
    }
}

/// Turns scores [keys][32 queries] into weights `2^(score - largest)`, packed; returns 1 over their
/// sums.
struct Softmax<'a> {
    scores: &'a mut [Lanes],
    precision: Precision,
    weights: &'a mut [UnitRow],
}

impl Task for Softmax<'_> {
    type Output = Lanes;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> Lanes {
        // The largest score of each query, over all keys. This comparison compiles to one instruction;
        // `f32::max` needs more for NaN.
        let mut largest = [f32::NEG_INFINITY; NR];
        for scores in &*self.scores {
            for (most, &score) in largest.iter_mut().zip(&scores.0) {
                *most = if score > *most { score } else { *most };
            }
        }
        let mut sums = [0.0; NR];
        match self.precision {
            Precision::F32 => {
                for (weights, scores) in self.weights.iter_mut().zip(&*self.scores) {
                    for j in 0..NR {
                        let weight = exp2::<FMA>(scores.0[j] - largest[j]);
                        sums[j] += weight;
                        weights.0[j] = weight.to_bits();
                    }
                }
            }
            Precision::Bf16 | Precision::Int8 => {
                // Two keys share a unit; without a second one its weight is 2^-infinity = 0.
                let none = Lanes([f32::NEG_INFINITY; NR]);
                for (weights, pair) in self.weights.iter_mut().zip(self.scores.chunks(2)) {
                    let (even, odd) = (&pair[0], pair.get(1).unwrap_or(&none));
                    for j in 0..NR {
                        let even = exp2::<FMA>(even.0[j] - largest[j]);
                        let odd = exp2::<FMA>(odd.0[j] - largest[j]);
                        sums[j] += even + odd;
                        weights.0[j] = bf16_pair_of_shares(even, odd);
                    }
                }
            }
        }
        Lanes(sums.map(|sum| 1.0 / sum))
    }
}

/// Writes a tile [channels][32 queries], times the queries' shares, as rows [query][channel].
struct Divide<'a> {
    tile: &'a mut [Lanes],
    shares: &'a Lanes,
    out: &'a mut [f32],
    first: usize,
    width: usize,
}

impl Task for Divide<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        // [channels][32 queries], times 1 over the sum of each query's weights.
        for lanes in &mut *self.tile {
            for j in 0..NR {
                lanes.0[j] *= self.shares.0[j];
            }
        }
        // -> [query][channel], of fewer than 32 queries in the last strip.
        for (j, out) in self.out.chunks_exact_mut(self.width).enumerate() {
            for (out, lanes) in out[self.first..].iter_mut().zip(&*self.tile) {
                *out = lanes.0[j];
            }
        }
    }
}
