//! Every product against sums in f64.

use super::*;

/// Cheap values in -1..1.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap()) / 32768.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Returns a matrix whose rows are 3 values further apart than they are long, or the transpose of one.
fn matrix(values: &[f32], [n_rows, n_columns]: [usize; 2], is_transposed: bool) -> Matrix<'_> {
    if is_transposed {
        Matrix::new(values, [n_columns, n_rows], n_rows + 3).transposed()
    } else {
        Matrix::new(values, [n_rows, n_columns], n_columns + 3)
    }
}

fn value(matrix: &Matrix<'_>, row: usize, column: usize) -> f64 {
    f64::from(matrix.values[row * matrix.row_stride + column * matrix.column_stride])
}

/// Compares a product of each kind of layout, on each set of kernels, with sums in f64.
fn check([m, n, k]: [usize; 3]) {
    let [left, right] = [(m + 3) * (k + 3), (k + 3) * (n + 3)].map(|len| noise(len, 7));
    let bias = noise(n, 5);
    for layout in 0..4 {
        let left = matrix(&left, [m, k], layout % 2 == 1);
        let right = matrix(&right, [k, n], layout / 2 == 1);
        for (bias, factor) in [(&[][..], 1.0), (&bias, -0.5)] {
            let product = Product {
                factor,
                bias,
                ..Product::new(left, right)
            };
            for kernels in Kernels::available() {
                let mut out = vec![9.0; m * (n + 2)];
                product.write_with(&kernels, &mut out, n + 2);
                compare(&product, &out);
            }
        }
    }
}

/// A factor below 1 is off by at most 2^-9 in bf16, so a product by at most 2^-8. Rounding goes up as often as down: the
/// error of a sum grows as the root of `K`. Rounding the sums themselves is far below that.
fn tolerance(product: &Product<'_>) -> f64 {
    let depth = f64::from(u16::try_from(product.left.n_columns).unwrap());
    1e-6 + 0.5_f64.powi(8) * depth.sqrt()
}

fn compare(product: &Product<'_>, out: &[f32]) {
    let (left, right) = (&product.left, &product.right);
    let stride = right.n_columns + 2;
    let allowed = tolerance(product);
    for (row, found) in out.chunks_exact(stride).enumerate() {
        for (column, &found) in found.iter().enumerate() {
            if column >= right.n_columns {
                assert!((found - 9.0).abs() < 1e-9, "beyond the last column");
                continue;
            }
            let sum: f64 = (0..left.n_columns)
                .map(|k| value(left, row, k) * value(right, k, column))
                .sum();
            let bias = product.bias.get(column).copied().unwrap_or_default();
            let wanted = f64::from(product.factor) * sum + f64::from(bias);
            assert!(
                (f64::from(found) - wanted).abs() <= allowed,
                "[{}, {}, {}] at {row}, {column}: {found}, wanted {wanted}",
                left.n_rows,
                right.n_columns,
                left.n_columns,
            );
        }
    }
}

#[test]
fn products_agree_with_sums_in_f64() {
    // Around the sides of tiles, panels and their blocks, and K below and above one block and its odd end.
    for m in [1, 11, 12, 13, 49] {
        for n in [1, 31, 32, 33] {
            for k in [0, 1, 2, 31, 33] {
                check([m, n, k]);
            }
        }
    }
    for shape in [[13, 33, 2 * 256 + 1], [97, 40, 257], [3, 24 * 32 + 5, 9]] {
        check(shape);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let [m, n, k] = [500, 130, 530];
    let (left, right) = (noise(m * k, 1), noise(k * n, 2));
    let on = |n_threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads);
        let left = Matrix::new(&left, [k, m], m).transposed();
        let product = Product::new(left, Matrix::new(&right, [k, n], n));
        let mut out = vec![0.0; m * n];
        pool.build().unwrap().install(|| product.write(&mut out, n));
        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let one = on(1);
    assert!(m * n * k >= PARALLEL_FROM, "threads take part");
    assert!(one == on(2) && one == on(3), "other bits");
}

#[test]
#[should_panic(expected = "a matrix reaches beyond its slice")]
fn a_short_slice_is_refused() {
    let _ = Matrix::new(&[0.0; 5], [2, 3], 3);
}
