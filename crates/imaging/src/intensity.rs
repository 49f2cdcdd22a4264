//! Values of any unit -> 0..1: percentiles of the whole object, and the window that they span.

use rayon::prelude::*;

use crate::samples::{narrow, widen_u64};
use crate::volume::Volume;

/// Values of the upper half of a key; as many as of the lower half.
const N_HALF_KEYS: usize = 1 << 16;

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
        let span = |wanted| percentiles_of(seen, wanted).unwrap_or([0.0, 0.0]);
        let [mut low, mut high] = span(wanted);
        if high <= low {
            [low, high] = span([0.0, 100.0]);
        }
        Self::new(low, high, volume.inverted)
    }

    fn new(low: f64, high: f64, inverted: bool) -> Self {
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
/// Exact for every input: a histogram over the upper 16 bits of an order-preserving key of each
/// f32, then one over the lower 16 bits of the few bins that hold a wanted rank. Two passes, no
/// sort, no copy; an outlier costs no accuracy.
#[must_use]
pub(crate) fn percentiles_of(values: &[f32], wanted: [f64; 2]) -> Option<[f64; 2]> {
    let coarse = count_upper_halves(values);
    let n_finite: u64 = coarse.iter().sum();
    let last_rank = n_finite.checked_sub(1)?;
    let places = wanted.map(|percentile| place_of(percentile, last_rank));
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resample::{as_f64, as_index};
    use crate::volume::Kind;

    fn volume(values: Vec<f32>, n_channels: usize) -> Volume {
        let width = values.len() / n_channels;
        Volume::new(values, [n_channels, 1, 1, width], Kind::Image).unwrap()
    }

    fn windowed(volume: &Volume, percentiles: [f64; 2]) -> Vec<f32> {
        let mut out = vec![f32::NAN; volume.values().len()];
        Window::of(volume, percentiles).apply(volume.values(), &mut out);
        out
    }

    /// What numpy does: sort, then interpolate between the two nearest ranks.
    fn by_sorting(values: &[f32], percentile: f64) -> f64 {
        let mut sorted: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        sorted.sort_by(f64::total_cmp);
        let place = percentile / 100.0 * as_f64(sorted.len() - 1);
        let (below, above) = (sorted[as_index(place)], sorted[as_index(place.ceil())]);
        below + place.fract() * (above - below)
    }

    proptest! {
        #[test]
        fn percentiles_equal_those_of_a_sort(
            values in prop::collection::vec(
                prop_oneof![-1e38_f32..1e38, -3.0_f32..3.0, (-5_i16..5).prop_map(f32::from)],
                1..200,
            ),
            lower in 0.0..50.0_f64,
            upper in 50.0..=100.0_f64,
        ) {
            let found = percentiles_of(&values, [lower, upper]).unwrap();
            for (found, percentile) in found.into_iter().zip([lower, upper]) {
                let wanted = by_sorting(&values, percentile);
                prop_assert!((found - wanted).abs() <= 1e-9 * wanted.abs(), "{found} {wanted}");
            }
        }

        #[test]
        fn keys_keep_the_order_and_can_be_undone(a in any::<f32>(), b in any::<f32>()) {
            prop_assert_eq!(value_of(key_of(a)).to_bits(), a.to_bits());
            prop_assert_eq!(key_of(a).cmp(&key_of(b)), a.total_cmp(&b));
        }
    }

    #[test]
    fn percentiles_match_numpy() {
        // numpy.percentile([3, 1, 4, 1, 5, 9, 2, 6], [10, 75]) -> [1.0, 5.25]
        let values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0];
        assert_eq!(percentiles_of(&values, [10.0, 75.0]), Some([1.0, 5.25]));
    }

    #[test]
    fn values_that_are_not_finite_are_ignored_and_become_zero() {
        let values = vec![f32::NAN, 0.0, 10.0, f32::INFINITY, f32::NEG_INFINITY];
        assert_eq!(percentiles_of(&values, [0.0, 100.0]), Some([0.0, 10.0]));
        let mut object = volume(values, 1);
        assert_eq!(windowed(&object, [0.0, 100.0]), [0.0, 0.0, 1.0, 0.0, 0.0]);
        object.inverted = true;
        assert_eq!(windowed(&object, [0.0, 100.0]), [0.0, 1.0, 0.0, 0.0, 0.0]);
        let nothing = volume(vec![f32::NAN; 3], 1);
        assert_eq!(windowed(&nothing, [0.5, 99.5]), [0.0; 3]);
    }

    #[test]
    fn a_constant_object_becomes_zeros_in_either_polarity() {
        for inverted in [false, true] {
            let mut object = volume(vec![7.0; 4], 1);
            object.inverted = inverted;
            assert_eq!(windowed(&object, [0.5, 99.5]), [0.0; 4]);
        }
    }

    #[test]
    fn a_few_bright_voxels_on_an_even_ground_stay_visible() {
        let mut values = vec![0.0; 1000];
        values[500] = 1.0;
        assert!((windowed(&volume(values, 1), [0.5, 99.5])[500] - 1.0).abs() < f32::EPSILON);
    }

    #[test]
    fn inverting_the_stored_values_and_the_polarity_changes_nothing() {
        let values: Vec<f32> = (0_u8..200).map(|v| f32::from(v).powi(2)).collect();
        let plain = windowed(&volume(values.clone(), 1), [0.5, 90.0]);
        let mut stored = volume(values.iter().map(|v| 40_000.0 - v).collect(), 1);
        stored.inverted = true;
        for (a, b) in windowed(&stored, [0.5, 90.0]).into_iter().zip(plain) {
            assert!((a - b).abs() < 1e-6);
        }
    }

    #[test]
    fn true_rgb_is_divided_by_its_full_scale_and_grey_rgb_is_not() {
        let mut colour = volume(vec![51.0, 51.0, 102.0, 102.0, 255.0, 0.0], 3);
        colour.full_scale = Some(255.0);
        assert_eq!(
            windowed(&colour, [0.5, 99.5]),
            [0.2, 0.2, 0.4, 0.4, 1.0, 0.0]
        );
        let mut grey = volume([51.0, 102.0].repeat(3), 3);
        grey.full_scale = Some(255.0);
        assert_eq!(windowed(&grey, [0.0, 100.0]), [0.0, 1.0].repeat(3));
        // Without a full scale: percentiles over all channels jointly.
        colour.full_scale = None;
        assert_eq!(
            windowed(&colour, [0.0, 100.0]),
            [0.2, 0.2, 0.4, 0.4, 1.0, 0.0]
        );
    }

    #[test]
    fn tiny_and_huge_spans_keep_their_digits() {
        for scale in [1e-40_f32, 1.0, 1e38] {
            let object = volume([-3.0, -1.0, 1.0, 3.0].map(|v| v * scale).to_vec(), 1);
            let shares = windowed(&object, [0.0, 100.0]);
            for (share, wanted) in shares.into_iter().zip([0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]) {
                assert!((share - wanted).abs() < 1e-4, "{scale}: {share}");
            }
        }
    }
}
