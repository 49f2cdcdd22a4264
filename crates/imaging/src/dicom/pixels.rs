//! Stored pixels -> f32 planes: layout, sign, palette, colour, modality transform.
//!
//! # Source
//! DICOM PS3.3 C.7.6.3 and C.11.1, PS3.5 section 8.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::Read as _;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use flate2::read::DeflateDecoder;
use rayon::prelude::*;

use super::codec::{self, Codec, Colour, Decoded, Expected};
use super::dataset::DataSet;
use super::palette::{self, Table};
use super::{frames, rle};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::memory;
use crate::reason::{Code, Reason};
use crate::samples::{ByteOrder, Linear, Scalar, extend_f32, narrow, widen_i64, widen_u64};

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
    /// The data set's own rescale, if it states one; frames may have theirs.
    pub(crate) rescale: Option<Linear>,
    order: ByteOrder,
}

fn required(set: &DataSet<'_>, tag: Tag, name: &'static str) -> Result<u16> {
    let value = set.u16(tag).filter(|&value| value > 0);
    value.ok_or_else(|| {
        Error::refused(
            FORMAT,
            Code::NoPixels,
            format!("no {name} {tag}"),
            "an image pixel module",
        )
    })
}

impl PixelModule {
    /// Reads and checks the module.
    pub(crate) fn new(set: &DataSet<'_>, limits: &Limits) -> Result<Self> {
        let n_rows = required(set, tags::ROWS, "Rows")?;
        let n_columns = required(set, tags::COLUMNS, "Columns")?;
        let bits_allocated = required(set, tags::BITS_ALLOCATED, "BitsAllocated")?;
        let bits_stored = set.u16(tags::BITS_STORED).unwrap_or(bits_allocated);
        let high_bit = set
            .u16(tags::HIGH_BIT)
            .unwrap_or(bits_stored.saturating_sub(1));
        let is_legal = matches!(bits_allocated, 1 | 8 | 16 | 32 | 64)
            && (1..=bits_allocated).contains(&bits_stored)
            && (bits_stored - 1..bits_allocated).contains(&high_bit);
        if !is_legal {
            let found =
                format!("{bits_stored} bits stored of {bits_allocated}, high bit {high_bit}");
            let wanted = "1, 8, 16, 32 or 64 bits allocated that hold the stored ones";
            return Err(Error::malformed(FORMAT, found, wanted));
        }
        let signed = match set.u16(tags::PIXEL_REPRESENTATION) {
            None | Some(0) => false,
            Some(1) => true,
            Some(other) => {
                let found = format!("PixelRepresentation {other}");
                return Err(Error::malformed(FORMAT, found, "0 or 1"));
            }
        };
        let n_samples = usize::from(set.u16(tags::SAMPLES_PER_PIXEL).unwrap_or(1));
        let modality = set.first_item(tags::MODALITY_LUT_SEQUENCE)?;
        Ok(Self {
            n_rows: n_rows.into(),
            n_columns: n_columns.into(),
            n_frames: limits.frames(n_frames(set)?)?,
            n_samples,
            bits_allocated,
            bits_stored,
            high_bit,
            signed,
            is_float: set.has(tags::FLOAT_PIXEL_DATA) || set.has(tags::DOUBLE_FLOAT_PIXEL_DATA),
            is_planar: set.u16(tags::PLANAR_CONFIGURATION) == Some(1),
            photometric: photometric(set, n_samples, signed)?,
            modality_table: modality
                .map(|item| palette::modality_table(&item, signed))
                .transpose()?,
            rescale: rescale(set),
            order: set.order(),
        })
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

    /// Stored values of native bytes, by sample, mapped.
    fn unpack(
        &self,
        bytes: &[u8],
        order: ByteOrder,
        map: Linear,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let Some(scalar) = self.scalar() else {
            return Err(Error::malformed(
                FORMAT,
                "floating point of 8 or 16 bits",
                "32 or 64",
            ));
        };
        if self.is_float || self.bits_stored == self.bits_allocated {
            return extend_f32(out, bytes, (scalar, order), map);
        }
        let above = u32::from(self.bits_allocated - 1 - self.high_bit);
        let unused = u32::from(self.bits_allocated - self.bits_stored);
        macro_rules! masked {
            ($unsigned:ty, $signed:ty, $widen_unsigned:expr, $widen_signed:expr) => {{
                let (chunks, _) = bytes.as_chunks::<{ size_of::<$unsigned>() }>();
                let parse = |raw: &[u8; size_of::<$unsigned>()]| match order {
                    ByteOrder::Little => <$unsigned>::from_le_bytes(*raw),
                    ByteOrder::Big => <$unsigned>::from_be_bytes(*raw),
                };
                // Shifted to the top and back: clears overlays above, extends the sign.
                if self.signed {
                    let value = |raw| (parse(raw) << above).cast_signed() >> unused;
                    out.extend(
                        chunks
                            .iter()
                            .map(|raw| map.apply($widen_signed(value(raw)))),
                    );
                } else {
                    let value = |raw| (parse(raw) << above) >> unused;
                    out.extend(
                        chunks
                            .iter()
                            .map(|raw| map.apply($widen_unsigned(value(raw)))),
                    );
                }
            }};
        }
        match self.bits_allocated {
            8 => masked!(u8, i8, f64::from, f64::from),
            16 => masked!(u16, i16, f64::from, f64::from),
            32 => masked!(u32, i32, f64::from, f64::from),
            _ => masked!(u64, i64, widen_u64, widen_i64),
        }
        Ok(())
    }

    /// Reinterprets codec samples by the header's sign, in the codec's own width where the codec
    /// states one (JPEG 2000 and JPEG-LS), else in the stored width.
    fn signed_samples(&self, decoded: &mut Decoded, codec: Codec) {
        let width = match codec {
            Codec::Jpeg => u32::from(self.bits_stored).min(decoded.precision.max(1)),
            _ => decoded.precision,
        };
        if decoded.signed == Some(self.signed) || !(1..=31).contains(&width) {
            return;
        }
        let shift = 32 - width;
        if self.signed {
            decoded
                .samples
                .iter_mut()
                .for_each(|v| *v = *v << shift >> shift);
        } else if decoded.signed == Some(true) {
            let mask = i32::MAX >> (31 - width);
            decoded.samples.iter_mut().for_each(|v| *v &= mask);
        }
    }

    /// Samples of one frame by pixel -> its channels, plane by plane.
    fn planes(&self, samples: Vec<f32>, colour: Colour, map: Linear) -> Result<Vec<f32>> {
        if let Photometric::Palette(tables) = &self.photometric {
            let planes = tables
                .iter()
                .flat_map(|table| samples.iter().map(|&v| table.at(v)));
            return Ok(planes.collect());
        }
        if self.n_samples == 1 {
            return Ok(match &self.modality_table {
                Some(table) => samples.into_iter().map(|v| table.at(v)).collect(),
                None if map.is_identity() => samples,
                None => samples
                    .into_iter()
                    .map(|v| map.apply(f64::from(v)))
                    .collect(),
            });
        }
        let is_ybr = match colour {
            Colour::Ybr => true,
            Colour::Rgb => false,
            Colour::AsHeader => {
                matches!(
                    self.photometric,
                    Photometric::YbrFull | Photometric::YbrFull422
                )
            }
        };
        let (pixels, _) = samples.as_chunks::<3>();
        if pixels.len() != self.n_pixels() {
            let found = format!("{} of {} pixels", pixels.len(), self.n_pixels());
            return Err(Error::refused(
                FORMAT,
                Code::Truncated,
                found,
                "a whole frame",
            ));
        }
        let full = self.full_scale();
        let pixels: Vec<[f32; 3]> = pixels
            .iter()
            .map(|&p| if is_ybr { rgb(p, full) } else { p })
            .collect();
        let channel = |c: usize| pixels.iter().filter_map(move |p| p.get(c).copied());
        Ok((0..3).flat_map(channel).collect())
    }

    /// Native bytes of one frame -> planes.
    fn native_planes(&self, bytes: &[u8], layout: Layout, map: Linear) -> Result<Vec<f32>> {
        let n_samples = self.n_pixels() * self.n_samples;
        let mut samples = Vec::with_capacity(n_samples);
        if self.bits_allocated == 1 {
            samples.extend(bits(bytes, 0, n_samples).map(f32::from));
        } else {
            self.unpack(bytes, layout.order, Linear::IDENTITY, &mut samples)?;
        }
        if self.n_samples == 3 && self.photometric == Photometric::YbrFull422 {
            samples = spread_422(&samples);
        } else if self.n_samples == 3 && layout.is_planar {
            samples = codec::by_pixel(&samples, 3);
        }
        self.planes(samples, Colour::AsHeader, map)
    }

    fn layout_of(&self, order: ByteOrder) -> Layout {
        Layout {
            order,
            is_planar: self.is_planar,
        }
    }
}

/// How the samples of one native frame follow each other.
#[derive(Debug, Clone, Copy)]
struct Layout {
    order: ByteOrder,
    is_planar: bool,
}

/// Two luminances, then the differences they share -> three samples a pixel.
fn spread_422(samples: &[f32]) -> Vec<f32> {
    let (pairs, _) = samples.as_chunks::<4>();
    pairs
        .iter()
        .flat_map(|&[y0, y1, cb, cr]| [y0, cb, cr, y1, cb, cr])
        .collect()
}

/// Full-range luminance and differences -> RGB, rounded to whole levels.
///
/// # Source
/// DICOM PS3.3 C.7.6.3.1.2, inverted.
fn rgb([y, cb, cr]: [f32; 3], full: f32) -> [f32; 3] {
    let half = ((full + 1.0) / 2.0).floor();
    let (cb, cr) = (cb - half, cr - half);
    let red = y + 1.402 * cr;
    let green = y - (0.114 * 1.772 / 0.587) * cb - (0.299 * 1.402 / 0.587) * cr;
    let blue = y + 1.772 * cb;
    [red, green, blue].map(|v| (v + 0.5).clamp(0.0, full).floor())
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

/// The frames to decode, and the rescale of each.
pub(crate) struct Wanted<'m> {
    /// Frame numbers from 0, in the order of the result.
    pub(crate) frames: Vec<usize>,
    /// One map for each of `frames`.
    pub(crate) maps: Vec<Linear>,
    /// The module that describes them.
    pub(crate) module: &'m PixelModule,
    /// Memory of an earlier result to use again; empty if there is none.
    pub(crate) scratch: Cell<Vec<f32>>,
}

/// The wanted frames.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pixels {
    /// `[C, frames, rows, columns]`, channel slowest.
    pub(crate) values: Vec<f32>,
    /// What is unusual about them.
    pub(crate) reasons: Vec<Reason>,
}

