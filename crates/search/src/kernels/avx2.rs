//! AVX2 and FMA: two vectors of 8 numbers for the 16 sums of a dot product.

#![allow(
    unsafe_code,
    reason = "vector loads and stores, calls of detected features"
)]
#![allow(
    clippy::needless_range_loop,
    reason = "loops over registers run over several arrays"
)]

use std::arch::x86_64::{
    __m256, __m256i, _mm_add_epi32, _mm_add_ps, _mm_add_ss, _mm_cvtsi128_si32, _mm_cvtss_f32,
    _mm_loadu_si128, _mm_movehl_ps, _mm_set1_epi32, _mm_shuffle_epi32, _mm_shuffle_ps,
    _mm256_add_epi32, _mm256_add_ps, _mm256_castps256_ps128, _mm256_castsi256_si128,
    _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi16, _mm256_extractf128_ps,
    _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_hadd_epi32, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mul_ps, _mm256_permute4x64_epi64, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_epi32,
};
use std::ops::Range;

use super::{BLOCK_ROWS, LANES, ShortBlocks, portable};

/// Queries and rows of one tile: 8 vectors of sums stay in registers.
const TILE: usize = 2;

pub(super) fn dots_f32(queries: &[f32], rows: &[f32], width: usize, out: &mut [f32]) {
    // SAFETY: this function is handed out only where the CPU has these features.
    unsafe { all_f32(queries, rows, width, out) }
}

pub(super) fn dots_i8(queries: &[u8], rows: &[i8], stride: usize, out: &mut [i32]) {
    // SAFETY: as above.
    unsafe { all_i8(queries, rows, stride, out) }
}

pub(super) fn common(planes: &[u64], bits: &[u64], rows: &[u32], out: &mut [u32]) {
    // SAFETY: as above.
    unsafe { all_common(planes, bits, rows, out) }
}

#[target_feature(enable = "avx2,fma,popcnt")]
fn all_common(planes: &[u64], bits: &[u64], rows: &[u32], out: &mut [u32]) {
    portable::common(planes, bits, rows, out);
}

