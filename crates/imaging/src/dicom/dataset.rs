//! A DICOM data set as ranges of the file's bytes: nothing is copied, and nothing is reserved
//! for a length that the file only claims.
//!
//! dicom-rs' own object reader reserves declared lengths (up to 4 GiB) before it reads them, copies
//! the pixels, and refuses many files in the field; its tag dictionary is what we use.
//!
//! # Source
//! DICOM PS3.5 sections 7.1 to 7.5, PS3.10 section 7.1.

mod cursor;
mod header;
mod numbers;
mod plausible;
mod repairs;

use std::borrow::Cow;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

pub(crate) use self::cursor::starts_with_item;
use self::cursor::{Cursor, Element, too_deep, unknown_encodings};
use self::header::Fault;
pub(crate) use self::plausible::name_of;
use self::repairs::Repairs;
use super::codec::Codec;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::samples::ByteOrder;

const FORMAT: &str = "dicom";
/// Most elements of one data set, and most items of one sequence: an element takes 32 bytes.
const MAX_ELEMENTS: usize = 1 << 20;

/// How elements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// Byte order of everything.
    pub(crate) order: ByteOrder,
    /// True if each element states its value representation.
    pub(crate) explicit: bool,
}

impl Encoding {
    /// Implicit VR Little Endian, DICOM's default.
    pub(crate) const IMPLICIT: Self = Self {
        order: ByteOrder::Little,
        explicit: false,
    };
    /// Explicit VR Little Endian.
    pub(crate) const EXPLICIT: Self = Self {
        order: ByteOrder::Little,
        explicit: true,
    };
}

/// The elements of one level; sequences inside are parsed when they are asked for.
#[derive(Debug, Clone)]
pub(crate) struct DataSet<'a> {
    elements: Vec<Element<'a>>,
    encoding: Encoding,
    depth: u64,
    max_depth: u64,
    /// True if bytes too few for an element stand at the end, as in a cut file.
    has_rest: bool,
    repairs: Repairs,
}

impl<'a> DataSet<'a> {
    /// Parses one level of elements until the bytes end.
    pub(crate) fn parse(bytes: &'a [u8], encoding: Encoding, limits: &Limits) -> Result<Self> {
        let cursor = Cursor::new(bytes, encoding, 0, limits.max_depth);
        Self::parse_level(cursor, Repairs::default())
    }

    /// Parses one level up to its pixels, whose value is left empty: for files read only in part.
    pub(crate) fn parse_header(
        bytes: &'a [u8],
        encoding: Encoding,
        limits: &Limits,
    ) -> Result<Self> {
        let mut cursor = Cursor::new(bytes, encoding, 0, limits.max_depth);
        let mut set = Self::empty(&cursor, Repairs::default());
        while !cursor.is_at_end() {
            let tag = { cursor }.tag()?;
            if is_pixels(tag) {
                set.push(Element {
                    tag,
                    value: &[],
                    undefined: false,
                    is_cut: false,
                    is_words: false,
                    is_unknown: false,
                    encoding,
                    fault: None,
                })?;
                break;
            }
            set.push(cursor.element()?)?;
        }
        set.has_rest = cursor.rest().iter().any(|byte| *byte != 0);
        Ok(set)
    }

    fn parse_level(mut cursor: Cursor<'a>, repairs: Repairs) -> Result<Self> {
        let mut set = Self::empty(&cursor, repairs);
        while !cursor.is_at_end() {
            match cursor.element() {
                Ok(element) => set.push(element)?,
                // Padding or garbage behind the pixels is common, and harms nothing.
                Err(_) if set.elements.iter().any(|e| is_pixels(e.tag)) => break,
                Err(error) => return Err(error),
            }
        }
        set.has_rest = cursor.rest().iter().any(|byte| *byte != 0);
        Ok(set)
    }

    fn empty(cursor: &Cursor<'a>, repairs: Repairs) -> Self {
        Self {
            elements: Vec::new(),
            encoding: cursor.encoding,
            depth: cursor.depth,
            max_depth: cursor.max_depth,
            has_rest: false,
            repairs,
        }
    }

    fn push(&mut self, element: Element<'a>) -> Result<()> {
        if self.elements.len() >= MAX_ELEMENTS {
            return Err(too_many(self.elements.len()));
        }
        if let Some(fault) = element.fault {
            self.repaired(element.tag, fault.text());
        }
        self.elements.push(element);
        Ok(())
    }

