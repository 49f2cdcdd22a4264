//! All pairs of vectors that are close, exactly, without comparing every two.
//!
//! The distance of two vectors is at least that of their shadows: what they are along a few directions, and the length
//! of what is left of each. So shadows choose the pairs, in cells as wide as the largest distance, and vectors decide.
//! Directions along which the vectors differ most make the shadows tell most; any others give the same pairs.

use std::collections::HashMap;

use rayon::prelude::*;

/// Directions of a shadow.
const N_DIRECTIONS: usize = 15;
/// Numbers of a shadow: along each direction, and the length of the rest.
const N_NUMBERS: usize = N_DIRECTIONS + 1;
/// Directions that cells are cut along.
const N_CUTS: usize = 3;
/// Vectors that the directions are chosen by.
const MAX_SAMPLE: usize = 1024;
/// Rounds of orthogonal iteration. More would hardly change which pairs are chosen.
const N_ROUNDS: usize = 6;
/// What rounding may take from a squared distance.
const SLACK: f32 = 1e-4;
/// Vectors that are read together.
const BATCH: usize = 2048;
/// Pairs that are compared by their vectors together.
const BATCH_PAIRS: usize = 1 << 14;
/// Most pairs for each vector. Images with more are a crowd, of which pairs of all are of no use.
const PAIRS_PER_VECTOR: usize = 64;
/// Pairs that no number of vectors is too small for.
const FREE_PAIRS: usize = 1 << 18;

/// Unit vectors by number.
pub(super) trait Vectors: Sync {
    fn len(&self) -> usize;

    fn width(&self) -> usize;

    /// Reads some vectors, [items, width].
    fn read(&self, items: &[usize]) -> anyhow::Result<Vec<f32>>;

    /// Returns whether a pair is wanted.
    fn wants(&self, one: usize, other: usize) -> bool;
}

/// Two vectors by number, the smaller first, and their cosine.
pub(super) type ClosePair = (usize, usize, f32);

/// Returns the wanted pairs with a cosine of `near` or more; `None` if there are more than a sweep is good for.
pub(super) fn close_pairs(
    vectors: &impl Vectors,
    near: f32,
) -> anyhow::Result<Option<Vec<ClosePair>>> {
    let directions = directions(vectors)?;
    let shadows = shadows(vectors, &directions)?;
    let max_squared = (2.0 - 2.0 * near).max(0.0) + SLACK;
    let max_pairs = (PAIRS_PER_VECTOR * vectors.len()).max(FREE_PAIRS);
    let Some(mut chosen) = chosen(vectors, &shadows, max_squared, max_pairs) else {
        return Ok(None);
    };
    chosen.par_sort_unstable();
    let batches = chosen.par_chunks(BATCH_PAIRS);
    let pairs: Vec<Vec<ClosePair>> = batches
        .map(|batch| compare(vectors, batch, near))
        .collect::<anyhow::Result<_>>()?;
    Ok(Some(pairs.concat()))
}

/// Returns directions of unit length at right angles to each other, [directions, width]; those along which a sample
/// differs most come first.
fn directions(vectors: &impl Vectors) -> anyhow::Result<Vec<f32>> {
    let (n, width) = (vectors.len(), vectors.width());
    let step = n.div_ceil(MAX_SAMPLE).max(1);
    let mut sample = vectors.read(&(0..n).step_by(step).collect::<Vec<_>>())?;
    let n_sample = sample.len() / width;
    for place in 0..width {
        let column = || (0..n_sample).map(|row| row * width + place);
        let mean = column().map(|at| sample[at]).sum::<f32>() / n_sample.max(1) as f32;
        for at in column() {
            sample[at] -= mean;
        }
    }
    // Any numbers begin; these differ along every direction.
    let mut directions: Vec<f32> = (0..N_DIRECTIONS * width)
        .map(|at| ((at * 7919 % 1009) as f32 / 504.5) - 1.0)
        .collect();
    orthogonalise(&mut directions, width);
    for _ in 0..N_ROUNDS {
        // Each direction d becomes S^T S d, for the sample S.
        let next = directions.par_chunks(width).flat_map_iter(|direction| {
            let mut next = vec![0.0; width];
            for row in sample.chunks_exact(width) {
                let along = dot(row, direction);
                next.iter_mut()
                    .zip(row)
                    .for_each(|(sum, x)| *sum += along * x);
            }
            next
        });
        directions = next.collect();
        orthogonalise(&mut directions, width);
    }
    Ok(directions)
}

/// Gives each direction unit length and a right angle to those before; one that follows from those becomes zero.
fn orthogonalise(directions: &mut [f32], width: usize) {
    for idx in 0..directions.len() / width {
        let (before, rest) = directions.split_at_mut(idx * width);
        let direction = &mut rest[..width];
        let length = dot(direction, direction).sqrt();
        // Twice is enough for right angles despite rounding.
        for _ in 0..2 {
            for other in before.chunks_exact(width) {
                let along = dot(other, direction);
                direction
                    .iter_mut()
                    .zip(other)
                    .for_each(|(x, y)| *x -= along * y);
            }
        }
        let left = dot(direction, direction).sqrt();
        let scale = if left > 1e-4 * length {
            1.0 / left
        } else {
            0.0
        };
        direction.iter_mut().for_each(|x| *x *= scale);
    }
}

