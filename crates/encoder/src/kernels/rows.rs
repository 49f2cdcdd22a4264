//! The left factor of a product: rows of activations, packed for the tiles.

use std::ops::Range;

use rayon::prelude::*;

use super::dispatch::{Kernels, Task};
use super::{MR, Precision, bf16_bits};

/// The u8 that stands for 0 in int8 activations.
pub(super) const INT8_ZERO: i32 = 128;

/// A source of rows. `fill` must be `#[inline(always)]`, so that the caller compiles it for the
/// CPU's instruction set.
pub(crate) trait Source: Sync {
    /// Writes the values of a few neighbouring rows, one line after another; `FMA` as in `math`.
    fn fill<const FMA: bool>(&self, rows: Range<usize>, lines: &mut [f32]);
}

/// Packed rows: [ceil(M / MR)][units of K][MR].
#[derive(Debug)]
pub(crate) struct Rows {
    pub(super) units: Vec<[u32; MR]>,
    pub(super) n_rows: usize,
    pub(super) n_units: usize,
    pub(super) precision: Precision,
    /// The value of one step of an int8 row; 1 for floats.
    pub(super) scales: Vec<f32>,
}

impl Rows {
    /// Returns no rows, and memory for none.
    pub(crate) fn empty(precision: Precision) -> Self {
        Self {
            units: Vec::new(),
            n_rows: 0,
            n_units: 0,
            precision,
            scales: Vec::new(),
        }
    }

    /// Packs `n_rows` rows of `n_values` values; earlier rows are overwritten.
    ///
    /// Int8 rows are scaled by their own largest magnitude and stored as u8 with 128 for 0.
    pub(crate) fn pack(
        &mut self,
        kernels: &Kernels,
        [n_rows, n_values]: [usize; 2],
        source: &impl Source,
    ) {
        let precision = self.precision;
        let n_units = n_values.div_ceil(precision.per_unit());
        let n_tiles = n_rows.div_ceil(MR);
        (self.n_rows, self.n_units) = (n_rows, n_units);
        // Rows past the last of a tile keep old values; no kernel reads them.
        self.units.resize(n_tiles * n_units, [0; MR]);
        self.scales.resize(n_tiles * MR, 1.0);
        self.units
            .par_chunks_mut(n_units)
            .zip(self.scales.par_chunks_mut(MR))
            .enumerate()
            .for_each_init(
                || (vec![0.0; MR * n_values], vec![0; MR * n_units]),
                |(values, lines), (tile, (units, scales))| {
                    let rows = tile * MR..n_rows.min((tile + 1) * MR);
                    let values = &mut values[..rows.len() * n_values];
                    kernels.run(PackTile {
                        source,
                        rows,
                        precision,
                        values,
                        lines,
                        scales,
                    });
                    // All lines are interleaved at once, because each would otherwise read and write
                    // the whole tile.
                    (kernels.interleave)(lines, units);
                },
            );
    }
}

/// Turns the rows of one tile into lines of units.
struct PackTile<'a, S> {
    source: &'a S,
    rows: Range<usize>,
    precision: Precision,
    /// Room for [rows][K].
    values: &'a mut [f32],
    /// Room for [MR][units of K].
    lines: &'a mut [u32],
    scales: &'a mut [f32],
}

impl<S: Source> Task for PackTile<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let (n_units, n_values) = (self.lines.len() / MR, self.values.len() / self.rows.len());
        self.source.fill::<FMA>(self.rows, self.values);
        let values = self.values.chunks_exact(n_values);
        let lines = self.lines.chunks_exact_mut(n_units);
        for ((values, scale), line) in values.zip(self.scales).zip(lines) {
            *scale = convert(values, self.precision, line);
        }
    }
}

/// Turns values into units, with zeros at the end of the last; returns the value of one int8 step.
#[inline(always)]
pub(super) fn convert(values: &[f32], precision: Precision, units: &mut [u32]) -> f32 {
    match precision {
        Precision::F32 => {
            for (unit, value) in units.iter_mut().zip(values) {
                *unit = value.to_bits();
            }
            1.0
        }
        Precision::Bf16 => {
            let (pairs, rest) = values.as_chunks::<2>();
            for (unit, pair) in units.iter_mut().zip(pairs) {
                *unit = bf16_pair(pair[0], pair[1]);
            }
            if let ([last], Some(unit)) = (rest, units.last_mut()) {
                *unit = bf16_pair(*last, 0.0);
            }
            1.0
        }
        Precision::Int8 => {
            let scale = step_of(values);
            let steps = 1.0 / scale;
            let (fours, rest) = values.as_chunks::<4>();
            for (unit, four) in units.iter_mut().zip(fours) {
                *unit = int8_four(*four, steps);
            }
            if let ([_, ..], Some(unit)) = (rest, units.last_mut()) {
                let mut four = [0.0; 4];
                four[..rest.len()].copy_from_slice(rest);
                *unit = int8_four(four, steps);
            }
            scale
        }
    }
}

/// Returns four activations as u8, the first in the lowest byte.
#[inline(always)]
fn int8_four(four: [f32; 4], steps: f32) -> u32 {
    let bytes = four.map(|x| (quantised(x * steps) + INT8_ZERO).cast_unsigned());
    bytes[0] | bytes[1] << 8 | bytes[2] << 16 | bytes[3] << 24
}

/// Returns two values as bf16, the first in the low half.
#[inline(always)]
pub(crate) fn bf16_pair(even: f32, odd: f32) -> u32 {
    bf16_bits(even) | bf16_bits(odd) << 16
}

/// `bf16_pair` of numbers in 0..=1, rounded half up: a tie is off by no more than a tie may be.
#[inline(always)]
pub(super) fn bf16_pair_of_shares(even: f32, odd: f32) -> u32 {
    (even.to_bits() + 0x8000) >> 16 | ((odd.to_bits() + 0x8000) & 0xffff_0000)
}

/// Returns the value of one of 127 steps to the largest magnitude; NaN if a value is not finite, so
/// that the products show it.
#[inline(always)]
pub(super) fn step_of(values: &[f32]) -> f32 {
    let mut most = [0.0_f32; 16];
    // 0 if all values are finite, else NaN.
    let mut zeros = [0.0_f32; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            let magnitude = chunk[i].abs();
            most[i] = if magnitude > most[i] {
                magnitude
            } else {
                most[i]
            };
            zeros[i] += chunk[i] * 0.0;
        }
    }
    let largest = most
        .into_iter()
        .chain(rest.iter().map(|value| value.abs()))
        .fold(0.0_f32, f32::max);
    let zero = zeros.iter().sum::<f32>() + rest.iter().map(|value| value * 0.0).sum::<f32>();
    if zero.is_nan() {
        f32::NAN
    } else if largest < 127.0 * f32::MIN_POSITIVE {
        // The step would be too small to have a reciprocal, and the products are nearly 0.
        1.0
    } else {
        largest / 127.0
    }
}

/// Rounds to the nearest integer in -127..=127.
#[inline(always)]
pub(super) fn quantised(steps: f32) -> i32 {
    /// Adding 1.5 * 2^23 leaves the rounded integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let low = if steps < -127.0 { -127.0 } else { steps };
    let clamped = if low > 127.0 { 127.0 } else { low };
    (clamped + ROUND).to_bits().cast_signed() - ROUND.to_bits().cast_signed()
}