    /// Remembers that an element was read although it is written wrongly, or contradicts others.
    pub(crate) fn repaired(&self, tag: Tag, fault: impl Into<Cow<'static, str>>) {
        self.repairs.add(tag, fault.into());
    }

    /// Returns what was repaired so far, also inside items: a sentence for each kind of fault.
    pub(crate) fn repairs(&self) -> Vec<String> {
        self.repairs.details()
    }

    /// Returns true if the bytes end with a piece of an element that is not zero: the file is cut.
    pub(crate) fn has_rest(&self) -> bool {
        self.has_rest
    }

    /// Returns true if the file ends before the declared length of a value.
    pub(crate) fn is_cut(&self, tag: Tag) -> bool {
        self.element(tag).is_some_and(|element| element.is_cut)
    }

    /// Returns true if there is no element.
    pub(crate) fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    fn element(&self, tag: Tag) -> Option<&Element<'a>> {
        self.elements.iter().find(|element| element.tag == tag)
    }

    /// Returns true if the element is there, even empty.
    pub(crate) fn has(&self, tag: Tag) -> bool {
        self.element(tag).is_some()
    }

    /// Returns the raw value.
    pub(crate) fn bytes(&self, tag: Tag) -> Option<&'a [u8]> {
        self.element(tag).map(|element| element.value)
    }

    /// Returns true if the element was written with undefined length.
    pub(crate) fn is_undefined(&self, tag: Tag) -> bool {
        self.element(tag).is_some_and(|element| element.undefined)
    }

    /// Returns true if each pair of bytes is swapped: big endian words that hold bytes.
    pub(crate) fn is_swapped(&self, tag: Tag) -> bool {
        self.encoding.order == ByteOrder::Big && self.element(tag).is_some_and(|e| e.is_words)
    }

    /// Returns the byte order of binary values.
    pub(crate) fn order(&self) -> ByteOrder {
        self.encoding.order
    }

    /// Returns a text value without padding, or `None` if absent or empty.
    pub(crate) fn text(&self, tag: Tag) -> Option<Cow<'a, str>> {
        let bytes = self.bytes(tag)?;
        let trimmed = trim(bytes);
        (!trimmed.is_empty()).then(|| String::from_utf8_lossy(trimmed))
    }

    /// Returns a value of representation CS if it keeps to CS' alphabet: safe to print.
    pub(crate) fn code(&self, tag: Tag) -> Option<String> {
        let text = self.text(tag)?;
        let first = text.split('\\').next()?.trim();
        let legal = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_' || c == ' ';
        (!first.is_empty() && first.len() <= 16 && first.chars().all(legal))
            .then(|| first.to_owned())
    }

    /// Returns every number of a DS or IS value; one that is no number makes it `None`.
    pub(crate) fn decimals(&self, tag: Tag) -> Option<Vec<f64>> {
        let text = self.text(tag)?;
        self.told(tag, numbers::separated(&text))
    }

    /// Returns the first number of a DS or IS value.
    pub(crate) fn decimal(&self, tag: Tag) -> Option<f64> {
        self.decimals(tag)?.first().copied()
    }

    /// Returns exactly `N` finite numbers.
    pub(crate) fn decimal_array<const N: usize>(&self, tag: Tag) -> Option<[f64; N]> {
        let text = self.text(tag)?;
        let array: [f64; N] = self
            .told(tag, numbers::exactly(&text, N))?
            .try_into()
            .ok()?;
        array.iter().all(|x| x.is_finite()).then_some(array)
    }

    /// Remembers what was wrong with numbers that somebody asked for.
    fn told(&self, tag: Tag, found: Option<numbers::Numbers>) -> Option<Vec<f64>> {
        let fault = match &found {
            Some(found) => found.fault,
            None => Some("not the numbers that belong there; not used"),
        };
        if let Some(fault) = fault {
            self.repaired(tag, fault);
        }
        found.map(|found| found.numbers)
    }

    /// Returns the numbers of a US value.
    pub(crate) fn u16s(&self, tag: Tag) -> Option<Vec<u16>> {
        Some(u16s(self.bytes(tag)?, self.encoding.order))
    }

    /// Returns the first number of a US value.
    pub(crate) fn u16(&self, tag: Tag) -> Option<u16> {
        self.u16s(tag)?.first().copied()
    }

    /// Returns the first number of a UL value.
    pub(crate) fn u32(&self, tag: Tag) -> Option<u32> {
        self.u32s(tag).first().copied()
    }

    /// Returns the first number of an FD value.
    pub(crate) fn f64(&self, tag: Tag) -> Option<f64> {
        let (chunks, _) = self.bytes(tag)?.as_chunks::<8>();
        let raw = chunks.first()?;
        Some(match self.encoding.order {
            ByteOrder::Little => f64::from_le_bytes(*raw),
            ByteOrder::Big => f64::from_be_bytes(*raw),
        })
    }

    /// Returns exactly `N` finite numbers of an FD value.
    pub(crate) fn f64_array<const N: usize>(&self, tag: Tag) -> Option<[f64; N]> {
        let (chunks, _) = self.bytes(tag)?.as_chunks::<8>();
        let parse = |raw: &[u8; 8]| match self.encoding.order {
            ByteOrder::Little => f64::from_le_bytes(*raw),
            ByteOrder::Big => f64::from_be_bytes(*raw),
        };
        let numbers: Vec<f64> = chunks.iter().map(parse).collect();
        let array: [f64; N] = numbers.try_into().ok()?;
        array.iter().all(|x| x.is_finite()).then_some(array)
    }

    /// Returns the numbers of a UL value.
    pub(crate) fn u32s(&self, tag: Tag) -> Vec<u32> {
        let (chunks, _) = self.bytes(tag).unwrap_or(&[]).as_chunks::<4>();
        let parse = |raw: &[u8; 4]| match self.encoding.order {
            ByteOrder::Little => u32::from_le_bytes(*raw),
            ByteOrder::Big => u32::from_be_bytes(*raw),
        };
        chunks.iter().map(parse).collect()
    }

    /// Returns the tags of an AT value.
    pub(crate) fn tags(&self, tag: Tag) -> Vec<Tag> {
        let numbers = self.u16s(tag).unwrap_or_default();
        let (pairs, _) = numbers.as_chunks::<2>();
        pairs
            .iter()
            .map(|&[group, element]| Tag(group, element))
            .collect()
    }

    /// Parses the items of a sequence; an absent sequence has none.
    pub(crate) fn items(&self, tag: Tag) -> Result<Vec<Self>> {
        self.leading_items(tag, usize::MAX)
    }

    /// Parses the first item of a sequence, and no other.
    pub(crate) fn first_item(&self, tag: Tag) -> Result<Option<Self>> {
        Ok(self.leading_items(tag, 1)?.pop())
    }

    fn leading_items(&self, tag: Tag, n: usize) -> Result<Vec<Self>> {
        let Some(element) = self.element(tag) else {
            return Ok(Vec::new());
        };
        if self.depth >= self.max_depth {
            return Err(too_deep(self.max_depth));
        }
        if !element.is_unknown || element.undefined {
            return self.items_as(element, element.encoding, n);
        }
        // A UN value of defined length: it was not parsed yet.
        let [first, second] = unknown_encodings(element.value);
        let (items, encoding) = match self.items_as(element, first, n) {
            Err(error @ Error::LimitExceeded { .. }) => return Err(error),
            Err(error) => (
                self.items_as(element, second, n).map_err(|_| error)?,
                second,
            ),
            Ok(items) => (items, first),
        };
        if encoding.explicit && !items.is_empty() {
            self.repaired(tag, Fault::ExplicitInUnknown.text());
        }
        Ok(items)
    }

    fn items_as(&self, element: &Element<'a>, encoding: Encoding, n: usize) -> Result<Vec<Self>> {
        let depth = self.depth + 1;
        let mut cursor = Cursor::new(element.value, encoding, depth, self.max_depth);
        let mut items = Vec::new();
        while let Some(item) = cursor.item()? {
            if items.len() >= MAX_ELEMENTS {
                return Err(too_many(items.len()));
            }
            let level = Cursor::new(item, encoding, depth, self.max_depth);
            items.push(Self::parse_level(level, self.repairs.clone())?);
            if items.len() == n {
                break;
            }
        }
        Ok(items)
    }
}

