//! A part of an image: a rectangle of a picture or a video, a box of a volume.

use crate::error::{Error, Result};
use crate::geometry::Affine;
use crate::memory;
use crate::resample::{as_f64, as_index};
use crate::thumbnail::has_three_planes;
use crate::volume::{Kind, Volume};

/// Fewer pixels a side show nothing that an encoder could compare.
const LEAST_PX: usize = 8;
/// What rounding may add to a fraction of a side.
const SLACK: f64 = 1e-6;

/// Where a part of an image lies, in fractions of its sides as they are stored.
///
/// Invariant: all are finite, and along each axis 0 <= from < to <= 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// W, H, D
    from: [f64; 3],
    to: [f64; 3],
    has_depth: bool,
}

impl Region {
    /// Takes `[x0, y0, x1, y1]` for pictures and videos, `[x0, y0, z0, x1, y1, z1]` for volumes: x along W, y along H,
    /// z along D, fractions of the whole side.
    ///
    /// # Errors
    /// `Mismatch` for another number of fractions, and where they do not rise within 0..=1.
    pub fn new(fractions: &[f64]) -> Result<Self> {
        let (from, to, has_depth) = match *fractions {
            [x0, y0, x1, y1] => ([x0, y0, 0.0], [x1, y1, 1.0], false),
            [x0, y0, z0, x1, y1, z1] => ([x0, y0, z0], [x1, y1, z1], true),
            _ => {
                let got = format!("{} numbers", fractions.len());
                return Err(refused("4 numbers for a picture, or 6 for a volume", got));
            }
        };
        let rises =
            |(from, to): (&f64, &f64)| (0.0..=1.0).contains(from) && from < to && *to <= 1.0;
        match from.iter().zip(&to).all(rises) {
            true => Ok(Self {
                from,
                to,
                has_depth,
            }),
            false => Err(refused(
                "fractions that rise along each axis within 0..=1",
                format!("{fractions:?}"),
            )),
        }
    }
}

fn refused(expected: &str, got: String) -> Error {
    Error::Mismatch {
        what: "region",
        expected: expected.to_owned(),
        got,
    }
}

/// Cuts a region out of an image. Every voxel that the region touches stays, in its place in the patient.
///
/// One slice of a volume is a picture.
///
/// # Errors
/// `Mismatch` if the region has no depth and the image is a volume, or the other way round; if fewer than 8 pixels are
/// left along W or H; if nothing in it has a value.
pub fn crop(mut volume: Volume, region: &Region) -> Result<Volume> {
    let is_deep = has_three_planes(&volume);
    if is_deep != region.has_depth {
        let expected = if is_deep {
            "6 numbers for a volume"
        } else {
            "4 numbers for a picture or a video"
        };
        let got = if region.has_depth { "6" } else { "4" };
        return Err(refused(expected, got.to_owned()));
    }
    let shape = volume.shape();
    let [n_channels, depth, height, width] = shape;
    let mut first = [0; 3];
    let mut sides = [0; 3];
    let axes = region
        .from
        .into_iter()
        .zip(region.to)
        .zip([width, height, depth]);
    for ((first, side), ((from, to), n)) in first.iter_mut().zip(&mut sides).zip(axes) {
        *first = as_index(from * as_f64(n) + SLACK).min(n - 1);
        *side = as_index((to * as_f64(n) - SLACK).ceil()).clamp(*first + 1, n) - *first;
    }
    let [new_width, new_height, new_depth] = sides;
    if new_width < LEAST_PX.min(width) || new_height < LEAST_PX.min(height) {
        let expected = format!("at least {LEAST_PX} x {LEAST_PX} pixels");
        return Err(refused(&expected, format!("{new_width} x {new_height}")));
    }
    let values = cut(&volume, first, sides)?;
    if !values.iter().any(|value| value.is_finite()) {
        return Err(refused("some values", "none that is finite".to_owned()));
    }
    volume.padding = volume.padding.and_then(|padding| padding.of_part(&values));
    volume.affine = volume.affine.map(|affine| moved(&affine, first));
    let mut part = volume.with_values(values, [n_channels, new_depth, new_height, new_width])?;
    if is_deep && new_depth == 1 {
        part.kind = Kind::Image;
        part.spacing = match part.spacing {
            [_, height, width] => [None, height, width],
        };
    }
    Ok(part)
}

/// Copies `sides` (W, H, D) voxels from `first` on.
fn cut(volume: &Volume, first: [usize; 3], sides: [usize; 3]) -> Result<Vec<f32>> {
    let [n_channels, _, _, width] = volume.shape();
    let [x, y, z] = first;
    let [new_width, new_height, new_depth] = sides;
    let mut values = memory::with_capacity(n_channels * new_width * new_height * new_depth)?;
    for channel in 0..n_channels {
        for plane in z..z + new_depth {
            let plane = volume.plane(channel, plane).unwrap_or_default();
            for row in plane.chunks_exact(width).skip(y).take(new_height) {
                values.extend_from_slice(row.get(x..x + new_width).unwrap_or_default());
            }
        }
    }
    Ok(values)
}