impl Pixels {
    fn new(values: Vec<f32>, n_stored: u64, n_declared: usize) -> Self {
        let mut pixels = Self {
            values,
            reasons: Vec::new(),
        };
        if n_stored > n_declared as u64 {
            let detail = format!("{n_stored} frames stored, {n_declared} declared and read");
            pixels.reasons.push(Reason::new(Code::ExtraFrames, detail));
        }
        pixels
    }
}

/// The planes of one frame.
struct Planes {
    values: Vec<f32>,
    is_sign_mismatch: bool,
}

impl Planes {
    fn native(values: Vec<f32>) -> Self {
        Self {
            values,
            is_sign_mismatch: false,
        }
    }
}

/// Decodes the wanted frames.
///
/// # Errors
/// As the codecs.
pub(crate) fn decode(
    set: &DataSet<'_>,
    codec: Codec,
    wanted: &Wanted<'_>,
    limits: &Limits,
) -> Result<Pixels> {
    let module = wanted.module;
    if codec == Codec::Native {
        return native(set, wanted, limits);
    }
    check_voxels(wanted, limits)?;
    let encoded = frames::encapsulated(set, module.n_frames, limits)?;
    let frame = |index: usize| encoded.frames.get(index).map_or(&[][..], |f| f.as_ref());
    // Some codecs make gigabytes of a few bytes: charged like any other decompression.
    let n_encoded: u64 = wanted.frames.iter().map(|&i| frame(i).len() as u64).sum();
    let n_decoded = module
        .frame_bits()
        .div_ceil(8)
        .checked_mul(wanted.frames.len() as u64);
    limits.decompressed(n_encoded, n_decoded.unwrap_or(u64::MAX))?;
    let (values, is_sign_mismatch) = in_order(wanted, |index, map| {
        encapsulated_planes(module, codec, frame(index), (map, limits))
    })?;
    let mut pixels = Pixels::new(values, encoded.n_stored as u64, module.n_frames);
    if is_sign_mismatch {
        let detail = "the codestream and the header disagree on the sign; the header was believed";
        pixels.reasons.push(Reason::new(Code::SignMismatch, detail));
    }
    Ok(pixels)
}

