//! The header of NIfTI-1 and NIfTI-2, and the plausibility of ANALYZE 7.5.

use crate::error::{Error, Result};
use crate::reason::Code;
use crate::samples::ByteOrder;

use super::FORMAT;

const SIZE_1: usize = 348;
const SIZE_2: usize = 540;
/// Bytes that tell a header; the larger of the two headers.
pub(super) const HEAD_BYTES: usize = SIZE_2;

/// Which standard wrote the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
    /// ANALYZE 7.5: the ancestor without a magic.
    Analyze,
}

/// What the leading bytes say about the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Magic {
    pub(super) version: Version,
    /// True for `.nii`; false for `.hdr`, whose voxels lie in a second file.
    pub(super) single: bool,
    pub(super) order: ByteOrder,
    /// False if the first field does not hold the header's own size.
    pub(super) size_is_right: bool,
}

/// The fields that are used, widened to the types of NIfTI-2.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    pub(super) magic: Magic,
    pub(super) dim: [i64; 8],
    pub(super) datatype: i64,
    pub(super) bitpix: i64,
    pub(super) intent_code: i64,
    pub(super) pixdim: [f64; 8],
    pub(super) vox_offset: f64,
    pub(super) slope: f64,
    pub(super) inter: f64,
    pub(super) units: u8,
    pub(super) qform_code: i64,
    pub(super) sform_code: i64,
    /// b, c, d of the quaternion.
    pub(super) quatern: [f64; 3],
    pub(super) qoffset: [f64; 3],
    pub(super) srow: [[f64; 4]; 3],
}

/// Tells a header by its magic and one more field, so that chance does not.
pub(super) fn magic(head: &[u8]) -> Option<Magic> {
    let fields = |order| Fields { bytes: head, order };
    let orders = [ByteOrder::Little, ByteOrder::Big];
    let version_2 = match head.get(4..12) {
        Some(b"n+2\0\r\n\x1a\n") => Some(true),
        Some(b"ni2\0\r\n\x1a\n") => Some(false),
        _ => None,
    };
    if let Some(single) = version_2 {
        let order = orders.into_iter().find(|&order| {
            fields(order).integers::<1, 4>(0).ok() == Some([540])
                || fields(order)
                    .integers::<1, 8>(16)
                    .is_ok_and(|[n]| (1..=7).contains(&n))
        })?;
        let size_is_right = fields(order).integers::<1, 4>(0).ok() == Some([540]);
        return Some(Magic {
            version: Version::Two,
            single,
            order,
            size_is_right,
        });
    }
    let has_size = |order| fields(order).integers::<1, 4>(0).ok() == Some([348]);
    let has_rank = |order| {
        fields(order)
            .integers::<1, 2>(40)
            .is_ok_and(|[n]: [i64; 1]| (1..=7).contains(&n))
    };
    // The rank decides the byte order, as it does in the standard; the size only confirms.
    let order = orders.into_iter().find(|&order| has_rank(order));
    let order = order.or_else(|| orders.into_iter().find(|&order| has_size(order)))?;
    let size_is_right = has_size(order);
    let (version, single) = match head.get(344..348) {
        Some(b"n+1\0") => (Version::One, true),
        Some(b"ni1\0") => (Version::One, false),
        Some(_) if is_analyze(&fields(order)) => (Version::Analyze, false),
        _ => return None,
    };
    Some(Magic {
        version,
        single,
        order,
        size_is_right,
    })
}

/// ANALYZE has no magic: its size, extents or `regular`, rank, type and width must all fit.
fn is_analyze(fields: &Fields<'_>) -> bool {
    let integer = |at| fields.integers::<1, 2>(at).map_or(0, |[value]| value);
    let marked =
        fields.integers::<1, 4>(32).ok() == Some([16_384]) || fields.bytes.get(38) == Some(&b'r');
    let typed = matches!(
        (integer(70), integer(72)),
        (2, 8) | (4, 16) | (8 | 16, 32) | (32 | 64, 64) | (128, 24)
    );
    let sided = fields
        .integers::<3, 2>(42)
        .is_ok_and(|sides: [i64; 3]| sides.iter().all(|&side| side > 0));
    fields.integers::<1, 4>(0).ok() == Some([348])
        && marked
        && typed
        && sided
        && (2..=7).contains(&integer(40))
}

