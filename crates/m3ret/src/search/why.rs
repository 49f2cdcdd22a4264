//! Explains why two images match: which patches are similar to the encoder, and what the score is without them.

use std::path::Path;

use m3ret_encoder::{Model, View};
use m3ret_imaging::archive::read_image;
use m3ret_imaging::{Input, Kind, Picture, ReadOptions, Volume, thumbnail};
use serde::Serialize;

use crate::embed::ahead::guarded;
use crate::report::shell::data_url;

/// One picture of an image, with the patches that lie on it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Plane {
    pub(super) name: String,
    /// A data URL.
    pub(super) png: String,
    /// Width divided by height, as it is to be shown.
    pub(super) aspect: f64,
    /// Rows and columns of patches.
    pub(super) grid: [usize; 2],
    /// The patch of each cell, row by row.
    pub(super) cells: Vec<usize>,
}

/// An image with its pictures and the tokens of its patches.
pub(super) struct ImageTokens {
    pub(super) planes: Vec<Plane>,
    input: Input,
    /// Whether the model embeds slices or frames one by one, of which this is the middle one.
    is_sliced: bool,
    /// `None` for a model without patches.
    tokens: Option<Tokens>,
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
/// Frames of a video that are shown.
const MAX_FRAMES: usize = 6;
/// The note for encoders that embed slices one by one.
const SLICE_NOTE: &str =
    "this encoder sees single slices or frames: only the middle ones are compared here";

impl ImageTokens {
    /// Reads an image, and computes the tokens of its patches.
    pub(super) fn read(
        file: &Path,
        part: Option<&str>,
        model: &Model,
        options: &ReadOptions,
    ) -> Result<Self, String> {
        let volume =
            guarded(|| read_image(file, part, options)).map_err(|refusal| refusal.message)?;
        let prepared = model.prepare(&volume).map_err(|error| error.to_string())?;
        let inputs = prepared.inputs();
        let input = inputs
            .get(inputs.len() / 2)
            .ok_or("nothing to look at")?
            .clone();
        let view = View {
            input: &input,
            left_out: &[],
        };
        let seen = model.look(&[view]).ok().and_then(|mut seen| seen.pop());
        let Some((tokens, vector)) = seen else {
            // A model without patches has a plain picture.
            return Ok(Self {
                planes: vec![picture(&png_of(&thumbnail(&volume, PICTURE_PX))?)],
                input,
                is_sliced: false,
                tokens: None,
            });
        };
        let is_sliced = inputs.len() > 1;
        let kind = if is_sliced { Kind::Image } else { volume.kind };
        Ok(Self {
            planes: planes(
                &input,
                kind,
                tokens.grid(),
                depth_over_height(&volume, &input),
            )?,
            tokens: Some(Tokens {
                patches: tokens.patches().to_vec(),
                is_plain: plain_patches(&input, tokens.grid()),
                embed_dim: tokens.embed_dim(),
                vector,
            }),
            input,
            is_sliced,
        })
    }

