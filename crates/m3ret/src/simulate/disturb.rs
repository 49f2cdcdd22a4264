//! Disturbs radiographs: a picture as another visit or another device might show it.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Largest rotation to either side, in degrees.
const MAX_ROTATION_DEG: f64 = 12.0;
/// Largest change of size, as a share.
const MAX_SCALE: f64 = 0.2;
/// Largest shift to either side, as a share of the picture's side.
const MAX_SHIFT: f64 = 0.075;
/// Largest crop of each edge, as a share of the picture's side.
const MAX_CROP: f64 = 0.08;
/// Exponents of the grey values, uniform in their logarithm.
const GAMMA: [f64; 2] = [0.45, 2.2];
/// Factors of the distance from middle grey.
const CONTRAST: [f64; 2] = [0.6, 1.4];
/// Largest standard deviation of the noise, as a share of white.
const MAX_NOISE: f64 = 0.05;

/// A grey picture; 0 is black and 1 white.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grey {
    /// `height * width` numbers, row by row.
    pub(super) shares: Vec<f32>,
    pub(super) height: usize,
    pub(super) width: usize,
}

/// How one picture is disturbed, in the order of the fields; docs/simulate.md lists the ranges.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Disturbance {
    /// Rotation about the middle, clockwise, in degrees.
    pub rotation_deg: f64,
    /// Scale; above 1, what is shown becomes larger.
    pub scale: f64,
    /// Shift to the right and down, as shares of width and height.
    pub shift: [f64; 2],
    /// Crop of the top, right, bottom and left edge, as shares of the sides.
    pub crop: [f64; 4],
    /// Exponent of the grey values, which are 0..=1.
    pub gamma: f64,
    /// Factor of the distance from middle grey.
    pub contrast: f64,
    /// Standard deviation of the noise, as a share of white.
    pub noise: f64,
    #[serde(skip)]
    noise_seed: u64,
}

impl Disturbance {
    /// Draws a disturbance, which follows from the seed and the name of the picture alone.
    ///
    /// # Source
    /// Ranges: docs/simulate.md, "Disturbed radiographs".
    pub(super) fn draw(seed: u64, name: &str) -> Self {
        let own = xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), seed);
        let mut random = ChaCha8Rng::seed_from_u64(own);
        let mut between = |low: f64, high: f64| low + (high - low) * random.random::<f64>();
        Self {
            rotation_deg: between(-MAX_ROTATION_DEG, MAX_ROTATION_DEG),
            scale: between(1.0 - MAX_SCALE, 1.0 + MAX_SCALE),
            shift: [(); 2].map(|()| between(-MAX_SHIFT, MAX_SHIFT)),
            crop: [(); 4].map(|()| between(0.0, MAX_CROP)),
            gamma: between(GAMMA[0].ln(), GAMMA[1].ln()).exp(),
            contrast: between(CONTRAST[0], CONTRAST[1]),
            noise: between(0.0, MAX_NOISE),
            noise_seed: own,
        }
    }

    /// Returns the rows and columns that are left of a picture.
    pub(super) fn sides(&self, height: usize, width: usize) -> [usize; 2] {
        let [top, right, bottom, left] = self.crop;
        [
            kept(height, top, bottom).len(),
            kept(width, left, right).len(),
        ]
    }

    /// Turns, scales, shifts and crops a picture, then changes its grey values and adds noise.
    pub(super) fn apply(&self, picture: &Grey) -> Grey {
        let mut out = self.moved(picture);
        // The draws of the disturbance itself come from another stream.
        let mut random = ChaCha8Rng::seed_from_u64(self.noise_seed);
        random.set_stream(1);
        for share in &mut out.shares {
            let toned = f64::from(*share).clamp(0.0, 1.0).powf(self.gamma);
            let stretched = ((toned - 0.5) * self.contrast + 0.5).clamp(0.0, 1.0);
            // Box and Muller 1958; 1 - u is above 0.
            let (u, v): (f64, f64) = (random.random(), random.random());
            let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            *share = narrowed((stretched + self.noise * normal).clamp(0.0, 1.0));
        }
        out
    }

    /// Samples the picture linearly at the origin of each pixel that the crop leaves; beyond the edges, it is black.
    fn moved(&self, picture: &Grey) -> Grey {
        let [top, right, bottom, left] = self.crop;
        let rows = kept(picture.height, top, bottom);
        let columns = kept(picture.width, left, right);
        let (height, width) = (length(picture.height), length(picture.width));
        let middle = [(width - 1.0) / 2.0, (height - 1.0) / 2.0];
        let (sin, cos) = self.rotation_deg.to_radians().sin_cos();
        let mut shares = Vec::with_capacity(rows.len() * columns.len());
        for row in rows.clone() {
            for column in columns.clone() {
                let x = length(column) - middle[0] - self.shift[0] * width;
                let y = length(row) - middle[1] - self.shift[1] * height;
                let from_x = (cos * x + sin * y) / self.scale + middle[0];
                let from_y = (cos * y - sin * x) / self.scale + middle[1];
                shares.push(narrowed(sample(picture, from_x, from_y)));
            }
        }
        Grey {
            shares,
            height: rows.len(),
            width: columns.len(),
        }
    }
}

/// The rows or columns that a crop leaves; at least one.
fn kept(side: usize, before: f64, after: f64) -> std::ops::Range<usize> {
    let cut = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a side, above 0"
        )]
        let cut = (share * length(side)).round() as usize;
        cut
    };
    let start = cut(before).min(side.saturating_sub(1));
    let end = side.saturating_sub(cut(after)).max(start + 1).min(side);
    start..end
}

