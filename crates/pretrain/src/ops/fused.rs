//! The CPU's own loops: each part of a block reads and writes its rows once.
//!
//! Every sum over rows first adds up blocks of a fixed number of rows, then the blocks in their order, so
//! results do not depend on the number of threads.
//!
//! A tensor `[rows, width]` has one row for each token of each image, image by image.

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData, TensorPrimitive};
use burn_flex::FlexTensor;
use m3ret_encoder::VitConfig;
use m3ret_encoder::product::{Matrix, Product, Threads};
use m3ret_encoder::vector::{self, Task, exp2, gelu, gelu_and_slope};
use rayon::prelude::*;

use super::gemm;
use super::stem::{StageOptions, fused as stem};
use super::{Affine, Dense, Heads, VitBackend, scale_of};
use crate::config::TrainPrecision;

/// Rows that one task works on.
const ROWS: usize = 64;

/// Precision of the products inside one head: they are so small that packing them for bf16 takes longer than
/// it saves.
const F32: TrainPrecision = TrainPrecision::F32;

/// Values that one task of an element-wise loop works on: 128 KiB of f32.
const VALUES: usize = 1 << 15;

impl VitBackend for Flex {
    fn vit_layer_norm(x: Tensor<Self, 2>, affine: Affine<Self>) -> Tensor<Self, 2> {
        let [n_rows, width] = x.dims();
        let (x, weight, bias) = (read(x), read(affine.weight), read(affine.bias));
        let (x, weight, bias) = (values(&x), values(&weight), values(&bias));
        // [rows, width]. A row needs only itself, so blocks of rows are independent tasks.
        let mut out = vec![0.0; x.len()];
        out.par_chunks_mut(ROWS * width)
            .zip(x.par_chunks(ROWS * width))
            .for_each(|(out, x)| {
                vector::run(Norm {
                    x,
                    weight,
                    bias,
                    out,
                });
            });
        tensor(out, [n_rows, width])
    }

