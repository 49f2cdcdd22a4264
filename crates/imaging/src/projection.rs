//! CT -> simulated radiographs: line integrals of linear attenuation along parallel rays.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::geometry::{cross, dot, unit};
use crate::intensity::{Window, percentiles_of};
use crate::reason::Code;
use crate::resample::{TapWindow, as_f64, as_index};
use crate::samples::narrow;
use crate::volume::{Kind, Volume};

/// Linear attenuation of water at 70 keV, per mm: 0.1929 cm2/g times 1 g/cm3.
///
/// 70 keV is about the effective energy of a CT at 120 kVp. HU state attenuation relative to water
/// at that energy, so that `mu = mu_water * (1 + HU / 1000)` holds there for bone as for soft
/// tissue, and needs no second slope.
///
/// # Source
/// NIST XCOM (NBSIR 87-3597), total attenuation with coherent scattering. NIST's table of water
/// (NISTIR 5632) has the neighbours 0.2059 at 60 keV and 0.1837 at 80 keV.
pub const WATER_PER_MM: f64 = 0.019_29;

/// The longest side of a picture in pixels, where nobody asks for another.
pub const DEFAULT_MAX_SIDE: usize = 2048;

/// The longest side that may be asked for.
pub const MAX_SIDE: usize = 8192;

/// Largest cosine between rows and columns that counts as a right angle: half a degree.
const MAX_COSINE: f64 = 0.0087;

/// The name that errors give to the step.
const FORMAT: &str = "projection";

/// Returns the linear attenuation of a voxel per mm: 0 for air and below, and for no number.
#[must_use]
pub fn attenuation_per_mm(hu: f32) -> f32 {
    let relative = 1.0 + f64::from(hu) / 1000.0;
    if relative.is_finite() {
        narrow(WATER_PER_MM * relative.max(0.0))
    } else {
        0.0
    }
}

/// A simulated radiograph: for each pixel the line integral of attenuation, `-ln(I / I_0)`.
///
/// The first row is superior. Pixels are square.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// `height * width` integrals without a unit, row by row; bright is dense.
    pub values: Vec<f32>,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Side of a pixel in mm, in the patient: parallel rays do not magnify.
    pub pixel_mm: f64,
}

impl Projection {
    /// Returns two percentiles (0..=100) of the integrals; both 0 if there is no pixel.
    #[must_use]
    pub fn percentiles(&self, wanted: [f64; 2]) -> [f64; 2] {
        percentiles_of(&self.values, wanted).unwrap_or_default()
    }

    /// Maps integrals to 0..=1: `low` and below to 0, `high` and above to 1, linear between.
    #[must_use]
    pub fn shares(&self, [low, high]: [f64; 2]) -> Vec<f32> {
        let mut shares = vec![0.0; self.values.len()];
        Window::new(low, high, false).apply(&self.values, &mut shares);
        shares
    }
}

/// A CT that rays can be sent through.
#[derive(Debug, Clone, Copy)]
pub struct Projector<'a> {
    volume: &'a Volume,
    /// Distance of slices, along their normal, of rows and of columns.
    steps_mm: [f64; 3],
    /// How far each slice lies beside the one before it, along W and along H: gantry tilt.
    shift_mm: [f64; 2],
}

