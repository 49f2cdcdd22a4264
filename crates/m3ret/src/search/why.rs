//! Explains why two images match: which patches are similar to the encoder, and what the score is without them.

use std::path::Path;

use m3ret_encoder::{Model, View};
use m3ret_imaging::{Input, ReadOptions, Volume, square_sides};
use serde::Serialize;

use crate::report::viewer;

/// Where the patches of an image lie on its pictures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct PatchGrid {
    /// Patches along D, H and W of the model's input.
    pub(super) grid: [usize; 3],
    /// Where the picture lies in the input: top, left, height and width in shares of the input's sides. A side above 1 is
    /// one that the model cuts.
    pub(super) area: [f64; 4],
    /// Whether the patches are those of the middle slice or frame alone.
    pub(super) is_sliced: bool,
}

/// The input of an image and the tokens of its patches.
pub(super) struct ImageTokens {
    input: Input,
    /// Whether the model embeds slices or frames one by one, of which this is the middle one.
    is_sliced: bool,
    grid: [usize; 3],
    tokens: Tokens,
}

struct Tokens {
    /// [patches, E]
    patches: Vec<f32>,
    /// Whether each patch has nearly one value, as in the frame around a picture; such patches match nothing.
    is_plain: Vec<bool>,
    embed_dim: usize,
    vector: Vec<f32>,
}

/// Why a query and a hit match.
#[derive(Debug, Clone, Serialize)]
pub struct Why {
    /// Patch of the query, patch of the hit, cosine; the most similar first. Patches are numbered from 0, along width,
    /// then height, then depth.
    pub matches: Vec<(usize, usize, f32)>,
    /// Cosine of the two vectors.
    pub score: f32,
    /// Cosine if the network does not see the matching patches of the hit.
    pub score_without: f32,
    /// Number of patches of the hit that were left out for that.
    pub n_left_out: usize,
    /// Number of patches of the hit that show more than one grey.
    pub n_patches: usize,
    /// What limits the comparison, as a sentence.
    pub note: Option<&'static str>,
}

/// At most one in this number of the patches of a hit match.
const MAX_SHARE: usize = 4;
/// Fewer pairs of patches, or pairs that are less alike, explain nothing.
const LEAST_MATCHES: usize = 3;
const LEAST_COSINE: f32 = 0.5;
/// A score that falls by less without the matching patches comes from the whole image.
const LEAST_DROP: f32 = 0.02;
/// The note for encoders that embed slices one by one.
const SLICE_NOTE: &str =
    "this encoder sees single slices or frames: only the middle ones are compared here";

impl Why {
    /// Whether the matching patches are alike, and the score depends on them.
    pub(super) fn says_something(&self) -> bool {
        let n = self.matches.len();
        let sum: f32 = self.matches.iter().map(|(.., cosine)| cosine).sum();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^24")]
        let is_alike = sum >= LEAST_COSINE * n as f32;
        n >= LEAST_MATCHES && is_alike && self.score - self.score_without >= LEAST_DROP
    }
}

impl ImageTokens {
    /// Reads an image, and computes the tokens of its patches.
    pub(super) fn read(
        file: &Path,
        part: Option<&str>,
        model: &Model,
        options: &ReadOptions,
    ) -> Result<Self, String> {
        Self::of(&viewer::read(file, part, options)?, model)
    }

    /// Computes the tokens of an image's patches.
    ///
    /// # Errors
    /// A sentence if the image does not fit the model, or the model has no patches.
    pub(super) fn of(volume: &Volume, model: &Model) -> Result<Self, String> {
        let prepared = model.prepare(volume).map_err(|error| error.to_string())?;
        let inputs = prepared.inputs();
        let input = inputs
            .get(inputs.len() / 2)
            .ok_or("nothing to look at")?
            .clone();
        let view = View {
            input: &input,
            left_out: &[],
        };
        let seen = model.look(&[view]).map_err(|error| error.to_string())?;
        let (tokens, vector) = seen.into_iter().next().ok_or("nothing to look at")?;
        Ok(Self {
            grid: tokens.grid(),
            tokens: Tokens {
                patches: tokens.patches().to_vec(),
                is_plain: plain_patches(&input, tokens.grid()),
                embed_dim: tokens.embed_dim(),
                vector,
            },
            is_sliced: inputs.len() > 1,
            input,
        })
    }

