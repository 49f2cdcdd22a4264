//! Masked autoencoding: He et al. 2022, with 3D patches and grids of any depth.

mod target;

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use m3ret_encoder::{VitConfig, patchify, sin_cos};
use m3ret_imaging::Input;

pub(crate) use self::target::{loss, target, target_len};
use crate::config::MaeSettings;
use crate::error::Result;
use crate::ops::{VitBackend, concatenated};
use crate::random::{Initial, generator, uniform};
use crate::vit::{Block, LayerNorm, Linear, Patches, Running, Vit, run_blocks};

/// Added to the variance of a target patch, inside the root.
const TARGET_EPS: f64 = 1e-6;

/// Encoder and decoder. Only the encoder outlives training.
#[derive(Module, Debug)]
pub(crate) struct Mae<B: Backend> {
    encoder: Vit<B>,
    decoder_embed: Linear<B>,
    mask_token: Param<Tensor<B, 3>>,
    decoder_blocks: Vec<Block<B>>,
    decoder_norm: LayerNorm<B>,
    decoder_pred: Linear<B>,
}

/// Which patches of one image are hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mask {
    /// Cells the encoder sees, in the order it sees them.
    pub(crate) shown: Vec<usize>,
    /// Hidden cells, ascending.
    pub(crate) hidden: Vec<usize>,
    /// For each cell its place in the shuffled order, shown cells first.
    pub(crate) restore: Vec<usize>,
}

impl Mask {
    /// Shows the `len_keep` cells with the least noise; of equal noise the earlier cell.
    pub(crate) fn from_noise(noise: &[f32], len_keep: usize) -> Self {
        let mut shuffled: Vec<usize> = (0..noise.len()).collect();
        shuffled.sort_by(|&a, &b| noise[a].total_cmp(&noise[b]));
        let mut restore = vec![0; noise.len()];
        for (place, &cell) in shuffled.iter().enumerate() {
            restore[cell] = place;
        }
        let mut hidden = shuffled.split_off(len_keep.min(noise.len()));
        hidden.sort_unstable();
        Self {
            shown: shuffled,
            hidden,
            restore,
        }
    }

    /// Draws a mask; `key` says what for.
    pub(crate) fn draw(grid: [usize; 3], settings: &MaeSettings, key: &[u64]) -> Self {
        let n_cells = grid.iter().product();
        let ratio = if grid[0] == 1 {
            settings.mask_ratio
        } else {
            settings.mask_ratio_deep
        };
        let mut rng = generator("mask", key);
        let noise: Vec<f32> = (0..n_cells).map(|_| uniform(&mut rng)).collect();
        Self::from_noise(&noise, len_keep(n_cells, ratio).max(1))
    }
}

/// Returns how many of `n` patches stay: `n (1 - ratio)` in f64, rounded down.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "between 0 and n; the rounding down is meant"
)]
pub(crate) fn len_keep(n: usize, ratio: f64) -> usize {
    (n as f64 * (1.0 - ratio)) as usize
}

/// Returns patches with mean 0 and unbiased variance 1, over all values of a patch; rows of `P`.
///
/// The patch of a single image is repeated along its depth, as everywhere.
///
/// # Errors
/// `Mismatch` if the image does not divide into patches.
fn pixels(image: &Input, patch: [usize; 3]) -> Result<Vec<f32>> {
    let mut patches = patchify(image.values(), image.shape(), patch)?;
    let [channels, ..] = image.shape();
    for patch in patches.chunks_exact_mut(patch.iter().product::<usize>() * channels) {
        let (mean, deviation) = moments(patch);
        for value in patch {
            *value = rounded((f64::from(*value) - mean) / deviation);
        }
    }
    Ok(patches)
}

/// Returns the mean of a patch and what its target is divided by.
#[allow(clippy::cast_precision_loss, reason = "patches have few values")]
pub(crate) fn moments(patch: &[f32]) -> (f64, f64) {
    let n = patch.len() as f64;
    let mean = patch.iter().map(|&value| f64::from(value)).sum::<f64>() / n;
    let squares: f64 = patch
        .iter()
        .map(|&value| (f64::from(value) - mean).powi(2))
        .sum();
    let variance = if patch.len() > 1 {
        squares / (n - 1.0)
    } else {
        0.0
    };
    (mean, (variance + TARGET_EPS).sqrt())
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the one rounding that is meant"
)]
fn rounded(value: f64) -> f32 {
    value as f32
}

/// How encoder and decoder run.
#[derive(Debug, Clone)]
pub(crate) struct MaeRunning {
    pub(crate) encoder: Running,
    pub(crate) decoder: Running,
    /// Every patch is predicted, not only the hidden ones that the loss needs.
    pub(crate) predicts_all: bool,
}

impl<B: Backend> Mae<B> {
    pub(crate) fn new(
        config: &VitConfig,
        settings: &MaeSettings,
        initial: &mut Initial<B>,
    ) -> Self {
        let n_outputs = target_len(config, settings.target);
        Self::with_outputs(config, settings, n_outputs, initial)
    }

