//! Codes that stand for vectors in the first pass of a search: 8 bits a number, or 1.
//!
//! # Source
//! 1-bit codes: Gao and Long 2024 (`RaBitQ`), section 3. Differs: the query is not centred, since
//! its products with the centroids are known exactly; it is rounded to 4 bits to the nearest, not
//! at random; the rotation is one of signs and Walsh-Hadamard transforms.

use bytemuck::{Pod, Zeroable};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::kernels::{Kernels, PLANES};

/// What turns integer sums of codes into scores; 16 bytes for each row.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Terms {
    /// A number is its 8-bit code times this.
    pub(crate) scale: f32,
    /// Sum of the 8-bit codes.
    pub(crate) sum: i32,
    /// `<q, x - c> = factor * (2 * sum of q where the bit is 1 - sum of q)`, both rotated.
    pub(crate) factor: f32,
    /// How many bits are 1.
    pub(crate) n_ones: u32,
}

/// Returns how many bytes the 8-bit codes of a row take: whole cache lines.
pub(crate) fn code_stride(width: usize) -> usize {
    width.next_multiple_of(64)
}

/// Returns how many words the 1-bit codes of a row take.
pub(crate) fn bit_stride(width: usize) -> usize {
    width.div_ceil(64)
}

/// A random rotation that follows from the width alone, so that nothing is stored.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    signs: Vec<u64>,
    kernels: Kernels,
}

/// Begins every stream of random signs.
const SIGNS_SEED: u64 = 0x6d33_7265_7400_0001;

/// Rounds of signs and transforms, as the kernels make them.
const ROUNDS: usize = 4;

impl Rotation {
    pub(crate) fn new(width: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(SIGNS_SEED);
        let n_words = ROUNDS * bit_stride(width);
        Self {
            signs: (0..n_words).map(|_| random.random()).collect(),
            kernels: Kernels::get(),
        }
    }

    pub(crate) fn turn(&self, vector: &mut [f32]) {
        (self.kernels.rotate)(vector, &self.signs);
    }
}

/// The codes of some rows.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Encoded {
    /// [n, `code_stride`]
    pub(crate) codes: Vec<i8>,
    /// [n, `bit_stride`]
    pub(crate) bits: Vec<u64>,
    pub(crate) terms: Vec<Terms>,
}

/// Encodes rows against the centroids of their lists.
pub(crate) struct Encoder<'a> {
    width: usize,
    /// [lists, width]
    centroids: &'a [f32],
    rotation: Rotation,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(width: usize, centroids: &'a [f32]) -> Self {
        Self {
            width,
            centroids,
            rotation: Rotation::new(width),
        }
    }

    /// Encodes rows, each of the list that `lists` names.
    pub(crate) fn encode(&self, vectors: &[f32], lists: &[u32]) -> Encoded {
        let (n_codes, n_bits) = (code_stride(self.width), bit_stride(self.width));
        let mut encoded = Encoded {
            codes: vec![0; lists.len() * n_codes],
            bits: vec![0; lists.len() * n_bits],
            terms: vec![Terms::zeroed(); lists.len()],
        };
        let rows = vectors.par_chunks_exact(self.width).zip(lists);
        let places = encoded.codes.par_chunks_exact_mut(n_codes);
        let places = places.zip(encoded.bits.par_chunks_exact_mut(n_bits));
        let places = places.zip(&mut encoded.terms).with_min_len(64);
        rows.zip(places).for_each_init(
            || vec![0.0; self.width],
            |rest, ((vector, &list), ((codes, bits), terms))| {
                (terms.scale, terms.sum) = to_codes(vector, codes);
                let start = list as usize * self.width;
                let centroid = &self.centroids[start..start + self.width];
                for ((rest, x), c) in rest.iter_mut().zip(vector).zip(centroid) {
                    *rest = x - c;
                }
                (terms.factor, terms.n_ones) = self.to_bits(rest, bits);
            },
        );
        encoded
    }

    /// Rotates what is left of a vector without its centroid and keeps the signs.
    fn to_bits(&self, rest: &mut [f32], bits: &mut [u64]) -> (f32, u32) {
        self.rotation.turn(rest);
        let (mut squares, mut absolute) = (0.0_f32, 0.0_f32);
        for (chunk, word) in rest.chunks(64).zip(bits.iter_mut()) {
            for (i, &x) in chunk.iter().enumerate() {
                squares += x * x;
                absolute += x.abs();
                *word |= u64::from(x > 0.0) << i;
            }
        }
        let n_ones = bits.iter().map(|word| word.count_ones()).sum();
        let factor = if absolute > 0.0 {
            squares / absolute
        } else {
            0.0
        };
        (factor, n_ones)
    }
}

/// Rounds a vector to 8 bits a number; returns the scale and the sum of the codes.
pub(crate) fn to_codes(vector: &[f32], codes: &mut [i8]) -> (f32, i32) {
    let largest = vector
        .iter()
        .fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let (scale, inverse) = match largest {
        0.0 => (0.0, 0.0),
        largest => (largest / 127.0, 127.0 / largest),
    };
    let mut sum = 0;
    for (code, x) in codes.iter_mut().zip(vector) {
        // Adding and taking away 1.5 * 2^23 rounds to the nearest whole number.
        let rounded = (x * inverse + 12_582_912.0) - 12_582_912.0;
        #[expect(clippy::cast_possible_truncation, reason = "from -127 to 127")]
        let rounded = rounded as i32;
        sum += rounded;
        #[expect(clippy::cast_possible_truncation, reason = "from -127 to 127")]
        {
            *code = rounded as i8;
        }
    }
    (scale, sum)
}

