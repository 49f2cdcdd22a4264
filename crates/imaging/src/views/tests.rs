use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::resample::resample;

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Everything happens, always.
fn wild(side: usize) -> ViewConfig {
    ViewConfig {
        area: [0.05, 1.0],
        aspect: [0.75, 4.0 / 3.0],
        depth_share: [0.2, 1.0],
        flip: 0.5,
        jitter: 1.0,
        jitter_strength: 0.3,
        gamma: [0.5, 2.0],
        blur: 1.0,
        blur_sigma: [0.1, 2.0],
        noise: 1.0,
        noise_sigma: [0.0, 0.1],
        colour: 1.0,
        grey: 0.3,
        remap: 0.5,
        project: 0.3,
        slice: 0.3,
        ..ViewConfig::plain(side, [4, 16])
    }
}

/// Values that differ everywhere, between 0 and 1.
fn speckled(shape: [usize; 4], kind: Kind) -> Scaled {
    let n: usize = shape.iter().product();
    let values = (0..n).map(|i| (i * 7919 % 1009) as f32 / 1008.0).collect();
    Scaled::new(values, shape, kind).unwrap()
}

fn constant(shape: [usize; 4], kind: Kind) -> Scaled {
    Scaled::new(vec![0.375; shape.iter().product()], shape, kind).unwrap()
}

#[test]
fn a_full_crop_equals_a_plain_resize() {
    for (shape, kind) in [
        ([1, 1, 40, 40], Kind::Image),
        ([3, 1, 24, 24], Kind::Image),
        ([1, 32, 20, 20], Kind::Volume),
        ([1, 3, 64, 64], Kind::Volume),
    ] {
        let object = speckled(shape, kind);
        let seen = view(&object, &ViewConfig::plain(32, [4, 16]), &mut rng(0)).unwrap();
        let [n_channels, depth, height, width] = shape;
        let [_, made_depth, ..] = seen.shape();
        let n_stored = depth * height * width;
        for (channel, made) in seen.values().chunks_exact(made_depth * 32 * 32).enumerate() {
            let start = (channel % n_channels) * n_stored;
            let stored = &object.values()[start..start + n_stored];
            let wanted = resample(stored, [depth, height, width], [made_depth, 32, 32]).unwrap();
            for (a, b) in made.iter().zip(&wanted) {
                // Depth and plane are mixed in another order than `resample` does.
                assert!((a - b).abs() < 1e-5, "{shape:?}: {a} and {b}");
            }
        }
    }
}

#[test]
fn a_view_of_the_same_side_is_a_copy() {
    let object = speckled([1, 1, 16, 16], Kind::Image);
    let seen = view(&object, &ViewConfig::plain(16, [4, 16]), &mut rng(3)).unwrap();
    assert_eq!(&seen.values()[..256], object.values());
}

#[test]
fn video_shows_frames_and_volumes_mix_slices() {
    let mut values = vec![0.0; 8 * 4 * 4];
    for (depth, plane) in values.chunks_exact_mut(16).enumerate() {
        plane.fill((depth % 2) as f32);
    }
    let config = ViewConfig::plain(4, [4, 4]);
    for (kind, is_mixed) in [(Kind::Video, false), (Kind::Volume, true)] {
        let object = Scaled::new(values.clone(), [1, 8, 4, 4], kind).unwrap();
        let seen = view(&object, &config, &mut rng(0)).unwrap();
        let mixed = seen.values().iter().any(|&x| x > 0.1 && x < 0.9);
        assert_eq!(mixed, is_mixed, "{kind:?}");
    }
}

#[test]
fn depth_is_one_or_a_multiple_of_the_patch_up_to_the_asked() {
    for (depth, kind, share, expected) in [
        (1, Kind::Image, 1.0, 1),
        (1, Kind::Volume, 0.2, 1),
        (2, Kind::Volume, 0.1, 4),
        (5, Kind::Video, 1.0, 4),
        (6, Kind::Volume, 1.0, 8),
        (24, Kind::Volume, 0.5, 12),
        (100, Kind::Volume, 1.0, 16),
        (100, Kind::Video, 1.0, 16),
    ] {
        let config = ViewConfig {
            depth_share: [share; 2],
            ..ViewConfig::plain(8, [4, 16])
        };
        let seen = view(&speckled([1, depth, 9, 9], kind), &config, &mut rng(1)).unwrap();
        assert_eq!(seen.shape(), [3, expected, 8, 8], "{depth} of {kind:?}");
    }
}

#[test]
fn a_mirror_swaps_left_and_right_only() {
    let object = speckled([1, 1, 8, 8], Kind::Image);
    let config = ViewConfig {
        flip: 1.0,
        ..ViewConfig::plain(8, [4, 16])
    };
    let seen = view(&object, &config, &mut rng(5)).unwrap();
    for (row, mirrored) in object.values().chunks(8).zip(seen.values().chunks(8)) {
        let back: Vec<f32> = mirrored.iter().rev().copied().collect();
        assert_eq!(row, back);
    }
}

