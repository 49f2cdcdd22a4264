//! Image file directories: tag -> numbers, in both byte orders, `TIFF` and `BigTIFF`.

use std::ops::Range;

use super::{FORMAT, truncated};
use crate::error::{Error, Result};
use crate::samples::ByteOrder;

/// The tags read here, by their names in the specification.
pub(super) mod tag {
    pub(in super::super) const NEW_SUBFILE_TYPE: u16 = 254;
    pub(in super::super) const WIDTH: u16 = 256;
    pub(in super::super) const LENGTH: u16 = 257;
    pub(in super::super) const BITS_PER_SAMPLE: u16 = 258;
    pub(in super::super) const COMPRESSION: u16 = 259;
    pub(in super::super) const PHOTOMETRIC: u16 = 262;
    pub(in super::super) const FILL_ORDER: u16 = 266;
    pub(in super::super) const DESCRIPTION: u16 = 270;
    pub(in super::super) const STRIP_OFFSETS: u16 = 273;
    pub(in super::super) const ORIENTATION: u16 = 274;
    pub(in super::super) const SAMPLES_PER_PIXEL: u16 = 277;
    pub(in super::super) const ROWS_PER_STRIP: u16 = 278;
    pub(in super::super) const STRIP_BYTE_COUNTS: u16 = 279;
    pub(in super::super) const X_RESOLUTION: u16 = 282;
    pub(in super::super) const Y_RESOLUTION: u16 = 283;
    pub(in super::super) const PLANAR: u16 = 284;
    pub(in super::super) const PREDICTOR: u16 = 317;
    pub(in super::super) const COLOR_MAP: u16 = 320;
    pub(in super::super) const TILE_WIDTH: u16 = 322;
    pub(in super::super) const TILE_LENGTH: u16 = 323;
    pub(in super::super) const TILE_OFFSETS: u16 = 324;
    pub(in super::super) const TILE_BYTE_COUNTS: u16 = 325;
    pub(in super::super) const EXTRA_SAMPLES: u16 = 338;
    pub(in super::super) const SAMPLE_FORMAT: u16 = 339;
    pub(in super::super) const JPEG_TABLES: u16 = 347;

    /// All of the above: others are skipped, so that a directory costs no more than this.
    pub(super) const KNOWN: [u16; 25] = [
        NEW_SUBFILE_TYPE,
        WIDTH,
        LENGTH,
        BITS_PER_SAMPLE,
        COMPRESSION,
        PHOTOMETRIC,
        FILL_ORDER,
        DESCRIPTION,
        STRIP_OFFSETS,
        ORIENTATION,
        SAMPLES_PER_PIXEL,
        ROWS_PER_STRIP,
        STRIP_BYTE_COUNTS,
        X_RESOLUTION,
        Y_RESOLUTION,
        PLANAR,
        PREDICTOR,
        COLOR_MAP,
        TILE_WIDTH,
        TILE_LENGTH,
        TILE_OFFSETS,
        TILE_BYTE_COUNTS,
        EXTRA_SAMPLES,
        SAMPLE_FORMAT,
        JPEG_TABLES,
    ];
}

/// Byte order, width of offsets, and where the first directory is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    order: ByteOrder,
    big: bool,
    /// Offset of the first directory.
    pub(super) first: u64,
}

impl Header {
    /// Reads the first 8 or 16 bytes.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let order = if bytes.starts_with(b"MM") {
            ByteOrder::Big
        } else {
            ByteOrder::Little
        };
        let mut fields = Fields {
            bytes,
            order,
            position: 2,
        };
        let big = fields.uint(2)? == 43;
        if big {
            let (offset_size, zero) = (fields.uint(2)?, fields.uint(2)?);
            if (offset_size, zero) != (8, 0) {
                let found = format!("offsets of {offset_size} bytes");
                return Err(Error::malformed(FORMAT, found, "8 bytes"));
            }
        }
        let first = fields.uint(if big { 8 } else { 4 })?;
        Ok(Self { order, big, first })
    }

    /// Reads the directory at `offset` and returns it with the offset of the next, if any.
    pub(super) fn directory<'a>(
        &self,
        bytes: &'a [u8],
        offset: u64,
    ) -> Result<(Directory<'a>, Option<u64>)> {
        let position = usize::try_from(offset).map_err(|_| truncated("a page directory"))?;
        let mut fields = Fields {
            bytes,
            order: self.order,
            position,
        };
        let (count_size, value_size) = if self.big { (8, 8) } else { (2, 4) };
        let n_entries = fields.uint(count_size)?;
        let mut entries = Vec::new();
        let mut spans = Vec::new();
        for _ in 0..n_entries {
            let (name, field_type) = (fields.uint(2)?, fields.uint(2)?);
            let count = fields.uint(value_size)?;
            let inline_at = fields.position;
            let far = fields.uint(value_size)?;
            let name = u16::try_from(name).unwrap_or(0);
            let Some(size) = scalar_size(field_type) else {
                continue;
            };
            if !tag::KNOWN.contains(&name) {
                continue;
            }
            let n_bytes = count
                .checked_mul(size as u64)
                .and_then(|n| usize::try_from(n).ok())
                .ok_or_else(|| truncated("a tag's value"))?;
            let is_inline = n_bytes <= value_size;
            let start = if is_inline {
                inline_at
            } else {
                usize::try_from(far).map_err(|_| truncated("a tag's value"))?
            };
            let value = start
                .checked_add(n_bytes)
                .and_then(|end| bytes.get(start..end))
                .ok_or_else(|| truncated("a tag's value"))?;
            if !is_inline {
                spans.push(start..start + n_bytes);
            }
            entries.push(Entry {
                name,
                field_type,
                value,
            });
        }
        let next = fields.uint(value_size)?;
        spans.push(position..fields.position);
        Ok((
            Directory {
                order: self.order,
                entries,
                spans,
            },
            (next != 0).then_some(next),
        ))
    }
}

