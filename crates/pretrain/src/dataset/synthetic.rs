//! Synthetic objects: random shapes in random contrast, an endless source without a licence.
//!
//! A *phantom* is a map of labels: a body with layers, organs, bones and vessels, or loose shapes, bent by
//! a smooth random deformation (`shapes.rs`). A *contrast* gives each label a random mean and texture, and
//! the whole a random blur, shading and noise (`contrast.rs`). Two contrasts of one phantom have the same
//! shapes and unrelated intensities, as two modalities of one patient have.
//!
//! Everything random follows from the run's seed, the step and the place in the batch; no state is kept.
//!
//! # Source
//! Dey et al. 2024 (anatomix, arXiv 2411.02372): shapes drawn from templates, random means for each label,
//! two contrasts of one label map as positives. Differs: shapes are implicit solids drawn here and no
//! masks of real organs, the deformation is a sum of products of cosines, and pictures (one plane of a
//! scene) are drawn beside volumes.

mod contrast;
mod shapes;

use m3ret_imaging::{Kind, Result, Scaled};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use self::shapes::LabelMap;
use crate::random::{generator, uniform};

/// Chance that an object is a volume; otherwise it is a picture.
const VOLUMES: f32 = 0.5;

/// Distance of planes in pixels, drawn uniformly.
const DEPTH_STEP: [f32; 2] = [1.0, 3.0];

/// The most bytes a voxel takes while an object is made: coordinates, labels, values and two copies.
const BYTES_PER_VOXEL: u64 = 32;

/// How large phantoms are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PhantomSize {
    /// Height and width of a picture.
    pub(super) picture: usize,
    /// Height and width of a volume.
    pub(super) side: usize,
    /// Depth of a volume; with 1 there are pictures only.
    pub(super) depth: usize,
}

impl PhantomSize {
    /// Returns the sizes that serve views of a side and depth: a picture has half as much again to cut from.
    pub(super) fn of_views(side: usize, depth: usize) -> Self {
        Self {
            picture: side + side / 2,
            side,
            depth,
        }
    }

    /// Returns the most bytes that making one object takes.
    pub(super) fn most_bytes(self) -> u64 {
        let picture = self.picture * self.picture;
        let volume = self.side * self.side * self.depth;
        picture.max(volume) as u64 * BYTES_PER_VOXEL
    }
}

/// The shapes of one synthetic object, which any number of contrasts can show.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Phantom {
    labels: LabelMap,
    depth_step: f32,
    /// Seed, step and place.
    key: [u64; 3],
}

impl Phantom {
    /// Draws the shapes for a place of a batch; `key` is the run's seed, the step and the place.
    pub(super) fn draw(size: PhantomSize, key: [u64; 3]) -> Self {
        let mut dice = Dice(generator("synthetic shapes", &key));
        let is_volume = size.depth > 1 && dice.chance(VOLUMES);
        let shape = if is_volume {
            [size.depth, size.side, size.side]
        } else {
            [1, size.picture, size.picture]
        };
        let [low, high] = DEPTH_STEP;
        let depth_step = if is_volume {
            dice.within(low, high)
        } else {
            1.0
        };
        Self {
            labels: LabelMap::draw(shape, &mut dice),
            depth_step,
            key,
        }
    }

    /// Returns the object in one of its contrasts, numbered from 0.
    ///
    /// # Shapes
    /// `[1, D, H, W]`, values 0..=1.
    /// # Errors
    /// `Mismatch` if the phantom has no voxel.
    pub(super) fn contrast(&self, idx: u64) -> Result<Scaled> {
        let [seed, step, place] = self.key;
        let mut dice = Dice(generator("synthetic contrast", &[seed, step, place, idx]));
        let values = contrast::render(&self.labels, &mut dice);
        let [depth, height, width] = self.labels.shape;
        let kind = if depth == 1 {
            Kind::Image
        } else {
            Kind::Volume
        };
        let object = Scaled::new(values, [1, depth, height, width], kind)?;
        Ok(object.with_depth_step(f64::from(self.depth_step)))
    }
}

/// Random numbers of one object.
struct Dice(ChaCha8Rng);

impl Dice {
    fn within(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * uniform(&mut self.0)
    }

    fn chance(&mut self, chance: f32) -> bool {
        uniform(&mut self.0) < chance
    }

    /// Draws a whole number from `low` to `high`, both included.
    fn count(&mut self, low: u32, high: u32) -> u32 {
        low + self.0.next_u32() % (high - low + 1)
    }
}

/// A smooth random field: a sum of products of one cosine for each axis.
struct Waves {
    terms: Vec<[Vec<f32>; 3]>,
}

impl Waves {
    /// Draws a field over a grid whose axes run from -1 to 1; absolute values are at most `amplitude`.
    fn draw(shape: [usize; 3], amplitude: f32, fastest: f32, dice: &mut Dice) -> Self {
        const N_TERMS: u8 = 3;
        let terms = (0..N_TERMS).map(|_| {
            let share = amplitude / f32::from(N_TERMS);
            let axes = shape.map(|n| {
                let frequency = dice.within(0.3, fastest);
                let phase = dice.within(0.0, std::f32::consts::TAU);
                let along = (0..n).map(|i| (frequency * coordinate(i, n) + phase).cos());
                along.collect::<Vec<f32>>()
            });
            let [along_d, along_h, along_w] = axes;
            let along_d = along_d.into_iter().map(|value| share * value).collect();
            [along_d, along_h, along_w]
        });
        Self {
            terms: terms.collect(),
        }
    }

    /// Adds the row at a depth and height to `row`.
    fn add_row(&self, [z, y]: [usize; 2], row: &mut [f32]) {
        for [along_d, along_h, along_w] in &self.terms {
            let factor = along_d[z] * along_h[y];
            row.iter_mut()
                .zip(along_w)
                .for_each(|(sum, wave)| *sum += factor * wave);
        }
    }
}

/// Returns where the middle of a voxel lies on an axis from -1 to 1.
#[allow(clippy::cast_precision_loss, reason = "sides are far below 2^24")]
fn coordinate(i: usize, n: usize) -> f32 {
    (2 * i + 1) as f32 / n as f32 - 1.0
}

#[cfg(test)]
mod tests;