#[test]
fn grey_stays_grey_whatever_happens_to_it() {
    let object = speckled([1, 6, 30, 20], Kind::Volume);
    for seed in 0..20 {
        let seen = view(&object, &wild(16), &mut rng(seed)).unwrap();
        let n = seen.values().len() / 3;
        assert_eq!(seen.values()[..n], seen.values()[n..2 * n]);
        assert_eq!(seen.values()[..n], seen.values()[2 * n..]);
    }
}

#[test]
fn colour_changes_hue_and_keeps_luma() {
    let object = speckled([3, 1, 16, 16], Kind::Image);
    let soft: Vec<f32> = object.values().iter().map(|x| 0.3 + 0.4 * x).collect();
    let object = Scaled::new(soft, [3, 1, 16, 16], Kind::Image).unwrap();
    let config = ViewConfig {
        colour: 1.0,
        ..ViewConfig::plain(16, [4, 16])
    };
    let seen = view(&object, &config, &mut rng(2)).unwrap();
    let luma = |values: &[f32], i: usize| {
        0.299 * values[i] + 0.587 * values[256 + i] + 0.114 * values[512 + i]
    };
    let mut n_changed = 0;
    for i in 0..256 {
        let (was, is) = (luma(object.values(), i), luma(seen.values(), i));
        assert!((was - is).abs() < 2e-3, "{was} and {is}");
        let changed = |j: usize| (object.values()[j] - seen.values()[j]).abs() > 1e-3;
        n_changed += usize::from([i, 256 + i, 512 + i].into_iter().any(changed));
    }
    assert!(n_changed > 200, "{n_changed}");
}

#[test]
fn blur_keeps_the_mean_and_lowers_the_variance() {
    let object = speckled([1, 1, 64, 64], Kind::Image);
    let config = ViewConfig {
        blur: 1.0,
        blur_sigma: [2.0, 2.0],
        ..ViewConfig::plain(64, [4, 16])
    };
    let seen = view(&object, &config, &mut rng(2)).unwrap();
    let stats = |values: &[f32]| {
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let spread = values.iter().map(|x| (x - mean).powi(2)).sum::<f32>();
        (mean, spread / values.len() as f32)
    };
    let (was, is) = (stats(object.values()), stats(seen.values()));
    assert!((was.0 - is.0).abs() < 0.01, "{was:?} {is:?}");
    assert!(is.1 < 0.2 * was.1, "{was:?} {is:?}");
}

#[test]
fn blur_is_the_gaussian_of_its_deviation() {
    let mut values = vec![0.0; 33 * 33];
    values[16 * 33 + 16] = 1.0;
    changes::apply(
        &mut values,
        1,
        &ViewConfig {
            blur: 1.0,
            blur_sigma: [1.5, 1.5],
            ..ViewConfig::plain(33, [4, 16])
        },
        &mut rng(0),
    );
    let gauss = |d: f64| (-0.5 * (d / 1.5) * (d / 1.5)).exp();
    for (dy, dx) in [(0, 1), (1, 1), (2, 0), (3, 2)] {
        let at = |dy: usize, dx: usize| f64::from(values[(16 + dy) * 33 + 16 + dx]);
        let wanted = gauss(dy as f64) * gauss(dx as f64);
        assert!((at(dy, dx) / at(0, 0) - wanted).abs() < 1e-4);
    }
}

#[test]
fn noise_has_the_deviation_that_was_asked_and_no_mean() {
    let object = Scaled::new(vec![0.5; 128 * 128], [1, 1, 128, 128], Kind::Image).unwrap();
    let config = ViewConfig {
        noise: 1.0,
        noise_sigma: [0.05, 0.05],
        ..ViewConfig::plain(128, [4, 16])
    };
    let seen = view(&object, &config, &mut rng(9)).unwrap();
    let values = &seen.values()[..128 * 128];
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let spread = values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / values.len() as f32;
    assert!((mean - 0.5).abs() < 0.002, "{mean}");
    assert!((spread.sqrt() - 0.05).abs() < 0.001, "{}", spread.sqrt());
}

#[test]
fn gamma_is_a_power() {
    let object = speckled([1, 1, 32, 32], Kind::Image);
    for gamma in [0.5_f64, 0.7, 1.4, 3.0] {
        let config = ViewConfig {
            jitter: 1.0,
            gamma: [gamma; 2],
            ..ViewConfig::plain(32, [4, 16])
        };
        let seen = view(&object, &config, &mut rng(0)).unwrap();
        for (was, is) in object.values().iter().zip(seen.values()) {
            let wanted = f64::from(*was).powf(gamma);
            assert!((wanted - f64::from(*is)).abs() < 1e-4, "{was} {gamma}");
        }
    }
}

