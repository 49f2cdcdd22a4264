//! The tiles for AVX-512, AVX512-BF16 and AVX512-VNNI.
//!
//! A tile keeps `ROWS` x 32 sums in registers; each step of k loads 32 columns and broadcasts one
//! unit of each row. A macro writes the loop once: a function generic over the instruction could
//! not be compiled for each one's features.

#![allow(
    unsafe_code,
    reason = "vector loads and stores, calls of detected features"
)]

use std::arch::x86_64::{
    __m256bh, __m256i, __m512bh, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh,
    _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_or_si512, _mm512_set1_epi32, _mm512_slli_epi32, _mm512_storeu_si512,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::mem::transmute;

use super::dispatch::Start;
use super::{Lanes, MR, UnitRow, portable};

macro_rules! tile {
    ($tile:ident, $sums:ident, $features:literal, $term:expr) => {
        /// Computes one tile; every number of rows has its own loop, so that sums stay in registers.
        pub(crate) fn $tile(
            rows: &[[u32; MR]],
            panel: &[UnitRow],
            start: Start<'_>,
            out: &mut [Lanes],
        ) {
            // SAFETY: this function is handed out only where the CPU has these features.
            unsafe {
                match out.len() {
                    0 => {}
                    1 => $sums::<1>(rows, panel, start, out),
                    2 => $sums::<2>(rows, panel, start, out),
                    3 => $sums::<3>(rows, panel, start, out),
                    4 => $sums::<4>(rows, panel, start, out),
                    5 => $sums::<5>(rows, panel, start, out),
                    6 => $sums::<6>(rows, panel, start, out),
                    7 => $sums::<7>(rows, panel, start, out),
                    8 => $sums::<8>(rows, panel, start, out),
                    9 => $sums::<9>(rows, panel, start, out),
                    10 => $sums::<10>(rows, panel, start, out),
                    11 => $sums::<11>(rows, panel, start, out),
                    _ => $sums::<MR>(rows, panel, start, out),
                }
            }
        }

        #[target_feature(enable = $features)]
        fn $sums<const ROWS: usize>(
            rows: &[[u32; MR]],
            panel: &[UnitRow],
            start: Start<'_>,
            out: &mut [Lanes],
        ) {
            let mut sums = [load(start.bias); ROWS];
            if start.is_sum {
                for i in 0..ROWS {
                    let before = load(&out[i]);
                    for half in 0..2 {
                        sums[i][half] = add(sums[i][half], before[half]);
                    }
                }
            }
            let (mut ahead, step) = fetches(start.ahead, panel);
            for (row, columns) in rows.iter().zip(panel) {
                let columns = columns.0.as_ptr();
                // SAFETY: 32 units are two vectors; a prefetch may name any address.
                let columns = unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                    ahead = ahead.wrapping_add(step);
                    [
                        _mm512_loadu_si512(columns.cast()),
                        _mm512_loadu_si512(columns.add(16).cast()),
                    ]
                };
                for i in 0..ROWS {
                    let unit = _mm512_set1_epi32(row[i].cast_signed());
                    sums[i][0] = $term(sums[i][0], unit, columns[0]);
                    sums[i][1] = $term(sums[i][1], unit, columns[1]);
                }
            }
            for i in 0..ROWS {
                let out = out[i].0.as_mut_ptr();
                // SAFETY: 32 results are two vectors.
                unsafe {
                    _mm512_storeu_si512(out.cast(), sums[i][0]);
                    _mm512_storeu_si512(out.add(16).cast(), sums[i][1]);
                }
            }
        }
    };
}

/// Turns `MR` lines of units into a packed tile.
pub(crate) fn interleave(lines: &[u32], units: &mut [[u32; MR]]) {
    // SAFETY: this function is handed out only where the CPU has these features.
    unsafe { transpose(lines, units) }
}

