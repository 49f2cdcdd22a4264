//! One compressed frame -> samples, by transfer syntax. Sides are compared with the header's
//! before any codec reserves memory.

use dicom_dictionary_std::uids;
use jpeg_decoder::{ColorTransform, PixelFormat};
use jxl_oxide::{AllocTracker, JxlImage};

use super::codestream::{self, Declared};
use super::{jpeg_ls, jpeg_sequential, rle};
use crate::error::{Error, Result, guarded};
use crate::jpeg2000::{self, Boxes, Header};
use crate::limits::Limits;
use crate::memory;
use crate::reason::Code;
use crate::samples::narrow;
use crate::video::Elementary;

/// How pixels are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// As the header says, byte for byte.
    Native,
    /// Native, one fragment a frame.
    EncapsulatedNative,
    /// Each frame a DEFLATE stream of native pixels.
    DeflatedFrames,
    /// RLE Lossless.
    Rle,
    /// Every DCT and lossless process of T.81.
    Jpeg,
    /// JPEG-LS.
    JpegLs,
    /// JPEG 2000 and high-throughput JPEG 2000.
    Jpeg2000,
    /// JPEG XL.
    JpegXl,
    /// MPEG-2, MPEG-4 AVC and HEVC.
    Video(Elementary),
}

impl Codec {
    /// Finds the codec of a transfer syntax.
    ///
    /// # Errors
    /// `Unsupported` names the transfer syntax.
    pub(crate) fn of(transfer_syntax: &str) -> Result<Self> {
        Ok(match transfer_syntax {
            uids::IMPLICIT_VR_LITTLE_ENDIAN
            | uids::EXPLICIT_VR_LITTLE_ENDIAN
            // Explicit VR Big Endian, retired.
            | "1.2.840.10008.1.2.2"
            | uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
            => Self::Native,
            uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN => Self::EncapsulatedNative,
            uids::DEFLATED_IMAGE_FRAME_COMPRESSION => Self::DeflatedFrames,
            uids::RLE_LOSSLESS => Self::Rle,
            // 50, 51: DCT; 53, 55: retired spectral and progressive; 57, 70: lossless.
            "1.2.840.10008.1.2.4.50" | "1.2.840.10008.1.2.4.51" | "1.2.840.10008.1.2.4.53"
            | "1.2.840.10008.1.2.4.55" | "1.2.840.10008.1.2.4.57" | "1.2.840.10008.1.2.4.70" => {
                Self::Jpeg
            }
            "1.2.840.10008.1.2.4.80" | "1.2.840.10008.1.2.4.81" => Self::JpegLs,
            // 90, 91: JPEG 2000; 201 to 203: high throughput.
            "1.2.840.10008.1.2.4.90" | "1.2.840.10008.1.2.4.91" | "1.2.840.10008.1.2.4.201"
            | "1.2.840.10008.1.2.4.202" | "1.2.840.10008.1.2.4.203" => Self::Jpeg2000,
            "1.2.840.10008.1.2.4.110" | "1.2.840.10008.1.2.4.111" | "1.2.840.10008.1.2.4.112" => {
                Self::JpegXl
            }
            other => match video(other) {
                Some(stream) => Self::Video(stream),
                None => return Err(unknown_syntax(other)),
            },
        })
    }
}

impl Codec {
    /// Finds the codec of a codestream by how it starts, or `None`.
    pub(crate) fn of_stream(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xFF, 0xD8, 0xFF, ..] => Some(if codestream::jpeg_process(bytes) == Some(0xF7) {
                Self::JpegLs
            } else {
                Self::Jpeg
            }),
            [0xFF, 0x4F, 0xFF, 0x51, ..] => Some(Self::Jpeg2000),
            // The boxes of a JP2 file and of a JPEG XL file.
            [0, 0, 0, 12, b'j', b'P', b' ', b' ', 13, 10, 0x87, 10, ..] => Some(Self::Jpeg2000),
            [0, 0, 0, 12, b'J', b'X', b'L', b' ', 13, 10, 0x87, 10, ..] => Some(Self::JpegXl),
            [0xFF, 0x0A, ..] => Some(Self::JpegXl),
            _ if rle::has_header(bytes) => Some(Self::Rle),
            _ => None,
        }
    }

    /// Returns the codec's name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native pixels",
            Self::EncapsulatedNative => "encapsulated native pixels",
            Self::DeflatedFrames => "deflated frames",
            Self::Rle => "RLE",
            Self::Jpeg => "JPEG",
            Self::JpegLs => "JPEG-LS",
            Self::Jpeg2000 => "JPEG 2000",
            Self::JpegXl => "JPEG XL",
            Self::Video(_) => "a video",
        }
    }
}

