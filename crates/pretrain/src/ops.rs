//! The parts of a transformer block that Burn would compute in many small steps.
//!
//! `VitBackend` gives each of them a composition of Burn's own operators (`plain.rs`), which every backend
//! can run. The CPU replaces them by fused loops (`fused.rs`). With autodiff a whole
//! block is one node (`tracked.rs`), whose backward pass is `block::backward`.

pub(crate) mod block;
mod fused;
mod gemm;
mod plain;
pub(crate) mod stem;
mod tracked;

use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};

use crate::config::TrainPrecision;
use block::{BlockOptions, BlockWeights};
use stem::{StageOptions, StageWeights};

/// Weight and bias of a norm, or their gradients.
#[derive(Debug, Clone)]
pub(crate) struct Affine<B: Backend> {
    pub(crate) weight: Tensor<B, 1>,
    pub(crate) bias: Tensor<B, 1>,
}

/// Weight `[out, in]` and bias `[out]` of a linear layer, or their gradients.
#[derive(Debug, Clone)]
pub(crate) struct Dense<B: Backend> {
    pub(crate) weight: Tensor<B, 2>,
    pub(crate) bias: Tensor<B, 1>,
}

/// Queries, keys and values of every head side by side, with what tells heads and images apart.
#[derive(Debug, Clone)]
pub(crate) struct Heads<B: Backend> {
    /// `[images * tokens, 3 * E]`: queries, keys, values, each cut into heads.
    pub(crate) qkv: Tensor<B, 2>,
    pub(crate) n_images: usize,
    pub(crate) n_heads: usize,
}

impl<B: Backend> Heads<B> {
    /// Returns `[tokens of an image, E, width of a head]`.
    pub(crate) fn sizes(&self) -> [usize; 3] {
        let [n_rows, width] = self.qkv.dims();
        [n_rows / self.n_images, width / 3, width / 3 / self.n_heads]
    }

    /// Returns q, k and v as `[images, heads, tokens, head width]`.
    fn split(self) -> [Tensor<B, 4>; 3] {
        let [n_tokens, width, head_width] = self.sizes();
        [0, 1, 2].map(|part| {
            self.qkv
                .clone()
                .slice([
                    0..n_tokens * self.n_images,
                    part * width..(part + 1) * width,
                ])
                .reshape([self.n_images, n_tokens, self.n_heads, head_width])
                .swap_dims(1, 2)
        })
    }

    /// Puts `[images, heads, tokens, head width]` back into `[images * tokens, E]`.
    fn join(heads: Tensor<B, 4>) -> Tensor<B, 2> {
        let [n_images, n_heads, n_tokens, head_width] = heads.dims();
        heads
            .swap_dims(1, 2)
            .reshape([n_images * n_tokens, n_heads * head_width])
    }

    /// Returns the attention weights, `[images, heads, tokens, tokens]`.
    fn weights(
        queries: Tensor<B, 4>,
        keys: Tensor<B, 4>,
        precision: TrainPrecision,
    ) -> Tensor<B, 4> {
        let [.., head_width] = queries.dims();
        let scores = product(queries, keys.swap_dims(2, 3), precision);
        softmax(scores * scale_of(head_width), 3)
    }
}

/// Returns `1 / sqrt(width)`, by which scores are scaled.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "widths are small"
)]
fn scale_of(head_width: usize) -> f32 {
    (1.0 / (head_width as f64).sqrt()) as f32
}

/// Multiplies in the numbers of `precision`; the result is f32.
pub(crate) fn product<B: Backend, const D: usize>(
    lhs: Tensor<B, D>,
    rhs: Tensor<B, D>,
    precision: TrainPrecision,
) -> Tensor<B, D> {
    match precision {
        TrainPrecision::F32 => lhs.matmul(rhs),
        TrainPrecision::Bf16 => lhs
            .cast(DType::BF16)
            .matmul(rhs.cast(DType::BF16))
            .cast(DType::F32),
    }
}

/// Joins tensors along an axis.
///
/// Takes the place of `Tensor::cat`, which lets go of its parts before it registers its result. In between, the end of
/// another thread's backward pass takes a part's graph for abandoned and frees it (Burn 0.21), and the part's gradient
/// is lost without an error. Here the parts live until the result is registered.
#[expect(clippy::disallowed_methods, reason = "the one place that may call it")]
pub(crate) fn concatenated<B: Backend, const D: usize>(
    parts: Vec<Tensor<B, D>>,
    axis: usize,
) -> Tensor<B, D> {
    let result = Tensor::cat(parts.clone(), axis);
    drop(parts);
    result
}

