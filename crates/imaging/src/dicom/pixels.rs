//! The Image Pixel module: how pixels are stored, and what they mean.
//!
//! # Source
//! DICOM PS3.3 C.7.6.3 and C.11.1, PS3.5 section 8.

mod agree;
mod decode;
mod planes;
mod stored;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::dataset::{DataSet, name_of};
use super::padding::{Marking, StoredPadding};
use super::palette::{self, Table};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::samples::{ByteOrder, Linear, Scalar, narrow};

pub(crate) use self::decode::{Pixels, Wanted, decode, inflate};
pub(crate) use self::stored::{is_lossy, stored_codec};

const FORMAT: &str = "dicom";

/// What the stored samples of a pixel mean.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Photometric {
    /// Low values are dark.
    Monochrome2,
    /// Low values are bright.
    Monochrome1,
    /// Indices of three tables.
    Palette(Box<[Table; 3]>),
    /// Red, green, blue; also `YBR_ICT` and `YBR_RCT`, which JPEG 2000 itself turns into RGB.
    Rgb,
    /// Luminance and differences, full range.
    YbrFull,
    /// As `YbrFull`, natively stored with half the differences along a row.
    YbrFull422,
}

/// The Image Pixel module and the modality transform of one data set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PixelModule {
    /// Rows.
    pub(crate) n_rows: usize,
    /// Columns.
    pub(crate) n_columns: usize,
    /// Declared frames.
    pub(crate) n_frames: usize,
    /// 1 or 3.
    pub(crate) n_samples: usize,
    bits_allocated: u16,
    bits_stored: u16,
    high_bit: u16,
    signed: bool,
    is_float: bool,
    is_planar: bool,
    /// What samples mean.
    pub(crate) photometric: Photometric,
    modality_table: Option<Table>,
    /// Stored values of monochrome pixels that stand for none.
    pub(super) padding: Option<StoredPadding>,
    /// The data set's own rescale, if it states one; frames may have theirs.
    pub(crate) rescale: Option<Linear>,
    order: ByteOrder,
}

/// Returns a number of 16 bits that describes pixels. A value of another length is another number: of 32 bits if it
/// fits, else none.
fn stated(set: &DataSet<'_>, tag: Tag) -> Result<Option<u16>> {
    let n_bytes = set.bytes(tag).map_or(0, <[u8]>::len);
    if n_bytes <= 2 {
        return Ok(set.u16(tag));
    }
    let long = set.u32(tag).filter(|_| n_bytes == 4);
    if let Some(value) = long.and_then(|value| u16::try_from(value).ok()) {
        set.repaired(tag, "a number of 32 bits; read as one of 16");
        return Ok(Some(value));
    }
    let found = match long {
        Some(value) => format!("{} {value}", name_of(tag)),
        None => format!("{n_bytes} bytes of {}", name_of(tag)),
    };
    Err(Error::malformed(FORMAT, found, "one number of 16 bits"))
}

fn required(set: &DataSet<'_>, tag: Tag) -> Result<u16> {
    let value = stated(set, tag)?.filter(|&value| value > 0);
    value.ok_or_else(|| {
        let found = format!("pixels without a {} above 0", name_of(tag));
        Error::malformed(FORMAT, found, "an image pixel module")
    })
}

impl PixelModule {
    /// Reads and checks the module, but for what `agree_with` compares with the pixels.
    pub(crate) fn new(set: &DataSet<'_>, limits: &Limits) -> Result<Self> {
        let n_rows = required(set, tags::ROWS)?;
        let n_columns = required(set, tags::COLUMNS)?;
        let bits_allocated = required(set, tags::BITS_ALLOCATED)?;
        let bits_stored = stated(set, tags::BITS_STORED)?.unwrap_or(bits_allocated);
        let high_bit = stated(set, tags::HIGH_BIT)?.unwrap_or(bits_stored.saturating_sub(1));
        let signed = match stated(set, tags::PIXEL_REPRESENTATION)? {
            None | Some(0) => false,
            Some(1) => true,
            Some(other) => {
                let found = format!("PixelRepresentation {other}");
                return Err(Error::malformed(FORMAT, found, "0 or 1"));
            }
        };
        let n_samples = usize::from(stated(set, tags::SAMPLES_PER_PIXEL)?.unwrap_or(1));
        let modality = set.first_item(tags::MODALITY_LUT_SEQUENCE)?;
        let photometric = photometric(set, n_samples, signed)?;
        let is_float = set.has(tags::FLOAT_PIXEL_DATA) || set.has(tags::DOUBLE_FLOAT_PIXEL_DATA);
        let is_grey = matches!(
            photometric,
            Photometric::Monochrome1 | Photometric::Monochrome2
        );
        Ok(Self {
            n_rows: n_rows.into(),
            n_columns: n_columns.into(),
            n_frames: limits.frames(n_frames(set)?)?,
            n_samples,
            bits_allocated,
            bits_stored,
            high_bit,
            signed,
            is_float,
            is_planar: set.u16(tags::PLANAR_CONFIGURATION) == Some(1),
            photometric,
            modality_table: modality
                .map(|item| palette::modality_table(&item, signed))
                .transpose()?,
            padding: (is_grey && bits_allocated > 1)
                .then(|| StoredPadding::of(set, is_float, signed))
                .flatten(),
            rescale: dose_scaling(set).or_else(|| rescale(set)),
            order: set.order(),
        })
    }