#[target_feature(enable = "avx2,fma")]
fn all_f32(queries: &[f32], rows: &[f32], width: usize, out: &mut [f32]) {
    let stride = width.next_multiple_of(LANES);
    let n_rows = rows.len() / width;
    // A last row may not be read past its end, so that of odd widths it is copied.
    let mut padded = vec![0.0; if width == stride { 0 } else { stride }];
    let outs = out.chunks_mut((n_rows * TILE).max(1));
    for (queries, out) in queries.chunks(stride * TILE).zip(outs) {
        let n_queries = queries.len() / stride;
        let mut first = 0;
        while width == stride && first + TILE <= n_rows {
            let rows = &rows[first * width..][..TILE * width];
            match n_queries {
                1 => tile_f32::<1, TILE>(queries, rows, stride, &mut out[first..], n_rows),
                _ => tile_f32::<TILE, TILE>(queries, rows, stride, &mut out[first..], n_rows),
            }
            first += TILE;
        }
        for j in first..n_rows {
            let mut row = &rows[j * width..][..width];
            if width != stride {
                padded[..width].copy_from_slice(row);
                row = &padded;
            }
            match n_queries {
                1 => tile_f32::<1, 1>(queries, row, stride, &mut out[j..], n_rows),
                _ => tile_f32::<TILE, 1>(queries, row, stride, &mut out[j..], n_rows),
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn tile_f32<const M: usize, const R: usize>(
    queries: &[f32],
    rows: &[f32],
    stride: usize,
    out: &mut [f32],
    n_rows: usize,
) {
    assert!(
        stride.is_multiple_of(LANES) && queries.len() >= M * stride && rows.len() >= R * stride
    );
    let mut sums = [[[_mm256_setzero_ps(); 2]; R]; M];
    for k in (0..stride).step_by(LANES) {
        // SAFETY: the stride is a multiple of 16, and all rows and queries have it.
        let load = |values: &[f32], at: usize| unsafe {
            [
                _mm256_loadu_ps(values.as_ptr().add(at)),
                _mm256_loadu_ps(values.as_ptr().add(at + 8)),
            ]
        };
        let columns: [_; R] = std::array::from_fn(|j| load(rows, j * stride + k));
        for i in 0..M {
            let query = load(queries, i * stride + k);
            for j in 0..R {
                for half in 0..2 {
                    let sum = sums[i][j][half];
                    sums[i][j][half] = _mm256_fmadd_ps(query[half], columns[j][half], sum);
                }
            }
        }
    }
    for i in 0..M {
        for j in 0..R {
            out[i * n_rows + j] = total(sums[i][j]);
        }
    }
}

/// Adds 16 sums in the order of `portable::total`.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn total([low, high]: [__m256; 2]) -> f32 {
    let eights = _mm256_add_ps(low, high);
    let (a, b) = (
        _mm256_castps256_ps128(eights),
        _mm256_extractf128_ps::<1>(eights),
    );
    let fours = _mm_add_ps(a, b);
    let pairs = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
    let one = _mm_add_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs));
    _mm_cvtss_f32(one) + 0.0
}

#[target_feature(enable = "avx2")]
fn all_i8(queries: &[u8], rows: &[i8], stride: usize, out: &mut [i32]) {
    let n_rows = rows.len() / stride;
    let outs = out.chunks_mut((n_rows * TILE).max(1));
    for (queries, out) in queries.chunks(stride * TILE).zip(outs) {
        let n_queries = queries.len() / stride;
        for (j, row) in rows.chunks_exact(stride).enumerate() {
            match n_queries {
                1 => tile_i8::<1>(queries, row, &mut out[j..], n_rows),
                _ => tile_i8::<TILE>(queries, row, &mut out[j..], n_rows),
            }
        }
    }
}

/// Multiplies as 16-bit numbers: products of u8 and i8 would overflow in pairs.
#[target_feature(enable = "avx2")]
#[inline]
fn tile_i8<const M: usize>(queries: &[u8], row: &[i8], out: &mut [i32], n_rows: usize) {
    let stride = row.len();
    assert!(stride.is_multiple_of(32) && queries.len() >= M * stride);
    let mut sums = [[_mm256_setzero_si256(); 2]; M];
    for k in (0..stride).step_by(32) {
        for half in 0..2 {
            // SAFETY: the stride is a multiple of 32, and the row and all queries have it.
            unsafe {
                let at = k + 16 * half;
                let row = _mm_loadu_si128(row.as_ptr().add(at).cast());
                let row = _mm256_cvtepi8_epi16(row);
                for (i, sum) in sums.iter_mut().enumerate() {
                    let query = _mm_loadu_si128(queries.as_ptr().add(i * stride + at).cast());
                    let products = _mm256_madd_epi16(_mm256_cvtepu8_epi16(query), row);
                    sum[half] = _mm256_add_epi32(sum[half], products);
                }
            }
        }
    }
    for (i, [low, high]) in sums.into_iter().enumerate() {
        let sum = _mm256_add_epi32(low, high);
        let (a, b) = (
            _mm256_castsi256_si128(sum),
            _mm256_extracti128_si256::<1>(sum),
        );
        let fours = _mm_add_epi32(a, b);
        let pairs = _mm_add_epi32(fours, _mm_shuffle_epi32::<0b01_00_11_10>(fours));
        let one = _mm_add_epi32(pairs, _mm_shuffle_epi32::<0b10_11_00_01>(pairs));
        out[i * n_rows] = _mm_cvtsi128_si32(one);
    }
}

pub(super) fn short_scores(
    queries: &[u8],
    query_scales: &[f32],
    blocks: ShortBlocks<'_>,
    out: &mut [f32],
) {
    // SAFETY: as above.
    unsafe { all_short(queries, query_scales, blocks, out) }
}

#[target_feature(enable = "avx2")]
fn all_short(queries: &[u8], query_scales: &[f32], blocks: ShortBlocks<'_>, out: &mut [f32]) {
    let n_rows = blocks.scales.len();
    let stride = queries.len() / query_scales.len().max(1);
    let outs = out.chunks_exact_mut(n_rows.max(1));
    for ((query, &scale), out) in queries
        .chunks_exact(stride.max(1))
        .zip(query_scales)
        .zip(outs)
    {
        for first in (0..n_rows).step_by(BLOCK_ROWS) {
            let codes = &blocks.codes[first * stride..][..BLOCK_ROWS * stride];
            let rows = first..first + BLOCK_ROWS;
            let products = block_products(query, codes);
            short_block(products, &blocks, rows, scale, out);
        }
    }
}

/// Turns the products of a block into scores.
#[target_feature(enable = "avx2")]
#[inline]
fn short_block(
    products: [__m256i; 2],
    blocks: &ShortBlocks<'_>,
    rows: Range<usize>,
    scale: f32,
    out: &mut [f32],
) {
    let (sums, scales) = (&blocks.sums[rows.clone()], &blocks.scales[rows.clone()]);
    let out = &mut out[rows];
    assert!(sums.len() == BLOCK_ROWS && scales.len() == BLOCK_ROWS && out.len() == BLOCK_ROWS);
    let scale = _mm256_set1_ps(scale);
    for (half, product) in products.into_iter().enumerate() {
        // SAFETY: all three slices have 16 numbers.
        unsafe {
            let sums = _mm256_loadu_si256(sums.as_ptr().add(8 * half).cast());
            let scales = _mm256_loadu_ps(scales.as_ptr().add(8 * half));
            let product = _mm256_sub_epi32(product, _mm256_slli_epi32::<7>(sums));
            let scores = _mm256_mul_ps(_mm256_cvtepi32_ps(product), _mm256_mul_ps(scale, scales));
            _mm256_storeu_ps(out.as_mut_ptr().add(8 * half), scores);
        }
    }
}

/// Multiplies the codes of one query and of one block: the products of rows 0 to 7 and 8 to 15.
#[target_feature(enable = "avx2")]
#[inline]
fn block_products(query: &[u8], codes: &[i8]) -> [__m256i; 2] {
    assert!(codes.len() == BLOCK_ROWS * query.len() && query.len().is_multiple_of(4));
    // Each quarter has four rows, with two sums of products each.
    let mut sums = [_mm256_setzero_si256(); 4];
    for (four, codes) in query.as_chunks::<4>().0.iter().zip(codes.chunks_exact(64)) {
        // Four codes of the query as 16-bit numbers, four times.
        let four = _mm_set1_epi32(i32::from_le_bytes(*four));
        let four = _mm256_cvtepu8_epi16(four);
        for (quarter, sum) in sums.iter_mut().enumerate() {
            // SAFETY: there are 64 codes.
            let rows = unsafe { _mm_loadu_si128(codes.as_ptr().add(16 * quarter).cast()) };
            let products = _mm256_madd_epi16(four, _mm256_cvtepi8_epi16(rows));
            *sum = _mm256_add_epi32(*sum, products);
        }
    }
    // Sums of neighbours come in the order of the rows, but for the middle quarters of each pair.
    let pair = |a, b| _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(a, b));
    [pair(sums[0], sums[1]), pair(sums[2], sums[3])]
}

pub(super) fn rotate(vector: &mut [f32], signs: &[u64]) {
    // SAFETY: this function is handed out only where the CPU has these features.
    unsafe { rotate_here(vector, signs) }
}

#[target_feature(enable = "avx2,fma")]
fn rotate_here(vector: &mut [f32], signs: &[u64]) {
    portable::rotate(vector, signs);
}
