//! Products of strided f32 matrices on the CPU, safely.

use rayon::prelude::*;

/// A matrix within a slice: row `i` and column `j` lie at `i * row_stride + j * column_stride`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) n_rows: usize,
    pub(super) n_columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl Layout {
    /// Rows of a wider matrix.
    pub(super) fn rows(n_rows: usize, n_columns: usize, row_stride: usize) -> Self {
        Self {
            n_rows,
            n_columns,
            row_stride,
            column_stride: 1,
        }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            n_rows: self.n_columns,
            n_columns: self.n_rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// Returns how many values the matrix reaches over, where it is not empty.
    fn reach(self) -> usize {
        (self.n_rows - 1) * self.row_stride + (self.n_columns - 1) * self.column_stride + 1
    }
}

/// Whether a product may use the other threads of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    One,
    All,
}

/// Computes `out = factor * lhs x rhs`, or adds it to `out`.
///
/// # Panics
/// Panics if the shapes do not fit, or a matrix reaches beyond its slice: a fault of the caller.
pub(super) fn multiply(
    out: (&mut [f32], Layout),
    lhs: (&[f32], Layout),
    rhs: (&[f32], Layout),
    (factor, is_sum): (f32, bool),
    threads: Threads,
) {
    let ((out, out_layout), (lhs, lhs_layout), (rhs, rhs_layout)) = (out, lhs, rhs);
    let Layout {
        n_rows, n_columns, ..
    } = out_layout;
    let depth = lhs_layout.n_columns;
    assert!(
        lhs_layout.n_rows == n_rows
            && rhs_layout.n_columns == n_columns
            && rhs_layout.n_rows == depth,
        "shapes of a product do not fit"
    );
    if n_rows == 0 || n_columns == 0 || depth == 0 {
        if !is_sum {
            out.fill(0.0);
        }
        return;
    }
    assert!(
        out_layout.reach() <= out.len()
            && lhs_layout.reach() <= lhs.len()
            && rhs_layout.reach() <= rhs.len(),
        "a matrix reaches beyond its slice"
    );
    // Below it, handing out work costs more than it saves.
    let is_large = n_rows * n_columns * depth >= 1 << 22;
    let n_tasks = match threads {
        Threads::All if is_large => rayon::current_num_threads().min(n_rows),
        Threads::All | Threads::One => 1,
    };
    // Whole tiles of rows for each task; no sum is split, so their number changes no result.
    let n_task_rows = n_rows.div_ceil(n_tasks).next_multiple_of(TILE_ROWS);
    let task = |first: usize, out: &mut [f32]| {
        let part = Part {
            n_rows: n_task_rows.min(n_rows - first),
            n_columns,
            depth,
        };
        let lhs = &lhs[first * lhs_layout.row_stride..];
        part.multiply(
            (out, out_layout),
            (lhs, lhs_layout),
            (rhs, rhs_layout),
            (factor, is_sum),
        );
    };
    if n_tasks == 1 {
        task(0, out);
        return;
    }
    out[..out_layout.reach()]
        .par_chunks_mut(n_task_rows * out_layout.row_stride)
        .enumerate()
        .for_each(|(i, out)| task(i * n_task_rows, out));
}

/// Rows of one tile of the product.
const TILE_ROWS: usize = 8;

/// Rows of a product that one thread computes; the shapes were checked.
#[derive(Debug, Clone, Copy)]
struct Part {
    n_rows: usize,
    n_columns: usize,
    depth: usize,
}

impl Part {
    fn multiply(
        self,
        (out, out_layout): (&mut [f32], Layout),
        (lhs, lhs_layout): (&[f32], Layout),
        (rhs, rhs_layout): (&[f32], Layout),
        (factor, is_sum): (f32, bool),
    ) {
        let strides = |layout: Layout| (stride(layout.row_stride), stride(layout.column_stride));
        let (out_rows, out_columns) = strides(out_layout);
        let (lhs_rows, lhs_columns) = strides(lhs_layout);
        let (rhs_rows, rhs_columns) = strides(rhs_layout);
        #[allow(unsafe_code, reason = "the products take raw pointers")]
        // SAFETY: every index (i, j) below the shapes stays below `reach`, which was compared with the
        // length of each slice, less what rows before this part take; `out` is borrowed mutably, so it
        // overlaps neither factor.
        unsafe {
            if has_avx512() {
                // Its `alpha` belongs to `out`, its `beta` to the product.
                gemm::gemm(
                    self.n_rows,
                    self.n_columns,
                    self.depth,
                    out.as_mut_ptr(),
                    out_columns,
                    out_rows,
                    is_sum,
                    lhs.as_ptr(),
                    lhs_columns,
                    lhs_rows,
                    rhs.as_ptr(),
                    rhs_columns,
                    rhs_rows,
                    1.0,
                    factor,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            } else {
                matrixmultiply::sgemm(
                    self.n_rows,
                    self.depth,
                    self.n_columns,
                    factor,
                    lhs.as_ptr(),
                    lhs_rows,
                    lhs_columns,
                    rhs.as_ptr(),
                    rhs_rows,
                    rhs_columns,
                    f32::from(u8::from(is_sum)),
                    out.as_mut_ptr(),
                    out_rows,
                    out_columns,
                );
            }
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
