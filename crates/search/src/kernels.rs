//! The loops that a scan spends its time in, for whatever vector instructions the CPU has.
//!
//! All kernels of one operation give the same bits: a dot product of f32 has 16 partial sums,
//! number `i` over the positions `i`, `i + 16`, ..., each a chain of fused multiply-adds, which are
//! then added as a tree. So a score depends neither on the CPU nor on what else is computed.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(test)]
mod tests;

use std::sync::OnceLock;

/// Partial sums of one dot product.
pub(crate) const LANES: usize = 16;

/// Bits that a query is rounded to where rows are 1-bit codes.
pub(crate) const PLANES: usize = 4;

/// Dot products of `m` queries with rows: `out[i * n + j]` is that of query `i` and row `j` of `n`.
/// A query has `stride` numbers, `width` rounded up to a multiple of 16, the last ones 0.
type DotsF32 = fn(queries: &[f32], rows: &[f32], width: usize, out: &mut [f32]);

/// The same of 8-bit codes; `stride` is a multiple of 64 for both.
type DotsI8 = fn(queries: &[u8], rows: &[i8], stride: usize, out: &mut [i32]);

/// For each row number in `rows`, the sum over planes `p` of `2^p` times the number of bits that
/// plane `p` of the query and the row have in common.
type Common = fn(planes: &[u64], bits: &[u64], rows: &[u32], out: &mut [u32]);

/// Rows whose short codes lie interleaved: four codes of each row in turn, then the next four.
pub(crate) const BLOCK_ROWS: usize = 16;

/// Short codes of some blocks of rows, and what turns their products into scores.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ShortBlocks<'a> {
    /// [blocks, stride / 4, `BLOCK_ROWS`, 4]; `stride` is a multiple of 4.
    pub(crate) codes: &'a [i8],
    /// [rows]: sum of the codes of each row.
    pub(crate) sums: &'a [i32],
    /// [rows]: a number of a row is its code times this.
    pub(crate) scales: &'a [f32],
}

/// Scores of `m` queries of u8 codes and the rows of blocks, [m, rows]: `(product - 128 * sum) * (query's scale * row's)`.
type ShortScores =
    fn(queries: &[u8], query_scales: &[f32], blocks: ShortBlocks<'_>, out: &mut [f32]);

/// Turns a vector as `quantise::Rotation` says; `signs` has one bit for each number and round.
type Rotate = fn(vector: &mut [f32], signs: &[u64]);

/// The kernels of one CPU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels {
    pub(crate) dots_f32: DotsF32,
    pub(crate) dots_i8: DotsI8,
    pub(crate) common: Common,
    pub(crate) short_scores: ShortScores,
    pub(crate) rotate: Rotate,
}

impl Kernels {
    /// Returns the best kernels that this CPU can run.
    pub(crate) fn get() -> Self {
        static KERNELS: OnceLock<Kernels> = OnceLock::new();
        *KERNELS.get_or_init(|| {
            let all = Self::available();
            all[all.len() - 1]
        })
    }

    fn portable() -> Self {
        Self {
            dots_f32: portable::dots_f32,
            dots_i8: portable::dots_i8,
            common: portable::common,
            short_scores: portable::short_scores,
            rotate: portable::rotate,
        }
    }

    /// Returns every set of kernels that this CPU can run, the best last.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn available() -> Vec<Self> {
        vec![Self::portable()]
    }

    /// Returns every set of kernels that this CPU can run, the best last.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn available() -> Vec<Self> {
        let mut all = vec![Self::portable()];
        let has_avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("popcnt");
        if !has_avx2 {
            return all;
        }
        let mut best = Self {
            dots_f32: avx2::dots_f32,
            dots_i8: avx2::dots_i8,
            common: avx2::common,
            short_scores: avx2::short_scores,
            rotate: avx2::rotate,
        };
        all.push(best);
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            best.dots_f32 = avx512::dots_f32;
            best.rotate = avx512::rotate;
            if is_x86_feature_detected!("avx512vnni") {
                best.dots_i8 = avx512::dots_i8;
                best.short_scores = avx512::short_scores;
            }
            if is_x86_feature_detected!("avx512vpopcntdq") {
                best.common = avx512::common;
            }
            all.push(best);
        }
        all
    }
}

/// Returns the dot product of two vectors, by the same sums as every kernel.
pub(crate) fn dot(query: &[f32], row: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    portable::add_products(&mut sums, query, row);
    portable::total(sums)
}