/// Returns the affine whose voxel (0, 0, 0) is `first` (W, H, D) of another.
fn moved(affine: &Affine, first: [usize; 3]) -> Affine {
    let [w, h, d, mut origin] = affine.columns();
    for (axis, n) in [w, h, d].into_iter().zip(first) {
        for (place, x) in origin.iter_mut().zip(axis) {
            *place += x * as_f64(n);
        }
    }
    Affine::from_columns(w, h, d, origin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Padding;

    fn numbered(shape: [usize; 4], kind: Kind) -> Volume {
        let n: usize = shape.iter().product();
        let mut volume = Volume::new((0..n).map(as_value).collect(), shape, kind).unwrap();
        volume.spacing = [Some(3.0), Some(2.0), Some(1.0)];
        volume.affine = Some(Affine::from_columns(
            [1.0, 0.0, 0.1],
            [0.0, 2.0, 0.0],
            [0.0, 0.0, 3.0],
            [-5.0, -6.0, -7.0],
        ));
        volume
    }

    fn as_value(i: usize) -> f32 {
        i as f32
    }

    #[test]
    fn every_voxel_of_a_box_keeps_its_value_and_its_place() {
        let whole = numbered([1, 6, 10, 20], Kind::Volume);
        let region = Region::new(&[0.25, 0.1, 0.5, 0.75, 0.9, 1.0]).unwrap();
        let part = crop(whole.clone(), &region).unwrap();
        assert_eq!(part.shape(), [1, 3, 8, 10]);
        assert_eq!((part.kind, part.spacing), (Kind::Volume, whole.spacing));
        let place = |volume: &Volume, index: [usize; 3]| {
            volume.affine.unwrap().rows.map(|[w, h, d, origin]| {
                let [i, j, k] = index.map(as_f64);
                w * i + h * j + d * k + origin
            })
        };
        for (d, h, w) in [(0, 0, 0), (2, 7, 9), (1, 3, 4)] {
            let old = [w + 5, h + 1, d + 3];
            let value = part.plane(0, d).unwrap()[h * 10 + w];
            assert_eq!(
                value.to_bits(),
                whole.plane(0, d + 3).unwrap()[old[1] * 20 + old[0]].to_bits()
            );
            let (was, is) = (place(&whole, old), place(&part, [w, h, d]));
            assert!(
                was.iter().zip(is).all(|(a, b)| (a - b).abs() < 1e-9),
                "{was:?} {is:?}"
            );
        }
    }

    #[test]
    fn one_slice_is_a_picture_and_the_whole_is_the_whole() {
        let whole = numbered([1, 6, 10, 20], Kind::Volume);
        let slice = crop(
            whole.clone(),
            &Region::new(&[0.0, 0.0, 0.5, 1.0, 1.0, 0.6]).unwrap(),
        )
        .unwrap();
        assert_eq!((slice.shape(), slice.kind), ([1, 1, 10, 20], Kind::Image));
        assert_eq!(slice.values()[0].to_bits(), 600.0_f32.to_bits());
        let all = crop(
            whole.clone(),
            &Region::new(&[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).unwrap(),
        )
        .unwrap();
        assert_eq!(all, whole);
    }

    #[test]
    fn colours_and_frames_are_cut_alike() {
        let video = numbered([3, 2, 16, 16], Kind::Video);
        let part = crop(video, &Region::new(&[0.5, 0.0, 1.0, 0.5]).unwrap()).unwrap();
        assert_eq!((part.shape(), part.kind), ([3, 2, 8, 8], Kind::Video));
        assert_eq!(
            part.values()[3 * 64 - 64].to_bits(),
            (2.0 * 256.0 + 8.0_f32).to_bits()
        );
    }

    #[test]
    fn padding_of_a_part_is_counted_in_it() {
        let mut picture = numbered([1, 1, 16, 16], Kind::Image);
        picture.values_mut()[..136].fill(0.0);
        picture.padding = Some(Padding {
            n_voxels: 136,
            value: 0.0,
        });
        let lower = Region::new(&[0.0, 0.5, 1.0, 1.0]).unwrap();
        let part = crop(picture.clone(), &lower).unwrap();
        assert_eq!(part.padding.unwrap().n_voxels, 8);
        let upper = Region::new(&[0.0, 0.0, 1.0, 0.5]).unwrap();
        assert_eq!(crop(picture, &upper).unwrap().padding, None);
    }

    #[test]
    fn what_is_no_region_of_an_image_is_refused() {
        for wrong in [
            &[0.0, 0.0, 1.0][..],
            &[0.5, 0.0, 0.5, 1.0],
            &[0.6, 0.0, 0.5, 1.0],
            &[-0.1, 0.0, 0.5, 1.0],
            &[0.0, 0.0, 0.5, 1.1],
            &[f64::NAN, 0.0, 0.5, 1.0],
            &[0.0, 0.0, 0.0, 1.0, 1.0, f64::NAN],
        ] {
            assert!(Region::new(wrong).is_err(), "{wrong:?}");
        }
        let flat = Region::new(&[0.0, 0.0, 1.0, 1.0]).unwrap();
        let deep = Region::new(&[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).unwrap();
        let small = Region::new(&[0.0, 0.0, 0.2, 1.0]).unwrap();
        assert!(crop(numbered([1, 6, 10, 20], Kind::Volume), &flat).is_err());
        assert!(crop(numbered([1, 1, 20, 20], Kind::Image), &deep).is_err());
        assert!(crop(numbered([1, 1, 20, 20], Kind::Image), &small).is_err());
    }
}
