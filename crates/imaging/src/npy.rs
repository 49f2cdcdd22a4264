//! numpy's `.npy`, versions 1 to 3, and its writer.
//!
//! An array carries no meaning, so its shape decides:
//! - `[H, W]` is a grey image;
//! - `[H, W, 3]` is an RGB image, and `[H, W, 4]` one that loses its alpha;
//! - any other `[D, H, W]` is a grey volume (an image if D = 1);
//! - `[1, D, H, W]` and `[3, D, H, W]` are what `write_npy` writes: grey or RGB;
//! - any other `[D, H, W, 3]` or `[D, H, W, 4]` is an RGB volume;
//! - everything else is refused.

use std::io::Write;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::payload::{Stored, gather};
use crate::read::ReadOptions;
use crate::reason::Code;
use crate::samples::{ByteOrder, Linear, Scalar};
use crate::volume::{Kind, Volume};

const FORMAT: &str = "npy";
const MAGIC: &[u8] = b"\x93NUMPY";

/// How one number of an array is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Scalar(Scalar),
    Bool,
    Half,
}

/// The checked header.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    element: Element,
    order: ByteOrder,
    is_fortran: bool,
    shape: Vec<u64>,
}

/// What the shape means: how many places one step along each axis of the volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meaning {
    /// C, D, H, W; C may be 4 here, the last being alpha.
    sides: [u64; 4],
    /// Which axis of the array is C, D, H, W; `None` for one that the array lacks.
    axes: [Option<usize>; 4],
}

/// Reads the one image of a file.
pub(crate) fn read(bytes: &[u8], options: &ReadOptions) -> Result<Vec<Volume>> {
    let (header, data_start) = split_header(bytes)?;
    let meaning = meaning(&header.shape)?;
    let [n_channels, depth, ..] = meaning.sides;
    options.limits.frames(depth)?;
    let n_values = options.limits.voxels(meaning.sides)?;
    let stored = decode(bytes, data_start, &header, n_values, &options.limits)?;
    let mut sides = [0; 4];
    for (side, asked) in sides.iter_mut().zip(meaning.sides) {
        *side = options.limits.voxels([1, 1, 1, asked])?;
    }
    let [_, depth, height, width] = sides;
    let shape = [
        sides.map(|side| side.min(3)).first().copied().unwrap_or(1),
        depth,
        height,
        width,
    ];
    let is_as_stored = !header.is_fortran && meaning.axes.is_sorted() && n_channels < 4;
    let values = if is_as_stored {
        stored
    } else {
        gather(&stored, 0, shape, strides(&header, &meaning))?
    };
    let kind = if depth == 1 {
        Kind::Image
    } else {
        Kind::Volume
    };
    let mut volume = Volume::new(values, shape, kind)?;
    note(&mut volume, &header, n_channels);
    Ok(vec![volume])
}

fn note(volume: &mut Volume, header: &Header, n_channels: u64) {
    if n_channels > 1 {
        volume.full_scale = match header.element {
            Element::Scalar(Scalar::U8) => Some(255.0),
            Element::Scalar(Scalar::U16) => Some(65_535.0),
            _ => None,
        };
    }
    volume.note(Code::SpacingUnknown, "an array states no pixel size");
    if volume.kind == Kind::Volume {
        volume.note(
            Code::StackAxisUnknown,
            "an array does not say what its axes are",
        );
    }
    if n_channels == 4 {
        volume.note(Code::AlphaDropped, "the fourth channel");
    }
    if header.element == Element::Bool {
        volume.note(Code::LabelMap, "values are true or false");
    }
}

/// Applies the module's table.
fn meaning(shape: &[u64]) -> Result<Meaning> {
    if shape.contains(&0) {
        let found = "an array with a side of 0";
        return Err(Error::refused(
            FORMAT,
            Code::NoPixels,
            found,
            "at least one value",
        ));
    }
    let (sides, axes) = match *shape {
        [h, w] => ([1, 1, h, w], [None, None, Some(0), Some(1)]),
        [h, w, c @ (3 | 4)] => ([c, 1, h, w], [Some(2), None, Some(0), Some(1)]),
        [d, h, w] => ([1, d, h, w], [None, Some(0), Some(1), Some(2)]),
        [c @ (1 | 3), d, h, w] => ([c, d, h, w], [Some(0), Some(1), Some(2), Some(3)]),
        [d, h, w, c @ (3 | 4)] => ([c, d, h, w], [Some(3), Some(0), Some(1), Some(2)]),
        _ => {
            let feature = format!("an array of shape {shape:?}");
            let advice = "save [H, W], [H, W, 3], [D, H, W], [1 or 3, D, H, W] or [D, H, W, 3]";
            return Err(Error::unsupported(FORMAT, feature, advice));
        }
    };
    Ok(Meaning { sides, axes })
}

