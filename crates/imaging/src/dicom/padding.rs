//! Padding: stored values that stand for no pixel, outside the circle of a CT or the field of a film.
//!
//! While an object is put together its padding voxels hold `MARK`. Once it is whole, `settle` gives
//! them its least true value: they look as dark as the background, and no value outside the range
//! of the true ones stretches a window.
//!
//! # Source
//! DICOM PS3.3 C.7.5.1.1.2 and C.7.6.24: compared with stored values, before the modality transform.

use dicom_dictionary_std::tags;
use rayon::prelude::*;

use super::dataset::DataSet;
use crate::reason::Code;
use crate::samples::narrow;
use crate::volume::{Padding, Volume};

/// What marks a padding voxel until the object is whole. Unlike NaN it equals itself, so copies of
/// a slice still compare as equal. A modality transform makes it of no stored integer unless it
/// leaves the range of f32.
const MARK: f32 = f32::NEG_INFINITY;

/// What becomes of padding voxels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marking {
    /// They are marked.
    Padding,
    /// They keep their value: for objects in which everything would be padding.
    Nothing,
}

/// The stored values that are padding, both ends included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StoredPadding {
    low: f32,
    high: f32,
    is_nan: bool,
}

impl StoredPadding {
    /// Reads the padding of monochrome pixels; `None` if there is none.
    ///
    /// `PixelPaddingValue` and its limit have 16 bits at any `BitsAllocated`, so that an f32
    /// compares them exactly.
    pub(crate) fn of(set: &DataSet<'_>, is_float: bool, signed: bool) -> Option<Self> {
        let integer = |tag| {
            let raw = set.u16(tag)?;
            Some(if signed {
                f32::from(raw.cast_signed())
            } else {
                f32::from(raw)
            })
        };
        let float = |single, double| {
            let single = set.u32(single).map(f32::from_bits);
            single.or_else(|| set.f64(double).map(narrow))
        };
        let (first, last) = if is_float {
            (
                float(
                    tags::FLOAT_PIXEL_PADDING_VALUE,
                    tags::DOUBLE_FLOAT_PIXEL_PADDING_VALUE,
                )?,
                float(
                    tags::FLOAT_PIXEL_PADDING_RANGE_LIMIT,
                    tags::DOUBLE_FLOAT_PIXEL_PADDING_RANGE_LIMIT,
                ),
            )
        } else {
            (
                integer(tags::PIXEL_PADDING_VALUE)?,
                integer(tags::PIXEL_PADDING_RANGE_LIMIT),
            )
        };
        let last = last.unwrap_or(first);
        Some(Self {
            low: first.min(last),
            high: first.max(last),
            is_nan: first.is_nan(),
        })
    }

    /// Maps stored values by `meaning` in place, and marks those that are padding.
    pub(crate) fn mark(self, values: &mut [f32], meaning: impl Fn(f32) -> f32) {
        let Self { low, high, is_nan } = self;
        for value in values {
            let stored = *value;
            // Without branches, which would keep the loop from vectors.
            let is_padding = (low <= stored) & (stored <= high) | is_nan & stored.is_nan();
            let meant = meaning(stored);
            *value = if is_padding { MARK } else { meant };
        }
    }
}

/// Independent results, so that the compiler can use vectors.
const N_LANES: usize = 16;

/// Counts the marked voxels of decoded pixels and finds the darkest of the others, `MARK` if there
/// is none.
pub(crate) fn survey(values: &[f32], is_inverted: bool) -> Padding {
    let start = if is_inverted {
        f32::NEG_INFINITY
    } else {
        f32::INFINITY
    };
    let (mut n_voxels, mut darkest) = (0, [start; N_LANES]);
    // Chunks short enough for a count of 32 bits in each lane.
    for part in values.chunks(PART) {
        let mut n_marked = [0_u32; N_LANES];
        for chunk in part.chunks(N_LANES) {
            for ((value, n), dark) in chunk.iter().zip(&mut n_marked).zip(&mut darkest) {
                *n += u32::from(*value == MARK);
                let is_darker = if is_inverted {
                    *value > *dark
                } else {
                    *value < *dark
                };
                *dark = if is_darker & value.is_finite() {
                    *value
                } else {
                    *dark
                };
            }
        }
        n_voxels += n_marked.iter().map(|&n| n as usize).sum::<usize>();
    }
    let value = darkest
        .into_iter()
        .reduce(if is_inverted { f32::max } else { f32::min });
    let value = value.filter(|value| value.is_finite()).unwrap_or(MARK);
    Padding { n_voxels, value }
}