impl<'a> Projector<'a> {
    /// Takes a CT in Hounsfield units whose place in the patient is known.
    ///
    /// Values that are not finite count as air.
    ///
    /// # Errors
    /// `Mismatch` if it is no grey volume in space; `Malformed` with `not_hounsfield`,
    /// `spacing_unknown`, `orientation_unknown` or `bad_geometry`, as the case may be.
    pub fn new(volume: &'a Volume) -> Result<Self> {
        let [n_channels, ..] = volume.shape();
        if volume.kind != Kind::Volume || n_channels != 1 {
            return Err(Error::Mismatch {
                what: "image to project",
                expected: "a grey volume".into(),
                got: format!("{:?} of shape {:?}", volume.kind, volume.shape()),
            });
        }
        let is_ct = volume.modality.as_deref().is_none_or(|word| word == "CT");
        if volume.unit != Some("HU") || !is_ct {
            let found = "values that are not known to be Hounsfield units";
            return Err(refused(Code::NotHounsfield, found, "a CT in HU"));
        }
        if volume.spacing.contains(&None) {
            let wanted = "voxels of known size";
            return Err(refused(
                Code::SpacingUnknown,
                "no spacing on some axis",
                wanted,
            ));
        }
        let wanted = "a volume whose place in the patient is known";
        let affine = volume
            .affine
            .filter(|affine| affine.is_usable() && affine.axis_order() == "SPL")
            .ok_or_else(|| refused(Code::OrientationUnknown, "no usable orientation", wanted))?;
        let [w, h, d, _] = affine.columns();
        let normal = unit(cross(w, h));
        let [_, row_step, column_step] = affine.spacing_mm();
        let slice_step = dot(d, normal);
        if dot(unit(w), unit(h)).abs() > MAX_COSINE || slice_step <= 0.0 {
            let found = "rows and columns that are not at right angles";
            return Err(refused(Code::BadGeometry, found, "a rectangular grid"));
        }
        Ok(Self {
            volume,
            steps_mm: [slice_step, row_step, column_step],
            shift_mm: [dot(d, unit(w)), dot(d, unit(h))],
        })
    }

    /// Projects along rays at right angles to the volume's D axis, turned around it.
    ///
    /// At 0 degrees rays run from anterior to posterior and the patient's right is on the left of
    /// the picture; the viewer then turns towards the patient's left: at 90 degrees anterior is on
    /// the left. Multiples of 90 degrees are sums along the grid; between, each ray is sampled
    /// once in every row (or column) of every slice, linearly between neighbours. Slices of a
    /// tilted gantry are projected where they lie, along rays in their planes.
    ///
    /// `side` is the number of pixels of the longer side; without it a pixel is as small as the
    /// finest step of the grid, but the longer side is at most `DEFAULT_MAX_SIDE`. Outside the
    /// volume is air.
    ///
    /// # Shapes
    /// `[1, D, H, W]` -> `[height, width]`, which cover the volume's extent seen from that side.
    /// # Units
    /// Integrals have none: per mm times mm.
    /// # Errors
    /// `Mismatch` if the angle is not finite, or `side` is 0 or above `MAX_SIDE`.
    /// # Source
    /// Beer and Lambert; rays as in Joseph 1982, "An improved algorithm for reprojecting rays
    /// through pixel images", with air outside the grid.
    pub fn project(&self, angle_deg: f64, side: Option<usize>) -> Result<Projection> {
        if !angle_deg.is_finite() || side.is_some_and(|side| !(1..=MAX_SIDE).contains(&side)) {
            return Err(Error::Mismatch {
                what: "angle and side of a projection",
                expected: format!("a finite angle, and a side from 1 to {MAX_SIDE}"),
                got: format!("{angle_deg} degrees, {side:?}"),
            });
        }
        let rays = Rays::new(self, angle_deg);
        let picture = Canvas::new(self, &rays, side);
        let [_, depth, ..] = self.volume.shape();
        let rows: Vec<Vec<f64>> = (0..depth)
            .into_par_iter()
            .map(|slice| {
                let profile = rays.through(self.volume.plane(0, slice).unwrap_or_default());
                picture.row(&profile, self.offset(slice, &rays))
            })
            .collect();
        Ok(picture.stacked(&rows))
    }

    /// How far a slice lies beside the middle of the volume, across the rays.
    fn offset(&self, slice: usize, rays: &Rays) -> f64 {
        let [_, depth, ..] = self.volume.shape();
        let [by_column, by_row] = self.shift_mm;
        from_middle(slice, depth) * (by_column * rays.cosine + by_row * rays.sine)
    }
}

fn refused(code: Code, found: &str, wanted: &str) -> Error {
    Error::refused(FORMAT, code, found, wanted)
}

/// Position of a cell's centre, counted from the middle of `n` cells.
fn from_middle(idx: usize, n: usize) -> f64 {
    as_f64(idx) - (as_f64(n) - 1.0) / 2.0
}

/// Parallel rays through one slice: position `u` across them grows from left to right as seen.
struct Rays {
    /// Direction of `u`: along W and along H.
    cosine: f64,
    sine: f64,
    /// Rays, and their distance in mm.
    n: usize,
    step_mm: f64,
    /// Rows and columns of a slice.
    sides: [usize; 2],
    steps_mm: [f64; 2],
}

