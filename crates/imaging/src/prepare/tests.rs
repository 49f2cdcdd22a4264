use proptest::prelude::*;

use super::*;

fn config(side: [usize; 2]) -> InputConfig {
    InputConfig {
        side,
        max_depth: 16,
        percentiles: [0.0, 100.0],
        ..InputConfig::default()
    }
}

fn ramp(n_values: usize) -> Vec<f32> {
    (0..n_values)
        .map(|i| f32::from(u16::try_from(i % 997).unwrap()))
        .collect()
}

fn volume(shape: [usize; 4], kind: Kind) -> Volume {
    Volume::new(ramp(shape.iter().product()), shape, kind).unwrap()
}

/// Plane `d` of channel `c` of an input.
fn plane(input: &Input, c: usize, d: usize) -> &[f32] {
    let [_, depth, height, width] = input.shape();
    &input.values()[(c * depth + d) * height * width..][..height * width]
}

fn close(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

#[test]
fn depth_becomes_a_multiple_of_the_patch_depth() {
    for (stored, kind, wanted) in [
        ([1, 1, 9, 7], Kind::Image, 1),
        ([3, 1, 9, 7], Kind::Image, 1),
        ([1, 1, 9, 7], Kind::Volume, 1),
        ([3, 1, 9, 7], Kind::Video, 1),
        ([1, 2, 9, 7], Kind::Volume, 4),
        ([3, 5, 9, 7], Kind::Video, 4),
        ([1, 6, 9, 7], Kind::Volume, 8),
        ([1, 7, 9, 7], Kind::Video, 8),
        ([1, 13, 9, 7], Kind::Volume, 12),
        ([3, 40, 9, 7], Kind::Video, 16),
        ([1, 40, 9, 7], Kind::Volume, 16),
    ] {
        let input = prepare(&volume(stored, kind), &config([12, 16])).unwrap();
        assert_eq!(input.shape(), [3, wanted, 12, 16], "{stored:?} {kind:?}");
    }
}

#[test]
fn padding_is_centred_and_the_odd_line_is_at_the_end() {
    let bright = |shape: [usize; 4]| {
        let mut object = volume(shape, Kind::Image);
        object.inverted = true; // 1 - x: the ramp's zero becomes bright, padding must not.
        object
    };
    // 2 x 4 into 5 x 4: rows 1 and 2 of five; one row above, two below.
    let input = prepare(&bright([1, 1, 2, 4]), &config([5, 4])).unwrap();
    let seventh = |n: u8| 1.0 - f32::from(n) / 7.0;
    let rows: Vec<f32> = (0..8).map(seventh).collect();
    let wanted = [vec![0.0; 4], rows.clone(), vec![0.0; 8]].concat();
    for channel in 0..3 {
        assert!(
            close(plane(&input, channel, 0), &wanted, 1e-6),
            "{:?}",
            input.values()
        );
    }
    // 4 x 2 into 4 x 5: column 1 and 2.
    let input = prepare(&bright([1, 1, 4, 2]), &config([4, 5])).unwrap();
    let wanted: Vec<f32> = rows
        .chunks(2)
        .flat_map(|pair| [0.0, pair[0], pair[1], 0.0, 0.0])
        .collect();
    assert!(close(plane(&input, 0, 0), &wanted, 1e-6));
}

#[test]
fn the_physical_aspect_is_kept_where_spacing_is_known() {
    for (height_mm, width_mm, wanted) in [
        (None, Some(2.0), [20, 20]),
        (Some(1.0), Some(1.0), [20, 20]),
        (Some(0.5), Some(2.0), [5, 20]),
        (Some(3.0), Some(1.0), [20, 7]),
        (Some(1e-9), Some(1.0), [1, 20]),
        (Some(0.0), Some(1.0), [20, 20]),
        (Some(f64::NAN), Some(1.0), [20, 20]),
        (Some(1e308), Some(1e-308), [20, 1]),
    ] {
        let mut object = volume([1, 1, 40, 40], Kind::Image);
        object.spacing = [None, height_mm, width_mm];
        let found = fit([40, 40], in_plane_steps(&object), [20, 20], true);
        assert!(
            found == wanted || found == [1, 1],
            "{height_mm:?} {width_mm:?}: {found:?}"
        );
        assert_eq!(
            prepare(&object, &config([20, 20])).unwrap().shape(),
            [3, 1, 20, 20]
        );
    }
}

#[test]
fn video_samples_frames_in_the_middle_of_equal_parts() {
    assert_eq!(uniform_frames(8, 4), [1, 3, 5, 7]);
    assert_eq!(uniform_frames(30, 4), [3, 11, 18, 26]);
    assert_eq!(uniform_frames(2, 4), [0, 0, 1, 1]);
    assert_eq!(uniform_frames(3, 4), [0, 1, 1, 2]);
    // Frames are taken, never mixed: frame f holds the value f everywhere.
    let values = (0_u8..9).flat_map(|f| [f32::from(f) / 8.0; 4]).collect();
    let video = Volume::new(values, [1, 9, 2, 2], Kind::Video).unwrap();
    let input = prepare(&video, &config([2, 2])).unwrap();
    let found: Vec<f32> = (0..8).map(|d| plane(&input, 0, d)[0] * 8.0).collect();
    assert!(
        close(&found, &[0.0, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 8.0], 1e-6),
        "{found:?}"
    );
}

#[test]
fn a_volume_is_antialiased_along_its_depth() {
    // Every other slice bright: sampling would give all or nothing, a mean gives a half.
    let values = (0_u8..64).flat_map(|d| [f32::from(d % 2); 4]).collect();
    let object = Volume::new(values, [1, 64, 2, 2], Kind::Volume).unwrap();
    let input = prepare(&object, &config([2, 2])).unwrap();
    assert!((1..15).all(|d| (plane(&input, 0, d)[0] - 0.5).abs() < 1e-6));
}

#[test]
fn an_outlier_is_clamped_before_it_can_bleed() {
    let mut values: Vec<f32> = ramp(400).into_iter().map(|v| v % 2.0).collect();
    let plain = Volume::new(values.clone(), [1, 1, 20, 20], Kind::Image).unwrap();
    let config = InputConfig {
        side: [10, 10],
        ..InputConfig::default()
    };
    let wanted = prepare(&plain, &config).unwrap();
    values[1] = 1e30; // 0.25 % of the voxels: above the upper percentile
    let outlier = Volume::new(values, [1, 1, 20, 20], Kind::Image).unwrap();
    assert!(close(
        prepare(&outlier, &config).unwrap().values(),
        wanted.values(),
        1e-6
    ));
}

#[test]
fn scaled_keeps_up_to_twice_the_side_and_never_grows() {
    let config = config([10, 10]);
    for (stored, kind, spacing, wanted) in [
        ([1, 1, 7, 9], Kind::Image, [None; 3], [1, 1, 7, 9]),
        ([1, 1, 80, 40], Kind::Image, [None; 3], [1, 1, 20, 10]),
        ([3, 40, 80, 40], Kind::Video, [None; 3], [3, 32, 20, 10]),
        ([1, 40, 5, 6], Kind::Volume, [None; 3], [1, 32, 5, 6]),
        // Pixels become square at the finer of both spacings.
        (
            [1, 3, 4, 6],
            Kind::Volume,
            [Some(5.0), Some(2.0), Some(1.0)],
            [1, 3, 8, 6],
        ),
    ] {
        let mut object = volume(stored, kind);
        object.spacing = spacing;
        let kept = scaled(&object, &config).unwrap();
        assert_eq!(kept.shape(), wanted, "{stored:?}");
        assert_eq!(kept.values().len(), wanted.iter().product::<usize>());
        assert!(kept.values().iter().all(|v| (0.0..=1.0).contains(v)));
    }
}

#[test]
fn a_million_planes_of_one_pixel_stay_small() {
    let object = volume([1, 1_000_000, 1, 1], Kind::Volume);
    assert_eq!(
        prepare(&object, &config([64, 64])).unwrap().shape(),
        [3, 16, 64, 64]
    );
}

#[test]
fn a_senseless_config_is_refused_and_unknown_fields_too() {
    let sound = InputConfig::default();
    sound.validate().unwrap();
    for broken in [
        InputConfig {
            side: [0, 224],
            ..sound.clone()
        },
        InputConfig {
            side: [1 << 40, 1 << 40],
            ..sound.clone()
        },
        InputConfig {
            patch_depth: 0,
            ..sound.clone()
        },
        InputConfig {
            max_depth: 0,
            ..sound.clone()
        },
        InputConfig {
            max_depth: 66,
            ..sound.clone()
        },
        InputConfig {
            percentiles: [99.5, 0.5],
            ..sound.clone()
        },
        InputConfig {
            percentiles: [f64::NAN, 1.0],
            ..sound.clone()
        },
        InputConfig {
            view_scale: 0,
            ..sound.clone()
        },
    ] {
        assert!(broken.validate().is_err(), "{broken:?}");
        assert!(prepare(&volume([1, 1, 2, 2], Kind::Image), &broken).is_err());
    }
    let text = serde_json::to_string(&sound).unwrap();
    assert_eq!(serde_json::from_str::<InputConfig>(&text).unwrap(), sound);
    assert!(serde_json::from_str::<InputConfig>(r#"{"sides": [2, 2]}"#).is_err());
}

/// An object with at least two values, which are whole numbers.
fn object() -> impl Strategy<Value = Volume> {
    let kind = prop_oneof![Just(Kind::Video), Just(Kind::Volume)];
    ([1..7_usize, 2..9_usize, 2..9_usize], kind).prop_flat_map(|([d, h, w], kind)| {
        prop::collection::vec(0..4000_u16, d * h * w).prop_map(move |stored| {
            let mut values: Vec<f32> = stored.into_iter().map(f32::from).collect();
            values[0] = 4000.0;
            values[1] = 0.0;
            Volume::new(values, [1, d, h, w], kind).unwrap()
        })
    })
}

proptest! {
    #[test]
    fn rescaling_the_stored_values_changes_nothing(
        object in object(),
        slope in 0.1_f32..10.0,
        intercept in -1000.0_f32..1000.0,
    ) {
        let values = object.values().iter().map(|v| v * slope + intercept).collect();
        let other = Volume::new(values, object.shape(), object.kind).unwrap();
        let config = InputConfig { side: [6, 5], ..InputConfig::default() };
        let (a, b) = (prepare(&object, &config).unwrap(), prepare(&other, &config).unwrap());
        prop_assert!(close(a.values(), b.values(), 1e-5));
    }

    #[test]
    fn grey_saved_as_rgb_equals_grey(object in object()) {
        let [_, d, h, w] = object.shape();
        let mut rgb = Volume::new(object.values().repeat(3), [3, d, h, w], object.kind).unwrap();
        rgb.full_scale = Some(65535.0);
        let config = InputConfig { side: [6, 5], ..InputConfig::default() };
        prop_assert_eq!(prepare(&rgb, &config).unwrap(), prepare(&object, &config).unwrap());
    }

    #[test]
    fn a_negative_stored_as_monochrome1_equals_the_positive(object in object()) {
        let values = object.values().iter().map(|v| 4095.0 - v).collect();
        let mut negative = Volume::new(values, object.shape(), object.kind).unwrap();
        negative.inverted = true;
        let config = InputConfig { side: [6, 5], ..InputConfig::default() };
        let (a, b) = (prepare(&negative, &config).unwrap(), prepare(&object, &config).unwrap());
        prop_assert!(close(a.values(), b.values(), 1e-6));
    }

    #[test]
    fn every_input_is_within_0_and_1(object in object(), inverted in any::<bool>()) {
        let mut object = object;
        object.inverted = inverted;
        let input = prepare(&object, &config([6, 5])).unwrap();
        prop_assert!(input.values().iter().all(|v| (0.0..=1.0).contains(v)));
    }
}

#[test]
fn planes_keep_their_size_and_the_window_of_the_whole_object() {
    let values = (0_u8..24).map(f32::from).collect();
    let volume = Volume::new(values, [1, 4, 2, 3], Kind::Volume).unwrap();
    let planes = scaled_planes(&volume, [0.0, 100.0], &[3, 0]).unwrap();
    assert_eq!(planes.shape(), [1, 2, 2, 3]);
    let wanted = [18, 19, 20, 21, 22, 23, 0, 1, 2, 3, 4, 5].map(|x: u8| f32::from(x) / 23.0);
    for (found, wanted) in planes.values().iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-6);
    }
}

#[test]
fn planes_of_colour_keep_three_channels_and_of_grey_one() {
    let values: Vec<f32> = (0_u8..24).map(f32::from).collect();
    let mut volume = Volume::new(values.clone(), [3, 2, 2, 2], Kind::Video).unwrap();
    volume.full_scale = Some(100.0);
    let planes = scaled_planes(&volume, [0.5, 99.5], &[1]).unwrap();
    assert_eq!(planes.shape(), [3, 1, 2, 2]);
    assert!((planes.values()[4] - 0.12).abs() < 1e-6);
    let grey = Volume::new(values[..8].repeat(3), [3, 2, 2, 2], Kind::Video).unwrap();
    let planes = scaled_planes(&grey, [0.5, 99.5], &[0, 1, 1]).unwrap();
    assert_eq!(planes.shape(), [1, 3, 2, 2]);
}

#[test]
fn planes_that_are_not_there_are_refused() {
    let volume = Volume::new(vec![0.0; 8], [1, 2, 2, 2], Kind::Volume).unwrap();
    assert!(scaled_planes(&volume, [0.5, 99.5], &[2]).is_err());
    assert!(scaled_planes(&volume, [0.5, 99.5], &[]).is_err());
    assert!(scaled_planes(&volume, [99.5, 0.5], &[0]).is_err());
    assert!(scaled_planes(&volume, [f64::NAN, 99.5], &[0]).is_err());
}

#[test]
fn square_sides_count_in_the_finer_spacing() {
    let mut volume = Volume::new(vec![0.0; 12], [1, 1, 3, 4], Kind::Image).unwrap();
    assert_eq!(square_sides(&volume).map(as_index), [3, 4]);
    volume.spacing = [None, Some(1.0), Some(0.5)];
    assert_eq!(square_sides(&volume).map(as_index), [6, 4]);
}
