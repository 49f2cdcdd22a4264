//! Static-teacher latent prediction (SALT): frozen teachers, and a student that predicts their tokens.
//!
//! The student is MAE's network, whose last layer gives the tokens of all teachers instead of pixels.
//! A teacher sees the whole view, resized to its own input; its final tokens are brought to the student's
//! grid, and normalised token by token.
//!
//! # Source
//! Li et al. 2025 (arXiv 2509.24317). Differs: one or two teachers of any of our sizes, random patches
//! hidden as in MAE, smooth L1 on normalised tokens, and a student that may see a changed view.

use std::borrow::Cow;
use std::path::Path;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use m3ret_encoder::{Model, ModelConfig, Precision, RunOptions, plain_weights};
use m3ret_imaging::{Input, Kind, Scaled, ViewConfig, view};

use crate::dataset::{Along, ViewRelation};
use crate::error::{Error, Result};
use crate::parameters::{self, Weight, Weights};
use crate::random::Initial;
use crate::vit::Vit;

/// Added to the variance of a target token, inside the root.
const TARGET_EPS: f64 = 1e-6;

/// A frozen encoder of ours.
#[derive(Debug, Clone)]
pub(crate) struct Teacher<B: Backend> {
    pub(crate) vit: Vit<B>,
    pub(crate) config: ModelConfig,
    /// What tells its weights and config from every other's.
    pub(crate) fingerprint: String,
}

impl<B: Backend> Teacher<B> {
    /// Opens a model folder of ours.
    ///
    /// # Errors
    /// `Run` if the folder cannot be read, or holds a model of another kind.
    pub(crate) fn open(folder: &Path, device: &B::Device) -> Result<Self> {
        let wrong =
            |message: String| Error::run(folder, format!("a teacher of salt.teachers: {message}"));
        let options = RunOptions {
            precision: Some(Precision::F32),
            n_threads: Some(1),
        };
        let model = Model::open(folder, &options).map_err(|error| wrong(error.to_string()))?;
        let plain = plain_weights(folder).map_err(|error| wrong(error.to_string()))?;
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let config: ModelConfig = serde_json::from_str(&text).map_err(|error| {
            wrong(format!(
                "found a config.json of another kind ({error}), wanted a model folder that m3ret trained"
            ))
        })?;
        let [height, width] = config.input.side;
        if height != width {
            return Err(wrong(format!(
                "found an input of {height} x {width}, wanted a square one: views are square"
            )));
        }
        let tensors = plain.tensors.into_iter().map(|(name, tensor)| {
            let (shape, values) = (tensor.shape, tensor.values);
            (name, Weight { shape, values })
        });
        let vit = Self::network(&config, tensors.collect(), device).map_err(wrong)?;
        Ok(Self {
            vit,
            config,
            fingerprint: model.fingerprint().to_owned(),
        })
    }

    /// Makes the network of a config from its tensors.
    ///
    /// # Errors
    /// Says which tensor is missing or does not fit.
    pub(crate) fn network(
        config: &ModelConfig,
        tensors: Weights,
        device: &B::Device,
    ) -> std::result::Result<Vit<B>, String> {
        let drawn = Vit::new(&config.vit, &mut Initial::new(0, device));
        let (vit, missing) = parameters::load(drawn, tensors, device)?;
        match missing.first() {
            Some(name) => Err(format!("{name} is missing")),
            None => Ok(vit),
        }
    }

    /// Returns a view as this teacher sees it: resized to the side of its input, and in depth to the
    /// nearest multiple of its patch's depth that its input may have; as it is, where it fits already.
    ///
    /// # Errors
    /// `Imaging` if the teacher's config makes no sense.
    pub(crate) fn input<'a>(&self, original: &'a Input) -> Result<Cow<'a, Input>> {
        let [n_channels, depth, height, width] = original.shape();
        let [side, _] = self.config.input.side;
        let [patch_depth, ..] = self.config.vit.patch;
        let most = self.config.input.max_depth;
        let fits = depth == 1 || depth <= most && depth.is_multiple_of(patch_depth);
        if fits && [height, width] == [side; 2] {
            return Ok(Cow::Borrowed(original));
        }
        // Clips are resized as volumes are: which one this is, the view does not say.
        let kind = if depth == 1 {
            Kind::Image
        } else {
            Kind::Volume
        };
        let whole = [n_channels, depth, height, width];
        let object = Scaled::new(original.values().to_vec(), whole, kind)?;
        let config = ViewConfig::plain(side, [patch_depth, most]);
        // A plain view draws nothing that matters.
        let mut rng = crate::random::generator("plain view", &[]);
        Ok(Cow::Owned(view(&object, &config, &mut rng)?))
    }
}

