//! Phantoms whose integrals are known.

use super::*;
use crate::geometry::Affine;

/// A CT `[D, H, W]` in the canonical order, with these steps in mm.
fn ct(sides: [usize; 3], steps: [f64; 3], hu: impl Fn([usize; 3]) -> f32) -> Volume {
    let [depth, height, width] = sides;
    let [d, h, w] = steps;
    let affine = Affine::from_columns(
        [w, 0.0, 0.0],
        [0.0, h, 0.0],
        [0.0, 0.0, d],
        [-50.0, -40.0, 7.0],
    );
    let mut values = Vec::new();
    for slice in 0..depth {
        for row in 0..height {
            values.extend((0..width).map(|column| hu([slice, row, column])));
        }
    }
    let mut volume = Volume::new(values, [1, depth, height, width], Kind::Volume).unwrap();
    volume.affine = Some(affine);
    volume.spacing = affine.spacing_mm().map(Some);
    volume.unit = Some("HU");
    volume
}

fn projected(volume: &Volume, angle_deg: f64, side: Option<usize>) -> Projection {
    let projector = Projector::new(volume).unwrap();
    projector.project(angle_deg, side).unwrap()
}

fn check_close(found: f64, wanted: f64, tolerance: f64, what: &str) {
    assert!(
        (found - wanted).abs() <= tolerance,
        "{what}: {found} for {wanted}"
    );
}

#[test]
fn water_weighs_its_length_whatever_the_spacing() {
    let steps = [3.0, 0.5, 1.25];
    let volume = ct([6, 40, 24], steps, |_| 0.0);
    for (angle, length_mm) in [(0.0, 20.0), (90.0, 30.0), (180.0, 20.0), (270.0, 30.0)] {
        let picture = projected(&volume, angle, None);
        let expected = WATER_PER_MM * length_mm;
        for &value in &picture.values {
            // f32 holds the result.
            check_close(f64::from(value), expected, 1e-6, "water");
        }
    }
}

#[test]
fn hounsfield_units_are_relative_to_water_and_never_negative() {
    for (hu, relative) in [
        (0.0, 1.0),
        (1000.0, 2.0),
        (-500.0, 0.5),
        (-1000.0, 0.0),
        (-3024.0, 0.0),
        (f32::NAN, 0.0),
        (f32::INFINITY, 0.0),
    ] {
        let expected = WATER_PER_MM * relative;
        check_close(f64::from(attenuation_per_mm(hu)), expected, 1e-8, "mu");
    }
}

#[test]
fn air_is_black_from_every_side() {
    let volume = ct([4, 9, 7], [1.0, 2.0, 1.5], |_| -1000.0);
    for angle in [0.0, 17.0, 90.0, 133.0] {
        let picture = projected(&volume, angle, Some(20));
        assert!(picture.values.iter().all(|&x| x.abs() < 1e-9), "{angle}");
    }
}

#[test]
fn pixels_are_square_and_cover_the_volume() {
    let volume = ct([10, 40, 24], [5.0, 0.5, 1.25], |_| 0.0);
    for (angle, side, sides, pixel_mm) in [
        (0.0, None, [40, 24], 1.25),
        (90.0, None, [100, 40], 0.5),
        (0.0, Some(25), [25, 15], 2.0),
    ] {
        let picture = projected(&volume, angle, side);
        assert_eq!([picture.height, picture.width], sides, "{angle}, {side:?}");
        assert_eq!(picture.values.len(), picture.height * picture.width);
        check_close(picture.pixel_mm, pixel_mm, 1e-12, "pixel");
    }
}

#[test]
fn superior_is_on_top_and_the_patients_right_on_the_left() {
    // One dense voxel: superior, anterior, on the patient's right.
    let dense = |[d, h, w]: [usize; 3]| if [d, h, w] == [5, 1, 0] { 0.0 } else { -1000.0 };
    let volume = ct([6, 9, 7], [1.0; 3], dense);
    for (angle, column, width) in [(0.0, 0, 7), (90.0, 1, 9), (180.0, 6, 7), (270.0, 7, 9)] {
        let picture = projected(&volume, angle, None);
        let brightest = picture.values.iter().position(|&x| x > 0.01);
        assert_eq!((brightest, picture.width), (Some(column), width), "{angle}");
    }
}

#[test]
fn the_view_from_behind_is_the_mirror_image() {
    let uneven = |[d, h, w]: [usize; 3]| {
        let number = u16::try_from(d * 31 + h * 17 % 13 + w * w * 7).unwrap();
        f32::from(number % 400) - 200.0
    };
    let volume = ct([5, 11, 8], [2.0, 0.9, 1.1], uneven);
    for angle in [0.0, 90.0, 33.0] {
        let front = projected(&volume, angle, None);
        let back = projected(&volume, angle + 180.0, None);
        assert_eq!([front.height, front.width], [back.height, back.width]);
        for (front, back) in front
            .values
            .chunks(front.width)
            .zip(back.values.chunks(back.width))
        {
            for (x, y) in front.iter().zip(back.iter().rev()) {
                check_close(f64::from(*x), f64::from(*y), 1e-5, "mirror");
            }
        }
    }
}

