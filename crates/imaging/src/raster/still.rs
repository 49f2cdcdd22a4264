//! Single PNG, WebP, BMP and GIF images, through the `image` crate.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageError, Rgba, RgbaImage};

use super::Container;
use super::picture::{Interleaved, Picture};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::reason::Code;

/// One file that the `image` crate reads.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// Its format.
    pub(super) container: Container,
    /// All of it.
    pub(super) bytes: &'a [u8],
    /// What reading it may cost.
    pub(super) limits: &'a Limits,
}

impl<'a> Source<'a> {
    /// Returns the bytes as the decoders want them.
    pub(super) fn cursor(&self) -> Cursor<&'a [u8]> {
        Cursor::new(self.bytes)
    }

    /// Checks that a RIFF file has the length it declares: of a cut animation the decoder would
    /// give the frames that are left.
    pub(super) fn check_length(&self) -> Result<()> {
        let Some(size) = self
            .bytes
            .get(4..8)
            .filter(|_| self.container == Container::WebP)
        else {
            return Ok(());
        };
        let declared = size
            .iter()
            .rev()
            .fold(0_u64, |size, &byte| (size << 8) | u64::from(byte));
        if declared > (self.bytes.len() as u64).saturating_sub(8) {
            let found = format!("{} bytes", self.bytes.len());
            let wanted = format!("{} as declared", declared + 8);
            return Err(Error::refused(
                self.container.name(),
                Code::Truncated,
                found,
                wanted,
            ));
        }
        Ok(())
    }

    /// Charges what `n_bytes` of decoded pixels cost.
    pub(super) fn charge(&self, n_bytes: u64) -> Result<()> {
        self.limits
            .decompressed(self.bytes.len() as u64, n_bytes)
            .map(|_| ())
    }

    /// Returns what a decoder of the `image` crate may reserve.
    pub(super) fn decoder_limits(&self) -> image::Limits {
        let mut allowed = image::Limits::default();
        allowed.max_alloc = Some(self.max_alloc());
        allowed
    }

    fn max_alloc(&self) -> u64 {
        self.limits.max_decompressed(self.bytes.len() as u64)
    }

    /// Says in our words what a decoder found; its own words may quote the file.
    pub(super) fn explain(&self, error: &ImageError) -> Error {
        let format = self.container.name();
        if is_end_of_file(error) {
            let wanted = "a whole image";
            return Error::refused(format, Code::Truncated, "an end inside the image", wanted);
        }
        match error {
            ImageError::Limits(_) => Error::LimitExceeded {
                what: "bytes reserved by the image decoder",
                allowed: self.max_alloc(),
                asked: self.max_alloc().saturating_add(1),
            },
            ImageError::Unsupported(_) => {
                Error::unsupported(format, "a variant used here", "convert it to an 8-bit PNG")
            }
            ImageError::Parameter(_) => {
                Error::refused(format, Code::NoPixels, "no image", "at least one image")
            }
            ImageError::Decoding(_) | ImageError::Encoding(_) | ImageError::IoError(_) => {
                Error::malformed(format, "damaged image bytes", "a decodable image")
            }
        }
    }
}

/// Reads the one image of a file, or the first frame of an animation.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`.
pub(super) fn read(source: Source<'_>) -> Result<Picture> {
    let explain = |error: ImageError| source.explain(&error);
    match source.container {
        Container::Png => {
            let allowed = source.decoder_limits();
            let decoder = PngDecoder::with_limits(source.cursor(), allowed).map_err(explain)?;
            decode(source, decoder)
        }
        Container::WebP => {
            let mut picture = decode(source, WebPDecoder::new(source.cursor()).map_err(explain)?)?;
            picture.lossy = is_lossy_webp(source.bytes).then_some("WebP (VP8)");
            Ok(picture)
        }
        Container::Gif => decode(source, GifDecoder::new(source.cursor()).map_err(explain)?),
        Container::Bmp => {
            let decoder = BmpDecoder::new(source.cursor()).map_err(explain)?;
            let is_grey = decoder
                .get_palette()
                .is_some_and(|map| is_grey_ramp(map, source.bytes));
            let picture = decode(source, decoder)?;
            Ok(if is_grey {
                first_channel(picture)
            } else {
                picture
            })
        }
        Container::Jpeg | Container::Jpeg2000 | Container::Tiff => {
            let format = source.container.name();
            Err(Error::malformed(
                format,
                "a file for another reader",
                "its own reader",
            ))
        }
    }
}

fn decode(source: Source<'_>, mut decoder: impl ImageDecoder) -> Result<Picture> {
    let explain = |error: ImageError| source.explain(&error);
    let color = decoder.color_type();
    let (width, height) = decoder.dimensions();
    let n_channels: u8 = if color.has_color() { 3 } else { 1 };
    source.charge(decoder.total_bytes())?;
    source
        .limits
        .voxels([n_channels.into(), 1, height.into(), width.into()])?;
    decoder
        .set_limits(source.decoder_limits())
        .map_err(explain)?;
    let orientation = orientation(source, &mut decoder);
    let layout = Interleaved {
        height: as_usize(height)?,
        width: as_usize(width)?,
        n_stored: color.channel_count().into(),
        n_kept: n_channels.into(),
        orientation,
    };
    let image = DynamicImage::from_decoder(decoder).map_err(explain)?;
    let mut planes = Vec::new();
    extend_from_image(&mut planes, &image, &layout)?;
    let (height, width) = layout.upright();
    // GIF has no alpha channel, yet the decoder always gives one: ask whether any pixel uses it.
    let is_opaque = source.container == Container::Gif && image.as_rgba8().is_some_and(is_opaque);
    Ok(Picture {
        planes,
        n_channels: n_channels.into(),
        height,
        width,
        full_scale: Some(full_scale(color)),
        alpha_dropped: color.has_alpha() && !is_opaque,
        lossy: None,
    })
}

