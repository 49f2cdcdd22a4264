//! Values of any unit -> 0..1: percentiles of the whole object, and the window that they span.

use rayon::prelude::*;

use crate::samples::{narrow, widen_u64};
use crate::volume::Volume;

/// Values of the upper half of a key; as many as of the lower half.
const N_HALF_KEYS: usize = 1 << 16;

/// Up to so many values a copy is cheaper than the tables of a count: 0.6 ms however few they are.
const MAX_SELECTED: usize = 1 << 15;

/// Maps values to 0..1: `low` and below to 0, `high` and above to 1, linear between, then `1 - x`
/// if inverted. Non-finite values map to 0 (black, as padding) in either polarity.
///
/// Computed in f64 and rounded once, so that neither 1e38 nor 1e-40 loses its digits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Window {
    low: f64,
    /// `1 / (high - low)`; 0 for a constant object, which thus becomes zeros.
    factor: f64,
    inverted: bool,
}

impl Window {
    /// Returns the window of a whole object: true RGB is only divided by its full scale;
    /// everything else spans from the lower to the upper percentile of its finite values.
    ///
    /// RGB without a full scale takes percentiles over its three channels jointly, which keeps
    /// hue. An inverted object takes the mirrored percentiles, so that storing it the other way
    /// round changes nothing. Where both percentiles coincide in an object that is not constant
    /// (a mask with few voxels) the window spans from its minimum to its maximum.
    pub(crate) fn of(volume: &Volume, percentiles: [f64; 2]) -> Self {
        let is_grey = is_grey(volume);
        let full_scale = volume
            .full_scale
            .map(f64::from)
            .filter(|s| s.is_finite() && *s > 0.0);
        if let (false, Some(full_scale)) = (is_grey, full_scale) {
            return Self::new(0.0, full_scale, volume.inverted);
        }
        let [lower, upper] = percentiles;
        let wanted = if volume.inverted {
            [100.0 - upper, 100.0 - lower]
        } else {
            percentiles
        };
        let seen = if is_grey {
            first_channel(volume)
        } else {
            volume.values()
        };
        let padding = n_padding(volume);
        let span = |wanted| percentiles_within(seen, wanted, padding).unwrap_or([0.0, 0.0]);
        let [mut low, mut high] = span(wanted);
        if high <= low {
            [low, high] = span([0.0, 100.0]);
        }
        Self::new(low, high, volume.inverted)
    }

    /// Returns the window between two values.
    pub(crate) fn new(low: f64, high: f64, inverted: bool) -> Self {
        let span = high - low;
        let is_constant = span <= 0.0;
        let factor = if is_constant { 0.0 } else { 1.0 / span };
        // A constant object stays zeros: nothing says that it is bright.
        Self {
            low,
            factor,
            inverted: inverted && !is_constant,
        }
    }

    /// Maps `values` into `out`, as far as both reach.
    pub(crate) fn apply(self, values: &[f32], out: &mut [f32]) {
        let Self {
            low,
            factor,
            inverted,
        } = self;
        // `x * sign + start` is `x` or `1 - x`: one loop without a branch, which vectorises.
        let (sign, start) = if inverted { (-1.0, 1.0) } else { (1.0, 0.0) };
        for (mapped, &value) in out.iter_mut().zip(values) {
            let share = ((f64::from(value) - low) * factor).clamp(0.0, 1.0);
            *mapped = if value.is_finite() {
                narrow(share * sign + start)
            } else {
                0.0
            };
        }
    }
}

/// Returns true for one channel, and for three that are equal bit for bit everywhere: a grey
/// picture saved as RGB must look to the encoder as the same picture saved as grey.
#[must_use]
pub(crate) fn is_grey(volume: &Volume) -> bool {
    let [n_channels, depth, height, width] = volume.shape();
    let mut channels = volume.values().chunks_exact(depth * height * width);
    let Some(first) = channels.next().filter(|_| n_channels > 1) else {
        return true;
    };
    channels.all(|channel| {
        first
            .iter()
            .zip(channel)
            .all(|(&value, &other)| value.to_bits() == other.to_bits())
    })
}

fn first_channel(volume: &Volume) -> &[f32] {
    let [_, depth, height, width] = volume.shape();
    volume
        .values()
        .get(..depth * height * width)
        .unwrap_or_default()
}

