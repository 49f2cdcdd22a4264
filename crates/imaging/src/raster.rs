//! PNG, JPEG, JPEG 2000, TIFF, WebP, BMP and GIF.
//!
//! # Units
//! Values are the stored ones, 0..=255 or 0..=65535, with `full_scale` saying which; samples of
//! 1, 2 and 4 bits are widened to 0..=255. TIFF keeps any other depth as stored, and JPEG 2000
//! every depth (`full_scale` is 2^bits - 1). Signed and floating grey is a measurement, without a
//! full scale; floating colour has the full scale 1. Grey files have C = 1, all others C = 3: a palette is colour, save
//! BMP's identity ramp, which is how that format says grey. Alpha is dropped, never composited, so
//! a transparent pixel keeps its stored colour. `WhiteIsZero` is kept and marked `inverted`.
//!
//! Pixels are turned upright as EXIF or the TIFF tag says. Resolution tags speak of paper or
//! screens and are ignored; only an `ImageJ` description, which has physical units, gives spacing.
//! Animations (GIF, WebP, APNG) are `Kind::Video` as a viewer composes them.

use crate::error::{Error, Result, guarded};
use crate::read::ReadOptions;
use crate::reason::Code;
use crate::volume::{Kind, Volume};

mod animation;
pub(crate) mod jpeg;
mod jpeg2000;
mod picture;
mod still;
mod tiff;

use picture::Picture;
use still::Source;

/// A raster file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Png,
    Jpeg,
    Jpeg2000,
    Tiff,
    WebP,
    Bmp,
    Gif,
}

impl Container {
    /// Tells the format by its leading bytes.
    fn sniff(head: &[u8]) -> Option<Self> {
        if head.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if head.starts_with(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if jpeg2000::is_jpeg_2000(head) {
            Some(Self::Jpeg2000)
        } else if tiff::is_tiff(head) {
            Some(Self::Tiff)
        } else if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else if head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a") {
            Some(Self::Gif)
        } else if head.starts_with(b"BM") {
            // Two letters are weak evidence; the size of the second header has few legal values.
            let size = head
                .get(14..18)
                .and_then(|raw| raw.try_into().ok())
                .map(u32::from_le_bytes);
            matches!(size, Some(12 | 16 | 40 | 52 | 56 | 64 | 108 | 124)).then_some(Self::Bmp)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Jpeg2000 => "JPEG 2000",
            Self::Tiff => "TIFF",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
        }
    }
}

/// Returns true if `head` starts like one of the formats read here.
pub(crate) fn is_raster(head: &[u8]) -> bool {
    Container::sniff(head).is_some()
}

/// Reads one image, one animation, one stack of equal TIFF pages, or several unequal pages.
///
/// # Errors
/// `Malformed` (also for a truncated file), `Unsupported`, `LimitExceeded`.
pub(crate) fn read(bytes: &[u8], options: &ReadOptions) -> Result<Vec<Volume>> {
    let Some(container) = Container::sniff(bytes) else {
        return Err(Error::malformed(
            "raster",
            "unknown leading bytes",
            "a raster format",
        ));
    };
    if container == Container::Tiff {
        return tiff::read(bytes, options);
    }
    if container == Container::Jpeg {
        let picture = guarded(|| jpeg::read(bytes, &options.limits), || failed(container))?;
        return Ok(vec![picture.into_volume()?]);
    }
    if container == Container::Jpeg2000 {
        return Ok(vec![jpeg2000::read(bytes, &options.limits)?.into_volume()?]);
    }
    let source = Source {
        container,
        bytes,
        limits: &options.limits,
    };
    source.check_length()?;
    let decode = || match animation::read(source, options)? {
        Some(film) => Ok(film),
        None => still::read(source)?.into_volume(),
    };
    let volume = guarded(decode, || failed(container));
    Ok(vec![volume?])
}

/// What is said of a file at which a decoder panics.
fn failed(container: Container) -> Error {
    let found = "damaged image bytes, at which the decoder fails";
    Error::malformed(container.name(), found, "a decodable image")
}

impl Picture {
    /// Makes the `Volume` of a single image.
    fn into_volume(self) -> Result<Volume> {
        let shape = [self.n_channels, 1, self.height, self.width];
        let mut volume = Volume::new(self.planes, shape, Kind::Image)?;
        volume.full_scale = self.full_scale;
        note_common(&mut volume);
        if let Some(codec) = self.lossy {
            volume.note(Code::LossyCompression, codec);
        }
        if self.alpha_dropped {
            volume.note(
                Code::AlphaDropped,
                "the alpha channel was dropped, not composited",
            );
        }
        Ok(volume)
    }
}

/// Notes what is true of every raster image.
fn note_common(volume: &mut Volume) {
    volume.note(
        Code::SpacingUnknown,
        "raster files state no physical pixel size",
    );
}

#[cfg(test)]
mod tests;
