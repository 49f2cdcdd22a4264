//! The stage of a stem on the CPU.
//!
//! Images are worked on in blocks whose size follows from the shapes alone, and sums over blocks are added in
//! order, so results do not depend on the number of threads.

use burn::backend::Flex;
use burn::tensor::Tensor;
use m3ret_encoder::VitConfig;
use m3ret_encoder::product::{Matrix, Product, Threads};
use m3ret_encoder::stem::{STEM_GROUPS, TAPS};
use m3ret_encoder::vector::{self, Task, gelu, gelu_and_slope};
use rayon::prelude::*;

use super::StageOptions;
use crate::ops::Affine;
use crate::ops::fused::{as_f32, read, tensor, total, values};
use crate::ops::gemm;

/// Rows of gathered taps that one product takes at least, if there are images enough.
const ROWS: usize = 512;

impl StageOptions {
    /// Returns how many images one task works on.
    fn block(&self) -> usize {
        let [_, n_results] = self.n_rows();
        (ROWS / n_results).max(1)
    }

    /// Computes a product of one task, whose rows lie one after another in `out`.
    fn multiply(&self, left: Matrix<'_>, right: Matrix<'_>, out: &mut [f32]) {
        let [_, width] = right.shape();
        let product = Product {
            threads: Threads::One,
            ..Product::new(left, right)
        };
        gemm::write(&product, self.precision, out, width);
    }

    /// Gathers what the taps of some images read.
    ///
    /// # Shapes
    /// `x` [rows read of these images, in] -> `gathered` [rows written of these images, 9 in]
    fn gather(&self, first_image: usize, x: &[f32], gathered: &mut [f32], n_channels: usize) {
        let [n_rows, n_results] = self.n_rows();
        let width = TAPS * n_channels;
        let images = gathered.chunks_exact_mut(n_results * width);
        for (i, gathered) in images.enumerate() {
            let x = &x[i * n_rows * n_channels..][..n_rows * n_channels];
            self.for_each_tap(first_image + i, |result, tap, row| {
                let place = &mut gathered[result * width + tap * n_channels..][..n_channels];
                match row {
                    Some(row) => place.copy_from_slice(&x[row * n_channels..][..n_channels]),
                    None => place.fill(0.0),
                }
            });
        }
    }

    /// Adds the gradients of gathered rows to the rows that they were gathered from; the inverse of `gather`.
    fn scatter(&self, first_image: usize, gathered: &[f32], x: &mut [f32], n_channels: usize) {
        let [n_rows, n_results] = self.n_rows();
        let width = TAPS * n_channels;
        let images = gathered.chunks_exact(n_results * width);
        for (i, gathered) in images.enumerate() {
            let x = &mut x[i * n_rows * n_channels..][..n_rows * n_channels];
            self.for_each_tap(first_image + i, |result, tap, row| {
                let Some(row) = row else { return };
                let place = &gathered[result * width + tap * n_channels..][..n_channels];
                let sums = &mut x[row * n_channels..][..n_channels];
                sums.iter_mut()
                    .zip(place)
                    .for_each(|(sum, value)| *sum += value);
            });
        }
    }
}

pub(in crate::ops) fn convolve(
    x: Tensor<Flex, 2>,
    kernel: Tensor<Flex, 2>,
    options: &StageOptions,
) -> Tensor<Flex, 2> {
    let ([_, n_channels], [n_outputs, width]) = (x.dims(), kernel.dims());
    let (x, kernel) = (read(x), read(kernel));
    let x = values(&x);
    let kernel = Matrix::new(values(&kernel), [n_outputs, width], width);
    let [n_rows, n_results] = options.n_rows();
    let block = options.block();
    let mut out = vec![0.0; options.n_images * n_results * n_outputs];
    out.par_chunks_mut(block * n_results * n_outputs)
        .zip(x.par_chunks(block * n_rows * n_channels))
        .enumerate()
        .for_each_init(Vec::new, |gathered, (i, (out, x))| {
            let n = out.len() / n_outputs;
            gathered.resize(n * width, 0.0);
            options.gather(i * block, x, gathered, n_channels);
            let gathered = Matrix::new(gathered, [n, width], width);
            options.multiply(gathered, kernel.transposed(), out);
        });
    tensor(out, [options.n_images * n_results, n_outputs])
}

/// The images that one task of a backward pass works on.
struct ImageBlock<'a> {
    /// Number of the first of them.
    first: usize,
    /// What the stage read of them, `[rows read, in]`.
    x: &'a [f32],
    /// The gradient of their results, `[rows written, out]`.
    gradient: &'a [f32],
}