/// Returns the EXIF orientation, 1 where none is stated: a broken block must not cost the picture.
fn orientation(source: Source<'_>, decoder: &mut impl ImageDecoder) -> u8 {
    let block = match source.container {
        // The decoder sees only what comes before the pixels; some writers put it behind.
        Container::Png => png_chunk(source.bytes, b"eXIf").map(<[u8]>::to_vec),
        _ => decoder.exif_metadata().ok().flatten(),
    };
    let block = block.unwrap_or_default();
    // The prefix belongs to JPEG, and is found elsewhere all the same.
    let block = block.strip_prefix(b"Exif\0\0").unwrap_or(&block);
    Orientation::from_exif_chunk(block).map_or(1, Orientation::to_exif)
}

/// Finds the body of the first chunk of a name.
fn png_chunk<'a>(bytes: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
    let mut chunks = bytes.get(8..)?;
    while let Some(([size @ .., _, _, _, _], rest)) = chunks.split_first_chunk::<8>() {
        let size = usize::try_from(u32::from_be_bytes(size.first_chunk().copied()?)).ok()?;
        if chunks.get(4..8) == Some(wanted) {
            return rest.get(..size);
        }
        // Behind the body, four bytes of checksum.
        chunks = rest.get(size.checked_add(4)?..)?;
    }
    None
}

fn extend_from_image(
    planes: &mut Vec<f32>,
    image: &DynamicImage,
    layout: &Interleaved,
) -> Result<()> {
    match image {
        DynamicImage::ImageLuma8(pixels) => layout.extend_planes(planes, pixels, f32::from),
        DynamicImage::ImageLumaA8(pixels) => layout.extend_planes(planes, pixels, f32::from),
        DynamicImage::ImageRgb8(pixels) => layout.extend_planes(planes, pixels, f32::from),
        DynamicImage::ImageRgba8(pixels) => layout.extend_planes(planes, pixels, f32::from),
        DynamicImage::ImageLuma16(pixels) => layout.extend_planes(planes, pixels, f32::from),
        DynamicImage::ImageLumaA16(pixels) => layout.extend_planes(planes, pixels, f32::from),
        DynamicImage::ImageRgb16(pixels) => layout.extend_planes(planes, pixels, f32::from),
        DynamicImage::ImageRgba16(pixels) => layout.extend_planes(planes, pixels, f32::from),
        // `DynamicImage` is open-ended; none of the four formats yields anything else today.
        _ => Err(Error::unsupported(
            "raster",
            "this sample type",
            "convert it to PNG",
        )),
    }
}

/// Returns true if no pixel lets anything through.
pub(super) fn is_opaque(pixels: &RgbaImage) -> bool {
    pixels.pixels().all(|Rgba([.., alpha])| *alpha == u8::MAX)
}

fn full_scale(color: ColorType) -> f32 {
    let bytes_per_sample = color.bytes_per_pixel() / color.channel_count();
    if bytes_per_sample == 2 {
        65_535.0
    } else {
        255.0
    }
}

/// Returns true if colour `i` of the palette is the grey `i`, spread over 0..=255.
///
/// The decoder fills palettes up to 256 entries; `bytes` tells how many the pixels can name.
fn is_grey_ramp(palette: &[[u8; 3]], bytes: &[u8]) -> bool {
    // The first header of 14 bytes, then a second whose size decides where the depth stands.
    let depth_at = if bytes.get(14) == Some(&12) { 24 } else { 28 };
    let last = match bytes.get(depth_at) {
        Some(&depth @ (1 | 2 | 4 | 8)) => (1_usize << depth) - 1,
        _ => return false,
    };
    palette.len() > last
        && palette.iter().take(last + 1).enumerate().all(|(i, color)| {
            color
                .iter()
                .all(|&value| usize::from(value) * last == i * 255)
        })
}

fn first_channel(mut picture: Picture) -> Picture {
    picture.planes.truncate(picture.height * picture.width);
    picture.n_channels = 1;
    picture
}

/// Returns true unless the image is in the lossless `VP8L` form.
pub(super) fn is_lossy_webp(bytes: &[u8]) -> bool {
    let mut chunks = bytes.get(12..).unwrap_or_default();
    while let Some((head, rest)) = chunks.split_first_chunk::<8>() {
        let [a, b, c, d, size @ ..] = *head;
        match &[a, b, c, d] {
            b"VP8 " => return true,
            b"VP8L" => return false,
            // The image of an animation's first frame lies inside, after 16 bytes of its own.
            b"ANMF" => chunks = rest.get(16..).unwrap_or_default(),
            _ => {
                let size = usize::try_from(u32::from_le_bytes(size)).unwrap_or(usize::MAX);
                let padded = size.saturating_add(size % 2);
                chunks = rest.get(padded..).unwrap_or_default();
            }
        }
    }
    true
}

/// Looks for an unexpected end of file anywhere in the chain of causes.
fn is_end_of_file(error: &ImageError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(error) = found.downcast_ref::<std::io::Error>() {
            return error.kind() == std::io::ErrorKind::UnexpectedEof;
        }
        cause = found.source();
    }
    false
}

pub(super) fn as_usize(side: u32) -> Result<usize> {
    usize::try_from(side).map_err(|_| Error::LimitExceeded {
        what: "side of an image in pixels",
        allowed: usize::MAX as u64,
        asked: side.into(),
    })
}
