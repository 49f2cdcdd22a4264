//! Deep objects seen as one picture: a plane of theirs, or the rays through them.

use rand::Rng;

use super::{ViewConfig, chance, uniform};
use crate::error::Result;
use crate::intensity::{Window, percentiles_of};
use crate::prepare::Scaled;
use crate::resample::{as_f64, as_index, resample};
use crate::volume::Kind;

/// Percentiles of a picture of rays that become 0 and 1.
const PERCENTILES: [f64; 2] = [0.5, 99.5];

/// The most times that a picture of rays is higher than wide, or wider than high: a bound for memory.
const MOST_ASPECT: usize = 4;

/// What the rays run along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Along {
    /// H, to the back: a frontal picture where the orientation is known.
    Rows,
    /// W, to the left: a lateral picture.
    Columns,
}

/// Returns the picture that stands for a deep object in this view, if one does.
pub(super) fn flattened(
    object: &Scaled,
    config: &ViewConfig,
    rng: &mut impl Rng,
) -> Result<Option<Scaled>> {
    let [_, depth, ..] = object.shape();
    if depth == 1 {
        return Ok(None);
    }
    if object.kind() == Kind::Volume && chance(rng, config.project) {
        let is_frontal = chance(rng, 0.5);
        let along = if is_frontal {
            Along::Rows
        } else {
            Along::Columns
        };
        return projected(object, along).map(Some);
    }
    if chance(rng, config.slice) {
        let plane = as_index(uniform(rng) * as_f64(depth)).min(depth - 1);
        return sliced(object, plane).map(Some);
    }
    Ok(None)
}

/// Returns one plane: `[C, D, H, W]` -> `[C, 1, H, W]`.
fn sliced(object: &Scaled, plane: usize) -> Result<Scaled> {
    let [n_channels, depth, height, width] = object.shape();
    let n_plane = height * width;
    let mut values = Vec::with_capacity(n_channels * n_plane);
    for channel in object.values().chunks_exact(depth * n_plane) {
        let from = plane * n_plane;
        values.extend_from_slice(channel.get(from..from + n_plane).unwrap_or_default());
    }
    Scaled::new(values, [n_channels, 1, height, width], Kind::Image)
}

