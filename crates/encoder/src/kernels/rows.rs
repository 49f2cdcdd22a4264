//! The left factor of a product: rows of activations, packed for the tiles.

use rayon::prelude::*;

use super::dispatch::{Kernels, Task};
use super::{MR, Precision, bf16_bits};

/// What the u8 of an int8 activation holds for 0.
pub(super) const INT8_ZERO: i32 = 128;

/// Where rows come from. `fill` must be `#[inline(always)]`: it is compiled for the CPU's
/// instruction set where it is called.
pub(crate) trait Source: Sync {
    /// Writes the values of one row; `FMA` as in `math`.
    fn fill<const FMA: bool>(&self, row: usize, line: &mut [f32]);
}

/// Packed rows: [ceil(M / MR)][units of K][MR].
#[derive(Debug)]
pub(crate) struct Rows {
    pub(super) units: Vec<[u32; MR]>,
    pub(super) n_rows: usize,
    pub(super) n_units: usize,
    pub(super) precision: Precision,
    /// What one step of an int8 row stands for; 1 for floats.
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

    /// Packs `n_rows` rows of `n_values` values in place of what was there.
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
        // Rows past the last of a tile keep what they had; no kernel reads them.
        self.units.resize(n_tiles * n_units, [0; MR]);
        self.scales.resize(n_tiles * MR, 1.0);
        self.units
            .par_chunks_mut(n_units)
            .zip(self.scales.par_chunks_mut(MR))
            .enumerate()
            .for_each_init(
                || Line::new(precision, n_values),
                |line, (tile, (units, scales))| {
                    let rows = tile * MR..n_rows.min((tile + 1) * MR);
                    kernels.run(PackTile {
                        source,
                        rows,
                        line,
                        units,
                        scales,
                    });
                },
            );
    }
}

/// Packs the rows of one tile.
struct PackTile<'a, S> {
    source: &'a S,
    rows: std::ops::Range<usize>,
    line: &'a mut Line,
    units: &'a mut [[u32; MR]],
    scales: &'a mut [f32],
}

impl<S: Source> Task for PackTile<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (i, row) in self.rows.enumerate() {
            self.source.fill::<FMA>(row, self.line.values_mut());
            self.scales[i] = self.line.convert();
            for (unit, &converted) in self.units.iter_mut().zip(&self.line.units) {
                unit[i] = converted;
            }
        }
    }
}

/// One row on its way into units.
///
/// It is converted as a whole before it is spread over a tile, so that the conversion is vector
/// code.
#[derive(Debug)]
pub(super) struct Line {
    /// Zeros after the last value.
    values: Vec<f32>,
    n_values: usize,
    pub(super) units: Vec<u32>,
    precision: Precision,
}

impl Line {
    pub(super) fn new(precision: Precision, n_values: usize) -> Self {
        let n_units = n_values.div_ceil(precision.per_unit());
        Self {
            values: vec![0.0; n_units * precision.per_unit()],
            n_values,
            units: vec![0; n_units],
            precision,
        }
    }

    #[inline(always)]
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.n_values]
    }

    /// Turns the values into units; returns what one step of an int8 stands for.
    #[inline(always)]
    pub(super) fn convert(&mut self) -> f32 {
        match self.precision {
            Precision::F32 => {
                for (unit, value) in self.units.iter_mut().zip(&self.values) {
                    *unit = value.to_bits();
                }
                1.0
            }
            Precision::Bf16 => {
                let pairs = self.values.as_chunks::<2>().0;
                for (unit, pair) in self.units.iter_mut().zip(pairs) {
                    *unit = bf16_pair(pair[0], pair[1]);
                }
                1.0
            }
            Precision::Int8 => {
                let scale = step_of(&self.values);
                let steps = 1.0 / scale;
                let fours = self.values.as_chunks::<4>().0;
                for (unit, four) in self.units.iter_mut().zip(fours) {
                    let bytes = four.map(|x| (quantised(x * steps) + INT8_ZERO).cast_unsigned());
                    *unit = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | bytes[3] << 24;
                }
                scale
            }
        }
    }
}

/// Returns two values as bf16, the first in the low half.
#[inline(always)]
pub(super) fn bf16_pair(even: f32, odd: f32) -> u32 {
    bf16_bits(even) | bf16_bits(odd) << 16
}

/// Returns what one of 127 steps to the largest magnitude stands for.
#[inline(always)]
pub(super) fn step_of(values: &[f32]) -> f32 {
    let mut most = [0.0_f32; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            let magnitude = chunk[i].abs();
            most[i] = if magnitude > most[i] {
                magnitude
            } else {
                most[i]
            };
        }
    }
    let largest = most
        .into_iter()
        .chain(rest.iter().map(|value| value.abs()))
        .fold(0.0_f32, f32::max);
    // A line of zeros has no scale, and its products are 0.
    if largest > 0.0 { largest / 127.0 } else { 1.0 }
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
