//! `Volume`: the one shape that every file is read into.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};
use crate::geometry::Affine;
use crate::identifiers::Identifiers;
use crate::reason::{Code, Reason};

/// Heights by widths beyond are no shapes of a pixel.
pub(crate) const PLAUSIBLE_ASPECT: RangeInclusive<f64> = 1e-2..=1e2;

/// What the depth axis of a `Volume` means; set by readers, shown by reports, seen by no model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// D = 1.
    Image,
    /// D is time.
    Video,
    /// D is space.
    Volume,
}

/// Voxels that show nothing and were given the darkest true value.
///
/// Invariant: at least one voxel of the volume is no padding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Padding {
    /// How many there are.
    pub n_voxels: usize,
    /// The value that they hold: the least of the others, or the greatest where `inverted`.
    pub value: f32,
}

impl Padding {
    /// Returns the padding of a part of the volume, by its values; `None` where all of the part is padding.
    pub(crate) fn of_part(self, values: &[f32]) -> Option<Self> {
        // Values as dark as padding are among the darkest, whichever they are.
        let dark = values
            .iter()
            .filter(|value| value.to_bits() == self.value.to_bits());
        let n_voxels = dark.count();
        (n_voxels < values.len()).then_some(Self { n_voxels, ..self })
    }
}

/// A medical image of any kind as f32 `[C, D, H, W]`, W fastest; C is 1 (grey) or 3 (RGB).
///
/// Invariants, checked in `new`: no side is 0, C is 1 or 3, the values fill the shape exactly.
///
/// # Units
/// Values are what the file means: HU for CT, stored values after the modality transform elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    values: Vec<f32>,
    shape: [usize; 4],
    /// What D means.
    pub kind: Kind,
    /// Distance of neighbours along D, H, W in mm; seconds along D for a video.
    pub spacing: [Option<f64>; 3],
    /// Height of a pixel by its width where the file states only that ratio; 1 where pixels are
    /// square, nothing is stated, or `spacing` says it.
    pub pixel_aspect: f64,
    /// Where the voxels lie in the patient, where the file says so.
    pub affine: Option<Affine>,
    /// DICOM Modality, e.g. `CT`, where the file states it.
    pub modality: Option<String>,
    /// DICOM Modality as the values of the image suggest it, e.g. `CT`. It is set only where a file
    /// without a header for it states none, and is never used in the place of `modality`.
    pub modality_guess: Option<&'static str>,
    /// DICOM `BodyPartExamined`, e.g. `CHEST`.
    pub body_part: Option<String>,
    /// Whose image it is, where the file says so; shown nowhere.
    pub identifiers: Identifiers,
    /// Unit of the values, e.g. `HU`, where the file fixes one.
    pub unit: Option<&'static str>,
    /// True if low values are to be shown bright (MONOCHROME1); values are never inverted here.
    pub inverted: bool,
    /// Largest value that the storage format can hold; set for integer images that are not
    /// measurements (raster files, RGB, palettes).
    pub full_scale: Option<f32>,
    /// The voxels that stand for no pixel, where the file says which.
    pub padding: Option<Padding>,
    /// Which part of its file this is, e.g. `t=3`, where the file holds several.
    pub part: Option<String>,
    /// What is unusual about it.
    pub reasons: Vec<Reason>,
}

impl Volume {
    /// Joins values and shape.
    ///
    /// # Shapes
    /// `values` holds `C * D * H * W` numbers for `shape` = `[C, D, H, W]`, W fastest.
    /// # Errors
    /// `Mismatch` if a side is 0, C is neither 1 nor 3, or the values do not fill the shape.
    pub fn new(values: Vec<f32>, shape: [usize; 4], kind: Kind) -> Result<Self> {
        let [n_channels, ..] = shape;
        let wanted = shape
            .iter()
            .try_fold(1_usize, |product, &side| product.checked_mul(side));
        if wanted != Some(values.len()) || values.is_empty() || !matches!(n_channels, 1 | 3) {
            return Err(Error::Mismatch {
                what: "volume shape [C, D, H, W] with C 1 or 3",
                expected: format!("{} values", values.len()),
                got: format!("{shape:?}"),
            });
        }
        Ok(Self {
            values,
            shape,
            kind,
            spacing: [None; 3],
            pixel_aspect: 1.0,
            affine: None,
            modality: None,
            modality_guess: None,
            body_part: None,
            identifiers: Identifiers::default(),
            unit: None,
            inverted: false,
            full_scale: None,
            padding: None,
            part: None,
            reasons: Vec::new(),
        })
    }

    /// Returns the values, W fastest.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns `[C, D, H, W]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Gives the values away.
    #[must_use]
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// Returns the values of one `[H, W]` plane, or `None` outside the shape.
    #[must_use]
    pub fn plane(&self, channel: usize, depth: usize) -> Option<&[f32]> {
        let [n_channels, n_depth, height, width] = self.shape;
        if channel >= n_channels || depth >= n_depth {
            return None;
        }
        let start = (channel * n_depth + depth) * height * width;
        self.values.get(start..start + height * width)
    }

    /// Returns whether it is known where the voxels lie in the patient.
    pub(crate) fn is_placed(&self) -> bool {
        let mut reasons = self.reasons.iter();
        self.affine.is_some() && !reasons.any(|reason| reason.code == Code::OrientationUnknown)
    }

    /// Adds a reason.
    pub fn note(&mut self, code: Code, detail: impl Into<String>) {
        self.reasons.push(Reason::new(code, detail));
    }

    /// Returns the values to be changed in place.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Takes the values out, to be put back by `with_values`.
    pub(crate) fn take_values(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.values)
    }

    /// Replaces values and shape, keeping everything else.
    ///
    /// # Errors
    /// As `new`.
    pub(crate) fn with_values(self, values: Vec<f32>, shape: [usize; 4]) -> Result<Self> {
        let fresh = Self::new(values, shape, self.kind)?;
        Ok(Self {
            values: fresh.values,
            shape: fresh.shape,
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_must_be_filled_exactly_and_have_1_or_3_channels() {
        for (n_values, shape) in [
            (0, [1, 0, 2, 2]),
            (4, [1, 1, 2, 3]),
            (8, [2, 1, 2, 2]),
            (1, [1, usize::MAX, 2, 2]),
        ] {
            assert!(
                Volume::new(vec![0.0; n_values], shape, Kind::Image).is_err(),
                "{shape:?}"
            );
        }
        assert!(Volume::new(vec![0.0; 12], [3, 1, 2, 2], Kind::Image).is_ok());
    }

    #[test]
    fn a_plane_is_one_slice_of_one_channel() {
        let values: Vec<f32> = (0_u8..24).map(f32::from).collect();
        let volume = Volume::new(values, [3, 2, 2, 2], Kind::Video).unwrap();
        assert_eq!(volume.plane(1, 1), Some(&[12.0, 13.0, 14.0, 15.0][..]));
        assert_eq!(volume.plane(3, 0), None);
    }
}