#[test]
fn colour_that_becomes_grey_keeps_luma() {
    let config = ViewConfig {
        grey: 1.0,
        ..ViewConfig::plain(16, [4, 16])
    };
    let object = speckled([3, 1, 16, 16], Kind::Image);
    let seen = view(&object, &config, &mut rng(0)).unwrap();
    let [red, green, blue] = [0, 1, 2].map(|c| &object.values()[c * 256..(c + 1) * 256]);
    for (place, value) in seen.values().iter().enumerate() {
        let idx = place % 256;
        let luma = 0.299 * red[idx] + 0.587 * green[idx] + 0.114 * blue[idx];
        assert!((luma - value).abs() < 1e-5, "{luma} and {value}");
    }
}

#[test]
fn a_random_curve_maps_equal_values_alike_and_need_not_rise() {
    let config = ViewConfig {
        remap: 1.0,
        ..ViewConfig::plain(16, [4, 16])
    };
    let object = speckled([1, 1, 16, 16], Kind::Image);
    let (mut n_falling, mut n_dark) = (0, 0);
    for seed in 0..64 {
        let seen = view(&object, &config, &mut rng(seed)).unwrap();
        let mut pairs: Vec<(f32, f32)> = object
            .values()
            .iter()
            .copied()
            .zip(seen.values().iter().copied())
            .collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        for [(x, a), (y, b)] in pairs.array_windows() {
            // Linear pieces of a quarter: a step is at most four times as large as before.
            assert!((a - b).abs() <= 4.0 * (y - x) + 1e-5, "{x} {y}: {a} {b}");
        }
        n_falling += usize::from(pairs.array_windows().any(|[a, b]| b.1 < a.1 - 1e-5));
        n_dark += usize::from(pairs[0].1 < 0.01);
    }
    assert!((40..=64).contains(&n_falling), "{n_falling}");
    assert!((16..=48).contains(&n_dark), "{n_dark}");
}

#[test]
fn senseless_settings_are_refused() {
    let plain = || ViewConfig::plain(8, [4, 16]);
    for (config, what) in [
        (
            ViewConfig {
                area: [0.0, 1.0],
                ..plain()
            },
            "area",
        ),
        (
            ViewConfig {
                aspect: [2.0, 1.0],
                ..plain()
            },
            "aspect",
        ),
        (
            ViewConfig {
                gamma: [f64::NAN, 1.0],
                ..plain()
            },
            "gamma",
        ),
        (
            ViewConfig {
                noise: 1.5,
                ..plain()
            },
            "noise",
        ),
        (
            ViewConfig {
                depth: 6,
                ..plain()
            },
            "depth",
        ),
        (ViewConfig { side: 0, ..plain() }, "side"),
    ] {
        let refused = config.validate().unwrap_err().to_string();
        assert!(refused.contains(what), "{refused}");
    }
}

proptest! {
    #[test]
    fn any_view_is_finite_in_range_and_of_its_shape(
        seed in any::<u64>(),
        shape in (prop_oneof![Just(1_usize), Just(3)], 1_usize..20, 1_usize..40, 1_usize..40),
        is_video in any::<bool>(),
    ) {
        let kind = if is_video { Kind::Video } else { Kind::Volume };
        let object = speckled([shape.0, shape.1, shape.2, shape.3], kind);
        let seen = view(&object, &wild(12), &mut rng(seed)).unwrap();
        let [channels, depth, height, width] = seen.shape();
        prop_assert_eq!([channels, height, width], [3, 12, 12]);
        let is_deep = depth % 4 == 0 && depth <= 16;
        // Deep objects may be seen flat.
        prop_assert!(is_deep || depth == 1);
        prop_assert!(shape.1 > 1 || depth == 1);
        prop_assert!(seen.values().iter().all(|x| (0.0..=1.0).contains(x)));
        prop_assert_eq!(seen, view(&object, &wild(12), &mut rng(seed)).unwrap());
    }

    #[test]
    fn a_constant_object_stays_constant_without_noise(seed in any::<u64>(), depth in 1_usize..9) {
        let config = ViewConfig { noise: 0.0, ..wild(12) };
        let object = constant([1, depth, 17, 23], Kind::Volume);
        let seen = view(&object, &config, &mut rng(seed)).unwrap();
        let first = seen.values()[0];
        prop_assert!(seen.values().iter().all(|x| (x - first).abs() < 1e-5));
    }

    #[test]
    fn a_crop_lies_inside_and_keeps_its_aspect(
        seed in any::<u64>(), depth in 1_usize..50, height in 1_usize..300, width in 1_usize..300,
    ) {
        let crop = Crop::draw([1, depth, height, width], &wild(8), &mut rng(seed));
        for ((start, side), whole) in crop.start.iter().zip(crop.sides).zip([depth, height, width]) {
            prop_assert!(side >= 1 && start + side <= whole);
        }
        let [_, tall, wide] = crop.sides.map(|side| side as f64);
        // Half a pixel of rounding at both sides.
        prop_assert!((wide + 0.5) / (tall - 0.5) > 0.749 && (wide - 0.5) / (tall + 0.5) < 1.334);
    }
}
