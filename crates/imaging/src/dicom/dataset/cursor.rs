//! Elements, items and sequences, one after the other: tags, lengths, delimiters.
//!
//! # Source
//! DICOM PS3.5 sections 7.1 and 7.5.

use dicom_core::Tag;

use super::header::{Fault, Header};
use super::plausible::{is_known, leaves_pixels_behind};
use super::{Encoding, FORMAT, VR_NAMES, is_pixels, name_of, u16s};
use crate::error::{Error, Result};
use crate::reason::Code;
use crate::samples::ByteOrder;

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
pub(super) const UNDEFINED: u32 = u32::MAX;
/// Most UN sequences of one level that are walked twice; those whose first element states how it
/// is written need one walk.
const MAX_RETRIES: u8 = 32;

/// Most empty items that are passed to see how the others are written.
const MAX_EMPTY_ITEMS: usize = 16;

/// One element: where its value lies, and how it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) tag: Tag,
    /// The value; of an undefined length, everything before the delimiter.
    pub(super) value: &'a [u8],
    /// The length was undefined: a sequence, or encapsulated pixels.
    pub(super) undefined: bool,
    /// The file ends before the declared length.
    pub(super) is_cut: bool,
    /// The representation is OW: bytes come in words of the data set's order.
    pub(super) is_words: bool,
    /// The representation is UN: what is inside may be written in another encoding.
    pub(super) is_unknown: bool,
    /// How a sequence inside is written; `UN` holds implicit little endian by PS3.5 section 6.2.2
    /// note 2, and explicit little endian in some files.
    pub(super) encoding: Encoding,
    /// What is wrong with the way it is written.
    pub(super) fault: Option<Fault>,
}

/// A place in the bytes of a data set or a sequence.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) position: usize,
    pub(super) encoding: Encoding,
    pub(super) depth: u64,
    pub(super) max_depth: u64,
    /// The tag of the element before, at the same level.
    last: Option<Tag>,
    /// True inside a UN sequence whose encoding is being tried.
    is_trial: bool,
    /// How many UN sequences may still be walked a second time: bounds the work of a hostile file.
    retries_left: u8,
    /// True if the bytes are the content of an item: complete, so that nothing in them is cut.
    is_item: bool,
}

impl<'a> Cursor<'a> {
    /// Returns the start of some bytes; `depth` is the number of sequences around them.
    pub(super) fn new(bytes: &'a [u8], encoding: Encoding, depth: u64, max_depth: u64) -> Self {
        Self {
            bytes,
            position: 0,
            encoding,
            depth,
            max_depth,
            last: None,
            is_trial: false,
            retries_left: MAX_RETRIES,
            is_item: depth > 0,
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        // Fewer bytes than a tag and a length are padding, or the rest of a cut file.
        self.rest().len() < 8
    }

    /// Returns the bytes that are left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or(&[])
    }

