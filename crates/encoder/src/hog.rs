//! Histograms of oriented gradients: the vector of the model `hog`, and a target of MAE.
//!
//! All formulas, for a plane of grey values `I[y, x]` in 0..=1, y downwards and x to the right:
//!
//! ```text
//! grey      three channels: I = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); one channel: I itself
//! gradient  gx = (I[y, x + 1] - I[y, x - 1]) / 2,  gy = (I[y + 1, x] - I[y - 1, x]) / 2;
//!           outside the plane the nearest pixel is repeated, so that a border pixel has half of its
//!           one-sided difference
//! strength  m = sqrt(gx^2 + gy^2)
//! angle     t = 9 / pi * (atan2(gy, gx) modulo pi), so 0 <= t < 9; bin k is centred on t = k
//! split     b = floor(t), f = t - b: bin b gets m (1 - f), bin (b + 1) mod 9 gets m f
//! cell      h[k] = the sum of bin k over the pixels of the cell; then h / sqrt(h.h + eps)
//! ```
//!
//! A plane and its negative have the same histograms.
//!
//! # Source
//! Dalal and Triggs 2005 without overlapping blocks; as a target Wei et al. 2022 (`MaskFeat`).

use std::f32::consts::{FRAC_PI_2, FRAC_PI_4, PI};

use m3ret_imaging::Input;

use crate::error::{Error, Result};
use crate::preprocess::luma;
use crate::tokens::grid_of;

/// Number of orientations, over half a turn.
const N_BINS: usize = 9;

/// Numbers of the target of one patch: 2 x 2 cells of 9 bins.
pub const PATCH_LEN: usize = 4 * N_BINS;

/// Part of every fingerprint of `hog`; raised when the descriptor's numbers change.
pub(crate) const VERSION: u32 = 1;

/// Side of the planes that `descriptor` takes.
pub(crate) const SIDE: usize = 64;

/// Side of a cell of `descriptor`.
const CELL: usize = 8;

/// Length of `descriptor`: 8 x 8 cells of 9 bins.
pub(crate) const WIDTH: usize = (SIDE / CELL) * (SIDE / CELL) * N_BINS;

/// Planes of an object that `descriptor` averages.
const N_PLANES: usize = 4;

/// eps of `descriptor`: a cell of weak gradients stays shorter than one of strong ones.
const DESCRIPTOR_EPS: f32 = 0.05;

/// eps of `patch_targets`: one grey level of 255 between neighbours keeps 0.9 of its unit length in
/// a cell of 4 x 4 pixels, the rounding of resampled constants vanishes.
const TARGET_EPS: f32 = 1e-4;

/// The largest contrast that f32 resampling gives a constant plane: less than a hundredth of an
/// 8-bit step.
const NO_CONTRAST: f32 = 1e-5;

/// Returns the mean histogram of four planes of an object, not yet of unit length.
///
/// Plane s = 0, 1, 2, 3 is `floor((s + 0.5) / 4 * D)`: an image is its one plane four times, and of
/// two or three planes some count twice. Cells have 8 x 8 pixels and eps 0.05. A plane whose
/// values differ by less than 1e-5 counts as zeros.
///
/// # Shapes
/// `[1 or 3, D, 64, 64]` -> `[576]`: cells in (y, x) order, 9 bins each, bin fastest.
/// # Errors
/// `Mismatch` for another shape.
pub(crate) fn descriptor(input: &Input) -> Result<Vec<f32>> {
    let [channels, depth, height, width] = input.shape();
    if ![1, 3].contains(&channels) || depth == 0 || [height, width] != [SIDE; 2] {
        return Err(Error::mismatch(
            "input of the model hog",
            format!("1 or 3 channels, 1 plane or more of {SIDE} x {SIDE}"),
            format!("{:?}", input.shape()),
        ));
    }
    let mut total = vec![0.0; WIDTH];
    let mut last: Option<(usize, Vec<f32>)> = None;
    for pick in (0..N_PLANES).map(|s| (2 * s + 1) * depth / (2 * N_PLANES)) {
        let cells = match last.take() {
            Some((plane, cells)) if plane == pick => cells,
            _ => plane_cells(&grey_plane(input, pick)),
        };
        for (sum, value) in total.iter_mut().zip(&cells) {
            *sum += value / as_f32(N_PLANES);
        }
        last = Some((pick, cells));
    }
    Ok(total)
}

