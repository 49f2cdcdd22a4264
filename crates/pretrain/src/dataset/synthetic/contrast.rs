//! A map of labels -> intensities.

use rand::Rng as _;

use super::shapes::{LabelMap, OUTSIDE};
use super::{Dice, Waves};

/// How one label looks.
#[derive(Debug, Clone, Copy)]
struct Tissue {
    mean: f32,
    /// Strength of the fine and of the coarse texture.
    textures: [f32; 2],
}

/// Gives labels random means and textures, then blurs, shades and adds noise; values are 0..=1, W fastest.
pub(super) fn render(labels: &LabelMap, dice: &mut Dice) -> Vec<f32> {
    let tissues = tissues(labels, dice);
    let cell = dice.within(2.5, 8.0);
    let coarse = Coarse::draw(labels.shape, cell, dice);
    let speckle = if dice.chance(0.15) {
        dice.within(0.1, 0.5)
    } else {
        0.0
    };
    let [depth, height, width] = labels.shape;
    let mut values = Vec::with_capacity(labels.labels.len());
    let mut texture = vec![0.0; width];
    for (idx, row) in labels.labels.chunks_exact(width).enumerate() {
        coarse.row([idx / height, idx % height], &mut texture);
        for (&label, &rough) in row.iter().zip(&texture) {
            let tissue = tissues[usize::from(label)];
            let fine = noise(dice);
            let value = tissue.mean + tissue.textures[0] * fine + tissue.textures[1] * rough;
            values.push(value * (1.0 + speckle * fine));
        }
    }
    for _ in 0..dice.count(0, 3) {
        smooth_rows(&mut values, width);
        smooth_columns(&mut values, [height, width]);
    }
    if depth > 1 && dice.chance(0.5) {
        smooth_columns(&mut values, [depth, height * width]);
    }
    finish(&mut values, labels.shape, dice);
    values
}

/// The least mean of what is shown; darker contrasts are turned into their negative.
const LEAST_MEAN: f32 = 0.15;

/// Draws a tissue for each label; the means of those that occur reach from almost 0 to almost 1.
fn tissues(labels: &LabelMap, dice: &mut Dice) -> Vec<Tissue> {
    let is_dark_outside = dice.chance(0.75);
    let mut tissues: Vec<Tissue> = (0..=labels.n_labels)
        .map(|_| {
            let mean = dice.within(0.0, 1.0);
            let textures = [0.07, 0.12].map(|most| {
                let strength = dice.within(0.0, most);
                if dice.chance(0.6) { strength } else { 0.0 }
            });
            Tissue { mean, textures }
        })
        .collect();
    let mut sizes = vec![0.0_f32; tissues.len()];
    for &label in &labels.labels {
        sizes[usize::from(label)] += 1.0;
    }
    if is_dark_outside {
        sizes[usize::from(OUTSIDE)] = 0.0;
    }
    let shown = tissues.iter().zip(&sizes).filter(|(_, size)| **size > 0.0);
    let means: Vec<f32> = shown.map(|(tissue, _)| tissue.mean).collect();
    let low = means.iter().copied().fold(1.0, f32::min);
    let high = means.iter().copied().fold(0.0, f32::max);
    let range = (high - low).max(0.05);
    for tissue in &mut tissues {
        tissue.mean = 0.03 + 0.94 * (tissue.mean - low) / range;
    }
    let n_shown = sizes.iter().sum::<f32>().max(1.0);
    let sum = tissues
        .iter()
        .zip(&sizes)
        .map(|(tissue, size)| tissue.mean * size);
    if sum.sum::<f32>() < LEAST_MEAN * n_shown {
        tissues
            .iter_mut()
            .for_each(|tissue| tissue.mean = 1.0 - tissue.mean);
    }
    if is_dark_outside {
        tissues[usize::from(OUTSIDE)] = Tissue {
            mean: 0.0,
            textures: [0.0; 2],
        };
    }
    tissues
}

