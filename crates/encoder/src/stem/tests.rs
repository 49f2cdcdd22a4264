use super::{Around, Stem, TAPS, UNSEEN, slab_means, stage_channels};
use crate::config::{ModelConfig, VitConfig};

#[test]
fn stages_halve_a_patch_until_one_position_is_left() {
    assert_eq!(stage_channels([4, 8, 8]).unwrap(), [32, 64, 128]);
    assert_eq!(stage_channels([1, 2, 2]).unwrap(), [32]);
    for patch in [[4, 8, 16], [4, 14, 14], [4, 1, 1], [4, 128, 128]] {
        let text = stage_channels(patch).unwrap_err().to_string();
        assert!(
            text.contains("power of two") && text.contains("stem = conv"),
            "{text}"
        );
    }
}

#[test]
fn a_config_without_a_stem_is_written_and_read_as_before() {
    let config = ModelConfig::new(VitConfig::tiny());
    let text = serde_json::to_string(&config).unwrap();
    assert!(!text.contains("stem"), "{text}");
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["stem"] = "conv".into();
    let config: ModelConfig = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(config.vit.stem, Stem::Conv);
    config.validate().unwrap();
    value["patch"] = serde_json::json!([4, 14, 14]);
    let config: ModelConfig = serde_json::from_value(value).unwrap();
    assert!(config.validate().is_err());
}

#[test]
fn slabs_are_averaged_and_single_planes_stay() {
    let values: Vec<f32> = (0..16)
        .map(|i| f32::from(u8::try_from(i).unwrap()))
        .collect();
    let (means, shape) = slab_means(&values, [2, 4, 1, 2], 2);
    assert_eq!(shape, [2, 2, 1, 2]);
    assert_eq!(means, [1.0, 2.0, 5.0, 6.0, 9.0, 10.0, 13.0, 14.0]);
    let (same, shape) = slab_means(&values, [2, 1, 2, 4], 4);
    assert_eq!((same, shape), (values, [2, 1, 2, 4]));
}

/// Every tap reads what a convolution of the whole plane reads there, or zeros.
#[test]
fn taps_are_those_of_a_padded_convolution() {
    let (grid, side) = ([2, 3, 2], 4);
    let [n_z, n_y, n_x] = grid;
    for seen in [(0..12).collect(), vec![7, 0, 3, 9, 11, 2]] {
        let around = Around::of(grid, &seen);
        for (around, &cell) in around.iter().zip(&seen) {
            let (z, y, x) = (cell / (n_y * n_x), cell / n_x % n_y, cell % n_x);
            assert!(z < n_z);
            for position in 0..(side / 2) * (side / 2) {
                let mut n_taps = 0;
                around.taps(side, position, |tap, row| {
                    assert_eq!(tap, n_taps);
                    n_taps += 1;
                    let at = |cell: usize, position: usize, tap: usize| {
                        (cell * side + 2 * position + tap).checked_sub(1)
                    };
                    let plane_y = at(y, position / (side / 2), tap / 3);
                    let plane_x = at(x, position % (side / 2), tap % 3);
                    let wanted = plane_y.zip(plane_x).and_then(|(py, px)| {
                        let cell = (z * n_y + py / side) * n_x + px / side;
                        let place = seen.iter().position(|&seen| seen == cell)?;
                        Some(place * side * side + py % side * side + px % side)
                    });
                    assert_eq!(row, wanted, "cell {cell} position {position} tap {tap}");
                });
                assert_eq!(n_taps, TAPS);
            }
        }
    }
    assert_eq!(Around::of([1, 1, 2], &[1])[0].left, UNSEEN);
}
