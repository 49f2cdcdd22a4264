//! Random changes of a view that leave its geometry alone, but for the mirror.

use rand::Rng;

use super::{ViewConfig, chance, log_within, within};
use crate::resample::{as_f64, as_index};
use crate::samples::narrow;

/// Largest turn of the hue, in turns, and largest change of the saturation's factor: those of
/// DINO's colour jitter (Caron et al. 2021).
const HUE_TURNS: f64 = 0.1;
const SATURATION: f64 = 0.2;

/// Knots of a random curve of intensities.
const N_KNOTS: usize = 5;

/// Steps of the table of powers; it is read at the root of a value, where powers are smooth.
const N_POWERS: usize = 512;

/// Changes `[C, n_planes, side, side]` values in place.
pub(super) fn apply(values: &mut [f32], n_planes: usize, config: &ViewConfig, rng: &mut impl Rng) {
    let side = config.side;
    if chance(rng, config.flip) {
        values.chunks_exact_mut(side).for_each(<[f32]>::reverse);
    }
    let n_channel = n_planes * side * side;
    if values.len() > n_channel && chance(rng, config.colour) {
        let turn = within(rng, [-HUE_TURNS, HUE_TURNS]);
        let saturation = within(rng, [1.0 - SATURATION, 1.0 + SATURATION]);
        turn_colours(values, n_channel, turn, saturation);
    }
    if values.len() > n_channel && chance(rng, config.grey) {
        // Without saturation all channels are the luma.
        turn_colours(values, n_channel, 0.0, 0.0);
    }
    if chance(rng, config.remap) {
        let knots = random_curve(rng);
        let last = narrow(as_f64(N_KNOTS - 1));
        follow(values, &knots, |value| value * last);
    }
    if chance(rng, config.jitter) {
        let strength = config.jitter_strength;
        let brightness = within(rng, [-strength, strength]);
        let contrast = within(rng, [1.0 - strength, 1.0 + strength]);
        let gamma = log_within(rng, config.gamma);
        if strength > 0.0 {
            stretch(values, brightness, contrast);
        }
        if gamma.to_bits() != 1.0_f64.to_bits() {
            raise(values, gamma);
        }
    }
    if chance(rng, config.blur) {
        blur(values, side, within(rng, config.blur_sigma));
    }
    if chance(rng, config.noise) {
        add_noise(values, within(rng, config.noise_sigma), rng);
    }
}

/// Turns the hue and changes the saturation of `[3, n_channel]` values; luma (Rec. 601) stays, as
/// far as the range allows.
fn turn_colours(values: &mut [f32], n_channel: usize, turn: f64, saturation: f64) {
    // In YIQ, hue is an angle and saturation a radius. Rows of both matrices: FCC 1953.
    const TO_YIQ: [[f64; 3]; 3] = [
        [0.299, 0.587, 0.114],
        [0.5959, -0.2746, -0.3213],
        [0.2115, -0.5227, 0.3112],
    ];
    let (sin, cos) = (std::f64::consts::TAU * turn).sin_cos();
    let turned = |rgb: [f64; 3]| {
        let [y, i, q] = TO_YIQ.map(|row| row.iter().zip(rgb).map(|(a, b)| a * b).sum::<f64>());
        let (i, q) = (
            saturation * (cos * i - sin * q),
            saturation * (sin * i + cos * q),
        );
        [
            y + 0.956 * i + 0.619 * q,
            y - 0.272 * i - 0.647 * q,
            y - 1.106 * i + 1.703 * q,
        ]
    };
    // What becomes of pure red, green and blue: the columns of one matrix.
    let columns =
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]].map(|pure| turned(pure).map(narrow));
    let [of_red, of_green, of_blue] = columns;
    let (red, rest) = values.split_at_mut(n_channel);
    let (green, blue) = rest.split_at_mut(n_channel);
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let made = [0, 1, 2].map(|channel: usize| {
            let part = |column: [f32; 3]| column.get(channel).copied().unwrap_or(0.0);
            (part(of_red) * *r + part(of_green) * *g + part(of_blue) * *b).clamp(0.0, 1.0)
        });
        [*r, *g, *b] = made;
    }
}

/// Draws what becomes of 0, 1/4, 1/2, 3/4 and 1; the largest of it becomes 1. In half of the draws 0
/// stays 0: what lies outside a body is mostly dark, but not in every window.
fn random_curve(rng: &mut impl Rng) -> [f32; N_KNOTS] {
    let mut knots = [0.0; N_KNOTS];
    let n_fixed = usize::from(chance(rng, 0.5));
    for knot in knots.iter_mut().skip(n_fixed) {
        *knot = narrow(within(rng, [0.02, 1.0]));
    }
    let largest = knots.iter().copied().fold(0.0, f32::max);
    knots.map(|knot| knot / largest)
}

