//! AVX-512, with VNNI for 8-bit codes and VPOPCNTDQ for 1-bit codes.

#![allow(
    unsafe_code,
    reason = "vector loads and stores, calls of detected features"
)]
#![allow(
    clippy::needless_range_loop,
    reason = "loops over registers run over several arrays"
)]

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_storeu_si256, _mm512_add_epi64,
    _mm512_and_si512, _mm512_castps512_ps256, _mm512_cvtepi32_ps, _mm512_cvtepi64_epi32,
    _mm512_dpbusd_epi32, _mm512_extractf32x4_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_maskz_loadu_epi64, _mm512_maskz_loadu_ps, _mm512_mul_ps,
    _mm512_popcnt_epi64, _mm512_reduce_add_epi32, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_i64x2, _mm512_slli_epi32,
    _mm512_slli_epi64, _mm512_storeu_ps, _mm512_sub_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi64,
};

use super::{BLOCK_ROWS, LANES, PLANES, ShortBlocks, portable};

/// Queries and rows of one tile: 16 sums stay in registers.
const TILE: usize = 4;

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

/// Walks queries and rows in tiles: `$tile::<M, R>` for `M` queries and `R` rows.
macro_rules! walk {
    ($tile:ident, $queries:ident, $rows:ident, $q_stride:expr, $r_stride:expr, $out:ident) => {
        let n_rows = $rows.len() / $r_stride;
        let mut queries = $queries.chunks($q_stride * TILE);
        let mut outs = $out.chunks_mut((n_rows * TILE).max(1));
        while let (Some(queries), Some(out)) = (queries.next(), outs.next()) {
            let whole = n_rows - n_rows % TILE;
            let n_queries = queries.len() / $q_stride;
            for first in (0..whole).step_by(TILE) {
                let rows = &$rows[first * $r_stride..][..TILE * $r_stride];
                match n_queries {
                    1 => $tile::<1, TILE>(queries, rows, $r_stride, &mut out[first..], n_rows),
                    2 => $tile::<2, TILE>(queries, rows, $r_stride, &mut out[first..], n_rows),
                    3 => $tile::<3, TILE>(queries, rows, $r_stride, &mut out[first..], n_rows),
                    _ => $tile::<TILE, TILE>(queries, rows, $r_stride, &mut out[first..], n_rows),
                }
            }
            for first in whole..n_rows {
                let rows = &$rows[first * $r_stride..][..$r_stride];
                match n_queries {
                    1 => $tile::<1, 1>(queries, rows, $r_stride, &mut out[first..], n_rows),
                    2 => $tile::<2, 1>(queries, rows, $r_stride, &mut out[first..], n_rows),
                    3 => $tile::<3, 1>(queries, rows, $r_stride, &mut out[first..], n_rows),
                    _ => $tile::<TILE, 1>(queries, rows, $r_stride, &mut out[first..], n_rows),
                }
            }
        }
    };
}

