//! Training views: a random part of an object, resized, with random intensities.

mod changes;
mod flat;

use std::borrow::Cow;

use rand::Rng;

use crate::error::{Error, Result};
use crate::prepare::{Input, Scaled, nearest_depth};
use crate::resample::{PlaneResizer, TapWindow, Taps, as_f64, as_index};
use crate::timeline::uniform_frames;
use crate::volume::Kind;

/// How one kind of view is cut from an object and changed. Intervals are `[low, high]`, drawn
/// uniformly unless said otherwise; what has the chance 0 costs nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewConfig {
    /// Side of the view, H = W.
    pub side: usize,
    /// The largest depth of a view, a multiple of `patch_depth`.
    pub depth: usize,
    /// Views of deep objects have a multiple of it.
    pub patch_depth: usize,
    /// Share of the plane's area that is cut out.
    pub area: [f64; 2],
    /// Width over height of what is cut out, drawn log-uniformly.
    pub aspect: [f64; 2],
    /// Share of the depth that is cut out.
    pub depth_share: [f64; 2],
    /// Chance of mirroring left and right.
    pub flip: f64,
    /// Chance that brightness, contrast and gamma change.
    pub jitter: f64,
    /// Largest change of brightness (added) and contrast (a factor 1 +- it, about the mean).
    pub jitter_strength: f64,
    /// Exponent of the values, drawn log-uniformly.
    pub gamma: [f64; 2],
    /// Chance of a Gaussian blur in-plane.
    pub blur: f64,
    /// Standard deviation of the blur, in pixels of the view.
    pub blur_sigma: [f64; 2],
    /// Chance of additive noise.
    pub noise: f64,
    /// Standard deviation of the noise, values being 0 to 1.
    pub noise_sigma: [f64; 2],
    /// Chance that hue and saturation of true colour change; grey has neither.
    pub colour: f64,
    /// Chance that true colour becomes grey.
    pub grey: f64,
    /// Chance that intensities go through a random curve, which need not rise.
    pub remap: f64,
    /// Chance that a volume is shown as a picture of the rays through it, from the front or the side.
    pub project: f64,
    /// Chance that one plane stands for a deep object, where it is not projected.
    pub slice: f64,
}

impl ViewConfig {
    /// Returns views that are cut and resized only: the largest square, in full depth.
    #[must_use]
    pub fn plain(side: usize, [patch_depth, depth]: [usize; 2]) -> Self {
        Self {
            side,
            depth,
            patch_depth,
            area: [1.0; 2],
            aspect: [1.0; 2],
            depth_share: [1.0; 2],
            flip: 0.0,
            jitter: 0.0,
            jitter_strength: 0.0,
            gamma: [1.0; 2],
            blur: 0.0,
            blur_sigma: [0.0; 2],
            noise: 0.0,
            noise_sigma: [0.0; 2],
            colour: 0.0,
            grey: 0.0,
            remap: 0.0,
            project: 0.0,
            slice: 0.0,
        }
    }

    /// Checks that the fields make sense together.
    ///
    /// # Errors
    /// `Mismatch` naming the first field that does not.
    pub fn validate(&self) -> Result<()> {
        let Self { area, aspect, .. } = self;
        let intervals = [
            ("area", *area, [0.0, 1.0], false),
            ("aspect", *aspect, [0.0, 100.0], false),
            ("depth_share", self.depth_share, [0.0, 1.0], false),
            ("gamma", self.gamma, [0.0, 100.0], false),
            ("blur_sigma", self.blur_sigma, [0.0, 100.0], true),
            ("noise_sigma", self.noise_sigma, [0.0, 1.0], true),
            ("flip", [self.flip; 2], [0.0, 1.0], true),
            ("jitter", [self.jitter; 2], [0.0, 1.0], true),
            (
                "jitter_strength",
                [self.jitter_strength; 2],
                [0.0, 1.0],
                true,
            ),
            ("blur", [self.blur; 2], [0.0, 1.0], true),
            ("noise", [self.noise; 2], [0.0, 1.0], true),
            ("colour", [self.colour; 2], [0.0, 1.0], true),
            ("grey", [self.grey; 2], [0.0, 1.0], true),
            ("remap", [self.remap; 2], [0.0, 1.0], true),
            ("project", [self.project; 2], [0.0, 1.0], true),
            ("slice", [self.slice; 2], [0.0, 1.0], true),
        ];
        for (what, [low, high], [least, most], with_least) in intervals {
            let is_above = low > least || (with_least && low >= least);
            if !(is_above && low <= high && high <= most) {
                return Err(Error::Mismatch {
                    what,
                    expected: format!(
                        "a range within {}{least} to {most}",
                        if with_least { "" } else { "above " }
                    ),
                    got: format!("{low} to {high}"),
                });
            }
        }
        let is_whole =
            self.patch_depth > 0 && self.depth > 0 && self.depth.is_multiple_of(self.patch_depth);
        if self.side == 0 || !is_whole {
            return Err(Error::Mismatch {
                what: "side and depth of a view",
                expected: "a side above 0, a depth that is a multiple of patch_depth".to_owned(),
                got: format!("{}, {} and {}", self.side, self.depth, self.patch_depth),
            });
        }
        Ok(())
    }
}

