use m3ret_imaging::Kind;
use proptest::prelude::*;

use super::*;

#[derive(serde::Deserialize)]
struct Resized {
    filter: String,
    from: [usize; 2],
    to: [usize; 2],
    values: Vec<f32>,
    wanted: Vec<f32>,
}

fn whole(sides: [usize; 2]) -> [Crop; 2] {
    sides.map(|side| Crop {
        whole: side,
        start: 0,
        len: side,
    })
}

#[test]
fn planes_are_resized_as_pillow_does() {
    let text = include_str!("../../../../testdata/resample/filters.json");
    let cases: Vec<Resized> = serde_json::from_str(text).unwrap();
    assert!(cases.len() >= 12);
    for case in cases {
        let filter = match &*case.filter {
            "BILINEAR" => Filter::Bilinear,
            "BICUBIC" => Filter::Bicubic,
            _ => Filter::Lanczos,
        };
        let found = resize(&case.values, case.from, filter, &whole(case.to));
        assert_eq!(found.len(), case.wanted.len());
        for (found, wanted) in found.iter().zip(&case.wanted) {
            // Sums of a few dozen f32 values of at most 1.
            let is_close = (found - wanted).abs() < 2e-6;
            assert!(is_close, "{} {:?}: {found} {wanted}", case.filter, case.to);
        }
    }
}

fn plain(size: Option<Size>, crop: Option<[usize; 2]>) -> PlaneInput {
    PlaneInput {
        size,
        filter: Filter::Bicubic,
        crop,
        rounds_border: false,
        white: 1.0,
        stats: Stats {
            mean: [0.0; 3],
            std: [1.0; 3],
        },
        patch: [2, 2],
        n_planes: N_PLANES,
        percentiles: [0.0, 100.0],
    }
}

/// A volume whose voxels are their own index.
fn ramp(shape: [usize; 4], kind: Kind) -> Volume {
    let n = shape.iter().product::<usize>();
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let values = (0..n).map(|i| i as f32).collect();
    Volume::new(values, shape, kind).unwrap()
}

#[test]
fn planes_are_those_in_the_middle_of_equal_parts() {
    for (depth, n, wanted) in [
        (1, 16, vec![0]),
        (3, 16, vec![0, 1, 2]),
        (10, 5, vec![1, 3, 5, 7, 9]),
        (64, 4, vec![8, 24, 40, 56]),
        (7, 3, vec![1, 3, 5]),
    ] {
        assert_eq!(uniform_planes(depth, n), wanted, "{n} of {depth}");
    }
}

#[test]
fn a_volume_or_video_becomes_at_most_16_pictures() {
    let input = plain(Some(Size::ShortestEdge(4)), Some([4, 4]));
    for (depth, kind, wanted) in [
        (1, Kind::Image, 1),
        (5, Kind::Volume, 5),
        (16, Kind::Video, 16),
        (40, Kind::Volume, 16),
    ] {
        let inputs = input.prepare(&ramp([1, depth, 6, 6], kind)).unwrap();
        assert_eq!(inputs.len(), wanted);
        assert!(inputs.iter().all(|input| input.shape() == [3, 1, 4, 4]));
    }
}

#[test]
fn percentiles_are_those_of_the_whole_object() {
    let input = plain(None, None);
    let inputs = input.prepare(&ramp([1, 2, 2, 2], Kind::Volume)).unwrap();
    assert_eq!(
        inputs[0].values()[..4],
        [0.0, 1.0 / 7.0, 2.0 / 7.0, 3.0 / 7.0]
    );
    assert_eq!(inputs[1].values()[3].to_bits(), 1.0_f32.to_bits());
}

#[test]
fn grey_is_repeated_and_each_channel_normalised_by_its_own_numbers() {
    let stats = Stats {
        mean: [0.1, 0.2, 0.3],
        std: [0.5, 0.25, 2.0],
    };
    let input = PlaneInput {
        stats,
        ..plain(None, None)
    };
    let inputs = input.prepare(&ramp([1, 1, 2, 2], Kind::Image)).unwrap();
    for (channel, values) in inputs[0].values().chunks_exact(4).enumerate() {
        let (mean, std) = (stats.mean[channel], stats.std[channel]);
        assert_eq!(
            values,
            [0.0_f32, 1.0 / 3.0, 2.0 / 3.0, 1.0].map(|x| (x - mean) / std)
        );
    }
}

#[test]
fn colour_keeps_its_channels() {
    let mut volume = ramp([3, 1, 2, 2], Kind::Image);
    volume.full_scale = Some(11.0);
    let inputs = plain(None, None).prepare(&volume).unwrap();
    let wanted: Vec<f32> = volume.values().iter().map(|x| x / 11.0).collect();
    for (found, wanted) in inputs[0].values().iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-6);
    }
}