fn check_voxels(wanted: &Wanted<'_>, limits: &Limits) -> Result<()> {
    let module = wanted.module;
    let sides = [
        module.n_channels(),
        wanted.frames.len(),
        module.n_rows,
        module.n_columns,
    ];
    limits.voxels(sides.map(|side| side as u64)).map(drop)
}

/// Decodes frames in parallel, a few at a time, and puts their planes where they belong. Also
/// returns whether any frame contradicts the header's sign.
fn in_order(
    wanted: &Wanted<'_>,
    planes_of: impl Fn(usize, Linear) -> Result<Planes> + Sync,
) -> Result<(Vec<f32>, bool)> {
    let module = wanted.module;
    let n_pixels = module.n_pixels();
    let n_channels = module.n_channels();
    let n_wanted = wanted.frames.len();
    let jobs: Vec<(usize, Linear)> = wanted
        .frames
        .iter()
        .copied()
        .zip(wanted.maps.iter().copied())
        .collect();
    // Reserved when the first frames have proved that there is something to hold.
    let mut values = Vec::new();
    let mut is_sign_mismatch = false;
    let mut depth = 0;
    for batch in jobs.chunks(16) {
        let decoded: Result<Vec<Planes>> = batch
            .par_iter()
            .map(|&(frame, map)| planes_of(frame, map))
            .collect();
        for planes in decoded? {
            is_sign_mismatch |= planes.is_sign_mismatch;
            if planes.values.len() != n_channels * n_pixels {
                let found = format!("{} values", planes.values.len());
                let wanted = format!("{}", n_channels * n_pixels);
                return Err(Error::refused(FORMAT, Code::Truncated, found, wanted));
            }
            if n_wanted == 1 {
                return Ok((planes.values, is_sign_mismatch));
            }
            if values.is_empty() {
                values = memory::zeroed(n_channels * n_wanted * n_pixels)?;
            }
            for (channel, plane) in planes.values.chunks_exact(n_pixels).enumerate() {
                let start = (channel * n_wanted + depth) * n_pixels;
                if let Some(place) = values.get_mut(start..start + n_pixels) {
                    place.copy_from_slice(plane);
                }
            }
            depth += 1;
        }
    }
    Ok((values, is_sign_mismatch))
}