/// Splits the value of encapsulated pixels into the offset table and the fragments.
pub(crate) fn fragments<'a>(value: &'a [u8], limits: &Limits) -> Result<Vec<&'a [u8]>> {
    // Encapsulated pixels are always little endian (PS3.5 section A.4).
    let mut cursor = Cursor::new(value, Encoding::EXPLICIT, 0, 0);
    let mut fragments = Vec::new();
    while let Some(fragment) = cursor.item()? {
        limits.parts(fragments.len() as u64)?;
        fragments.push(fragment);
    }
    Ok(fragments)
}

/// Returns the first fragment that holds anything, without the offset table; of a value that has
/// no items, the value.
pub(crate) fn first_fragment(value: &[u8]) -> &[u8] {
    if !starts_with_item(value) {
        return value;
    }
    let mut cursor = Cursor::new(value, Encoding::EXPLICIT, 0, 0);
    let table = cursor.item().ok().flatten().unwrap_or(&[]);
    if Codec::of_stream(table).is_some() {
        return table;
    }
    while let Ok(Some(fragment)) = cursor.item() {
        if !fragment.is_empty() {
            return fragment;
        }
    }
    &[]
}

/// Returns true if a value is made of items from its start to its end, as encapsulated pixels are.
pub(crate) fn is_fragmented(value: &[u8], limits: &Limits) -> bool {
    starts_with_item(value) && fragments(value, limits).is_ok()
}

