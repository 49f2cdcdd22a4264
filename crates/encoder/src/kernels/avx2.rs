//! The tiles for AVX2 and FMA.
//!
//! A tile is computed in parts of 6 rows and 16 columns, whose 12 sums leave 4 of 16 registers.
//! bf16 and int8 are the portable loops compiled for AVX2: correct, and not made to be fast.

#![allow(
    unsafe_code,
    reason = "vector loads and stores, calls of detected features"
)]

use std::arch::x86_64::{
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::{MR, Tile, UnitRow, portable};

/// Rows of one part.
const PART: usize = 6;

/// Both factors f32.
pub(crate) fn tile_f32(rows: &[[u32; MR]], panel: &[UnitRow], n_rows: usize, tile: &mut Tile) {
    for first in (0..n_rows).step_by(PART) {
        for half in [0, 16] {
            // SAFETY: this function is handed out only where the CPU has AVX2 and FMA.
            unsafe {
                match n_rows - first {
                    1 => sum_f32::<1>(rows, panel, [first, half], tile),
                    2 => sum_f32::<2>(rows, panel, [first, half], tile),
                    3 => sum_f32::<3>(rows, panel, [first, half], tile),
                    4 => sum_f32::<4>(rows, panel, [first, half], tile),
                    5 => sum_f32::<5>(rows, panel, [first, half], tile),
                    _ => sum_f32::<PART>(rows, panel, [first, half], tile),
                }
            }
        }
    }
}

/// Both factors pairs of bf16.
pub(crate) fn tile_bf16(rows: &[[u32; MR]], panel: &[UnitRow], n_rows: usize, tile: &mut Tile) {
    // SAFETY: this function is handed out only where the CPU has AVX2 and FMA.
    unsafe { sum_bf16(rows, panel, n_rows, tile) }
}

/// Rows of four u8, columns of four i8.
pub(crate) fn tile_int8(rows: &[[u32; MR]], panel: &[UnitRow], n_rows: usize, tile: &mut Tile) {
    // SAFETY: this function is handed out only where the CPU has AVX2 and FMA.
    unsafe { sum_int8(rows, panel, n_rows, tile) }
}

#[target_feature(enable = "avx2,fma")]
fn sum_f32<const ROWS: usize>(
    rows: &[[u32; MR]],
    panel: &[UnitRow],
    [first, half]: [usize; 2],
    tile: &mut Tile,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    for (row, columns) in rows.iter().zip(panel) {
        let columns = columns.0[half..half + 16].as_ptr().cast::<f32>();
        // SAFETY: 16 columns are two vectors.
        let columns = unsafe { [_mm256_loadu_ps(columns), _mm256_loadu_ps(columns.add(8))] };
        for (sums, &unit) in sums.iter_mut().zip(&row[first..]) {
            let unit = _mm256_set1_ps(f32::from_bits(unit));
            sums[0] = _mm256_fmadd_ps(unit, columns[0], sums[0]);
            sums[1] = _mm256_fmadd_ps(unit, columns[1], sums[1]);
        }
    }
    for (out, sums) in tile[first..].iter_mut().zip(sums) {
        let out = out.0[half..half + 16].as_mut_ptr();
        // SAFETY: 16 results are two vectors.
        unsafe {
            _mm256_storeu_ps(out, sums[0]);
            _mm256_storeu_ps(out.add(8), sums[1]);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn sum_bf16(rows: &[[u32; MR]], panel: &[UnitRow], n_rows: usize, tile: &mut Tile) {
    portable::accumulate_bf16(rows, panel, n_rows, tile);
}

#[target_feature(enable = "avx2,fma")]
fn sum_int8(rows: &[[u32; MR]], panel: &[UnitRow], n_rows: usize, tile: &mut Tile) {
    portable::accumulate_int8(rows, panel, n_rows, tile);
}
