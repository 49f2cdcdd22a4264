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
/// Most segments of one table: one an entry, and a pointer to each.
const MAX_SEGMENTS: usize = 1 << 17;

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
        // Entries of 8 bits may lie in words, the upper byte 0 (PS3.3 C.7.6.3.1.6). Some writers
        // state 8 bits and fill all 16: then the entries decide.
        let is_narrow = descriptor.bits <= 8 && entries.iter().all(|&entry| entry <= 255);
        let full_scale = if is_narrow {
            u16::from(u8::MAX)
        } else {
            u16::MAX
        };
        Ok(Table {
            first: descriptor.first,
            entries: entries.into_iter().map(f32::from).collect(),
            full_scale: f32::from(full_scale),
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
    let entries = plain_entries(bytes, &descriptor, item.order())?;
    let full_scale = f32::from(u16::MAX >> (16 - descriptor.bits.min(16)));
    let entries = entries.into_iter().map(f32::from).collect();
    Ok(Table {
        first: descriptor.first,
        entries,
        full_scale,
    })
}

/// Entries of 16 bits, or of 8 where there are too few bytes for that.
fn plain_entries(bytes: &[u8], descriptor: &Descriptor, order: ByteOrder) -> Result<Vec<u16>> {
    let n = descriptor.n_entries;
    if let Some(wide) = bytes.get(..2 * n) {
        return Ok(u16s(wide, order));
    }
    let Some(narrow) = bytes.get(..n.next_multiple_of(2)).or(bytes.get(..n)) else {
        let found = format!("{} bytes for {n} entries", bytes.len());
        return Err(Error::malformed(FORMAT, found, "1 or 2 bytes each"));
    };
    let mut entries = narrow_entries(narrow, order);
    entries.truncate(n);
    Ok(entries)
}

/// Two entries of 8 bits share a word: the first is its low byte.
fn narrow_entries(bytes: &[u8], order: ByteOrder) -> Vec<u16> {
    match order {
        ByteOrder::Little => bytes.iter().map(|&byte| u16::from(byte)).collect(),
        ByteOrder::Big => u16s(bytes, order)
            .into_iter()
            .flat_map(|word| [word & 0xFF, word >> 8])
            .collect(),
    }
}

/// Expands discrete, linear and indirect segments.
fn segmented_entries(bytes: &[u8], descriptor: &Descriptor, order: ByteOrder) -> Result<Vec<u16>> {
    let is_wide = descriptor.bits > 8;
    let words = if is_wide {
        u16s(bytes, order)
    } else {
        narrow_entries(bytes, order)
    };
    let mut expansion = Expansion {
        words,
        is_wide,
        entries: Vec::new(),
        n_segments: 0,
    };
    let mut at = 0;
    while at + 1 < expansion.words.len() && expansion.entries.len() < descriptor.n_entries {
        at = expansion.segment(at, true)?;
    }
    let mut entries = expansion.entries;
    if entries.len() < descriptor.n_entries {
        let found = format!("segments of {} entries", entries.len());
        return Err(Error::malformed(
            FORMAT,
            found,
            descriptor.n_entries.to_string(),
        ));
    }
    entries.truncate(descriptor.n_entries);
    Ok(entries)
}

struct Expansion {
    /// The coded table; bytes of a narrow one are widened.
    words: Vec<u16>,
    is_wide: bool,
    entries: Vec<u16>,
    n_segments: usize,
}

impl Expansion {
    fn word(&self, at: usize) -> Result<u16> {
        self.words.get(at).copied().ok_or_else(|| {
            Error::malformed(FORMAT, "a segment cut short", "opcode, length, values")
        })
    }

    /// Appends one segment's entries and returns where the next starts.
    fn segment(&mut self, at: usize, may_point: bool) -> Result<usize> {
        // No table of 65,536 entries needs more: pointers to empty segments cannot go on for ever.
        self.n_segments += 1;
        if self.n_segments > MAX_SEGMENTS || self.entries.len() > 1 << 16 {
            let found = "segments without end";
            return Err(Error::malformed(FORMAT, found, "at most 65536 entries"));
        }
        let length = usize::from(self.word(at + 1)?);
        match self.word(at)? {
            0 => {
                let end = at + 2 + length;
                self.word(end - 1)?;
                self.entries
                    .extend_from_slice(self.words.get(at + 2..end).unwrap_or(&[]));
                Ok(end)
            }
            1 => {
                let end = self.word(at + 2)?;
                self.linear(length, end)?;
                Ok(at + 3)
            }
            2 if may_point => self.indirect(at + 2, length),
            opcode => Err(Error::malformed(
                FORMAT,
                format!("segment opcode {opcode}"),
                "0, 1 or 2",
            )),
        }
    }

    /// A ramp of `length` entries from behind the last one to `end`.
    fn linear(&mut self, length: usize, end: u16) -> Result<()> {
        let start =
            self.entries.last().copied().ok_or_else(|| {
                Error::malformed(FORMAT, "a ramp at the start", "an entry before it")
            })?;
        let (start, end) = (f64::from(start), f64::from(end));
        let n = u16::try_from(length).unwrap_or(u16::MAX);
        let step = (end - start) / f64::from(n.max(1));
        self.entries.extend((1..=n).map(|i| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between two u16"
            )]
            let entry = (start + step * f64::from(i)).round_ties_even() as u16;
            entry
        }));
        Ok(())
    }

    /// Repeats `length` segments that start at a byte offset of 32 bits, least significant first.
    fn indirect(&mut self, at: usize, length: usize) -> Result<usize> {
        let (n_parts, width) = if self.is_wide { (2, 16) } else { (4, 8) };
        let mut target = 0;
        for part in (at..at + n_parts).rev() {
            target = target << width | usize::from(self.word(part)?);
        }
        let mut from = if self.is_wide { target / 2 } else { target };
        for _ in 0..length {
            from = self.segment(from, false)?;
        }
        Ok(at + n_parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_segment_ends_on_its_value() {
        let bytes = [0, 0, 1, 0, 10, 0, 1, 0, 4, 0, 20, 0];
        let descriptor = Descriptor {
            n_entries: 5,
            first: 0,
            bits: 16,
        };
        let entries = segmented_entries(&bytes, &descriptor, ByteOrder::Little).unwrap();
        assert_eq!(entries, [10, 12, 15, 18, 20]);
    }

    #[test]
    fn pointers_to_empty_segments_come_to_an_end() {
        // An empty discrete segment, then pointers that repeat it 65,535 times each.
        let mut bytes = vec![0, 0, 0, 0];
        for _ in 0..10_000 {
            bytes.extend_from_slice(&[2, 0, 0xFF, 0xFF, 0, 0, 0, 0]);
        }
        let descriptor = Descriptor {
            n_entries: 5,
            first: 0,
            bits: 16,
        };
        assert!(segmented_entries(&bytes, &descriptor, ByteOrder::Little).is_err());
    }

    #[test]
    fn values_outside_a_table_take_its_ends() {
        let table = Table {
            first: -1,
            entries: vec![5.0, 6.0],
            full_scale: 255.0,
        };
        let looked_up = [-9.0, -1.0, 0.0, 99.0].map(|v| table.at(v).to_bits());
        assert_eq!(looked_up, [5.0_f32, 5.0, 6.0, 6.0].map(f32::to_bits));
    }
}