/// Returns how many numbers lie between neighbours along C, D, H, W.
fn strides(header: &Header, meaning: &Meaning) -> [usize; 4] {
    meaning.axes.map(|axis| {
        let Some(axis) = axis else { return 0 };
        // Charged before: the product of all sides fits.
        let product = |sides: &[u64]| sides.iter().product::<u64>();
        let stride = if header.is_fortran {
            product(header.shape.get(..axis).unwrap_or_default())
        } else {
            product(header.shape.get(axis + 1..).unwrap_or_default())
        };
        usize::try_from(stride).unwrap_or(usize::MAX)
    })
}

/// Decodes all numbers in file order.
fn decode(
    bytes: &[u8],
    data_start: usize,
    header: &Header,
    n_values: usize,
    limits: &Limits,
) -> Result<Vec<f32>> {
    let scalar = match header.element {
        Element::Scalar(scalar) => scalar,
        Element::Bool => Scalar::U8,
        Element::Half => Scalar::U16,
    };
    let stored = Stored {
        format: FORMAT,
        bytes,
        wrapper: None,
        skip: data_start as u64,
        layout: (scalar, header.order),
        map: Linear::IDENTITY,
    };
    if header.element != Element::Half {
        return Ok(stored.values(n_values, limits)?.0);
    }
    let raw = stored.raw(n_values, limits)?;
    let (halves, _) = raw.voxels().as_chunks::<2>();
    let parse = match header.order {
        ByteOrder::Little => u16::from_le_bytes,
        ByteOrder::Big => u16::from_be_bytes,
    };
    Ok(halves.iter().map(|&half| widen_half(parse(half))).collect())
}