/// Returns two percentiles (0..=100) of the finite values, linear between neighbouring ranks as
/// `numpy.percentile` does by default; `None` if no value is finite.
///
/// Exact for every input, whichever way it is found.
#[must_use]
pub(crate) fn percentiles_of(values: &[f32], wanted: [f64; 2]) -> Option<[f64; 2]> {
    percentiles_within(values, wanted, LeftOut::default())
}

/// How many of the lowest and of the highest finite values do not count.
#[derive(Debug, Clone, Copy, Default)]
struct LeftOut {
    n_lowest: u64,
    n_highest: u64,
}

impl LeftOut {
    /// Returns the last rank of `n_finite` values that counts, from the first that does.
    fn last_rank(self, n_finite: u64) -> Option<u64> {
        let n_left_out = self.n_lowest.saturating_add(self.n_highest);
        n_finite.checked_sub(n_left_out)?.checked_sub(1)
    }
}

/// Says where the padding of a volume lies among its values: it holds the darkest of them.
fn n_padding(volume: &Volume) -> LeftOut {
    let n_voxels = volume.padding.map_or(0, |padding| padding.n_voxels as u64);
    if volume.inverted {
        LeftOut {
            n_lowest: 0,
            n_highest: n_voxels,
        }
    } else {
        LeftOut {
            n_lowest: n_voxels,
            n_highest: 0,
        }
    }
}

/// As `percentiles_of`, without the lowest and highest values that are left out.
fn percentiles_within(values: &[f32], wanted: [f64; 2], left_out: LeftOut) -> Option<[f64; 2]> {
    if values.len() <= MAX_SELECTED {
        by_selecting(values, wanted, left_out)
    } else {
        by_counting(values, wanted, left_out)
    }
}

/// Finds ranks in a copy.
fn by_selecting(values: &[f32], wanted: [f64; 2], left_out: LeftOut) -> Option<[f64; 2]> {
    let finite = values.iter().filter(|value| value.is_finite());
    let mut keys: Vec<u32> = finite.map(|&value| key_of(value)).collect();
    let last_rank = left_out.last_rank(keys.len() as u64)?;
    let [first, second] = wanted.map(|percentile| {
        let (rank, share) = place_of(percentile, last_rank);
        let rank = usize::try_from(rank + left_out.n_lowest).ok()?;
        let (_, &mut below, rest) = keys.select_nth_unstable(rank);
        let above = rest.iter().min().copied().unwrap_or(below);
        let [below, above] = [below, above].map(|key| f64::from(value_of(key)));
        Some(below + share * (above - below))
    });
    Some([first?, second?])
}

/// Counts: a histogram over the upper 16 bits of an order-preserving key of each f32, then one over
/// the lower 16 bits of the few bins that hold a wanted rank. Two passes, no sort, no copy; an
/// outlier costs no accuracy.
fn by_counting(values: &[f32], wanted: [f64; 2], left_out: LeftOut) -> Option<[f64; 2]> {
    let coarse = count_upper_halves(values);
    let n_finite: u64 = coarse.iter().sum();
    let last_rank = left_out.last_rank(n_finite)?;
    let places = wanted.map(|percentile| {
        let (rank, share) = place_of(percentile, last_rank);
        (rank + left_out.n_lowest, share)
    });
    let last_rank = last_rank + left_out.n_lowest;
    // Both ranks of both percentiles; a bin wanted twice fills only the first of its tables.
    let [(first, _), (second, _)] = places;
    let mut bins = [0; 4];
    for (bin, rank) in bins.iter_mut().zip([first, first + 1, second, second + 1]) {
        (*bin, _) = bin_of(&coarse, rank.min(last_rank))?;
    }
    let fine = count_lower_halves(values, bins);
    let at = |rank: u64| {
        let (bin, n_before) = bin_of(&coarse, rank)?;
        let table = bins.iter().position(|&wanted| wanted == bin)?;
        let (low_half, _) = bin_of(fine.chunks_exact(N_HALF_KEYS).nth(table)?, rank - n_before)?;
        Some(f64::from(value_of(bin << 16 | low_half)))
    };
    let [first, second] = places.map(|(rank, share)| {
        let (below, above) = (at(rank)?, at((rank + 1).min(last_rank))?);
        Some(below + share * (above - below))
    });
    Some([first?, second?])
}

