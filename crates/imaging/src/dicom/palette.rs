//! PALETTE COLOR and Modality LUT tables.
//!
//! # Source
//! DICOM PS3.3 C.7.6.3.1.5 and .6, C.7.9.2 (segmented), C.11.1 (modality).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::dataset::{DataSet, u16s};
use crate::error::{Error, Result};
use crate::samples::ByteOrder;

const FORMAT: &str = "dicom lookup table";

/// One lookup table: values outside its range take the first or the last entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    first: i32,
    entries: Vec<f32>,
    /// Largest value an entry can hold.
    pub(crate) full_scale: f32,
}

impl Table {
    /// Looks one stored value up.
    pub(crate) fn at(&self, stored: f32) -> f32 {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "stored values of tables are integers"
        )]
        let index = i64::from(stored as i32) - i64::from(self.first);
        let last = self.entries.len() - 1;
        let index = usize::try_from(index).unwrap_or(0).min(last);
        self.entries.get(index).copied().unwrap_or(0.0)
    }
}

struct Descriptor {
    n_entries: usize,
    first: i32,
    bits: u16,
}

fn descriptor(set: &DataSet<'_>, tag: Tag, signed: bool) -> Result<Descriptor> {
    let numbers = set.u16s(tag).unwrap_or_default();
    let &[n_entries, first, bits] = numbers.as_slice() else {
        return Err(Error::malformed(
            FORMAT,
            "no descriptor of three numbers",
            "entries, first, bits",
        ));
    };
    if !(1..=16).contains(&bits) {
        return Err(Error::malformed(
            FORMAT,
            format!("entries of {bits} bits"),
            "8 to 16 bits",
        ));
    }
    Ok(Descriptor {
        n_entries: if n_entries == 0 {
            1 << 16
        } else {
            usize::from(n_entries)
        },
        first: if signed {
            i32::from(first.cast_signed())
        } else {
            i32::from(first)
        },
        bits,
    })
}