/// 100, 101: MPEG-2; 102 to 106: H.264; 107, 108: HEVC; a further `.1`: fragmentable.
fn video(transfer_syntax: &str) -> Option<Elementary> {
    let number = transfer_syntax.strip_prefix("1.2.840.10008.1.2.4.")?;
    match number.strip_suffix(".1").unwrap_or(number).parse().ok()? {
        100 | 101 => Some(Elementary::Mpeg2),
        102..=106 => Some(Elementary::H264),
        107 | 108 => Some(Elementary::Hevc),
        _ => None,
    }
}

fn unknown_syntax(uid: &str) -> Error {
    let is_standard = uid.starts_with("1.2.840.10008.1.2") && uid.len() <= 32;
    let is_number = uid.chars().all(|c| c.is_ascii_digit() || c == '.');
    let name = if is_standard && is_number {
        uid
    } else {
        "of a private or unknown kind"
    };
    let advice =
        "convert it to Explicit VR Little Endian, for example with dcmtk's dcmconv or gdcmconv";
    Error::unsupported("dicom", format!("transfer syntax {name}"), advice)
}

/// What the header says a frame must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// Rows.
    pub(crate) height: u32,
    /// Columns.
    pub(crate) width: u32,
    /// Samples per pixel.
    pub(crate) n_samples: u32,
}

/// The samples of one frame, by pixel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decoded {
    /// `width * height * n_samples` numbers.
    pub(crate) samples: Vec<i32>,
    /// Bits of one sample in the codestream.
    pub(crate) precision: u32,
    /// Whether the codestream says that samples are signed; JPEG cannot say.
    pub(crate) signed: Option<bool>,
    /// What the codestream says of its colours.
    pub(crate) colour: Colour,
}

/// What three samples mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// What the header says.
    AsHeader,
    /// Red, green, blue.
    Rgb,
    /// Luminance and two colour differences.
    Ybr,
}

/// Decodes one frame.
///
/// # Errors
/// `Malformed` if the stream is broken or its sides differ from `expected`.
pub(crate) fn decode(
    codec: Codec,
    frame: &[u8],
    expected: Expected,
    limits: &Limits,
) -> Result<Decoded> {
    let decode = || dispatch(codec, frame, expected, limits);
    guarded(decode, || {
        let found = "a frame at which its decoder fails";
        Error::malformed("dicom", found, "a valid codestream")
    })
}

fn dispatch(codec: Codec, frame: &[u8], expected: Expected, limits: &Limits) -> Result<Decoded> {
    match codec {
        Codec::Jpeg => jpeg(frame, expected, limits),
        Codec::JpegLs => jpeg_ls(frame, expected),
        Codec::Jpeg2000 => jpeg_2000(frame, expected, limits),
        Codec::JpegXl => jpeg_xl(frame, expected, limits),
        Codec::Native
        | Codec::EncapsulatedNative
        | Codec::DeflatedFrames
        | Codec::Rle
        | Codec::Video(_) => Err(Error::unsupported(
            "dicom",
            "a frame codec for native pixels",
            "report this file",
        )),
    }
}

/// The sides that a codestream declares.
struct Sides {
    width: u32,
    height: u32,
    n_components: u32,
}

impl Sides {
    fn of(declared: &Declared) -> Self {
        Self {
            width: declared.width,
            height: declared.height,
            n_components: declared.n_components,
        }
    }

