//! `Volume` -> network input, as each public model defines it.
//!
//! The object is scaled to 0..1 by our own percentiles (steps 1 to 3 of `m3ret_imaging::prepare`).
//! Size, crop and normalisation after that are the model's own, read from the files beside its
//! weights.

mod config;
mod resize;

use m3ret_imaging::{
    Input, InputConfig, Scaled, Volume, prepare, resample, scaled_planes, square_sides,
};
use serde::Serialize;

pub(crate) use self::resize::Filter;
use self::resize::{Crop, resize};
use crate::config::MAX_TOKENS;
use crate::error::{Error, Result};

/// Part of every fingerprint. Raise it when the numbers of any preparation or network change:
/// vectors of before and after must not be compared, nor written into one file.
pub(crate) const PREPARATION_VERSION: u32 = 1;

/// Slices of a volume, or frames of a video, that a 2D encoder sees.
const N_PLANES: usize = 16;

/// The percentiles that become 0 and 1, as in our own input.
const PERCENTILES: [f64; 2] = [0.5, 99.5];

/// Side of the thumbnail that the model `pixels` compares.
pub(crate) const THUMBNAIL: usize = 32;

/// Mean and standard deviation that a model's input is normalised by, for R, G and B.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Stats {
    pub(crate) mean: [f32; 3],
    pub(crate) std: [f32; 3],
}

/// `ImageNet`'s.
pub(crate) const IMAGENET: Stats = Stats {
    mean: [0.485, 0.456, 0.406],
    std: [0.229, 0.224, 0.225],
};

/// Of the first CLIP.
pub(crate) const CLIP: Stats = Stats {
    mean: [0.481_454_66, 0.457_827_5, 0.408_210_7],
    std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
};

/// -1..1, as Hugging Face's ViT.
pub(crate) const HALVES: Stats = Stats {
    mean: [0.5; 3],
    std: [0.5; 3],
};

/// How an object becomes the input of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum Preparation {
    /// As our own models.
    Ours(InputConfig),
    /// Planes, one by one.
    Planes(PlaneInput),
    /// The whole volume at one size.
    Deep(DeepInput),
    /// A grey thumbnail of the central plane.
    Pixels,
}

/// The input of a 2D encoder: how a picture is resized, cropped and normalised.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PlaneInput {
    /// The size before the crop; `None` keeps the picture's own.
    pub(crate) size: Option<Size>,
    pub(crate) filter: Filter,
    /// `[H, W]` cut from the middle, zeros where the picture is smaller.
    pub(crate) crop: Option<[usize; 2]>,
    /// An odd border is cut as torchvision does: half of it is rounded to even, not down.
    pub(crate) rounds_border: bool,
    /// The value of white before normalising: 1, or 255 in models that never rescale.
    pub(crate) white: f32,
    pub(crate) stats: Stats,
    /// `[ph, pw]`: rows and columns beyond the last whole patch are not seen, as by a convolution.
    pub(crate) patch: [usize; 2],
    pub(crate) n_planes: usize,
    pub(crate) percentiles: [f64; 2],
}

/// How large a picture is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Size {
    /// The shorter side gets this length, the aspect stays; where the spacing is known, pixels are
    /// made square.
    ShortestEdge(usize),
    /// `[H, W]`; the aspect may change.
    Exact([usize; 2]),
}

/// The input of a 3D encoder: one channel, resized to `[D, H, W]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DeepInput {
    pub(crate) sides: [usize; 3],
}

impl Preparation {
    /// Makes the inputs of one object; several are averaged.
    ///
    /// # Errors
    /// As `m3ret_imaging::prepare`, and `Mismatch` or `LimitExceeded` if the picture's shape
    /// leaves no patch or too many.
    pub(crate) fn prepare(&self, volume: &Volume) -> Result<Vec<Input>> {
        match self {
            Self::Ours(config) => Ok(vec![prepare(volume, config)?]),
            Self::Planes(input) => input.prepare(volume),
            Self::Deep(input) => Ok(vec![input.prepare(volume)?]),
            Self::Pixels => Ok(vec![thumbnail(volume)?]),
        }
    }
}

impl PlaneInput {
    /// Makes one input of each plane that is seen: `[3, 1, H, W]`.
    fn prepare(&self, volume: &Volume) -> Result<Vec<Input>> {
        let [_, depth, ..] = volume.shape();
        let planes = uniform_planes(depth, self.n_planes);
        let scaled = scaled_planes(volume, self.percentiles, &planes)?;
        let [n_channels, n_planes, height, width] = scaled.shape();
        let sides = [height, width];
        let (crops, made) = self.crops(sides, square_sides(volume))?;
        let mut inputs = Vec::with_capacity(n_planes);
        for plane in 0..n_planes {
            // A grey plane is resized once and normalised for each of three channels.
            let channels: Vec<_> = (0..n_channels)
                .map(|channel| {
                    let stored = (channel * n_planes + plane) * height * width;
                    let stored = &scaled.values()[stored..stored + height * width];
                    resize(stored, sides, self.filter, &crops)
                })
                .collect();
            let mut values = Vec::with_capacity(3 * made[0] * made[1]);
            for (channel, (mean, std)) in
                self.stats.mean.into_iter().zip(self.stats.std).enumerate()
            {
                let resized = channels[channel.min(n_channels - 1)].iter();
                values.extend(resized.map(|x| (x * self.white - mean) / std));
            }
            inputs.push(Input::new(values, [3, 1, made[0], made[1]])?);
        }
        Ok(inputs)
    }

