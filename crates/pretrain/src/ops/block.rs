//! One transformer block, forward and backward, written once for every backend.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::{Affine, Dense, Heads, VitBackend};
use crate::config::TrainPrecision;

/// What a block learns, or its gradients. The names are those of the weights.
#[derive(Debug, Clone)]
pub(crate) struct BlockWeights<B: Backend> {
    pub(crate) norm1: Affine<B>,
    pub(crate) qkv: Dense<B>,
    pub(crate) proj: Dense<B>,
    pub(crate) norm2: Affine<B>,
    pub(crate) fc1: Dense<B>,
    pub(crate) fc2: Dense<B>,
}

/// How a block runs.
#[derive(Debug, Clone)]
pub(crate) struct BlockOptions {
    pub(crate) n_images: usize,
    pub(crate) n_heads: usize,
    pub(crate) precision: TrainPrecision,
    /// Keeps only the input for the backward pass.
    pub(crate) recompute: bool,
    /// Stochastic depth: what attention and MLP of each image are multiplied by before they are added.
    pub(crate) branch_scale: Option<[Arc<[f32]>; 2]>,
}

/// What the backward pass needs of the forward pass, beside input and weights; `[rows, ...]` each.
#[derive(Debug, Clone)]
pub(crate) struct Kept<B: Backend> {
    qkv: Tensor<B, 2>,
    attended: Tensor<B, 2>,
    /// The sum after attention.
    middle: Tensor<B, 2>,
    /// The MLP before its GELU.
    hidden: Tensor<B, 2>,
}

/// Returns `[rows, E]` after the block, and what `backward` needs.
pub(crate) fn forward<B: VitBackend>(
    x: Tensor<B, 2>,
    weights: &BlockWeights<B>,
    options: &BlockOptions,
) -> (Tensor<B, 2>, Kept<B>) {
    let precision = options.precision;
    let qkv = B::vit_linear(
        B::vit_layer_norm(x.clone(), weights.norm1.clone()),
        weights.qkv.clone(),
        precision,
    );
    let attended = B::vit_attention(heads(qkv.clone(), options), precision);
    let branch = B::vit_linear(attended.clone(), weights.proj.clone(), precision);
    let middle = x + scaled(branch, options, 0);
    let hidden = B::vit_linear(
        B::vit_layer_norm(middle.clone(), weights.norm2.clone()),
        weights.fc1.clone(),
        precision,
    );
    let branch = B::vit_linear(B::vit_gelu(hidden.clone()), weights.fc2.clone(), precision);
    let result = middle.clone() + scaled(branch, options, 1);
    let kept = Kept {
        qkv,
        attended,
        middle,
        hidden,
    };
    (result, kept)
}

/// Returns the gradients for `x` and the weights, given that of the block's result.
pub(crate) fn backward<B: VitBackend>(
    x: Tensor<B, 2>,
    weights: BlockWeights<B>,
    kept: Kept<B>,
    options: &BlockOptions,
    gradient: Tensor<B, 2>,
) -> (Tensor<B, 2>, BlockWeights<B>) {
    let precision = options.precision;
    let Kept {
        qkv,
        attended,
        middle,
        hidden,
    } = kept;

    // The MLP.
    let branch = scaled(gradient.clone(), options, 1);
    let for_activated = B::vit_product(branch.clone(), weights.fc2.weight, precision);
    let [activated, for_hidden] = B::vit_gelu_backward(hidden, for_activated);
    let fc2 = B::vit_linear_backward(activated, branch, precision);
    let normed = B::vit_layer_norm(middle.clone(), weights.norm2.clone());
    let fc1 = B::vit_linear_backward(normed, for_hidden.clone(), precision);
    let for_normed = B::vit_product(for_hidden, weights.fc1.weight, precision);
    let (for_middle, norm2) = B::vit_layer_norm_backward(middle, weights.norm2.weight, for_normed);
    let gradient = gradient + for_middle;

    // Attention.
    let branch = scaled(gradient.clone(), options, 0);
    let for_attended = B::vit_product(branch.clone(), weights.proj.weight, precision);
    let proj = B::vit_linear_backward(attended, branch, precision);
    let for_qkv = B::vit_attention_backward(heads(qkv, options), for_attended, precision);
    let normed = B::vit_layer_norm(x.clone(), weights.norm1.clone());
    let qkv = B::vit_linear_backward(normed, for_qkv.clone(), precision);
    let for_normed = B::vit_product(for_qkv, weights.qkv.weight, precision);
    let (for_x, norm1) = B::vit_layer_norm_backward(x, weights.norm1.weight, for_normed);
    let weights = BlockWeights {
        norm1,
        qkv,
        proj,
        norm2,
        fc1,
        fc2,
    };
    (gradient + for_x, weights)
}

fn heads<B: Backend>(qkv: Tensor<B, 2>, options: &BlockOptions) -> Heads<B> {
    Heads {
        qkv,
        n_images: options.n_images,
        n_heads: options.n_heads,
    }
}

/// Multiplies the rows of each image by its factor of stochastic depth.
fn scaled<B: Backend>(branch: Tensor<B, 2>, options: &BlockOptions, idx: usize) -> Tensor<B, 2> {
    let Some(scales) = &options.branch_scale else {
        return branch;
    };
    let [n_rows, width] = branch.dims();
    let device = branch.device();
    let factors = TensorData::new(scales[idx].to_vec(), [options.n_images, 1, 1]);
    let factors = Tensor::<B, 3>::from_data(factors, &device);
    let images = branch.reshape([options.n_images, n_rows / options.n_images, width]);
    (images * factors).reshape([n_rows, width])
}