/// Returns how much each cell of a teacher's grid counts for some cells of a student's: rows of weights
/// with sum 1.
///
/// The teacher's tokens are taken of the plane or averaged along the rays that the student sees, and read
/// at the middles of the student's cells, linearly between middles of the teacher's and constant beyond.
///
/// # Shapes
/// `[cells, cells of the teacher's grid]`
pub(crate) fn transfer(
    relation: ViewRelation,
    teacher: [usize; 3],
    student: [usize; 3],
    cells: &[usize],
) -> Vec<f32> {
    let [depth, height, width] = teacher;
    let [_, rows, columns] = student;
    // For each axis of the teacher's grid, the weights of its places for each place of an axis of the
    // student's.
    let z = match relation {
        ViewRelation::Same => linear(depth, student[0]),
        ViewRelation::Plane { plane, n_planes } => {
            vec![only(depth, plane * depth / n_planes.max(1))]
        }
        ViewRelation::Rays(_) => {
            let mut upwards = linear(depth, rows);
            upwards.reverse();
            upwards
        }
    };
    let (y, x) = match relation {
        ViewRelation::Same | ViewRelation::Plane { .. } => {
            (linear(height, rows), linear(width, columns))
        }
        ViewRelation::Rays(Along::Rows) => (vec![even(height)], linear(width, columns)),
        ViewRelation::Rays(Along::Columns) => (linear(height, columns), vec![even(width)]),
    };
    let mut weights = Vec::with_capacity(cells.len() * depth * height * width);
    for &cell in cells {
        let place = [
            cell / (rows * columns),
            cell / columns % rows,
            cell % columns,
        ];
        let [of_z, of_y, of_x] = match relation {
            ViewRelation::Same => place,
            ViewRelation::Plane { .. } => [0, place[1], place[2]],
            ViewRelation::Rays(Along::Rows) => [place[1], 0, place[2]],
            ViewRelation::Rays(Along::Columns) => [place[1], place[2], 0],
        };
        for &weight_z in &z[of_z] {
            for &weight_y in &y[of_y] {
                let across = x[of_x].iter();
                weights.extend(across.map(|&weight_x| rounded(weight_z * weight_y * weight_x)));
            }
        }
    }
    weights
}

/// Returns for each of `to` places on an axis the weights of `from` places on the same axis.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sides of grids; the place is clamped to the axis"
)]
fn linear(from: usize, to: usize) -> Vec<Vec<f64>> {
    let last = (from - 1) as f64;
    let weights = |i: usize| {
        let place = (i as f64 + 0.5) / to as f64 * from as f64 - 0.5;
        let place = place.clamp(0.0, last);
        let before = place.floor();
        let mut weights = vec![0.0; from];
        weights[before as usize] += 1.0 - (place - before);
        weights[(before as usize + 1).min(from - 1)] += place - before;
        weights
    };
    (0..to).map(weights).collect()
}

fn only(n: usize, place: usize) -> Vec<f64> {
    let mut weights = vec![0.0; n];
    weights[place.min(n - 1)] = 1.0;
    weights
}

#[allow(clippy::cast_precision_loss, reason = "sides of grids")]
fn even(n: usize) -> Vec<f64> {
    vec![1.0 / n as f64; n]
}

#[allow(clippy::cast_possible_truncation, reason = "the one rounding to f32")]
fn rounded(value: f64) -> f32 {
    value as f32
}

/// Gives each row mean 0 and variance 1 (biased, epsilon 1e-6 inside the root).
pub(crate) fn normalised<B: Backend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    let centred = rows.clone() - rows.mean_dim(1);
    let variance = centred.clone().powi_scalar(2).mean_dim(1);
    centred / (variance + TARGET_EPS).sqrt()
}

/// Returns the mean of the teachers' losses: smooth L1 (beta 1) over all rows and values, of the columns
/// that predict the teacher.
///
/// # Shapes
/// `predicted` `[rows, sum of the teachers' widths]`, `targets` `[rows, width]` each.
pub(crate) fn loss<B: Backend>(
    predicted: &Tensor<B, 2>,
    targets: Vec<Tensor<B, 2>>,
) -> Tensor<B, 1> {
    let n_teachers = targets.len();
    let [n_rows, _] = predicted.dims();
    let (mut first, mut total) = (0, None);
    for target in targets {
        let [_, width] = target.dims();
        let columns = predicted.clone().slice([0..n_rows, first..first + width]);
        first += width;
        let off = (columns - target).abs();
        // For |d| <= 1: d^2 / 2 + d - d; beyond: 1 / 2 + |d| - 1.
        let low = off.clone().clamp_max(1.0);
        let part = (low.clone().powi_scalar(2) * 0.5 + off - low).mean();
        total = Some(match total {
            Some(total) => total + part,
            None => part,
        });
    }
    #[allow(clippy::cast_precision_loss, reason = "one or two")]
    let share = 1.0 / n_teachers.max(1) as f64;
    let total = total.unwrap_or_else(|| predicted.clone().sum() * 0.0);
    total * share
}

#[cfg(test)]
mod tests;