fn encapsulated_planes(
    module: &PixelModule,
    codec: Codec,
    frame: &[u8],
    (map, limits): (Linear, &Limits),
) -> Result<Planes> {
    let layout = module.layout_of(ByteOrder::Little);
    let native = match codec {
        Codec::Rle => {
            let n_bytes = usize::from(module.bits_allocated / 8);
            let bytes = rle::decode(frame, module.n_pixels(), module.n_samples, n_bytes)?;
            let by_pixel = Layout {
                is_planar: false,
                ..layout
            };
            return module
                .native_planes(&bytes, by_pixel, map)
                .map(Planes::native);
        }
        Codec::EncapsulatedNative => Some(Cow::Borrowed(frame)),
        Codec::DeflatedFrames => Some(Cow::Owned(inflate(frame, limits)?)),
        _ => None,
    };
    if let Some(bytes) = native {
        let bytes = exact(&bytes, module.frame_bits().div_ceil(8))?;
        return module.native_planes(bytes, layout, map).map(Planes::native);
    }
    let expected = Expected {
        height: u32::try_from(module.n_rows).unwrap_or(0),
        width: u32::try_from(module.n_columns).unwrap_or(0),
        n_samples: u32::try_from(module.n_samples).unwrap_or(0),
    };
    let mut decoded = codec::decode(codec, frame, expected, limits)?;
    let is_sign_mismatch = decoded.signed.is_some_and(|signed| signed != module.signed);
    module.signed_samples(&mut decoded, codec);
    let samples = decoded
        .samples
        .iter()
        .map(|&v| narrow(f64::from(v)))
        .collect();
    Ok(Planes {
        values: module.planes(samples, decoded.colour, map)?,
        is_sign_mismatch,
    })
}