    fn vit_layer_norm_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        gradient: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Affine<Self>) {
        let [n_rows, width] = x.dims();
        let (x, weight, gradient) = (read(x), read(weight), read(gradient));
        let (x, weight, gradient) = (values(&x), values(&weight), values(&gradient));
        let mut out = vec![0.0; x.len()];
        // [blocks of rows, 2, width]: weight and bias get sums over all rows, of which each task fills its own
        // part, so that no two tasks write to one place.
        let mut sums = vec![0.0; n_rows.div_ceil(ROWS) * 2 * width];
        out.par_chunks_mut(ROWS * width)
            .zip(sums.par_chunks_mut(2 * width))
            .zip(
                x.par_chunks(ROWS * width)
                    .zip(gradient.par_chunks(ROWS * width)),
            )
            .for_each(|((out, sums), (x, gradient))| {
                vector::run(NormBackward {
                    x,
                    weight,
                    gradient,
                    out,
                    sums,
                });
            });
        // [blocks, 2, width] -> [2, width], block by block.
        let sums = total(&sums, 2 * width);
        let (for_weight, for_bias) = sums.split_at(width);
        let affine = Affine {
            weight: tensor(for_weight.to_vec(), [width]),
            bias: tensor(for_bias.to_vec(), [width]),
        };
        (tensor(out, [n_rows, width]), affine)
    }

    fn vit_product(
        lhs: Tensor<Self, 2>,
        rhs: Tensor<Self, 2>,
        precision: TrainPrecision,
    ) -> Tensor<Self, 2> {
        let ([n_rows, depth], [_, width]) = (lhs.dims(), rhs.dims());
        let (lhs, rhs) = (read(lhs), read(rhs));
        let mut out = vec![0.0; n_rows * width];
        let left = Matrix::new(values(&lhs), [n_rows, depth], depth);
        let right = Matrix::new(values(&rhs), [depth, width], width);
        gemm::write(&Product::new(left, right), precision, &mut out, width);
        tensor(out, [n_rows, width])
    }

    fn vit_linear(
        x: Tensor<Self, 2>,
        dense: Dense<Self>,
        precision: TrainPrecision,
    ) -> Tensor<Self, 2> {
        let [n_rows, depth] = x.dims();
        let [width, _] = dense.weight.dims();
        let (x, weight, bias) = (read(x), read(dense.weight), read(dense.bias));
        let mut out = vec![0.0; n_rows * width];
        let left = Matrix::new(values(&x), [n_rows, depth], depth);
        // X W^T + b: [rows, in] x [in, out] -> [rows, out]. W is stored as [out, in] and read across, without a
        // copy; the product adds the bias itself, which saves another pass over the result.
        let right = Matrix::new(values(&weight), [width, depth], depth).transposed();
        let product = Product {
            bias: values(&bias),
            ..Product::new(left, right)
        };
        gemm::write(&product, precision, &mut out, width);
        tensor(out, [n_rows, width])
    }

    fn vit_linear_backward(
        x: Tensor<Self, 2>,
        gradient: Tensor<Self, 2>,
        precision: TrainPrecision,
    ) -> Dense<Self> {
        let ([n_rows, depth], [_, width]) = (x.dims(), gradient.dims());
        let (x, gradient) = (read(x), read(gradient));
        // Gradient for W: G^T X, [out, rows] x [rows, in] -> [out, in].
        let mut weight = vec![0.0; width * depth];
        let left = Matrix::new(values(&gradient), [n_rows, width], width).transposed();
        let right = Matrix::new(values(&x), [n_rows, depth], depth);
        gemm::write(&Product::new(left, right), precision, &mut weight, depth);
        // Gradient for b: the sum of G over its rows, [rows, out] -> [blocks of rows, out] -> [out].
        let mut sums = vec![0.0; n_rows.div_ceil(ROWS) * width];
        sums.par_chunks_mut(width)
            .zip(values(&gradient).par_chunks(ROWS * width))
            .for_each(|(sums, x)| add_rows(x, sums));
        Dense {
            weight: tensor(weight, [width, depth]),
            bias: tensor(total(&sums, width), [width]),
        }
    }

    fn vit_gelu(x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let shape = x.dims();
        let x = read(x);
        let x = values(&x);
        let mut out = vec![0.0; x.len()];
        out.par_chunks_mut(VALUES)
            .zip(x.par_chunks(VALUES))
            .for_each(|(out, x)| vector::run(Gelu { x, out }));
        tensor(out, shape)
    }

    fn vit_gelu_backward(x: Tensor<Self, 2>, gradient: Tensor<Self, 2>) -> [Tensor<Self, 2>; 2] {
        let shape = x.dims();
        let (mut x, mut gradient) = (read(x), read(gradient));
        // The results replace the arguments, which saves two buffers of the widest layer. Storage that another
        // tensor still holds is copied first, which is rare.
        let activated = x.storage_mut::<f32>();
        let for_x = gradient.storage_mut::<f32>();
        activated
            .par_chunks_mut(VALUES)
            .zip(for_x.par_chunks_mut(VALUES))
            .for_each(|(x, gradient)| vector::run(GeluBackward { x, gradient }));
        debug_assert_eq!(activated.len(), shape[0] * shape[1], "contiguous storage");
        [x, gradient].map(|made| Tensor::from_primitive(TensorPrimitive::Float(made)))
    }

    fn vit_attention(heads: Heads<Self>, _: TrainPrecision) -> Tensor<Self, 2> {
        let [n_tokens, width, _] = heads.sizes();
        let n_images = heads.n_images;
        let sizes = Sizes::of(&heads);
        let qkv = read(heads.qkv);
        let qkv = values(&qkv);
        // [images * tokens, E], the results of the heads side by side.
        let mut out = vec![0.0; n_images * n_tokens * width];
        sizes.for_each_image(&mut out, n_tokens * width, |image, out, scores, threads| {
            let qkv = &qkv[image * n_tokens * 3 * width..][..n_tokens * 3 * width];
            // One head at a time, so that only one [tokens, tokens] of weights exists for each thread.
            for head in 0..sizes.n_heads {
                sizes.weights(qkv, head, scores, threads);
                // [tokens, tokens] x [tokens, head width]: rows of the result are E apart, in the head's columns.
                let (weights, values) = (sizes.square(scores), sizes.part(qkv, 2, head));
                let product = sizes.product(weights, values, threads);
                gemm::write(&product, F32, &mut out[head * sizes.head_width..], width);
            }
        });
        tensor(out, [n_images * n_tokens, width])
    }

    fn vit_attention_backward(
        heads: Heads<Self>,
        gradient: Tensor<Self, 2>,
        _: TrainPrecision,
    ) -> Tensor<Self, 2> {
        let [n_tokens, width, _] = heads.sizes();
        let n_images = heads.n_images;
        let sizes = Sizes::of(&heads);
        let (qkv, gradient) = (read(heads.qkv), read(gradient));
        let (qkv, gradient) = (values(&qkv), values(&gradient));
        // [images * tokens, 3 E], laid out as `qkv`.
        let mut out = vec![0.0; qkv.len()];
        sizes.for_each_image(
            &mut out,
            3 * n_tokens * width,
            |image, out, scores, threads| {
                let qkv = &qkv[image * n_tokens * 3 * width..][..n_tokens * 3 * width];
                let gradient = &gradient[image * n_tokens * width..][..n_tokens * width];
                let mut slopes = vec![0.0; n_tokens * n_tokens];
                for head in 0..sizes.n_heads {
                    // The weights are computed again: kept from the forward pass they would take [tokens, tokens]
                    // for every head of every image, which grows with the square of the tokens.
                    sizes.weights(qkv, head, scores, threads);
                    let pass = HeadBackward {
                        head,
                        qkv,
                        gradient,
                        weights: scores,
                        slopes: &mut slopes,
                    };
                    sizes.backward(pass, out, threads);
                }
            },
        );
        tensor(out, [n_images * n_tokens, 3 * width])
    }

    fn vit_convolve(
        x: Tensor<Self, 2>,
        kernel: Tensor<Self, 2>,
        options: &StageOptions,
    ) -> Tensor<Self, 2> {
        stem::convolve(x, kernel, options)
    }

    fn vit_convolve_backward(
        x: Tensor<Self, 2>,
        kernel: Tensor<Self, 2>,
        options: &StageOptions,
        gradient: Tensor<Self, 2>,
        wants_x: bool,
    ) -> (Option<Tensor<Self, 2>>, Tensor<Self, 2>) {
        stem::convolve_backward(x, kernel, options, gradient, wants_x)
    }

    fn vit_group_norm_gelu(
        x: Tensor<Self, 2>,
        affine: Affine<Self>,
        n_images: usize,
    ) -> Tensor<Self, 2> {
        stem::group_norm_gelu(x, affine, n_images)
    }

    fn vit_group_norm_gelu_backward(
        x: Tensor<Self, 2>,
        affine: Affine<Self>,
        n_images: usize,
        gradient: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Affine<Self>) {
        stem::group_norm_gelu_backward(x, affine, n_images, gradient)
    }
}

