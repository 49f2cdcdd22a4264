//! Elements, items and sequences, one after the other: tags, lengths, delimiters.
//!
//! # Source
//! DICOM PS3.5 sections 7.1 and 7.5.

use dicom_core::Tag;

use super::{Encoding, FORMAT, is_pixels, u16s};
use crate::error::{Error, Result};
use crate::reason::Code;
use crate::samples::ByteOrder;

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
const UNDEFINED: u32 = u32::MAX;

/// One element: where its value lies, and how it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) tag: Tag,
    /// The value; of an undefined length, everything before the delimiter.
    pub(super) value: &'a [u8],
    /// Length was pub(super) undefined: a sequence, or encapsulated pixels.
    pub(super) undefined: bool,
    /// The representation is OW: bytes come in words of the data set's order.
    pub(super) is_words: bool,
    /// `UN` of undefined length holds implicit little endian (PS3.5 section 6.2.2 note 2).
    pub(super) encoding: Encoding,
}

/// True for representations whose length takes 32 bits (PS3.5 table 7.1-1).
fn has_long_length(vr: [u8; 2]) -> bool {
    matches!(
        &vr,
        b"OB"
            | b"OD"
            | b"OF"
            | b"OL"
            | b"OV"
            | b"OW"
            | b"SQ"
            | b"SV"
            | b"UC"
            | b"UN"
            | b"UR"
            | b"UT"
            | b"UV"
    )
}

struct Header {
    tag: Tag,
    vr: Option<[u8; 2]>,
    length: u32,
}

/// A place in the bytes of a data set or a sequence.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) position: usize,
    pub(super) encoding: Encoding,
    pub(super) depth: u64,
    pub(super) max_depth: u64,
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
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        // Fewer bytes than a tag and a length are padding.
        self.bytes.len().saturating_sub(self.position) < 8
    }

    fn take(&mut self, n_bytes: usize) -> Result<&'a [u8]> {
        let end = self.position.checked_add(n_bytes);
        let taken = end.and_then(|end| self.bytes.get(self.position..end));
        let Some(taken) = taken else {
            let left = self.bytes.len().saturating_sub(self.position);
            return Err(truncated(
                format!("{left} bytes at offset {}", self.position),
                n_bytes,
            ));
        };
        self.position += n_bytes;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16> {
        let raw = self.take(2)?;
        Ok(u16s(raw, self.encoding.order).first().copied().unwrap_or(0))
    }

    fn u32(&mut self) -> Result<u32> {
        let (first, second) = (u32::from(self.u16()?), u32::from(self.u16()?));
        Ok(match self.encoding.order {
            ByteOrder::Little => first | second << 16,
            ByteOrder::Big => first << 16 | second,
        })
    }

    pub(super) fn tag(&mut self) -> Result<Tag> {
        Ok(Tag(self.u16()?, self.u16()?))
    }

    fn header(&mut self) -> Result<Header> {
        let tag = self.tag()?;
        if !self.encoding.explicit || tag.0 == 0xFFFE {
            return Ok(Header {
                tag,
                vr: None,
                length: self.u32()?,
            });
        }
        let raw = self.take(2)?;
        let vr = raw.first_chunk::<2>().copied().unwrap_or_default();
        if !vr.iter().all(u8::is_ascii_uppercase) && vr != *b"??" {
            // An element without a representation inside an explicit data set: its four bytes
            // are an implicit length.
            self.position -= 2;
            return Ok(Header {
                tag,
                vr: None,
                length: self.u32()?,
            });
        }
        let length = if has_long_length(vr) {
            self.take(2)?;
            self.u32()?
        } else {
            u32::from(self.u16()?)
        };
        Ok(Header {
            tag,
            vr: Some(vr),
            length,
        })
    }

    pub(super) fn element(&mut self) -> Result<Element<'a>> {
        let Header { tag, vr, length } = self.header()?;
        let encoding = if vr == Some(*b"UN") {
            Encoding::IMPLICIT
        } else {
            self.encoding
        };
        if length != UNDEFINED {
            let value = match self.take(usize::try_from(length).unwrap_or(usize::MAX)) {
                // Pixels cut short: kept, so that the reader can say how many are missing.
                Err(_) if is_pixels(tag) => self.rest(),
                taken => taken?,
            };
            return Ok(Element {
                tag,
                value,
                undefined: false,
                is_words: vr == Some(*b"OW"),
                encoding,
            });
        }
        let start = self.position;
        let end = if is_pixels(tag) {
            self.skip_fragments()?
        } else {
            self.skip_items(encoding)?
        };
        let value = self.bytes.get(start..end).unwrap_or(&[]);
        Ok(Element {
            tag,
            value,
            undefined: true,
            is_words: false,
            encoding,
        })
    }

    fn rest(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.position..).unwrap_or(&[]);
        self.position = self.bytes.len();
        rest
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
                return Err(truncated("a sequence without its delimiter".into(), 8));
            }
            if inner.item()?.is_none() {
                self.position = inner.position;
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
        loop {
            let end = self.position;
            if self.is_at_end() {
                return Err(truncated("an item without its delimiter".into(), 8));
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

fn truncated(found: String, wanted: usize) -> Error {
    Error::refused(
        FORMAT,
        Code::Truncated,
        found,
        format!("{wanted} more bytes"),
    )
}

pub(super) fn too_deep(allowed: u64) -> Error {
    Error::LimitExceeded {
        what: "depth of nested sequences",
        allowed,
        asked: allowed + 1,
    }
}
