//! Resizing of one plane as Pillow does it, on floats, only where a crop will look.

use std::f64::consts::PI;

use serde::Serialize;

use super::as_f64;

/// A resampling filter, by Pillow's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Filter {
    /// A triangle.
    Bilinear,
    /// Keys' cubic with a = -0.5.
    Bicubic,
    /// A sinc windowed by a sinc, over 3 lobes.
    Lanczos,
}

/// The part of an axis that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crop {
    /// Length of the whole axis after resizing.
    pub(crate) whole: usize,
    /// Where the part starts; zeros before 0.
    pub(crate) start: i64,
    /// Its length; zeros beyond `whole`.
    pub(crate) len: usize,
}

/// The inputs of one output: consecutive, with weights that sum to 1; none outside the picture.
struct Taps {
    start: usize,
    weights: Vec<f32>,
}

impl Filter {
    /// Half the width of the filter, in steps of the coarser grid.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Self::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::Bicubic | Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    (PI * x).sin() / (PI * x)
}

/// Resizes a plane: columns first, then rows, widened against aliasing where an axis shrinks.
///
/// A filter with negative lobes can leave 0..1; values are clamped once, at the end.
///
/// # Shapes
/// `plane` [H, W] = `sides` -> [crops[0].len, crops[1].len].
pub(crate) fn resize(
    plane: &[f32],
    sides: [usize; 2],
    filter: Filter,
    crops: &[Crop; 2],
) -> Vec<f32> {
    let [height, width] = sides;
    let along_y = taps(height, filter, &crops[0]);
    let along_x = taps(width, filter, &crops[1]);
    let first_row = along_y.iter().filter(|taps| !taps.weights.is_empty());
    let first_row = first_row.map(|taps| taps.start).min().unwrap_or(0);
    let end_row = along_y.iter().map(|taps| taps.start + taps.weights.len());
    let end_row = end_row.max().unwrap_or(0).max(first_row);
    let n_columns = along_x.len();
    let rows = plane.chunks_exact(width).take(end_row).skip(first_row);
    let mut narrow = Vec::with_capacity((end_row - first_row) * n_columns);
    for row in rows {
        narrow.extend(along_x.iter().map(|taps| {
            let inputs = row[taps.start..].iter().zip(&taps.weights);
            inputs.map(|(input, weight)| input * weight).sum::<f32>()
        }));
    }
    let mut made = vec![0.0; along_y.len() * n_columns];
    for (line, taps) in made.chunks_exact_mut(n_columns).zip(&along_y) {
        let inputs = narrow.chunks_exact(n_columns);
        let inputs = inputs.skip(taps.start.saturating_sub(first_row));
        for (input, weight) in inputs.zip(&taps.weights) {
            for (sum, value) in line.iter_mut().zip(input) {
                *sum += weight * value;
            }
        }
        line.iter_mut()
            .for_each(|value| *value = value.clamp(0.0, 1.0));
    }
    made
}

/// Returns the taps of every output that is made along one axis.
fn taps(from: usize, filter: Filter, crop: &Crop) -> Vec<Taps> {
    let scale = as_f64(from) / as_f64(crop.whole);
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let outside = || Taps {
        start: 0,
        weights: Vec::new(),
    };
    let places = (crop.start..).take(crop.len);
    places
        .map(|place| {
            let Some(place) = usize::try_from(place)
                .ok()
                .filter(|&place| place < crop.whole)
            else {
                return outside();
            };
            let centre = (as_f64(place) + 0.5) * scale;
            let start = as_index(centre - support + 0.5).min(from - 1);
            let end = as_index(centre + support + 0.5).clamp(start + 1, from);
            let weights = (start..end).map(|i| filter.at((as_f64(i) + 0.5 - centre) / stretch));
            let total: f64 = weights.clone().sum();
            Taps {
                start,
                weights: weights.map(|weight| rounded(weight / total)).collect(),
            }
        })
        .collect()
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float converts with saturation, and callers clamp to a side"
)]
fn as_index(position: f64) -> usize {
    position.max(0.0) as usize
}

#[allow(clippy::cast_possible_truncation, reason = "the one rounding to f32")]
fn rounded(weight: f64) -> f32 {
    weight as f32
}