/// Returns the cells of one plane of `descriptor`, `[576]`.
fn plane_cells(plane: &[f32]) -> Vec<f32> {
    let lowest = plane.iter().copied().fold(f32::INFINITY, f32::min);
    let highest = plane.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if highest - lowest < NO_CONTRAST {
        return vec![0.0; WIDTH];
    }
    let mut cells = histograms(plane, [SIDE; 2], [CELL; 2]);
    normalise(&mut cells, DESCRIPTOR_EPS);
    cells
}

/// Returns the histograms of every patch of an image, in the order of `patchify`.
///
/// A patch has 2 x 2 cells of `ph / 2` x `pw / 2` pixels with eps 1e-4. Gradients are those of the whole
/// plane, so that the border pixels of a patch see their neighbours in other patches. A patch of
/// `pd` planes has the histogram of their mean plane, a patch of an image that of its plane.
///
/// # Shapes
/// `[1 or 3, D, H, W]` -> `[N, 36]`: cells in (y, x) order, 9 bins each, bin fastest.
/// # Errors
/// `Mismatch` if the image does not divide into patches, a patch not into 2 x 2 cells, or the
/// image has another number of channels.
/// # Source
/// Wei et al. 2022. Differs: one grey plane instead of three colour channels, a central difference
/// instead of a Sobel filter, the linear split, eps.
pub fn patch_targets(image: &Input, patch: [usize; 3]) -> Result<Vec<f32>> {
    let [channels, depth, height, width] = image.shape();
    let [gz, gy, gx] = grid_of(image.shape(), patch)?;
    let [pd, ph, pw] = patch;
    if ![1, 3].contains(&channels) || !has_cells(patch) {
        return Err(Error::mismatch(
            "image for targets of gradients",
            "1 or 3 channels, and patches of even height and width",
            format!("{channels} channels, patches of {ph} x {pw}"),
        ));
    }
    let n_deep = if depth == 1 { 1 } else { pd };
    let mut targets = Vec::with_capacity(gz * gy * gx * PATCH_LEN);
    for z in 0..gz {
        // [H * W]: the mean of the slab's planes.
        let mut mean = vec![0.0; height * width];
        for plane in z * n_deep..(z + 1) * n_deep {
            let plane = grey_plane(image, plane);
            mean.iter_mut().zip(plane).for_each(|(sum, x)| *sum += x);
        }
        mean.iter_mut().for_each(|sum| *sum /= as_f32(n_deep));
        // [2 gy, 2 gx, 9]: cells of the whole plane, which lie in rows across patches.
        let mut cells = histograms(&mean, [height, width], [ph / 2, pw / 2]);
        normalise(&mut cells, TARGET_EPS);
        for (y, x) in (0..gy).flat_map(|y| (0..gx).map(move |x| (y, x))) {
            for row in [2 * y, 2 * y + 1] {
                // The two cells of a patch in one row lie side by side.
                let first = (row * 2 * gx + 2 * x) * N_BINS;
                targets.extend_from_slice(&cells[first..first + 2 * N_BINS]);
            }
        }
    }
    Ok(targets)
}

/// Returns whether patches `[pd, ph, pw]` divide into 2 x 2 cells.
#[must_use]
pub fn has_cells([_, ph, pw]: [usize; 3]) -> bool {
    ph > 0 && pw > 0 && ph.is_multiple_of(2) && pw.is_multiple_of(2)
}

/// Returns one plane of an image with one or three channels in grey, `[H * W]`.
fn grey_plane(image: &Input, plane: usize) -> Vec<f32> {
    let [channels, depth, height, width] = image.shape();
    let n_plane = height * width;
    let channel = |c: usize| &image.values()[(c * depth + plane) * n_plane..][..n_plane];
    if channels == 1 {
        return channel(0).to_vec();
    }
    let pixels = channel(0).iter().zip(channel(1)).zip(channel(2));
    pixels.map(|((&r, &g), &b)| luma([r, g, b])).collect()
}