pub(in crate::ops) fn convolve_backward(
    x: Tensor<Flex, 2>,
    kernel: Tensor<Flex, 2>,
    options: &StageOptions,
    gradient: Tensor<Flex, 2>,
    wants_x: bool,
) -> (Option<Tensor<Flex, 2>>, Tensor<Flex, 2>) {
    let ([n_x, n_channels], [n_outputs, width]) = (x.dims(), kernel.dims());
    let (x, kernel, gradient) = (read(x), read(kernel), read(gradient));
    let (x, gradient) = (values(&x), values(&gradient));
    let kernel = Matrix::new(values(&kernel), [n_outputs, width], width);
    let [n_rows, n_results] = options.n_rows();
    let block = options.block();
    let mut for_x = vec![0.0; if wants_x { x.len() } else { 0 }];
    let mut for_kernel = vec![0.0; options.n_images.div_ceil(block) * n_outputs * width];
    let work = |images: ImageBlock<'_>,
                gathered: &mut Vec<f32>,
                for_kernel: &mut [f32],
                for_x: Option<&mut [f32]>| {
        let n = images.gradient.len() / n_outputs;
        let gradient = Matrix::new(images.gradient, [n, n_outputs], n_outputs);
        gathered.resize(n * width, 0.0);
        options.gather(images.first, images.x, gathered, n_channels);
        let taps = Matrix::new(gathered, [n, width], width);
        options.multiply(gradient.transposed(), taps, for_kernel);
        if let Some(for_x) = for_x {
            options.multiply(gradient, kernel, gathered);
            options.scatter(images.first, gathered, for_x, n_channels);
        }
    };
    let images = x
        .par_chunks(block * n_rows * n_channels)
        .zip(gradient.par_chunks(block * n_results * n_outputs))
        .enumerate()
        .map(|(i, (x, gradient))| ImageBlock {
            first: i * block,
            x,
            gradient,
        });
    let kernels = for_kernel.par_chunks_mut(n_outputs * width);
    if wants_x {
        kernels
            .zip(for_x.par_chunks_mut(block * n_rows * n_channels))
            .zip(images)
            .for_each_init(Vec::new, |gathered, ((for_kernel, for_x), images)| {
                work(images, gathered, for_kernel, Some(for_x));
            });
    } else {
        kernels
            .zip(images)
            .for_each_init(Vec::new, |gathered, (for_kernel, images)| {
                work(images, gathered, for_kernel, None);
            });
    }
    let for_kernel = total(&for_kernel, n_outputs * width);
    let for_x = wants_x.then(|| tensor(for_x, [n_x, n_channels]));
    (for_x, tensor(for_kernel, [n_outputs, width]))
}

pub(in crate::ops) fn group_norm_gelu(
    x: Tensor<Flex, 2>,
    affine: Affine<Flex>,
    n_images: usize,
) -> Tensor<Flex, 2> {
    let [n_rows, width] = x.dims();
    let (x, weight, bias) = (read(x), read(affine.weight), read(affine.bias));
    let (x, weight, bias) = (values(&x), values(&weight), values(&bias));
    let per_image = n_rows / n_images * width;
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(per_image)
        .zip(x.par_chunks(per_image))
        .for_each(|(out, x)| {
            vector::run(Forward {
                x,
                weight,
                bias,
                out,
            });
        });
    tensor(out, [n_rows, width])
}

pub(in crate::ops) fn group_norm_gelu_backward(
    x: Tensor<Flex, 2>,
    affine: Affine<Flex>,
    n_images: usize,
    gradient: Tensor<Flex, 2>,
) -> (Tensor<Flex, 2>, Affine<Flex>) {
    let [n_rows, width] = x.dims();
    let (x, weight, bias) = (read(x), read(affine.weight), read(affine.bias));
    let gradient = read(gradient);
    let (x, weight, bias) = (values(&x), values(&weight), values(&bias));
    let per_image = n_rows / n_images * width;
    let mut out = vec![0.0; x.len()];
    let mut sums = vec![0.0; n_images * 2 * width];
    out.par_chunks_mut(per_image)
        .zip(sums.par_chunks_mut(2 * width))
        .zip(
            x.par_chunks(per_image)
                .zip(values(&gradient).par_chunks(per_image)),
        )
        .for_each(|((out, sums), (x, gradient))| {
            vector::run(BackwardPass {
                x,
                weight,
                bias,
                gradient,
                out,
                sums,
            });
        });
    let sums = total(&sums, 2 * width);
    let (for_weight, for_bias) = sums.split_at(width);
    let affine = Affine {
        weight: tensor(for_weight.to_vec(), [width]),
        bias: tensor(for_bias.to_vec(), [width]),
    };
    (tensor(out, [n_rows, width]), affine)
}

