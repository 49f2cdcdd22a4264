use super::*;
use crate::geometry::Affine;

/// A volume that is 1 where `is_bright(d, h, w)`, else 0.
fn object(
    [depth, height, width]: [usize; 3],
    kind: Kind,
    is_bright: impl Fn(usize, usize, usize) -> bool,
) -> Volume {
    let mut values = Vec::new();
    for d in 0..depth {
        for h in 0..height {
            values.extend((0..width).map(|w| f32::from(u8::from(is_bright(d, h, w)))));
        }
    }
    Volume::new(values, [1, depth, height, width], kind).unwrap()
}

/// Lies a volume in the canonical order, with this spacing along D, H, W.
fn canonical(mut volume: Volume, [d, h, w]: [f64; 3]) -> Volume {
    volume.affine = Some(Affine::from_columns(
        [w, 0.0, 0.0],
        [0.0, h, 0.0],
        [0.0, 0.0, d],
        [0.0; 3],
    ));
    volume.spacing = [Some(d), Some(h), Some(w)];
    volume
}

/// The red byte at (row, column).
fn red(picture: &Picture, row: usize, column: usize) -> u8 {
    picture.rgb[(row * picture.width + column) * 3]
}

#[test]
fn a_picture_is_filled_and_within_its_size() {
    for shape in [
        [1, 1, 1],
        [1, 1, 4000],
        [1, 4000, 1],
        [3, 5, 7],
        [300, 2, 2],
        [2, 300, 300],
    ] {
        for kind in [Kind::Image, Kind::Video, Kind::Volume] {
            for spacing in [[1.0; 3], [1e300, 1.0, 1e-300], [1e-9, 5.0, 5.0]] {
                let volume = canonical(object(shape, kind, |d, h, w| d + h + w > 2), spacing);
                let picture = thumbnail(&volume, 200);
                assert!(
                    picture.width.max(picture.height) <= 200,
                    "{shape:?} {kind:?}"
                );
                assert_eq!(picture.rgb.len(), picture.width * picture.height * 3);
            }
        }
    }
}

#[test]
fn an_image_is_windowed_and_monochrome1_inverted() {
    let mut image = object([1, 8, 16], Kind::Image, |_, _, w| w >= 8);
    let picture = thumbnail(&image, 64);
    assert_eq!((picture.height, picture.width), (32, 64));
    assert_eq!((red(&picture, 5, 2), red(&picture, 5, 60)), (0, 255));
    image.inverted = true;
    let picture = thumbnail(&image, 64);
    assert_eq!((red(&picture, 5, 2), red(&picture, 5, 60)), (255, 0));
}

#[test]
fn rgb_is_shown_as_stored() {
    let values = [[51.0; 4], [102.0; 4], [204.0; 4]].concat();
    let mut image = Volume::new(values, [3, 1, 2, 2], Kind::Image).unwrap();
    image.full_scale = Some(255.0);
    let picture = thumbnail(&image, 64);
    assert_eq!((picture.height, picture.width), (8, 8));
    assert!(picture.rgb.chunks(3).all(|pixel| pixel == [51, 102, 204]));
}

#[test]
fn three_planes_respect_spacing_and_put_superior_up_and_anterior_left() {
    // Bright: superior (D high) and anterior (H low). Slices are 4 mm apart, pixels 1 mm.
    let volume = object([10, 20, 30], Kind::Volume, |d, h, _| d >= 5 && h < 10);
    let picture = thumbnail(&canonical(volume, [4.0, 1.0, 1.0]), 1000);
    // Axial 20 x 30, coronal 40 x 30, sagittal 40 x 20 mm, each mm 4 px; two lines of 2 px.
    assert_eq!(
        (picture.height, picture.width),
        (160, 120 + 2 + 120 + 2 + 80)
    );
    // Axial lies in the middle of the height, on ground.
    assert_eq!(red(&picture, 2, 50), GROUND);
    assert_eq!((red(&picture, 50, 50), red(&picture, 110, 50)), (255, 0));
    assert_eq!(red(&picture, 80, 120), LINE);
    // Sagittal: only its upper left quarter is bright.
    let quarter = |row: usize, column: usize| red(&picture, row, 244 + column);
    assert_eq!(
        [quarter(40, 20), quarter(40, 60), quarter(120, 20)],
        [255, 0, 0]
    );
}

#[test]
fn planes_without_an_affine_stay_in_storage_order() {
    let volume = object([10, 10, 10], Kind::Volume, |d, _, _| d >= 5);
    let picture = thumbnail(&volume, 1000);
    assert_eq!((red(&picture, 5, 60), red(&picture, 35, 60)), (0, 255));
}

#[test]
fn a_video_is_a_strip_of_at_most_six_frames_in_two_rows_if_they_are_wide() {
    // Frame f is bright in column f alone.
    let wide = object([12, 12, 16], Kind::Video, |d, _, w| w == d);
    let picture = thumbnail(&wide, 400);
    assert_eq!((picture.height, picture.width), (48 * 2 + 2, 64 * 3 + 4));
    // The frames shown are 1, 3, 5, 7, 9, 11; a line of one voxel keeps 7/8 when enlarged.
    let (first, last) = (
        red(&picture, 20, 4 + 2),
        red(&picture, 70, 132 + 11 * 4 + 2),
    );
    assert_eq!((first, last), (223, 223));
    let tall = object([12, 100, 20], Kind::Video, |d, _, w| w == d);
    let picture = thumbnail(&tall, 150);
    assert_eq!((picture.height, picture.width), (108, 6 * 22 + 5 * 2));
    let single = object([1, 10, 10], Kind::Video, |_, h, _| h > 4);
    assert_eq!(thumbnail(&single, 64).width, 40);
}