/// Sends values through a curve that is linear between knots; `place_of` says where among them, counted
/// from 0, a value of 0..=1 lies.
fn follow(values: &mut [f32], knots: &[f32], place_of: impl Fn(f32) -> f32) {
    // The last piece begins and ends at the last knot.
    let ends = knots.iter().skip(1).chain(knots.last());
    let pieces: Vec<[f32; 2]> = knots.iter().zip(ends).map(|(a, b)| [*a, b - a]).collect();
    for value in values {
        let place = place_of(value.clamp(0.0, 1.0));
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the number of knots"
        )]
        let piece = place as u16;
        if let Some([start, rise]) = pieces.get(usize::from(piece)) {
            *value = start + rise * (place - f32::from(piece));
        }
    }
}

/// Changes contrast about the mean of the view, and brightness.
fn stretch(values: &mut [f32], brightness: f64, contrast: f64) {
    let sum: f64 = values
        .chunks(1024)
        .map(|some| f64::from(some.iter().sum::<f32>()))
        .sum();
    let mean = sum / as_f64(values.len()).max(1.0);
    let (factor, offset) = (
        narrow(contrast),
        narrow(mean * (1.0 - contrast) + brightness),
    );
    for value in values {
        *value = (*value * factor + offset).clamp(0.0, 1.0);
    }
}

/// Raises values to a power, within 1e-4 for powers of 0.5 and more.
fn raise(values: &mut [f32], gamma: f64) {
    let last = as_f64(N_POWERS);
    let power = |root: usize| narrow((as_f64(root) / last).powf(2.0 * gamma));
    let powers: Vec<f32> = (0..=N_POWERS).map(power).collect();
    let last = narrow(last);
    follow(values, &powers, |value| value.sqrt() * last);
}

/// Blurs every `[side, side]` plane with a Gaussian, cut at 3 deviations; the border repeats.
fn blur(values: &mut [f32], side: usize, sigma: f64) {
    let radius = as_index((3.0 * sigma).round());
    if radius == 0 {
        return;
    }
    let weight = |step: usize| (-0.5 * (as_f64(step) / sigma).powi(2)).exp();
    let sum: f64 = weight(0) + 2.0 * (1..=radius).map(weight).sum::<f64>();
    // Of the centre and of both neighbours at each distance.
    let weights: Vec<f32> = (0..=radius)
        .map(|step| narrow(weight(step) / sum))
        .collect();
    let mut between = vec![0.0; side * side];
    let mut padded = vec![0.0; side + 2 * radius];
    for plane in values.chunks_exact_mut(side * side) {
        blur_down(plane, &mut between, side, &weights);
        for (row, out) in between.chunks_exact(side).zip(plane.chunks_exact_mut(side)) {
            let (first, last) = (row.first().copied(), row.last().copied());
            let (head, rest) = padded.split_at_mut(radius);
            let (body, tail) = rest.split_at_mut(side);
            head.fill(first.unwrap_or_default());
            body.copy_from_slice(row);
            tail.fill(last.unwrap_or_default());
            blur_row(&padded, out, &weights);
        }
    }
}

/// Blurs along H.
fn blur_down(plane: &[f32], out: &mut [f32], side: usize, weights: &[f32]) {
    let row = |y: usize| {
        let y = y.min(side - 1);
        plane.get(y * side..(y + 1) * side).unwrap_or_default()
    };
    for (y, out) in out.chunks_exact_mut(side).enumerate() {
        out.fill(0.0);
        for (step, &weight) in weights.iter().enumerate() {
            if step == 0 {
                mix(out, row(y), &[], weight);
            } else {
                mix(out, row(y.saturating_sub(step)), row(y + step), weight);
            }
        }
    }
}

/// Blurs one row that is padded by the radius on both sides.
fn blur_row(padded: &[f32], out: &mut [f32], weights: &[f32]) {
    let radius = weights.len() - 1;
    let at = |start: usize, n: usize| padded.get(start..start + n).unwrap_or_default();
    let n = out.len();
    out.fill(0.0);
    for (step, &weight) in weights.iter().enumerate() {
        let right = if step == 0 { &[] } else { at(radius + step, n) };
        mix(out, at(radius - step, n), right, weight);
    }
}

/// Adds `weight * (left + right)`, or `weight * left` where there is no right.
fn mix(out: &mut [f32], left: &[f32], right: &[f32], weight: f32) {
    if right.is_empty() {
        for (sum, x) in out.iter_mut().zip(left) {
            *sum += weight * x;
        }
        return;
    }
    for ((sum, x), y) in out.iter_mut().zip(left).zip(right) {
        *sum += weight * (x + y);
    }
}

/// Adds noise of mean 0: sums of four random bytes, which are normal up to 3.4 deviations.
fn add_noise(values: &mut [f32], sigma: f64, rng: &mut impl Rng) {
    // Variance of a byte is (256^2 - 1) / 12, the mean of four is 510.
    let scale = narrow(sigma / (65_535.0_f64 / 3.0).sqrt());
    let mut bytes = [0_u8; 2048];
    for chunk in values.chunks_mut(512) {
        rng.fill_bytes(&mut bytes);
        let (drawn, _) = bytes.as_chunks::<4>();
        for (value, four) in chunk.iter_mut().zip(drawn) {
            let sum: u16 = four.iter().map(|&byte| u16::from(byte)).sum();
            *value = (*value + scale * (f32::from(sum) - 510.0)).clamp(0.0, 1.0);
        }
    }
}
