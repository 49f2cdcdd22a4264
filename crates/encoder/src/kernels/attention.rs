//! Attention of one head at a time, over strips of 32 queries: memory grows with L, never L x L.
//!
//! Scores are computed transposed: keys are the rows of a tile and 32 queries its columns. So the
//! softmax over keys goes down the columns without any sum across a vector, and its result already
//! has the layout of a packed panel for the product with the values.

use rayon::prelude::*;

use super::dispatch::{Kernels, Task};
use super::math::exp2;
use super::rows::{bf16_pair, interleave};
use super::{Lanes, MR, NR, Panels, Precision, Tile, UnitRow};

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
    /// Tokens in front that do not turn: CLS and registers.
    pub(crate) n_prefix: usize,
    /// [N, head width], of the tokens after these.
    pub(crate) cosines: Vec<f32>,
    pub(crate) sines: Vec<f32>,
}

impl Rotation {
    #[inline(always)]
    fn turn(&self, token: usize, line: &mut [f32]) {
        let Some(patch) = token.checked_sub(self.n_prefix) else {
            return;
        };
        let width = line.len();
        let cosines = &self.cosines[patch * width..][..width];
        let sines = &self.sines[patch * width..][..width];
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
/// `qkv` [rows, 3E], columns q, k, v, each split by head -> one vector after another, for every
/// object and head [L, d].
pub(crate) fn attend(
    kernels: &Kernels,
    precision: Precision,
    qkv: &Panels,
    n_heads: usize,
    spans: &[Span],
) -> Vec<f32> {
    let width = qkv.n_cols() / 3 / n_heads;
    let mut out = vec![0.0; qkv.n_rows() * n_heads * width];
    let mut heads = Vec::with_capacity(spans.len() * n_heads);
    let mut rest = &mut out[..];
    for span in spans {
        for head in 0..n_heads {
            let (mine, others) = rest.split_at_mut(span.n_tokens * width);
            heads.push((span, head, mine));
            rest = others;
        }
    }
    heads.into_par_iter().for_each(|(span, head, out)| {
        Head {
            kernels,
            precision,
            qkv,
            span,
            first_col: head * width,
            width,
        }
        .attend(out);
    });
    out
}

/// One head of one object.
struct Head<'a> {
    kernels: &'a Kernels,
    precision: Precision,
    qkv: &'a Panels,
    span: &'a Span,
    first_col: usize,
    width: usize,
}

impl Head<'_> {
    fn attend(&self, out: &mut [f32]) {
        let (n_tokens, width) = (self.span.n_tokens, self.width);
        let per_unit = self.precision.per_unit();
        let (n_units, n_key_units) = (width.div_ceil(per_unit), n_tokens.div_ceil(per_unit));
        // Keys: rows are tokens. Values: rows are channels, and tokens are summed over.
        let mut keys = vec![[0; MR]; n_tokens.div_ceil(MR) * n_units];
        let mut values = vec![[0; MR]; width.div_ceil(MR) * n_key_units];
        self.kernels.run(PackHead {
            head: self,
            keys: &mut keys,
            values: &mut values,
        });
        let mut strip = Strip {
            queries: vec![UnitRow::ZERO; n_units],
            scores: vec![Lanes::ZERO; n_tokens.next_multiple_of(MR)],
            weights: vec![UnitRow::ZERO; n_key_units],
        };
        let tile_of = self.kernels.tile(self.precision);
        let mut tile = [Lanes::ZERO; MR];
        for (idx, out) in out.chunks_mut(NR * width).enumerate() {
            self.kernels.run(PackQueries {
                head: self,
                first: idx * NR,
                queries: &mut strip.queries,
            });
            let scores = strip.scores.as_chunks_mut::<MR>().0;
            for (scores, keys) in scores.iter_mut().zip(keys.chunks_exact(n_units)) {
                tile_of(keys, &strip.queries, MR, scores);
            }
            let sums = self.kernels.run(Softmax {
                scores: &mut strip.scores[..n_tokens],
                precision: self.precision,
                weights: &mut strip.weights,
            });
            for (first, values) in (0..width).step_by(MR).zip(values.chunks_exact(n_key_units)) {
                let n = MR.min(width - first);
                tile_of(values, &strip.weights, n, &mut tile);
                self.kernels.run(Divide {
                    tile: &tile,
                    n,
                    sums: &sums,
                    out,
                    first,
                    width,
                });
            }
        }
    }

    /// Reads the query (`part` 0), key (1) or value (2) of one token.
    #[inline(always)]
    fn read(&self, part: usize, token: usize, line: &mut [f32]) {
        let first = part * self.qkv.n_cols() / 3 + self.first_col;
        self.qkv.read(self.span.first_row + token, first, line);
        if let (Some(rotation), 0 | 1) = (&self.span.rotation, part) {
            rotation.turn(token, line);
        }
    }
}

