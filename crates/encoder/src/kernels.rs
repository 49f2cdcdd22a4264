//! The arithmetic of inference: packed matrices, and the loops around one small tile of a product.
//!
//! Every product is `out[M, N] = rows[M, K] x linear[N, K]^T`, cut into tiles of `MR` rows times
//! `NR` columns that stay in registers. Both factors are packed so that a tile reads them front to
//! back. A *unit* is 32 bits along K: one f32, two bf16 or four int8, so one layout and one loop
//! serve all three precisions.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dispatch;
mod linear;
mod math;
mod pack;
mod portable;
mod rows;

pub(crate) use attention::{HeadOutputs, Rotation, Span, attend};
pub use dispatch::Task;
pub(crate) use dispatch::{Kernels, Start};
pub(crate) use linear::{Activation, Finish, Linear, multiply};
pub(crate) use math::layer_norm;
pub use math::{exp2, gelu, gelu_and_slope};
pub(crate) use pack::CpuPack;
pub(crate) use rows::{Rows, Source};

use std::ops::Range;

/// Rows of one tile. 12 x 32 results fill 24 of the 32 vector registers of AVX-512.
pub(crate) const MR: usize = 12;

/// Columns of one tile.
pub(crate) const NR: usize = 32;

/// `NR` neighbouring columns of one row.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Lanes(pub(crate) [f32; NR]);

impl Lanes {
    pub(crate) const ZERO: Self = Self([0.0; NR]);
}

/// One unit of each of `NR` columns.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct UnitRow(pub(crate) [u32; NR]);

impl UnitRow {
    pub(crate) const ZERO: Self = Self([0; NR]);
}

/// A matrix stored as panels of `NR` columns: [ceil(cols / NR)][rows][NR].
///
/// Threads write whole panels, so no two touch the same memory.
#[derive(Debug)]
pub(crate) struct Panels {
    lanes: Vec<Lanes>,
    n_rows: usize,
    n_cols: usize,
}

impl Panels {
    pub(crate) fn zeroed(n_rows: usize, n_cols: usize) -> Self {
        Self {
            lanes: vec![Lanes::ZERO; n_rows * n_cols.div_ceil(NR)],
            n_rows,
            n_cols,
        }
    }

    /// Takes another shape; the values are arbitrary afterwards.
    pub(crate) fn reshape(&mut self, n_rows: usize, n_cols: usize) {
        self.lanes.resize(n_rows * n_cols.div_ceil(NR), Lanes::ZERO);
        (self.n_rows, self.n_cols) = (n_rows, n_cols);
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(crate) fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Copies the columns `first..first + line.len()` of one row.
    #[inline(always)]
    pub(crate) fn read(&self, row: usize, first: usize, line: &mut [f32]) {
        let (mut col, mut rest) = (first, line);
        if col.is_multiple_of(NR) {
            // Whole panels are copied as vectors, without a call.
            let (whole, remainder) = rest.as_chunks_mut::<NR>();
            for chunk in whole {
                *chunk = self.lanes[col / NR * self.n_rows + row].0;
                col += NR;
            }
            rest = remainder;
        }
        while !rest.is_empty() {
            let lanes = &self.lanes[col / NR * self.n_rows + row].0[col % NR..];
            let n = lanes.len().min(rest.len());
            let (now, later) = rest.split_at_mut(n);
            now.copy_from_slice(&lanes[..n]);
            (col, rest) = (col + n, later);
        }
    }

    /// Copies the columns `first..` of a few neighbouring rows, one line after another.
    ///
    /// The copy goes panel by panel, where neighbouring rows are consecutive in memory.
    #[inline(always)]
    pub(crate) fn read_rows(&self, rows: Range<usize>, first: usize, lines: &mut [f32]) {
        let width = lines.len() / rows.len();
        if !first.is_multiple_of(NR) || !width.is_multiple_of(NR) {
            for (row, line) in rows.zip(lines.chunks_exact_mut(width)) {
                self.read(row, first, line);
            }
            return;
        }
        for panel in 0..width / NR {
            let lanes = &self.lanes[(first / NR + panel) * self.n_rows..][rows.clone()];
            for (row, lanes) in lanes.iter().enumerate() {
                let line = &mut lines[row * width + panel * NR..];
                if let Some(part) = line.first_chunk_mut::<NR>() {
                    *part = lanes.0;
                }
            }
        }
    }

    /// Returns the panels from left to right: `NR` columns of every row each.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &[Lanes]> {
        self.lanes.chunks_exact(self.n_rows.max(1))
    }

    /// Returns the panels from left to right, mutably.
    pub(crate) fn columns_mut(&mut self) -> impl Iterator<Item = &mut [Lanes]> {
        self.lanes.chunks_exact_mut(self.n_rows.max(1))
    }

    /// Overwrites one row.
    pub(crate) fn write(&mut self, row: usize, line: &[f32]) {
        for (panel, values) in line.chunks(NR).enumerate() {
            self.lanes[panel * self.n_rows + row].0[..values.len()].copy_from_slice(values);
        }
    }
}

/// The numbers that products are computed with. Sums, norms and softmax are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// bfloat16 factors, f32 sums.
    Bf16,
    /// 8-bit integers: weights scaled per output channel, activations per token; attention in
    /// bf16 where the CPU has it, else f32.
    Int8,
}

impl Precision {
    /// Returns how many values along K one unit holds.
    pub(crate) fn per_unit(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }
}

/// Rounds to the nearest bfloat16, ties to even, and returns its 16 bits; NaN stays NaN.
#[inline(always)]
pub(crate) fn bf16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    // Rounding could carry the mantissa of a NaN into infinity or beyond, so a NaN is truncated and
    // made quiet.
    if value.is_nan() {
        (bits >> 16) | 0x40
    } else {
        rounded
    }
}

#[cfg(test)]
mod tests;