#[test]
fn pixels_become_square_where_the_spacing_is_known() {
    let input = plain(Some(Size::ShortestEdge(8)), None);
    let mut volume = ramp([1, 1, 10, 20], Kind::Image);
    assert_eq!(input.prepare(&volume).unwrap()[0].shape(), [3, 1, 8, 16]);
    volume.spacing = [None, Some(2.0), Some(1.0)];
    assert_eq!(input.prepare(&volume).unwrap()[0].shape(), [3, 1, 8, 8]);
    volume.spacing = [None, Some(4.0), Some(1.0)];
    assert_eq!(input.prepare(&volume).unwrap()[0].shape(), [3, 1, 16, 8]);
    let squashed = plain(Some(Size::Exact([6, 4])), None);
    assert_eq!(squashed.prepare(&volume).unwrap()[0].shape(), [3, 1, 6, 4]);
}

#[test]
fn a_crop_is_the_middle_of_what_is_resized_whole() {
    let volume = ramp([1, 1, 9, 13], Kind::Image);
    let large = plain(Some(Size::Exact([12, 20])), None)
        .prepare(&volume)
        .unwrap();
    let cut = plain(Some(Size::Exact([12, 20])), Some([6, 8]))
        .prepare(&volume)
        .unwrap();
    for row in 0..6 {
        let line = &large[0].values()[(row + 3) * 20 + 6..][..8];
        assert_eq!(line, &cut[0].values()[row * 8..][..8]);
    }
}

#[test]
fn a_crop_beyond_the_picture_is_filled_with_black() {
    let volume = ramp([1, 1, 2, 2], Kind::Image);
    let inputs = plain(None, Some([4, 6])).prepare(&volume).unwrap();
    let third = 1.0 / 3.0;
    #[rustfmt::skip]
    let wanted = [
        0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
        0.0, 0.0, 0.0, third, 0.0, 0.0,
        0.0, 0.0, 2.0 * third, 1.0, 0.0, 0.0,
        0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    ];
    assert_eq!(inputs[0].values()[..24], wanted);
}

#[test]
fn shapes_that_leave_no_patch_or_too_many_are_refused() {
    let sliver = ramp([1, 1, 1, 500], Kind::Image);
    let input = plain(Some(Size::ShortestEdge(8192)), None);
    assert!(matches!(
        input.prepare(&sliver),
        Err(Error::LimitExceeded { .. })
    ));
    assert!(
        plain(None, None).prepare(&sliver).is_err(),
        "one row, patches of two"
    );
    let mut stretched = ramp([1, 1, 2, 2], Kind::Image);
    stretched.spacing = [None, Some(1e-300), Some(1e300)];
    assert!(input.prepare(&stretched).is_err());
    let cropped = plain(Some(Size::ShortestEdge(8)), Some([8, 8]));
    assert_eq!(
        cropped.prepare(&stretched).unwrap()[0].shape(),
        [3, 1, 8, 8]
    );
}

#[test]
fn a_3d_model_gets_one_grey_volume_of_its_own_size() {
    let input = DeepInput { sides: [4, 6, 8] };
    for (shape, kind) in [
        ([1, 1, 5, 5], Kind::Image),
        ([1, 30, 3, 17], Kind::Volume),
        ([3, 2, 5, 5], Kind::Video),
    ] {
        let made = input.prepare(&ramp(shape, kind)).unwrap();
        assert_eq!(made.shape(), [1, 4, 6, 8]);
        assert!(made.values().iter().all(|x| (0.0..=1.0).contains(x)));
    }
}

/// Reads a processor's file as that of a model of 224 pixels in patches of 14.
fn read(file: &str, text: &str) -> Result<PlaneInput> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(file), text).unwrap();
    let config = crate::family::Config {
        path: folder.path().join("config.json"),
        value: serde_json::Value::Null,
    };
    PlaneInput::read(&config, [224; 2], [14; 2], IMAGENET)
}