    /// Finds where the patches lie on the pictures of an image; `None` where the model's input looks like none of the ways
    /// in which models prepare pictures.
    pub(super) fn patch_grid(&self, volume: &Volume) -> Option<PatchGrid> {
        let [_, depth, ..] = volume.shape();
        let [_, n_planes, height, width] = self.input.shape();
        let place = n_planes / 2 * height * width;
        let seen = self.input.values().get(place..place + height * width)?;
        let plane = volume.plane(0, depth / 2)?;
        let [_, _, rows, columns] = volume.shape();
        let areas = areas(square_sides(volume), [height, width]).into_iter();
        let rated = areas.map(|area| {
            let pair = [(seen, [height, width]), (plane, [rows, columns])];
            (agreement(pair, area), area)
        });
        let (best, area) = rated.max_by(|one, other| one.0.total_cmp(&other.0))?;
        (best >= LEAST_AGREEMENT).then_some(PatchGrid {
            grid: self.grid,
            area,
            is_sliced: self.is_sliced,
        })
    }

    /// Compares the patches of a query and a hit.
    pub(super) fn why(&self, hit: &Self, model: &Model) -> Option<Why> {
        let (own, other) = (&self.tokens, &hit.tokens);
        let matches = mutual(own, other);
        let n_patches = other.is_plain.iter().filter(|&&is_plain| !is_plain).count();
        let mut left_out: Vec<usize> = matches.iter().map(|&(_, hit, _)| hit).collect();
        left_out.truncate(n_patches / MAX_SHARE);
        let view = View {
            input: &hit.input,
            left_out: &left_out,
        };
        let (_, without) = model.look(&[view]).ok()?.pop()?;
        let mut matches = matches;
        matches.truncate(left_out.len());
        Some(Why {
            matches,
            score: dot(&own.vector, &other.vector),
            score_without: dot(&own.vector, &without),
            n_left_out: left_out.len(),
            n_patches,
            note: (self.is_sliced || hit.is_sliced).then_some(SLICE_NOTE),
        })
    }
}

fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(x, y)| x * y).sum()
}

/// Returns the tokens of both images minus their common mean, scaled to unit length.
fn centred(own: &Tokens, other: &Tokens) -> [Vec<f32>; 2] {
    let width = own.embed_dim;
    let all = || {
        own.patches
            .chunks_exact(width)
            .chain(other.patches.chunks_exact(width))
    };
    let mut mean = vec![0.0_f32; width];
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^24")]
    let share = 1.0 / all().count() as f32;
    for patch in all() {
        mean.iter_mut()
            .zip(patch)
            .for_each(|(sum, x)| *sum += share * x);
    }
    [own, other].map(|tokens| {
        let mut patches = tokens.patches.clone();
        for patch in patches.chunks_exact_mut(width) {
            patch.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean);
            // A token equal to the mean has no direction, and matches nothing.
            let _ = m3ret_search::normalize(patch);
        }
        patches
    })
}

/// Returns for each patch whether all its values are nearly equal.
fn plain_patches(input: &Input, [n_z, n_y, n_x]: [usize; 3]) -> Vec<bool> {
    let [n_channels, depth, height, width] = input.shape();
    let values = input.values();
    let (low, high) = range(values);
    let mut ranges = vec![(f32::INFINITY, f32::NEG_INFINITY); n_z * n_y * n_x];
    // Grey pictures have equal channels, and of a plain patch every channel is plain.
    for channel in 0..n_channels {
        for z in 0..depth {
            for y in 0..height {
                let start = ((channel * depth + z) * height + y) * width;
                let row = (z * n_z / depth * n_y + y * n_y / height) * n_x;
                for (x, &value) in values[start..start + width].iter().enumerate() {
                    let range = &mut ranges[row + x * n_x / width];
                    *range = (range.0.min(value), range.1.max(value));
                }
            }
        }
    }
    let least = (high - low) * PLAIN_BELOW;
    ranges
        .iter()
        .map(|(low, high)| high - low <= least)
        .collect()
}