/// What the backward pass of one head in one image reads, and the room that it works in.
struct HeadBackward<'a> {
    head: usize,
    /// Queries, keys and values of the image, `[tokens, 3 E]`.
    qkv: &'a [f32],
    /// Gradient of the image's attention, `[tokens, E]`.
    gradient: &'a [f32],
    /// Attention weights of the head, `[tokens, tokens]`.
    weights: &'a [f32],
    /// Room for the gradients of the weights, then of the scores, `[tokens, tokens]`.
    slopes: &'a mut [f32],
}

/// The sizes of one image's attention.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    n_images: usize,
    n_tokens: usize,
    n_heads: usize,
    width: usize,
    head_width: usize,
}

impl Sizes {
    fn of(heads: &Heads<Flex>) -> Self {
        let [n_tokens, width, head_width] = heads.sizes();
        Self {
            n_images: heads.n_images,
            n_tokens,
            n_heads: heads.n_heads,
            width,
            head_width,
        }
    }

    /// Calls `work` for each image with its part of `out` and room for one head's scores: one image a
    /// thread, or where there are few images, one after another with all threads in each product.
    fn for_each_image(
        &self,
        out: &mut [f32],
        n_values: usize,
        work: impl Fn(usize, &mut [f32], &mut [f32], Threads) + Sync,
    ) {
        let room = || vec![0.0; self.n_tokens * self.n_tokens];
        // Threads that share one product wait for each other, so whole images are the better unit of work as long
        // as every thread has one. Both ways compute the same sums in the same order.
        if self.n_images < rayon::current_num_threads() {
            let mut scores = room();
            for (image, out) in out.chunks_exact_mut(n_values).enumerate() {
                work(image, out, &mut scores, Threads::All);
            }
        } else {
            out.par_chunks_exact_mut(n_values)
                .enumerate()
                .for_each_init(room, |scores, (image, out)| {
                    work(image, out, scores, Threads::One);
                });
        }
    }