/// Returns the mean and 1 over the deviation of each channel's group in one image.
#[inline(always)]
fn moments(x: &[f32], width: usize) -> (Vec<f32>, Vec<f32>) {
    let per_group = width / STEM_GROUPS;
    let n = as_f32(x.len() / width * per_group);
    let of_groups = |sums: &[f32]| -> Vec<f32> {
        let groups = sums.chunks_exact(per_group);
        let totals = groups.map(|sums| sums.iter().sum::<f32>() / n);
        totals
            .flat_map(|mean| std::iter::repeat_n(mean, per_group))
            .collect()
    };
    let mut sums = vec![0.0; width];
    column_sums(x, &mut sums, |_, value| value);
    let means = of_groups(&sums);
    column_sums(x, &mut sums, |channel, value| {
        (value - means[channel]) * (value - means[channel])
    });
    let mut factors = of_groups(&sums);
    for factor in &mut factors {
        *factor = 1.0 / (*factor + VitConfig::NORM_EPS).sqrt();
    }
    (means, factors)
}

/// Sums a function of each value over the rows of one image, in blocks of rows, so that little is rounded.
#[inline(always)]
fn column_sums(x: &[f32], sums: &mut [f32], value: impl Fn(usize, f32) -> f32) {
    const BLOCK: usize = 64;
    let width = sums.len();
    sums.fill(0.0);
    let mut part = vec![0.0_f32; width];
    for rows in x.chunks(BLOCK * width) {
        part.fill(0.0);
        for row in rows.chunks_exact(width) {
            for (channel, (sum, &x)) in part.iter_mut().zip(row).enumerate() {
                *sum += value(channel, x);
            }
        }
        sums.iter_mut()
            .zip(&part)
            .for_each(|(sum, part)| *sum += part);
    }
}

struct Forward<'a> {
    /// One image.
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    out: &'a mut [f32],
}

impl Task for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let width = self.weight.len();
        let (means, factors) = moments(self.x, width);
        let rows = self.x.chunks_exact(width);
        for (out, x) in self.out.chunks_exact_mut(width).zip(rows) {
            for i in 0..width {
                let normalised = (x[i] - means[i]) * factors[i];
                out[i] = gelu::<FMA>(normalised * self.weight[i] + self.bias[i]);
            }
        }
    }
}

struct BackwardPass<'a> {
    /// One image.
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    gradient: &'a [f32],
    out: &'a mut [f32],
    /// This image's gradients of the weight, then of the bias.
    sums: &'a mut [f32],
}

impl Task for BackwardPass<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let width = self.weight.len();
        let (means, factors) = moments(self.x, width);
        let (for_weight, for_bias) = self.sums.split_at_mut(width);
        let rows = self
            .x
            .chunks_exact(width)
            .zip(self.gradient.chunks_exact(width));
        // First the gradients before the GELU, and their sums.
        for (out, (x, gradient)) in self.out.chunks_exact_mut(width).zip(rows) {
            for i in 0..width {
                let normalised = (x[i] - means[i]) * factors[i];
                let (_, slope) = gelu_and_slope::<FMA>(normalised * self.weight[i] + self.bias[i]);
                out[i] = gradient[i] * slope;
                for_weight[i] += out[i] * normalised;
                for_bias[i] += out[i];
            }
        }
        // Then each group loses its mean and what lies along the normalised values.
        let per_group = width / STEM_GROUPS;
        let n = as_f32(self.x.len() / width * per_group);
        let group_mean = |sums: &[f32], i: usize| {
            let group = i / per_group * per_group..(i / per_group + 1) * per_group;
            group.map(|i| sums[i] * self.weight[i]).sum::<f32>() / n
        };
        let centres: Vec<f32> = (0..width).map(|i| group_mean(for_bias, i)).collect();
        let along: Vec<f32> = (0..width).map(|i| group_mean(for_weight, i)).collect();
        let rows = self.x.chunks_exact(width);
        for (out, x) in self.out.chunks_exact_mut(width).zip(rows) {
            for i in 0..width {
                let normalised = (x[i] - means[i]) * factors[i];
                out[i] =
                    (out[i] * self.weight[i] - centres[i] - normalised * along[i]) * factors[i];
            }
        }
    }
}
