//! The left factor of a product: rows of activations, packed for the tiles.

use rayon::prelude::*;

use super::dispatch::{Kernels, Task};
use super::{MR, Precision, bf16_bits};

/// What the u8 of an int8 activation holds for 0.
pub(crate) const INT8_ZERO: i32 = 128;

/// Where rows come from. `fill` must be `#[inline(always)]`: it is compiled for the CPU's
/// instruction set where it is called.
pub(crate) trait Source: Sync {
    /// Writes the values of one row.
    fn fill(&self, row: usize, line: &mut [f32]);
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
    /// Packs `n_rows` rows of `n_values` values.
    ///
    /// Int8 rows are scaled by their own largest magnitude and stored as u8 with 128 for 0.
    pub(crate) fn pack(
        kernels: &Kernels,
        precision: Precision,
        [n_rows, n_values]: [usize; 2],
        source: &impl Source,
    ) -> Self {
        let n_units = n_values.div_ceil(precision.per_unit());
        let n_tiles = n_rows.div_ceil(MR);
        let mut units = vec![[0; MR]; n_tiles * n_units];
        let mut scales = vec![1.0; n_tiles * MR];
        units
            .par_chunks_mut(n_units)
            .zip(scales.par_chunks_mut(MR))
            .enumerate()
            .for_each(|(tile, (units, scales))| {
                let rows = tile * MR..n_rows.min((tile + 1) * MR);
                kernels.run(PackTile {
                    source,
                    rows,
                    line: &mut vec![0.0; n_units * precision.per_unit()],
                    n_values,
                    precision,
                    units,
                    scales,
                });
            });
        Self {
            units,
            n_rows,
            n_units,
            precision,
            scales,
        }
    }
}

/// Packs the rows of one tile.
struct PackTile<'a, S> {
    source: &'a S,
    rows: std::ops::Range<usize>,
    /// Room for one row, zeros at its end.
    line: &'a mut [f32],
    n_values: usize,
    precision: Precision,
    units: &'a mut [[u32; MR]],
    scales: &'a mut [f32],
}

impl<S: Source> Task for PackTile<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (i, row) in self.rows.enumerate() {
            self.source.fill(row, &mut self.line[..self.n_values]);
            self.scales[i] = interleave(self.line, self.precision, i, self.units);
        }
    }
}

/// Writes a line as row `i` of a packed tile; returns its scale.
#[inline(always)]
pub(super) fn interleave(
    line: &[f32],
    precision: Precision,
    i: usize,
    units: &mut [[u32; MR]],
) -> f32 {
    match precision {
        Precision::F32 => {
            for (unit, value) in units.iter_mut().zip(line) {
                unit[i] = value.to_bits();
            }
            1.0
        }
        Precision::Bf16 => {
            for (unit, pair) in units.iter_mut().zip(line.as_chunks::<2>().0) {
                unit[i] = bf16_pair(pair[0], pair[1]);
            }
            1.0
        }
        Precision::Int8 => {
            let largest = line
                .iter()
                .fold(0.0, |most: f32, value| most.max(value.abs()));
            // A row of zeros (or of NaN only) has no scale; its products are 0.
            let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
            let steps = 1.0 / scale;
            for (unit, four) in units.iter_mut().zip(line.as_chunks::<4>().0) {
                let bytes = four.map(|value| quantised(value * steps) + INT8_ZERO);
                unit[i] =
                    u32::from_le_bytes(bytes.map(|byte| byte.cast_unsigned().to_le_bytes()[0]));
            }
            scale
        }
    }
}

/// Returns two values as bf16, the first in the low half.
#[inline(always)]
pub(super) fn bf16_pair(even: f32, odd: f32) -> u32 {
    bf16_bits(even) | bf16_bits(odd) << 16
}

/// Rounds to the nearest integer in -127..=127.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "clamped before")]
pub(super) fn quantised(steps: f32) -> i32 {
    /// Adding 1.5 * 2^23 leaves the rounded integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let bits = (steps.clamp(-127.0, 127.0) + ROUND).to_bits().cast_signed();
    bits - ROUND.to_bits().cast_signed()
}