/// Transposes 12 x 16 units at a time: pairs of lines, then fours, then quarters of vectors.
#[target_feature(enable = "avx512f")]
fn transpose(lines: &[u32], units: &mut [[u32; MR]]) {
    let n_units = units.len();
    let (blocks, rest) = units.as_chunks_mut::<16>();
    for (idx, block) in blocks.iter_mut().enumerate() {
        for group in 0..MR / 4 {
            let line = |i: usize| {
                let line = &lines[(4 * group + i) * n_units + 16 * idx..][..16];
                // SAFETY: 16 units are one vector.
                unsafe { _mm512_loadu_si512(line.as_ptr().cast()) }
            };
            let [a, b, c, d] = [line(0), line(1), line(2), line(3)];
            let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (next_low, next_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            // Quarter q of column j holds the four lines' unit 4 q + j.
            let columns = [
                _mm512_unpacklo_epi64(low, next_low),
                _mm512_unpackhi_epi64(low, next_low),
                _mm512_unpacklo_epi64(high, next_high),
                _mm512_unpackhi_epi64(high, next_high),
            ];
            for (j, column) in columns.into_iter().enumerate() {
                // SAFETY: both are 64 bytes.
                let quarters = unsafe { transmute::<__m512i, [[u32; 4]; 4]>(column) };
                for (q, quarter) in quarters.into_iter().enumerate() {
                    block[4 * q + j][4 * group..4 * group + 4].copy_from_slice(&quarter);
                }
            }
        }
    }
    portable::interleave_from(16 * blocks.len(), lines, n_units, rest);
}

/// Rounds values to bf16, two a unit; an odd last value is paired with 0.
pub(crate) fn to_bf16(values: &[f32], units: &mut [u32]) {
    // SAFETY: this function is handed out only where the CPU has these features.
    unsafe { round(values, units) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn round(values: &[f32], units: &mut [u32]) {
    let (values, rest) = values.as_chunks::<32>();
    let (blocks, last) = units.split_at_mut(values.len() * 16);
    for (values, units) in values.iter().zip(blocks.as_chunks_mut::<16>().0) {
        // SAFETY: 16 values and 16 units are one vector each, as are 32 bf16.
        unsafe {
            let [low, high] = [0, 16].map(|first| _mm512_loadu_ps(values[first..].as_ptr()));
            let rounded = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(units.as_mut_ptr().cast(), rounded);
        }
    }
    portable::to_bf16(rest, last);
}

/// Rounds two neighbouring columns to bf16: one unit of each line, from its values of both.
pub(crate) fn pair_bf16(even: &[f32], odd: &[f32], units: &mut [u32]) {
    // SAFETY: this function is handed out only where the CPU has these features.
    unsafe { pair(even, odd, units) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn pair(even: &[f32], odd: &[f32], units: &mut [u32]) {
    let ((evens, even), (odds, odd)) = (even.as_chunks::<16>(), odd.as_chunks::<16>());
    let (blocks, last) = units.as_chunks_mut::<16>();
    for ((even, odd), units) in evens.iter().zip(odds).zip(blocks) {
        // SAFETY: 16 values and 16 units are one vector each, 16 bf16 half of one.
        unsafe {
            let [even, odd] = [even, odd].map(|values| {
                let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(values.as_ptr()));
                _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(rounded))
            });
            let pairs = _mm512_or_si512(even, _mm512_slli_epi32::<16>(odd));
            _mm512_storeu_si512(units.as_mut_ptr().cast(), pairs);
        }
    }
    portable::pair_bf16(even, odd, last);
}

/// Spreads the fetching of `ahead` over the steps of a panel: the first address, and bytes a step.
fn fetches(ahead: &[UnitRow], panel: &[UnitRow]) -> (*const u8, usize) {
    if ahead.is_empty() || panel.is_empty() {
        // Any address that is in cache already.
        return (panel.as_ptr().cast(), 0);
    }
    let step = size_of_val(ahead).div_ceil(panel.len());
    (ahead.as_ptr().cast(), step)
}

/// Loads the bits of 32 columns.
#[target_feature(enable = "avx512f")]
#[inline]
fn load(lanes: &Lanes) -> [__m512i; 2] {
    let lanes = lanes.0.as_ptr();
    // SAFETY: 32 columns are two vectors.
    unsafe {
        [
            _mm512_loadu_si512(lanes.cast()),
            _mm512_loadu_si512(lanes.add(16).cast()),
        ]
    }
}

/// Adds f32.
#[target_feature(enable = "avx512f")]
#[inline]
fn add(left: __m512i, right: __m512i) -> __m512i {
    _mm512_castps_si512(_mm512_add_ps(
        _mm512_castsi512_ps(left),
        _mm512_castsi512_ps(right),
    ))
}

tile!(tile_f32, sum_f32, "avx512f", |sum, row, column| {
    let [sum, row, column] = [sum, row, column].map(|bits| _mm512_castsi512_ps(bits));
    _mm512_castps_si512(_mm512_fmadd_ps(row, column, sum))
});

tile!(
    tile_bf16,
    sum_bf16,
    "avx512f,avx512bf16",
    |sum, row, column| {
        // SAFETY: a vector of 32 bf16 is 512 bits, and every bit pattern is valid.
        let [row, column] =
            unsafe { [row, column].map(|bits| transmute::<__m512i, __m512bh>(bits)) };
        _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum), row, column))
    }
);

tile!(
    tile_int8,
    sum_int8,
    "avx512f,avx512vnni",
    |sum, row, column| { _mm512_dpbusd_epi32(sum, row, column) }
);