    /// Queries (0), keys (1) or values (2) of one head: rows that are `3 * width` apart.
    fn part<'a>(&self, qkv: &'a [f32], part: usize, head: usize) -> Matrix<'a> {
        let first = part * self.width + head * self.head_width;
        Matrix::new(
            &qkv[first..],
            [self.n_tokens, self.head_width],
            3 * self.width,
        )
    }

    fn square<'a>(&self, values: &'a [f32]) -> Matrix<'a> {
        Matrix::new(values, [self.n_tokens; 2], self.n_tokens)
    }

    fn product<'a>(&self, left: Matrix<'a>, right: Matrix<'a>, threads: Threads) -> Product<'a> {
        Product {
            threads,
            ..Product::new(left, right)
        }
    }

    /// Computes the attention weights of one head, `[tokens, tokens]`.
    fn weights(&self, qkv: &[f32], head: usize, scores: &mut [f32], threads: Threads) {
        // Q K^T / sqrt(head width): [tokens, head width] x [head width, tokens] -> [tokens, tokens].
        let (queries, keys) = (self.part(qkv, 0, head), self.part(qkv, 1, head));
        let product = Product {
            factor: scale_of(self.head_width),
            ..self.product(queries, keys.transposed(), threads)
        };
        gemm::write(&product, F32, scores, self.n_tokens);
        vector::run(Softmax {
            scores,
            width: self.n_tokens,
        });
    }

    /// Writes the gradients of one head's queries, keys and values into those of the image, `[tokens, 3 E]`.
    fn backward(&self, pass: HeadBackward<'_>, out: &mut [f32], threads: Threads) {
        let HeadBackward {
            head,
            qkv,
            gradient,
            weights,
            slopes,
        } = pass;
        let [queries, keys, values] = [0, 1, 2].map(|part| self.part(qkv, part, head));
        let first = head * self.head_width;
        let gradient = Matrix::new(
            &gradient[first..],
            [self.n_tokens, self.head_width],
            self.width,
        );
        let [for_queries, for_keys, for_values] = [0, 1, 2].map(|part| part * self.width + first);
        // With A the weights and G the gradient of A V: V gets A^T G, [tokens, head width].
        let transposed = self.square(weights).transposed();
        let product = self.product(transposed, gradient, threads);
        gemm::write(&product, F32, &mut out[for_values..], 3 * self.width);
        // The weights get G V^T, [tokens, tokens]; the softmax turns that into the gradients of the scores.
        let product = self.product(gradient, values.transposed(), threads);
        gemm::write(&product, F32, slopes, self.n_tokens);
        vector::run(SoftmaxBackward {
            weights,
            slopes,
            width: self.n_tokens,
        });
        // With S the gradients of the scores: Q gets S K and K gets S^T Q, both with the scale of the scores,
        // [tokens, head width].
        let slopes = self.square(slopes);
        for (place, left, right) in [
            (for_queries, slopes, keys),
            (for_keys, slopes.transposed(), queries),
        ] {
            let product = Product {
                factor: scale_of(self.head_width),
                ..self.product(left, right, threads)
            };
            gemm::write(&product, F32, &mut out[place..], 3 * self.width);
        }
    }
}

struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    out: &'a mut [f32],
}

impl Task for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let width = self.weight.len();
        let rows = self.x.chunks_exact(width);
        for (out, x) in self.out.chunks_exact_mut(width).zip(rows) {
            let (mean, factor) = moments(x);
            for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(self.weight).zip(self.bias)
            {
                *out = (x - mean) * factor * weight + bias;
            }
        }
    }
}

struct NormBackward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    gradient: &'a [f32],
    out: &'a mut [f32],
    /// Sums over these rows: for the weight, then for the bias.
    sums: &'a mut [f32],
}

impl Task for NormBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let width = self.weight.len();
        let (for_weight, for_bias) = self.sums.split_at_mut(width);
        let rows = self
            .x
            .chunks_exact(width)
            .zip(self.gradient.chunks_exact(width));
        for (out, (x, gradient)) in self.out.chunks_exact_mut(width).zip(rows) {
            let (mean, factor) = moments(x);
            // One pass over the row serves both sums and prepares the gradient for x. With n = (x - mean) factor,
            // the weight gets the sum of G n and the bias that of G.
            for i in 0..width {
                let normalised = (x[i] - mean) * factor;
                for_weight[i] += gradient[i] * normalised;
                for_bias[i] += gradient[i];
                // G w, the gradient for n; the loop below replaces it by the gradient for x.
                out[i] = gradient[i] * self.weight[i];
            }
            // n has mean 0 and variance 1 whatever x is, so the gradient for x loses its mean and its part along n.
            let n = as_f32(width);
            let centre = sum_of(width, |i| out[i]) / n;
            let along = sum_of(width, |i| out[i] * (x[i] - mean)) * factor / n;
            for i in 0..width {
                let normalised = (x[i] - mean) * factor;
                out[i] = (out[i] - centre - normalised * along) * factor;
            }
        }
    }
}