/// Reads numbers of 16 bits.
pub(crate) fn u16s(bytes: &[u8], order: ByteOrder) -> Vec<u16> {
    let (chunks, _) = bytes.as_chunks::<2>();
    let parse = |raw: &[u8; 2]| match order {
        ByteOrder::Little => u16::from_le_bytes(*raw),
        ByteOrder::Big => u16::from_be_bytes(*raw),
    };
    chunks.iter().map(parse).collect()
}

/// Removes the padding that DICOM allows around text.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let is_padding = |byte: &u8| matches!(byte, 0 | b' ');
    let start = bytes
        .iter()
        .position(|b| !is_padding(b))
        .unwrap_or(bytes.len());
    let end = bytes
        .iter()
        .rposition(|b| !is_padding(b))
        .map_or(start, |last| last + 1);
    bytes.get(start..end).unwrap_or(&[])
}

/// Returns where the leading elements of `group` end, written as explicit little endian.
pub(crate) fn end_of_group(bytes: &[u8], group: u16, limits: &Limits) -> Result<usize> {
    let (encoding, max_depth) = (Encoding::EXPLICIT, limits.max_depth);
    let mut cursor = Cursor::new(bytes, encoding, 0, max_depth);
    while !cursor.is_at_end() && { cursor }.tag()?.0 == group {
        cursor.element()?;
    }
    Ok(cursor.position)
}

fn is_pixels(tag: Tag) -> bool {
    matches!(
        tag,
        tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA
    )
}

/// Believes the first element where it contradicts the stated transfer syntax: some writers state
/// explicit and write implicit, or another byte order, or the reverse.
pub(crate) fn confirmed_encoding(bytes: &[u8], stated: Encoding) -> Encoding {
    let Some(&[g0, g1, _, _, v0, v1, l0, l1]) = bytes.first_chunk::<8>() else {
        return stated;
    };
    // A data set starts with one of the first groups.
    let order = match (g0, g1) {
        (1.., 0) => ByteOrder::Little,
        (0, 1..) => ByteOrder::Big,
        _ => stated.order,
    };
    // No representation at all says nothing; as implicit lengths these would be huge.
    let is_blank = [v0, v1] == *b"  " || [v0, v1] == [0, 0] && [l0, l1] != [0, 0];
    let explicit = match order {
        ByteOrder::Little if is_blank => stated.explicit,
        // Big endian is explicit in every transfer syntax.
        ByteOrder::Big if stated.order == ByteOrder::Big => stated.explicit,
        _ => VR_NAMES.contains(&[v0, v1]),
    };
    Encoding { order, explicit }
}

#[rustfmt::skip]
const VR_NAMES: [[u8; 2]; 34] = [
    *b"AE", *b"AS", *b"AT", *b"CS", *b"DA", *b"DS", *b"DT", *b"FL", *b"FD", *b"IS", *b"LO", *b"LT",
    *b"OB", *b"OD", *b"OF", *b"OL", *b"OV", *b"OW", *b"PN", *b"SH", *b"SL", *b"SQ", *b"SS", *b"ST",
    *b"SV", *b"TM", *b"UC", *b"UI", *b"UL", *b"UN", *b"UR", *b"US", *b"UT", *b"UV",
];

fn too_many(asked: usize) -> Error {
    Error::LimitExceeded {
        what: "elements of a data set",
        allowed: MAX_ELEMENTS as u64,
        asked: asked as u64 + 1,
    }
}
