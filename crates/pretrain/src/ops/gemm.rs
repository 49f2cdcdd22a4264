//! Products of strided f32 matrices on the CPU, safely.

use m3ret_encoder::product::{Product, Threads, has_bf16};
use rayon::prelude::*;

use crate::config::TrainPrecision;

/// Overwrites `out`, rows that are `row_stride` apart, with a product; in bf16 only where the CPU has instructions
/// for it.
pub(super) fn write(
    product: &Product<'_>,
    precision: TrainPrecision,
    out: &mut [f32],
    row_stride: usize,
) {
    match precision {
        TrainPrecision::Bf16 if has_bf16() => product.write(out, row_stride),
        TrainPrecision::F32 | TrainPrecision::Bf16 => in_f32(product, out, row_stride),
    }
}

fn in_f32(product: &Product<'_>, out: &mut [f32], row_stride: usize) {
    let ([n_rows, depth], [_, n_columns]) = (product.left.shape(), product.right.shape());
    assert!(
        depth == product.right.shape()[0] && n_columns <= row_stride,
        "shapes of a product do not fit"
    );
    if n_rows == 0 || n_columns == 0 {
        return;
    }
    let out = &mut out[..(n_rows - 1) * row_stride + n_columns];
    // Below it, handing out work costs more than it saves.
    let is_large = n_rows * n_columns * depth >= 1 << 22;
    let n_tasks = match product.threads {
        Threads::All if is_large => rayon::current_num_threads().min(n_rows),
        Threads::All | Threads::One => 1,
    };
    // Whole tiles of rows for each task; no sum is split, so their number changes no result.
    let n_task_rows = n_rows.div_ceil(n_tasks).next_multiple_of(TILE_ROWS);
    out.par_chunks_mut(n_task_rows * row_stride)
        .enumerate()
        .for_each(|(i, out)| {
            let rows = i * n_task_rows..n_rows.min((i + 1) * n_task_rows);
            let left = product.left.rows(rows);
            multiply(&Product { left, ..*product }, out, row_stride);
        });
}

/// Rows of one tile of the product.
const TILE_ROWS: usize = 8;

/// Computes what one thread does.
fn multiply(product: &Product<'_>, out: &mut [f32], row_stride: usize) {
    let ([n_rows, depth], [_, n_columns]) = (product.left.shape(), product.right.shape());
    let is_sum = !product.bias.is_empty();
    for row in out.chunks_mut(row_stride) {
        if is_sum {
            row[..n_columns].copy_from_slice(product.bias);
        } else if depth == 0 {
            row[..n_columns].fill(0.0);
        }
    }
    if depth == 0 {
        return;
    }
    let (left, left_strides) = product.left.strided();
    let (right, right_strides) = product.right.strided();
    let [[left_rows, left_columns], [right_rows, right_columns]] =
        [left_strides, right_strides].map(|strides| strides.map(stride));
    let out_rows = stride(row_stride);
    #[allow(unsafe_code, reason = "the products take raw pointers")]
    // SAFETY: a `Matrix` reaches within its slice. `out` has `n_rows` rows, the last of `n_columns` values (the others
    // are longer), and is borrowed mutably, so it overlaps neither factor.
    unsafe {
        if has_avx512() {
            // Its `alpha` belongs to `out`, its `beta` to the product.
            gemm::gemm(
                n_rows,
                n_columns,
                depth,
                out.as_mut_ptr(),
                1,
                out_rows,
                is_sum,
                left.as_ptr(),
                left_columns,
                left_rows,
                right.as_ptr(),
                right_columns,
                right_rows,
                1.0,
                product.factor,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        } else {
            matrixmultiply::sgemm(
                n_rows,
                depth,
                n_columns,
                product.factor,
                left.as_ptr(),
                left_rows,
                left_columns,
                right.as_ptr(),
                right_rows,
                right_columns,
                f32::from(u8::from(is_sum)),
                out.as_mut_ptr(),
                out_rows,
                1,
            );
        }
    }
}

/// Whether vectors of 16 values exist, which gemm uses and matrixmultiply does not; without them
/// matrixmultiply is the faster one.
fn has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

#[allow(
    clippy::cast_possible_wrap,
    reason = "no slice is longer than isize::MAX"
)]
fn stride(n: usize) -> isize {
    n as isize
}
