//! Resampling of `[D, H, W]` grids: a triangle filter, widened where an axis shrinks.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::intensity::Window;
use crate::samples::narrow;

/// Resamples a `[D, H, W]` grid to other sides over the same physical extent.
///
/// Separable; each axis is a triangle filter whose half width is one step of the coarser of both
/// grids: linear interpolation where an axis grows, an antialiased mean where it shrinks. Voxels
/// are cells, so centres map by `(i + 0.5) / n`; at the border the weights of the voxels that
/// exist are scaled to sum to 1. No value leaves the range of its inputs, up to f32 rounding, and
/// an axis whose side stays is copied bit for bit.
///
/// # Shapes
/// `values` `[D, H, W]` = `from`, W fastest -> `[D, H, W]` = `to`.
/// # Errors
/// `Mismatch` if a side is 0 or `values` do not fill `from`.
/// # Source
/// The same weights as Pillow's `resize(BILINEAR)` and torch's `interpolate(mode="bilinear",
/// antialias=True)`, summed in f32.
pub fn resample(values: &[f32], from: [usize; 3], to: [usize; 3]) -> Result<Vec<f32>> {
    let n_wanted = from
        .iter()
        .try_fold(1_usize, |product, &side| product.checked_mul(side));
    let n_made = to
        .iter()
        .try_fold(1_usize, |product, &side| product.checked_mul(side));
    let sides_are_sound = [n_wanted, n_made].iter().all(|n| n.is_some_and(|n| n > 0));
    if n_wanted != Some(values.len()) || !sides_are_sound {
        return Err(Error::Mismatch {
            what: "grid to resample",
            expected: format!("{} values, and sides above 0", values.len()),
            got: format!("{from:?} to {to:?}"),
        });
    }
    let [n_planes, height, width] = from;
    let planes = Planes {
        values,
        sides: [height, width],
        frames: None,
        n_planes,
        window: None,
    };
    Ok(resample_planes(&planes, to))
}

/// `[D, H, W]` values as planes `[H, W]`, some of them, mapped by a window while they are read.
#[derive(Clone, Copy)]
pub(crate) struct Planes<'a> {
    /// All planes, one after another.
    pub(crate) values: &'a [f32],
    /// `[H, W]`.
    pub(crate) sides: [usize; 2],
    /// Which planes to read, in this order; all of them if `None`.
    pub(crate) frames: Option<&'a [usize]>,
    /// How many planes are read.
    pub(crate) n_planes: usize,
    /// How values are mapped.
    pub(crate) window: Option<Window>,
}

impl<'a> Planes<'a> {
    fn n_plane_values(&self) -> usize {
        let [height, width] = self.sides;
        height * width
    }

    /// Returns one plane, through `scratch` where a window maps it.
    fn plane<'b>(&self, index: usize, scratch: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        let stored = self
            .frames
            .map_or(Some(index), |frames| frames.get(index).copied());
        let start = stored.unwrap_or(index) * self.n_plane_values();
        let plane = self
            .values
            .get(start..start + self.n_plane_values())
            .unwrap_or_default();
        let Some(window) = self.window else {
            return plane;
        };
        scratch.resize(plane.len(), 0.0);
        window.apply(plane, scratch);
        scratch
    }

    /// Copies all planes, mapped.
    fn copied(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.n_planes * self.n_plane_values()];
        let each_plane = all.par_chunks_exact_mut(self.n_plane_values()).enumerate();
        each_plane.for_each_init(Vec::new, |scratch, (index, copy)| {
            copy.copy_from_slice(self.plane(index, scratch));
        });
        all
    }
}

/// As `resample`, of planes read one by one: beside the result, at most one copy of the planes is
/// held, because the axes that shrink come first.
pub(crate) fn resample_planes(planes: &Planes<'_>, to: [usize; 3]) -> Vec<f32> {
    let [depth, height, width] = to;
    let plane_shrinks = height * width <= planes.n_plane_values();
    if planes.n_planes == depth || plane_shrinks {
        let resized = resize_planes(planes, [height, width]);
        return resize_depth(resized, [planes.n_planes, depth], height * width);
    }
    let deep = resize_depth(
        planes.copied(),
        [planes.n_planes, depth],
        planes.n_plane_values(),
    );
    let planes = Planes {
        values: &deep,
        frames: None,
        n_planes: depth,
        window: None,
        ..*planes
    };
    resize_planes(&planes, [height, width])
}

/// Resizes every plane: `[D, H, W]` -> `[D, height, width]`.
fn resize_planes(planes: &Planes<'_>, to: [usize; 2]) -> Vec<f32> {
    if planes.sides == to {
        return planes.copied();
    }
    let resizer = PlaneResizer::new(planes.sides, to);
    let [height, width] = to;
    let mut resized = vec![0.0; planes.n_planes * height * width];
    let each_plane = resized.par_chunks_exact_mut(height * width).enumerate();
    each_plane.for_each_init(
        || (Vec::new(), Vec::new()),
        |(mapped, between), (index, out)| {
            resizer.resize(planes.plane(index, mapped), between, out);
        },
    );
    resized
}

