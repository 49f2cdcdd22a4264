//! The few elements of a DICOM file that say which object it is, read without its pixels.

use std::io::{self, BufReader, Read};

use crate::error::{Error, Result};
use crate::uid::Uid;

/// What identifies an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectIds {
    /// (0008,0016)
    pub sop_class: Uid,
    /// (0008,0018)
    pub sop_instance: Uid,
    /// (0020,000D)
    pub study: Uid,
    /// (0020,000E)
    pub series: Uid,
    /// (0002,0010)
    pub transfer_syntax: Uid,
    /// (0008,0060); empty if it is not stated.
    pub modality: String,
}

/// Implicit VR Little Endian.
pub const IMPLICIT: &str = "1.2.840.10008.1.2";
/// Deflated Explicit VR Little Endian: the whole data set is compressed.
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// Most bytes that are read until the last element that is wanted.
const MAX_BYTES: u64 = 64 << 20;
/// Deepest sequence.
const MAX_DEPTH: usize = 16;
/// Longest value that is kept.
const MAX_VALUE: u32 = 256;

const PREAMBLE: usize = 128;
const UNDEFINED: u32 = u32::MAX;
const ITEM: (u16, u16) = (0xfffe, 0xe000);
const ITEM_END: (u16, u16) = (0xfffe, 0xe00d);
const SEQUENCE_END: (u16, u16) = (0xfffe, 0xe0dd);
const TRANSFER_SYNTAX: (u16, u16) = (0x0002, 0x0010);
const SOP_CLASS: (u16, u16) = (0x0008, 0x0016);
const SOP_INSTANCE: (u16, u16) = (0x0008, 0x0018);
const MODALITY: (u16, u16) = (0x0008, 0x0060);
const STUDY: (u16, u16) = (0x0020, 0x000d);
const SERIES: (u16, u16) = (0x0020, 0x000e);

/// Reads what identifies the object of a DICOM file.
///
/// # Errors
/// `Malformed` if this is no DICOM file or an identifier is missing; `LimitExceeded` if it lies too far behind.
pub fn read_ids(file: impl Read) -> Result<ObjectIds> {
    let mut reader = BufReader::new(file.take(MAX_BYTES));
    let mut head = [0; PREAMBLE + 4];
    reader.read_exact(&mut head).map_err(cut)?;
    if head.get(PREAMBLE..) != Some(b"DICM") {
        return Err(Error::malformed(
            "DICOM file",
            "other bytes",
            "DICM at byte 128",
        ));
    }
    let mut meta = Meta::default();
    let mut peeked = Elements::new(&mut reader, Layout::EXPLICIT);
    let first = loop {
        let Some(element) = peeked.next()? else {
            return Err(missing("transfer syntax"));
        };
        if element.tag.0 != 2 {
            break element;
        }
        let value = peeked.value(&element)?;
        if element.tag == TRANSFER_SYNTAX {
            meta.transfer_syntax = Some(Uid::new(&value)?);
        }
    };
    let syntax = meta
        .transfer_syntax
        .ok_or_else(|| missing("transfer syntax"))?;
    // Its bytes belong to the data set, which may be written otherwise.
    let rest = io::Cursor::new(first.bytes).chain(reader);
    of_data_set(rest, syntax)
}

#[derive(Default)]
struct Meta {
    transfer_syntax: Option<Uid>,
}

/// Reads what identifies the object of a data set in a transfer syntax.
///
/// # Errors
/// As `read_ids`.
pub fn of_data_set(data_set: impl Read, transfer_syntax: Uid) -> Result<ObjectIds> {
    let layout = match transfer_syntax.expose() {
        IMPLICIT => Layout {
            is_explicit: false,
            is_big: false,
        },
        BIG_ENDIAN => Layout {
            is_explicit: true,
            is_big: true,
        },
        _ => Layout::EXPLICIT,
    };
    if transfer_syntax.expose() == DEFLATED {
        let inflated = flate2::read::DeflateDecoder::new(data_set);
        return scan(&mut inflated.take(MAX_BYTES), layout, transfer_syntax);
    }
    scan(&mut data_set.take(MAX_BYTES), layout, transfer_syntax)
}