/// Share of the range of all values below which a patch is plain.
const PLAIN_BELOW: f32 = 0.02;

/// Returns the pairs of patches that are each other's nearest, the most similar first.
fn mutual(own: &Tokens, other: &Tokens) -> Vec<(usize, usize, f32)> {
    let width = own.embed_dim;
    let [queries, hits] = centred(own, other);
    let n_hits = hits.len() / width;
    let mut best_of_hit = vec![(0, f32::NEG_INFINITY); n_hits];
    let mut best_of_query = Vec::with_capacity(queries.len() / width);
    for (query, patch) in queries.chunks_exact(width).enumerate() {
        let mut best = (0, f32::NEG_INFINITY);
        for (hit, patch_of_hit) in hits.chunks_exact(width).enumerate() {
            if own.is_plain[query] || other.is_plain[hit] {
                continue;
            }
            let score = dot(patch, patch_of_hit);
            if score > best.1 {
                best = (hit, score);
            }
            if score > best_of_hit[hit].1 {
                best_of_hit[hit] = (query, score);
            }
        }
        best_of_query.push(best);
    }
    let pairs = best_of_query.into_iter().enumerate();
    let pairs = pairs.filter(|&(query, (hit, score))| score > 0.0 && best_of_hit[hit].0 == query);
    let mut pairs: Vec<(usize, usize, f32)> = pairs
        .map(|(query, (hit, score))| (query, hit, score))
        .collect();
    pairs.sort_by(|a, b| b.2.total_cmp(&a.2));
    pairs
}

/// Correlation of a picture with the model's input from which on one is taken for the other.
const LEAST_AGREEMENT: f64 = 0.6;
/// Points along each side at which a picture and an input are compared.
const N_POINTS: usize = 24;
/// Models that cut the middle 224 of 256 pixels out.
const USUAL_CUT: f64 = 256.0 / 224.0;

/// Returns where a picture of sides `square` may lie in an input: padded, cut, cut more closely, or stretched.
#[expect(clippy::cast_precision_loss, reason = "sides are small")]
fn areas(square: [f64; 2], input: [usize; 2]) -> [[f64; 4]; 4] {
    let [rows, columns] = square;
    let [height, width] = input.map(|side| side as f64);
    let (along_h, along_w) = (height / rows, width / columns);
    let centred = |scale: f64| {
        let [h, w] = [rows * scale / height, columns * scale / width];
        [(1.0 - h) / 2.0, (1.0 - w) / 2.0, h, w]
    };
    [
        centred(along_h.min(along_w)),
        centred(along_h.max(along_w)),
        centred(along_h.max(along_w) * USUAL_CUT),
        [0.0, 0.0, 1.0, 1.0],
    ]
}

/// Returns how well an input agrees with a picture that lies in `area` of it: the size of their correlation, 0..=1.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sides are small, and shares in 0..1"
)]
fn agreement([input, picture]: [(&[f32], [usize; 2]); 2], area: [f64; 4]) -> f64 {
    let [top, left, height, width] = area;
    let at = |(values, [rows, columns]): (&[f32], [usize; 2]), y: f64, x: f64| {
        let is_inside = (0.0..1.0).contains(&y) && (0.0..1.0).contains(&x);
        let (row, column) = ((y * rows as f64) as usize, (x * columns as f64) as usize);
        let value = values.get(row * columns + column).filter(|_| is_inside)?;
        value.is_finite().then_some(f64::from(*value))
    };
    let points = (0..N_POINTS * N_POINTS).filter_map(|i| {
        let share = |i: usize| (i as f64 + 0.5) / N_POINTS as f64;
        let (y, x) = (share(i / N_POINTS), share(i % N_POINTS));
        let shown = at(picture, (y - top) / height, (x - left) / width)?;
        Some((at(input, y, x)?, shown))
    });
    let points: Vec<(f64, f64)> = points.collect();
    let n = points.len().max(1) as f64;
    let (sum_a, sum_b) = points
        .iter()
        .fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let (mean_a, mean_b) = (sum_a / n, sum_b / n);
    let mut sums = [0.0; 3];
    for (a, b) in points {
        let (a, b) = (a - mean_a, b - mean_b);
        sums = [sums[0] + a * b, sums[1] + a * a, sums[2] + b * b];
    }
    let scale = (sums[1] * sums[2]).sqrt();
    if scale > 0.0 {
        (sums[0] / scale).abs()
    } else {
        0.0
    }
}

