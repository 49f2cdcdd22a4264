//! Short codes: vectors seen in the few directions that they spread most in, 8 bits a number.
//!
//! Embeddings of a trained model vary in far fewer directions than they have numbers. Where that is so, a code of
//! 64 to 256 numbers in those directions says nearly all of a score, and costs a fraction of a whole one.
//!
//! # Source
//! Tepper et al. 2023 (`LeanVec`), section 2: a linear reduction found by principal components, then scalar codes.
//! Differs: directions are of the vectors about zero, as scores are products; they come from a subspace iteration,
//! and are turned at random within their subspace, so that all numbers of a code are of like size.

use bytemuck::cast_slice;
use rand::SeedableRng as _;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::error::Result;
use crate::kernels::{BLOCK_ROWS, Kernels, LANES};
use crate::quantise::{Rotation, to_codes};

/// Fewer vectors have no short codes: all of their other codes are looked at in no time.
const MIN_VECTORS: usize = 8192;
/// Wider vectors have none: the matrix of their second moments grows with the square of the width.
const MAX_WIDTH: usize = 2048;
/// Numbers of a short code are a multiple of this.
const STEP: usize = 64;
/// Most numbers of a short code.
const MAX_SHORT: usize = 256;
/// Vectors that directions are found by, and others that they are tried on.
const SAMPLES: [usize; 2] = [4096, 1024];
/// Rounds of the subspace iteration; the kept share changes by less than 0.001 with further ones.
const N_ROUNDS: usize = 6;
/// Share of the squared length of vectors that short codes must keep.
const MIN_KEPT: f64 = 0.85;
/// A code that keeps this share is long enough.
const ENOUGH_KEPT: f64 = 0.92;
/// Seed of all random choices.
const SEED: u64 = 0x6d33_7265_7400_0004;

/// Orthogonal directions, the rows of a matrix [short, width].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Basis {
    width: usize,
    /// [short, width]
    directions: Vec<f32>,
}

impl Basis {
    /// Finds directions for `n` vectors, if few keep nearly all of them; `read` appends the vectors with some numbers.
    pub(crate) fn find(
        n: usize,
        width: usize,
        read: impl Fn(&[u32], &mut Vec<f32>) -> Result<()>,
    ) -> Result<Option<Self>> {
        if n < MIN_VECTORS || !(2 * STEP..=MAX_WIDTH).contains(&width) {
            return Ok(None);
        }
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let chosen = sample(&mut random, n, SAMPLES.iter().sum()).into_iter();
        let chosen: Vec<u32> = chosen
            .map(|row| u32::try_from(row).unwrap_or(u32::MAX))
            .collect();
        let (found_by, tried_on) = chosen.split_at(SAMPLES[0]);
        let mut vectors = Vec::new();
        read(found_by, &mut vectors)?;
        let moments = second_moments(&vectors, width);
        let n_most = (width / 2 / STEP * STEP).min(MAX_SHORT);
        // The first vectors of the sample are where the iteration starts.
        let mut directions = vectors[..n_most * width].to_vec();
        for _ in 0..N_ROUNDS {
            let product = Self { width, directions }.project(&moments);
            // [width, short] -> [short, width]
            directions = transposed(&product, n_most);
            make_orthonormal(&mut directions, width);
        }
        vectors.clear();
        read(tried_on, &mut vectors)?;
        let mut basis = Self { width, directions };
        let Some(n_short) = basis.n_enough(&vectors) else {
            return Ok(None);
        };
        basis.directions.truncate(n_short * width);
        basis.turn();
        Ok(Some(basis))
    }

    /// Takes directions, [short, width].
    pub(crate) fn new(directions: &[f32], width: usize) -> Self {
        Self {
            width,
            directions: directions.to_vec(),
        }
    }

    /// Returns how many numbers a short code has.
    pub(crate) fn n_short(&self) -> usize {
        self.directions.len() / self.width
    }