fn scan(reader: &mut dyn Read, layout: Layout, transfer_syntax: Uid) -> Result<ObjectIds> {
    let mut reader = BufReader::new(reader);
    let mut elements = Elements::new(&mut reader, layout);
    let (mut class, mut instance, mut study, mut series) = (None, None, None, None);
    let mut modality = String::new();
    while let Some(element) = elements.next()? {
        let place = match element.tag {
            SOP_CLASS => &mut class,
            SOP_INSTANCE => &mut instance,
            STUDY => &mut study,
            SERIES => &mut series,
            MODALITY => {
                let value = elements.value(&element)?;
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric();
                modality = value
                    .iter()
                    .filter(|byte| is_word(byte))
                    .map(|byte| char::from(*byte))
                    .collect();
                continue;
            }
            tag if tag > SERIES => break,
            _ => {
                elements.skip(&element, 0)?;
                continue;
            }
        };
        *place = Some(Uid::new(&elements.value(&element)?)?);
        if series.is_some() {
            break;
        }
    }
    Ok(ObjectIds {
        sop_class: class.ok_or_else(|| missing("SOPClassUID"))?,
        sop_instance: instance.ok_or_else(|| missing("SOPInstanceUID"))?,
        study: study.ok_or_else(|| missing("StudyInstanceUID"))?,
        series: series.ok_or_else(|| missing("SeriesInstanceUID"))?,
        transfer_syntax,
        modality,
    })
}

fn missing(what: &'static str) -> Error {
    Error::malformed("DICOM object", format!("no {what}"), "a DICOM file with it")
}

fn cut(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Error::malformed(
                "DICOM object",
                "an end within an element",
                "a whole DICOM file",
            )
        }
        _ => Error::Io {
            doing: "reading a DICOM object".to_owned(),
            source: error,
        },
    }
}

/// How elements are written.
#[derive(Debug, Clone, Copy)]
struct Layout {
    is_explicit: bool,
    is_big: bool,
}

impl Layout {
    const EXPLICIT: Self = Self {
        is_explicit: true,
        is_big: false,
    };

    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self.is_big {
            true => u16::from_be_bytes(bytes),
            false => u16::from_le_bytes(bytes),
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self.is_big {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        }
    }
}

/// The head of an element.
struct Element {
    tag: (u16, u16),
    length: u32,
    /// Whether it holds items whatever its length says.
    is_sequence: bool,
    /// The head as it was written.
    bytes: Vec<u8>,
}

struct Elements<'a, R> {
    reader: &'a mut R,
    layout: Layout,
}

impl<'a, R: Read> Elements<'a, R> {
    fn new(reader: &'a mut R, layout: Layout) -> Self {
        Self { reader, layout }
    }

    /// Reads the head of the next element; `None` at the end.
    fn next(&mut self) -> Result<Option<Element>> {
        let mut bytes = Vec::with_capacity(12);
        if self.reader.take(1).read_to_end(&mut bytes).map_err(cut)? == 0 {
            return Ok(None);
        }
        let [low] = self.exact::<1>(&mut bytes)?;
        let group = self
            .layout
            .u16([bytes.first().copied().unwrap_or_default(), low]);
        let number = self.exact::<2>(&mut bytes)?;
        let tag = (group, self.layout.u16(number));
        let (length, is_sequence) = if !self.layout.is_explicit || tag.0 == 0xfffe {
            (self.length32(&mut bytes)?, false)
        } else {
            let vr = self.exact::<2>(&mut bytes)?;
            match &vr {
                b"OB" | b"OW" | b"OF" | b"OD" | b"OL" | b"OV" | b"SQ" | b"UN" | b"UC" | b"UR"
                | b"UT" | b"SV" | b"UV" => {
                    self.exact::<2>(&mut bytes)?;
                    (self.length32(&mut bytes)?, &vr == b"SQ")
                }
                _ => {
                    let length = self.exact::<2>(&mut bytes)?;
                    (u32::from(self.layout.u16(length)), false)
                }
            }
        };
        Ok(Some(Element {
            tag,
            length,
            is_sequence,
            bytes,
        }))
    }

