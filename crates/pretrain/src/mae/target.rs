//! What MAE predicts of a patch, and how far a prediction is from it.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use m3ret_encoder::{VitConfig, hog};
use m3ret_imaging::Input;

use super::pixels;
use crate::config::MaeTarget;
use crate::error::Result;

/// Returns how many numbers are predicted of one patch: P pixels, 36 of histograms, or P + 36.
pub(crate) fn target_len(config: &VitConfig, target: MaeTarget) -> usize {
    match target {
        MaeTarget::Pixels => config.patch_len(),
        MaeTarget::Hog => hog::PATCH_LEN,
        MaeTarget::Both => config.patch_len() + hog::PATCH_LEN,
    }
}

/// Returns what is to be predicted of each patch of an image, in the order of `patchify`; pixels
/// come before histograms.
///
/// # Shapes
/// `[C, D, H, W]` -> `[N, target_len]`
/// # Errors
/// `Encoder` if the image does not divide into patches, or patches not into cells of histograms.
pub(crate) fn target(image: &Input, patch: [usize; 3], target: MaeTarget) -> Result<Vec<f32>> {
    match target {
        MaeTarget::Pixels => pixels(image, patch),
        MaeTarget::Hog => Ok(hog::patch_targets(image, patch)?),
        MaeTarget::Both => {
            let (pixels, gradients) = (pixels(image, patch)?, hog::patch_targets(image, patch)?);
            let [channels, ..] = image.shape();
            let n_pixels = patch.iter().product::<usize>() * channels;
            let patches = pixels.chunks_exact(n_pixels);
            let rows = patches.zip(gradients.chunks_exact(hog::PATCH_LEN));
            Ok(rows.flat_map(|(a, b)| [a, b].concat()).collect())
        }
    }
}

/// Returns the mean squared error over all rows and values, both `[rows, target_len]`; of pixels and
/// histograms together, the sum of the two means, each with weight 1.
pub(crate) fn loss<B: Backend>(
    predicted: Tensor<B, 2>,
    target: Vec<f32>,
    kind: MaeTarget,
) -> Tensor<B, 1> {
    let [n_rows, n_values] = predicted.dims();
    let target = TensorData::new(target, [n_rows, n_values]);
    let target = Tensor::from_data(target, &predicted.device());
    let squares = (predicted - target).powi_scalar(2);
    match kind {
        MaeTarget::Pixels | MaeTarget::Hog => squares.mean(),
        MaeTarget::Both => {
            let n_pixels = n_values - hog::PATCH_LEN;
            let pixels = squares.clone().slice([0..n_rows, 0..n_pixels]);
            let gradients = squares.slice([0..n_rows, n_pixels..n_values]);
            pixels.mean() + gradients.mean()
        }
    }
}
