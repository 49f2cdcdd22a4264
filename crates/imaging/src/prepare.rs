//! `Volume` -> model input: one function for every kind of image.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::intensity::{Window, is_grey};
use crate::reason::Code;
use crate::resample::{Planes, as_f64, as_index, resample_planes};
use crate::timeline::uniform_frames;
use crate::volume::{Kind, Volume};

/// The most values one prepared object may hold: 1 GiB of f32, a hundred times a usual input.
const MAX_INPUT_VALUES: usize = 1 << 28;

/// Everything that decides the numbers of the model input; part of every checkpoint.
///
/// Deserialising fills absent fields from `default` and refuses unknown ones; `validate` refuses
/// senseless values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputConfig {
    /// `[H, W]` of the input.
    pub side: [usize; 2],
    /// Depth of one patch, `pd`: a deep input has a multiple of it.
    pub patch_depth: usize,
    /// The largest depth, a multiple of `patch_depth`.
    pub max_depth: usize,
    /// Percentiles (0..=100) of the object that become 0 and 1.
    pub percentiles: [f64; 2],
    /// How H, W and the depth of a volume are resampled.
    pub filter: Filter,
    /// What `scaled` keeps at most, in multiples of `side` and `max_depth`.
    pub view_scale: usize,
}

/// A resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// `resample`: linear where an axis grows, widened against aliasing where it shrinks.
    Triangle,
}

impl Default for InputConfig {
    fn default() -> Self {
        Self {
            side: [224, 224],
            patch_depth: 4,
            max_depth: 64,
            percentiles: [0.5, 99.5],
            filter: Filter::Triangle,
            view_scale: 2,
        }
    }
}

impl InputConfig {
    /// Checks that the fields make sense together.
    ///
    /// # Errors
    /// `Mismatch` naming the first field that does not; the largest input is bounded to 2^28
    /// values, and so is what `scaled` keeps.
    pub fn validate(&self) -> Result<()> {
        let [height, width] = self.side;
        let [lower, upper] = self.percentiles;
        let in_order = 0.0 <= lower && lower < upper && upper <= 100.0;
        // 3 channels of max_depth x H x W, each side times view_scale.
        let largest = [3, self.max_depth, height, width, self.view_scale]
            .iter()
            .chain([&self.view_scale; 2])
            .try_fold(1_usize, |product, &side| product.checked_mul(side));
        let whole_patches = self.patch_depth > 0
            && self.max_depth > 0
            && self.max_depth.is_multiple_of(self.patch_depth);
        let rules = [
            (
                height > 0 && width > 0,
                "side",
                "both above 0",
                format!("{height} x {width}"),
            ),
            (
                whole_patches,
                "max_depth",
                "a multiple of patch_depth",
                self.max_depth.to_string(),
            ),
            (
                in_order,
                "percentiles",
                "0 <= lower < upper <= 100",
                format!("{lower}, {upper}"),
            ),
            (
                self.view_scale > 0,
                "view_scale",
                "1 or more",
                self.view_scale.to_string(),
            ),
            (
                largest.is_some_and(|n| n <= MAX_INPUT_VALUES),
                "side, max_depth and view_scale",
                "at most 2^28 values together",
                format!(
                    "{height} x {width}, {}, {}",
                    self.max_depth, self.view_scale
                ),
            ),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, what, expected, got)) => Err(Error::Mismatch {
                what,
                expected: expected.to_owned(),
                got,
            }),
            None => Ok(()),
        }
    }
}

/// What the encoder takes: f32 `[3, D, H, W]` in 0..=1, W fastest.
///
/// D is 1 for a single image, which the encoder repeats to one depth patch, else a multiple of
/// `patch_depth`.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    values: Vec<f32>,
    shape: [usize; 4],
}

impl Input {
    /// Takes values that were prepared elsewhere, e.g. for a public encoder.
    ///
    /// # Errors
    /// `Mismatch` if the shape has another number of values.
    pub fn new(values: Vec<f32>, shape: [usize; 4]) -> Result<Self> {
        let n_values = shape
            .iter()
            .try_fold(1_usize, |n, &side| n.checked_mul(side));
        if n_values != Some(values.len()) {
            return Err(Error::Mismatch {
                what: "values of an input",
                expected: format!("{shape:?}"),
                got: values.len().to_string(),
            });
        }
        Ok(Self { values, shape })
    }

    /// Returns the values, W fastest.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns `[3, D, H, W]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Gives the values away.
    #[must_use]
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}

