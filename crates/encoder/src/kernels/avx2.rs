//! The tiles for AVX2 and FMA.
//!
//! A tile is computed in parts of 6 rows and 16 columns, whose 12 sums leave 4 of 16 registers.
//! bf16 and int8 are the portable loops compiled for AVX2: correct, but not tuned for speed.

#![allow(
    unsafe_code,
    reason = "vector loads and stores, calls of detected features"
)]

use std::arch::x86_64::{
    __m256, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps,
};

use super::dispatch::Start;
use super::{Lanes, MR, UnitRow, portable};

/// Rows of one part.
const PART: usize = 6;

/// Both factors f32.
pub(crate) fn tile_f32(rows: &[[u32; MR]], panel: &[UnitRow], start: Start<'_>, out: &mut [Lanes]) {
    for (first_row, out) in (0..MR).step_by(PART).zip(out.chunks_mut(PART)) {
        for first_col in [0, 16] {
            let first = [first_row, first_col];
            // SAFETY: this function is handed out only where the CPU has AVX2 and FMA.
            unsafe {
                match out.len() {
                    1 => sum_f32::<1>(rows, panel, first, start, out),
                    2 => sum_f32::<2>(rows, panel, first, start, out),
                    3 => sum_f32::<3>(rows, panel, first, start, out),
                    4 => sum_f32::<4>(rows, panel, first, start, out),
                    5 => sum_f32::<5>(rows, panel, first, start, out),
                    _ => sum_f32::<PART>(rows, panel, first, start, out),
                }
            }
        }
    }
}

/// Both factors pairs of bf16.
pub(crate) fn tile_bf16(
    rows: &[[u32; MR]],
    panel: &[UnitRow],
    start: Start<'_>,
    out: &mut [Lanes],
) {
    // SAFETY: this function is handed out only where the CPU has AVX2 and FMA.
    unsafe { sum_bf16(rows, panel, start, out) }
}

/// Rows of four u8, columns of four i8.
pub(crate) fn tile_int8(
    rows: &[[u32; MR]],
    panel: &[UnitRow],
    start: Start<'_>,
    out: &mut [Lanes],
) {
    // SAFETY: this function is handed out only where the CPU has AVX2 and FMA.
    unsafe { sum_int8(rows, panel, start, out) }
}

#[target_feature(enable = "avx2,fma")]
fn sum_f32<const ROWS: usize>(
    rows: &[[u32; MR]],
    panel: &[UnitRow],
    [first_row, first_col]: [usize; 2],
    start: Start<'_>,
    out: &mut [Lanes],
) {
    let mut sums = [load(start.bias, first_col); ROWS];
    if start.is_sum {
        for i in 0..ROWS {
            let before = load(&out[i], first_col);
            sums[i][0] = _mm256_add_ps(sums[i][0], before[0]);
            sums[i][1] = _mm256_add_ps(sums[i][1], before[1]);
        }
    }
    for (row, columns) in rows.iter().zip(panel) {
        let columns = columns.0[first_col..first_col + 16].as_ptr().cast::<f32>();
        // SAFETY: 16 columns are two vectors.
        let columns = unsafe { [_mm256_loadu_ps(columns), _mm256_loadu_ps(columns.add(8))] };
        for i in 0..ROWS {
            let unit = _mm256_set1_ps(f32::from_bits(row[first_row + i]));
            sums[i][0] = _mm256_fmadd_ps(unit, columns[0], sums[i][0]);
            sums[i][1] = _mm256_fmadd_ps(unit, columns[1], sums[i][1]);
        }
    }
    for i in 0..ROWS {
        let out = out[i].0[first_col..first_col + 16].as_mut_ptr();
        // SAFETY: 16 results are two vectors.
        unsafe {
            _mm256_storeu_ps(out, sums[i][0]);
            _mm256_storeu_ps(out.add(8), sums[i][1]);
        }
    }
}

/// Loads 16 columns from `first_col` on.
#[target_feature(enable = "avx2")]
#[inline]
fn load(lanes: &Lanes, first_col: usize) -> [__m256; 2] {
    let lanes = lanes.0[first_col..first_col + 16].as_ptr();
    // SAFETY: 16 columns are two vectors.
    unsafe { [_mm256_loadu_ps(lanes), _mm256_loadu_ps(lanes.add(8))] }
}

#[target_feature(enable = "avx2,fma")]
fn sum_bf16(rows: &[[u32; MR]], panel: &[UnitRow], start: Start<'_>, out: &mut [Lanes]) {
    portable::accumulate_bf16(rows, panel, start, out);
}

#[target_feature(enable = "avx2,fma")]
fn sum_int8(rows: &[[u32; MR]], panel: &[UnitRow], start: Start<'_>, out: &mut [Lanes]) {
    portable::accumulate_int8(rows, panel, start, out);
}