/// Inflates a raw DEFLATE stream within the limits.
///
/// # Errors
/// `LimitExceeded` if it grows past them, `Malformed` if it is broken.
pub(crate) fn inflate(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>> {
    let most = limits.max_decompressed(bytes.len() as u64);
    let mut stream = DeflateDecoder::new(bytes).take(most.saturating_add(1));
    let mut out = Vec::new();
    loop {
        // Doubled, but never beyond what is allowed.
        let room = (out.len() as u64).max(1 << 16).min(stream.limit());
        out.reserve_exact(usize::try_from(room).unwrap_or(usize::MAX));
        let n_read = stream.by_ref().take(room).read_to_end(&mut out);
        let n_read = n_read.map_err(|e| {
            let code = match e.kind() {
                std::io::ErrorKind::UnexpectedEof => Code::Truncated,
                _ => Code::Malformed,
            };
            let found = format!("a DEFLATE stream that breaks off ({e})");
            Error::refused(FORMAT, code, found, "a whole one")
        })?;
        if n_read as u64 != room || room == 0 {
            break;
        }
    }
    limits.decompressed(bytes.len() as u64, out.len() as u64)?;
    Ok(out)
}

fn exact(bytes: &[u8], n_bytes: u64) -> Result<&[u8]> {
    let found = bytes.len();
    usize::try_from(n_bytes)
        .ok()
        .and_then(|n| bytes.get(..n))
        .ok_or_else(|| {
            let wanted = format!("{n_bytes} bytes");
            Error::refused(
                FORMAT,
                Code::Truncated,
                format!("{found} bytes of pixels"),
                wanted,
            )
        })
}

/// Native pixels, all frames in one value.
fn native(set: &DataSet<'_>, wanted: &Wanted<'_>, limits: &Limits) -> Result<Pixels> {
    let module = wanted.module;
    let stored = [
        tags::PIXEL_DATA,
        tags::FLOAT_PIXEL_DATA,
        tags::DOUBLE_FLOAT_PIXEL_DATA,
    ];
    let stored = stored.into_iter().find_map(|tag| set.bytes(tag));
    let stored = stored.unwrap_or(&[]);
    if set.is_undefined(tags::PIXEL_DATA) {
        let found = "compressed pixels under an uncompressed transfer syntax";
        return Err(Error::malformed(FORMAT, found, "native pixels"));
    }
    // What is not there is refused before anything is reserved for it.
    let all_bits = module.frame_bits().checked_mul(module.n_frames as u64);
    let n_bytes = all_bits.map_or(u64::MAX, |bits| bits.div_ceil(8));
    let bytes = exact(stored, n_bytes)?;
    check_voxels(wanted, limits)?;
    let is_swapped = module.bits_allocated <= 8 && set.is_swapped(tags::PIXEL_DATA);
    let swapped = is_swapped.then(|| swap_pairs(stored));
    let bytes = swapped.as_deref().unwrap_or(bytes);
    let n_stored = stored.len() as u64 * 8 / module.frame_bits().max(1);
    let values = native_values(bytes, wanted)?;
    Ok(Pixels::new(values, n_stored, module.n_frames))
}

fn native_values(bytes: &[u8], wanted: &Wanted<'_>) -> Result<Vec<f32>> {
    let module = wanted.module;
    let n_pixels = module.n_pixels();
    let is_plain = module.n_channels() == 1 && module.modality_table.is_none();
    let frame_bytes = usize::try_from(module.frame_bits() / 8).unwrap_or(usize::MAX);
    let frame = |index: usize| {
        bytes
            .get(index * frame_bytes..(index + 1) * frame_bytes)
            .unwrap_or(&[])
    };
    if is_plain {
        // The common case, straight into place: CT, MR, projection X-ray.
        let mut values = wanted.scratch.take();
        let n_values = wanted.frames.len() * n_pixels;
        if values.capacity() < n_values {
            values = memory::with_capacity(n_values)?;
        }
        values.clear();
        for (&index, &map) in wanted.frames.iter().zip(&wanted.maps) {
            if module.bits_allocated == 1 {
                let frame = bits(bytes, index * n_pixels, n_pixels);
                values.extend(frame.map(|bit| map.apply(f64::from(bit))));
            } else {
                module.unpack(frame(index), module.order, map, &mut values)?;
            }
        }
        return Ok(values);
    }
    if module.bits_allocated == 1 {
        let advice = "convert it to 8 bits";
        return Err(Error::unsupported(FORMAT, "colours of single bits", advice));
    }
    let layout = module.layout_of(module.order);
    let planes = |index, map| {
        module
            .native_planes(frame(index), layout, map)
            .map(Planes::native)
    };
    in_order(wanted, planes).map(|(values, _)| values)
}

/// Bytes stored in big endian words (PS3.5 section 8.1.1): the second of each pair comes first.
fn swap_pairs(bytes: &[u8]) -> Vec<u8> {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .flat_map(|&[first, second]| [second, first])
        .collect()
}

/// `n` bits from bit `start` on, least significant first: frames are not aligned to bytes.
fn bits(bytes: &[u8], start: usize, n: usize) -> impl Iterator<Item = u8> {
    (start..start + n).map(|bit| bytes.get(bit / 8).map_or(0, |byte| byte >> (bit % 8) & 1))
}