impl Rays {
    fn new(projector: &Projector<'_>, angle_deg: f64) -> Self {
        let [_, _, height, width] = projector.volume.shape();
        let [_, row_step, column_step] = projector.steps_mm;
        let (sine, cosine) = sine_and_cosine(angle_deg);
        let is_straight = sine.abs().min(cosine.abs()) <= 0.0;
        let step_mm = match is_straight {
            true if sine.abs() > cosine.abs() => row_step,
            true => column_step,
            false => row_step.min(column_step),
        };
        let extent =
            as_f64(width) * column_step * cosine.abs() + as_f64(height) * row_step * sine.abs();
        // What is a whole number of steps, but for rounding, must not become one more.
        let n = as_index((extent / step_mm - 1e-6).ceil()).max(1);
        Self {
            cosine,
            sine,
            n,
            step_mm,
            sides: [height, width],
            steps_mm: [row_step, column_step],
        }
    }

    /// Returns the integral of attenuation along each ray.
    fn through(&self, slice: &[f32]) -> Vec<f64> {
        let ([height, width], [row_step, column_step]) = (self.sides, self.steps_mm);
        if self.cosine.abs() >= self.sine.abs() {
            let lines = Lines {
                sides: [height, width],
                steps_mm: [row_step, column_step],
                turn: [self.cosine, self.sine],
            };
            return lines.sums(self, |row, column| slice.get(row * width + column));
        }
        let lines = Lines {
            sides: [width, height],
            steps_mm: [column_step, row_step],
            turn: [self.sine, self.cosine],
        };
        lines.sums(self, |column, row| slice.get(row * width + column))
    }
}

/// Returns sine and cosine, exactly 0 and 1 where they are.
fn sine_and_cosine(angle_deg: f64) -> (f64, f64) {
    let angle = angle_deg.rem_euclid(360.0);
    let straight = [(0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (-1.0, 0.0)];
    let quarters = angle / 90.0;
    if quarters.fract() > 0.0 {
        return angle.to_radians().sin_cos();
    }
    let quarter = as_index(quarters) % straight.len();
    straight.get(quarter).copied().unwrap_or((0.0, 1.0))
}

/// The lines of a slice that rays cross: its rows, or its columns.
struct Lines {
    /// Lines, and voxels of a line.
    sides: [usize; 2],
    steps_mm: [f64; 2],
    /// Direction of `u` along a line and from line to line; the first is the larger one.
    turn: [f64; 2],
}

impl Lines {
    /// Adds up what each ray meets on every line: Joseph's method.
    fn sums<'a>(&self, rays: &Rays, hu: impl Fn(usize, usize) -> Option<&'a f32>) -> Vec<f64> {
        let ([n_lines, n_voxels], [line_step, voxel_step]) = (self.sides, self.steps_mm);
        let [along, between] = self.turn;
        let mut sums = vec![0.0; rays.n];
        // Air at both ends, which rays fade into.
        let mut line = vec![0.0; n_voxels + 2];
        for line_idx in 0..n_lines {
            for (voxel_idx, place) in line.iter_mut().skip(1).take(n_voxels).enumerate() {
                *place = hu(line_idx, voxel_idx).map_or(0.0, |&hu| attenuation_per_mm(hu));
            }
            let line_mm = from_middle(line_idx, n_lines) * line_step;
            let first_mm = (from_middle(0, rays.n) * rays.step_mm - line_mm * between) / along;
            let first = first_mm / voxel_step + (as_f64(n_voxels) + 1.0) / 2.0;
            let step = rays.step_mm / along / voxel_step;
            for (ray, sum) in sums.iter_mut().enumerate() {
                *sum += between_neighbours(&line, first + as_f64(ray) * step);
            }
        }
        let length_mm = line_step / along.abs();
        sums.iter().map(|sum| sum * length_mm).collect()
    }
}

/// Interpolates linearly at a position counted in voxels; 0 outside.
fn between_neighbours(line: &[f32], position: f64) -> f64 {
    // Positions that are whole but for rounding: sums along the grid stay exact.
    let rounded = position.round();
    let position = if (position - rounded).abs() < 1e-9 {
        rounded
    } else {
        position
    };
    if position < 0.0 {
        return 0.0;
    }
    let below = as_index(position);
    let share = position - as_f64(below);
    let at = |idx: usize| line.get(idx).copied().map_or(0.0, f64::from);
    at(below) * (1.0 - share) + at(below + 1) * share
}