    pub(crate) fn directions(&self) -> &[f32] {
        &self.directions
    }

    /// Returns the products of vectors and directions: [n, width] -> [n, short].
    pub(crate) fn project(&self, vectors: &[f32]) -> Vec<f32> {
        let (width, n_short) = (self.width, self.n_short());
        let stride = width.next_multiple_of(LANES);
        let mut products = vec![0.0; vectors.len() / width * n_short];
        let groups = vectors.par_chunks(64 * width);
        let outs = products.par_chunks_mut(64 * n_short);
        groups.zip(outs).for_each(|(vectors, out)| {
            if stride == width {
                return (Kernels::get().dots_f32)(vectors, &self.directions, width, out);
            }
            // The kernel wants whole lanes of the vectors, with zeros at their ends.
            let mut padded = vec![0.0; vectors.len() / width * stride];
            let rows = padded.chunks_exact_mut(stride);
            for (padded, vector) in rows.zip(vectors.chunks_exact(width)) {
                padded[..width].copy_from_slice(vector);
            }
            (Kernels::get().dots_f32)(&padded, &self.directions, width, out);
        });
        products
    }

    /// Returns how many of the directions keep enough of some vectors; `None` if even all keep too little.
    #[expect(clippy::cast_precision_loss, reason = "a share is wanted")]
    fn n_enough(&self, vectors: &[f32]) -> Option<usize> {
        let n_most = self.n_short();
        let n_vectors = vectors.len() / self.width;
        let mut kept = vec![0.0_f64; n_most / STEP];
        for products in self.project(vectors).chunks_exact(n_most) {
            for (kept, part) in kept.iter_mut().zip(products.chunks_exact(STEP)) {
                *kept += part
                    .iter()
                    .map(|&x| f64::from(x) * f64::from(x))
                    .sum::<f64>();
            }
        }
        // Vectors are unit vectors, so the squares of all of them add up to their number.
        let mut share = 0.0;
        let mut steps = 0;
        for part in kept {
            share += part / n_vectors as f64;
            steps += 1;
            if share >= ENOUGH_KEPT {
                break;
            }
        }
        (share >= MIN_KEPT).then_some(steps * STEP)
    }

    /// Turns the directions within their subspace.
    fn turn(&mut self) {
        let n_short = self.n_short();
        let rotation = Rotation::new(n_short);
        // [short, width] -> [width, short], each row of which is turned.
        let mut columns = transposed(&self.directions, self.width);
        for column in columns.chunks_exact_mut(n_short) {
            rotation.turn(column);
        }
        self.directions = transposed(&columns, n_short);
    }
}

/// Returns [n, m] as [m, n]; `n_columns` is `m`.
fn transposed(values: &[f32], n_columns: usize) -> Vec<f32> {
    let n_rows = values.len() / n_columns;
    let mut out = vec![0.0; values.len()];
    for (row, values) in values.chunks_exact(n_columns).enumerate() {
        for (column, &x) in values.iter().enumerate() {
            out[column * n_rows + row] = x;
        }
    }
    out
}

/// Returns the sum of the products of vectors with themselves: [n, width] -> [width, width].
fn second_moments(vectors: &[f32], width: usize) -> Vec<f32> {
    let columns = transposed(vectors, width);
    // Every column is a "vector" of n numbers here, and n is a multiple of the lanes.
    let of_columns = Basis {
        width: vectors.len() / width,
        directions: columns,
    };
    of_columns.project(&of_columns.directions)
}