/// The value at a place between pixels; black outside.
fn sample(picture: &Grey, x: f64, y: f64) -> f64 {
    let at = |column: f64, row: f64| {
        let is_inside = (0.0..length(picture.width)).contains(&column)
            && (0.0..length(picture.height)).contains(&row);
        if !is_inside {
            return 0.0;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole numbers inside the picture"
        )]
        let place = row as usize * picture.width + column as usize;
        f64::from(picture.shares[place])
    };
    let (column, row) = (x.floor(), y.floor());
    let (right, below) = (x - column, y - row);
    let upper = at(column, row) * (1.0 - right) + at(column + 1.0, row) * right;
    let lower = at(column, row + 1.0) * (1.0 - right) + at(column + 1.0, row + 1.0) * right;
    upper * (1.0 - below) + lower * below
}

/// Sides and places of pictures are far below 2^53.
fn length(side: usize) -> f64 {
    side as f64
}

fn narrowed(share: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "a share of white")]
    let share = share as f32;
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    const STILL: Disturbance = Disturbance {
        rotation_deg: 0.0,
        scale: 1.0,
        shift: [0.0; 2],
        crop: [0.0; 4],
        gamma: 1.0,
        contrast: 1.0,
        noise: 0.0,
        noise_seed: 0,
    };

    /// A picture with one white pixel.
    fn dot(height: usize, width: usize, row: usize, column: usize) -> Grey {
        let mut shares = vec![0.0; height * width];
        shares[row * width + column] = 1.0;
        Grey {
            shares,
            height,
            width,
        }
    }

    fn place_of_dot(picture: &Grey) -> (usize, usize) {
        let all = picture.shares.iter().enumerate();
        let (place, _) = all.max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        (place / picture.width, place % picture.width)
    }

    #[test]
    fn each_part_does_what_its_name_says() {
        let picture = dot(21, 41, 10, 30);
        let moved = |disturbance: Disturbance| place_of_dot(&disturbance.apply(&picture));
        assert_eq!(STILL.apply(&picture), picture);
        // Ten pixels right of the middle: a quarter turn clockwise brings it below.
        assert_eq!(
            moved(Disturbance {
                rotation_deg: 90.0,
                ..STILL
            }),
            (20, 20)
        );
        assert_eq!(
            moved(Disturbance {
                scale: 1.5,
                ..STILL
            }),
            (10, 35)
        );
        let shift = [-4.0 / 41.0, 2.0 / 21.0];
        assert_eq!(moved(Disturbance { shift, ..STILL }), (12, 26));
        let crop = [2.0 / 21.0, 1.0 / 41.0, 3.0 / 21.0, 5.0 / 41.0];
        let cropped = Disturbance { crop, ..STILL }.apply(&picture);
        assert_eq!((cropped.height, cropped.width), (16, 35));
        assert_eq!(place_of_dot(&cropped), (8, 25));
        let grey = Grey {
            shares: vec![0.25; 4000],
            height: 40,
            width: 100,
        };
        let is_first = |disturbance: Disturbance, wanted: f32| {
            (disturbance.apply(&grey).shares[0] - wanted).abs() < 1e-6
        };
        let brighter = Disturbance {
            gamma: 0.5,
            ..STILL
        };
        let flatter = Disturbance {
            contrast: 0.6,
            ..STILL
        };
        assert!(is_first(brighter, 0.5) && is_first(flatter, 0.35));
        let noisy = Disturbance {
            noise: 0.05,
            ..STILL
        }
        .apply(&grey)
        .shares;
        let spread = noisy
            .iter()
            .map(|x| (f64::from(*x) - 0.25).powi(2))
            .sum::<f64>()
            / 4000.0;
        assert!((spread.sqrt() - 0.05).abs() < 0.003, "{spread}");
    }

    #[test]
    fn draws_follow_from_seed_and_name_and_fill_their_ranges() {
        let one = Disturbance::draw(7, "a.png");
        assert_eq!(one, Disturbance::draw(7, "a.png"));
        assert_ne!(one, Disturbance::draw(8, "a.png"));
        assert_ne!(one, Disturbance::draw(7, "b.png"));
        let all: Vec<Disturbance> = (0..500)
            .map(|i| Disturbance::draw(1, &i.to_string()))
            .collect();
        let ends = |of: fn(&Disturbance) -> f64| {
            let values = all.iter().map(of);
            values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], x| {
                [low.min(x), high.max(x)]
            })
        };
        for (found, [low, high]) in [
            (ends(|d| d.rotation_deg), [-12.0, 12.0]),
            (ends(|d| d.scale), [0.8, 1.2]),
            (ends(|d| d.shift[0]), [-0.075, 0.075]),
            (ends(|d| d.crop[2]), [0.0, 0.08]),
            (ends(|d| d.gamma), [0.45, 2.2]),
            (ends(|d| d.contrast), [0.6, 1.4]),
            (ends(|d| d.noise), [0.0, 0.05]),
        ] {
            let slack = 0.02 * (high - low);
            assert!(found[0] >= low && found[0] < low + slack, "{found:?}");
            assert!(found[1] <= high && found[1] > high - slack, "{found:?}");
        }
    }

    #[test]
    fn any_picture_stays_one() {
        for (seed, height, width) in
            (0..30).flat_map(|seed| [(1, 1), (1, 9), (2, 3), (39, 17)].map(|(h, w)| (seed, h, w)))
        {
            let picture = Grey {
                shares: vec![0.7; height * width],
                height,
                width,
            };
            let disturbance = Disturbance::draw(seed, "x");
            let out = disturbance.apply(&picture);
            assert_eq!([out.height, out.width], disturbance.sides(height, width));
            assert!((1..=height).contains(&out.height) && (1..=width).contains(&out.width));
            assert_eq!(out.shares.len(), out.height * out.width);
            assert!(out.shares.iter().all(|share| (0.0..=1.0).contains(share)));
        }
    }
}