    fn check(&self, format: &'static str, expected: Expected) -> Result<()> {
        let sides = (self.width, self.height, self.n_components);
        if sides == (expected.width, expected.height, expected.n_samples) {
            return Ok(());
        }
        let found = format!(
            "a codestream of {} rows, {} columns, {} samples",
            self.height, self.width, self.n_components
        );
        let wanted = format!(
            "the header's Rows {}, Columns {}, SamplesPerPixel {}",
            expected.height, expected.width, expected.n_samples
        );
        Err(Error::malformed(format, found, wanted))
    }
}

/// Refuses a stream that is too short for its pixels before anything is reserved for them.
fn check_length(declared: &Declared, n_bytes: usize) -> Result<()> {
    let n_samples = u64::from(declared.width) * u64::from(declared.height);
    // A block of 64 samples takes 1 bit (progressive) or more, a lossless sample 1 bit.
    let per_byte = if declared.is_lossless() { 8 } else { 512 };
    if n_samples.div_ceil(per_byte) > n_bytes as u64 {
        let found = format!("{n_bytes} bytes for {n_samples} pixels");
        return Err(Error::refused(
            "jpeg",
            Code::Truncated,
            found,
            "1 bit a block or sample",
        ));
    }
    Ok(())
}

fn failed(format: &'static str, error: impl std::fmt::Display) -> Error {
    Error::malformed(
        format,
        format!("a codestream that cannot be decoded ({error})"),
        "a whole one",
    )
}

fn jpeg(frame: &[u8], expected: Expected, limits: &Limits) -> Result<Decoded> {
    codestream::check_scans(frame)?;
    let declared = codestream::jpeg(frame)?;
    Sides::of(&declared).check("jpeg", expected)?;
    check_length(&declared, frame.len())?;
    let colour = jpeg_colour(&declared);
    let precision = u32::from(declared.precision);
    let is_sequential = matches!(declared.process, 0xC0 | 0xC1);
    if is_sequential && matches!(declared.precision, 8 | 12) {
        let samples = jpeg_sequential::decode(frame, &declared)?;
        return Ok(Decoded {
            samples,
            precision,
            signed: None,
            colour,
        });
    }
    let mut decoder = jpeg_decoder::Decoder::new(frame);
    if declared.n_components == 3 {
        // The decoder's name for "as stored, by pixel"; its `None` leaves rows of planes.
        decoder.set_color_transform(ColorTransform::RGB);
    }
    decoder.set_max_decoding_buffer_size(usize::try_from(limits.max_bytes).unwrap_or(usize::MAX));
    let pixels = decoder.decode().map_err(|e| failed("jpeg", e))?;
    let is_wide = decoder
        .info()
        .is_some_and(|info| info.pixel_format == PixelFormat::L16);
    let samples = if is_wide {
        let (chunks, _) = pixels.as_chunks::<2>();
        // The decoder hands 16-bit samples over in the machine's order, little on all it runs on.
        chunks
            .iter()
            .map(|raw| i32::from(u16::from_le_bytes(*raw)))
            .collect()
    } else {
        pixels.into_iter().map(i32::from).collect()
    };
    Ok(Decoded {
        samples,
        precision,
        signed: None,
        colour,
    })
}

/// The stream's own words first: an Adobe marker, component names, JFIF; else the header's.
fn jpeg_colour(declared: &Declared) -> Colour {
    if declared.n_components != 3 {
        Colour::AsHeader
    } else if declared.has_rgb_ids() || declared.adobe_transform == Some(0) {
        Colour::Rgb
    } else if declared.adobe_transform == Some(1) || declared.is_jfif && !declared.is_lossless() {
        Colour::Ybr
    } else {
        Colour::AsHeader
    }
}

fn jpeg_ls(frame: &[u8], expected: Expected) -> Result<Decoded> {
    codestream::check_scans(frame)?;
    let declared = codestream::jpeg(frame)?;
    Sides::of(&declared).check("jpeg-ls", expected)?;
    Ok(Decoded {
        samples: jpeg_ls::decode(frame, &declared)?,
        precision: u32::from(declared.precision),
        signed: None,
        colour: Colour::AsHeader,
    })
}

