//! What a student sees of the view that its frozen teachers see: the same, or a changed version.

use m3ret_imaging::{Input, Kind, Result, Scaled, ViewConfig, resample, view};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use crate::config::{Config, Method};
use crate::random::uniform;

/// Percentiles of a picture of rays that become 0 and 1, as in `views.project`.
const PERCENTILES: [f64; 2] = [0.005, 0.995];

/// Where the student's view lies in that of its teachers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ViewRelation {
    /// It covers the same place, with whatever intensities.
    #[default]
    Same,
    /// It is one plane of a deep view.
    Plane {
        /// The plane, from 0.
        plane: usize,
        /// Planes of the deep view.
        n_planes: usize,
    },
    /// It is the picture of the rays through a deep view, the last plane on top.
    Rays(Along),
}

/// What the rays run along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Along {
    /// H: a frontal picture where the orientation is known.
    Rows,
    /// W: a lateral picture.
    Columns,
}

/// How a student's view is changed.
#[derive(Debug, Clone)]
pub(super) struct StudentPlan {
    /// Chance that it is changed.
    pub(super) changed: f64,
    /// How intensities change; what it says of crops is not used.
    pub(super) intensities: ViewConfig,
}

impl StudentPlan {
    /// Returns the plan of a run with frozen teachers; `None` for other methods.
    pub(super) fn of_run(config: &Config, intensities: ViewConfig) -> Option<Self> {
        (config.method == Method::Salt).then_some(Self {
            changed: config.salt.changed,
            intensities,
        })
    }

    /// Draws whether and how a view is changed; `None` if the student sees it as it is.
    ///
    /// A picture changes in its intensities; a clip in its intensities, or into one of its planes; a volume
    /// in its intensities, into a plane, or into the picture of the rays through it; each equally often.
    ///
    /// # Shapes
    /// `[3, D, S, S]` -> the same, or `[3, 1, S, S]` where it becomes flat.
    /// # Errors
    /// `Mismatch` if the plan is senseless.
    pub(super) fn change(
        &self,
        original: &Input,
        kind: Kind,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<(Input, ViewRelation)>> {
        if f64::from(uniform(rng)) >= self.changed {
            return Ok(None);
        }
        let [_, n_planes, ..] = original.shape();
        let n_ways = match (n_planes, kind) {
            (1, _) => 1,
            (_, Kind::Volume) => 3,
            (_, Kind::Image | Kind::Video) => 2,
        };
        let changed = match rng.next_u32() % n_ways {
            0 => (self.recoloured(original, kind, rng)?, ViewRelation::Same),
            1 => {
                let plane = rng.next_u32() as usize % n_planes;
                let relation = ViewRelation::Plane { plane, n_planes };
                (one_plane(original, plane)?, relation)
            }
            _ => {
                let is_frontal = rng.next_u32().is_multiple_of(2);
                let along = if is_frontal {
                    Along::Rows
                } else {
                    Along::Columns
                };
                (rays(original, along)?, ViewRelation::Rays(along))
            }
        };
        Ok(Some(changed))
    }

    /// Changes intensities alone: a random curve always, the rest as the views' settings say.
    fn recoloured(&self, original: &Input, kind: Kind, rng: &mut ChaCha8Rng) -> Result<Input> {
        let [_, n_planes, side, _] = original.shape();
        let config = ViewConfig {
            remap: 1.0,
            area: [1.0; 2],
            aspect: [1.0; 2],
            depth_share: [1.0; 2],
            flip: 0.0,
            project: 0.0,
            slice: 0.0,
            side,
            depth: n_planes,
            patch_depth: n_planes,
            ..self.intensities.clone()
        };
        let n_channel = original.values().len() / 3;
        let (first, others) = original.values().split_at(n_channel);
        // One channel of what is grey, so that noise stays grey too.
        let is_grey = others.chunks_exact(n_channel).all(|other| other == first);
        let n_shown = if is_grey { 1 } else { 3 };
        let values = original.values()[..n_shown * n_channel].to_vec();
        let object = Scaled::new(values, [n_shown, n_planes, side, side], kind)?;
        view(&object, &config, rng)
    }
}

/// Returns one plane of every channel.
fn one_plane(original: &Input, plane: usize) -> Result<Input> {
    let [n_channels, n_planes, height, width] = original.shape();
    let n_plane = height * width;
    let channels = original.values().chunks_exact(n_planes * n_plane);
    let planes = channels.flat_map(|channel| &channel[plane * n_plane..(plane + 1) * n_plane]);
    Input::new(planes.copied().collect(), [n_channels, 1, height, width])
}

/// Returns the mean along rays through the first channel, the last plane on top, resized to the view's
/// sides and scaled to 0..=1 by its percentiles.
fn rays(original: &Input, along: Along) -> Result<Input> {
    let [n_channels, n_planes, height, width] = original.shape();
    let n_across = match along {
        Along::Rows => width,
        Along::Columns => height,
    };
    let planes = original.values().chunks_exact(height * width);
    let planes: Vec<&[f32]> = planes.take(n_planes).collect();
    let mut sums = Vec::with_capacity(n_planes * n_across);
    for plane in planes.into_iter().rev() {
        let rows = plane.chunks_exact(width);
        match along {
            Along::Rows => {
                let mut sum = vec![0.0; width];
                for row in rows {
                    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                }
                sums.extend(sum);
            }
            Along::Columns => sums.extend(rows.map(|row| row.iter().sum::<f32>())),
        }
    }
    let picture = resample(&sums, [1, n_planes, n_across], [1, height, width])?;
    let [low, high] = ends(&picture);
    let scale = 1.0 / (high - low).max(f32::MIN_POSITIVE);
    let scaled = picture
        .iter()
        .map(|sum| ((sum - low) * scale).clamp(0.0, 1.0));
    let scaled: Vec<f32> = scaled.collect();
    Input::new(scaled.repeat(n_channels), [n_channels, 1, height, width])
}

/// Returns the values at the percentiles, by the nearest rank.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "ranks of a picture"
)]
fn ends(picture: &[f32]) -> [f32; 2] {
    let mut sorted = picture.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let last = sorted.len() - 1;
    PERCENTILES.map(|share| sorted[(share * last as f64).round() as usize])
}

#[cfg(test)]
mod tests;
