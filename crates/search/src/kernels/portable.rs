//! Plain Rust, correct everywhere; the definition that other kernels are tested against.

use super::{BLOCK_ROWS, LANES, PLANES, ShortBlocks};

/// Adds the products of two vectors to 16 sums.
#[inline(always)]
pub(super) fn add_products(sums: &mut [f32; LANES], query: &[f32], row: &[f32]) {
    for (query, row) in query.chunks(LANES).zip(row.chunks(LANES)) {
        for ((sum, x), y) in sums.iter_mut().zip(query).zip(row) {
            *sum = x.mul_add(*y, *sum);
        }
    }
}

/// Adds 16 sums as a tree: halves, quarters, pairs.
#[inline(always)]
pub(super) fn total(sums: [f32; LANES]) -> f32 {
    let mut sums = sums;
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            sums[i] += sums[i + n];
        }
        n /= 2;
    }
    // Of nothing but zeros of both signs, +0.
    sums[0] + 0.0
}

pub(super) fn dots_f32(queries: &[f32], rows: &[f32], width: usize, out: &mut [f32]) {
    let n_rows = rows.len() / width;
    let stride = width.next_multiple_of(LANES);
    for (query, out) in queries
        .chunks_exact(stride)
        .zip(out.chunks_exact_mut(n_rows.max(1)))
    {
        for (row, out) in rows.chunks_exact(width).zip(out) {
            let mut sums = [0.0; LANES];
            add_products(&mut sums, query, row);
            *out = total(sums);
        }
    }
}

pub(super) fn dots_i8(queries: &[u8], rows: &[i8], stride: usize, out: &mut [i32]) {
    let n_rows = rows.len() / stride;
    for (query, out) in queries
        .chunks_exact(stride)
        .zip(out.chunks_exact_mut(n_rows.max(1)))
    {
        for (row, out) in rows.chunks_exact(stride).zip(out) {
            let products = query
                .iter()
                .zip(row)
                .map(|(&x, &y)| i32::from(x) * i32::from(y));
            *out = products.sum();
        }
    }
}

#[inline(always)]
pub(super) fn common(planes: &[u64], bits: &[u64], rows: &[u32], out: &mut [u32]) {
    let stride = planes.len() / PLANES;
    for (&row, out) in rows.iter().zip(out) {
        let bits = &bits[row as usize * stride..][..stride];
        let planes = planes.chunks_exact(stride).enumerate();
        *out = planes
            .map(|(p, plane)| {
                let common = plane.iter().zip(bits).map(|(x, y)| (x & y).count_ones());
                common.sum::<u32>() << p
            })
            .sum();
    }
}

pub(super) fn short_scores(
    queries: &[u8],
    query_scales: &[f32],
    blocks: ShortBlocks<'_>,
    out: &mut [f32],
) {
    let n_rows = blocks.scales.len();
    let stride = queries.len() / query_scales.len().max(1);
    let queries = queries.chunks_exact(stride.max(1)).zip(query_scales);
    for ((query, scale), out) in queries.zip(out.chunks_exact_mut(n_rows.max(1))) {
        let rows = blocks.codes.chunks_exact(BLOCK_ROWS * stride);
        let outs = out.chunks_exact_mut(BLOCK_ROWS);
        for (block, (codes, out)) in rows.zip(outs).enumerate() {
            // [stride / 4, BLOCK_ROWS, 4] -> one product for each row.
            let mut products = [0_i32; BLOCK_ROWS];
            for (four, codes) in query.as_chunks::<4>().0.iter().zip(codes.chunks_exact(64)) {
                for (product, codes) in products.iter_mut().zip(codes.as_chunks::<4>().0) {
                    let pairs = four.iter().zip(codes);
                    *product += pairs
                        .map(|(&x, &y)| i32::from(x) * i32::from(y))
                        .sum::<i32>();
                }
            }
            for (i, (out, product)) in out.iter_mut().zip(products).enumerate() {
                let row = block * BLOCK_ROWS + i;
                *out = short_score(product, blocks.sums[row], scale * blocks.scales[row]);
            }
        }
    }
}

/// Turns the product of short codes into a score.
#[expect(
    clippy::cast_precision_loss,
    reason = "scores of the first pass are rounded anyway"
)]
#[inline(always)]
fn short_score(product: i32, sum: i32, scale: f32) -> f32 {
    (product - 128 * sum) as f32 * scale
}

/// Rounds of signs and sums that `rotate` makes, in turn over the first and the last numbers.
pub(crate) const ROUNDS: usize = 4;

#[inline(always)]
pub(super) fn rotate(vector: &mut [f32], signs: &[u64]) {
    let width = vector.len();
    // The largest power of two that fits; both ends together cover every number.
    let n = 1 << width.max(1).ilog2();
    for round in 0..ROUNDS {
        let words = &signs[round * width.div_ceil(64)..];
        for (chunk, word) in vector.chunks_mut(64).zip(words) {
            for (i, x) in chunk.iter_mut().enumerate() {
                // The lowest bit becomes the sign.
                let sign = ((word >> i & 1) as u32) << 31;
                *x = f32::from_bits(x.to_bits() ^ sign);
            }
        }
        let start = if round % 2 == 0 { 0 } else { width - n };
        hadamard(&mut vector[start..start + n]);
    }
}

/// The orthogonal Walsh-Hadamard transform of a power of two numbers.
#[inline(always)]
fn hadamard(values: &mut [f32]) {
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (x, y) in low.iter_mut().zip(high) {
                (*x, *y) = (*x + *y, *x - *y);
            }
        }
        half *= 2;
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 65,536")]
    let scale = 1.0 / (values.len() as f32).sqrt();
    for x in values {
        *x *= scale;
    }
}