/// Planes -> samples by pixel.
pub(crate) fn by_pixel<T: Copy>(planes: &[T], n_planes: usize) -> Vec<T> {
    let n_pixels = planes.len() / n_planes.max(1);
    let mut samples = Vec::with_capacity(planes.len());
    for pixel in 0..n_pixels {
        samples.extend((0..n_planes).filter_map(|plane| planes.get(plane * n_pixels + pixel)));
    }
    samples
}

fn jpeg_2000(frame: &[u8], expected: Expected, limits: &Limits) -> Result<Decoded> {
    // Header palettes are DICOM's own business: components are taken as coded.
    let codestream = Boxes::read(frame)?.codestream;
    let header = Header::read(codestream)?;
    let sides = Sides {
        width: header.width,
        height: header.height,
        n_components: u32::try_from(header.components.len()).unwrap_or(u32::MAX),
    };
    sides.check("jpeg 2000", expected)?;
    let planes = jpeg2000::decode(codestream, &header, limits)?;
    let n_pixels = header.n_pixels();
    let mut samples = memory::with_capacity(n_pixels.saturating_mul(planes.len()))?;
    match planes.as_slice() {
        [only] => samples.extend(only.iter().map(|v| whole(*v))),
        several => {
            for i in 0..n_pixels {
                samples.extend(several.iter().filter_map(|p| p.get(i).map(|v| whole(*v))));
            }
        }
    }
    let first = header.components.first();
    Ok(Decoded {
        samples,
        precision: first.map_or(0, |c| c.precision.into()),
        signed: first.map(|c| c.is_signed),
        colour: Colour::AsHeader,
    })
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "a whole number of at most 20 bits"
)]
fn whole(value: f32) -> i32 {
    value as i32
}

fn jpeg_xl(frame: &[u8], expected: Expected, limits: &Limits) -> Result<Decoded> {
    let most = usize::try_from(limits.max_bytes).unwrap_or(usize::MAX);
    let mut image = JxlImage::builder()
        .alloc_tracker(AllocTracker::with_limit(most))
        .read(frame)
        .map_err(|e| failed("jpeg xl", e))?;
    let n_components = u32::try_from(image.pixel_format().channels()).unwrap_or(u32::MAX);
    let precision = image.image_header().metadata.bit_depth.bits_per_sample();
    let sides = Sides {
        width: image.width(),
        height: image.height(),
        n_components,
    };
    sides.check("jpeg xl", expected)?;
    if precision > 16 {
        let advice = "recompress it with at most 16 bits a sample";
        return Err(Error::unsupported(
            "jpeg xl",
            format!("{precision} bits a sample"),
            advice,
        ));
    }
    image.set_render_spot_color(false);
    let render = image.render_frame(0).map_err(|e| failed("jpeg xl", e))?;
    let mut stream = render.stream();
    let mut values = vec![0.0_f32; expected_values(expected)?];
    let n_written = stream.write_to_buffer(&mut values);
    if n_written != values.len() {
        return Err(Error::refused(
            "jpeg xl",
            Code::Truncated,
            format!("{n_written} samples"),
            format!("{}", values.len()),
        ));
    }
    let full = narrow(f64::from((1_u32 << precision) - 1));
    #[allow(
        clippy::cast_possible_truncation,
        reason = "at most 16 bits after the clamp"
    )]
    let samples = values
        .iter()
        .map(|v| (v * full).round().clamp(0.0, full) as i32)
        .collect();
    Ok(Decoded {
        samples,
        precision,
        signed: None,
        colour: Colour::Rgb,
    })
}

fn expected_values(expected: Expected) -> Result<usize> {
    let product = u64::from(expected.width) * u64::from(expected.height);
    let product = product.checked_mul(u64::from(expected.n_samples));
    product
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| {
            Error::malformed(
                "dicom",
                "a frame larger than the address space",
                "a smaller one",
            )
        })
}