/// The pixels of a picture, and the grid of slices and rays behind them.
struct Canvas {
    height: usize,
    width: usize,
    pixel_mm: f64,
    n_rays: usize,
    ray_mm: f64,
    n_slices: usize,
    slice_mm: f64,
}

impl Canvas {
    fn new(projector: &Projector<'_>, rays: &Rays, side: Option<usize>) -> Self {
        let [_, depth, ..] = projector.volume.shape();
        let [slice_mm, ..] = projector.steps_mm;
        let tilt = projector.offset(0, rays).abs() * 2.0;
        let (tall, wide) = (
            as_f64(depth) * slice_mm,
            as_f64(rays.n) * rays.step_mm + tilt,
        );
        let longest = tall.max(wide);
        let pixel_mm = match side {
            Some(side) => longest / as_f64(side),
            None => slice_mm
                .min(rays.step_mm)
                .max(longest / as_f64(DEFAULT_MAX_SIDE)),
        };
        let n_pixels = |extent: f64| as_index((extent / pixel_mm).round()).clamp(1, MAX_SIDE);
        Self {
            height: n_pixels(tall),
            width: n_pixels(wide),
            pixel_mm,
            n_rays: rays.n,
            ray_mm: rays.step_mm,
            n_slices: depth,
            slice_mm,
        }
    }

    /// Resamples the integrals of one slice that lies `offset_mm` to the right.
    fn row(&self, profile: &[f64], offset_mm: f64) -> Vec<f64> {
        let cells = Cells {
            n: self.n_rays,
            step_mm: self.ray_mm,
            pixel_mm: self.pixel_mm,
        };
        let mixed = (0..self.width).map(|pixel| {
            let at_mm = from_middle(pixel, self.width) * self.pixel_mm - offset_mm;
            let window = cells.seen_from(at_mm)?;
            let seen = profile.iter().skip(window.start).zip(&window.weights);
            Some(seen.map(|(x, &weight)| x * f64::from(weight)).sum())
        });
        mixed.map(Option::unwrap_or_default).collect()
    }

    /// Stacks the rows of all slices, the last slice on top.
    fn stacked(&self, rows: &[Vec<f64>]) -> Projection {
        let cells = Cells {
            n: self.n_slices,
            step_mm: self.slice_mm,
            pixel_mm: self.pixel_mm,
        };
        let mut values = Vec::with_capacity(self.height * self.width);
        let mut sums = vec![0.0; self.width];
        for pixel in (0..self.height).rev() {
            sums.fill(0.0);
            let at_mm = from_middle(pixel, self.height) * self.pixel_mm;
            if let Some(window) = cells.seen_from(at_mm) {
                for (row, &weight) in rows.iter().skip(window.start).zip(&window.weights) {
                    let each = sums.iter_mut().zip(row);
                    each.for_each(|(sum, x)| *sum += x * f64::from(weight));
                }
            }
            values.extend(sums.iter().map(|&sum| narrow(sum)));
        }
        Projection {
            values,
            height: self.height,
            width: self.width,
            pixel_mm: self.pixel_mm,
        }
    }
}

/// Cells along one axis of the grid, around its middle, seen by pixels of another size.
struct Cells {
    n: usize,
    step_mm: f64,
    pixel_mm: f64,
}

impl Cells {
    /// Returns the cells that a pixel mixes: linearly, and widened where pixels are larger than
    /// cells. `None` outside.
    fn seen_from(&self, at_mm: f64) -> Option<TapWindow> {
        let centre = at_mm / self.step_mm + as_f64(self.n) / 2.0;
        if !(0.0..=as_f64(self.n)).contains(&centre) {
            return None;
        }
        let half_width = (self.pixel_mm / self.step_mm).max(1.0);
        let start = as_index(centre - half_width).min(self.n - 1);
        let end = as_index((centre + half_width).ceil()).clamp(start + 1, self.n);
        Some(TapWindow::triangle(start..end, centre, half_width))
    }
}

#[cfg(test)]
mod tests;
