//! JPEG 2000 codestreams, for DICOM frames and for files: what they declare, what decoding them
//! costs, and their samples.
//!
//! The decoders are safe Rust: `hayro-jpeg2000` for part 1, `dicom-toolkit-jpeg2000` for the block
//! coder of part 15 (HTJ2K), which the first does not have. Both get one bare codestream whose every
//! header was read here, so that what was charged is what they build.
//!
//! # Source
//! ITU-T T.800 annexes A and B, T.814 annex A.

use crate::error::{Error, Result, guarded};
use crate::limits::Limits;
use crate::memory;

mod boxes;
mod header;

pub(crate) use boxes::{Boxes, Channel, ColourSpace, is_file};
pub(crate) use header::{Header, MAX_BITS, is_codestream};

pub(crate) const FORMAT: &str = "JPEG 2000";

/// Returns true for a frame, perhaps cut, whose codestream turns its first three components into
/// RGB on decoding.
pub(crate) fn transforms_colours(frame: &[u8]) -> bool {
    let boxes = Boxes::read(frame);
    boxes.is_ok_and(|boxes| header::states_colour_transform(boxes.codestream))
}

/// Decodes every component of a bare codestream; components are not interpreted as colours, but
/// the codestream's own colour transform is undone.
///
/// # Shapes
/// One plane of `height * width` samples a component, in rows.
/// # Errors
/// `LimitExceeded` where the structure of blocks would cost too much; `Malformed` for a damaged or
/// cut stream; `Unsupported`.
pub(crate) fn decode(codestream: &[u8], header: &Header, limits: &Limits) -> Result<Vec<Vec<f32>>> {
    limits.decompressed(codestream.len() as u64, header.structure_bytes)?;
    header.check()?;
    // The decoders keep the samples of all components, and coefficients and rows of one.
    let n_samples = header
        .n_pixels()
        .saturating_mul(header.components.len() + 3);
    let structure = usize::try_from(header.structure_bytes).unwrap_or(usize::MAX);
    memory::probe(
        n_samples
            .saturating_mul(size_of::<f32>())
            .saturating_add(structure),
    )?;
    let ended = with_end(codestream);
    let decode = || {
        if header.is_high_throughput {
            high_throughput(&ended, header)
        } else {
            part_1(&ended, header)
        }
    };
    guarded(decode, damaged)
}

/// Ends the stream with its marker where that alone is missing: an encoder may leave it out, and
/// the decoders take a missing end for a cut stream.
fn with_end(codestream: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    let body = codestream.strip_suffix(&[0]).unwrap_or(codestream);
    if codestream.ends_with(&[0xFF, 0xD9]) || body.ends_with(&[0xFF, 0xD9]) {
        return codestream.into();
    }
    [codestream, &[0xFF, 0xD9]].concat().into()
}

fn part_1(codestream: &[u8], header: &Header) -> Result<Vec<Vec<f32>>> {
    use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};
    let settings = DecodeSettings {
        resolve_palette_indices: false,
        strict: true,
        target_resolution: None,
    };
    let image = Image::new(codestream, &settings).map_err(|_| damaged())?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(|_| damaged())?;
    let components = decoded.components();
    if components.len() != header.components.len() {
        return Err(damaged());
    }
    let n_pixels = header.n_pixels();
    let mut planes = Vec::with_capacity(components.len());
    for (component, declared) in components.iter().zip(&header.components) {
        let samples = component.samples().get(..n_pixels).ok_or_else(damaged)?;
        let mut plane = memory::with_capacity(n_pixels)?;
        // The decoder shifts signed samples as if they were unsigned, and bounds none.
        let (offset, least, largest) = (declared.offset(), declared.least(), declared.largest());
        plane.extend(
            samples
                .iter()
                .map(|v| (v.round() - offset).clamp(least, largest)),
        );
        planes.push(plane);
    }
    Ok(planes)
}

fn high_throughput(codestream: &[u8], header: &Header) -> Result<Vec<Vec<f32>>> {
    use dicom_toolkit_jpeg2000::{DecodeSettings, Image};
    let settings = DecodeSettings {
        resolve_palette_indices: false,
        strict: true,
        target_resolution: None,
    };
    let image = Image::new(codestream, &settings).map_err(|_| damaged())?;
    let decoded = image.decode_native().map_err(|_| damaged())?;
    let n_components = header.components.len();
    let n_values = header.n_pixels() * n_components;
    let n_bytes = n_values * usize::from(decoded.bytes_per_sample);
    if usize::from(decoded.num_components) != n_components || decoded.data.len() != n_bytes {
        return Err(damaged());
    }
    let mut planes = Vec::with_capacity(n_components);
    for (index, declared) in header.components.iter().enumerate() {
        let mut plane = memory::with_capacity(header.n_pixels())?;
        let offset = declared.offset();
        if decoded.bytes_per_sample == 1 {
            let samples = decoded.data.iter().skip(index).step_by(n_components);
            plane.extend(samples.map(|&v| f32::from(v) - offset));
        } else {
            let (samples, _) = decoded.data.as_chunks::<2>();
            let samples = samples.iter().skip(index).step_by(n_components);
            plane.extend(samples.map(|raw| f32::from(u16::from_le_bytes(*raw)) - offset));
        }
        planes.push(plane);
    }
    Ok(planes)
}

pub(crate) fn damaged() -> Error {
    Error::malformed(FORMAT, "a damaged or cut codestream", "a whole one")
}

pub(crate) fn unsupported(feature: impl Into<String>) -> Error {
    Error::unsupported(
        FORMAT,
        feature,
        "decompress it, or convert it to a PNG of 8 or 16 bits",
    )
}

#[cfg(test)]
mod tests;