    /// Draws a network whose decoder gives `n_outputs` numbers for each patch.
    pub(crate) fn with_outputs(
        config: &VitConfig,
        settings: &MaeSettings,
        n_outputs: usize,
        initial: &mut Initial<B>,
    ) -> Self {
        let width = settings.decoder_dim;
        let hidden = settings.decoder_hidden.unwrap_or(4 * width);
        Self {
            encoder: Vit::new(config, initial),
            decoder_embed: Linear::new([width, config.embed_dim], initial),
            mask_token: initial.normal([1, 1, width]),
            decoder_blocks: (0..settings.decoder_depth)
                .map(|_| Block::new(width, hidden, initial))
                .collect(),
            decoder_norm: LayerNorm::new(width, initial),
            decoder_pred: Linear::new([n_outputs, width], initial),
        }
    }

    pub(crate) fn encoder(&self) -> &Vit<B> {
        &self.encoder
    }
}

impl<B: VitBackend> Mae<B> {
    /// Predicts the hidden patches of each image, or all its patches, image by image, ascending.
    ///
    /// # Shapes
    /// `[predicted patches of all images, target_len]`
    pub(crate) fn predict(
        &self,
        shown: &Patches,
        masks: &[Mask],
        config: &VitConfig,
        running: &MaeRunning,
    ) -> Tensor<B, 2> {
        let latent = self.encoder.forward(shown, config, None, &running.encoder);
        let positions = self.positions(shown.grid, config, &latent.device());
        self.decode(latent, positions, masks, running)
    }

    /// Returns what the decoder adds to its tokens to tell it where they lie; nothing for CLS.
    ///
    /// # Shapes
    /// `[1, 1 + cells, decoder width]`
    fn positions(&self, grid: [usize; 3], config: &VitConfig, device: &B::Device) -> Tensor<B, 3> {
        let [_, _, width] = self.mask_token.val().dims();
        let n_cells = grid.iter().product::<usize>();
        let mut positions = vec![0.0; width];
        positions.extend(sin_cos(grid, config.ref_grid, width));
        Tensor::from_data(TensorData::new(positions, [1, 1 + n_cells, width]), device)
    }

    /// Predicts patches from the encoder's tokens of the shown ones.
    ///
    /// # Shapes
    /// `latent` `[images, prefix + shown, E]`, `positions` as `positions` returns them.
    fn decode(
        &self,
        latent: Tensor<B, 3>,
        positions: Tensor<B, 3>,
        masks: &[Mask],
        running: &MaeRunning,
    ) -> Tensor<B, 2> {
        let [n_images, n_tokens, width] = latent.dims();
        let n_prefix = self.encoder.n_prefix();
        let n_shown = n_tokens - n_prefix;
        // Registers end here, CLS goes on.
        let latent = if n_prefix == 1 {
            latent
        } else {
            let cls = latent.clone().slice([0..n_images, 0..1]);
            let patches = latent.slice([0..n_images, n_prefix..n_tokens]);
            concatenated(vec![cls, patches], 1)
        };
        let precision = running.decoder.precision;
        let latent = latent.reshape([n_images * (1 + n_shown), width]);
        let embedded = self.decoder_embed.forward(latent, precision);
        let [n_rows, width] = embedded.dims();
        let device = embedded.device();
        let token = self.mask_token.val().reshape([1, width]);
        let [_, n_rows_each, _] = positions.dims();
        let n_cells = n_rows_each - 1;
        let order = restored(masks, n_shown, n_rows);
        let order = Tensor::<B, 1, Int>::from_data(TensorData::from(order.as_slice()), &device);
        let rows = concatenated(vec![embedded, token], 0).select(0, order);
        let tokens = rows.reshape([n_images, 1 + n_cells, width]) + positions;
        let rows = run_blocks(&self.decoder_blocks, tokens, &running.decoder);
        let wanted: Vec<i32> = masks
            .iter()
            .enumerate()
            .flat_map(|(image, mask)| {
                let cells = if running.predicts_all {
                    (0..n_cells).collect()
                } else {
                    mask.hidden.clone()
                };
                cells
                    .into_iter()
                    .map(move |cell| index(image * (1 + n_cells) + 1 + cell))
            })
            .collect();
        let wanted = Tensor::<B, 1, Int>::from_data(TensorData::from(wanted.as_slice()), &device);
        let rows = B::vit_layer_norm(rows.select(0, wanted), self.decoder_norm.affine());
        self.decoder_pred.forward(rows, precision)
    }
}

/// Returns for each token of the decoder the row of the encoder's output, or `mask_row`.
fn restored(masks: &[Mask], n_shown: usize, mask_row: usize) -> Vec<i32> {
    let mut order = Vec::new();
    for (image, mask) in masks.iter().enumerate() {
        let first = image * (1 + n_shown);
        order.push(index(first));
        order.extend(mask.restore.iter().map(|&place| {
            index(if place < n_shown {
                first + 1 + place
            } else {
                mask_row
            })
        }));
    }
    order
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "tokens of a micro-batch are far below 2^31"
)]
fn index(row: usize) -> i32 {
    row as i32
}
