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
        let found = by_selecting(&values, [lower, upper], LeftOut::default()).unwrap();
        prop_assert_eq!(by_counting(&values, [lower, upper], LeftOut::default()), Some(found));
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
    assert_eq!(
        by_selecting(&values, [0.0, 100.0], LeftOut::default()),
        Some([0.0, 10.0])
    );
    assert_eq!(
        by_counting(&values, [0.0, 100.0], LeftOut::default()),
        Some([0.0, 10.0])
    );
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

proptest! {
    #[test]
    fn values_left_out_at_an_end_do_not_count(
        values in prop::collection::vec(-1e3_f32..1e3, 1..200),
        n_copies in 1_u8..100,
        wanted in (0.0..100.0, 0.0..100.0).prop_map(|(a, b): (f64, f64)| [a.min(b), a.max(b)]),
        is_lowest: bool,
    ) {
        let nothing = LeftOut::default();
        let n = u64::from(n_copies);
        let (end, left_out) = if is_lowest {
            (values.iter().copied().fold(f32::INFINITY, f32::min), LeftOut { n_lowest: n, ..nothing })
        } else {
            let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            (greatest, LeftOut { n_highest: n, ..nothing })
        };
        let padded = [values.as_slice(), &vec![end; usize::from(n_copies)]].concat();
        let alone = by_selecting(&values, wanted, nothing);
        prop_assert_eq!(by_selecting(&padded, wanted, left_out), alone);
        prop_assert_eq!(by_counting(&padded, wanted, left_out), alone);
    }
}

#[test]
fn more_values_left_out_than_there_are_leave_nothing() {
    for n_lowest in [3, 4, u64::MAX] {
        let left_out = LeftOut {
            n_lowest,
            n_highest: 1,
        };
        assert_eq!(by_selecting(&[1.0, 2.0, 3.0], [0.0, 100.0], left_out), None);
        assert_eq!(by_counting(&[1.0, 2.0, 3.0], [0.0, 100.0], left_out), None);
    }
}