/// Share of a voxel that lies in a sphere around the middle of the grid.
fn in_sphere(place: [f64; 3], radius_mm: f64) -> f32 {
    let distance = dot(place, place).sqrt();
    narrow((radius_mm - distance + 0.5).clamp(0.0, 1.0))
}

#[test]
fn a_sphere_looks_the_same_from_every_side() {
    let (sides, steps, radius_mm) = ([33, 50, 41], [1.2, 0.8, 1.0], 15.0);
    let volume = ct(sides, steps, |idx| {
        let place = [0, 1, 2].map(|axis| from_middle(idx[axis], sides[axis]) * steps[axis]);
        in_sphere(place, radius_mm) * 1000.0 - 1000.0
    });
    for angle in [0.0, 10.0, 45.0, 60.0, 90.0, 121.0] {
        let picture = projected(&volume, angle, None);
        for (idx, &value) in picture.values.iter().enumerate() {
            let x = from_middle(idx % picture.width, picture.width) * picture.pixel_mm;
            let y = from_middle(idx / picture.width, picture.height) * picture.pixel_mm;
            let chord = 2.0 * (radius_mm.powi(2) - x * x - y * y).max(0.0).sqrt();
            // The rim of a sphere falls off steeply: there, a voxel is a chord of several mm.
            if (x * x + y * y).sqrt() < radius_mm - 2.0 {
                let what = format!("{angle} degrees, pixel {idx}");
                check_close(f64::from(value), WATER_PER_MM * chord, 0.02, &what);
            }
        }
    }
}

#[test]
fn the_sum_over_a_picture_is_the_same_at_every_angle() {
    let (sides, steps) = ([8, 30, 26], [0.7, 0.7, 1.1]);
    let uneven = |[d, h, w]: [usize; 3]| {
        let is_inside = (5..25).contains(&h) && (4..20).contains(&w);
        if is_inside && (d + h + w) % 3 > 0 {
            300.0
        } else {
            -1000.0
        }
    };
    let volume = ct(sides, steps, uneven);
    let mass = |angle: f64| {
        let picture = projected(&volume, angle, None);
        let sum: f64 = picture.values.iter().map(|&x| f64::from(x)).sum();
        sum * picture.pixel_mm.powi(2)
    };
    let straight = mass(0.0);
    for angle in [20.0, 45.0, 71.0, 90.0] {
        check_close(mass(angle) / straight, 1.0, 0.01, "mass");
    }
}

#[test]
fn slices_of_a_tilted_gantry_are_drawn_where_they_lie() {
    // A rod along z, seen by a gantry that is tilted: in the slices it moves to anterior.
    let mut volume = ct([20, 40, 9], [1.0; 3], |[d, h, w]| {
        let is_rod = h == 30 - d / 2 && w == 4;
        if is_rod { 1000.0 } else { -1000.0 }
    });
    volume.affine = Some(Affine::from_columns(
        [1.0, 0.0, 0.0],
        [0.0, 1.0, 0.0],
        [0.0, 0.5, 1.0],
        [0.0; 3],
    ));
    let picture = projected(&volume, 90.0, None);
    assert_eq!([picture.height, picture.width], [20, 50]);
    let middles = picture.values.chunks(picture.width).map(|row| {
        let sum: f64 = row.iter().map(|&x| f64::from(x)).sum();
        let moment = (0..)
            .zip(row)
            .map(|(idx, &x)| f64::from(idx) * f64::from(x));
        moment.sum::<f64>() / sum
    });
    let middles: Vec<f64> = middles.collect();
    for &middle in &middles {
        // The rod is drawn in whole voxels, one for two slices.
        check_close(middle, middles[0], 0.75, "rod");
    }
}

#[test]
fn what_is_no_ct_in_a_known_place_is_refused_with_its_reason() {
    let good = ct([2, 3, 4], [1.0; 3], |_| 0.0);
    let check = |change: &dyn Fn(&mut Volume), code: Code| {
        let mut volume = good.clone();
        change(&mut volume);
        let refused = Projector::new(&volume).unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    };
    check(&|volume| volume.unit = None, Code::NotHounsfield);
    check(
        &|volume| volume.modality = Some("MR".into()),
        Code::NotHounsfield,
    );
    check(&|volume| volume.kind = Kind::Video, Code::Mismatch);
    check(&|volume| volume.spacing[0] = None, Code::SpacingUnknown);
    check(&|volume| volume.affine = None, Code::OrientationUnknown);
    let skewed = Affine::from_columns([1.0, 0.1, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0; 3]);
    check(&|volume| volume.affine = Some(skewed), Code::BadGeometry);
    let projector = Projector::new(&good).unwrap();
    for (angle, side) in [(f64::NAN, None), (0.0, Some(0)), (0.0, Some(MAX_SIDE + 1))] {
        assert!(projector.project(angle, side).is_err());
    }
}

#[test]
fn a_window_maps_integrals_to_shares() {
    let picture = Projection {
        values: vec![0.0, 1.0, 2.0, 3.0, 4.0],
        height: 1,
        width: 5,
        pixel_mm: 1.0,
    };
    let [low, high] = picture.percentiles([25.0, 75.0]);
    check_close(low, 1.0, 1e-9, "low");
    check_close(high, 3.0, 1e-9, "high");
    assert_eq!(picture.shares([1.0, 3.0]), [0.0, 0.0, 0.5, 1.0, 1.0]);
}
