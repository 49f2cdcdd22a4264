//! The parts of a block as compositions of Burn's operators, which every backend can run.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use m3ret_encoder::VitConfig;

use super::{Affine, Dense, Heads, concatenated, product, scale_of};
use crate::config::TrainPrecision;

pub(crate) fn layer_norm<B: Backend>(x: Tensor<B, 2>, affine: Affine<B>) -> Tensor<B, 2> {
    let (normalised, _) = normalised(x);
    normalised * affine.weight.unsqueeze() + affine.bias.unsqueeze()
}

pub(crate) fn layer_norm_backward<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    gradient: Tensor<B, 2>,
) -> (Tensor<B, 2>, Affine<B>) {
    let (normalised, deviation) = normalised(x);
    let affine = Affine {
        weight: column_sums(gradient.clone() * normalised.clone()),
        bias: column_sums(gradient.clone()),
    };
    let scaled = gradient * weight.unsqueeze();
    let along = (scaled.clone() * normalised.clone()).mean_dim(1);
    let centred = scaled.clone() - scaled.mean_dim(1);
    ((centred - normalised * along) / deviation, affine)
}

pub(crate) fn linear<B: Backend>(
    x: Tensor<B, 2>,
    dense: Dense<B>,
    precision: TrainPrecision,
) -> Tensor<B, 2> {
    product(x, dense.weight.transpose(), precision) + dense.bias.unsqueeze()
}

pub(crate) fn linear_backward<B: Backend>(
    x: Tensor<B, 2>,
    gradient: Tensor<B, 2>,
    precision: TrainPrecision,
) -> Dense<B> {
    Dense {
        weight: product(gradient.clone().transpose(), x, precision),
        bias: column_sums(gradient),
    }
}

pub(crate) fn gelu_backward<B: Backend>(
    x: Tensor<B, 2>,
    gradient: Tensor<B, 2>,
) -> [Tensor<B, 2>; 2] {
    let below = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    let density = (x.clone().powi_scalar(2) * -0.5).exp()
        * (0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2);
    let slope = below.clone() + x.clone() * density;
    [x * below, gradient * slope]
}

pub(crate) fn attention<B: Backend>(heads: Heads<B>, precision: TrainPrecision) -> Tensor<B, 2> {
    let [queries, keys, values] = heads.split();
    let weights = Heads::weights(queries, keys, precision);
    Heads::join(product(weights, values, precision))
}

pub(crate) fn attention_backward<B: Backend>(
    heads: Heads<B>,
    gradient: Tensor<B, 2>,
    precision: TrainPrecision,
) -> Tensor<B, 2> {
    let ([_, _, head_width], n_images, n_heads) = (heads.sizes(), heads.n_images, heads.n_heads);
    let [n_rows, width] = gradient.dims();
    let gradient = gradient
        .reshape([n_images, n_rows / n_images, n_heads, width / n_heads])
        .swap_dims(1, 2);
    let [queries, keys, values] = heads.split();
    let weights = Heads::weights(queries.clone(), keys.clone(), precision);
    let for_values = product(weights.clone().swap_dims(2, 3), gradient.clone(), precision);
    let for_weights = product(gradient, values.swap_dims(2, 3), precision);
    let mean = (for_weights.clone() * weights.clone()).sum_dim(3);
    let for_scores = weights * (for_weights - mean) * scale_of(head_width);
    let for_queries = product(for_scores.clone(), keys, precision);
    let for_keys = product(for_scores.swap_dims(2, 3), queries, precision);
    let parts = [for_queries, for_keys, for_values].map(Heads::join);
    concatenated(parts.to_vec(), 1)
}

/// Returns the rows with mean 0 and variance 1, and what they were divided by, `[rows, 1]`.
fn normalised<B: Backend>(x: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let centred = x.clone() - x.mean_dim(1);
    let variance = centred.clone().powi_scalar(2).mean_dim(1);
    let deviation = (variance + VitConfig::NORM_EPS).sqrt();
    (centred / deviation.clone(), deviation)
}

fn column_sums<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 1> {
    let [_, n_columns] = x.dims();
    x.sum_dim(0).reshape([n_columns])
}