/// Returns the mean along parallel rays, stretched to square pixels and scaled to 0..=1 by its own
/// percentiles: `[1, D, H, W]` -> `[1, 1, D', W or H]`, the last plane (superior, where the
/// orientation is known) on top.
///
/// For a CT whose values are linear in HU this is a simulated radiograph, up to the clamping of the
/// object's percentiles. `crate::projection` makes those of full size and in physical units.
fn projected(object: &Scaled, along: Along) -> Result<Scaled> {
    let [_, depth, height, width] = object.shape();
    let n_across = match along {
        Along::Rows => width,
        Along::Columns => height,
    };
    let mut sums = Vec::with_capacity(depth * n_across);
    let planes = object.values().chunks_exact(height * width).take(depth);
    for plane in planes.rev() {
        let rows = plane.chunks_exact(width);
        match along {
            Along::Rows => {
                let start = sums.len();
                sums.resize(start + width, 0.0);
                for row in rows {
                    let sums = sums.iter_mut().skip(start);
                    sums.zip(row).for_each(|(sum, x)| *sum += x);
                }
            }
            Along::Columns => sums.extend(rows.map(|row| row.iter().sum::<f32>())),
        }
    }
    let wanted = as_index((as_f64(depth) * object.depth_step()).round());
    let least = n_across.div_ceil(MOST_ASPECT);
    let tall = wanted.clamp(least, n_across * MOST_ASPECT);
    let sums = resample(&sums, [1, depth, n_across], [1, tall, n_across])?;
    let [low, high] = percentiles_of(&sums, PERCENTILES).unwrap_or_default();
    let mut values = vec![0.0; sums.len()];
    Window::new(low, high, false).apply(&sums, &mut values);
    Scaled::new(values, [1, 1, tall, n_across], Kind::Image)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// A bright bar at the front, left and bottom of dark air.
    fn bar() -> Scaled {
        let (depth, height, width) = (4, 6, 8);
        let mut values = vec![0.0; depth * height * width];
        // d = 0 is inferior, h = 0 anterior, w = 7 left.
        for h in 0..3 {
            values[h * width + 7] = 1.0;
        }
        Scaled::new(values, [1, depth, height, width], Kind::Volume).unwrap()
    }

    #[test]
    fn rays_add_up_and_superior_is_on_top() {
        let object = bar().with_depth_step(2.0);
        let frontal = projected(&object, Along::Rows).unwrap();
        assert_eq!(frontal.shape(), [1, 1, 8, 8]);
        let brightest = |picture: &Scaled| {
            let values = picture.values().iter().enumerate();
            let (idx, _) = values.max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap();
            let [_, _, _, width] = picture.shape();
            [idx / width, idx % width]
        };
        assert_eq!(brightest(&frontal), [7, 7]);
        let lateral = projected(&object, Along::Columns).unwrap();
        assert_eq!(lateral.shape(), [1, 1, 8, 6]);
        let [row, column] = brightest(&lateral);
        assert!(row == 7 && column < 3, "{row}, {column}");
    }

    #[test]
    fn rays_equal_plain_sums() {
        let shape = [1, 3, 5, 4];
        let values: Vec<f32> = (0..60).map(|i| (i * 37 % 61) as f32 / 60.0).collect();
        let object = Scaled::new(values.clone(), shape, Kind::Volume).unwrap();
        let at = |d: usize, h: usize, w: usize| values[(d * 5 + h) * 4 + w];
        let mut sums = Vec::new();
        for d in (0..3).rev() {
            for w in 0..4 {
                sums.push((0..5).map(|h| at(d, h, w)).sum::<f32>());
            }
        }
        let made = projected(&object, Along::Rows).unwrap();
        assert_eq!(made.shape(), [1, 1, 3, 4]);
        // A linear function of the sums, but for the two ends of the percentiles.
        let (least, most) = (
            sums.iter().copied().fold(f32::MAX, f32::min),
            sums.iter().copied().fold(0.0, f32::max),
        );
        for (sum, value) in sums.iter().zip(made.values()) {
            let wanted = (sum - least) / (most - least);
            assert!((wanted - value).abs() < 0.02, "{wanted} and {value}");
        }
    }

    #[test]
    fn flat_views_have_one_plane() {
        let object = bar();
        let mut config = ViewConfig::plain(16, [4, 8]);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut planes = |config: &ViewConfig| {
            let seen = super::super::view(&object, config, &mut rng).unwrap();
            let [_, depth, ..] = seen.shape();
            depth
        };
        assert_eq!(planes(&config), 4);
        config.project = 1.0;
        assert_eq!(planes(&config), 1);
        (config.project, config.slice) = (0.0, 1.0);
        assert_eq!(planes(&config), 1);
    }

    #[test]
    fn a_slice_is_a_plane_of_every_channel() {
        let values: Vec<f32> = (0..3 * 2 * 4).map(|i| i as f32 / 24.0).collect();
        let clip = Scaled::new(values.clone(), [3, 2, 2, 2], Kind::Video).unwrap();
        let frame = sliced(&clip, 1).unwrap();
        assert_eq!(frame.shape(), [3, 1, 2, 2]);
        let wanted = [4, 12, 20].map(|from| values[from..from + 4].to_vec());
        assert_eq!(frame.values(), wanted.concat());
    }

    #[test]
    fn clips_are_never_projected() {
        let clip = Scaled::new(vec![0.5; 4 * 9], [1, 4, 3, 3], Kind::Video).unwrap();
        let config = ViewConfig {
            project: 1.0,
            ..ViewConfig::plain(16, [4, 8])
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(flattened(&clip, &config, &mut rng).unwrap(), None);
    }
}
