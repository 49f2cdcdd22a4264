//! Whether bytes that claim to be an element can be one: asked only where a data set runs off.

use dicom_core::Tag;
use dicom_core::dictionary::DataDictionary as _;
use dicom_dictionary_std::StandardDataDictionary;

use super::Encoding;
use crate::samples::ByteOrder;

/// Returns true if two bytes are no representation, not even one of the future or `??`.
pub(super) fn is_unstated(vr: [u8; 2]) -> bool {
    !vr.iter().all(u8::is_ascii_uppercase) && vr != *b"??"
}

/// Returns true for private tags and for those of the standard's dictionary.
pub(super) fn is_known(tag: Tag) -> bool {
    tag.0 % 2 == 1 || StandardDataDictionary.by_tag(tag).is_some()
}

/// Returns true if pixels follow somewhere in `rest` and end where it ends: then the bytes did not
/// end, and the length that led beyond them is wrong.
pub(super) fn leaves_pixels_behind(rest: &[u8], encoding: Encoding) -> bool {
    let start: [u8; 4] = match encoding.order {
        ByteOrder::Little => [0xE0, 0x7F, 0x10, 0x00],
        ByteOrder::Big => [0x7F, 0xE0, 0x00, 0x10],
    };
    let starts = rest.windows(4).enumerate().filter(|(_, w)| *w == start);
    starts.map(|(at, _)| at).any(|at| {
        let n_header = if encoding.explicit { 12 } else { 8 };
        let raw = rest.get(at + n_header - 4..).and_then(|r| r.first_chunk());
        let length = raw.map(|raw: &[u8; 4]| match encoding.order {
            ByteOrder::Little => u32::from_le_bytes(*raw),
            ByteOrder::Big => u32::from_be_bytes(*raw),
        });
        let left = rest.len().saturating_sub(at + n_header);
        match length {
            Some(u32::MAX) => rest.ends_with(&[0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]),
            Some(length) => usize::try_from(length).is_ok_and(|n| n > 0 && n == left),
            None => false,
        }
    })
}

/// Names a tag as messages do: keyword and number.
pub(crate) fn name_of(tag: Tag) -> String {
    match StandardDataDictionary.by_tag(tag) {
        Some(entry) if tag.0.is_multiple_of(2) => format!("{} {tag}", entry.alias),
        _ => format!("{tag}"),
    }
}
