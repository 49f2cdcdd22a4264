//! The tiles in plain Rust: correct on every CPU, and the reference of the fast ones.

use super::dispatch::Start;
use super::rows::{bf16_pair, convert};
use super::{Lanes, MR, Precision, UnitRow};

/// Both factors f32.
pub(crate) fn tile_f32(rows: &[[u32; MR]], panel: &[UnitRow], start: Start<'_>, out: &mut [Lanes]) {
    product(rows, panel, start, out, |sum, row, column| {
        sum + f32::from_bits(row) * f32::from_bits(column)
    });
}

/// Both factors pairs of bf16, the even one in the low half.
pub(crate) fn tile_bf16(
    rows: &[[u32; MR]],
    panel: &[UnitRow],
    start: Start<'_>,
    out: &mut [Lanes],
) {
    accumulate_bf16(rows, panel, start, out);
}

/// `tile_bf16`, to be compiled into functions for other instruction sets.
#[inline(always)]
pub(crate) fn accumulate_bf16(
    rows: &[[u32; MR]],
    panel: &[UnitRow],
    start: Start<'_>,
    out: &mut [Lanes],
) {
    // A bf16 is the high half of an f32.
    let even = |unit: u32| f32::from_bits(unit << 16);
    let odd = |unit: u32| f32::from_bits(unit & 0xffff_0000);
    product(rows, panel, start, out, |sum, row, column| {
        sum + odd(row) * odd(column) + even(row) * even(column)
    });
}

/// Rows of four u8, columns of four i8, first in the lowest byte; sums are i32.
pub(crate) fn tile_int8(
    rows: &[[u32; MR]],
    panel: &[UnitRow],
    start: Start<'_>,
    out: &mut [Lanes],
) {
    accumulate_int8(rows, panel, start, out);
}

/// `tile_int8`, to be compiled into functions for other instruction sets.
#[inline(always)]
pub(crate) fn accumulate_int8(
    rows: &[[u32; MR]],
    panel: &[UnitRow],
    start: Start<'_>,
    out: &mut [Lanes],
) {
    product(rows, panel, start, out, |sum, row, column| {
        let (row, column) = (row.to_le_bytes(), column.to_le_bytes());
        let mut total = sum.to_bits().cast_signed();
        for (row, column) in row.into_iter().zip(column) {
            total = total.wrapping_add(i32::from(row) * i32::from(column.cast_signed()));
        }
        f32::from_bits(total.cast_unsigned())
    });
}

/// Rounds values to bf16, two a unit; an odd last value is paired with 0.
pub(crate) fn to_bf16(values: &[f32], units: &mut [u32]) {
    convert(values, Precision::Bf16, units);
}

/// Rounds two neighbouring columns to bf16: one unit of each line, from its values of both.
pub(crate) fn pair_bf16(even: &[f32], odd: &[f32], units: &mut [u32]) {
    for ((&even, &odd), unit) in even.iter().zip(odd).zip(units) {
        *unit = bf16_pair(even, odd);
    }
}

/// Turns `MR` lines of units into a packed tile.
pub(crate) fn interleave(lines: &[u32], units: &mut [[u32; MR]]) {
    interleave_from(0, lines, units.len(), units);
}

/// The part of `interleave` whose first unit is `first`.
pub(crate) fn interleave_from(
    first: usize,
    lines: &[u32],
    n_units: usize,
    units: &mut [[u32; MR]],
) {
    for (k, units) in units.iter_mut().enumerate() {
        for (i, unit) in units.iter_mut().enumerate() {
            *unit = lines[i * n_units + first + k];
        }
    }
}

/// Sums `term` over k into every result of the tile.
#[inline(always)]
fn product(
    rows: &[[u32; MR]],
    panel: &[UnitRow],
    start: Start<'_>,
    out: &mut [Lanes],
    term: impl Fn(f32, u32, u32) -> f32,
) {
    for (i, out) in out.iter_mut().enumerate() {
        let mut sums = start.bias.0;
        if start.is_sum {
            for (sum, &before) in sums.iter_mut().zip(&out.0) {
                *sum += before;
            }
        }
        for (row, columns) in rows.iter().zip(panel) {
            for (sum, &column) in sums.iter_mut().zip(&columns.0) {
                *sum = term(*sum, row[i], column);
            }
        }
        *out = Lanes(sums);
    }
}