/// Makes rows orthogonal and of length 1, in their order; a row that depends on those before it becomes zero.
fn make_orthonormal(rows: &mut [f32], width: usize) {
    let n_rows = rows.len() / width;
    let mut row = vec![0.0; width.next_multiple_of(LANES)];
    let mut products = vec![0.0; n_rows];
    for idx in 0..n_rows {
        let (before, rest) = rows.split_at_mut(idx * width);
        let this = &mut rest[..width];
        let mut length = norm(this);
        scale(this, length);
        // Once more, as what is taken away is rounded.
        for _ in 0..2 {
            row[..width].copy_from_slice(this);
            let products = &mut products[..idx];
            if idx > 0 {
                (Kernels::get().dots_f32)(&row, before, width, products);
            }
            for (product, other) in products.iter().zip(before.chunks_exact(width)) {
                for (x, y) in this.iter_mut().zip(other) {
                    *x -= product * y;
                }
            }
            length = norm(this);
            scale(this, if length > 1e-4 { length } else { 0.0 });
        }
    }
}

/// Returns the length of a vector.
#[expect(clippy::cast_possible_truncation, reason = "lengths near 1")]
fn norm(vector: &[f32]) -> f32 {
    let squares = vector.iter().map(|&x| f64::from(x) * f64::from(x));
    squares.sum::<f64>().sqrt() as f32
}

/// Divides a vector by its length; one of length 0 becomes zeros.
fn scale(vector: &mut [f32], length: f32) {
    let factor = if length > 0.0 { 1.0 / length } else { 0.0 };
    vector.iter_mut().for_each(|x| *x *= factor);
}

/// The short codes of all vectors of a segment, in whole blocks of rows; those past the last vector are zero.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ShortCodes {
    n_short: usize,
    n_rows: usize,
    /// [blocks, short / 4, `BLOCK_ROWS`, 4]
    pub(crate) codes: Vec<i8>,
    /// [blocks, `BLOCK_ROWS`]: sum of the codes of each row.
    pub(crate) sums: Vec<i32>,
    /// [blocks, `BLOCK_ROWS`]: a number is its code times this.
    pub(crate) scales: Vec<f32>,
}

impl ShortCodes {
    pub(crate) fn new(n_short: usize) -> Self {
        Self {
            n_short,
            ..Self::default()
        }
    }

    /// Appends vectors that were projected, [n, short].
    pub(crate) fn push(&mut self, projected: &[f32]) {
        let n_short = self.n_short;
        let mut codes = vec![0; n_short];
        for vector in projected.chunks_exact(n_short) {
            let lane = self.n_rows % BLOCK_ROWS;
            if lane == 0 {
                let n_rows = self.n_rows + BLOCK_ROWS;
                self.codes.resize(n_rows * n_short, 0);
                self.sums.resize(n_rows, 0);
                self.scales.resize(n_rows, 0.0);
            }
            let (scale, sum) = to_codes(vector, &mut codes);
            (self.scales[self.n_rows], self.sums[self.n_rows]) = (scale, sum);
            let start = (self.n_rows - lane) * n_short;
            for (group, four) in codes.chunks_exact(4).enumerate() {
                let at = start + (group * BLOCK_ROWS + lane) * 4;
                self.codes[at..at + 4].copy_from_slice(four);
            }
            self.n_rows += 1;
        }
    }