    /// Returns which part of the resized picture is made along each axis, and the sides made.
    fn crops(&self, sides: [usize; 2], square: [f64; 2]) -> Result<([Crop; 2], [usize; 2])> {
        let whole = self.resized_sides(sides, square);
        let made = self.crop.unwrap_or(whole);
        let made = [0, 1].map(|axis| made[axis] / self.patch[axis] * self.patch[axis]);
        let n_patches = (made[0] / self.patch[0]).saturating_mul(made[1] / self.patch[1]);
        if n_patches == 0 {
            return Err(Error::mismatch(
                "picture at the size that the model wants",
                format!("at least {} x {}", self.patch[0], self.patch[1]),
                format!("{} x {}", whole[0], whole[1]),
            ));
        }
        if n_patches > MAX_TOKENS {
            return Err(Error::LimitExceeded {
                what: "patches of one picture",
                allowed: MAX_TOKENS as u64,
                asked: n_patches as u64,
            });
        }
        let crops = [0, 1].map(|axis| {
            let wanted = self.crop.map_or(whole[axis], |crop| crop[axis]);
            Crop {
                whole: whole[axis],
                start: self.border(whole[axis], wanted),
                len: made[axis],
            }
        });
        Ok((crops, made))
    }

    /// Returns `[H, W]` of the whole picture after resizing.
    fn resized_sides(&self, sides: [usize; 2], square: [f64; 2]) -> [usize; 2] {
        match self.size {
            None => sides,
            Some(Size::Exact(sides)) => sides,
            Some(Size::ShortestEdge(side)) => {
                let [height, width] = square;
                let shorter = height.min(width);
                // Truncated, as the libraries do.
                [height, width].map(|edge| truncated(as_f64(side) * edge / shorter).max(1))
            }
        }
    }

    /// Returns how much is cut before the crop; negative where zeros are put.
    fn border(&self, whole: usize, wanted: usize) -> i64 {
        let difference = as_i64(whole) - as_i64(wanted);
        // Truncated towards 0: an odd row or column of zeros goes to the end.
        let half = difference / 2;
        let is_odd = difference % 2 == 1;
        half + i64::from(self.rounds_border && is_odd && half % 2 == 1)
    }

    /// Returns the grid of patches that every picture will have, where all are made one size.
    pub(crate) fn usual_grid(&self) -> Option<[usize; 3]> {
        let exact = match self.size {
            Some(Size::Exact(sides)) => Some(sides),
            _ => None,
        };
        let [height, width] = self.crop.or(exact)?;
        Some([1, height / self.patch[0], width / self.patch[1]])
    }
}

impl DeepInput {
    /// Makes `[1, D, H, W]`: grey, resampled over the whole extent of the object.
    fn prepare(&self, volume: &Volume) -> Result<Input> {
        let [_, depth, ..] = volume.shape();
        let planes: Vec<_> = (0..depth).collect();
        let scaled = scaled_planes(volume, PERCENTILES, &planes)?;
        let [_, depth, height, width] = scaled.shape();
        let mut values = resample(&grey(scaled), [depth, height, width], self.sides)?;
        values.iter_mut().for_each(|value| *value = value.min(1.0));
        let [depth, height, width] = self.sides;
        Ok(Input::new(values, [1, depth, height, width])?)
    }
}

/// Makes the grey thumbnail of the central slice or frame: `[1, 1, 32, 32]`.
fn thumbnail(volume: &Volume) -> Result<Input> {
    let [_, depth, ..] = volume.shape();
    let scaled = scaled_planes(volume, PERCENTILES, &[depth / 2])?;
    let [_, _, height, width] = scaled.shape();
    let side = THUMBNAIL;
    let values = resample(&grey(scaled), [1, height, width], [1, side, side])?;
    Ok(Input::new(values, [1, 1, side, side])?)
}

/// Mixes three channels to one by ITU-R BT.601's luma; grey stays.
fn grey(scaled: Scaled) -> Vec<f32> {
    let [n_channels, ..] = scaled.shape();
    let mut values = scaled.into_values();
    if n_channels == 1 {
        return values;
    }
    let n = values.len() / 3;
    let (red, others) = values.split_at_mut(n);
    let (green, blue) = others.split_at(n);
    for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
        *red = luma([*red, *green, *blue]);
    }
    values.truncate(n);
    values
}

/// Returns ITU-R BT.601's luma of red, green and blue.
pub(crate) fn luma([red, green, blue]: [f32; 3]) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

/// Returns the planes in the middle of `n_wanted` equal parts, or all of fewer.
fn uniform_planes(depth: usize, n_wanted: usize) -> Vec<usize> {
    let n = n_wanted.min(depth);
    // Planes are so few that `(2 n + 1) * depth` cannot overflow: each holds a value in memory.
    (0..n).map(|i| (2 * i + 1) * depth / (2 * n)).collect()
}

#[allow(clippy::cast_precision_loss, reason = "sides are far below 2^53")]
fn as_f64(side: usize) -> f64 {
    side as f64
}

#[allow(
    clippy::cast_possible_wrap,
    reason = "bounded by `truncated`, or a side"
)]
fn as_i64(side: usize) -> i64 {
    side as i64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and bounded to 2^40"
)]
fn truncated(side: f64) -> usize {
    side.min(1_099_511_627_776.0) as usize
}

#[cfg(test)]
mod tests;