/// An object scaled to 0..=1 and resized, neither padded nor repeated to three channels: f32
/// `[C, D, H, W]`, W fastest; C is 1 for grey (also for grey stored as RGB) or 3.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaled {
    values: Vec<f32>,
    shape: [usize; 4],
    kind: Kind,
    /// How many pixels of a plane its distance to the next one is; 1 where that is unknown.
    depth_step: f64,
}

impl Scaled {
    /// Takes values that were scaled before, e.g. kept on disk.
    ///
    /// # Errors
    /// `Mismatch` if a side is 0, C is neither 1 nor 3, or the values do not fill the shape.
    pub fn new(values: Vec<f32>, shape: [usize; 4], kind: Kind) -> Result<Self> {
        let volume = Volume::new(values, shape, kind)?;
        Ok(Self {
            values: volume.into_values(),
            shape,
            kind,
            depth_step: 1.0,
        })
    }

    /// Says how far planes are apart, in pixels of a plane; what is no distance counts as unknown.
    #[must_use]
    pub fn with_depth_step(mut self, depth_step: f64) -> Self {
        self.depth_step = if (1e-3..=1e3).contains(&depth_step) {
            depth_step
        } else {
            1.0
        };
        self
    }

    /// Returns how far planes are apart, in pixels of a plane; 1 where that is unknown.
    #[must_use]
    pub fn depth_step(&self) -> f64 {
        self.depth_step
    }

    /// Returns what D means.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the values, W fastest.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns `[C, D, H, W]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Gives the values away.
    #[must_use]
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}

/// Makes the model input of any object.
///
/// Order of the steps, and why:
/// 1. Grey or colour: RGB whose channels are equal everywhere is grey.
/// 2. Percentiles of the full-resolution object, exact (a resized copy would lose its extremes).
///    True RGB with a full scale is only divided by it; without one, percentiles are taken over
///    its three channels jointly.
/// 3. Scale to 0..=1 and clamp, *before* any resizing, so that a metal implant or a NaN cannot
///    bleed into its neighbours; non-finite voxels become 0, a constant object zeros. MONOCHROME1
///    is flipped to `1 - x` here. A plane is mapped while it is read for resizing.
/// 4. H and W: the largest size that fits `side` with the aspect kept; the physical aspect where
///    the in-plane spacing or the shape of a pixel is known, else that of the numbers of pixels. No
///    side becomes less than 1.
/// 5. D: 1 stays 1, whatever the kind (the encoder repeats it). Otherwise the multiple of
///    `patch_depth` nearest to D, ties to the larger, within `patch_depth..=max_depth`. Video
///    takes the frames in the middle of so many equal parts, and where it has fewer frames
///    repeats them evenly; volumes are resampled, antialiased.
/// 6. Grey is repeated to 3 channels; H and W are padded with 0 to `side`, centred, an odd row or
///    column at the end (bottom, right).
///
/// Beside the volume and the result, memory holds at most about one copy of the volume.
///
/// # Shapes
/// `[C, D, H, W]` -> `[3, D', side H, side W]`.
/// # Errors
/// `Mismatch` if the config is senseless.
pub fn prepare(volume: &Volume, config: &InputConfig) -> Result<Input> {
    config.validate()?;
    refuse_without_values(volume)?;
    let [_, depth, height, width] = volume.shape();
    let [height, width] = fit([height, width], in_plane_steps(volume), config.side, true);
    let depth = nearest_depth(depth, config.patch_depth, config.max_depth);
    Ok(pad(
        &resized(volume, config, [depth, height, width]),
        config.side,
    ))
}

/// Refuses an object without a single number in it: what would be made of it shows nothing.
fn refuse_without_values(volume: &Volume) -> Result<()> {
    if volume.values().iter().any(|value| value.is_finite()) {
        return Ok(());
    }
    Err(Error::refused(
        "image",
        Code::NoDirection,
        "no finite value",
        "at least one number",
    ))
}

/// Makes what training views are cropped from: steps 1 to 3 of `prepare`, then H and W shrunk (never
/// grown) to fit `view_scale` times `side`, and D to at most `view_scale` times `max_depth`.
///
/// Where the in-plane spacing, or the shape of a pixel, is known, pixels are made square at the finer
/// of both spacings.
///
/// # Shapes
/// `[C, D, H, W]` -> `[1 or 3, D', H', W']`.
/// # Errors
/// `Mismatch` if the config is senseless; `no_direction` if no value is finite.
pub fn scaled(volume: &Volume, config: &InputConfig) -> Result<Scaled> {
    refuse_without_values(volume)?;
    let sides = scaled_sides(volume, config)?;
    Ok(resized(volume, config, sides))
}

