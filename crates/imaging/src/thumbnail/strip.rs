//! `Volume` -> planes for people to look through, at the size that a screen shows: 8 bits, all of one size.

use rayon::prelude::*;

use super::{PERCENTILES, Plane, grey_level, pixels_of, three_planes};
use crate::error::Result;
use crate::intensity::{Window, is_grey};
use crate::png::encode_jpeg;
use crate::prepare::in_plane_steps;
use crate::resample::{as_f64, resample};
use crate::timeline::uniform_frames;
use crate::volume::{Kind, Volume};

/// HU and the level that shows it, with straight lines between.
///
/// Half of the levels lie in the soft-tissue window, so that it keeps 3 HU a level beside lung and bone: a viewer windows
/// one picture three ways.
pub const HU_LEVELS: [(f64, u8); 4] = [(-1024.0, 0), (-160.0, 64), (240.0, 192), (1500.0, 255)];
/// JPEG compresses blocks of this side; cells of whole blocks do not bleed into each other.
const BLOCK_PX: usize = 8;

/// Which way planes are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Planes along D: the image, slices as stored, or frames; evenly spaced.
    Depth,
    /// The middle plane along H, superior up where the object lies in the canonical order.
    Height,
    /// The middle plane along W.
    Width,
}

/// Planes of one object and one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strip {
    /// Rows and columns of each plane.
    pub size: [usize; 2],
    /// 1 for grey, 3 for RGB.
    pub n_channels: usize,
    /// Which planes of the object these are, from 0.
    pub planes: Vec<usize>,
    /// The bytes of each plane, `[H, W, channels]`.
    pub frames: Vec<Vec<u8>>,
}

/// Planes side by side in one picture, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    /// Number of planes in a row.
    pub n_columns: usize,
    /// Rows and columns of a plane's place: its size, rounded up to whole blocks.
    pub cell: [usize; 2],
    /// Rows and columns of the picture.
    pub size: [usize; 2],
    /// 1 for grey, 3 for RGB.
    pub n_channels: usize,
    /// `[H, W, channels]`.
    pub pixels: Vec<u8>,
}

/// Draws planes of an object, at most `max_frames` and no side above `max_side`; nothing is enlarged.
///
/// Values in HU become levels by `HU_LEVELS`; others are windowed as `thumbnail` does. Pixels become square where spacing,
/// or the shape of a pixel, is known. A 2D object has no planes but along D.
#[must_use]
pub fn strip(volume: &Volume, cut: Cut, max_frames: usize, max_side: usize) -> Strip {
    let [_, depth, height, width] = volume.shape();
    let [_, coronal, sagittal] = three_planes(volume);
    let (numbers, planes) = match cut {
        Cut::Depth => {
            let numbers = uniform_frames(depth, depth.min(max_frames.max(1)));
            let planes = numbers.iter().map(|&d| across(volume, d)).collect();
            (numbers, planes)
        }
        Cut::Height => (vec![height / 2], vec![coronal]),
        Cut::Width => (vec![width / 2], vec![sagittal]),
    };
    let size = size_of(&planes, max_side.max(1));
    let n_channels = if is_grey(volume) { 1 } else { 3 };
    let tone = Tone::of(volume);
    let n_channel = depth * height * width;
    let draw = |plane: &Plane| {
        let channels = volume.values().chunks_exact(n_channel).take(n_channels);
        let channels: Vec<Vec<f32>> = channels
            .filter_map(|channel| tone.drawn(plane, channel, size).ok())
            .collect();
        interleaved(&channels, size)
    };
    Strip {
        size,
        n_channels,
        frames: planes.par_iter().map(draw).collect(),
        planes: numbers,
    }
}