#[test]
fn processors_are_read_in_all_their_spellings() {
    let shortest = Some(Size::ShortestEdge(30));
    let square = Some(Size::Exact([30; 2]));
    for (text, size, crop) in [
        ("{}", Some(Size::ShortestEdge(224)), None),
        (r#"{"size": 30, "crop_size": 28}"#, shortest, Some([28; 2])),
        (
            r#"{"size": 30, "feature_extractor_type": "ViTFeatureExtractor"}"#,
            square,
            None,
        ),
        (
            r#"{"size": 30, "image_processor_type": "ViTImageProcessorFast"}"#,
            square,
            None,
        ),
        (
            r#"{"size": [30, 30], "do_center_crop": true}"#,
            square,
            Some([224; 2]),
        ),
        (
            r#"{"size": {"height": 30, "width": 30}, "crop_size": 28, "do_center_crop": false}"#,
            square,
            None,
        ),
        (
            r#"{"size": {"shortest_edge": 30}, "crop_size": {"height": 28, "width": 14}}"#,
            shortest,
            Some([28, 14]),
        ),
        (r#"{"do_resize": false, "size": 30}"#, None, None),
    ] {
        let input = read("preprocessor_config.json", text).unwrap();
        assert_eq!((input.size, input.crop), (size, crop), "{text}");
        let nested = format!(r#"{{"image_processor": {text}}}"#);
        assert_eq!(read("processor_config.json", &nested).unwrap(), input);
    }
    let absent = read("another.json", "{}").unwrap();
    assert_eq!(
        (absent.size, absent.crop),
        (Some(Size::ShortestEdge(224)), Some([224; 2]))
    );
    assert_eq!(absent.stats, IMAGENET);
}

#[test]
fn white_and_statistics_follow_what_the_library_would_do() {
    let input = read(
        "preprocessor_config.json",
        r#"{"do_rescale": false, "do_normalize": false, "image_mean": 3}"#,
    )
    .unwrap();
    assert_eq!(
        (input.white, input.stats.mean, input.stats.std),
        (255.0, [0.0; 3], [1.0; 3])
    );
    let text =
        r#"{"rescale_factor": 0.00392156862745098, "image_mean": 0.5, "image_std": [1, 2, 3]}"#;
    let input = read("preprocessor_config.json", text).unwrap();
    assert_eq!(
        (input.white, input.stats.mean, input.stats.std),
        (1.0, [0.5; 3], [1.0, 2.0, 3.0])
    );
}

#[test]
fn senseless_processors_are_refused() {
    for text in [
        "",
        "[]x",
        r#"{"size": 0}"#,
        r#"{"size": -1}"#,
        r#"{"size": 18446744073709551615}"#,
        r#"{"crop_size": {"height": 0, "width": 5}}"#,
        r#"{"crop_size": 1000000}"#,
        r#"{"size": {"longest_edge": 5}}"#,
        r#"{"size": {"shortest_edge": 5, "longest_edge": 9}}"#,
        r#"{"resample": 0}"#,
        r#"{"resample": 5}"#,
        r#"{"image_std": 0}"#,
        r#"{"image_std": [1, -1, 1]}"#,
        r#"{"image_std": [1, 1]}"#,
        r#"{"image_mean": 1e300}"#,
        r#"{"rescale_factor": 1e300}"#,
    ] {
        let found = read("preprocessor_config.json", text);
        assert!(found.is_err(), "{text}: {found:?}");
    }
}

#[test]
fn sizes_that_leave_too_many_patches_are_refused_by_field() {
    for (text, field) in [
        (
            r#"{"size": 224, "crop_size": 8192}"#,
            "crop_size 8192 x 8192",
        ),
        (r#"{"size": 8192}"#, "size 8192 x 8192"),
        (
            r#"{"size": {"height": 8192, "width": 8000}}"#,
            "size 8192 x 8000",
        ),
        (r#"{"size": 9000}"#, "size 9000 x 9000"),
    ] {
        let text = read("preprocessor_config.json", text)
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with(&format!("preprocessor_config.json: found {field}")),
            "{text}"
        );
    }
    // What is cut from it decides, not what is resized.
    read(
        "preprocessor_config.json",
        r#"{"size": 8192, "crop_size": 224}"#,
    )
    .unwrap();
}

proptest! {
    #[test]
    fn any_picture_is_prepared_at_the_size_asked_for(
        sides in [1..40_usize, 1..40_usize],
        edge in 1..30_usize,
        crop in [2..30_usize, 2..30_usize],
    ) {
        let input = plain(Some(Size::ShortestEdge(edge)), Some(crop));
        let made = input.prepare(&ramp([1, 1, sides[0], sides[1]], Kind::Image)).unwrap();
        let [height, width] = crop.map(|side| side / 2 * 2);
        prop_assert_eq!(made[0].shape(), [3, 1, height, width]);
        prop_assert!(made[0].values().iter().all(|x| (0.0..=1.0).contains(x)));
    }

    #[test]
    fn constants_stay_constant(
        sides in [1..20_usize, 1..20_usize],
        to in [1..20_usize, 1..20_usize],
        value in 0.0_f32..1.0,
    ) {
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            let plane = vec![value; sides[0] * sides[1]];
            for made in resize(&plane, sides, filter, &whole(to)) {
                prop_assert!((made - value).abs() < 1e-5);
            }
        }
    }
}