#[target_feature(enable = "avx512f,avx512bw")]
fn all_f32(queries: &[f32], rows: &[f32], width: usize, out: &mut [f32]) {
    let stride = width.next_multiple_of(LANES);
    walk!(tile_f32, queries, rows, stride, width, out);
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn tile_f32<const M: usize, const R: usize>(
    queries: &[f32],
    rows: &[f32],
    width: usize,
    out: &mut [f32],
    n_rows: usize,
) {
    let stride = width.next_multiple_of(LANES);
    assert!(queries.len() >= M * stride && rows.len() >= R * width);
    let mut sums = [[_mm512_setzero_ps(); R]; M];
    let whole = width - width % LANES;
    let tail = (1_u16 << (width % LANES)) - 1;
    for k in (0..stride).step_by(LANES) {
        let row = |j: usize| {
            // SAFETY: 16 numbers from `k` lie within row `j`, or the mask leaves out those that
            // do not.
            unsafe {
                let at = rows.as_ptr().add(j * width + k);
                if k < whole {
                    _mm512_loadu_ps(at)
                } else {
                    _mm512_maskz_loadu_ps(tail, at)
                }
            }
        };
        let columns: [__m512; R] = std::array::from_fn(row);
        for i in 0..M {
            // SAFETY: a query has `stride` numbers.
            let query = unsafe { _mm512_loadu_ps(queries.as_ptr().add(i * stride + k)) };
            for j in 0..R {
                sums[i][j] = _mm512_fmadd_ps(query, columns[j], sums[i][j]);
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
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn total(sums: __m512) -> f32 {
    use std::arch::x86_64::{
        _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps,
        _mm256_castps256_ps128,
    };
    let a = _mm256_castps256_ps128(_mm512_castps512_ps256(sums));
    let b = _mm512_extractf32x4_ps::<1>(sums);
    let c = _mm512_extractf32x4_ps::<2>(sums);
    let d = _mm512_extractf32x4_ps::<3>(sums);
    let fours = _mm_add_ps(_mm_add_ps(a, c), _mm_add_ps(b, d));
    let pairs = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
    let one = _mm_add_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs));
    _mm_cvtss_f32(one) + 0.0
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn all_i8(queries: &[u8], rows: &[i8], stride: usize, out: &mut [i32]) {
    walk!(tile_i8, queries, rows, stride, stride, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn tile_i8<const M: usize, const R: usize>(
    queries: &[u8],
    rows: &[i8],
    stride: usize,
    out: &mut [i32],
    n_rows: usize,
) {
    assert!(stride.is_multiple_of(64) && queries.len() >= M * stride && rows.len() >= R * stride);
    let mut sums = [[_mm512_setzero_si512(); R]; M];
    for k in (0..stride).step_by(64) {
        // SAFETY: the stride is a multiple of 64, and all rows and queries have it; a prefetch may
        // name any address.
        unsafe {
            let columns: [_; R] = std::array::from_fn(|j| {
                let at = rows.as_ptr().add(j * stride + k);
                if M == 1 {
                    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(2 * R * stride));
                }
                _mm512_loadu_si512(at.cast())
            });
            for i in 0..M {
                let query = _mm512_loadu_si512(queries.as_ptr().add(i * stride + k).cast());
                for j in 0..R {
                    sums[i][j] = _mm512_dpbusd_epi32(sums[i][j], query, columns[j]);
                }
            }
        }
    }
    for i in 0..M {
        for j in 0..R {
            out[i * n_rows + j] = _mm512_reduce_add_epi32(sums[i][j]);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vpopcntdq")]
fn all_common(planes: &[u64], bits: &[u64], rows: &[u32], out: &mut [u32]) {
    match (planes.len() / PLANES).div_ceil(8) {
        // Up to 1,024 bits, the planes stay in registers.
        1 => common_of::<1>(planes, bits, rows, out),
        2 => common_of::<2>(planes, bits, rows, out),
        _ => portable::common(planes, bits, rows, out),
    }
}

/// Rows whose counts are added up together.
const GROUP: usize = 8;

/// As `all_common`, for rows of `N` vectors, the last of which may be cut.
#[target_feature(enable = "avx512f,avx512bw,avx512vpopcntdq")]
#[inline]
fn common_of<const N: usize>(planes: &[u64], bits: &[u64], rows: &[u32], out: &mut [u32]) {
    let stride = planes.len() / PLANES;
    assert!(planes.len() == PLANES * stride && stride > 8 * (N - 1) && stride <= 8 * N);
    let mask = |part: usize| match stride - 8 * part {
        8.. => 0xff,
        n_words => (1 << n_words) - 1,
    };
    let masks: [u8; N] = std::array::from_fn(mask);
    let load = |words: &[u64]| {
        let part = |part: usize| {
            let at = words.as_ptr().wrapping_add(8 * part).cast();
            // SAFETY: the mask leaves out what lies beyond `stride` words, which are there.
            unsafe { _mm512_maskz_loadu_epi64(masks[part], at) }
        };
        std::array::from_fn::<_, N, _>(part)
    };
    let planes: [_; PLANES] = std::array::from_fn(|p| load(&planes[p * stride..][..stride]));
    for (group_idx, (numbers, out)) in rows.chunks(GROUP).zip(out.chunks_mut(GROUP)).enumerate() {
        let mut sums = [_mm512_setzero_si512(); GROUP];
        for (idx, (&row, sum)) in numbers.iter().zip(&mut sums).enumerate() {
            if let Some(&later) = rows.get(GROUP * (group_idx + 1) + idx) {
                let at = bits.as_ptr().wrapping_add(later as usize * stride);
                _mm_prefetch::<_MM_HINT_T0>(at.cast());
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(8).cast());
            }
            let row = load(&bits[row as usize * stride..][..stride]);
            let count = |plane: &[__m512i; N]| {
                let mut total = _mm512_setzero_si512();
                for part in 0..N {
                    let common = _mm512_and_si512(plane[part], row[part]);
                    total = _mm512_add_epi64(total, _mm512_popcnt_epi64(common));
                }
                total
            };
            let [a, b, c, d] = [0, 1, 2, 3].map(|p| count(&planes[p]));
            let low = _mm512_add_epi64(a, _mm512_slli_epi64::<1>(b));
            let high = _mm512_add_epi64(c, _mm512_slli_epi64::<1>(d));
            *sum = _mm512_add_epi64(low, _mm512_slli_epi64::<2>(high));
        }
        let mut totals = [0; GROUP];
        // SAFETY: eight numbers of 32 bits are half a vector.
        unsafe {
            let narrow = _mm512_cvtepi64_epi32(totals_of(sums));
            _mm256_storeu_si256(totals.as_mut_ptr().cast(), narrow);
        }
        out.copy_from_slice(&totals[..out.len()]);
    }
}

/// Adds up each of eight vectors: number `i` of the result is the sum of vector `i`.
#[target_feature(enable = "avx512f")]
#[inline]
fn totals_of([a, b, c, d, e, f, g, h]: [__m512i; GROUP]) -> __m512i {
    // Two vectors become one, with their sums of neighbours in turn.
    let pairs = |x, y| _mm512_add_epi64(_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y));
    // Two vectors of four blocks become one, with the sums of neighbouring blocks.
    let blocks = |x, y| {
        _mm512_add_epi64(
            _mm512_shuffle_i64x2::<0b10_00_10_00>(x, y),
            _mm512_shuffle_i64x2::<0b11_01_11_01>(x, y),
        )
    };
    let first = blocks(pairs(a, b), pairs(c, d));
    let second = blocks(pairs(e, f), pairs(g, h));
    blocks(first, second)
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

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn all_short(queries: &[u8], query_scales: &[f32], blocks: ShortBlocks<'_>, out: &mut [f32]) {
    let n_rows = blocks.scales.len();
    let n_blocks = n_rows / BLOCK_ROWS;
    let stride = queries.len() / query_scales.len().max(1);
    let outs = out.chunks_mut((n_rows * 2).max(1));
    let queries = queries.chunks((2 * stride).max(1));
    for ((queries, scales), out) in queries.zip(query_scales.chunks(2)).zip(outs) {
        let whole = n_blocks - n_blocks % TILE;
        for first in (0..whole).step_by(TILE) {
            match scales.len() {
                1 => tile_short::<1, TILE>(queries, scales, &blocks, first, out),
                _ => tile_short::<2, TILE>(queries, scales, &blocks, first, out),
            }
        }
        for first in whole..n_blocks {
            match scales.len() {
                1 => tile_short::<1, 1>(queries, scales, &blocks, first, out),
                _ => tile_short::<2, 1>(queries, scales, &blocks, first, out),
            }
        }
    }
}

/// Scores `M` queries and the rows of `R` blocks from `first` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn tile_short<const M: usize, const R: usize>(
    queries: &[u8],
    query_scales: &[f32],
    blocks: &ShortBlocks<'_>,
    first: usize,
    out: &mut [f32],
) {
    let stride = queries.len() / M;
    let n_rows = blocks.scales.len();
    let codes = &blocks.codes[first * BLOCK_ROWS * stride..][..R * BLOCK_ROWS * stride];
    let rows = first * BLOCK_ROWS..(first + R) * BLOCK_ROWS;
    let (sums, scales) = (&blocks.sums[rows.clone()], &blocks.scales[rows.clone()]);
    assert!(stride.is_multiple_of(4) && out.len() >= (M - 1) * n_rows + rows.end);
    let mut products = [[_mm512_setzero_si512(); R]; M];
    for k in (0..stride).step_by(4) {
        // SAFETY: each block has `stride` times 16 codes, 64 of which are of four numbers; a query has `stride` codes.
        unsafe {
            let columns: [_; R] = std::array::from_fn(|j| {
                let at = codes.as_ptr().add(j * BLOCK_ROWS * stride + BLOCK_ROWS * k);
                _mm512_loadu_si512(at.cast())
            });
            for i in 0..M {
                let four = queries.as_ptr().add(i * stride + k).cast::<i32>();
                let four = _mm512_set1_epi32(four.read_unaligned());
                for j in 0..R {
                    products[i][j] = _mm512_dpbusd_epi32(products[i][j], four, columns[j]);
                }
            }
        }
    }
    for i in 0..M {
        let query_scale = _mm512_set1_ps(query_scales[i]);
        for j in 0..R {
            // SAFETY: `sums` and `scales` have 16 numbers for each block, and `out` has those of the last query.
            unsafe {
                let sums = _mm512_loadu_si512(sums.as_ptr().add(BLOCK_ROWS * j).cast());
                let scales = _mm512_loadu_ps(scales.as_ptr().add(BLOCK_ROWS * j));
                let product = _mm512_sub_epi32(products[i][j], _mm512_slli_epi32::<7>(sums));
                let scale = _mm512_mul_ps(query_scale, scales);
                let scores = _mm512_mul_ps(_mm512_cvtepi32_ps(product), scale);
                let at = i * n_rows + rows.start + BLOCK_ROWS * j;
                _mm512_storeu_ps(out.as_mut_ptr().add(at), scores);
            }
        }
    }
}

pub(super) fn rotate(vector: &mut [f32], signs: &[u64]) {
    // SAFETY: this function is handed out only where the CPU has these features.
    unsafe { rotate_here(vector, signs) }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn rotate_here(vector: &mut [f32], signs: &[u64]) {
    portable::rotate(vector, signs);
}
