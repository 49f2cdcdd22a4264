//! Tag, value representation and length of one element, also where the representation is missing.
//!
//! # Source
//! DICOM PS3.5 section 7.1.

use dicom_core::Tag;

use super::cursor::{Cursor, UNDEFINED};
use super::plausible::{is_known, is_unstated};
use super::{FORMAT, VR_NAMES, name_of};
use crate::error::{Error, Result};

/// A way of writing an element that breaks the standard and is read all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Two blanks or zeros stand where the value representation belongs.
    NoRepresentation,
    /// A sequence of representation UN whose items state representations.
    ExplicitInUnknown,
}

impl Fault {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::NoRepresentation => "no value representation; read by the length that fits",
            Self::ExplicitInUnknown => "a UN sequence with explicit items, implicit ones wanted",
        }
    }
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

/// What stands before a value.
pub(super) struct Header {
    pub(super) tag: Tag,
    pub(super) vr: Option<[u8; 2]>,
    pub(super) length: u32,
    pub(super) fault: Option<Fault>,
}

impl Cursor<'_> {
    /// Reads tag, representation and length.
    pub(super) fn header(&mut self) -> Result<Header> {
        let tag = self.tag()?;
        if !self.encoding.explicit || tag.0 == 0xFFFE {
            return Ok(Header {
                tag,
                vr: None,
                length: self.u32()?,
                fault: None,
            });
        }
        let raw = self.take(2)?;
        let vr = raw.first_chunk::<2>().copied().unwrap_or_default();
        if is_unstated(vr) {
            self.position -= 2;
            return self.unstated(tag, vr);
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
            fault: None,
        })
    }

    /// Reads the length of an element without a representation inside an explicit data set: the
    /// length that leads to another element, or to the end, is the right one.
    fn unstated(&mut self, tag: Tag, vr: [u8; 2]) -> Result<Header> {
        let start = self.position;
        // An implicit length, and those of short and long representations.
        let readings: [fn(&mut Self) -> Result<u32>; 3] = [
            |at| at.u32(),
            |at| {
                at.take(2)?;
                at.u16().map(u32::from)
            },
            |at| {
                at.take(4)?;
                at.u32()
            },
        ];
        for (number, read) in readings.iter().enumerate() {
            let mut at = *self;
            at.position = start;
            let Ok(length) = read(&mut at) else { continue };
            if (length == UNDEFINED && number == 0) || at.leads_on(tag, length) {
                self.position = at.position;
                return Ok(Header {
                    tag,
                    vr: None,
                    length,
                    fault: (number > 0).then_some(Fault::NoRepresentation),
                });
            }
        }
        let length = self.u32()?;
        if matches!(vr, [0 | b' ', 0 | b' ']) {
            let found = format!("{} without a value representation", name_of(tag));
            let wanted = "one, or a length that leads to the next element";
            return Err(Error::malformed(FORMAT, found, wanted));
        }
        Ok(Header {
            tag,
            vr: None,
            length,
            fault: None,
        })
    }

    /// Returns true if a value of `length` ends where the bytes do or another element starts.
    fn leads_on(&self, tag: Tag, length: u32) -> bool {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(rest) = self.rest().get(length..) else {
            return false;
        };
        let mut next = Self::new(rest, self.encoding, 0, 0);
        let Ok(next_tag) = next.tag() else {
            return true;
        };
        let is_stated = next.rest().first_chunk::<2>();
        next_tag.0 == 0xFFFE
            || next_tag > tag
                && is_stated.is_none_or(|vr| VR_NAMES.contains(vr) || is_unstated(*vr))
                && is_known(next_tag)
    }
}