/// Returns the rank (from 0) at or below a percentile, and how far it lies towards the next.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the place is floored and clamped to 0..=last_rank"
)]
fn place_of(percentile: f64, last_rank: u64) -> (u64, f64) {
    let place = (percentile / 100.0).clamp(0.0, 1.0) * widen_u64(last_rank);
    let rank = (place.floor() as u64).min(last_rank);
    (rank, place - place.floor())
}

/// Returns the bin that holds a rank, and how many values lie in the bins before it.
fn bin_of(counts: &[u64], rank: u64) -> Option<(u32, u64)> {
    let mut n_before = 0;
    for (bin, &count) in (0_u32..).zip(counts) {
        if rank - n_before < count {
            return Some((bin, n_before));
        }
        n_before += count;
    }
    None
}

/// Counts the finite values by the upper half of their key.
fn count_upper_halves(values: &[f32]) -> Vec<u64> {
    let mut counts = in_parts(values, N_HALF_KEYS, |part| {
        // Neighbours are often equal: with a table for each of a pair, neither waits for the other.
        let mut tables = [vec![0; N_HALF_KEYS], vec![0; N_HALF_KEYS]];
        let [even, odd] = &mut tables;
        let (pairs, rest) = part.as_chunks::<2>();
        for [first, second] in pairs {
            count(even, key_of(*first) >> 16);
            count(odd, key_of(*second) >> 16);
        }
        rest.iter()
            .for_each(|value| count(even, key_of(*value) >> 16));
        let [even, odd] = tables;
        added(even, &odd)
    });
    // The exponent lies in the upper half, so infinities and NaN have bins of their own: the
    // lowest (negative) and the highest.
    for (bin, count) in (0_u32..).zip(&mut counts) {
        if !value_of(bin << 16).is_finite() {
            *count = 0;
        }
    }
    counts
}

/// Counts the values of four bins of upper halves by the lower half of their key: one table a
/// bin. What falls into a bin that is listed twice is counted in its first table.
fn count_lower_halves(values: &[f32], bins: [u32; 4]) -> Vec<u64> {
    let [first, second, third, fourth] = bins;
    let is_wanted = |value: &f32| {
        let bin = key_of(*value) >> 16;
        (bin == first) | (bin == second) | (bin == third) | (bin == fourth)
    };
    in_parts(values, bins.len() * N_HALF_KEYS, |part| {
        let mut counts = vec![0; bins.len() * N_HALF_KEYS];
        // Few values are wanted: eight at a time are looked at without a branch.
        for group in part.chunks(8) {
            if !group
                .iter()
                .fold(false, |any, value| any | is_wanted(value))
            {
                continue;
            }
            for key in group.iter().map(|value| key_of(*value)) {
                let table = (0_u32..).zip(bins).find(|&(_, bin)| bin == key >> 16);
                if let Some((table, _)) = table {
                    count(&mut counts, table << 16 | key & 0xffff);
                }
            }
        }
        counts
    })
}

/// Counts parts of the values on all threads and adds the tables.
fn in_parts(
    values: &[f32],
    n_counts: usize,
    count_part: impl Fn(&[f32]) -> Vec<u64> + Send + Sync,
) -> Vec<u64> {
    // Never so short a part that adding the tables costs more than counting.
    let part = values
        .len()
        .div_ceil(rayon::current_num_threads())
        .max(16 * n_counts);
    let counts = values
        .par_chunks(part)
        .map(count_part)
        .reduce_with(|a: Vec<u64>, b: Vec<u64>| added(a, &b));
    counts.unwrap_or_else(|| vec![0; n_counts])
}

fn count(counts: &mut [u64], index: u32) {
    if let Some(count) = counts.get_mut(usize::try_from(index).unwrap_or(usize::MAX)) {
        *count += 1;
    }
}

fn added(mut sums: Vec<u64>, counts: &[u64]) -> Vec<u64> {
    sums.iter_mut()
        .zip(counts)
        .for_each(|(sum, count)| *sum += count);
    sums
}

/// Returns a number that grows with the value: negative floats have all bits flipped, others the
/// sign bit.
fn key_of(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

/// Inverts `key_of`.
fn value_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 {
        key & !(1 << 31)
    } else {
        !key
    })
}

#[cfg(test)]
mod tests;