impl Strip {
    /// Lays the planes side by side, so that the picture is about square.
    #[must_use]
    pub fn sheet(&self) -> Sheet {
        let cell = self.size.map(|side| side.next_multiple_of(BLOCK_PX));
        let [cell_height, cell_width] = cell;
        let n = self.frames.len().max(1);
        // The least number of columns that makes the picture at least as wide as high.
        let is_wide = |columns: &usize| columns * cell_width >= n.div_ceil(*columns) * cell_height;
        let n_columns = (1..=n).find(is_wide).unwrap_or(n);
        let size = [n.div_ceil(n_columns) * cell_height, n_columns * cell_width];
        let [height, width] = size;
        let mut pixels = vec![0; height * width * self.n_channels];
        for (idx, frame) in self.frames.iter().enumerate() {
            let corner = [idx / n_columns * cell_height, idx % n_columns * cell_width];
            self.paste(frame, corner, (&mut pixels, width));
        }
        Sheet {
            n_columns,
            cell,
            size,
            n_channels: self.n_channels,
            pixels,
        }
    }

    /// Copies a plane into its cell; its last row and column are repeated to the cell's end.
    fn paste(&self, frame: &[u8], [top, left]: [usize; 2], (pixels, width): (&mut [u8], usize)) {
        let n = self.n_channels;
        let [frame_height, frame_width] = self.size;
        let [cell_height, cell_width] = self.size.map(|side| side.next_multiple_of(BLOCK_PX));
        let rows = pixels
            .chunks_exact_mut(width * n)
            .skip(top)
            .take(cell_height);
        for (row, out) in rows.enumerate() {
            let first = row.min(frame_height - 1) * frame_width * n;
            let Some(from) = frame.get(first..first + frame_width * n) else {
                return;
            };
            let last = from.chunks_exact(n).next_back().unwrap_or_default();
            let repeated = std::iter::repeat_n(last, cell_width - frame_width);
            let all = from.chunks_exact(n).chain(repeated);
            for (pixel, colour) in out.chunks_exact_mut(n).skip(left).zip(all) {
                pixel.copy_from_slice(colour);
            }
        }
    }
}

impl Sheet {
    /// Encodes the picture as JPEG of a quality of 1 to 100.
    ///
    /// # Errors
    /// `LimitExceeded` if a side is above 65,535, which JPEG cannot hold.
    pub fn jpeg(&self, quality: u8) -> Result<Vec<u8>> {
        let [height, width] = self.size;
        encode_jpeg(&self.pixels, [height, width, self.n_channels], quality)
    }
}

fn across(volume: &Volume, d: usize) -> Plane {
    let [_, _, height, width] = volume.shape();
    Plane {
        start: d * height * width,
        strides: [width, 1],
        sides: [height, width],
        steps: in_plane_steps(volume),
        is_flipped: false,
    }
}

/// Returns rows and columns of all planes, which are alike.
fn size_of(planes: &[Plane], max_side: usize) -> [usize; 2] {
    let extent = planes.first().map_or([1.0, 1.0], Plane::extent);
    let longest = extent.into_iter().fold(1.0, f64::max);
    let scale = (as_f64(max_side) / longest).min(1.0);
    extent.map(|side| pixels_of(side * scale, max_side))
}

/// How values become levels.
enum Tone {
    Hu,
    Window(Window),
}

impl Tone {
    fn of(volume: &Volume) -> Self {
        match volume.unit {
            Some("HU") => Self::Hu,
            _ => Self::Window(Window::of(volume, PERCENTILES)),
        }
    }

    /// Reads a plane of one channel and resizes it to levels in 0..=1.
    fn drawn(&self, plane: &Plane, channel: &[f32], size: [usize; 2]) -> Result<Vec<f32>> {
        let mut values = plane.read(channel);
        match self {
            Self::Hu => values
                .iter_mut()
                .for_each(|value| *value = hu_share(*value)),
            Self::Window(window) => {
                let stored = values.clone();
                window.apply(&stored, &mut values);
            }
        }
        let ([rows, columns], [height, width]) = (plane.sides, size);
        resample(&values, [1, rows, columns], [1, height, width])
    }
}