/// Resizes along D: `[n_from, inner]` -> `[n_to, inner]`.
fn resize_depth(values: Vec<f32>, sides: [usize; 2], inner: usize) -> Vec<f32> {
    let [n_from, n_to] = sides;
    if n_from == n_to {
        return values;
    }
    let taps = Taps::new(n_from, n_to);
    let mut resized = vec![0.0; n_to * inner];
    let each_plane = resized
        .par_chunks_exact_mut(inner)
        .zip(taps.windows.par_iter());
    each_plane.for_each(|(out, window)| window.mix_rows(&values, out));
    resized
}

/// Resizes planes of one size to another; its weights are computed once.
pub(crate) struct PlaneResizer {
    from: [usize; 2],
    to: [usize; 2],
    rows: Taps,
    columns: Taps,
}

impl PlaneResizer {
    pub(crate) fn new(from: [usize; 2], to: [usize; 2]) -> Self {
        let ([from_height, from_width], [height, width]) = (from, to);
        Self {
            from,
            to,
            rows: Taps::new(from_height, height),
            columns: Taps::new(from_width, width),
        }
    }

    /// Resizes `plane` into `out`; `between` is scratch that is kept between calls.
    ///
    /// Mixing rows runs along memory, mixing columns across it: rows go first unless they grow.
    pub(crate) fn resize(&self, plane: &[f32], between: &mut Vec<f32>, out: &mut [f32]) {
        let ([from_height, from_width], [height, width]) = (self.from, self.to);
        if from_height == height {
            self.columns.mix_columns(plane, from_width, out);
        } else if from_width == width {
            self.rows.mix_rows(plane, width, out);
        } else if height < from_height {
            between.resize(height * from_width, 0.0);
            self.rows.mix_rows(plane, from_width, between);
            self.columns.mix_columns(between, from_width, out);
        } else {
            between.resize(from_height * width, 0.0);
            self.columns.mix_columns(plane, from_width, between);
            self.rows.mix_rows(between, width, out);
        }
    }
}

/// For each output position along one axis, which inputs it mixes.
pub(crate) struct Taps {
    pub(crate) windows: Vec<TapWindow>,
}

/// Consecutive inputs and their weights, which sum to 1.
pub(crate) struct TapWindow {
    pub(crate) start: usize,
    pub(crate) weights: Vec<f32>,
}

impl Taps {
    pub(crate) fn new(n_from: usize, n_to: usize) -> Self {
        let step = as_f64(n_from) / as_f64(n_to);
        // Below 1 the triangle would miss inputs between two outputs (and alias); above, none.
        let half_width = step.max(1.0);
        let window = |index: usize| {
            let centre = (as_f64(index) + 0.5) * step;
            let start = as_index(centre - half_width).min(n_from - 1);
            let end = (as_index((centre + half_width).ceil())).clamp(start + 1, n_from);
            TapWindow::triangle(start..end, centre, half_width)
        };
        Self {
            windows: (0..n_to).map(window).collect(),
        }
    }

    /// Mixes rows: `[n_from, width]` -> `[n_to, width]`.
    fn mix_rows(&self, plane: &[f32], width: usize, out: &mut [f32]) {
        for (row, window) in out.chunks_exact_mut(width).zip(&self.windows) {
            window.mix_rows(plane, row);
        }
    }

    /// Mixes columns: `[rows, n_from]` -> `[rows, n_to]`.
    fn mix_columns(&self, plane: &[f32], n_from: usize, out: &mut [f32]) {
        let n_to = self.windows.len();
        for (row, mixed) in plane.chunks_exact(n_from).zip(out.chunks_exact_mut(n_to)) {
            for (sum, window) in mixed.iter_mut().zip(&self.windows) {
                let inputs = row.get(window.start..).unwrap_or_default();
                *sum = inputs
                    .iter()
                    .zip(&window.weights)
                    .map(|(input, w)| input * w)
                    .sum();
            }
        }
    }
}

impl TapWindow {
    pub(crate) fn triangle(inputs: std::ops::Range<usize>, centre: f64, half_width: f64) -> Self {
        let weight =
            |input: usize| (1.0 - ((as_f64(input) + 0.5 - centre) / half_width).abs()).max(0.0);
        let sum: f64 = inputs.clone().map(weight).sum();
        let mut start = inputs.start;
        let mut weights: Vec<f32> = inputs.map(|input| narrow(weight(input) / sum)).collect();
        // Weights of 0 at the ends cost work and, times infinity, would make NaN.
        let is_used = |weight: &f32| *weight > 0.0;
        weights.truncate(weights.iter().rposition(is_used).map_or(0, |last| last + 1));
        let n_unused = weights.iter().position(is_used).unwrap_or(0);
        start += n_unused;
        weights.drain(..n_unused);
        Self { start, weights }
    }

    /// Adds up weighted rows, each as long as `out`.
    fn mix_rows(&self, rows: &[f32], out: &mut [f32]) {
        out.fill(0.0);
        let used = rows.chunks_exact(out.len()).skip(self.start);
        for (row, &weight) in used.zip(&self.weights) {
            for (sum, &input) in out.iter_mut().zip(row) {
                *sum += weight * input;
            }
        }
    }
}

/// Widens a side or an index, all far below 2^53.
#[allow(clippy::cast_precision_loss, reason = "a side is far below 2^53")]
pub(crate) fn as_f64(side: usize) -> f64 {
    side as f64
}

/// Returns the whole number at or below `position`, at least 0.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float converts with saturation, and callers clamp to a side"
)]
pub(crate) fn as_index(position: f64) -> usize {
    position.max(0.0) as usize
}

#[cfg(test)]
mod tests;
