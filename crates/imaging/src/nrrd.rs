//! NRRD: attached, or detached with `data file`; raw, gzip, ascii and hex.
//!
//! What becomes of the axes, wherever they stand in the file:
//! - axes of kind `domain` or `space`, or with a space direction, are W, H and D in file order;
//! - a colour axis (`RGB-color`, `RGBA-color`, `3-color`, or a `vector` of 3 or 4 integers of 8 or
//!   16 bit, which is how ITK marks colour) is C; alpha is dropped;
//! - `time` beside two axes of space is D of a video; beside three it gives parts `t=0`, `t=1`, ...;
//! - `list` gives parts `list=0`, `list=1`, ...

mod axes;
mod header;

use crate::error::{Error, Result};
use crate::geometry::canonicalise;
use crate::inflate::Wrapper;
use crate::limits::Limits;
use crate::payload::{Stored, gather, parse_text};
use crate::read::{ReadOptions, Siblings};
use crate::reason::{Code, Reason};
use crate::samples::{ByteOrder, Linear, Scalar, extend_f32};
use crate::volume::Volume;
use axes::Axes;
use header::{DataFiles, Encoding, Header};

const FORMAT: &str = "nrrd";

/// Tells NRRD by its magic.
pub(crate) fn is_nrrd(head: &[u8]) -> bool {
    head.starts_with(b"NRRD000")
}

/// Returns the names of the files in which a header, perhaps cut short, says its voxels lie.
pub(crate) fn data_files(head: &[u8]) -> Vec<String> {
    header::data_file_names(head)
}

/// Reads every image of a file: see the module's table.
pub(crate) fn read(
    bytes: &[u8],
    siblings: Siblings<'_>,
    options: &ReadOptions,
) -> Result<Vec<Volume>> {
    let limits = &options.limits;
    let (header, behind) = header::parse(bytes)?;
    let axes = Axes::new(&header, limits)?;
    let values = read_values(&header, behind, axes.n_values, siblings, limits)?;
    let mut reasons = axes.reasons.clone();
    if header.is_segmentation {
        reasons.push(Reason::new(Code::LabelMap, "the header names segments"));
    }
    let mut whole = Some(values);
    let mut volumes = Vec::with_capacity(axes.n_parts);
    for index in 0..axes.n_parts {
        let values = match &whole {
            Some(_) if axes.is_as_stored => whole.take().unwrap_or_default(),
            Some(all) => gather(all, index * axes.part_stride, axes.shape, axes.strides)?,
            None => Vec::new(),
        };
        let mut volume = Volume::new(values, axes.shape, axes.kind)?;
        volume.affine = axes.affine;
        volume.spacing = axes.spacing;
        volume.full_scale = axes.full_scale;
        volume.part = axes.part(index);
        volume.reasons.clone_from(&reasons);
        volumes.push(canonicalise(volume)?);
    }
    Ok(volumes)
}

/// Decodes all numbers in file order.
fn read_values(
    header: &Header,
    behind: &[u8],
    n_values: usize,
    siblings: Siblings<'_>,
    limits: &Limits,
) -> Result<Vec<f32>> {
    let names = match &header.files {
        DataFiles::Attached => return decode(header, behind, n_values, limits),
        DataFiles::Detached(names) => names,
    };
    limits.parts(names.len() as u64)?;
    if names.is_empty() || !n_values.is_multiple_of(names.len()) {
        return Err(Error::malformed(
            FORMAT,
            format!("{n_values} voxels in {} files", names.len()),
            "the same number in each",
        ));
    }
    let mut values = Vec::new();
    for name in names {
        let file = siblings(name)?;
        let slab = decode(header, &file, n_values / names.len(), limits)?;
        if names.len() == 1 {
            return Ok(slab);
        }
        values.extend(slab);
    }
    Ok(values)
}

/// Decodes the numbers of one file.
fn decode(header: &Header, file: &[u8], n_values: usize, limits: &Limits) -> Result<Vec<f32>> {
    let bytes = skip_lines(file, header.line_skip)?;
    let layout = (header.scalar, header.order.unwrap_or(ByteOrder::Little));
    let n_bytes = (n_values as u64).saturating_mul(header.scalar.n_bytes() as u64);
    let skip = match header.byte_skip {
        -1 if header.encoding == Encoding::Raw => (bytes.len() as u64).saturating_sub(n_bytes),
        skip => u64::try_from(skip).map_err(|_| {
            let wanted = "at least 0, or -1 for raw";
            Error::malformed(FORMAT, format!("a byte skip of {skip}"), wanted)
        })?,
    };
    let wrapper = (header.encoding == Encoding::Gzip).then_some(Wrapper::Gzip);
    let map = Linear::IDENTITY;
    let stored = Stored {
        format: FORMAT,
        bytes,
        wrapper,
        skip,
        layout,
        map,
    };
    let text = || {
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        bytes.get(skip..).unwrap_or_default()
    };
    match header.encoding {
        Encoding::Raw | Encoding::Gzip => Ok(stored.values(n_values, limits)?.0),
        Encoding::Ascii => parse_text(FORMAT, text(), n_values),
        Encoding::Hex => parse_hex(text(), n_values, layout),
    }
}

/// Returns what lies behind the first `n_lines` lines.
fn skip_lines(bytes: &[u8], n_lines: u64) -> Result<&[u8]> {
    let mut rest = bytes;
    for skipped in 0..n_lines {
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(Error::refused(
                FORMAT,
                Code::Truncated,
                format!("{skipped} lines in front of the voxels"),
                format!("{n_lines}"),
            ));
        };
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    Ok(rest)
}

/// Parses pairs of hexadecimal digits, with white space anywhere.
fn parse_hex(text: &[u8], n_values: usize, layout: (Scalar, ByteOrder)) -> Result<Vec<f32>> {
    let n_digits = n_values
        .saturating_mul(layout.0.n_bytes())
        .saturating_mul(2);
    let mut digits = Vec::new();
    for &byte in text
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .take(n_digits)
    {
        let digit = char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok());
        digits.push(digit.ok_or_else(|| {
            Error::malformed(FORMAT, "a byte that is no hexadecimal digit", "0-9 and a-f")
        })?);
    }
    if digits.len() < n_digits {
        return Err(Error::refused(
            FORMAT,
            Code::Truncated,
            format!("{} hexadecimal digits", digits.len()),
            format!("{n_digits}"),
        ));
    }
    let (pairs, _) = digits.as_chunks::<2>();
    let raw: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    let mut values = Vec::with_capacity(n_values);
    extend_f32(&mut values, &raw, layout, Linear::IDENTITY)?;
    Ok(values)
}

#[cfg(test)]
mod tests;