/// Widens an IEEE 754 binary16; every one of them is an f32.
fn widen_half(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half) & 0x3ff;
    let magnitude = match exponent {
        // Subnormal: a whole number of 2^-24.
        0 => (f32::from(half & 0x3ff) * 2.0_f32.powi(-24)).to_bits(),
        0x1f => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// Parses the header and returns it with the byte at which numbers begin.
fn split_header(bytes: &[u8]) -> Result<(Header, usize)> {
    let short = || {
        let found = format!("a header of {} bytes", bytes.len());
        Error::refused(FORMAT, Code::Truncated, found, "all of the header")
    };
    let behind = bytes.strip_prefix(MAGIC).ok_or_else(short)?;
    let (&[major, _minor], behind) = behind.split_first_chunk::<2>().ok_or_else(short)?;
    let (n_header, behind) = match major {
        1 => {
            let (&raw, behind) = behind.split_first_chunk::<2>().ok_or_else(short)?;
            (usize::from(u16::from_le_bytes(raw)), behind)
        }
        2 | 3 => {
            let (&raw, behind) = behind.split_first_chunk::<4>().ok_or_else(short)?;
            (
                usize::try_from(u32::from_le_bytes(raw)).unwrap_or(usize::MAX),
                behind,
            )
        }
        _ => {
            let advice = "save it with numpy's own writer";
            return Err(Error::unsupported(
                FORMAT,
                format!("version {major}"),
                advice,
            ));
        }
    };
    let text = behind.get(..n_header).ok_or_else(short)?;
    let text = str::from_utf8(text)
        .map_err(|_| Error::malformed(FORMAT, "a header that is no text", "a Python dict"))?;
    let data_start = bytes.len() - behind.len() + n_header;
    Ok((parse_header(text)?, data_start))
}

/// Parses the dict literal that numpy writes: three keys, in any order.
fn parse_header(text: &str) -> Result<Header> {
    let wanted = "a dict with 'descr', 'fortran_order' and 'shape'";
    let broken = |found: &str| Error::malformed(FORMAT, found, wanted);
    let value_of = |key: &str| {
        let (_, behind) = text.split_once(&format!("'{key}'"))?;
        Some(behind.trim_start().strip_prefix(':')?.trim_start())
    };
    let descr = value_of("descr").ok_or_else(|| broken("no 'descr'"))?;
    let (element, order) = parse_descr(descr)?;
    let is_fortran = match value_of("fortran_order") {
        Some(value) if value.starts_with("True") => true,
        Some(value) if value.starts_with("False") => false,
        _ => return Err(broken("no 'fortran_order'")),
    };
    let inner = value_of("shape")
        .and_then(|value| value.strip_prefix('('))
        .and_then(|value| value.split_once(')'))
        .map(|(inner, _)| inner)
        .ok_or_else(|| broken("no 'shape'"))?;
    let sides = inner
        .split(',')
        .map(str::trim)
        .filter(|side| !side.is_empty());
    let shape = sides
        // numpy 1 on Python 2 wrote long integers with a suffix.
        .map(|side| side.trim_end_matches('L').parse().ok())
        .take(33)
        .collect::<Option<Vec<u64>>>()
        .ok_or_else(|| broken("a shape that is no tuple of whole numbers"))?;
    Ok(Header {
        element,
        order,
        is_fortran,
        shape,
    })
}

fn parse_descr(descr: &str) -> Result<(Element, ByteOrder)> {
    let unsupported = |feature: &str| {
        Err(Error::unsupported(
            FORMAT,
            feature,
            "save real numbers of at most 64 bits",
        ))
    };
    if descr.starts_with('[') {
        return unsupported("a structured data type");
    }
    let quote = descr
        .chars()
        .next()
        .filter(|quote| matches!(quote, '\'' | '"'));
    let code = quote
        .and_then(|quote| descr.split(quote).nth(1))
        .unwrap_or_default();
    let order = if code.starts_with('>') {
        ByteOrder::Big
    } else {
        ByteOrder::Little
    };
    let element = match code.trim_start_matches(['<', '>', '|']) {
        "b1" => Element::Bool,
        "u1" => Element::Scalar(Scalar::U8),
        "i1" => Element::Scalar(Scalar::I8),
        "u2" => Element::Scalar(Scalar::U16),
        "i2" => Element::Scalar(Scalar::I16),
        "u4" => Element::Scalar(Scalar::U32),
        "i4" => Element::Scalar(Scalar::I32),
        "u8" => Element::Scalar(Scalar::U64),
        "i8" => Element::Scalar(Scalar::I64),
        "f2" => Element::Half,
        "f4" => Element::Scalar(Scalar::F32),
        "f8" => Element::Scalar(Scalar::F64),
        "f16" => return unsupported("data type float128"),
        "c8" | "c16" | "c32" => return unsupported("a complex data type"),
        "O" => return unsupported("a data type of pickled objects"),
        _ => return unsupported("a data type that is no number"),
    };
    Ok((element, order))
}

/// Writes a volume's values as an f32 array of shape `[C, D, H, W]`, little-endian.
///
/// # Errors
/// `Io`.
pub fn write_npy(out: &mut impl Write, volume: &Volume) -> Result<()> {
    let [n_channels, depth, height, width] = volume.shape();
    let dict = format!(
        "{{'descr': '<f4', 'fortran_order': False, \
         'shape': ({n_channels}, {depth}, {height}, {width}), }}"
    );
    // Magic, version and length take 10 bytes, the line feed 1; numbers begin at a multiple of 64.
    let n_padding = (64 - (dict.len() + 11) % 64) % 64;
    let failed = |source| Error::io("writing npy", source);
    let n_header = u16::try_from(dict.len() + n_padding + 1).map_err(|_| Error::Mismatch {
        what: "header of the array",
        expected: "at most 65535 bytes".into(),
        got: dict.len().to_string(),
    })?;
    out.write_all(MAGIC).map_err(failed)?;
    out.write_all(&[1, 0]).map_err(failed)?;
    out.write_all(&n_header.to_le_bytes()).map_err(failed)?;
    out.write_all(format!("{dict}{:n_padding$}\n", "").as_bytes())
        .map_err(failed)?;
    let mut block = Vec::with_capacity(1 << 16);
    for values in volume.values().chunks(1 << 14) {
        block.clear();
        block.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        out.write_all(&block).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
