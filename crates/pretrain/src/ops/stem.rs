//! One stage of a convolutional stem, forward and backward: a 3x3 convolution of stride 2, a group norm over
//! each image, a GELU (`m3ret_encoder::stem` says why and how rows lie).
//!
//! The two parts, convolution and normalisation, are compositions of Burn's operators that every backend can
//! run; the CPU replaces them by loops of its own (`stem/fused.rs`).

pub(super) mod fused;

use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use m3ret_encoder::VitConfig;
use m3ret_encoder::stem::{Around, STEM_GROUPS, TAPS};

use super::{Affine, VitBackend, concatenated, product};
use crate::config::TrainPrecision;

/// What a stage learns, or its gradients.
#[derive(Debug, Clone)]
pub(crate) struct StageWeights<B: Backend> {
    /// `[out, 9 in]`: taps slowest, channels fastest.
    pub(crate) kernel: Tensor<B, 2>,
    /// Of each channel, after its group is normalised.
    pub(crate) norm: Affine<B>,
}

/// What the backward pass of a stage needs of its forward pass.
#[derive(Debug, Clone)]
pub(crate) struct StageState<B: Backend> {
    /// What the stage read.
    pub(crate) x: Tensor<B, 2>,
    pub(crate) weights: StageWeights<B>,
    /// The convolution before norm and GELU.
    pub(crate) convolved: Tensor<B, 2>,
    pub(crate) options: StageOptions,
}

/// Where the kernels of a stage reach.
#[derive(Debug, Clone)]
pub(crate) struct StageOptions {
    pub(crate) n_images: usize,
    /// The patches around each seen patch of each image, image by image; all images see equally many.
    pub(crate) around: Arc<[Around]>,
    /// Side of a patch in what the stage reads; the result has half of it.
    pub(crate) side: usize,
    pub(crate) precision: TrainPrecision,
}

impl StageOptions {
    /// Returns the number of rows that the stage reads and writes for each image.
    fn n_rows(&self) -> [usize; 2] {
        let n_patches = self.around.len() / self.n_images;
        [self.side, self.side / 2].map(|side| n_patches * side * side)
    }

    /// Calls `visit` for each row of the result and each tap of its kernel, in order, with the row that the tap
    /// reads, counted within the image.
    fn for_each_tap(&self, image: usize, mut visit: impl FnMut(usize, usize, Option<usize>)) {
        let n_patches = self.around.len() / self.n_images;
        let per_patch = (self.side / 2) * (self.side / 2);
        let around = &self.around[image * n_patches..][..n_patches];
        for (patch, around) in around.iter().enumerate() {
            for position in 0..per_patch {
                around.taps(self.side, position, |tap, row| {
                    visit(patch * per_patch + position, tap, row);
                });
            }
        }
    }
}

/// Returns `[rows of the result, out]`, and the convolution before norm and GELU, which `backward` needs.
pub(crate) fn forward<B: VitBackend>(
    x: Tensor<B, 2>,
    weights: &StageWeights<B>,
    options: &StageOptions,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let convolved = B::vit_convolve(x, weights.kernel.clone(), options);
    let result = B::vit_group_norm_gelu(convolved.clone(), weights.norm.clone(), options.n_images);
    (result, convolved)
}

/// Returns the gradients for `x`, where it is wanted, and for the weights, given that of the stage's result.
pub(crate) fn backward<B: VitBackend>(
    state: StageState<B>,
    gradient: Tensor<B, 2>,
    wants_x: bool,
) -> (Option<Tensor<B, 2>>, StageWeights<B>) {
    let StageState {
        x,
        weights,
        convolved,
        options,
    } = state;
    let (for_convolved, norm) =
        B::vit_group_norm_gelu_backward(convolved, weights.norm, options.n_images, gradient);
    let (for_x, kernel) =
        B::vit_convolve_backward(x, weights.kernel, &options, for_convolved, wants_x);
    (for_x, StageWeights { kernel, norm })
}

/// The convolution as a product of gathered rows.
///
/// # Shapes
/// `x` [rows read, in], `kernel` [out, 9 in] -> [rows written, out]
pub(super) fn convolve<B: Backend>(
    x: Tensor<B, 2>,
    kernel: Tensor<B, 2>,
    options: &StageOptions,
) -> Tensor<B, 2> {
    let gathered = gather(x, options);
    product(gathered, kernel.transpose(), options.precision)
}