    /// Decides what becomes of padding voxels.
    pub(crate) fn with_marking(mut self, marking: Marking) -> Self {
        if marking == Marking::Nothing {
            self.padding = None;
        }
        self
    }

    /// Returns true if stored values become measurements.
    pub(crate) fn has_modality_transform(&self) -> bool {
        self.rescale.is_some() || self.modality_table.is_some()
    }

    /// Returns 1 for grey and 3 for colour.
    pub(crate) fn n_channels(&self) -> usize {
        if self.is_palette() { 3 } else { self.n_samples }
    }

    /// Returns the largest value that a colour sample can hold.
    pub(crate) fn full_scale(&self) -> f32 {
        match &self.photometric {
            Photometric::Palette(tables) => tables
                .iter()
                .map(|table| table.full_scale)
                .fold(0.0, f32::max),
            _ => narrow(2_f64.powi(i32::from(self.bits_stored)) - 1.0),
        }
    }

    fn is_palette(&self) -> bool {
        matches!(self.photometric, Photometric::Palette(_))
    }

    fn n_pixels(&self) -> usize {
        self.n_rows * self.n_columns
    }

    /// Bits of one natively stored frame.
    fn frame_bits(&self) -> u64 {
        let n_values = match self.photometric {
            // Two luminances share one pair of differences.
            Photometric::YbrFull422 => 2 * self.n_pixels() as u64,
            _ => (self.n_pixels() * self.n_samples) as u64,
        };
        n_values * u64::from(self.bits_allocated)
    }

    fn scalar(&self) -> Option<Scalar> {
        Some(match (self.bits_allocated, self.signed, self.is_float) {
            (32, _, true) => Scalar::F32,
            (64, _, true) => Scalar::F64,
            (8, false, false) => Scalar::U8,
            (8, true, false) => Scalar::I8,
            (16, false, false) => Scalar::U16,
            (16, true, false) => Scalar::I16,
            (32, false, false) => Scalar::U32,
            (32, true, false) => Scalar::I32,
            (64, false, false) => Scalar::U64,
            (64, true, false) => Scalar::I64,
            _ => return None,
        })
    }
}

/// Returns the element that holds the pixels.
pub(crate) fn native_value<'a>(set: &DataSet<'a>) -> Option<(Tag, &'a [u8])> {
    let places = [
        tags::PIXEL_DATA,
        tags::FLOAT_PIXEL_DATA,
        tags::DOUBLE_FLOAT_PIXEL_DATA,
    ];
    let value = |tag| Some((tag, set.bytes(tag)?));
    places.into_iter().find_map(value)
}

/// Reads the declared number of frames.
pub(crate) fn n_frames(set: &DataSet<'_>) -> Result<u64> {
    let Some(text) = set.text(tags::NUMBER_OF_FRAMES) else {
        return Ok(1);
    };
    let n: Option<u64> = text.trim().parse().ok();
    match n {
        // 0 is written for "one" by some.
        Some(n) => Ok(n.max(1)),
        None => Err(Error::malformed(
            FORMAT,
            format!(
                "NumberOfFrames {} that is no number",
                tags::NUMBER_OF_FRAMES
            ),
            "a whole number",
        )),
    }
}

/// Reads the rescale of a data set, or of a Pixel Value Transformation item.
pub(crate) fn rescale(set: &DataSet<'_>) -> Option<Linear> {
    let slope = set.decimal(tags::RESCALE_SLOPE)?;
    let intercept = set.decimal(tags::RESCALE_INTERCEPT)?;
    (slope.is_finite() && intercept.is_finite() && slope != 0.0)
        .then_some(Linear { slope, intercept })
}

/// Reads what turns the stored values of a dose grid into a dose (PS3.3 C.8.8.3).
fn dose_scaling(set: &DataSet<'_>) -> Option<Linear> {
    let slope = set.decimal(tags::DOSE_GRID_SCALING)?;
    let intercept = 0.0;
    (slope.is_finite() && slope > 0.0).then_some(Linear { slope, intercept })
}

fn photometric(set: &DataSet<'_>, n_samples: usize, signed: bool) -> Result<Photometric> {
    let stated = set.code(tags::PHOTOMETRIC_INTERPRETATION);
    if stated.is_none() && set.text(tags::PHOTOMETRIC_INTERPRETATION).is_some() {
        let found = "a PhotometricInterpretation that is no code";
        return Err(Error::malformed(
            FORMAT,
            found,
            "capitals, digits and underscores",
        ));
    }
    let found = match (stated.as_deref(), n_samples) {
        (Some("MONOCHROME1"), 1) => Photometric::Monochrome1,
        (Some("MONOCHROME2") | None, 1) => Photometric::Monochrome2,
        (Some("PALETTE COLOR"), 1) => {
            Photometric::Palette(Box::new(palette::colour_tables(set, signed)?))
        }
        (Some("RGB" | "YBR_ICT" | "YBR_RCT" | "XYB") | None, 3) => Photometric::Rgb,
        (Some("YBR_FULL"), 3) => Photometric::YbrFull,
        (Some("YBR_FULL_422"), 3) => Photometric::YbrFull422,
        (other, n) => {
            let feature = format!(
                "{} with {n} samples per pixel",
                other.unwrap_or("no colour model")
            );
            return Err(Error::unsupported(FORMAT, feature, "convert it to RGB"));
        }
    };
    Ok(found)
}