/// Reads the red, green and blue tables.
///
/// # Errors
/// `Malformed` if one is missing or shorter than its descriptor says.
pub(crate) fn colour_tables(set: &DataSet<'_>, signed: bool) -> Result<[Table; 3]> {
    let table = |described: Tag, plain: Tag, segmented: Tag| -> Result<Table> {
        let descriptor = descriptor(set, described, signed)?;
        let entries = match (set.bytes(plain), set.bytes(segmented)) {
            (Some(bytes), _) if !bytes.is_empty() => {
                plain_entries(bytes, &descriptor, set.order())?
            }
            (_, Some(bytes)) => segmented_entries(bytes, &descriptor, set.order())?,
            _ => {
                return Err(Error::malformed(
                    FORMAT,
                    "a palette without entries",
                    "its table",
                ));
            }
        };
        // Entries of 8 bits may be stored in words (PS3.3 C.7.6.3.1.6): the width decides.
        let is_wide = entries.1;
        let full_scale = if is_wide {
            f32::from(u16::MAX)
        } else {
            f32::from(u8::MAX)
        };
        let entries = entries.0.into_iter().map(f32::from).collect();
        Ok(Table {
            first: descriptor.first,
            entries,
            full_scale,
        })
    };
    Ok([
        table(
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?,
        table(
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            tags::SEGMENTED_GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?,
        table(
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            tags::SEGMENTED_BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?,
    ])
}

/// Reads the table of a Modality LUT Sequence item.
///
/// # Errors
/// `Malformed` if it is shorter than its descriptor says.
pub(crate) fn modality_table(item: &DataSet<'_>, signed: bool) -> Result<Table> {
    let descriptor = descriptor(item, tags::LUT_DESCRIPTOR, signed)?;
    let bytes = item.bytes(tags::LUT_DATA).unwrap_or(&[]);
    let (entries, _) = plain_entries(bytes, &descriptor, item.order())?;
    let full_scale = f32::from(u16::MAX >> (16 - descriptor.bits.min(16)));
    let entries = entries.into_iter().map(f32::from).collect();
    Ok(Table {
        first: descriptor.first,
        entries,
        full_scale,
    })
}

/// Entries, and whether they were stored in 16 bits.
fn plain_entries(
    bytes: &[u8],
    descriptor: &Descriptor,
    order: ByteOrder,
) -> Result<(Vec<u16>, bool)> {
    let n = descriptor.n_entries;
    if bytes.len() >= 2 * n {
        let mut entries = u16s(bytes, order);
        entries.truncate(n);
        return Ok((entries, true));
    }
    if bytes.len() < n {
        let found = format!("{} bytes for {n} entries", bytes.len());
        return Err(Error::malformed(FORMAT, found, "1 or 2 bytes each"));
    }
    let narrow = match order {
        ByteOrder::Little => bytes.iter().map(|&b| u16::from(b)).take(n).collect(),
        // Two entries share a big endian word: the first is the low byte.
        ByteOrder::Big => {
            let words = u16s(bytes, order).into_iter();
            words
                .flat_map(|word| [word & 0xFF, word >> 8])
                .take(n)
                .collect()
        }
    };
    Ok((narrow, false))
}

/// Expands discrete, linear and indirect segments.
fn segmented_entries(
    bytes: &[u8],
    descriptor: &Descriptor,
    order: ByteOrder,
) -> Result<(Vec<u16>, bool)> {
    let is_wide = descriptor.bits > 8;
    let words: Vec<u16> = if is_wide {
        u16s(bytes, order)
    } else {
        bytes.iter().map(|&b| u16::from(b)).collect()
    };
    let mut entries = Vec::new();
    let mut offsets = Vec::new();
    let mut at = 0;
    while at + 1 < words.len() && entries.len() < descriptor.n_entries {
        offsets.push(at);
        at = segment(&words, at, &mut entries, is_wide, true)?;
    }
    if entries.len() < descriptor.n_entries {
        let found = format!("segments of {} entries", entries.len());
        return Err(Error::malformed(
            FORMAT,
            found,
            descriptor.n_entries.to_string(),
        ));
    }
    entries.truncate(descriptor.n_entries);
    Ok((entries, is_wide))
}

/// Appends one segment's entries and returns where the next starts.
fn segment(
    words: &[u16],
    at: usize,
    entries: &mut Vec<u16>,
    is_wide: bool,
    may_point: bool,
) -> Result<usize> {
    let broken = || Error::malformed(FORMAT, "a segment cut short", "opcode, length, values");
    let opcode = *words.get(at).ok_or_else(broken)?;
    let length = usize::from(*words.get(at + 1).ok_or_else(broken)?);
    match opcode {
        0 => {
            entries.extend_from_slice(words.get(at + 2..at + 2 + length).ok_or_else(broken)?);
            Ok(at + 2 + length)
        }
        1 => {
            let end = f64::from(*words.get(at + 2).ok_or_else(broken)?);
            let start = f64::from(*entries.last().ok_or_else(broken)?);
            let step = (end - start) / f64::from(u16::try_from(length).unwrap_or(u16::MAX).max(1));
            for i in 1..=length.max(1) {
                let value = start + step * f64::from(u16::try_from(i).unwrap_or(u16::MAX));
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "between two u16"
                )]
                entries.push(value.round_ties_even() as u16);
            }
            Ok(at + 3)
        }
        2 if may_point => {
            // A byte offset of 32 bits, least significant part first.
            let (n_parts, width) = if is_wide { (2, 16) } else { (4, 8) };
            let parts = words.get(at + 2..at + 2 + n_parts).ok_or_else(broken)?;
            let target = parts
                .iter()
                .rev()
                .fold(0, |sum, &part| sum << width | usize::from(part));
            let mut from = if is_wide { target / 2 } else { target };
            for _ in 0..length {
                // The limit: no chain of pointers can expand without end.
                if entries.len() > 1 << 16 {
                    break;
                }
                from = segment(words, from, entries, is_wide, false)?;
            }
            Ok(at + 2 + n_parts)
        }
        _ => Err(Error::malformed(
            FORMAT,
            format!("segment opcode {opcode}"),
            "0, 1 or 2",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_segment_ends_on_its_value() {
        let words = [0, 1, 10, 1, 4, 20];
        let mut entries = Vec::new();
        let next = segment(&words, 0, &mut entries, true, true).unwrap();
        segment(&words, next, &mut entries, true, true).unwrap();
        assert_eq!(entries, [10, 12, 15, 18, 20]);
    }

    #[test]
    fn values_outside_a_table_take_its_ends() {
        let table = Table {
            first: -1,
            entries: vec![5.0, 6.0],
            full_scale: 255.0,
        };
        let looked_up = [-9.0, -1.0, 0.0, 99.0].map(|v| table.at(v));
        assert_eq!(looked_up, [5.0, 5.0, 6.0, 6.0]);
    }
}
