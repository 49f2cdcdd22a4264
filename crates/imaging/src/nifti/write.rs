//! Writes a volume as a NIfTI-1 file for viewers: small, in i16, and gzip.

use std::borrow::Cow;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::error::{Error, Result};
use crate::geometry::Affine;
use crate::memory;
use crate::resample::{as_f64, resample};
use crate::samples::narrow;
use crate::thumbnail::has_three_planes;
use crate::volume::Volume;

/// Where voxels begin: a header of 348 bytes, and four that say that nothing extends it.
const OFFSET: usize = 352;
/// i16
const DATATYPE: i16 = 4;
const BITS: i16 = 16;
/// Distances in mm.
const UNITS_MM: u8 = 2;
/// Positions of the scanner, as DICOM states them.
const SCANNER: i16 = 1;
/// Shares of red, green and blue in a grey (Rec. 601).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// Writes a volume as `.nii.gz` of i16, with no side above `max_side`.
///
/// Sides that are longer are resampled over the same extent, and the affine moves with them: no voxel leaves its place
/// in the patient. The affine is stated in RAS, as the sform; where the place is not known only distances are stated.
/// Whole numbers that fit are stored as they are. Others are rounded to 65,536 steps between the least and the greatest,
/// which `scl_slope` and `scl_inter` give back in the unit of the values. Values that are not finite become the least.
/// Colours become grey.
///
/// # Errors
/// `Mismatch` for a picture or a video, and for a `max_side` of 0; `LimitExceeded` if memory is short.
/// # Source
/// The NIfTI-1 header, `nifti1.h` of <https://nifti.nimh.nih.gov/nifti-1>.
pub fn encode_nifti(volume: &Volume, max_side: usize) -> Result<Vec<u8>> {
    if !has_three_planes(volume) || max_side == 0 {
        return Err(Error::Mismatch {
            what: "image to write as NIfTI",
            expected: "a volume of several slices".to_owned(),
            got: format!("{:?} of shape {:?}", volume.kind, volume.shape()),
        });
    }
    let [_, depth, height, width] = volume.shape();
    let from = [depth, height, width];
    let to = from.map(|side| side.min(max_side).min(usize::from(i16::MAX.unsigned_abs())));
    let grey = grey(volume)?;
    let values = match to == from {
        true => grey,
        false => Cow::Owned(resample(&grey, from, to)?),
    };
    let scale = Scale::of(&values);
    let mut file = GzEncoder::new(Vec::new(), Compression::fast());
    let failed = |source| Error::io("compressing NIfTI", source);
    file.write_all(&header(volume, to, &scale))
        .map_err(failed)?;
    let mut block = Vec::with_capacity(1 << 16);
    for values in values.chunks(1 << 15) {
        block.clear();
        block.extend(values.iter().flat_map(|&x| scale.stored(x).to_le_bytes()));
        file.write_all(&block).map_err(failed)?;
    }
    file.finish().map_err(failed)
}

/// Returns the values of a grey volume, or the luma of a coloured one.
fn grey(volume: &Volume) -> Result<Cow<'_, [f32]>> {
    let [n_channels, depth, height, width] = volume.shape();
    if n_channels == 1 {
        return Ok(Cow::Borrowed(volume.values()));
    }
    let n_voxels = depth * height * width;
    let mut grey = memory::zeroed(n_voxels)?;
    for (channel, share) in volume.values().chunks_exact(n_voxels).zip(LUMA) {
        for (sum, value) in grey.iter_mut().zip(channel) {
            *sum += share * value;
        }
    }
    Ok(Cow::Owned(grey))
}

/// How values are stored: value = slope * stored + inter, both as the header holds them.
struct Scale {
    slope: f32,
    inter: f32,
    least: f32,
}