    /// Compares the patches of a query and a hit; `None` for a model without patches.
    pub(super) fn why(&self, hit: &Self, model: &Model) -> Option<Why> {
        let (own, other) = (self.tokens.as_ref()?, hit.tokens.as_ref()?);
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

/// Returns how high a volume is along D, measured in heights of the model's input.
fn depth_over_height(volume: &Volume, input: &Input) -> f64 {
    let [_, depth, height, width] = volume.shape();
    let [_, _, input_height, input_width] = input.shape();
    #[expect(clippy::cast_precision_loss, reason = "sides are small")]
    let extent = |side: usize, spacing: Option<f64>| side as f64 * spacing.unwrap_or(1.0);
    // The longer side fills the input.
    let side = extent(height, volume.spacing[1]).max(extent(width, volume.spacing[2]));
    let known = volume.spacing.iter().all(Option::is_some);
    let ratio = extent(depth, volume.spacing[0]) / side;
    if known && input_height == input_width {
        ratio.clamp(0.2, 3.0)
    } else {
        1.0
    }
}

/// Draws the middle planes of a volume, frames of a video, or an image.
fn planes(
    input: &Input,
    kind: Kind,
    [n_z, n_y, n_x]: [usize; 3],
    depth_over_height: f64,
) -> Result<Vec<Plane>, String> {
    let [_, depth, height, width] = input.shape();
    let cell = |z: usize, y: usize, x: usize| (z * n_y + y) * n_x + x;
    let flat = |name: String, z: usize| {
        // The middle of the slab of slices that the patch covers.
        let slice = ((2 * z + 1) * depth / (2 * n_z)).min(depth - 1);
        let cells = (0..n_y * n_x).map(|i| cell(z, i / n_x, i % n_x));
        let cut = Cut {
            name,
            height,
            width,
            grid: [n_y, n_x],
            cells: cells.collect(),
            aspect: 1.0,
        };
        cut.plane(input, |y, x| (slice, y, x))
    };
    match kind {
        Kind::Image => Ok(vec![flat("image".to_owned(), n_z / 2)?]),
        Kind::Video => {
            let n_frames = n_z.min(MAX_FRAMES);
            let frames = (0..n_frames).map(|i| {
                let z = (2 * i + 1) * n_z / (2 * n_frames);
                flat(format!("{} of {n_frames}", i + 1), z)
            });
            frames.collect()
        }
        Kind::Volume => {
            let (y, x) = (height / 2, width / 2);
            // Superior is up.
            let up = |row: usize| depth - 1 - row;
            let coronal = (0..n_z * n_x).map(|i| cell(n_z - 1 - i / n_x, n_y / 2, i % n_x));
            let sagittal = (0..n_z * n_y).map(|i| cell(n_z - 1 - i / n_y, i % n_y, n_x / 2));
            let shape = 1.0 / depth_over_height;
            Ok(vec![
                flat("axial".to_owned(), n_z / 2)?,
                Cut {
                    name: "coronal".to_owned(),
                    height: depth,
                    width,
                    grid: [n_z, n_x],
                    cells: coronal.collect(),
                    aspect: shape,
                }
                .plane(input, |row, column| (up(row), y, column))?,
                Cut {
                    name: "sagittal".to_owned(),
                    height: depth,
                    width: height,
                    grid: [n_z, n_y],
                    cells: sagittal.collect(),
                    aspect: shape,
                }
                .plane(input, |row, column| (up(row), column, x))?,
            ])
        }
    }
}

/// A plane through an image that is to be drawn.
struct Cut {
    name: String,
    /// Rows and columns of pixels.
    height: usize,
    width: usize,
    /// Rows and columns of patches, and the patch of each cell.
    grid: [usize; 2],
    cells: Vec<usize>,
    /// Width divided by height of a pixel's place, as it is to be shown.
    aspect: f64,
}

impl Cut {
    /// Draws the plane; `voxel` says which voxel (z, y, x) a row and a column show.
    fn plane(
        self,
        input: &Input,
        voxel: impl Fn(usize, usize) -> (usize, usize, usize),
    ) -> Result<Plane, String> {
        let Self {
            name,
            height,
            width,
            grid,
            cells,
            aspect,
        } = self;
        let [n_channels, depth, input_height, input_width] = input.shape();
        let values = input.values();
        let mut rgb = Vec::with_capacity(height * width * 3);
        let (low, high) = range(values);
        for row in 0..height {
            for column in 0..width {
                let (z, y, x) = voxel(row, column);
                for channel in 0..3 {
                    let channel = channel.min(n_channels - 1);
                    let at = ((channel * depth + z) * input_height + y) * input_width + x;
                    rgb.push(grey((values[at] - low) / (high - low).max(1e-6)));
                }
            }
        }
        let bytes = png_of(&Picture { width, height, rgb })?;
        Ok(Plane {
            name,
            aspect,
            grid,
            cells,
            ..picture(&bytes)
        })
    }
}

/// Longest side of a picture without patches.
const PICTURE_PX: usize = 512;

fn png_of(picture: &Picture) -> Result<Vec<u8>, String> {
    picture.png().map_err(|error| error.to_string())
}

/// Shows a PNG as it is, without patches.
pub(super) fn picture(png: &[u8]) -> Plane {
    Plane {
        name: "picture".to_owned(),
        png: data_url(png),
        aspect: 1.0,
        grid: [0, 0],
        cells: Vec::new(),
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

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to a byte"
)]
fn grey(x: f32) -> u8 {
    (x.clamp(0.0, 1.0) * 255.0).round() as u8
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
}