/// Reads integers one after the other.
struct Fields<'a> {
    bytes: &'a [u8],
    order: ByteOrder,
    position: usize,
}

impl Fields<'_> {
    fn uint(&mut self, n_bytes: usize) -> Result<u64> {
        let end = self.position.checked_add(n_bytes);
        let raw = end
            .and_then(|end| self.bytes.get(self.position..end))
            .ok_or_else(|| truncated("its page directories"))?;
        self.position += n_bytes;
        Ok(uint(raw, self.order))
    }
}

fn uint(raw: &[u8], order: ByteOrder) -> u64 {
    let join = |number: u64, &byte: &u8| (number << 8) | u64::from(byte);
    match order {
        ByteOrder::Big => raw.iter().fold(0, join),
        ByteOrder::Little => raw.iter().rev().fold(0, join),
    }
}

/// Returns the width of one value of a field type, or `None` for types that do not exist.
fn scalar_size(field_type: u64) -> Option<usize> {
    match field_type {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 | 16 | 17 | 18 => Some(8),
        _ => None,
    }
}

#[derive(Debug)]
struct Entry<'a> {
    name: u16,
    field_type: u64,
    value: &'a [u8],
}

/// The tags of one page.
#[derive(Debug)]
pub(super) struct Directory<'a> {
    /// Byte order of the file.
    pub(super) order: ByteOrder,
    entries: Vec<Entry<'a>>,
    /// Bytes of the file that the directory and its values take.
    spans: Vec<Range<usize>>,
}

impl<'a> Directory<'a> {
    /// Returns all values of an unsigned tag, or `None` if the page does not have it.
    pub(super) fn uints(&self, name: u16) -> Result<Option<Vec<u64>>> {
        let Some(entry) = self.entries.iter().find(|entry| entry.name == name) else {
            return Ok(None);
        };
        let size = match entry.field_type {
            1 | 7 => 1,
            3 => 2,
            4 | 13 => 4,
            16 | 18 => 8,
            other => {
                let found = format!("tag {name} of type {other}");
                return Err(Error::malformed(FORMAT, found, "an unsigned type"));
            }
        };
        Ok(Some(
            entry
                .value
                .chunks_exact(size)
                .map(|raw| uint(raw, self.order))
                .collect(),
        ))
    }

    /// Returns the first value of an unsigned tag.
    pub(super) fn uint(&self, name: u16) -> Result<Option<u64>> {
        Ok(self.uints(name)?.and_then(|values| values.first().copied()))
    }

    /// Returns true if the directory or one of its values lies in a range of the file.
    pub(super) fn overlaps(&self, start: u64, end: u64) -> bool {
        let overlaps = |span: &Range<usize>| (span.start as u64) < end && start < span.end as u64;
        self.spans.iter().any(overlaps)
    }

    /// Returns the raw bytes of a tag.
    pub(super) fn bytes(&self, name: u16) -> Option<&'a [u8]> {
        self.entries
            .iter()
            .find(|entry| entry.name == name)
            .map(|entry| entry.value)
    }

    /// Returns the first value of a tag of type RATIONAL, if its quotient is finite.
    pub(super) fn rational(&self, name: u16) -> Option<f64> {
        let entry = self.entries.iter().find(|entry| entry.name == name)?;
        let (above, rest) = entry.value.split_first_chunk::<4>()?;
        let below = rest.first_chunk::<4>()?;
        let quotient = uint(above, self.order) as f64 / uint(below, self.order) as f64;
        (entry.field_type == 5 && quotient.is_finite()).then_some(quotient)
    }
}