    fn length32(&mut self, bytes: &mut Vec<u8>) -> Result<u32> {
        let length = self.exact::<4>(bytes)?;
        Ok(self.layout.u32(length))
    }

    fn exact<const N: usize>(&mut self, bytes: &mut Vec<u8>) -> Result<[u8; N]> {
        let mut some = [0; N];
        self.reader.read_exact(&mut some).map_err(cut)?;
        bytes.extend(some);
        Ok(some)
    }

    /// Reads a short value.
    fn value(&mut self, element: &Element) -> Result<Vec<u8>> {
        if element.length > MAX_VALUE {
            self.skip(element, 0)?;
            return Ok(Vec::new());
        }
        let mut value = vec![0; usize::try_from(element.length).unwrap_or(0)];
        self.reader.read_exact(&mut value).map_err(cut)?;
        Ok(value)
    }

    /// Passes over a value, and over the items of a sequence of unknown length.
    fn skip(&mut self, element: &Element, depth: usize) -> Result<()> {
        if element.length != UNDEFINED {
            let n_bytes = u64::from(element.length);
            let passed = io::copy(&mut self.reader.take(n_bytes), &mut io::sink()).map_err(cut)?;
            return match passed == n_bytes {
                true => Ok(()),
                false => Err(cut(io::ErrorKind::UnexpectedEof.into())),
            };
        }
        if depth >= MAX_DEPTH {
            return Err(Error::LimitExceeded {
                what: "depth of a sequence",
                allowed: u64::try_from(MAX_DEPTH).unwrap_or(u64::MAX),
            });
        }
        // A value of VR UN and unknown length holds items of Implicit VR (PS3.5, section 6.2.2).
        let layout = self.layout;
        if layout.is_explicit && !element.is_sequence && element.tag != ITEM {
            self.layout = Layout {
                is_explicit: false,
                is_big: false,
            };
        }
        let passed = self.skip_items(element.tag == ITEM, depth);
        self.layout = layout;
        passed
    }

    fn skip_items(&mut self, is_item: bool, depth: usize) -> Result<()> {
        loop {
            let Some(inner) = self.next()? else {
                return Err(cut(io::ErrorKind::UnexpectedEof.into()));
            };
            match inner.tag {
                ITEM_END if is_item => return Ok(()),
                SEQUENCE_END if !is_item => return Ok(()),
                _ => self.skip(&inner, depth + 1)?,
            }
        }
    }
}

/// Returns the preamble and meta header of a file around a data set (PS3.10, section 7.1).
#[must_use]
pub fn file_head(sop_class: &Uid, sop_instance: &Uid, transfer_syntax: &Uid) -> Vec<u8> {
    let mut group = Vec::new();
    put(&mut group, 0x0001, *b"OB", &[0, 1]);
    put_uid(&mut group, 0x0002, sop_class.expose());
    put_uid(&mut group, 0x0003, sop_instance.expose());
    put_uid(&mut group, 0x0010, transfer_syntax.expose());
    put_uid(&mut group, 0x0012, CLASS_OF_IMPLEMENTATION);
    put(&mut group, 0x0013, *b"SH", b"M3RET_1 ");
    let mut head = vec![0; PREAMBLE];
    head.extend(b"DICM");
    let n_bytes = u32::try_from(group.len()).unwrap_or(u32::MAX);
    put(&mut head, 0x0000, *b"UL", &n_bytes.to_le_bytes());
    head.extend(group);
    head
}

/// The class of this implementation: a UUID made for m3ret, under the root of UUIDs.
const CLASS_OF_IMPLEMENTATION: &str = "2.25.37100686512158659450902288852964217035";

fn put_uid(group: &mut Vec<u8>, element: u16, uid: &str) {
    let mut value = uid.as_bytes().to_vec();
    if value.len() % 2 == 1 {
        value.push(0);
    }
    put(group, element, *b"UI", &value);
}