impl Scale {
    fn of(values: &[f32]) -> Self {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let least = finite().fold(f32::INFINITY, f32::min);
        let greatest = finite().fold(f32::NEG_INFINITY, f32::max);
        if least > greatest {
            return Self {
                slope: 1.0,
                inter: 0.0,
                least: 0.0,
            };
        }
        let (low, high) = (f64::from(least), f64::from(greatest));
        let range = high - low;
        let middle = f64::from(i16::MIN);
        let is_whole = range <= 65_535.0 && finite().all(|value| value.fract().abs() <= 0.0);
        let fits = low >= middle && high <= f64::from(i16::MAX);
        let (slope, inter) = match (is_whole, fits) {
            (true, true) => (1.0, 0.0),
            // Beyond 2^24 f32 does not hold every whole number, and the values are rounded already.
            (true, false) => (1.0, narrow(low - middle)),
            (false, _) => {
                let slope = narrow(range / 65_535.0).max(f32::MIN_POSITIVE);
                (slope, narrow(low - f64::from(slope) * middle))
            }
        };
        Self {
            slope,
            inter,
            least,
        }
    }

    fn stored(&self, value: f32) -> i16 {
        let value = if value.is_finite() { value } else { self.least };
        let steps = (f64::from(value) - f64::from(self.inter)) / f64::from(self.slope);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a float converts with saturation"
        )]
        let stored = steps.round() as i16;
        stored
    }
}

/// Writes the header of a grid `to` `[D, H, W]` over the extent of a volume.
fn header(volume: &Volume, to: [usize; 3], scale: &Scale) -> [u8; OFFSET] {
    let mut header = Header([0; OFFSET]);
    let [depth, height, width] = to;
    let side = |side: usize| i16::try_from(side).unwrap_or(i16::MAX);
    header.put(0, 348_i32.to_le_bytes());
    for (idx, n) in [3, side(width), side(height), side(depth), 1, 1, 1, 1]
        .into_iter()
        .enumerate()
    {
        header.put(40 + 2 * idx, n.to_le_bytes());
    }
    header.put(70, DATATYPE.to_le_bytes());
    header.put(72, BITS.to_le_bytes());
    let affine = volume.affine.filter(Affine::is_usable);
    let steps = steps(volume, to);
    let stated = affine.map_or(volume.spacing, |affine| affine.spacing_mm().map(Some));
    let mut spacing = [1.0; 3];
    for ((spacing, stated), step) in spacing.iter_mut().zip(stated).zip(steps) {
        *spacing = stated
            .filter(|mm| mm.is_finite() && *mm > 0.0)
            .unwrap_or(1.0)
            * step;
    }
    let [along_depth, along_height, along_width] = spacing;
    for (idx, mm) in [1.0, along_width, along_height, along_depth]
        .into_iter()
        .enumerate()
    {
        header.put(76 + 4 * idx, narrow(mm).to_le_bytes());
    }
    header.put(108, 352.0_f32.to_le_bytes());
    header.put(112, scale.slope.to_le_bytes());
    header.put(116, scale.inter.to_le_bytes());
    header.put(123, [UNITS_MM]);
    if let Some(affine) = affine {
        let rows = in_ras(&stepped(&affine, steps)).rows;
        header.put(254, SCANNER.to_le_bytes());
        for (idx, x) in rows.into_iter().flatten().enumerate() {
            header.put(280 + 4 * idx, narrow(x).to_le_bytes());
        }
    }
    header.put(344, *b"n+1\0");
    header.0
}

/// Returns how many voxels of the volume one of the grid spans along D, H and W.
fn steps(volume: &Volume, to: [usize; 3]) -> [f64; 3] {
    let [_, depth, height, width] = volume.shape();
    let mut steps = [1.0; 3];
    for ((step, from), to) in steps.iter_mut().zip([depth, height, width]).zip(to) {
        *step = as_f64(from) / as_f64(to);
    }
    steps
}

/// Returns the affine of a grid of larger voxels over the same extent: voxels are cells, so the first centre moves, too.
fn stepped(affine: &Affine, [along_depth, along_height, along_width]: [f64; 3]) -> Affine {
    let [w, h, d, mut origin] = affine.columns();
    let axes = [(w, along_width), (h, along_height), (d, along_depth)];
    for (axis, step) in axes {
        for (place, x) in origin.iter_mut().zip(axis) {
            *place += x * (step - 1.0) / 2.0;
        }
    }
    let [w, h, d] = axes.map(|(axis, step)| axis.map(|x| x * step));
    Affine::from_columns(w, h, d, origin)
}

/// Turns LPS into RAS.
fn in_ras(affine: &Affine) -> Affine {
    let [x, y, z] = affine.rows;
    let rows = [x.map(|value| -value), y.map(|value| -value), z];
    Affine { rows }
}