/// Maps HU to 0..=1 by `HU_LEVELS`.
fn hu_share(hu: f32) -> f32 {
    let hu = if hu.is_finite() {
        f64::from(hu)
    } else {
        HU_LEVELS[0].0
    };
    let mut share = 0.0;
    for [(low, from), (high, to)] in HU_LEVELS.array_windows() {
        let part = ((hu - low) / (high - low)).clamp(0.0, 1.0);
        share += part * f64::from(to - from);
    }
    #[expect(clippy::cast_possible_truncation, reason = "a level is rounded later")]
    let share = (share / 255.0) as f32;
    share
}

/// Writes channels as bytes, pixel by pixel.
fn interleaved(channels: &[Vec<f32>], [height, width]: [usize; 2]) -> Vec<u8> {
    let n = channels.len().max(1);
    let mut bytes = vec![0; height * width * n];
    for (c, channel) in channels.iter().enumerate() {
        for (pixel, share) in bytes.chunks_exact_mut(n).zip(channel) {
            if let Some(byte) = pixel.get_mut(c) {
                *byte = grey_level(*share);
            }
        }
    }
    bytes
}

/// Returns whether an object is cut three ways: a volume of more than one slice.
#[must_use]
pub fn has_three_planes(volume: &Volume) -> bool {
    let [_, depth, ..] = volume.shape();
    volume.kind == Kind::Volume && depth > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(shape: [usize; 4], kind: Kind) -> Volume {
        let n: usize = shape.iter().product();
        let values = (0..=u16::MAX).cycle().take(n).map(f32::from);
        Volume::new(values.collect(), shape, kind).unwrap()
    }

    #[test]
    fn slices_are_spread_and_nothing_is_enlarged() {
        let volume = ramp([1, 100, 20, 30], Kind::Volume);
        let strip = strip(&volume, Cut::Depth, 4, 256);
        assert_eq!((strip.size, strip.n_channels), ([20, 30], 1));
        assert_eq!(strip.planes, [12, 37, 62, 87]);
        let sheet = strip.sheet();
        assert_eq!((sheet.n_columns, sheet.cell), (2, [24, 32]));
        assert_eq!(sheet.size, [48, 64]);
        // The second plane begins in the second cell, and its last column is repeated.
        assert_eq!(sheet.pixels[32], strip.frames[1][0]);
        assert_eq!(sheet.pixels[31], strip.frames[0][29]);
        let jpeg = sheet.jpeg(80).unwrap();
        assert_eq!(jpeg[..3], [0xff, 0xd8, 0xff]);
    }

    #[test]
    fn planes_keep_the_shape_of_voxels() {
        let mut volume = ramp([1, 10, 40, 40], Kind::Volume);
        volume.spacing = [Some(5.0), Some(1.0), Some(1.0)];
        let coronal = strip(&volume, Cut::Height, 1, 100);
        assert_eq!(coronal.size, [50, 40]);
        assert_eq!(strip(&volume, Cut::Depth, 32, 20).size, [20, 20]);
    }

    #[test]
    fn levels_of_hu_follow_their_knots() {
        for (hu, level) in HU_LEVELS {
            #[expect(clippy::cast_possible_truncation, reason = "whole numbers")]
            let share = hu_share(hu as f32);
            assert_eq!(grey_level(share), level);
        }
        assert_eq!(grey_level(hu_share(40.0)), 128);
        assert_eq!(grey_level(hu_share(f32::NAN)), 0);
        assert_eq!(grey_level(hu_share(9000.0)), 255);
    }

    #[test]
    fn colour_stays_and_equal_channels_are_grey() {
        let mut colour = ramp([3, 1, 2, 2], Kind::Image);
        colour.full_scale = Some(11.0);
        let drawn = strip(&colour, Cut::Depth, 1, 64);
        assert_eq!(drawn.n_channels, 3);
        assert_eq!(drawn.frames[0][..3], [0, 93, 185]);
        let values = [1.0, 2.0, 3.0, 4.0].repeat(3);
        let grey = Volume::new(values, [3, 1, 2, 2], Kind::Image).unwrap();
        assert_eq!(strip(&grey, Cut::Depth, 1, 64).n_channels, 1);
    }
}