struct Gelu<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Task for Gelu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (out, &x) in self.out.iter_mut().zip(self.x) {
            *out = gelu::<FMA>(x);
        }
    }
}

struct GeluBackward<'a> {
    /// Becomes the GELU.
    x: &'a mut [f32],
    /// Gradient of the GELU; becomes the gradient of `x`.
    gradient: &'a mut [f32],
}

impl Task for GeluBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (x, gradient) in self.x.iter_mut().zip(self.gradient) {
            let (value, slope) = gelu_and_slope::<FMA>(*x);
            *x = value;
            *gradient *= slope;
        }
    }
}

struct Softmax<'a> {
    scores: &'a mut [f32],
    width: usize,
}

impl Task for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for row in self.scores.chunks_exact_mut(self.width) {
            // Without its largest score no exponential of the row overflows; the weights are the same.
            let largest = row
                .iter()
                .fold(f32::NEG_INFINITY, |most, &score| most.max(score));
            for score in row.iter_mut() {
                // e^x as a power of 2, which splits into an exponent and a short polynomial.
                *score = exp2::<FMA>((*score - largest) * std::f32::consts::LOG2_E);
            }
            let factor = 1.0 / sum_of(row.len(), |i| row[i]);
            row.iter_mut().for_each(|score| *score *= factor);
        }
    }
}

struct SoftmaxBackward<'a> {
    weights: &'a [f32],
    /// Gradients of the weights; become those of the scores.
    slopes: &'a mut [f32],
    width: usize,
}

impl Task for SoftmaxBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let rows = self.weights.chunks_exact(self.width);
        for (slopes, weights) in self.slopes.chunks_exact_mut(self.width).zip(rows) {
            // The weights of a row add up to 1, so only differences from the weighted mean change them.
            let mean = sum_of(weights.len(), |i| slopes[i] * weights[i]);
            for (slope, weight) in slopes.iter_mut().zip(weights) {
                *slope = (*slope - mean) * weight;
            }
        }
    }
}

/// Returns the mean of a row, and 1 over its standard deviation with epsilon under the root.
#[inline(always)]
fn moments(row: &[f32]) -> (f32, f32) {
    let n = as_f32(row.len());
    let mean = sum_of(row.len(), |i| row[i]) / n;
    // Squares of centred values: the difference of two large sums would lose the variance of a row far from 0.
    let squares = sum_of(row.len(), |i| (row[i] - mean) * (row[i] - mean));
    (mean, 1.0 / (squares / n + VitConfig::NORM_EPS).sqrt())
}

/// Sums `n` values in 32 interleaved parts, which become vector code and lose less to rounding than one sum.
#[inline(always)]
fn sum_of(n: usize, value: impl Fn(usize) -> f32) -> f32 {
    const PARTS: usize = 32;
    let mut parts = [0.0_f32; PARTS];
    let whole = n / PARTS * PARTS;
    for first in (0..whole).step_by(PARTS) {
        for (i, part) in parts.iter_mut().enumerate() {
            *part += value(first + i);
        }
    }
    for i in whole..n {
        parts[i - whole] += value(i);
    }
    // The parts are added in pairs, at fixed places: the result depends on `n` alone, not on the vector width.
    let mut half = PARTS / 2;
    while half > 0 {
        for i in 0..half {
            parts[i] += parts[i + half];
        }
        half /= 2;
    }
    parts[0]
}

fn add_rows(x: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        sums.iter_mut()
            .zip(row)
            .for_each(|(sum, value)| *sum += value);
    }
}

/// Adds up rows of partial sums.
pub(super) fn total(partial: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0; width];
    add_rows(partial, &mut sums);
    sums
}

/// Returns the tensor with its values in order, copied only if they were not.
pub(super) fn read<const D: usize>(tensor: Tensor<Flex, D>) -> FlexTensor {
    let tensor = tensor.into_primitive().tensor();
    let n_values = tensor.layout().num_elements();
    // A contiguous view may still cover only a part of its storage, which `values` returns as a whole.
    if tensor.is_contiguous() && tensor.storage::<f32>().len() == n_values {
        return tensor;
    }
    FlexTensor::from_data(tensor.into_data())
}

/// Returns the values of what `read` returned.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.storage()
}

pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<Flex, D> {
    let tensor = FlexTensor::from_data(TensorData::new(values, shape));
    Tensor::from_primitive(TensorPrimitive::Float(tensor))
}

#[allow(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
pub(super) fn as_f32(n: usize) -> f32 {
    n as f32
}