/// Returns the `[D, H, W]` of what `scaled` makes, before it is made; larger than the volume where
/// pixels are far from square.
///
/// # Errors
/// As `scaled`.
pub fn scaled_sides(volume: &Volume, config: &InputConfig) -> Result<[usize; 3]> {
    config.validate()?;
    let [_, depth, height, width] = volume.shape();
    let largest = config.side.map(|side| side * config.view_scale);
    let [height, width] = fit([height, width], in_plane_steps(volume), largest, false);
    let depth = depth.min(config.max_depth * config.view_scale);
    Ok([depth, height, width])
}

/// Returns some planes of an object after steps 1 to 3 of `prepare`, at their own size: what a
/// public 2D encoder resizes in its own way. The percentiles are those of the whole object.
///
/// # Shapes
/// `[C, D, H, W]` -> `[1 or 3, planes, H, W]`, planes in the order asked for.
/// # Errors
/// `Mismatch` if no plane is asked for, or one that is not there, or the percentiles are not in
/// order.
pub fn scaled_planes(volume: &Volume, percentiles: [f64; 2], planes: &[usize]) -> Result<Scaled> {
    refuse_without_values(volume)?;
    let [n_stored_channels, depth, height, width] = volume.shape();
    let [lower, upper] = percentiles;
    if !(0.0 <= lower && lower < upper && upper <= 100.0) {
        return Err(Error::Mismatch {
            what: "percentiles",
            expected: "0 <= lower < upper <= 100".to_owned(),
            got: format!("{lower}, {upper}"),
        });
    }
    if planes.is_empty() || planes.iter().any(|&plane| plane >= depth) {
        return Err(Error::Mismatch {
            what: "planes of an object",
            expected: format!("at least one, each below {depth}"),
            got: format!("{} planes", planes.len()),
        });
    }
    let n_channels = if is_grey(volume) {
        1
    } else {
        n_stored_channels
    };
    let window = Window::of(volume, percentiles);
    let n_plane = height * width;
    let mut values = vec![0.0; n_channels * planes.len() * n_plane];
    let channels = volume.values().chunks_exact(depth * n_plane);
    for (channel, made) in channels.zip(values.chunks_exact_mut(planes.len() * n_plane)) {
        for (&plane, made) in planes.iter().zip(made.chunks_exact_mut(n_plane)) {
            let stored = channel.get(plane * n_plane..(plane + 1) * n_plane);
            window.apply(stored.unwrap_or_default(), made);
        }
    }
    Ok(Scaled {
        values,
        shape: [n_channels, planes.len(), height, width],
        kind: volume.kind,
        // Planes may be any, in any order.
        depth_step: 1.0,
    })
}

/// Returns `[H, W]` in units of the finer in-plane spacing where it, or the shape of a pixel, is
/// known, else in pixels: the sides that an object has with square pixels.
#[must_use]
pub fn square_sides(volume: &Volume) -> [f64; 2] {
    let [_, _, height, width] = volume.shape();
    let [row_step, column_step] = in_plane_steps(volume);
    [as_f64(height) * row_step, as_f64(width) * column_step]
}

/// Steps 1 to 3, then the resizing of 4 and 5 to the sides `to` `[D, H, W]`.
fn resized(volume: &Volume, config: &InputConfig, to: [usize; 3]) -> Scaled {
    let Filter::Triangle = config.filter;
    let [n_stored_channels, n_planes, height, width] = volume.shape();
    let n_channels = if is_grey(volume) {
        1
    } else {
        n_stored_channels
    };
    let window = Window::of(volume, config.percentiles);
    let [depth, ..] = to;
    let frames = match volume.kind {
        Kind::Video => Some(uniform_frames(n_planes, depth)),
        Kind::Image | Kind::Volume => None,
    };
    let mut values = Vec::new();
    for channel in volume
        .values()
        .chunks_exact(n_planes * height * width)
        .take(n_channels)
    {
        let planes = Planes {
            values: channel,
            sides: [height, width],
            frames: frames.as_deref(),
            n_planes: frames.as_ref().map_or(n_planes, Vec::len),
            window: Some(window),
        };
        values.append(&mut resample_planes(&planes, to));
    }
    // Weights of a window sum to 1 up to rounding, and 1 is the promised end of the range.
    values.iter_mut().for_each(|value| *value = value.min(1.0));
    let [depth, height, width] = to;
    let scaled = Scaled {
        values,
        shape: [n_channels, depth, height, width],
        kind: volume.kind,
        depth_step: 1.0,
    };
    scaled.with_depth_step(depth_step(volume, [depth, width]))
}