/// What a Vision Transformer asks of a backend. Rows are tokens of all images, one after another.
pub(crate) trait VitBackend: Backend {
    /// Normalises each row to mean 0 and variance 1 (biased, eps 1e-6 inside the root), scales, shifts.
    fn vit_layer_norm(x: Tensor<Self, 2>, affine: Affine<Self>) -> Tensor<Self, 2> {
        plain::layer_norm(x, affine)
    }

    /// Returns the gradients of `vit_layer_norm` for `x` and the affine, given that of its result.
    fn vit_layer_norm_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        gradient: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Affine<Self>) {
        plain::layer_norm_backward(x, weight, gradient)
    }

    /// `lhs x rhs`.
    fn vit_product(
        lhs: Tensor<Self, 2>,
        rhs: Tensor<Self, 2>,
        precision: TrainPrecision,
    ) -> Tensor<Self, 2> {
        product(lhs, rhs, precision)
    }

    /// `x W^T + b`.
    fn vit_linear(
        x: Tensor<Self, 2>,
        dense: Dense<Self>,
        precision: TrainPrecision,
    ) -> Tensor<Self, 2> {
        plain::linear(x, dense, precision)
    }

    /// Returns the gradients of `vit_linear` for its layer: `[out, in]` and `[out]`.
    fn vit_linear_backward(
        x: Tensor<Self, 2>,
        gradient: Tensor<Self, 2>,
        precision: TrainPrecision,
    ) -> Dense<Self> {
        plain::linear_backward(x, gradient, precision)
    }

    /// The exact GELU.
    fn vit_gelu(x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        burn::tensor::activation::gelu(x)
    }

    /// Returns the GELU of `x`, and the gradient for `x` given that of the result.
    fn vit_gelu_backward(x: Tensor<Self, 2>, gradient: Tensor<Self, 2>) -> [Tensor<Self, 2>; 2] {
        plain::gelu_backward(x, gradient)
    }

    /// Softmax attention of every head within each image, `[rows, E]`.
    fn vit_attention(heads: Heads<Self>, precision: TrainPrecision) -> Tensor<Self, 2> {
        plain::attention(heads, precision)
    }

    /// Returns the gradient of `vit_attention` for `qkv`, given that of its result.
    fn vit_attention_backward(
        heads: Heads<Self>,
        gradient: Tensor<Self, 2>,
        precision: TrainPrecision,
    ) -> Tensor<Self, 2> {
        plain::attention_backward(heads, gradient, precision)
    }

    /// One pre-norm block: attention, then the MLP, each added to what came in.
    ///
    /// # Shapes
    /// `[images * tokens, E]` -> the same.
    fn vit_block(
        x: Tensor<Self, 2>,
        weights: BlockWeights<Self>,
        options: &BlockOptions,
    ) -> Tensor<Self, 2> {
        block::forward(x, &weights, options).0
    }

    /// The convolution of one stage of a stem.
    ///
    /// # Shapes
    /// `x` [rows read, in], `kernel` [out, 9 in] -> [rows written, out]
    fn vit_convolve(
        x: Tensor<Self, 2>,
        kernel: Tensor<Self, 2>,
        options: &StageOptions,
    ) -> Tensor<Self, 2> {
        stem::convolve(x, kernel, options)
    }

    /// Returns the gradients of `vit_convolve` for `x`, where `wants_x`, and the kernel, given that of its
    /// result.
    fn vit_convolve_backward(
        x: Tensor<Self, 2>,
        kernel: Tensor<Self, 2>,
        options: &StageOptions,
        gradient: Tensor<Self, 2>,
        wants_x: bool,
    ) -> (Option<Tensor<Self, 2>>, Tensor<Self, 2>) {
        stem::convolve_backward(x, kernel, options, gradient, wants_x)
    }

    /// Normalises groups of channels over each image, scales, shifts, and applies the GELU.
    fn vit_group_norm_gelu(
        x: Tensor<Self, 2>,
        affine: Affine<Self>,
        n_images: usize,
    ) -> Tensor<Self, 2> {
        stem::group_norm_gelu(x, affine, n_images)
    }

    /// Returns the gradients of `vit_group_norm_gelu` for `x` and the affine.
    fn vit_group_norm_gelu_backward(
        x: Tensor<Self, 2>,
        affine: Affine<Self>,
        n_images: usize,
        gradient: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Affine<Self>) {
        stem::group_norm_gelu_backward(x, affine, n_images, gradient)
    }

    /// One stage of a stem: convolution, group norm, GELU.
    fn vit_stage(
        x: Tensor<Self, 2>,
        weights: StageWeights<Self>,
        options: &StageOptions,
    ) -> Tensor<Self, 2> {
        stem::forward(x, &weights, options).0
    }
}

#[cfg(feature = "cuda")]
impl VitBackend for burn::backend::Cuda {}

#[cfg(test)]
mod tests;
