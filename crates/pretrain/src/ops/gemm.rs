//! Products of strided f32 matrices on the CPU, safely.

use gemm::Parallelism;

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
    let parallelism = match threads {
        // Below it, handing out work costs more than it saves.
        Threads::All if n_rows * n_columns * depth >= 1 << 22 => Parallelism::Rayon(0),
        Threads::All | Threads::One => Parallelism::None,
    };
    let strides = |layout: Layout| (stride(layout.column_stride), stride(layout.row_stride));
    let (out_columns, out_rows) = strides(out_layout);
    let (lhs_columns, lhs_rows) = strides(lhs_layout);
    let (rhs_columns, rhs_rows) = strides(rhs_layout);
    #[allow(unsafe_code, reason = "the product takes raw pointers")]
    // SAFETY: every index (i, j) below the shapes stays below `reach`, which was compared with the
    // length of each slice; `out` is borrowed mutably, so it overlaps neither factor.
    unsafe {
        gemm::gemm(
            n_rows,
            n_columns,
            depth,
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
            parallelism,
        );
    }
}

#[allow(
    clippy::cast_possible_wrap,
    reason = "no slice is longer than isize::MAX"
)]
fn stride(n: usize) -> isize {
    n as isize
}