/// A query as 8-bit codes, shifted so that they are not negative.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueryCodes {
    /// [n, `code_stride`]: codes plus 128.
    pub(crate) codes: Vec<u8>,
    pub(crate) scales: Vec<f32>,
}

impl QueryCodes {
    pub(crate) fn new(queries: &[f32], width: usize) -> Self {
        let stride = code_stride(width);
        let n_queries = queries.len() / width;
        let mut made = Self {
            codes: vec![128; n_queries * stride],
            scales: vec![0.0; n_queries],
        };
        let places = made
            .codes
            .par_chunks_exact_mut(stride)
            .zip(&mut made.scales);
        let places = places.with_min_len(64);
        places.zip(queries.par_chunks_exact(width)).for_each_init(
            || vec![0; stride],
            |codes, ((place, scale), query)| {
                (*scale, _) = to_codes(query, codes);
                for (place, code) in place.iter_mut().zip(codes) {
                    *place = code.cast_unsigned() ^ 0x80;
                }
            },
        );
        made
    }
}

/// Returns the score that 8-bit codes stand for.
#[inline]
#[expect(
    clippy::cast_precision_loss,
    reason = "scores of the first pass are rounded anyway"
)]
pub(crate) fn score_of_codes(product: i32, query_scale: f32, terms: &Terms) -> f32 {
    (product - 128 * terms.sum) as f32 * (query_scale * terms.scale)
}

/// A rotated query as 4 planes of bits.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueryBits {
    /// [`PLANES`, `bit_stride`]
    pub(crate) planes: Vec<u64>,
    low: f32,
    step: f32,
    sum: f32,
}

impl QueryBits {
    pub(crate) fn new(query: &[f32], rotation: &Rotation) -> Self {
        let mut turned = query.to_vec();
        rotation.turn(&mut turned);
        let low = turned.iter().fold(f32::INFINITY, |low, &x| low.min(x));
        let high = turned
            .iter()
            .fold(f32::NEG_INFINITY, |high, &x| high.max(x));
        let step = (high - low) / 15.0;
        let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
        let stride = bit_stride(query.len());
        let mut planes = vec![0; PLANES * stride];
        let mut total = 0.0;
        for (i, &x) in turned.iter().enumerate() {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "from 0 to 15"
            )]
            let level = ((x - low) * inverse).round() as u64;
            total += low + step * f32::from(u8::try_from(level).unwrap_or(15));
            for p in 0..PLANES {
                planes[p * stride + i / 64] |= (level >> p & 1) << (i % 64);
            }
        }
        Self {
            planes,
            low,
            step,
            sum: total,
        }
    }

    /// Returns the score that 1-bit codes stand for; `centre` is the query's product with the
    /// centroid of the row's list.
    #[inline]
    #[expect(
        clippy::cast_precision_loss,
        reason = "scores of the first pass are rounded anyway"
    )]
    pub(crate) fn score(&self, common: u32, terms: &Terms, centre: f32) -> f32 {
        let at_ones = self.low * terms.n_ones as f32 + self.step * common as f32;
        centre + terms.factor * (2.0 * at_ones - self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::dot;

    fn unit(random: &mut ChaCha8Rng, width: usize) -> Vec<f32> {
        let mut vector: Vec<f32> = (0..width).map(|_| random.random::<f32>() - 0.5).collect();
        crate::embedding::normalize(&mut vector).unwrap();
        vector
    }

    #[test]
    fn codes_stand_for_scores_within_their_rounding() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for width in [3, 64, 100, 192, 768] {
            let (query, row) = (unit(&mut random, width), unit(&mut random, width));
            let centroid: Vec<f32> = unit(&mut random, width).iter().map(|x| 0.5 * x).collect();
            let row: Vec<f32> = row.iter().zip(&centroid).map(|(x, c)| x + c).collect();
            let exact = dot(&query, &row);
            let encoded = Encoder::new(width, &centroid).encode(&row, &[0]);
            let kernels = Kernels::get();

            let codes = QueryCodes::new(&query, width);
            let mut product = [0];
            (kernels.dots_i8)(
                &codes.codes,
                &encoded.codes,
                code_stride(width),
                &mut product,
            );
            let got = score_of_codes(product[0], codes.scales[0], &encoded.terms[0]);
            assert!((got - exact).abs() < 0.01, "{width}: {got} {exact}");

            let bits = QueryBits::new(&query, &Rotation::new(width));
            let mut common = [0];
            (kernels.common)(&bits.planes, &encoded.bits, &[0], &mut common);
            let got = bits.score(common[0], &encoded.terms[0], dot(&query, &centroid));
            // The error falls with the root of the width (paper, theorem 3.2).
            let bound = 4.0 / (width as f32).sqrt();
            assert!((got - exact).abs() < bound, "{width}: {got} {exact}");
        }
    }

    #[test]
    fn a_row_that_is_its_centroid_has_the_centroids_score() {
        let row = [0.6, 0.8];
        let encoded = Encoder::new(2, &row).encode(&row, &[0]);
        assert_eq!(encoded.terms[0].factor, 0.0);
        let bits = QueryBits::new(&[1.0, 0.0], &Rotation::new(2));
        assert_eq!(bits.score(1, &encoded.terms[0], 0.6), 0.6);
    }
}