/// Returns the range of the values, since the input of models is not 0..=1.
fn range(values: &[f32]) -> (f32, f32) {
    values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| {
            (low.min(x), high.max(x))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_patches_that_are_each_others_nearest_match() {
        let tokens = |patches: &[[f32; 2]]| Tokens {
            patches: patches.concat(),
            is_plain: patches.iter().map(|patch| patch[0] > 4.0).collect(),
            embed_dim: 2,
            vector: Vec::new(),
        };
        // The last of each is plain.
        let own = tokens(&[[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [5.0, 0.0]]);
        let other = tokens(&[
            [0.0, 1.1],
            [1.0, 0.1],
            [-1.0, -1.1],
            [-0.9, -1.1],
            [5.0, 0.0],
        ]);
        let mut pairs: Vec<(usize, usize)> = mutual(&own, &other)
            .into_iter()
            .map(|(query, hit, _)| (query, hit))
            .collect();
        pairs.sort_unstable();
        assert!(pairs.iter().all(|&(query, hit)| query != 3 && hit != 4));
        assert!(pairs.contains(&(1, 0)), "{pairs:?}");
    }
    #[test]
    fn patches_are_found_on_padded_cut_and_stretched_pictures() {
        // A picture of 20 rows and 40 columns whose values change along both.
        let picture: Vec<f32> = (0..800_u16)
            .map(|i| f32::from(i / 40 * (i / 40)) + f32::from(3 * (i % 40)))
            .collect();
        for wanted in areas([20.0, 40.0], [32, 32]) {
            let [top, left, height, width] = wanted;
            let input: Vec<f32> = (0..1024_u16)
                .map(|i| {
                    let [y, x] = [i / 32, i % 32].map(|side| (f64::from(side) + 0.5) / 32.0);
                    let [y, x] = [(y - top) / height * 20.0, (x - left) / width * 40.0];
                    let is_inside = (0.0..20.0).contains(&y) && (0.0..40.0).contains(&x);
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "small"
                    )]
                    let place = (y.max(0.0) as usize * 40 + x.max(0.0) as usize).min(799);
                    if is_inside { picture[place] } else { 0.0 }
                })
                .collect();
            let rate = |area| agreement([(&input, [32, 32]), (&picture, [20, 40])], area);
            let best = areas([20.0, 40.0], [32, 32])
                .into_iter()
                .max_by(|&one, &other| rate(one).total_cmp(&rate(other)));
            assert_eq!(best, Some(wanted));
        }
    }

    #[test]
    fn weak_or_idle_matches_say_nothing() {
        let why = Why {
            matches: vec![(0, 0, 0.8), (1, 1, 0.6), (2, 2, 0.5)],
            score: 0.9,
            score_without: 0.8,
            n_left_out: 3,
            n_patches: 12,
            note: None,
        };
        assert!(why.says_something());
        let idle = Why {
            score_without: 0.89,
            ..why.clone()
        };
        let few = Why {
            matches: why.matches[..2].to_vec(),
            ..why.clone()
        };
        let weak = Why {
            matches: vec![(0, 0, 0.3); 5],
            ..why
        };
        assert!([idle, few, weak].iter().all(|why| !why.says_something()));
    }
}