/// Cuts one view from an object and changes it at random; everything random comes from `rng`.
///
/// Order of the steps:
/// 0. A deep object may become flat: a volume the picture of the rays through it, any deep object one
///    of its planes.
/// 1. Crop: a share of the plane's area with a random aspect, and a share of the depth. What does
///    not fit the plane shrinks until it does, its aspect kept.
/// 2. Resize: H and W to `side`. D: 1 stays 1; otherwise the multiple of `patch_depth` nearest to
///    the depth cut out, within `patch_depth..=depth`, by frames for video and by antialiased
///    resampling for volumes, as `prepare` does.
/// 3. Mirror, colour or none, a random curve, brightness and contrast, gamma, blur, noise; values stay in
///    0..=1. The depth of a view is changed alike, but for noise.
/// 4. Grey is repeated to 3 channels.
///
/// # Shapes
/// `[C, D, H, W]` -> `[3, D', side, side]`.
/// # Errors
/// `Mismatch` if the config is senseless.
/// # Source
/// Random resized crops and jitter as in Grill et al. 2020 and Caron et al. 2021. Differs: a crop
/// that does not fit is shrunk and not drawn again, brightness is added and not multiplied (0 to 1
/// is a window, not a physical intensity), and there is no solarization. Random curves as in Zhou et
/// al. 2019 (Models Genesis), but piecewise linear and need not be monotone.
pub fn view(object: &Scaled, config: &ViewConfig, rng: &mut impl Rng) -> Result<Input> {
    config.validate()?;
    let object = match flat::flattened(object, config, rng)? {
        Some(picture) => Cow::Owned(picture),
        None => Cow::Borrowed(object),
    };
    let crop = Crop::draw(object.shape(), config, rng);
    let mut values = crop.cut(&object, config);
    let n_planes = crop.depth_of_view(config);
    changes::apply(&mut values, n_planes, config, rng);
    // Weights of a window sum to 1 up to rounding, and 1 is the promised end of the range.
    values
        .iter_mut()
        .for_each(|value| *value = value.clamp(0.0, 1.0));
    let [n_channels, ..] = object.shape();
    if n_channels == 1 {
        values = values.repeat(3);
    }
    Input::new(values, [3, n_planes, config.side, config.side])
}

/// A box in an object: `[D, H, W]` of its first corner and its sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Crop {
    /// Depth of the whole object.
    n_stored: usize,
    start: [usize; 3],
    sides: [usize; 3],
}

impl Crop {
    fn draw(shape: [usize; 4], config: &ViewConfig, rng: &mut impl Rng) -> Self {
        let [_, n_stored, height, width] = shape;
        let area = within(rng, config.area) * as_f64(height) * as_f64(width);
        let aspect = log_within(rng, config.aspect);
        let (tall, wide) = ((area / aspect).sqrt(), (area * aspect).sqrt());
        let fits = (as_f64(height) / tall).min(as_f64(width) / wide).min(1.0);
        let side = |wanted: f64, most: usize| as_index((wanted * fits).round()).clamp(1, most);
        let share = within(rng, config.depth_share);
        let sides = [
            as_index((share * as_f64(n_stored)).round()).clamp(1, n_stored),
            side(tall, height),
            side(wide, width),
        ];
        let mut start = [0; 3];
        for ((start, side), whole) in start.iter_mut().zip(sides).zip([n_stored, height, width]) {
            *start = as_index(uniform(rng) * as_f64(whole - side + 1)).min(whole - side);
        }
        Self {
            n_stored,
            start,
            sides,
        }
    }

