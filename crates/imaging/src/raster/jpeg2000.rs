//! JPEG 2000 files: a JP2, JPX or JPH file, or a bare codestream.
//!
//! Samples stay as stored, with 2^bits - 1 as the full scale. Signed grey is a measurement, without
//! a full scale. Palettes and the order of channels are applied as the file says; an ICC profile is
//! not.
//!
//! # Source
//! ITU-T T.800 annex A (codestream) and annex I (boxes).

use super::picture::Picture;
use crate::error::{Error, Result};
use crate::jpeg2000::{self, Boxes, Channel, ColourSpace, Header, damaged, unsupported};
use crate::limits::Limits;
use crate::memory;

/// Returns true if `head` starts a JP2 file or a codestream.
pub(super) fn is_jpeg_2000(head: &[u8]) -> bool {
    jpeg2000::is_file(head) || jpeg2000::is_codestream(head)
}

/// Reads a file.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Picture> {
    let boxes = Boxes::read(bytes)?;
    let header = Header::read(boxes.codestream)?;
    let channels = boxes.channels(header.components.len())?;
    let colours = channels.colours;
    if !matches!(colours.len(), 1 | 3) || boxes.space == ColourSpace::Cmyk {
        let is_ink = boxes.space == ColourSpace::Cmyk;
        let found = format!("{} colours", colours.len());
        return Err(unsupported(if is_ink { "inks (CMYK)" } else { &found }));
    }
    if boxes.space == ColourSpace::Esycc && colours.len() == 3 {
        return Err(unsupported("the colour space e-sYCC"));
    }
    charge(bytes.len(), &header, colours.len(), limits)?;
    let depth = Depth::of(&boxes, &header, &colours)?;
    let decoded = jpeg2000::decode(boxes.codestream, &header, limits)?;
    let n_values = header.n_pixels() * colours.len();
    let mut planes = memory::with_capacity(n_values)?;
    for colour in &colours {
        extend(&mut planes, &boxes, *colour, &decoded)?;
    }
    let mut picture = Picture {
        planes,
        n_channels: colours.len(),
        height: header.height as usize,
        width: header.width as usize,
        full_scale: depth.full_scale(),
        alpha_dropped: channels.has_others,
        lossy: (!header.is_reversible).then_some("JPEG 2000"),
    };
    if boxes.space == ColourSpace::Sycc && picture.n_channels == 3 {
        ycc_into_rgb(&mut picture);
    }
    Ok(picture)
}

/// Charges the samples before the decoder reserves them.
fn charge(n_bytes: usize, header: &Header, n_colours: usize, limits: &Limits) -> Result<()> {
    let [height, width] = [header.height, header.width].map(u64::from);
    let n_samples = header.components.len().max(n_colours) as u64;
    let n_voxels = limits.voxels([n_samples, 1, height, width])? as u64;
    // The decoder keeps 4 bytes a sample.
    let asked = n_voxels.saturating_mul(size_of::<f32>() as u64);
    limits.decompressed(n_bytes as u64, asked).map(|_| ())
}

/// How the samples of every colour are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Depth {
    n_bits: u8,
    is_signed: bool,
}

impl Depth {
    /// Finds the depth that all colours share.
    fn of(boxes: &Boxes<'_>, header: &Header, colours: &[Channel]) -> Result<Self> {
        let depths: Option<Vec<Self>> = colours
            .iter()
            .map(|colour| match (&boxes.palette, colour.column) {
                (Some(palette), Some(column)) => palette.depths.get(column).map(|depth| Self {
                    n_bits: (depth & 0x7F) + 1,
                    is_signed: depth & 0x80 != 0,
                }),
                _ => header
                    .components
                    .get(colour.component)
                    .map(|component| Self {
                        n_bits: component.precision,
                        is_signed: component.is_signed,
                    }),
            })
            .collect();
        let depths = depths.ok_or_else(damaged)?;
        let first = depths.first().copied().ok_or_else(damaged)?;
        if depths.iter().any(|depth| *depth != first) {
            return Err(unsupported("colours of different bits"));
        }
        if first.is_signed && (depths.len() > 1 || boxes.palette.is_some()) {
            return Err(unsupported("signed colours"));
        }
        if first.n_bits > jpeg2000::MAX_BITS {
            return Err(unsupported(format!("{} bits a sample", first.n_bits)));
        }
        Ok(first)
    }

    fn full_scale(self) -> Option<f32> {
        let largest = f32::from(2_u8).powi(self.n_bits.into()) - 1.0;
        (!self.is_signed).then_some(largest)
    }
}

/// Appends the plane of one channel, looked up in the palette where it has a column.
fn extend(
    planes: &mut Vec<f32>,
    boxes: &Boxes<'_>,
    channel: Channel,
    decoded: &[Vec<f32>],
) -> Result<()> {
    let samples = decoded.get(channel.component).ok_or_else(damaged)?;
    let (Some(palette), Some(column)) = (&boxes.palette, channel.column) else {
        planes.extend_from_slice(samples);
        return Ok(());
    };
    let n_columns = palette.depths.len();
    for &sample in samples {
        let entry = widen_index(sample).and_then(|row| {
            let at = row.checked_mul(n_columns)?.checked_add(column)?;
            palette.entries.get(at)
        });
        let wanted = format!("an index below {}", palette.entries.len() / n_columns);
        planes.push(*entry.ok_or_else(|| {
            Error::malformed("JPEG 2000", "a sample outside the palette", wanted)
        })?);
    }
    Ok(())
}

/// Turns a sample, a whole number, into an index.
fn widen_index(sample: f32) -> Option<usize> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number of at most 20 bits"
    )]
    (sample >= 0.0).then_some(sample as usize)
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