impl Header {
    /// Reads the header that `magic` announced.
    ///
    /// # Errors
    /// `Malformed` with `truncated` if it is cut short.
    pub(super) fn read(bytes: &[u8], magic: Magic) -> Result<Self> {
        let size = if magic.version == Version::Two {
            SIZE_2
        } else {
            SIZE_1
        };
        let Some(bytes) = bytes.get(..size) else {
            return Err(Error::refused(
                FORMAT,
                Code::Truncated,
                format!("a header of {} bytes", bytes.len()),
                format!("{size} bytes"),
            ));
        };
        let fields = Fields {
            bytes,
            order: magic.order,
        };
        if magic.version == Version::Two {
            Self::read_2(&fields, magic)
        } else {
            Self::read_1(&fields, magic)
        }
    }

    fn read_1(fields: &Fields<'_>, magic: Magic) -> Result<Self> {
        let [intent_code, datatype, bitpix] = fields.integers::<3, 2>(68)?;
        let [vox_offset, slope, inter] = fields.singles(108)?;
        let [units] = fields.array::<1>(123)?;
        let [qform_code, sform_code] = fields.integers::<2, 2>(252)?;
        Ok(Self {
            magic,
            dim: fields.integers::<8, 2>(40)?,
            datatype,
            bitpix,
            intent_code,
            pixdim: fields.singles(76)?,
            vox_offset,
            slope,
            inter,
            units,
            qform_code,
            sform_code,
            quatern: fields.singles(256)?,
            qoffset: fields.singles(268)?,
            srow: [
                fields.singles(280)?,
                fields.singles(296)?,
                fields.singles(312)?,
            ],
        })
    }

    fn read_2(fields: &Fields<'_>, magic: Magic) -> Result<Self> {
        let [datatype, bitpix] = fields.integers::<2, 2>(12)?;
        let [vox_offset] = fields.integers::<1, 8>(168)?;
        let [slope, inter] = fields.doubles(176)?;
        let [qform_code, sform_code] = fields.integers::<2, 4>(344)?;
        let [units, intent_code] = fields.integers::<2, 4>(500)?;
        Ok(Self {
            magic,
            dim: fields.integers::<8, 8>(16)?,
            datatype,
            bitpix,
            intent_code,
            pixdim: fields.doubles(104)?,
            // Offsets that f64 cannot hold exactly lie behind any file.
            vox_offset: crate::samples::widen_i64(vox_offset),
            slope,
            inter,
            units: u8::try_from(units & 0xff).unwrap_or(0),
            qform_code,
            sform_code,
            quatern: fields.doubles(352)?,
            qoffset: fields.doubles(376)?,
            srow: [
                fields.doubles(400)?,
                fields.doubles(432)?,
                fields.doubles(464)?,
            ],
        })
    }
}

/// Numbers at fixed offsets.
struct Fields<'a> {
    bytes: &'a [u8],
    order: ByteOrder,
}

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let found = self
            .bytes
            .get(at..)
            .and_then(|behind| behind.first_chunk::<N>());
        found.copied().ok_or_else(|| {
            Error::refused(
                FORMAT,
                Code::Truncated,
                format!("a header of {} bytes", self.bytes.len()),
                format!("{} bytes", at + N),
            )
        })
    }

    /// Reads `WIDTH` bytes as little-endian ones, whatever the file's order.
    fn ordered<const WIDTH: usize>(&self, at: usize) -> Result<[u8; WIDTH]> {
        let mut raw = self.array::<WIDTH>(at)?;
        if self.order == ByteOrder::Big {
            raw.reverse();
        }
        Ok(raw)
    }

    /// Reads `N` signed integers of `WIDTH` bytes, `WIDTH` at most 8.
    fn integers<const N: usize, const WIDTH: usize>(&self, at: usize) -> Result<[i64; N]> {
        let mut values = [0; N];
        for (i, value) in values.iter_mut().enumerate() {
            let raw = self.ordered::<WIDTH>(at + i * WIDTH)?;
            let negative = raw.last().is_some_and(|high| high & 0x80 != 0);
            let mut wide = if negative { [0xff; 8] } else { [0; 8] };
            for (wide, raw) in wide.iter_mut().zip(raw) {
                *wide = raw;
            }
            *value = i64::from_le_bytes(wide);
        }
        Ok(values)
    }

    fn singles<const N: usize>(&self, at: usize) -> Result<[f64; N]> {
        let mut values = [0.0; N];
        for (i, value) in values.iter_mut().enumerate() {
            *value = f64::from(f32::from_le_bytes(self.ordered::<4>(at + i * 4)?));
        }
        Ok(values)
    }

    fn doubles<const N: usize>(&self, at: usize) -> Result<[f64; N]> {
        let mut values = [0.0; N];
        for (i, value) in values.iter_mut().enumerate() {
            *value = f64::from_le_bytes(self.ordered::<8>(at + i * 8)?);
        }
        Ok(values)
    }
}