/// Sums the gradients of a plane `[H, W]` by orientation over each of its cells.
///
/// # Shapes
/// `[H * W]` -> `[H / cell height, W / cell width, 9]`; the cells divide the plane.
fn histograms(plane: &[f32], [height, width]: [usize; 2], cell: [usize; 2]) -> Vec<f32> {
    let [cell_height, cell_width] = cell;
    let n_columns = width / cell_width;
    let mut sums = vec![0.0; height / cell_height * n_columns * N_BINS];
    let row = |y: usize| &plane[y * width..(y + 1) * width];
    let (mut strengths, mut places) = (vec![0.0; width], vec![0.0; width]);
    for y in 0..height {
        let (above, own) = (row(y.saturating_sub(1)), row(y));
        let below = row((y + 1).min(height - 1));
        // Two passes: the first has no branch and no sum, so that it becomes vector instructions.
        for x in 0..width {
            let left = own[x.saturating_sub(1)];
            let right = own[(x + 1).min(width - 1)];
            let (gx, gy) = ((right - left) / 2.0, (below[x] - above[x]) / 2.0);
            strengths[x] = (gx * gx + gy * gy).sqrt();
            places[x] = angle(gx, gy) * (as_f32(N_BINS) / PI);
        }
        let first = y / cell_height * n_columns * N_BINS;
        let cells = sums[first..first + n_columns * N_BINS].chunks_exact_mut(N_BINS);
        let pixels = strengths
            .chunks_exact(cell_width)
            .zip(places.chunks_exact(cell_width));
        for (cell, (strengths, places)) in cells.zip(pixels) {
            for (&strength, &place) in strengths.iter().zip(places) {
                let bin = whole(place);
                let share = place - as_f32(bin);
                // An angle of pi, or rounded to it, is one of 0.
                cell[bin % N_BINS] += strength * (1.0 - share);
                cell[(bin + 1) % N_BINS] += strength * share;
            }
        }
    }
    sums
}

/// Returns `atan2(gy, gx)` modulo pi within 3e-7, 0 for no gradient.
///
/// # Source
/// Moshier's Cephes library, `atanf`: the same numbers on every machine, in vector instructions.
fn angle(gx: f32, gy: f32) -> f32 {
    let (wide, tall) = (gx.abs(), gy.abs());
    let ratio = wide.min(tall) / wide.max(tall).max(f32::MIN_POSITIVE);
    // atan(r) = pi / 4 + atan((r - 1) / (r + 1)) above tan(pi / 8).
    let is_steep = ratio > 0.414_213_57;
    let (base, r) = if is_steep {
        (FRAC_PI_4, (ratio - 1.0) / (ratio + 1.0))
    } else {
        (0.0, ratio)
    };
    let z = r * r;
    let series = ((0.080_537_446 * z - 0.138_776_86) * z + 0.199_777_11) * z - 0.333_329_5;
    let eighth = base + (series * z * r + r);
    let quarter = if tall > wide {
        FRAC_PI_2 - eighth
    } else {
        eighth
    };
    if gx * gy < 0.0 { PI - quarter } else { quarter }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0..=9, or not a number, which becomes 0"
)]
fn whole(place: f32) -> usize {
    place as usize
}