/// Room for 32 queries and what they ask.
struct Strip {
    queries: Vec<UnitRow>,
    scores: Vec<Lanes>,
    weights: Vec<UnitRow>,
}

/// Packs all keys and values of a head.
struct PackHead<'a> {
    head: &'a Head<'a>,
    keys: &'a mut [[u32; MR]],
    values: &'a mut [[u32; MR]],
}

impl Task for PackHead<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { head, keys, values } = self;
        let (n_tokens, width) = (head.span.n_tokens, head.width);
        let per_unit = head.precision.per_unit();
        let n_units = width.div_ceil(per_unit);
        let mut line = vec![0.0; n_units * per_unit];
        for token in 0..n_tokens {
            head.read(1, token, &mut line[..width]);
            let units = &mut keys[token / MR * n_units..][..n_units];
            interleave(&line, head.precision, token % MR, units);
        }
        let n_key_units = n_tokens.div_ceil(per_unit);
        let mut next = vec![0.0; width];
        for unit in 0..n_key_units {
            let token = unit * per_unit;
            head.read(2, token, &mut line[..width]);
            if per_unit == 2 && token + 1 < n_tokens {
                head.read(2, token + 1, &mut next);
            } else {
                next.fill(0.0);
            }
            for (channel, (&even, &odd)) in line[..width].iter().zip(&next).enumerate() {
                values[channel / MR * n_key_units + unit][channel % MR] = match head.precision {
                    Precision::F32 => even.to_bits(),
                    _ => bf16_pair(even, odd),
                };
            }
        }
    }
}

/// Packs 32 queries, scaled so that `2^score` is what softmax wants.
struct PackQueries<'a> {
    head: &'a Head<'a>,
    first: usize,
    queries: &'a mut [UnitRow],
}

impl Task for PackQueries<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            head,
            first,
            queries,
        } = self;
        let width = head.width;
        #[allow(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
        let scale = std::f32::consts::LOG2_E / (width as f32).sqrt();
        let per_unit = head.precision.per_unit();
        let mut line = vec![0.0; queries.len() * per_unit];
        // Columns past the last query keep what they had; nobody reads their results.
        for j in 0..NR.min(head.span.n_tokens - first) {
            head.read(0, first + j, &mut line[..width]);
            line.iter_mut().for_each(|value| *value *= scale);
            for (query, values) in queries.iter_mut().zip(line.chunks_exact(per_unit)) {
                query.0[j] = match values {
                    [value] => value.to_bits(),
                    _ => bf16_pair(values[0], values[1]),
                };
            }
        }
    }
}

/// Turns scores [keys][32 queries] into weights `2^(score - largest)`, packed; returns their sums.
struct Softmax<'a> {
    scores: &'a mut [Lanes],
    precision: Precision,
    weights: &'a mut [UnitRow],
}

impl Task for Softmax<'_> {
    type Output = Lanes;

    #[inline(always)]
    fn run(self) -> Lanes {
        let mut largest = [f32::NEG_INFINITY; NR];
        for scores in &*self.scores {
            for (most, &score) in largest.iter_mut().zip(&scores.0) {
                *most = if score > *most { score } else { *most };
            }
        }
        let mut sums = [0.0; NR];
        for scores in &mut *self.scores {
            for j in 0..NR {
                let weight = exp2(scores.0[j] - largest[j]);
                sums[j] += weight;
                scores.0[j] = weight;
            }
        }
        match self.precision {
            Precision::F32 => {
                for (weights, scores) in self.weights.iter_mut().zip(&*self.scores) {
                    weights.0 = scores.0.map(f32::to_bits);
                }
            }
            _ => {
                for (weights, pair) in self.weights.iter_mut().zip(self.scores.chunks(2)) {
                    let odd = pair.get(1).unwrap_or(&Lanes::ZERO);
                    for j in 0..NR {
                        weights.0[j] = bf16_pair(pair[0].0[j], odd.0[j]);
                    }
                }
            }
        }
        Lanes(sums)
    }
}

/// Writes a tile [channels][32 queries], divided by the queries' sums, as rows [query][channel].
struct Divide<'a> {
    tile: &'a Tile,
    n: usize,
    sums: &'a Lanes,
    out: &'a mut [f32],
    first: usize,
    width: usize,
}

impl Task for Divide<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (j, out) in self.out.chunks_exact_mut(self.width).enumerate() {
            let share = 1.0 / self.sums.0[j];
            for (out, lanes) in out[self.first..].iter_mut().zip(&self.tile[..self.n]) {
                *out = lanes.0[j] * share;
            }
        }
    }
}