/// Shading, noise and the clamping to 0..=1.
fn finish(values: &mut [f32], shape: [usize; 3], dice: &mut Dice) {
    let [_, height, width] = shape;
    let strength = if dice.chance(0.5) {
        dice.within(0.0, 0.4)
    } else {
        0.0
    };
    let shading = Waves::draw(shape, strength, 2.0, dice);
    let grain = if dice.chance(0.5) {
        dice.within(0.0, 0.05)
    } else {
        0.0
    };
    let mut factors = vec![0.0; width];
    for (idx, row) in values.chunks_exact_mut(width).enumerate() {
        factors.fill(1.0);
        shading.add_row([idx / height, idx % height], &mut factors);
        for (value, factor) in row.iter_mut().zip(&factors) {
            let made = *value * factor + grain * noise(dice);
            *value = made.clamp(0.0, 1.0);
        }
    }
}

/// Draws noise with mean 0 and deviation 1: the sum of four bytes, almost normal.
fn noise(dice: &mut Dice) -> f32 {
    let bytes = dice.0.next_u32().to_le_bytes();
    let sum: u16 = bytes.iter().map(|&byte| u16::from(byte)).sum();
    // Four uniform bytes have mean 510 and deviation 2 * sqrt((256^2 - 1) / 12) = 147.8.
    (f32::from(sum) - 510.0) / 147.8
}

/// Noise on a coarse grid, linear between its points.
struct Coarse {
    shape: [usize; 3],
    values: Vec<f32>,
    /// For each place on an axis of the fine grid: the point before it, and the share of the next.
    places: [Vec<(usize, f32)>; 3],
}

impl Coarse {
    /// Draws points `cell` voxels apart.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "sides are small and not negative"
    )]
    fn draw(fine: [usize; 3], cell: f32, dice: &mut Dice) -> Self {
        let places = fine.map(|n| {
            let places = (0..n).map(|i| {
                let place = i as f32 / cell;
                (place as usize, place.fract())
            });
            places.collect::<Vec<_>>()
        });
        let shape = fine.map(|n| ((n - 1) as f32 / cell) as usize + 2);
        let values = (0..shape.iter().product()).map(|_| noise(dice)).collect();
        Self {
            shape,
            values,
            places,
        }
    }

    /// Writes the row at a depth and height.
    fn row(&self, [z, y]: [usize; 2], row: &mut [f32]) {
        let [_, height, width] = self.shape;
        let ((z, share_z), (y, share_y)) = (self.places[0][z], self.places[1][y]);
        let at = |z: usize, y: usize| &self.values[(z * height + y) * width..][..width];
        let mix = |a: f32, b: f32, share: f32| a + share * (b - a);
        let corners = [at(z, y), at(z, y + 1), at(z + 1, y), at(z + 1, y + 1)];
        let line: Vec<f32> = (0..width)
            .map(|x| {
                let [a, b, c, d] = corners.map(|corner| corner[x]);
                mix(mix(a, b, share_y), mix(c, d, share_y), share_z)
            })
            .collect();
        for (value, &(x, share)) in row.iter_mut().zip(&self.places[2]) {
            *value = mix(line[x], line[x + 1], share);
        }
    }
}

/// Smooths each row by 1/4, 1/2, 1/4; ends repeat.
fn smooth_rows(values: &mut [f32], width: usize) {
    for row in values.chunks_exact_mut(width) {
        let mut before = row[0];
        for x in 0..width {
            let here = row[x];
            let after = *row.get(x + 1).unwrap_or(&here);
            row[x] = 0.25 * before + 0.5 * here + 0.25 * after;
            before = here;
        }
    }
}

/// Smooths along the first axis of each `[n, width]` by 1/4, 1/2, 1/4; ends repeat.
fn smooth_columns(values: &mut [f32], [n, width]: [usize; 2]) {
    let (mut before, mut here) = (vec![0.0; width], vec![0.0; width]);
    for plane in values.chunks_exact_mut(n * width) {
        before.copy_from_slice(&plane[..width]);
        for y in 0..n {
            here.copy_from_slice(&plane[y * width..][..width]);
            let next = if y + 1 < n { y + 1 } else { y };
            for x in 0..width {
                let after = plane[next * width + x];
                plane[y * width + x] = 0.25 * before[x] + 0.5 * here[x] + 0.25 * after;
            }
            std::mem::swap(&mut before, &mut here);
        }
    }
}
