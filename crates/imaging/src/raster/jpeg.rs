//! JPEG files, and the JPEG streams inside TIFF.
//!
//! `jpeg-decoder` is used rather than the decoder of the `image` crate: against libjpeg-turbo its
//! chroma upsampling stays within 4 grey levels (all but a few pixels in a million within 3), where
//! the other was 13 levels off at block edges.

use image::metadata::Orientation;
use jpeg_decoder::{ColorTransform, Decoder, ImageInfo, PixelFormat};

use super::picture::{Interleaved, Picture};
use crate::dicom::codestream::check_scans;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::reason::Code;

const FORMAT: &str = "JPEG";

/// The decoded samples of one JPEG stream, interleaved.
pub(super) struct Stream {
    /// 8 bits a sample; in the machine's byte order for 16-bit lossless grey.
    pub(super) samples: Vec<u8>,
    /// Size and layout.
    pub(super) info: ImageInfo,
    /// EXIF orientation, 1 where none is stated.
    pub(super) orientation: u8,
}

/// Reads a JPEG file.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Picture> {
    let stream = decode(bytes, bytes.len(), None, limits)?;
    let (n_stored, n_kept) = match stream.info.pixel_format {
        PixelFormat::L8 => (1, 1),
        PixelFormat::RGB24 => (3, 3),
        PixelFormat::CMYK32 => (4, 3),
        PixelFormat::L16 => {
            let advice = "convert it to a 16-bit PNG or TIFF";
            return Err(Error::unsupported(
                FORMAT,
                "lossless JPEG above 8 bits",
                advice,
            ));
        }
    };
    let layout = Interleaved {
        height: usize::from(stream.info.height),
        width: usize::from(stream.info.width),
        n_stored,
        n_kept,
        orientation: stream.orientation,
    };
    let mut samples = stream.samples;
    if n_stored == 4 {
        cmyk_into_rgb(&mut samples);
    }
    let mut planes = Vec::new();
    layout.extend_planes(&mut planes, &samples, f32::from)?;
    let (height, width) = layout.upright();
    Ok(Picture {
        planes,
        n_channels: n_kept,
        height,
        width,
        full_scale: Some(255.0),
        alpha_dropped: false,
        lossy: Some("JPEG"),
    })
}

/// Decodes one stream; `n_input` is the number of file bytes that pay for the output, `transform`
/// overrules what the stream says of its colours.
pub(super) fn decode(
    stream: &[u8],
    n_input: usize,
    transform: Option<ColorTransform>,
    limits: &Limits,
) -> Result<Stream> {
    check_scans(stream)?;
    let mut decoder = Decoder::new(stream);
    if let Some(transform) = transform {
        decoder.set_color_transform(transform);
    }
    decoder.read_info().map_err(explain)?;
    let info = decoder
        .info()
        .filter(|info| info.width > 0 && info.height > 0)
        .ok_or_else(|| Error::malformed(FORMAT, "no frame header", "a frame header"))?;
    let (height, width) = (u64::from(info.height), u64::from(info.width));
    let n_bytes = width * height * info.pixel_format.pixel_bytes() as u64;
    let n_bytes = limits.decompressed(n_input as u64, n_bytes)?;
    let n_channels = if info.pixel_format == PixelFormat::L8 {
        1
    } else {
        3
    };
    limits.voxels([n_channels, 1, height, width])?;
    decoder.set_max_decoding_buffer_size(n_bytes);
    let samples = decoder.decode().map_err(explain)?;
    let exif = decoder.exif_data().and_then(Orientation::from_exif_chunk);
    let orientation = exif.map_or(1, Orientation::to_exif);
    Ok(Stream {
        samples,
        info,
        orientation,
    })
}

/// Turns inverted CMYK, as Adobe writes it and the decoder gives it, into RGB, in place; the fourth
/// sample of each pixel is left behind.
pub(super) fn cmyk_into_rgb(samples: &mut [u8]) {
    for [c, m, y, k] in samples.as_chunks_mut::<4>().0 {
        for ink in [c, m, y] {
            *ink = product(255 - *ink, 255 - *k);
        }
    }
}

/// Returns `a * b / 255`, rounded.
fn product(a: u8, b: u8) -> u8 {
    u8::try_from((u16::from(a) * u16::from(b) + 127) / 255).unwrap_or(u8::MAX)
}

fn explain(error: jpeg_decoder::Error) -> Error {
    match error {
        jpeg_decoder::Error::Io(_) => Error::refused(
            FORMAT,
            Code::Truncated,
            "an end inside the image",
            "an end-of-image marker",
        ),
        jpeg_decoder::Error::Unsupported(feature) => Error::unsupported(
            FORMAT,
            format!("{feature:?}"),
            "convert it to PNG or to baseline JPEG",
        ),
        jpeg_decoder::Error::Format(_) | jpeg_decoder::Error::Internal(_) => {
            Error::malformed(FORMAT, "a damaged stream", "a decodable image")
        }
    }
}
