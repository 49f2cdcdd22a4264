//! JPEG 2000 files: a JP2 or JPX file, or a bare codestream.
//!
//! Samples stay as stored, with 2^bits - 1 as the full scale. Signed grey is a measurement, without
//! a full scale. Palettes and the order of channels are applied as the file says; an ICC profile is
//! not.
//!
//! # Source
//! ITU-T T.800 annex A (codestream) and annex I (boxes).

use std::panic::{AssertUnwindSafe, catch_unwind};

use jpeg2k::{ColorSpace, DecodeParameters, Image, ImageComponent};

use super::picture::Picture;
use crate::dicom::codec::MAX_TILES;
use crate::dicom::codestream;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::memory;
use crate::reason::Code;
use crate::samples::{narrow, widen_i64};

const FORMAT: &str = "JPEG 2000";
const SIGNATURE: &[u8] = b"\0\0\0\x0cjP  \r\n\x87\n";
const CODESTREAM: &[u8] = b"\xff\x4f\xff\x51";
/// The number of bits that an f32 holds exactly.
const MAX_BITS: u32 = 24;

/// Returns true if `head` starts a JP2 file or a codestream.
pub(super) fn is_jpeg_2000(head: &[u8]) -> bool {
    head.starts_with(SIGNATURE) || head.starts_with(CODESTREAM)
}

/// Reads a file.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Picture> {
    let outline = Outline::of(bytes)?;
    charge(bytes, &outline, limits)?;
    // The decoder is another's code: a panic in it must not end a walk over an archive.
    let picture = catch_unwind(AssertUnwindSafe(|| decode(bytes, limits)));
    let mut picture = picture.unwrap_or_else(|_| Err(damaged()))?;
    picture.lossy = is_irreversible(outline.codestream).then_some("JPEG 2000");
    Ok(picture)
}

/// What the boxes of a file say before the decoder reads them.
struct Outline<'a> {
    codestream: &'a [u8],
    /// Columns of a palette, which become samples; 0 where there is none.
    n_columns: u64,
}

impl<'a> Outline<'a> {
    /// Walks over the boxes up to the codestream, as the decoder does.
    fn of(bytes: &'a [u8]) -> Result<Self> {
        let mut n_columns = 0;
        if bytes.starts_with(CODESTREAM) {
            return Ok(Self {
                codestream: bytes,
                n_columns,
            });
        }
        let mut rest = bytes;
        loop {
            let (found, behind) = split_box(rest)?;
            match &found.name {
                b"jp2c" if found.body.starts_with(CODESTREAM) => {
                    return Ok(Self {
                        codestream: found.body,
                        n_columns,
                    });
                }
                b"jp2c" => return Err(damaged()),
                b"jp2h" => n_columns = palette_columns(found.body)?,
                _ => {}
            }
            rest = behind;
        }
    }
}

struct FileBox<'a> {
    name: [u8; 4],
    body: &'a [u8],
}

/// Splits the first box off.
fn split_box(bytes: &[u8]) -> Result<(FileBox<'_>, &[u8])> {
    let missing = || {
        let found = "an end before the codestream";
        Error::refused(FORMAT, Code::Truncated, found, "a whole file")
    };
    let (length, behind) = bytes.split_first_chunk::<4>().ok_or_else(missing)?;
    let (&name, body) = behind.split_first_chunk::<4>().ok_or_else(missing)?;
    let (size, n_head) = match u32::from_be_bytes(*length) {
        // Up to the end of the file.
        0 => (bytes.len() as u64, 8),
        1 => {
            let long = body.first_chunk::<8>().ok_or_else(missing)?;
            (u64::from_be_bytes(*long), 16)
        }
        size => (size.into(), 8),
    };
    let size = usize::try_from(size).map_err(|_| missing())?;
    if size < n_head {
        return Err(damaged());
    }
    // The codestream may be cut: that is for the decoder to say.
    let end = if &name == b"jp2c" {
        size.min(bytes.len())
    } else {
        size
    };
    let body = bytes.get(n_head..end).ok_or_else(missing)?;
    Ok((FileBox { name, body }, bytes.get(end..).unwrap_or_default()))
}

/// Finds the palette among the boxes of the header and returns its number of columns.
fn palette_columns(header: &[u8]) -> Result<u64> {
    let mut rest = header;
    while !rest.is_empty() {
        let (found, behind) = split_box(rest)?;
        if &found.name == b"pclr" {
            return Ok(found.body.get(2).copied().unwrap_or(0).into());
        }
        rest = behind;
    }
    Ok(0)
}

/// Charges the samples before the decoder reserves them.
fn charge(bytes: &[u8], outline: &Outline<'_>, limits: &Limits) -> Result<()> {
    let (declared, n_tiles) = codestream::jpeg_2000(outline.codestream)?;
    if n_tiles > MAX_TILES {
        return Err(Error::LimitExceeded {
            what: "tiles of a JPEG 2000 picture",
            allowed: MAX_TILES,
            asked: n_tiles,
        });
    }
    let [height, width] = [declared.height, declared.width].map(u64::from);
    let n_samples = u64::from(declared.n_components).max(outline.n_columns);
    let n_voxels = limits.voxels([n_samples, 1, height, width])? as u64;
    // The decoder keeps 4 bytes a sample.
    let n_bytes = n_voxels.saturating_mul(size_of::<i32>() as u64);
    limits.decompressed(bytes.len() as u64, n_bytes).map(|_| ())
}

fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture> {
    let parameters = DecodeParameters::default().strict(true);
    let image = Image::from_bytes_with(bytes, parameters).map_err(|_| damaged())?;
    let components = image.components();
    let (colors, has_alpha) = match components {
        [grey] => (std::slice::from_ref(grey), false),
        [grey, _] => (std::slice::from_ref(grey), true),
        [_, _, _] => (components, false),
        [colors @ .., last] if components.len() == 4 => {
            let is_ink = matches!(image.color_space(), ColorSpace::CMYK);
            if is_ink && !last.is_alpha() {
                return Err(unsupported("inks (CMYK)"));
            }
            (colors, true)
        }
        _ => return Err(unsupported(format!("{} components", components.len()))),
    };
    let planes = planes(colors, limits)?;
    let (Some(first), n_channels) = (colors.first(), colors.len()) else {
        return Err(damaged());
    };
    let mut picture = Picture {
        planes,
        n_channels,
        height: first.height() as usize,
        width: first.width() as usize,
        full_scale: full_scale(first),
        alpha_dropped: has_alpha,
        lossy: None,
    };
    match (image.color_space(), n_channels) {
        (ColorSpace::SYCC, 3) => ycc_into_rgb(&mut picture),
        (ColorSpace::EYCC, 3) => return Err(unsupported("the colour space e-sYCC")),
        (ColorSpace::CMYK, _) => return Err(unsupported("inks (CMYK)")),
        _ => {}
    }
    Ok(picture)
}

/// Takes the samples of each colour into one plane after the other.
fn planes(colors: &[ImageComponent], limits: &Limits) -> Result<Vec<f32>> {
    let layout = |c: &ImageComponent| (c.width(), c.height(), c.precision(), c.is_signed());
    let Some(first) = colors.first() else {
        return Err(damaged());
    };
    let (width, height, n_bits, is_signed) = layout(first);
    if colors.iter().any(|color| layout(color) != layout(first)) {
        return Err(unsupported("colours of different sides or bits"));
    }
    if n_bits > MAX_BITS {
        return Err(unsupported(format!("{n_bits} bits a sample")));
    }
    if is_signed && colors.len() > 1 {
        return Err(unsupported("signed colours"));
    }
    let n_values = limits.voxels([colors.len() as u64, 1, height.into(), width.into()])?;
    // The decoder's own length is 32 bits wide.
    if u32::try_from(n_values / colors.len()).is_err() || n_values == 0 {
        return Err(damaged());
    }
    let mut planes = memory::with_capacity(n_values)?;
    for color in colors {
        let samples = color.data().iter();
        planes.extend(samples.map(|&sample| narrow(widen_i64(sample.into()))));
    }
    Ok(planes)
}

fn full_scale(component: &ImageComponent) -> Option<f32> {
    let n_bits = component.precision().min(MAX_BITS);
    let largest = f64::from((1_u32 << n_bits) - 1);
    (!component.is_signed()).then(|| narrow(largest))
}

/// Turns full-range luma and colour differences into RGB (ITU-R BT.601, as sYCC has it).
fn ycc_into_rgb(picture: &mut Picture) {
    let largest = picture.full_scale.unwrap_or(255.0);
    let middle = ((largest + 1.0) / 2.0).floor();
    let n_pixels = picture.height * picture.width;
    let (luma, differences) = picture.planes.split_at_mut(n_pixels);
    let (blue, red) = differences.split_at_mut(n_pixels);
    for ((y, cb), cr) in luma.iter_mut().zip(blue).zip(red) {
        let (by, to_blue, to_red) = (*y, *cb - middle, *cr - middle);
        let bounded = |value: f32| value.round().clamp(0.0, largest);
        *y = bounded(by + 1.402 * to_red);
        *cb = bounded(by - 0.344_136 * to_blue - 0.714_136 * to_red);
        *cr = bounded(by + 1.772 * to_blue);
    }
}

/// Returns true unless the coding style names the reversible transform.
fn is_irreversible(codestream: &[u8]) -> bool {
    // Behind the start of codestream, which has no length.
    let mut rest = codestream.get(2..).unwrap_or_default();
    while let Some(([0xff, marker, high, low], _)) = rest.split_first_chunk::<4>() {
        let n_bytes = usize::from(u16::from_be_bytes([*high, *low]));
        if *marker == 0x52 {
            return rest.get(13) != Some(&1);
        }
        // The first tile ends the main header.
        if *marker == 0x90 {
            break;
        }
        rest = rest.get(2 + n_bytes.max(2)..).unwrap_or_default();
    }
    true
}

fn unsupported(feature: impl Into<String>) -> Error {
    Error::unsupported(FORMAT, feature, "convert it to an 8-bit PNG")
}

/// The decoder does not say whether a stream ends early, and its own words may quote the file.
fn damaged() -> Error {
    Error::malformed(FORMAT, "a damaged or cut file", "a whole codestream")
}
