use proptest::prelude::*;

use super::*;
use crate::intensity::percentiles_of;

#[derive(serde::Deserialize)]
struct Golden {
    resampled: Vec<Resampled>,
    percentiles: Vec<Percentiles>,
}

#[derive(serde::Deserialize)]
struct Resampled {
    from: [usize; 3],
    to: [usize; 3],
    values: Vec<f32>,
    wanted: Vec<f32>,
}

#[derive(serde::Deserialize)]
struct Percentiles {
    values: Vec<f32>,
    wanted: [f64; 2],
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../../testdata/resample/pillow.json")).unwrap()
}

#[test]
fn grids_are_resampled_as_pillow_does() {
    for case in golden().resampled {
        let found = resample(&case.values, case.from, case.to).unwrap();
        assert_eq!(found.len(), case.wanted.len());
        for (found, wanted) in found.into_iter().zip(case.wanted) {
            // Values up to 3000, at most a hundred f32 additions, 8 digits in the file.
            assert!(
                (found - wanted).abs() < 1e-3,
                "{:?}: {found} {wanted}",
                case.from
            );
        }
    }
}

#[test]
fn percentiles_are_those_of_numpy() {
    for case in golden().percentiles {
        let found = percentiles_of(&case.values, [0.5, 99.5]).unwrap();
        for (found, wanted) in found.into_iter().zip(case.wanted) {
            assert!(
                (found - wanted).abs() <= 1e-12 * wanted.abs(),
                "{found} {wanted}"
            );
        }
    }
}

#[test]
fn a_shape_that_is_empty_or_not_filled_is_refused() {
    for (n_values, from, to) in [
        (4, [1, 2, 3], [1, 1, 1]),
        (4, [1, 2, 2], [0, 1, 1]),
        (0, [0, 2, 2], [1, 1, 1]),
        (4, [1, 2, 2], [usize::MAX, 2, 2]),
    ] {
        assert!(
            resample(&vec![0.0; n_values], from, to).is_err(),
            "{from:?} {to:?}"
        );
    }
}

#[test]
fn memory_stays_near_the_larger_grid_when_one_axis_is_extreme() {
    // Planes of one voxel that grow: done carelessly, 200,000 planes of 224 x 224.
    let line = vec![0.5; 200_000];
    let grown = resample(&line, [200_000, 1, 1], [64, 224, 224]).unwrap();
    assert!(grown.iter().all(|v| (v - 0.5).abs() < 1e-4));
    // A plane of one row that grows to many: columns shrink before.
    let grown = resample(&line, [1, 1, 200_000], [1, 224, 224]).unwrap();
    assert!(grown.iter().all(|v| (v - 0.5).abs() < 1e-4));
}

fn sides() -> impl Strategy<Value = [usize; 3]> {
    [1..9_usize, 1..20_usize, 1..20_usize]
}

/// A grid of random values with its sides.
fn grid() -> impl Strategy<Value = (Vec<f32>, [usize; 3])> {
    sides().prop_flat_map(|from| {
        let n_values = from.iter().product::<usize>();
        (
            prop::collection::vec(-1000.0_f32..3000.0, n_values),
            Just(from),
        )
    })
}

/// The mean position of a grid's mass along each axis, as a share of the side.
fn centre_of_mass(values: &[f32], sides: [usize; 3]) -> [f64; 3] {
    let [_, height, width] = sides;
    let total: f64 = values.iter().map(|&v| f64::from(v)).sum();
    let strides = [height * width, width, 1];
    [0, 1, 2].map(|axis| {
        let place = |index: usize| as_f64(index / strides[axis] % sides[axis]) + 0.5;
        let sum: f64 = values
            .iter()
            .enumerate()
            .map(|(i, &v)| f64::from(v) * place(i))
            .sum();
        sum / total / as_f64(sides[axis])
    })
}

proptest! {
    #[test]
    fn constants_are_kept(from in sides(), to in sides(), constant in -3000.0_f32..3000.0) {
        let values = vec![constant; from.iter().product()];
        for value in resample(&values, from, to).unwrap() {
            prop_assert!((value - constant).abs() <= 1e-6 * constant.abs());
        }
    }

    #[test]
    fn the_same_size_changes_no_bit((values, from) in grid()) {
        prop_assert_eq!(resample(&values, from, from).unwrap(), values);
    }

    #[test]
    fn no_value_leaves_the_range_of_the_input((values, from) in grid(), to in sides()) {
        let low = values.iter().copied().fold(f32::INFINITY, f32::min);
        let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for value in resample(&values, from, to).unwrap() {
            prop_assert!(value >= low - 1e-2 && value <= high + 1e-2, "{value} {low} {high}");
        }
    }

    #[test]
    fn mirrored_input_gives_mirrored_output((values, from) in grid(), to in sides()) {
        let forward = resample(&values, from, to).unwrap();
        let mirrored: Vec<f32> = values.into_iter().rev().collect();
        let backward = resample(&mirrored, from, to).unwrap();
        for (a, b) in forward.iter().zip(backward.iter().rev()) {
            prop_assert!((a - b).abs() < 1e-2, "{a} {b}");
        }
    }

    #[test]
    fn a_linear_ramp_keeps_its_centre_and_its_slope(n_from in 1..60_usize, n_to in 1..60_usize) {
        // Value = physical position of the voxel's centre, in 0..1: physical size is kept if the
        // resampled values are again the positions of their voxels.
        let place = |index: usize, n: usize| (as_f64(index) + 0.5) / as_f64(n);
        let ramp: Vec<f32> = (0..n_from).map(|i| narrow(place(i, n_from))).collect();
        for axis in 0..3 {
            let (mut from, mut to) = ([1; 3], [1; 3]);
            (from[axis], to[axis]) = (n_from, n_to);
            let found = resample(&ramp, from, to).unwrap();
            let mean = found.iter().map(|&v| f64::from(v)).sum::<f64>() / as_f64(n_to);
            prop_assert!((mean - 0.5).abs() < 1e-5, "{mean}");
            // The triangle reaches one coarse step to each side; nearer to the border it is cut.
            let reach = 1.0 / as_f64(n_from.min(n_to)) + 0.5 / as_f64(n_from);
            // A sampled triangle is exactly linear only where it is as wide as a whole number of
            // inputs; elsewhere it leans by a small part of one input voxel (Pillow's does too).
            let lean = if n_from <= n_to || n_from % n_to == 0 { 0.0 } else { 0.1 };
            for (index, &value) in found.iter().enumerate() {
                let wanted = place(index, n_to);
                if wanted > reach && wanted < 1.0 - reach {
                    let off = (f64::from(value) - wanted).abs();
                    prop_assert!(off <= lean / as_f64(n_from) + 1e-6, "{off}");
                }
            }
        }
    }

    #[test]
    fn a_smooth_blob_keeps_its_physical_place(to in [4..14_usize, 8..40_usize, 8..40_usize]) {
        let from = [8, 20, 24];
        let values: Vec<f32> = (0..8 * 20 * 24)
            .map(|index| {
                let [d, h, w] = [index / 480, index / 24 % 20, index % 24].map(as_f64);
                let squared = ((d - 3.0) / 1.5).powi(2) + ((h - 8.0) / 3.0).powi(2)
                    + ((w - 14.0) / 3.0).powi(2);
                narrow((-0.5 * squared).exp())
            })
            .collect();
        let before = centre_of_mass(&values, from);
        let after = centre_of_mass(&resample(&values, from, to).unwrap(), to);
        for (before, after) in before.into_iter().zip(after) {
            prop_assert!((before - after).abs() < 0.01, "{before} {after}");
        }
    }
}