/// Returns how far planes will be apart, in pixels, once depth and width have become `to`.
fn depth_step(volume: &Volume, [depth, width]: [usize; 2]) -> f64 {
    let [_, n_planes, _, n_columns] = volume.shape();
    match (volume.kind, volume.spacing) {
        (Kind::Volume, [Some(apart), _, Some(pixel)]) => {
            let apart = apart * as_f64(n_planes) / as_f64(depth);
            apart / (pixel * as_f64(n_columns) / as_f64(width))
        }
        _ => 1.0,
    }
}

/// Step 6: `[C, D, H, W]` -> `[3, D, side H, side W]`.
fn pad(scaled: &Scaled, side: [usize; 2]) -> Input {
    // One channel is repeated by `cycle`; three are taken once.
    let [_, depth, height, width] = scaled.shape;
    let [side_height, side_width] = side;
    let (top, left) = ((side_height - height) / 2, (side_width - width) / 2);
    let n_side = side_height * side_width;
    let mut values = vec![0.0; 3 * depth * n_side];
    let channels = scaled.values.chunks_exact(depth * height * width).cycle();
    for (padded, channel) in values.chunks_exact_mut(depth * n_side).zip(channels) {
        let planes = padded
            .chunks_exact_mut(n_side)
            .zip(channel.chunks_exact(height * width));
        for (padded, plane) in planes {
            let rows = padded.chunks_exact_mut(side_width).skip(top);
            for (padded, row) in rows.zip(plane.chunks_exact(width)) {
                if let Some(place) = padded.get_mut(left..left + width) {
                    place.copy_from_slice(row);
                }
            }
        }
    }
    Input {
        values,
        shape: [3, depth, side_height, side_width],
    }
}

/// Returns the steps along some axes relative to the finest of them, where all are known, else 1s.
///
/// Bounded by 1e12, so that no spacing in a file makes 0, infinity or NaN.
pub(crate) fn relative_steps<const N: usize>(spacing: [Option<f64>; N]) -> [f64; N] {
    let mut steps = [1.0; N];
    for (step, known) in steps.iter_mut().zip(spacing) {
        match known.filter(|known| known.is_finite() && *known > 0.0) {
            Some(known) => *step = known,
            None => return [1.0; N],
        }
    }
    let finest = steps.into_iter().fold(f64::INFINITY, f64::min);
    steps.map(|step| (step / finest).min(1e12))
}

/// Returns the steps along H and W relative to the finer one: by the spacing, else by the shape of a
/// pixel.
pub(crate) fn in_plane_steps(volume: &Volume) -> [f64; 2] {
    match volume.spacing {
        [_, Some(row_step), Some(column_step)] => {
            relative_steps([Some(row_step), Some(column_step)])
        }
        _ => relative_steps([Some(volume.pixel_aspect), Some(1.0)]),
    }
}

/// Returns the `[H, W]` that fits `largest` with square pixels, each at least 1.
///
/// `grows` fills `largest` along one axis; otherwise pixels keep the finer of both sizes, and
/// only what is larger than `largest` shrinks.
fn fit(sides: [usize; 2], steps: [f64; 2], largest: [usize; 2], grows: bool) -> [usize; 2] {
    let ([rows, columns], [row_step, column_step]) = (sides.map(as_f64), steps);
    let (height, width) = (rows * row_step, columns * column_step);
    let [largest_height, largest_width] = largest.map(as_f64);
    let factor = (largest_height / height).min(largest_width / width);
    let factor = if grows { factor } else { factor.min(1.0) };
    let [most_rows, most_columns] = largest;
    [
        as_index((height * factor).round()).clamp(1, most_rows),
        as_index((width * factor).round()).clamp(1, most_columns),
    ]
}

/// Returns the depth of the input for a stored depth: step 5 of `prepare`.
pub(crate) fn nearest_depth(depth: usize, patch_depth: usize, max_depth: usize) -> usize {
    if depth == 1 {
        return 1;
    }
    // Capped first: a depth beyond the largest input must not overflow.
    let n_patches = (depth.min(max_depth) + patch_depth / 2) / patch_depth;
    (n_patches * patch_depth).clamp(patch_depth, max_depth)
}

#[cfg(test)]
mod tests;