type Shadow = [f32; N_NUMBERS];

fn shadows(vectors: &impl Vectors, directions: &[f32]) -> anyhow::Result<Vec<Shadow>> {
    let width = vectors.width();
    let items: Vec<usize> = (0..vectors.len()).collect();
    let shadow = |vector: &[f32]| {
        let mut shadow = [0.0; N_NUMBERS];
        let mut left = dot(vector, vector);
        for (number, direction) in shadow.iter_mut().zip(directions.chunks_exact(width)) {
            *number = dot(vector, direction);
            left -= *number * *number;
        }
        shadow[N_DIRECTIONS] = left.max(0.0).sqrt();
        shadow
    };
    let batches: Vec<Vec<Shadow>> = items
        .par_chunks(BATCH)
        .map(|items| {
            Ok(vectors
                .read(items)?
                .chunks_exact(width)
                .map(shadow)
                .collect())
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(batches.concat())
}

/// Returns the wanted pairs whose shadows are close; `None` if they are too many.
fn chosen(
    vectors: &impl Vectors,
    shadows: &[Shadow],
    max_squared: f32,
    max_pairs: usize,
) -> Option<Vec<(usize, usize)>> {
    let side = max_squared.sqrt();
    let mut cells: HashMap<[i32; N_CUTS], Vec<usize>> = HashMap::new();
    for (item, shadow) in shadows.iter().enumerate() {
        cells.entry(cell_of(shadow, side)).or_default().push(item);
    }
    let mut all: Vec<(&[i32; N_CUTS], &Vec<usize>)> = cells.iter().collect();
    all.sort_unstable();
    let mut chosen = Vec::new();
    // A few cells at a time, so that a crowd is noticed before it fills the memory.
    for some in all.chunks(256) {
        let found: Vec<Vec<(usize, usize)>> = some
            .par_iter()
            .map(|&(place, items)| {
                let mut found = Vec::new();
                for other in later_neighbours(place) {
                    let Some(others) = cells.get(&other) else {
                        continue;
                    };
                    let is_same = other == *place;
                    for (idx, &one) in items.iter().enumerate() {
                        let others = if is_same { &others[idx + 1..] } else { others };
                        let near = others.iter().filter(|&&other| {
                            are_close(&shadows[one], &shadows[other], max_squared)
                                && vectors.wants(one, other)
                        });
                        found.extend(near.map(|&other| (one.min(other), one.max(other))));
                        if found.len() > max_pairs {
                            return found;
                        }
                    }
                }
                found
            })
            .collect();
        chosen.extend(found.into_iter().flatten());
        if chosen.len() > max_pairs {
            return None;
        }
    }
    Some(chosen)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "numbers of unit vectors over a side of 0.01 or more"
)]
fn cell_of(shadow: &Shadow, side: f32) -> [i32; N_CUTS] {
    std::array::from_fn(|cut| (shadow[cut] / side).floor() as i32)
}

/// Returns a cell and those of its neighbours that come after it, so that each two are met once.
fn later_neighbours(place: &[i32; N_CUTS]) -> impl Iterator<Item = [i32; N_CUTS]> {
    let shifts = (0..27).map(|at| [at / 9 - 1, at / 3 % 3 - 1, at % 3 - 1]);
    let later = shifts.filter(|shift| *shift >= [0, 0, 0]);
    later.map(|shift| std::array::from_fn(|cut| place[cut] + shift[cut]))
}

fn are_close(one: &Shadow, other: &Shadow, max_squared: f32) -> bool {
    let mut sum = 0.0;
    // The first numbers differ most, so that few pairs need the others.
    for (one, other) in one.chunks_exact(4).zip(other.chunks_exact(4)) {
        let squared = one.iter().zip(other).map(|(x, y)| (x - y) * (x - y));
        sum += squared.sum::<f32>();
        if sum > max_squared {
            return false;
        }
    }
    true
}

/// Keeps the pairs with a cosine of `near` or more.
#[expect(clippy::cast_possible_truncation, reason = "a cosine of unit vectors")]
fn compare(
    vectors: &impl Vectors,
    pairs: &[(usize, usize)],
    near: f32,
) -> anyhow::Result<Vec<ClosePair>> {
    let width = vectors.width();
    let mut items: Vec<usize> = pairs
        .iter()
        .flat_map(|&(one, other)| [one, other])
        .collect();
    items.sort_unstable();
    items.dedup();
    let mut close = Vec::new();
    // Pairs are sorted, so that the vectors of their first items are few; those of the others may be many.
    let values = vectors.read(&items)?;
    for &(one, other) in pairs {
        let vector = |item: usize| {
            let place = items.binary_search(&item).unwrap_or_default();
            &values[place * width..][..width]
        };
        let cosine = super::correlate(vector(one), vector(other)) as f32;
        if cosine >= near {
            close.push((one, other, cosine));
        }
    }
    Ok(close)
}

/// Adds in eight chains, which a compiler turns into vector instructions.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (ones, others) = (one.chunks_exact(8), other.chunks_exact(8));
    let rest = ones.remainder().iter().zip(others.remainder());
    let rest: f32 = rest.map(|(x, y)| x * y).sum();
    for (one, other) in ones.zip(others) {
        for ((sum, x), y) in sums.iter_mut().zip(one).zip(other) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f32>() + rest
}
