//! What MAE sees, hides and draws: one image, one volume, one clip for the report.

use m3ret_encoder::{grid_of, patchify, unpatchify};
use m3ret_imaging::Input;

use crate::config::{Config, MaeTarget};
use crate::dataset::Items;
use crate::error::Result;
use crate::mae::{Mae, MaeRunning, Mask, moments, target_len};
use crate::ops::VitBackend;
use crate::parameters::numbers;
use crate::report::Picture;
use crate::step::Plan;
use crate::validation::prepared;
use crate::vit::{Patches, Running};
use m3ret_manifest::columns::DIMS;

/// Grey of hidden patches.
const HIDDEN: f32 = 0.5;

/// Items that are looked through.
const TRIED: usize = 10_000;

/// Draws one item of each kind that there is, of the validation part first.
///
/// # Errors
/// `Encoder` if an input does not divide into patches.
pub(crate) fn pictures<B: VitBackend>(
    mae: &Mae<B>,
    plan: &Plan,
    items: &Items,
    config: &Config,
) -> Result<Vec<Picture>> {
    let input = config.model_config().input;
    let mut pictures = Vec::new();
    let mut wanted = vec![("2d", "An image"), ("3d", "A volume"), ("video", "A clip")];
    for item in items.validation().chain(items.train()).take(TRIED) {
        let told = items.cell(item, DIMS);
        if wanted.is_empty() || !told.is_empty() && !wanted.iter().any(|(dims, _)| *dims == told) {
            continue;
        }
        let Some(original) = prepared(items, item, &input, config) else {
            continue;
        };
        // Where the manifest does not tell volumes from clips, both count as volumes.
        let [_, depth, ..] = original.shape();
        let guessed = if depth == 1 { "2d" } else { "3d" };
        let dims = if told.is_empty() { guessed } else { told };
        if let Some(place) = wanted.iter().position(|(wanted, _)| *wanted == dims) {
            let (_, title) = wanted.remove(place);
            let title = format!("{title} ({})", items.name(item));
            pictures.push(picture(mae, plan, title, original)?);
        }
    }
    Ok(pictures)
}

fn picture<B: VitBackend>(
    mae: &Mae<B>,
    plan: &Plan,
    title: String,
    original: Input,
) -> Result<Picture> {
    let vit = &plan.vit;
    let grid = grid_of(original.shape(), vit.patch)?;
    let mask = Mask::draw(grid, &plan.mae, &[plan.seed]);
    let patches = Patches::cut(&[&original], vit, Some(std::slice::from_ref(&mask.shown)))?;
    let running = MaeRunning {
        encoder: plan.running(),
        decoder: Running {
            n_heads: plan.mae.decoder_heads,
            ..plan.running()
        },
        predicts_all: false,
    };
    let masks = std::slice::from_ref(&mask);
    let mut predicted = numbers(mae.predict(&patches, masks, vit, &running));
    let [channels, depth, height, width] = original.shape();
    let is_grey = equal_channels(&original);
    let n_values = vit.patch_len();
    let cut = patchify(original.values(), original.shape(), vit.patch)?;
    let (mut seen, mut drawn) = (cut.clone(), cut.clone());
    let n_predicted = target_len(vit, plan.mae.target);
    let has_pixels = plan.mae.target != MaeTarget::Hog;
    for (&cell, predicted_cell) in mask
        .hidden
        .iter()
        .zip(predicted.chunks_exact_mut(n_predicted))
    {
        let place = cell * n_values..(cell + 1) * n_values;
        seen[place.clone()].fill(HIDDEN);
        if !has_pixels {
            continue;
        }
        // Pixels come first; histograms of gradients are not drawn.
        let predicted_cell = &mut predicted_cell[..n_values];
        if is_grey {
            level(predicted_cell, channels);
        }
        // The target was normalised: its own mean and deviation bring it back to an image.
        let (mean, deviation) = moments(&cut[place.clone()]);
        for (value, predicted) in drawn[place].iter_mut().zip(predicted_cell.iter()) {
            *value = brought_back(*predicted, mean, deviation);
        }
    }
    let back = |patches: &[f32]| -> Result<Input> {
        let mut values = unpatchify(patches, grid, vit.patch, channels)?;
        if depth == 1 {
            // The first of the repeated planes of each channel.
            let n_plane = height * width;
            values = values
                .chunks_exact(vit.patch[0] * n_plane)
                .flat_map(|channel| &channel[..n_plane])
                .copied()
                .collect();
        }
        Ok(Input::new(values, original.shape())?)
    };
    let mut rows = vec![("masked".to_owned(), back(&seen)?)];
    if has_pixels {
        rows.push(("reconstruction".to_owned(), back(&drawn)?));
    }
    let mut all = vec![("original".to_owned(), original)];
    all.extend(rows);
    Ok(Picture { title, rows: all })
}

/// Returns whether an image is grey: the network draws its channels apart, which would tint it.
fn equal_channels(image: &Input) -> bool {
    let [channels, ..] = image.shape();
    let n_values = image.values().len() / channels;
    let first = &image.values()[..n_values];
    image
        .values()
        .chunks_exact(n_values)
        .all(|channel| channel == first)
}

/// Gives the channels of each value of a patch their mean; the channel is fastest.
fn level(patch: &mut [f32], channels: usize) {
    #[allow(clippy::cast_precision_loss, reason = "three")]
    let n = channels as f32;
    for value in patch.chunks_exact_mut(channels) {
        let mean = value.iter().sum::<f32>() / n;
        value.fill(mean);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the one rounding to f32")]
fn brought_back(value: f32, mean: f64, deviation: f64) -> f32 {
    (f64::from(value) * deviation + mean).clamp(0.0, 1.0) as f32
}