    fn depth_of_view(&self, config: &ViewConfig) -> usize {
        let [depth, ..] = self.sides;
        match self.n_stored {
            1 => 1,
            // One plane of a deep object is deep: its view has the patches of a deep grid.
            _ => nearest_depth(depth, config.patch_depth, config.depth).max(config.patch_depth),
        }
    }

    /// Returns which planes of the crop each plane of the view mixes.
    fn mixed_planes(&self, n_planes: usize, kind: Kind) -> Vec<TapWindow> {
        let [depth, ..] = self.sides;
        match kind {
            Kind::Video => uniform_frames(depth, n_planes)
                .into_iter()
                .map(|start| TapWindow {
                    start,
                    weights: vec![1.0],
                })
                .collect(),
            Kind::Image | Kind::Volume => Taps::new(depth, n_planes).windows,
        }
    }

    /// Cuts and resizes: `[C, D, H, W]` -> `[C, D', side, side]`. Reads nothing outside the crop.
    fn cut(&self, object: &Scaled, config: &ViewConfig) -> Vec<f32> {
        let [n_channels, n_stored, stored_height, stored_width] = object.shape();
        let [_, height, width] = self.sides;
        let n_side = config.side * config.side;
        let n_planes = self.depth_of_view(config);
        let windows = self.mixed_planes(n_planes, object.kind());
        let resizer = PlaneResizer::new([height, width], [config.side; 2]);
        let mut values = vec![0.0; n_channels * n_planes * n_side];
        let (mut plane, mut between) = (vec![0.0; height * width], Vec::new());
        let channels = object
            .values()
            .chunks_exact(n_stored * stored_height * stored_width);
        for (channel, made) in channels.zip(values.chunks_exact_mut(n_planes * n_side)) {
            for (window, out) in windows.iter().zip(made.chunks_exact_mut(n_side)) {
                self.mix(channel, [stored_height, stored_width], window, &mut plane);
                resizer.resize(&plane, &mut between, out);
            }
        }
        values
    }

    /// Mixes planes of the crop into one, `[height, width]`.
    fn mix(&self, channel: &[f32], stored: [usize; 2], window: &TapWindow, out: &mut [f32]) {
        let ([first, top, left], [_, height, width]) = (self.start, self.sides);
        let [stored_height, stored_width] = stored;
        let planes = channel
            .chunks_exact(stored_height * stored_width)
            .skip(first + window.start);
        for (n_done, (plane, &weight)) in planes.zip(&window.weights).enumerate() {
            let rows = plane.chunks_exact(stored_width).skip(top).take(height);
            for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
                let row = row.get(left..left + width).unwrap_or_default();
                if n_done == 0 && weight >= 1.0 {
                    out.copy_from_slice(row);
                } else if n_done == 0 {
                    out.iter_mut()
                        .zip(row)
                        .for_each(|(sum, x)| *sum = weight * x);
                } else {
                    out.iter_mut()
                        .zip(row)
                        .for_each(|(sum, x)| *sum += weight * x);
                }
            }
        }
    }
}

/// Draws from 0 up to, not including, 1, with 53 random bits.
fn uniform(rng: &mut impl Rng) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    let steps = (rng.next_u64() >> 11) as f64;
    steps / 9_007_199_254_740_992.0
}

/// Draws from an interval.
fn within(rng: &mut impl Rng, [low, high]: [f64; 2]) -> f64 {
    low + (high - low) * uniform(rng)
}

/// Draws from an interval so that factors are uniform.
fn log_within(rng: &mut impl Rng, [low, high]: [f64; 2]) -> f64 {
    within(rng, [low.ln(), high.ln()]).exp()
}

/// Returns true with a chance; draws nothing where the answer is certain.
fn chance(rng: &mut impl Rng, chance: f64) -> bool {
    chance > 0.0 && (chance >= 1.0 || uniform(rng) < chance)
}

#[cfg(test)]
mod tests;