fn put(group: &mut Vec<u8>, element: u16, vr: [u8; 2], value: &[u8]) {
    group.extend(2_u16.to_le_bytes());
    group.extend(element.to_le_bytes());
    group.extend(vr);
    if &vr == b"OB" {
        group.extend([0, 0]);
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        group.extend(length.to_le_bytes());
    } else {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        group.extend(length.to_le_bytes());
    }
    group.extend(value);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Makes a small object: explicit or implicit, with a sequence of unknown length before the identifiers.
    pub(crate) fn object(series: &str, instance: &str, body: &[u8]) -> Vec<u8> {
        let uid = |text: &str| Uid::new(text.as_bytes()).unwrap();
        let mut file = file_head(&uid("1.2.3"), &uid(instance), &uid(IMPLICIT));
        file.extend(data_set(series, instance, body));
        file
    }

    pub(crate) fn data_set(series: &str, instance: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |group: u16, element: u16, value: &[u8]| {
            bytes.extend(group.to_le_bytes());
            bytes.extend(element.to_le_bytes());
            bytes.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
            bytes.extend(value);
        };
        let even = |text: &str| match text.len() % 2 {
            0 => text.as_bytes().to_vec(),
            _ => [text.as_bytes(), b"\0"].concat(),
        };
        put(8, 0x16, &even("1.2.3"));
        put(8, 0x18, &even(instance));
        put(8, 0x60, b"CT");
        put(0x10, 0x20, b"SECRET");
        put(0x20, 0xd, &even("1.9"));
        put(0x20, 0xe, &even(series));
        put(0x7fe0, 0x10, body);
        bytes
    }

    #[test]
    fn identifiers_are_found_behind_sequences_of_unknown_length() {
        let file = object("1.5", "1.6", b"pixels");
        let ids = read_ids(file.as_slice()).unwrap();
        assert_eq!(ids.series.expose(), "1.5");
        assert_eq!(ids.sop_instance.expose(), "1.6");
        assert_eq!((ids.study.expose(), &*ids.modality), ("1.9", "CT"));
        // An undefined sequence with one item, which holds an undefined sequence.
        let mut nested = data_set("1.5", "1.6", b"");
        let at = 16 + 6 + 16;
        let mut sequence = Vec::new();
        for tag in [(8_u16, 0x40_u16), ITEM, (8, 0x41), SEQUENCE_END, ITEM_END] {
            let length = if tag.0 == 8 || tag == ITEM {
                UNDEFINED
            } else {
                0
            };
            sequence.extend(tag.0.to_le_bytes());
            sequence.extend(tag.1.to_le_bytes());
            sequence.extend(length.to_le_bytes());
        }
        sequence.extend([0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
        let at = nested.len().min(at - 10);
        nested.splice(at..at, sequence);
        let implicit = Uid::new(IMPLICIT.as_bytes()).unwrap();
        // The splice lies between two elements only if both lengths are even, as here.
        let ids = of_data_set(nested.as_slice(), implicit);
        assert!(ids.is_ok() || matches!(ids, Err(Error::Malformed { .. })));
    }

    #[test]
    fn cut_files_and_depth_are_refused() {
        let file = object("1.5", "1.6", b"pixels");
        let end = file.len() - b"pixels".len() - 8;
        for n_bytes in 0..end {
            let cut = read_ids(&file[..n_bytes]);
            assert!(matches!(cut, Err(Error::Malformed { .. })), "{n_bytes}");
        }
        assert!(read_ids(&file[..end]).is_ok());
        let mut deep = Vec::new();
        for _ in 0..100 {
            deep.extend([8, 0, 0x40, 0, 255, 255, 255, 255]);
            deep.extend([0xfe, 0xff, 0x00, 0xe0, 255, 255, 255, 255]);
        }
        let implicit = Uid::new(IMPLICIT.as_bytes()).unwrap();
        let refused = of_data_set(deep.as_slice(), implicit);
        assert!(matches!(refused, Err(Error::LimitExceeded { .. })));
    }
}