/// Divides the 9 numbers of each cell by `sqrt(h.h + eps)`.
fn normalise(cells: &mut [f32], eps: f32) {
    for cell in cells.chunks_exact_mut(N_BINS) {
        let squares: f32 = cell.iter().map(|h| h * h).sum();
        let length = (squares + eps).sqrt();
        cell.iter_mut().for_each(|h| *h /= length);
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of planes and bins")]
fn as_f32(n: usize) -> f32 {
    n as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image `[1, D, 64, 64]` of which each pixel is made by its place.
    fn image(depth: usize, pixel: impl Fn(f32, f32, f32) -> f32) -> Input {
        let places = (0..depth * SIDE * SIDE).map(|i| {
            let (z, y, x) = (i / (SIDE * SIDE), i / SIDE % SIDE, i % SIDE);
            pixel(as_f32(z), as_f32(y), as_f32(x))
        });
        Input::new(places.collect(), [1, depth, SIDE, SIDE]).unwrap()
    }

    fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, f32::max)
    }

    #[test]
    fn a_ramp_falls_into_the_bins_of_its_direction() {
        // tan(30 degrees) between bins 1 (20 degrees) and 2 (40 degrees): half each.
        for (slope, wanted) in [
            ([1.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            ([-1.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            ([0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0]),
            (
                [3.0_f32.sqrt() / 2.0, 0.5],
                [0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            ),
            (
                [(-10_f32).to_radians().cos(), (-10_f32).to_radians().sin()],
                [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5],
            ),
        ] {
            let ramp = image(1, |_, y, x| (slope[0] * x + slope[1] * y) / 90.0);
            let plane = grey_plane(&ramp, 0);
            let sums = histograms(&plane, [SIDE; 2], [CELL; 2]);
            // A cell inside: 64 pixels of strength 1 / 90.
            let cell = &sums[9 * N_BINS..10 * N_BINS];
            let wanted = wanted.map(|share| share * 64.0 / 90.0);
            assert!(largest_difference(cell, &wanted) < 1e-4, "{cell:?}");
            // A cell at the corner lies half at the border, where differences are halved.
            let corner: f32 = sums[..N_BINS].iter().sum();
            assert!(corner < 64.0 / 90.0 - 0.01, "{corner}");
        }
    }

    #[test]
    fn angles_are_those_of_atan2_modulo_pi() {
        for i in 0..3600_u16 {
            let wanted = f64::from(i).to_radians() / 10.0;
            for length in [1.0, 3e-7] {
                #[allow(clippy::cast_possible_truncation, reason = "the one rounding to f32")]
                let [gx, gy] = [wanted.cos() * length, wanted.sin() * length].map(|x| x as f32);
                let found = f64::from(angle(gx, gy));
                let away = (found - wanted).rem_euclid(std::f64::consts::PI);
                let away = away.min(std::f64::consts::PI - away);
                assert!(away < 3e-7, "{i}: {found}, wanted {wanted}");
            }
        }
        assert_eq!(angle(0.0, 0.0).to_bits(), 0);
    }

    #[test]
    fn a_negative_has_the_same_histograms() {
        let wave = |_, y: f32, x: f32| 0.5 + 0.4 * (0.3 * x + 0.1 * y * y).sin();
        let positive = image(1, wave);
        let negative = image(1, |z, y, x| 1.0 - wave(z, y, x));
        let [a, b] = [&positive, &negative].map(|image| descriptor(image).unwrap());
        assert!(largest_difference(&a, &b) < 1e-5);
        let [a, b] = [&positive, &negative].map(|image| patch_targets(image, [1, 8, 8]).unwrap());
        assert!(largest_difference(&a, &b) < 1e-3);
    }

    #[test]
    fn planes_are_those_in_the_middle_of_four_parts() {
        for (depth, picks) in [
            (1, [0, 0, 0, 0]),
            (2, [0, 0, 1, 1]),
            (3, [0, 1, 1, 2]),
            (16, [2, 6, 10, 14]),
        ] {
            let deep = image(depth, |z, y, x| (0.2 * (x + z * y) + z).sin());
            let mut wanted = vec![0.0; WIDTH];
            for pick in picks {
                let cells = plane_cells(&grey_plane(&deep, pick));
                let cells = cells.iter().map(|value| value / 4.0);
                wanted.iter_mut().zip(cells).for_each(|(sum, x)| *sum += x);
            }
            assert_eq!(descriptor(&deep).unwrap(), wanted, "{depth}");
        }
    }

    #[test]
    fn a_constant_plane_with_rounding_has_zeros() {
        let constant = image(1, |_, y, x| 0.3 + 1e-7 * ((y * x) % 3.0));
        assert_eq!(descriptor(&constant).unwrap(), vec![0.0; WIDTH]);
        let targets = patch_targets(&constant, [1, 8, 8]).unwrap();
        assert!(targets.iter().all(|value| value.abs() < 1e-3));
    }

    #[test]
    fn shapes_without_cells_are_refused() {
        for shape in [[3, 1, 32, 32], [2, 1, 64, 64], [3, 0, 64, 64]] {
            let n_values = shape.iter().product();
            let input = Input::new(vec![0.0; n_values], shape).unwrap();
            assert!(descriptor(&input).is_err(), "{shape:?}");
        }
        let input =
            |channels: usize| Input::new(vec![0.0; channels * 36], [channels, 1, 6, 6]).unwrap();
        assert_eq!(patch_targets(&input(3), [4, 6, 2]).unwrap().len(), 3 * 36);
        for (channels, patch) in [
            (1, [1, 3, 2]),
            (1, [1, 2, 3]),
            (2, [1, 2, 2]),
            (1, [1, 4, 2]),
        ] {
            let found = patch_targets(&input(channels), patch);
            assert!(found.is_err(), "{channels} {patch:?}");
        }
    }
}