pub(super) fn convolve_backward<B: Backend>(
    x: Tensor<B, 2>,
    kernel: Tensor<B, 2>,
    options: &StageOptions,
    gradient: Tensor<B, 2>,
    wants_x: bool,
) -> (Option<Tensor<B, 2>>, Tensor<B, 2>) {
    let [n_rows, n_channels] = x.dims();
    let device = x.device();
    let gathered = gather(x, options);
    let for_kernel = product(gradient.clone().transpose(), gathered, options.precision);
    if !wants_x {
        return (None, for_kernel);
    }
    // Each row gets the sum over all taps that read it; the row of zeros at the end is dropped.
    let for_gathered = product(gradient, kernel, options.precision);
    let [n_results, _] = for_gathered.dims();
    let for_gathered = for_gathered.reshape([n_results * TAPS, n_channels]);
    let for_x = Tensor::zeros([n_rows + 1, n_channels], &device)
        .select_assign(
            0,
            row_of_each_tap(options, &device),
            for_gathered,
            IndexingUpdateOp::Add,
        )
        .slice([0..n_rows, 0..n_channels]);
    (Some(for_x), for_kernel)
}

/// Returns what the taps of each result read, `[rows written, 9 in]`.
fn gather<B: Backend>(x: Tensor<B, 2>, options: &StageOptions) -> Tensor<B, 2> {
    let [_, n_channels] = x.dims();
    let device = x.device();
    let zeros = Tensor::zeros([1, n_channels], &device);
    let taps = row_of_each_tap(options, &device);
    let [_, n_results] = options.n_rows();
    concatenated(vec![x, zeros], 0)
        .select(0, taps)
        .reshape([options.n_images * n_results, TAPS * n_channels])
}

/// Returns the row that each tap reads; the row after the last one stands for zeros.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "rows of a micro-batch are far below 2^31"
)]
fn row_of_each_tap<B: Backend>(options: &StageOptions, device: &B::Device) -> Tensor<B, 1, Int> {
    let [n_rows, n_results] = options.n_rows();
    let zeros = (options.n_images * n_rows) as i32;
    let mut taps = Vec::with_capacity(options.n_images * n_results * TAPS);
    for image in 0..options.n_images {
        options.for_each_tap(image, |_, _, row| {
            taps.push(row.map_or(zeros, |row| (image * n_rows + row) as i32));
        });
    }
    Tensor::from_data(TensorData::from(taps.as_slice()), device)
}

/// Normalises each group of channels over all rows of an image, scales, shifts, and applies the GELU.
pub(super) fn group_norm_gelu<B: VitBackend>(
    x: Tensor<B, 2>,
    affine: Affine<B>,
    n_images: usize,
) -> Tensor<B, 2> {
    let shape = x.dims();
    let (normalised, _) = normalised(x, n_images);
    let scaled = normalised.reshape(shape) * affine.weight.unsqueeze() + affine.bias.unsqueeze();
    B::vit_gelu(scaled)
}

pub(super) fn group_norm_gelu_backward<B: VitBackend>(
    x: Tensor<B, 2>,
    affine: Affine<B>,
    n_images: usize,
    gradient: Tensor<B, 2>,
) -> (Tensor<B, 2>, Affine<B>) {
    let [n_rows, width] = x.dims();
    let (normalised, deviation) = normalised(x, n_images);
    let flat = normalised.clone().reshape([n_rows, width]);
    let scaled = flat.clone() * affine.weight.clone().unsqueeze() + affine.bias.unsqueeze();
    let [_, for_scaled] = B::vit_gelu_backward(scaled, gradient);
    let column_sums = |x: Tensor<B, 2>| x.sum_dim(0).reshape([width]);
    let for_affine = Affine {
        weight: column_sums(for_scaled.clone() * flat),
        bias: column_sums(for_scaled.clone()),
    };
    // [images, rows, groups, channels of a group], as `normalised`.
    let for_normalised = (for_scaled * affine.weight.unsqueeze()).reshape(normalised.dims());
    let centre = group_means(for_normalised.clone());
    let along = group_means(for_normalised.clone() * normalised.clone());
    let for_x = (for_normalised - centre - normalised * along) / deviation;
    (for_x.reshape([n_rows, width]), for_affine)
}

/// Returns `[images, rows, groups, channels of a group]` with mean 0 and variance 1 in each group of an image,
/// and what it was divided by, `[images, 1, groups, 1]`.
fn normalised<B: Backend>(x: Tensor<B, 2>, n_images: usize) -> (Tensor<B, 4>, Tensor<B, 4>) {
    let [n_rows, width] = x.dims();
    let x = x.reshape([
        n_images,
        n_rows / n_images,
        STEM_GROUPS,
        width / STEM_GROUPS,
    ]);
    let centred = x.clone() - group_means(x);
    let variance = group_means(centred.clone().powi_scalar(2));
    let deviation = (variance + VitConfig::NORM_EPS).sqrt();
    (centred / deviation.clone(), deviation)
}

fn group_means<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 4> {
    x.mean_dim(3).mean_dim(1)
}