/// Adds up what two parts of one object hold; `None` for one that states no padding.
pub(crate) fn joined(a: Option<Padding>, b: Option<Padding>, is_inverted: bool) -> Option<Padding> {
    let (Some(a), Some(b)) = (a, b) else {
        // Where only some parts state padding, the darkest value is not known: NaN.
        return a.or(b).map(|one| Padding {
            value: f32::NAN,
            ..one
        });
    };
    let value = match (a.value, b.value) {
        (a, b) if a == MARK => b,
        (a, b) if b == MARK => a,
        (a, b) if a.is_nan() || b.is_nan() => f32::NAN,
        (a, b) if is_inverted => a.max(b),
        (a, b) => a.min(b),
    };
    let n_voxels = a.n_voxels + b.n_voxels;
    Some(Padding { n_voxels, value })
}

/// Values that are looked at together: a whole series is larger than any cache.
const PART: usize = 1 << 16;

/// Gives the marked voxels of a whole object its least true value; the greatest one where low
/// values are shown bright. Returns false, and changes nothing, if no true value is left.
pub(crate) fn settle(volume: &mut Volume) -> bool {
    let Some(mut found) = volume.padding.filter(|padding| padding.n_voxels > 0) else {
        volume.padding = None;
        return true;
    };
    if found.value.is_nan() {
        found = survey(volume.values(), volume.inverted);
    }
    let Padding { n_voxels, value } = found;
    if value == MARK {
        return false;
    }
    let parts = volume.values_mut().par_chunks_mut(PART);
    parts.for_each(|part| {
        for voxel in part {
            *voxel = if *voxel == MARK { value } else { *voxel };
        }
    });
    volume.padding = Some(found);
    let n_all = volume.values().len();
    let detail = format!("{n_voxels} of {n_all} voxels are padding; statistics leave them out");
    volume.note(Code::Padding, detail);
    true
}

/// Notes that an object states padding of which nothing would be left, and was read as stored.
pub(crate) fn note_all(volume: &mut Volume) {
    let detail = "the stated padding covers every voxel; it was ignored";
    volume.note(Code::Padding, detail);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Kind;

    fn settled(values: &[f32], is_inverted: bool) -> (bool, Volume) {
        let shape = [1, 1, 1, values.len()];
        let mut volume = Volume::new(values.to_vec(), shape, Kind::Image).unwrap();
        volume.inverted = is_inverted;
        volume.padding = Some(survey(values, is_inverted));
        (settle(&mut volume), volume)
    }

    #[test]
    fn padding_becomes_the_darkest_true_value() {
        let values = [3.0, MARK, -2.0, MARK, 8.0];
        let (_, volume) = settled(&values, false);
        assert_eq!(volume.values(), [3.0, -2.0, -2.0, -2.0, 8.0]);
        assert_eq!(
            volume.padding,
            Some(Padding {
                n_voxels: 2,
                value: -2.0
            })
        );
        let (_, volume) = settled(&values, true);
        assert_eq!(volume.values(), [3.0, 8.0, -2.0, 8.0, 8.0]);
    }

    #[test]
    fn parts_are_surveyed_alike_alone_and_joined() {
        let values: Vec<f32> = (0_u16..100)
            .map(|i| if i % 3 == 0 { MARK } else { f32::from(i) })
            .collect();
        for is_inverted in [false, true] {
            let whole = survey(&values, is_inverted);
            let [first, second] =
                [&values[..1], &values[1..]].map(|part| survey(part, is_inverted));
            assert!(first.value.is_infinite());
            assert_eq!(joined(Some(first), Some(second), is_inverted), Some(whole));
            let value = if is_inverted { 98.0 } else { 1.0 };
            let wanted = Padding {
                n_voxels: 34,
                value,
            };
            assert_eq!(whole, wanted);
        }
        // A part that says nothing leaves the darkest value open.
        let open = joined(Some(survey(&values, false)), None, false).unwrap();
        assert!(open.value.is_nan() && open.n_voxels == 34);
        assert_eq!(joined(None, None, false), None);
    }

    #[test]
    fn without_a_true_value_nothing_is_settled() {
        assert!(!settled(&[MARK, MARK], false).0);
        let (is_settled, volume) = settled(&[1.0, 2.0], false);
        assert!(is_settled && volume.padding.is_none() && volume.reasons.is_empty());
    }
}