/// The bytes of a header while they are written.
struct Header([u8; OFFSET]);

impl Header {
    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        // Every place is a constant of the format and lies inside.
        if let Some(place) = self.0.get_mut(at..at + N) {
            place.copy_from_slice(&bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::{ReadOptions, read_bytes};
    use crate::volume::Kind;

    fn volume(shape: [usize; 4], value: impl Fn(usize) -> f32) -> Volume {
        let n: usize = shape.iter().product();
        let mut volume = Volume::new((0..n).map(value).collect(), shape, Kind::Volume).unwrap();
        let affine = Affine::from_columns(
            [0.5, 0.1, 0.0],
            [-0.1, 0.6, 0.0],
            [0.0, 0.0, 2.5],
            [-30.0, 12.0, 7.5],
        );
        volume.affine = Some(affine);
        volume.spacing = affine.spacing_mm().map(Some);
        volume
    }

    fn reread(volume: &Volume, max_side: usize) -> Volume {
        let bytes = encode_nifti(volume, max_side).unwrap();
        read_bytes(&bytes, &ReadOptions::default())
            .unwrap()
            .pop()
            .unwrap()
    }

    #[test]
    fn whole_numbers_come_back_as_they_were_and_in_their_place() {
        for offset in [-1024_i32, -32_768, 32_000, 40_000] {
            let before = volume([1, 4, 5, 6], |i| offset as f32 + (i * 37 % 4000) as f32);
            let after = reread(&before, 256);
            assert_eq!(after.values(), before.values(), "{offset}");
            assert_eq!(after.shape(), before.shape());
            let pairs = after.affine.unwrap().rows.into_iter().flatten();
            let pairs = pairs.zip(before.affine.unwrap().rows.into_iter().flatten());
            for (a, b) in pairs {
                assert!((a - b).abs() < 1e-5, "{a} and {b}");
            }
        }
    }

    #[test]
    fn other_numbers_are_off_by_half_a_step_at_most() {
        for scale in [1e-3_f32, 1.0, 1e6] {
            let before = volume([1, 3, 7, 9], |i| {
                scale * ((i * 131 % 977) as f32 / 7.0 - 40.0)
            });
            let after = reread(&before, 256);
            let step = scale * 977.0 / 7.0 / 65_535.0;
            for (a, b) in after.values().iter().zip(before.values()) {
                assert!((a - b).abs() <= 0.51 * step, "{a} and {b}");
            }
        }
    }

    #[test]
    fn a_long_side_is_resampled_over_the_same_extent() {
        let before = volume([1, 10, 4, 4], |i| (i / 16) as f32);
        let after = reread(&before, 5);
        assert_eq!(after.shape(), [1, 5, 4, 4]);
        let [_, _, d, origin] = after.affine.unwrap().columns();
        assert!((d[2] - 5.0).abs() < 1e-6 && (origin[2] - 8.75).abs() < 1e-6);
        let middle = after.values()[2 * 16];
        assert!((middle - 4.5).abs() < 0.01, "{middle}");
    }

    #[test]
    fn colours_are_grey_and_infinite_values_the_least() {
        let n = 2 * 2 * 2;
        let coloured = volume([3, 2, 2, 2], |i| if i / n == 1 { 100.0 } else { 0.0 });
        assert!((reread(&coloured, 256).values()[0] - 58.7).abs() < 0.01);
        let holed = volume(
            [1, 2, 2, 2],
            |i| if i == 3 { f32::NAN } else { i as f32 + 1.0 },
        );
        assert!((reread(&holed, 256).values()[3] - 1.0).abs() < 1e-6);
        let nothing = volume([1, 2, 2, 2], |_| f32::NAN);
        assert!(reread(&nothing, 256).values().iter().all(|&x| x == 0.0));
    }

    #[test]
    fn pictures_and_videos_are_refused() {
        for (shape, kind) in [([1, 1, 4, 4], Kind::Volume), ([1, 4, 4, 4], Kind::Video)] {
            let n: usize = shape.iter().product();
            let other = Volume::new(vec![0.0; n], shape, kind).unwrap();
            assert!(matches!(
                encode_nifti(&other, 256),
                Err(Error::Mismatch { .. })
            ));
        }
    }
}