    /// Returns the arrays of a segment that hold the codes, with their names.
    pub(crate) fn arrays(&self) -> [(&'static str, &[u8]); 3] {
        [
            (CODES, cast_slice(&self.codes)),
            (SUMS, cast_slice(&self.sums)),
            (SCALES, cast_slice(&self.scales)),
        ]
    }
}

/// Names of the arrays of a segment with short codes, and of their directions.
pub(crate) const CODES: &str = "short/codes";
/// Sums of codes.
pub(crate) const SUMS: &str = "short/sums";
/// Scales of codes.
pub(crate) const SCALES: &str = "short/scales";
/// The directions.
pub(crate) const BASIS: &str = "short/basis";

/// Says whether short codes may have so many numbers.
pub(crate) fn is_length(n_short: usize) -> bool {
    n_short > 0 && n_short <= MAX_SHORT && n_short.is_multiple_of(STEP)
}

/// Returns how many rows whole blocks of `n` rows have.
pub(crate) fn n_in_blocks(n: usize) -> usize {
    n.next_multiple_of(BLOCK_ROWS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt as _;

    /// Unit vectors in a random subspace of some dimensions, with a little noise.
    fn vectors(n: usize, width: usize, n_dimensions: usize, noise: f32) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut number = || random.random::<f32>() + random.random::<f32>() - 1.0;
        let axes: Vec<f32> = (0..n_dimensions * width).map(|_| number()).collect();
        let mut all = Vec::new();
        for _ in 0..n {
            let mut vector: Vec<f32> = (0..width).map(|_| noise * number()).collect();
            for axis in axes.chunks_exact(width) {
                let x = number();
                vector.iter_mut().zip(axis).for_each(|(v, a)| *v += x * a);
            }
            crate::embedding::normalize(&mut vector).unwrap();
            all.extend(vector);
        }
        all
    }

    fn find(vectors: &[f32], width: usize) -> Option<Basis> {
        Basis::find(vectors.len() / width, width, |rows, out| {
            for &row in rows {
                out.extend_from_slice(&vectors[row as usize * width..][..width]);
            }
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn directions_are_orthonormal_and_keep_vectors_of_a_subspace() {
        for width in [200, 256] {
            let all = vectors(MIN_VECTORS, width, 40, 0.3);
            let basis = find(&all, width).unwrap();
            assert_eq!(basis.n_short(), STEP);
            let rows: Vec<&[f32]> = basis.directions.chunks_exact(width).collect();
            for (i, x) in rows.iter().enumerate() {
                for (j, y) in rows.iter().enumerate() {
                    let product: f64 = x
                        .iter()
                        .zip(*y)
                        .map(|(&x, &y)| f64::from(x) * f64::from(y))
                        .sum();
                    let wanted = if i == j { 1.0 } else { 0.0 };
                    assert!((product - wanted).abs() < 1e-4, "{i} {j}: {product}");
                }
            }
            let projected = basis.project(&all[..50 * width]);
            for (short, vector) in projected
                .chunks_exact(STEP)
                .zip(all.chunks_exact(width))
                .skip(1)
            {
                let exact = crate::kernels::dot(vector, &all[..width]);
                let got = crate::kernels::dot(short, &projected[..STEP]);
                assert!((exact - got).abs() < 0.05, "{exact} {got}");
                assert!((0.9..=1.0001).contains(&norm(short)), "{}", norm(short));
            }
        }
    }

    #[test]
    fn vectors_without_main_directions_have_no_short_codes() {
        let all = vectors(MIN_VECTORS, 256, 1, 10.0);
        assert_eq!(find(&all, 256), None);
        assert_eq!(find(&all[..256 * 100], 256), None);
    }

    #[test]
    fn codes_lie_in_blocks_and_give_scores() {
        let (n, n_short) = (21, 64);
        let all = vectors(n, n_short, 64, 0.1);
        let mut codes = ShortCodes::new(n_short);
        codes.push(&all[..5 * n_short]);
        codes.push(&all[5 * n_short..]);
        assert_eq!(codes.scales.len(), n_in_blocks(n));
        let query = crate::quantise::QueryCodes::new(&all[..n_short], n_short);
        let blocks = crate::kernels::ShortBlocks {
            codes: &codes.codes,
            sums: &codes.sums,
            scales: &codes.scales,
        };
        let mut scores = vec![f32::NAN; n_in_blocks(n)];
        (Kernels::get().short_scores)(&query.codes, &query.scales, blocks, &mut scores);
        for (row, vector) in all.chunks_exact(n_short).enumerate() {
            let exact = crate::kernels::dot(vector, &all[..n_short]);
            assert!((scores[row] - exact).abs() < 0.01, "{row}");
        }
        assert!(scores[n..].iter().all(|&score| score == 0.0));
    }
}