    pub(super) fn take(&mut self, n_bytes: usize) -> Result<&'a [u8]> {
        let Some(taken) = self.rest().get(..n_bytes) else {
            let found = format!("{} bytes at offset {}", self.rest().len(), self.position);
            return Err(self.ran_off(found, format!("{n_bytes} bytes")));
        };
        self.position += n_bytes;
        Ok(taken)
    }

    /// The bytes end too early: those of the file, which is cut, or those of the item around.
    fn ran_off(&self, found: String, wanted: String) -> Error {
        if self.is_item {
            return Error::malformed(FORMAT, format!("{found} of an item"), wanted);
        }
        Error::refused(FORMAT, Code::Truncated, found, wanted)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        let raw = self.take(2)?;
        Ok(u16s(raw, self.encoding.order).first().copied().unwrap_or(0))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        let (first, second) = (u32::from(self.u16()?), u32::from(self.u16()?));
        Ok(match self.encoding.order {
            ByteOrder::Little => first | second << 16,
            ByteOrder::Big => first << 16 | second,
        })
    }

    pub(super) fn tag(&mut self) -> Result<Tag> {
        Ok(Tag(self.u16()?, self.u16()?))
    }

    pub(super) fn element(&mut self) -> Result<Element<'a>> {
        let header = self.header()?;
        let Header {
            tag, vr, length, ..
        } = header;
        let mut element = Element {
            tag,
            value: &[],
            undefined: length == UNDEFINED,
            is_cut: false,
            is_words: vr == Some(*b"OW") && length != UNDEFINED,
            is_unknown: vr == Some(*b"UN"),
            encoding: self.encoding,
            fault: header.fault,
        };
        if length == UNDEFINED {
            let start = self.position;
            let end = if is_pixels(tag) {
                self.skip_fragments()?
            } else if element.is_unknown {
                let (end, encoding) = self.skip_unknown()?;
                element.encoding = encoding;
                element.fault = encoding.explicit.then_some(Fault::ExplicitInUnknown);
                end
            } else {
                self.skip_items(self.encoding)?
            };
            element.value = self.bytes.get(start..end).unwrap_or(&[]);
        } else if let Some(value) = self
            .rest()
            .get(..usize::try_from(length).unwrap_or(usize::MAX))
        {
            element.value = value;
            self.position += value.len();
        } else if is_pixels(tag) {
            // Pixels cut short: kept, so that the reader can say how many are missing.
            element.is_cut = true;
            element.value = self.rest();
            self.position = self.bytes.len();
        } else {
            return Err(self.value_ran_off(&header));
        }
        self.last = Some(tag);
        Ok(element)
    }

    /// Tells a file that ends inside a value from a length, or a tag, that is garbage.
    fn value_ran_off(&self, header: &Header) -> Error {
        let (name, left) = (name_of(header.tag), self.rest().len());
        let is_disordered = self.last.is_some_and(|last| header.tag <= last);
        let is_garbage = is_disordered
            || header.vr.is_some_and(|vr| !VR_NAMES.contains(&vr))
            || !is_known(header.tag)
            || !self.is_trial && leaves_pixels_behind(self.rest(), self.encoding);
        if is_garbage {
            let found = format!("{name} of {} bytes where {left} are left", header.length);
            let wanted =
                "elements in ascending order, each with a length that ends inside the file";
            return Error::malformed(FORMAT, found, wanted);
        }
        let found = format!("{left} bytes of {name} at offset {}", self.position);
        self.ran_off(found, format!("{} bytes", header.length))
    }

    /// Moves behind the delimiter of encapsulated pixels; returns where the delimiter starts.
    /// A missing delimiter at the end of the file is tolerated: all fragments are there.
    fn skip_fragments(&mut self) -> Result<usize> {
        let mut items = Cursor {
            encoding: Encoding::EXPLICIT,
            ..*self
        };
        let mut end = items.position;
        while items.item()?.is_some() {
            end = items.position;
        }
        self.position = items.position;
        Ok(end)
    }

    /// Moves behind the delimiter of a UN sequence; returns where it starts, and how the items are
    /// written. Inside a trial nothing else is tried, so that each byte is walked twice at most.
    fn skip_unknown(&mut self) -> Result<(usize, Encoding)> {
        let [first, second] = unknown_encodings(self.rest());
        let mut trial = Self {
            is_trial: true,
            ..*self
        };
        let (end, encoding) = match trial.skip_items(first) {
            Ok(end) => (end, first),
            Err(error @ Error::LimitExceeded { .. }) => return Err(error),
            Err(error) if self.is_trial || self.retries_left == 0 => return Err(error),
            Err(error) => {
                self.retries_left -= 1;
                trial.position = self.position;
                (trial.skip_items(second).map_err(|_| error)?, second)
            }
        };
        self.position = trial.position;
        Ok((end, encoding))
    }

    /// Moves behind the delimiter of a sequence of undefined length; returns where it starts.
    fn skip_items(&mut self, encoding: Encoding) -> Result<usize> {
        if self.depth >= self.max_depth {
            return Err(too_deep(self.max_depth));
        }
        let mut inner = Cursor {
            encoding,
            depth: self.depth + 1,
            ..*self
        };
        loop {
            let end = inner.position;
            if inner.is_at_end() {
                return Err(inner.ran_off("a sequence".into(), "its delimiter".into()));
            }
            if inner.item()?.is_none() {
                self.position = inner.position;
                self.retries_left = inner.retries_left;
                return Ok(end);
            }
        }
    }

    /// Returns the content of the next item, or `None` at a delimiter or the end.
    pub(super) fn item(&mut self) -> Result<Option<&'a [u8]>> {
        if self.is_at_end() {
            return Ok(None);
        }
        let at = self.position;
        let (tag, length) = (self.tag()?, self.u32()?);
        match tag {
            SEQUENCE_END => Ok(None),
            ITEM if length != UNDEFINED => Ok(Some(
                self.take(usize::try_from(length).unwrap_or(usize::MAX))?,
            )),
            ITEM => self.open_item().map(Some),
            other => Err(Error::malformed(
                FORMAT,
                format!("tag {other} at offset {at} of a sequence"),
                "an item or the sequence's delimiter",
            )),
        }
    }

    /// Returns the content of an item of undefined length and moves behind its delimiter.
    fn open_item(&mut self) -> Result<&'a [u8]> {
        let start = self.position;
        self.last = None;
        loop {
            let end = self.position;
            if self.is_at_end() {
                return Err(self.ran_off("an item".into(), "its delimiter".into()));
            }
            let tag = { *self }.tag()?;
            if tag == ITEM_END {
                self.take(8)?;
                return Ok(self.bytes.get(start..end).unwrap_or(&[]));
            }
            self.element()?;
        }
    }
}

/// Returns the two ways in which the items of a UN sequence may be written, the likely one first:
/// by the standard implicit, and explicit if the first element states a representation.
pub(super) fn unknown_encodings(items: &[u8]) -> [Encoding; 2] {
    // The tag of the first element takes 4 bytes.
    let vr = content(items).get(4..).and_then(|vr| vr.first_chunk::<2>());
    if vr.is_some_and(|vr| VR_NAMES.contains(vr)) {
        [Encoding::EXPLICIT, Encoding::IMPLICIT]
    } else {
        [Encoding::IMPLICIT, Encoding::EXPLICIT]
    }
}

/// Returns what follows the header of the first item that is not empty, if it is among the first.
fn content(items: &[u8]) -> &[u8] {
    let mut rest = items;
    for _ in 0..MAX_EMPTY_ITEMS {
        let Some((header, inside)) = rest.split_first_chunk::<8>() else {
            return &[];
        };
        let [.., l0, l1, l2, l3] = *header;
        match u32::from_le_bytes([l0, l1, l2, l3]) {
            0 => rest = inside,
            UNDEFINED if inside.starts_with(&[0xFE, 0xFF, 0x0D, 0xE0]) => {
                rest = inside.get(8..).unwrap_or(&[]);
            }
            _ => return inside,
        }
    }
    &[]
}

/// Returns true if a value starts with an item, as encapsulated pixels do.
pub(super) fn starts_with_item(value: &[u8]) -> bool {
    value.starts_with(&[0xFE, 0xFF, 0x00, 0xE0])
}

pub(super) fn too_deep(allowed: u64) -> Error {
    Error::LimitExceeded {
        what: "depth of nested sequences",
        allowed,
        asked: allowed + 1,
    }
}
