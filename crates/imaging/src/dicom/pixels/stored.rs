//! The codec that stored pixels have, which is not always the one that the transfer syntax states.
//!
//! # Source
//! DICOM PS3.5 annex A.

use dicom_dictionary_std::tags;

use super::FORMAT;
use crate::dicom::codec::Codec;
use crate::dicom::codestream;
use crate::dicom::dataset::{DataSet, first_fragment, is_fragmented, name_of, starts_with_item};
use crate::error::{Error, Result};
use crate::limits::Limits;

/// Finds the codec that the pixels have, which may not be that of the transfer syntax.
///
/// # Errors
/// `Malformed` names the transfer syntax if it states native pixels and a codec is at work that
/// the bytes do not tell.
pub(crate) fn stored_codec(set: &DataSet<'_>, stated: Codec, limits: &Limits) -> Result<Codec> {
    let Some(value) = set.bytes(tags::PIXEL_DATA) else {
        // Floating-point pixels are always native.
        return Ok(Codec::Native);
    };
    let found = if set.is_undefined(tags::PIXEL_DATA) {
        in_fragments(set, stated, first_fragment(value))?
    } else {
        of_defined_length(set, value, stated, limits)?
    };
    if found != stated {
        let fault = format!(
            "states {}, PixelData holds {}; read as that",
            stated.name(),
            found.name()
        );
        set.repaired(tags::TRANSFER_SYNTAX_UID, fault);
    }
    Ok(found)
}

/// A defined length means native pixels, unless the value is made of items or is a codestream.
fn of_defined_length(
    set: &DataSet<'_>,
    value: &[u8],
    stated: Codec,
    limits: &Limits,
) -> Result<Codec> {
    let stream = Codec::of_stream(value);
    let has_items = starts_with_item(value);
    if stream.is_none() && !has_items {
        return Ok(Codec::Native);
    }
    if fits_native(set, value) && (stated == Codec::Native || !has_items) {
        return Ok(Codec::Native);
    }
    if is_fragmented(value, limits) {
        return in_fragments(set, stated, first_fragment(value));
    }
    // A codestream without items, or native pixels of another length than promised.
    Ok(stream.unwrap_or(Codec::Native))
}

/// Returns true for JPEG streams of a DCT process: the transfer syntax may hide them.
pub(crate) fn is_lossy(set: &DataSet<'_>, codec: Codec) -> bool {
    let first = first_fragment(set.bytes(tags::PIXEL_DATA).unwrap_or(&[]));
    codec == Codec::Jpeg && codestream::jpeg(first).is_ok_and(|stream| !stream.is_lossless())
}

fn in_fragments(set: &DataSet<'_>, stated: Codec, first: &[u8]) -> Result<Codec> {
    let frame = promised_bytes(set, 1);
    let is_frame =
        frame.is_some_and(|n| [n, n.next_multiple_of(2)].contains(&(first.len() as u64)));
    let has_no_magic = matches!(stated, Codec::DeflatedFrames | Codec::Rle | Codec::Video(_));
    let is_native = match Codec::of_stream(first) {
        Some(_) => stated == Codec::EncapsulatedNative,
        None => !has_no_magic,
    };
    if is_frame && is_native {
        return Ok(Codec::EncapsulatedNative);
    }
    match (Codec::of_stream(first), stated) {
        // Markers alone do not tell the two apart where the frame header is in a later fragment.
        (Some(Codec::Jpeg), Codec::JpegLs) if codestream::jpeg_process(first).is_none() => {
            Ok(stated)
        }
        (Some(found), _) => Ok(found),
        (None, Codec::Native) => {
            let found = format!(
                "encapsulated pixels of no known codec under a native {}",
                name_of(tags::TRANSFER_SYNTAX_UID)
            );
            let wanted = "native pixels, or a JPEG, JPEG-LS, JPEG 2000, JPEG XL or RLE codestream";
            Err(Error::malformed(FORMAT, found, wanted))
        }
        (None, stated) => Ok(stated),
    }
}

/// Returns the bytes of a number of native frames by the header's labels, as far as they are stored.
fn promised_bytes(set: &DataSet<'_>, n_frames: u64) -> Option<u64> {
    let sides = [
        tags::ROWS,
        tags::COLUMNS,
        tags::SAMPLES_PER_PIXEL,
        tags::BITS_ALLOCATED,
    ];
    let bits = sides.iter().try_fold(n_frames, |product, &tag| {
        product.checked_mul(u64::from(super::stated(set, tag).ok()?.unwrap_or(1)))
    })?;
    Some(bits.div_ceil(8))
}

/// Returns true if a value has the length of native frames: as promised, rounded, or more of them.
fn fits_native(set: &DataSet<'_>, value: &[u8]) -> bool {
    let n_frames = super::n_frames(set).unwrap_or(1);
    let n_bytes = value.len() as u64;
    let fits = |wanted: u64| wanted > 0 && (n_bytes | 1) == (wanted | 1);
    let promised = promised_bytes(set, n_frames);
    // Half the differences are left out at 4:2:2.
    let halved = promised.map(|n| n / 3 * 2);
    let is_more = promised_bytes(set, 1).is_some_and(|n| n > 0 && n_bytes.is_multiple_of(n));
    n_bytes > 0 && (promised.is_some_and(fits) || halved.is_some_and(fits) || is_more)
}
